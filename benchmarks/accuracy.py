"""Accuracy of the parts of the network, one by one, beside smp's networks, on real imagery at equal training time.

    python benchmarks/accuracy.py DATA [--seconds S] [--seeds 0,1] [--only NAMES] [--data-sets NAMES] [--work DIR]
    python benchmarks/accuracy.py --smoke

DATA holds folders `buildings` and `dubai` (see docs/benchmarks.md). Every network has the same encoder, EfficientNet-
Lite0 with ImageNet weights, the same chips (at half the images' resolution), augmentation, loss, optimizer and
schedule, by the same training loop, and as many whole epochs as fit into the seconds at its own pace, which is measured
beforehand with all networks in turn. Scores are of the last weights on scenes without training chips. Runs are kept in
DIR/runs.jsonl, so that an interrupted benchmark resumes. Prints a table and, last, one line of JSON. `--smoke` makes up
its data and takes one network of each kind, from random weights.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import segmentation_models_pytorch as smp
import torch
from common import lite0_weights, option_parser, print_json, table, toy_data
from rasterio.enums import Resampling
from safetensors.torch import load_file
from torch import Tensor, nn

from geopsp import FCNClassifier, PixelClassifier, PSPNetClassifier, export_training_data, prepare_data
from geopsp.chips.chip_set import ChipSet
from geopsp.data.dataset import TiledChipDataset
from geopsp.data.loader import tile_loader
from geopsp.models.build import count_parameters
from geopsp.models.losses import LossSpec, total_loss
from geopsp.models.network import TrainingOutput
from geopsp.training.evaluate import evaluate
from geopsp.training.fit import fit
from geopsp.training.metrics import Confusion
from geopsp.training.options import FitOptions
from geopsp.training.training_data import TrainingData

BACKBONE = "tu-tf_efficientnet_lite0"
BATCH, RATE, ROUNDS = 4, 1e-3, 4
STRIDE = 16
BuildNetwork = Callable[[TrainingData, Path | None], nn.Module]


class SmpNetwork(nn.Module):
    """A network of smp with the output of ours."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    @property
    def encoder(self) -> nn.Module:
        return self.inner.encoder  # type: ignore[no-any-return]

    def forward(self, image: Tensor, valid: Tensor | None = None) -> Tensor | TrainingOutput:
        logits = self.inner(image)
        return TrainingOutput(logits, None, None, None) if self.training else logits


def ours(kind: Callable[..., PixelClassifier], **options: Any) -> BuildNetwork:
    """Return a function that builds a network of geopsp."""

    def build(data: TrainingData, weights: Path | None) -> nn.Module:
        return kind(data, BACKBONE, encoder_weights=weights, **({"output_stride": STRIDE} | options)).model.network

    return build


def theirs(kind: Callable[..., nn.Module]) -> BuildNetwork:
    """Return a function that builds a network of smp."""

    def build(data: TrainingData, weights: Path | None) -> nn.Module:
        inner = kind(BACKBONE, encoder_weights=None, in_channels=len(data.chips.bands), classes=data.c)
        if weights:
            # some networks have an encoder with fewer stages
            state, own = load_file(weights), inner.encoder.state_dict()
            inner.encoder.load_state_dict({name: state[name] for name in own})
        return SmpNetwork(inner)

    return build


PARTS: dict[str, BuildNetwork] = {
    "FCN": ours(FCNClassifier, aux_loss=False),
    "+ aux": ours(FCNClassifier),
    "+ pyramid": ours(PSPNetClassifier, use_unet=False),
    "+ U-Net": ours(PSPNetClassifier, unet_aux_loss=True),
    "+ PointRend": ours(PSPNetClassifier, unet_aux_loss=True, pointrend=True),
    "+ U-Net at stride 32": ours(PSPNetClassifier, unet_aux_loss=True, output_stride=32),
    "pyramid on 3 stages": ours(PSPNetClassifier, use_unet=False, encoder_depth=3),
    "pyramid + U-Net on 3 stages": ours(PSPNetClassifier, unet_aux_loss=True, encoder_depth=3),
    "from scratch": ours(PSPNetClassifier, unet_aux_loss=True),
}
PEERS: dict[str, BuildNetwork] = {
    "smp Unet": theirs(smp.Unet),
    "smp PSPNet": theirs(smp.PSPNet),
    "smp DeepLabV3Plus": theirs(smp.DeepLabV3Plus),
    "smp FPN": theirs(smp.FPN),
}
NETWORKS = PARTS | PEERS


