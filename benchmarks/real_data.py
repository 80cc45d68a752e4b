"""The whole workflow on real imagery, through the command line, beside a plain smp U-Net.

    python benchmarks/real_data.py DATA [--minutes M] [--only buildings,dubai,landsat] [--work DIR]
    python benchmarks/real_data.py --smoke

DATA holds folders `buildings`, `dubai` and `landsat_nc` (see docs/benchmarks.md). The U-Net is trained for as many
seconds as geopsp's training took, on the same chips, with the same split, normalisation, augmentation and optimizer.
Both start from the same encoder weights. Prints a table and, last, one line of JSON. `--smoke` makes up its data, and
starts from random weights.
"""

from __future__ import annotations

import json
import tempfile
import time
from dataclasses import dataclass, replace
from itertools import count
from pathlib import Path

import numpy as np
import segmentation_models_pytorch as smp
import torch
from common import lite0_weights, option_parser, print_json, run_geopsp, table, toy_data
from safetensors.torch import load_file

from geopsp import prepare_data
from geopsp.chips.chip_set import ChipSet
from geopsp.core.bands import Normalization
from geopsp.data.dataset import TiledChipDataset
from geopsp.data.loader import tile_loader
from geopsp.models.losses import cross_entropy
from geopsp.training.evaluate import evaluate
from geopsp.training.learning_rates import WEIGHT_DECAY
from geopsp.training.metrics import Confusion
from geopsp.training.options import CLIP
from geopsp.training.schedule import rate_factor
from geopsp.training.training_data import TrainingData

BACKBONE = "tu-tf_efficientnet_lite0"
BATCH, RATE = 8, 1e-3
HEADER = ["data", "network", "training s", "mIoU", "accuracy", "IoU by class", "map s"]


@dataclass(frozen=True)
class Job:
    """A data set: images with labels, to train and to test on; each gets its own chip folder."""

    name: str
    train: tuple[tuple[Path, Path], ...]
    test: tuple[tuple[Path, Path], ...]
    """Empty: scored on the validation blocks."""

    size: int
    """Side of the chips in pixels."""

    epochs_per_minute: float
    options: tuple[str, ...] = ()
    """Options of `geopsp chips` for the training chips."""


def jobs(data: Path) -> list[Job]:
    """Return the data sets. Buildings and Dubai are split by scene, Landsat by blocks; Dubai uses every ninth chip."""
    area = {i: (data / f"buildings/area{i}.tif", data / f"buildings/area{i}_buildings.geojson") for i in (1, 4, 5)}
    scene = {i: (data / f"dubai/scene{i}.tif", data / f"dubai/scene{i}_labels.tif") for i in (1, 3, 4, 6, 7, 8)}
    landsat = (data / "landsat_nc/lsat7_2000.tif", data / "landsat_nc/landclass96.tif")
    return [
        Job("buildings", (area[1], area[4]), (area[5],), 256, 0.8),
        Job("dubai", tuple(scene[i] for i in (4, 6, 7, 8)), (scene[1], scene[3]), 256, 1.5, ("--stride", "768")),
        Job("landsat", (landsat,), (), 64, 12),
    ]


def export(pairs: tuple[tuple[Path, Path], ...], size: int, folder: Path, options: tuple[str, ...] = ()) -> list[Path]:
    """Export each image that has no chip folder yet; return the folders."""
    folders = [folder / image.stem for image, _ in pairs]
    for (image, labels), out in zip(pairs, folders, strict=True):
        if not out.exists():
            run_geopsp("chips", image, "--labels", labels, "--out", out, "--size", str(size), *options)
    return folders


def ours(job: Job, train: list[Path], folder: Path, minutes: float, weights: Path | None) -> tuple[Path, float]:
    """Train; return the model's folder, and the seconds of its epochs."""
    epochs = max(1, round(job.epochs_per_minute * minutes))
    options = {"--backbone": BACKBONE, "--epochs": epochs, "--lr": RATE, "--batch-size": BATCH, "--output-stride": 16}
    options |= {"--weights": weights or "none", "--monitor": "valid_miou"}
    arguments = (str(part) for pair in options.items() for part in pair)
    run_geopsp("train", *train, "--out", folder / "model", "--overwrite", *arguments)
    history = json.loads((folder / "model" / "model.json").read_text())["history"]
    return folder / "model", sum(row["seconds"] for row in history)


