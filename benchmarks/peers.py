"""Speed and memory of other packages that classify a scene.

    python benchmarks/peers.py [--rounds 3] [--folder FOLDER] [--python PYTHON] [--smoke]

TorchGeo, geoai and Raster Vision classify a scene of 4096 x 4096 x 3 bytes (deflate, blocks of 512) with a network of
one convolution to six classes: tiles of 512 that overlap by 64, batches of 4, one band of classes written. Each does it
as its documentation shows; TorchGeo has no stitching, so there the loop is what its users write: the later tile wins.
Each is one process: on two cores another process that loads made two of them 5 to 17 % faster, not the fastest. They
live in an environment of their own, installed from PyPI on first use (7 GB, Python from 3.12 on) into the user's cache
or FOLDER. Each run is a process of its own, which does the job twice: the first time does not count (imports, file
caches). Runs alternate, the median counts. Prints a table and, last, one line of JSON. `--smoke` installs nothing.
"""

from __future__ import annotations

import argparse
import json
import logging
import os
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from common import medians, option_parser, peak_mb, print_json, run_json, table

PINS = """\
torch==2.15.0
segmentation-models-pytorch==0.6.0
rastervision-core==0.31.1
rastervision-pytorch-learner==0.31.1
torchgeo==0.10.1
geoai-py==0.43.1
"""

SIDE, TILE, OVERLAP, BATCH, CLASSES = 4096, 512, 64, 4, 6


def default_folder() -> Path:
    """Return the folder of the peers' environment in the user's cache."""
    cache = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache"))
    return cache / "geopsp" / "peers"


def is_installed(folder: Path) -> bool:
    """Return True if the folder is an environment with the peers in these versions."""
    pins = folder / "pins.txt"
    return pins.is_file() and pins.read_text() == PINS


def environment(folder: Path | None = None, python: str | None = None) -> Path:
    """Return the Python of an environment with the peers, which is made if there is none."""
    folder = folder or default_folder()
    found = folder / "bin" / "python"
    if is_installed(folder):
        return found
    print(f"Installing the peers into {folder}; this takes minutes and 7 GB.", flush=True)
    subprocess.run([python or sys.executable, "-m", "venv", "--clear", folder], check=True)
    requirements = folder / "requirements.txt"
    requirements.write_text(PINS)
    subprocess.run([found, "-m", "pip", "install", "-q", "--no-cache-dir", "-r", requirements], check=True)
    requirements.rename(folder / "pins.txt")
    return found


def network() -> Any:
    """Return one convolution, 3 x 3, of three bands to six classes."""
    import torch

    torch.manual_seed(0)
    return torch.nn.Conv2d(3, CLASSES, 3, padding=1).eval()


def torchgeo(scene: Path, out: Path) -> None:
    """Classify with its dataset, grid sampler and collation; the loop and the stitching are the user's."""
    import numpy as np
    import rasterio
    import torch
    from torch.utils.data import DataLoader
    from torchgeo.datasets import RasterDataset, stack_samples
    from torchgeo.samplers import GriddedPatchSampler

    model = network()
    dataset = RasterDataset(scene)
    sampler = GriddedPatchSampler(dataset, size=TILE, stride=TILE - OVERLAP)
    with rasterio.open(scene) as source:
        profile, inverse, height, width = source.profile, ~source.transform, source.height, source.width
    codes = np.zeros((height, width), np.uint8)
    with torch.inference_mode():
        loader = DataLoader(dataset, sampler=sampler, batch_size=BATCH, collate_fn=stack_samples)
        for batch in loader:
            indices = model(batch["image"] / 255).argmax(dim=1).numpy()
            for index, bounds in zip(indices, batch["bounds"], strict=True):
                left, top = float(bounds[0]), float(bounds[4])
                col, row = (round(value) for value in inverse * (left, top))
                window = codes[row : row + TILE, col : col + TILE]
                window[:] = index[: window.shape[0], : window.shape[1]]
    with rasterio.open(out / "map.tif", "w", **profile | {"count": 1}) as target:
        target.write(codes, 1)