def export(data: Path, name: str, size: int, work: Path) -> tuple[list[Path], list[Path]]:
    """Export the chips of a data set; return the folders to train and to test on."""
    if name == "buildings":
        files = {i: (data / f"buildings/area{i}.tif", data / f"buildings/area{i}_buildings.geojson") for i in (1, 4, 5)}
        train, test, stride = (1, 4), (5,), size
    else:  # every fourth chip of these larger scenes
        files = {i: (data / f"dubai/scene{i}.tif", data / f"dubai/scene{i}_labels.tif") for i in (1, 3, 4, 6, 7, 8)}
        train, test, stride = (4, 6, 7, 8), (1, 3), 2 * size
    for i in (*train, *test):
        image, labels = files[i]
        if not (work / name / str(i)).exists():
            half = halved(image, work / f"{name}-{i}.tif")
            export_training_data(half, labels, work / name / str(i), tile_size=size, stride=stride)
    return [work / name / str(i) for i in train], [work / name / str(i) for i in test]


def halved(image: Path, out: Path) -> Path:
    """Write the image at half its resolution, each pixel the mean of four; return the path."""
    with rasterio.open(image) as source:
        height, width = source.height // 2, source.width // 2
        data = source.read(out_shape=(source.count, height, width), resampling=Resampling.average)
        mask = source.dataset_mask(out_shape=(height, width))
        scale = source.transform @ source.transform.scale(source.width / width, source.height / height)
        profile = {"driver": "GTiff", "dtype": data.dtype, "count": len(data), "height": height, "width": width}
        with rasterio.open(out, "w", crs=source.crs, transform=scale, **profile) as file:
            file.write(data)
            file.write_mask(mask)
    return out


def paces(data: TrainingData, names: list[str]) -> dict[str, float]:
    """Return the seconds of a training step of each network, the least of some rounds in turn."""
    batch = next(iter(data.train_dl))
    networks = {name: NETWORKS[name](data, None).train().to(memory_format=torch.channels_last) for name in names}
    seconds = dict.fromkeys(names, float("inf"))
    for _ in range(ROUNDS):
        for name, network in networks.items():
            start = time.perf_counter()
            output = network(batch.image, batch.valid)
            total_loss(output, batch.label, batch.valid, LossSpec(), None).backward()
            seconds[name] = min(seconds[name], time.perf_counter() - start)
    return seconds


def score(network: nn.Module, data: TrainingData, test: ChipSet) -> Confusion:
    chips = test.with_legend(data.legend)
    rows = np.flatnonzero(chips.index["labelled"] > 0)
    dataset = TiledChipDataset(chips, rows, data.train_ds.normalization, size=data.chip_size)
    return evaluate(network, tile_loader(dataset, BATCH), data.legend)


def run(name: str, data: TrainingData, test: ChipSet, weights: Path | None, epochs: int, seed: int) -> dict[str, Any]:
    """Train a network, and return its scores."""
    data = replace(data, seed=seed)
    torch.manual_seed(seed)
    network = NETWORKS[name](data, None if name == "from scratch" else weights)
    history: list[dict[str, float]] = []
    fit_options = FitOptions(epochs, (RATE, RATE), checkpoint=False, seed=seed)
    fit(
        network, data.loaders, legend=data.legend, losses=LossSpec(), weight=None, options=fit_options, history=history
    )  # fmt: skip
    found = score(network, data, test)
    return {
        "miou": found.mean_iou(),
        "boundary": found.mean_boundary_iou(),
        "accuracy": found.accuracy(),
        "iou": found.iou().tolist(),
        "seconds": sum(row["train_seconds"] for row in history),
        "steps": epochs * len(data.train_dl),
        "parameters": count_parameters(network) / 1e6,
    }


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--seconds", type=float, default=120.0, help="training time of each run")
    parser.add_argument("--seeds", default="0,1")
    parser.add_argument("--size", type=int, default=128, help="side of the chips in pixels")
    parser.add_argument("--only", default=",".join(NETWORKS))
    parser.add_argument("--data-sets", default="buildings,dubai")
    parser.add_argument("--work", type=Path, help="folder of chips and results, to resume; default: a temporary one")
    options = parser.parse_args()
    if options.data is None and not options.smoke:
        parser.error("DATA is missing: the folder of the real imagery.")
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        if options.smoke:
            options.data = toy_data(work / "toy", ("area1", "area4", "area5"), 384)
            options.seconds, options.seeds, options.size, options.data_sets = 0.01, "0", 32, "buildings"
            options.only = "FCN,smp Unet"
        compare(options, work)


