"""Encoder weights of many bands beside random ones: those of ukis-csmask, converted for geopsp.

    python benchmarks/multispectral.py DATA [--seeds 0,1] [--convert FOLDER] [--smoke]

ukis-csmask (PyPI, Apache-2.0) has four U-Nets for Sentinel-2 and Landsat with EfficientNet-B4 encoders, as ONNX. Their
encoders are written as .safetensors with the names of their bands, which `encoder_weights=FILE` then matches to those
of the images; `--convert` keeps the files. Needs `pip install --no-deps ukis-csmask==1.0.0` and `pip install onnx`.

DATA holds `landsat_nc/` (6 bands, 7 classes) and `sentinel2/` (12 bands, 4 classes, few polygons). A PSPNet is trained
at output stride 32 for 5 epochs, some 15 and 5 steps, from these weights and from random ones, otherwise alike, and
scored on validation blocks. Prints how the running variances compare with those that the filters predict, a table of
scores, and last one line of JSON.
"""

from __future__ import annotations

import json
import tempfile
import time
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import rasterio
import torch
from common import option_parser, print_json, table, toy_data
from safetensors.torch import load_file, save_file

from geopsp import PSPNetClassifier, export_training_data, prepare_data
from geopsp.models.stem import response_variance

BACKBONE = "efficientnet-b4"
PREFIX = "model.encoder."
RATE = 1e-3


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--convert", type=Path, help="folder that keeps the converted weights")
    options = parser.parse_args()
    package = find_spec("ukis_csmask")
    if package is None or package.origin is None or find_spec("onnx") is None:
        print_json({"skipped": "needs ukis-csmask and onnx"})
        return
    with tempfile.TemporaryDirectory() as scratch:
        folder = options.convert or Path(scratch) / "weights"
        files = {path.stem: convert(path, folder) for path in sorted(Path(package.origin).parent.glob("*.onnx"))}
        print(table(["network", "bands", "running variance / predicted"], list(map(variance, files.values()))))
        data = toy_data(Path(scratch), ("toy",)) if options.smoke else options.data
        if data is None:
            parser.error("DATA is missing")
        sets = toy_set(data, Path(scratch)) if options.smoke else data_sets(data, Path(scratch))
        seeds, rows, gains = [0] if options.smoke else [int(seed) for seed in options.seeds.split(",")], [], {}
        for name, chips, epochs, weights in sets:
            found = {}
            for label, given in (("random", None), (files[weights].stem, files[weights])):
                found[label] = [train(chips, given, epochs, seed) for seed in seeds]
                miou, accuracy, seconds = np.mean(found[label], axis=0).tolist()
                by_seed = ", ".join(f"{each:.3f}" for each, *_ in found[label])
                rows.append([name, label, epochs, round(seconds), miou, by_seed, accuracy])
            random, pretrained = (float(np.mean([miou for miou, *_ in each])) for each in found.values())
            gains |= {f"{name}_random": random, f"{name}_pretrained": pretrained}
    print(table(["data", "weights", "epochs", "CPU seconds", "mIoU", "by seed", "accuracy"], rows))
    print_json(gains)


def convert(path: Path, folder: Path) -> Path:
    """Write the encoder of an ONNX file of ukis-csmask as .safetensors with the names of its bands; return the file."""
    import onnx

    folder.mkdir(parents=True, exist_ok=True)
    bands = json.loads(path.with_suffix(".json").read_text())["data"]["dataset_statistics"]["band_names"]
    state = {
        tensor.name.removeprefix(PREFIX): torch.tensor(onnx.numpy_helper.to_array(tensor), dtype=torch.float32)
        for tensor in onnx.load(path).graph.initializer
        if tensor.name.startswith(PREFIX)
    }
    out = folder / f"csmask-{path.stem}.safetensors"
    save_file(state, out, metadata={"bands": ",".join(bands)})
    return out


def variance(path: Path) -> list[str]:
    """Return how well the filters of the first layer predict the running variance behind it."""
    state = load_file(path)
    filters, seen = state["_conv_stem.weight"], state["_bn0.running_var"]
    return [path.stem, str(filters.shape[1]), f"{float(seen.sum()) / float(response_variance(filters).sum()):.3f}"]


DataSet = tuple[str, Path, int, str]
"""Name, chip folder, epochs, and which network of ukis-csmask has the bands."""


def data_sets(folder: Path, scratch: Path) -> Iterator[DataSet]:
    """Yield the data sets."""
    landsat, sentinel, chips = folder / "landsat_nc", folder / "sentinel2", scratch / "chips"
    export_training_data(landsat / "lsat7_2000.tif", landsat / "landclass96.tif", chips / "landsat", tile_size=64)
    yield "landsat", chips / "landsat", 5, "model_6b_l1c"
    export_training_data(
        sentinel / "sen2.tif", sentinel / "sen2_polygons.geojson", chips / "sentinel2", tile_size=64, stride=32,
        class_field="class", background="ignore",
    )  # fmt: skip
    yield "sentinel2", chips / "sentinel2", 5, "model_6b_l2a"


def toy_set(folder: Path, scratch: Path) -> Iterator[DataSet]:
    """Yield one set of toy size."""
    image, labels = folder / "buildings/toy.tif", folder / "buildings/toy_buildings.geojson"
    with rasterio.open(image, "r+") as dataset:
        dataset.descriptions = ("red", "green", "blue")
    export_training_data(image, labels, scratch / "chips", tile_size=64)
    yield "toy", scratch / "chips", 1, "model_4b_l2a"


def train(chips: Path, weights: Path | None, epochs: int, seed: int) -> tuple[float, float, float]:
    """Train a network; return mIoU, accuracy, and seconds of the CPU."""
    data = prepare_data(chips, batch_size=8, seed=seed, val_split_pct=0.25, workers=0)
    model = PSPNetClassifier(data, BACKBONE, encoder_weights=weights, output_stride=32, device="cpu")
    start = time.process_time()
    model.fit(epochs, lr=RATE, monitor="valid_miou")
    scores = model.evaluate()
    return scores.mean_iou(), scores.accuracy(), time.process_time() - start


if __name__ == "__main__":
    main()