def geoai(scene: Path, out: Path) -> None:
    """Classify with `predict_geotiff`, which blends."""
    from geoai.inference import predict_geotiff

    predict_geotiff(
        network(), str(scene), str(out / "map.tif"), tile_size=TILE, overlap=OVERLAP, batch_size=BATCH,
        num_classes=CLASSES, output_dtype="uint8", output_nodata=255, device="cpu", verbose=False,
        preprocess_fn=lambda data: data / 255, postprocess_fn=lambda scores: scores.argmax(axis=0)[None],
    )  # fmt: skip


def rastervision(scene: Path, out: Path) -> None:
    """Classify with a sliding window dataset and smooth labels, which blend; the loop is the user's."""
    import torch
    from rastervision.core.data import ClassConfig, SemanticSegmentationLabels
    from rastervision.pytorch_learner import SemanticSegmentationSlidingWindowGeoDataset
    from torch.utils.data import DataLoader

    model = network()
    names = ClassConfig(names=[f"class {i}" for i in range(CLASSES)], null_class="class 0")
    dataset = SemanticSegmentationSlidingWindowGeoDataset.from_uris(
        image_uri=str(scene), class_config=names, size=TILE, stride=TILE - OVERLAP,
        image_raster_source_kw={"allow_streaming": True},
    )  # fmt: skip

    def predictions() -> Iterator[Any]:
        with torch.inference_mode():
            for image, _ in DataLoader(dataset, batch_size=BATCH):
                yield from model(image).softmax(dim=1).numpy()

    labels = SemanticSegmentationLabels.from_predictions(
        dataset.windows, predictions(), extent=dataset.scene.extent, num_classes=CLASSES, smooth=True
    )
    transformer = dataset.scene.raster_source.crs_transformer
    labels.save(str(out / "map"), crs_transformer=transformer, class_config=names, smooth_output=False)


PEERS = {"TorchGeo": torchgeo, "geoai": geoai, "Raster Vision": rastervision}


def measure(name: str, python: Path, scene: Path, folder: Path) -> dict[str, float]:
    """Return seconds and peak memory in MB of a peer, from a process of its own."""
    return run_json(python, __file__, "--run", name, scene, tempfile.mkdtemp(dir=folder))


def one_run(name: str, scene: Path, folder: Path) -> dict[str, float]:
    """Classify twice, and return the seconds of the second time and the peak memory in MB."""
    warnings.simplefilter("ignore")
    logging.disable()
    for number in range(2):
        out = folder / str(number)
        out.mkdir()
        start = time.perf_counter()
        PEERS[name](scene, out)
        seconds = time.perf_counter() - start
    return {"seconds": seconds, "peak_mb": peak_mb()}


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="the environment of the peers; made if there is none")
    parser.add_argument("--python", help="the Python to make it with, 3.12 or later; default: this one")
    parser.add_argument("--run", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        name, *paths = options.run
        print(json.dumps(one_run(name, *map(Path, paths))))
        return
    from chips import make_scene

    folder = options.folder or default_folder()
    if options.smoke and not is_installed(folder):
        print_json({"skipped": f"The other packages are not installed in {folder}."})
        return
    python, side = environment(folder, options.python), 1024 if options.smoke else SIDE
    with tempfile.TemporaryDirectory() as temporary:
        scene = Path(temporary) / "scene.tif"
        make_scene(scene, side)
        runs: dict[str, list[dict[str, float]]] = {name: [] for name in PEERS}
        for _ in range(1 if options.smoke else options.rounds):
            for name, found in runs.items():
                found.append(measure(name, python, scene, scene.parent))
    peers = {name: medians(found) for name, found in runs.items()}
    speeds = {name: side**2 / 1e6 / peer["seconds"] for name, peer in peers.items()}
    rows = [[name, peer["seconds"], speeds[name], round(peer["peak_mb"])] for name, peer in peers.items()]
    print(table(["package", "s", "Mpx/s", "peak MB"], rows))
    print_json(speeds)


if __name__ == "__main__":
    main()