def compare(options: argparse.Namespace, work: Path) -> None:
    """Train all networks on all data sets with all seeds, but for the runs that are done; print the results."""
    weights = None if options.smoke else lite0_weights(work)
    journal, sets = work / "runs.jsonl", {}
    for name in options.data_sets.split(","):
        train, test = export(options.data, name, options.size, work)
        data = prepare_data(train, None, 0.1, BATCH, cache=work / "cache")
        sets[name] = replace(data, valid_rows=data.valid_rows[:2]), ChipSet.open(test)
    names = options.only.split(",")
    pace = _paces(work / "paces.json", next(iter(sets.values()))[0], names)
    for seed, (name, (data, test)), network in product(map(int, options.seeds.split(",")), sets.items(), names):
        key = {"data": name, "network": network, "seed": seed, "budget": options.seconds, "size": options.size}
        if any(key.items() <= row.items() for row in _rows(journal)):
            continue
        epochs = max(1, round(options.seconds / (pace[network] * len(data.train_dl))))
        found = run(network, data, test, weights, epochs, seed)
        with journal.open("a") as file:
            file.write(json.dumps(key | found | {"pace": pace[network]}) + "\n")
        print(key, {k: found[k] for k in ("miou", "boundary", "seconds", "steps")}, flush=True)
    print(f"\nEncoder weights: {'ImageNet (lite0)' if weights else 'none'}")
    report([row for row in _rows(journal) if row["budget"] == options.seconds and row["size"] == options.size])


def _paces(path: Path, data: TrainingData, names: list[str]) -> dict[str, float]:
    """Read the paces of networks from a file; measure and add those that are missing."""
    seconds: dict[str, float] = json.loads(path.read_text()) if path.exists() else {}
    missing = [name for name in names if name not in seconds]
    if missing:
        seconds |= paces(data, missing)
        path.write_text(json.dumps(seconds))
    return seconds


def _rows(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def report(rows: list[dict[str, Any]]) -> None:
    """Print mean and spread over seeds, and the best of ours over the best of smp's."""
    result: dict[str, Any] = {}
    header = ["data", "network", "parameters, M", "steps", "seconds", "mIoU", "boundary IoU", "seeds"]
    lines = []
    for data in dict.fromkeys(row["data"] for row in rows):
        for name in NETWORKS:
            runs = [row for row in rows if (row["data"], row["network"]) == (data, name)]
            if not runs:
                continue
            miou, boundary = (np.array([row[key] for row in runs]) for key in ("miou", "boundary"))
            steps, seconds = (round(float(np.mean([row[key] for row in runs]))) for key in ("steps", "seconds"))
            result |= {f"{data}: {name}: miou": float(miou.mean()), f"{data}: {name}: boundary": float(boundary.mean())}
            scores = [f"{values.mean():.3f} ± {values.std():.3f}" for values in (miou, boundary)]
            lines.append([data, name, f"{runs[0]['parameters']:.1f}", steps, seconds, *scores, len(runs)])
        best, peer = (
            max((result.get(f"{data}: {name}: miou", 0.0) for name in names), default=0.0) for names in (PARTS, PEERS)
        )
        if best and peer:
            result[f"{data}: best of ours / best of smp"] = best / peer
    print(table(header, lines))
    print_json(result)


if __name__ == "__main__":
    main()