def smp_unet(data: TrainingData, seconds: float, weights: Path | None) -> torch.nn.Module:
    """Train a U-Net of smp for so many seconds by the same recipe."""
    torch.manual_seed(0)
    network = smp.Unet(BACKBONE, encoder_weights=None, in_channels=len(data.chips.bands), classes=data.c)
    if weights:
        network.encoder.load_state_dict(load_file(weights))
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=WEIGHT_DECAY)
    start, progress, batches = time.perf_counter(), 0.0, data.train_dl
    network.train()
    for epoch in count():
        batches.sampler.set_epoch(epoch)
        for batch in batches:
            for group in optimizer.param_groups:
                group["lr"] = RATE * rate_factor(progress)
            loss = cross_entropy(network(batch.image), batch.label)
            optimizer.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(network.parameters(), CLIP)
            optimizer.step()
            progress = (time.perf_counter() - start) / seconds
            if progress >= 1:
                return network.eval()
    raise AssertionError


class ImageOnly(torch.nn.Module):
    """A network that ignores the valid mask."""

    def __init__(self, network: torch.nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor, valid: torch.Tensor) -> torch.Tensor:
        return self.network(image)


def score(network: torch.nn.Module, data: TrainingData, test: list[Path]) -> Confusion:
    if not test:
        return evaluate(ImageOnly(network), data.valid_dl, data.legend)
    chips = ChipSet.open(test)
    rows = np.flatnonzero(chips.index["labelled"] > 0)
    dataset = TiledChipDataset(chips, rows, Normalization.from_stats(data.statistics), size=data.chip_size)
    return evaluate(ImageOnly(network), tile_loader(dataset, BATCH), data.legend)


def run(job: Job, work: Path, minutes: float, weights: Path | None) -> list[list[object]]:
    """Export, train, score and map one data set; return a row for geopsp and one for the U-Net."""
    folder = work / job.name
    train = export(job.train, job.size, folder / "train", job.options)
    test = export(job.test, job.size, folder / "test")
    weights = weights if len(ChipSet.open(train).bands) == 3 else None
    model, seconds = ours(job, train, folder, minutes, weights)
    found = json.loads((model / "model.json").read_text())["metrics"]
    if test:
        run_geopsp("evaluate", model, *test, "--json", folder / "scores.json", "--overwrite")
        found = json.loads((folder / "scores.json").read_text())
    image = (job.test or job.train)[0][0]
    outputs = ("--out", folder / "map.tif", "--polygons", folder / "map.gpkg", "--overwrite")
    _, map_seconds = run_geopsp("predict", model, image, *outputs)
    data = prepare_data(train, batch_size=BATCH)
    peer = score(smp_unet(data, seconds, weights), data, test)
    ours_iou = _by_class(data.classes, [found["per_class"][name]["iou"] for name in data.classes])
    peer_iou = _by_class(data.classes, peer.iou().tolist())
    return [
        [job.name, "geopsp PSPNet", round(seconds), found["miou"], found["accuracy"], ours_iou, round(map_seconds)],
        [job.name, "smp U-Net", round(seconds), peer.mean_iou(), peer.accuracy(), peer_iou, ""],
    ]


def _by_class(names: list[str], values: list[float]) -> str:
    return ", ".join(f"{name} {value:.2f}" for name, value in zip(names, values, strict=True))


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=3.0, help="training time of each data set on 2 cores, roughly")
    parser.add_argument("--only", default="buildings,dubai,landsat")
    parser.add_argument("--work", type=Path, help="folder for chips and models; default: a temporary one")
    options = parser.parse_args()
    if options.data is None and not options.smoke:
        parser.error("DATA is missing: the folder of the real imagery.")
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        chosen = options.only.split(",")
        if options.smoke:
            options.data = toy_data(work / "toy", ("area1", "area4", "area5"))
            options.minutes, chosen = 0.1, ["buildings"]
        weights = None if options.smoke else lite0_weights(work)
        rows = []
        for job in jobs(options.data):
            if job.name in chosen:
                rows += run(replace(job, size=32) if options.smoke else job, work, options.minutes, weights)
                print(table(HEADER, rows[-2:]), flush=True)
        print(f"\nEncoder weights: {'ImageNet (lite0)' if weights else 'none'}; 3-band data only")
        print(table(HEADER, rows))
        print_json({f"{row[0]}_{'ours' if 'geopsp' in str(row[1]) else 'smp'}_miou": row[3] for row in rows})


if __name__ == "__main__":
    main()
