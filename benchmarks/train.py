"""Speed of `fit` beside a bare step: how much of the machine training gets.

    python benchmarks/train.py [--size 256] [--backbone resnet18] [--batch 8] [--steps 12] [--rounds 3] [--workers N]
        [--precision fp32|bf16] [--processor-time] [--smoke]

The bare step: forward, loss, backward and AdamW on batches in memory. `fit`: whole steps with loading, augmentation,
clipping and all else, in the same precision, without validation and without the first epoch; from the chips' files
with and without decoded chips in memory, and from a decoded cache. They alternate: in each round the speed of `fit` is
divided by the mean of the bare step's before and after it, and the median of the rounds counts. And the time from the
first call of `model.fit` to its first batch. Chips are cut from the sample data. On a busy machine use
`--processor-time`. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from statistics import median
from types import SimpleNamespace
from unittest.mock import patch

import numpy as np
import torch
from common import option_parser, print_json, table

from geopsp import PSPNetClassifier, export_training_data, prepare_data
from geopsp.core.sample_data import SCENES, find_sample_data
from geopsp.data.dataset import Sample
from geopsp.models.losses import LossSpec, total_loss
from geopsp.models.network import SegmentationNetwork
from geopsp.models.precision import NetworkPrecision, network_autocast
from geopsp.training.fit import fit
from geopsp.training.lightning_module import SegmentationTask
from geopsp.training.options import FitOptions
from geopsp.training.training_data import TrainingData

LOSSES = LossSpec()
WARM_UP = 2


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--size", type=int, default=256)
    parser.add_argument("--backbone", default="resnet18")
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--steps", type=int, default=12, help="steps of each measurement")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=None)
    parser.add_argument("--precision", default="fp32", choices=("fp32", "bf16"), help="of both; default: fp32")
    parser.add_argument("--processor-time", action="store_true", help="of this process, instead of wall time")
    options = parser.parse_args()
    clock = time.process_time if options.processor_time else time.perf_counter
    if options.smoke:
        options.size, options.batch, options.steps, options.rounds, options.workers = 64, 2, 2, 1, 0
        options.backbone = "tu-test_resnet"
    with tempfile.TemporaryDirectory() as scratch:
        settings = make_data(options, Path(scratch))
        with patch("geopsp.training.callbacks.time", SimpleNamespace(monotonic=clock)):
            model = PSPNetClassifier(settings["fit, files"], options.backbone, encoder_weights=None, device="cpu")
            first = first_batch_seconds(model, clock)
            rates, ratios = measure(model.model.network, settings, options, clock)
        loading = {name: loading_seconds(data, clock) for name, data in settings.items()}
    rows = [["bare step", median(rates["bare"]), 1.0, 0.0]]
    rows += [[name, median(rates[name]), median(ratios[name]), 1e3 * loading[name]] for name in settings]
    print(table(["training", "images/s", "of the bare step", "loading a chip, ms"], rows))
    print(f"first batch after the call of fit: {first:.2f} s")
    best = max(settings, key=lambda name: median(ratios[name]))
    print_json(
        {f"{name}: efficiency": median(ratios[name]) for name in settings}
        | {
            "first batch, s": first,
            "setting": best,
            "threads": torch.get_num_threads(),
            "loader_efficiency": median(ratios[best]),
        }
    )


def make_data(options: argparse.Namespace, folder: Path) -> dict[str, TrainingData]:
    """Return as many chips as the steps need, from files and from a cache, and one to validate on."""
    sample = find_sample_data()
    export_training_data(
        [sample / name for name in (SCENES[:1] if options.smoke else SCENES)],
        f"{sample / 'labels.gpkg'}|layername=landcover",
        folder / "chips",
        "landcover",
        options.size,
        6 * options.size if options.smoke else None,
        background="ignore",
        aoi=f"{sample / 'labels.gpkg'}|layername=aoi",
    )
    settings = {}
    for name, cache in (("fit, files", None), ("fit, memory", None), ("fit, cache", folder / "cache")):
        data = prepare_data(folder / "chips", batch_size=options.batch, workers=options.workers, cache=cache)
        rows = np.resize(data.train_rows, options.steps * options.batch)
        settings[name] = replace(data, train_rows=rows, valid_rows=data.valid_rows[:1])
    settings["fit, files"].decoder = None
    return settings


def measure(
    network: SegmentationNetwork,
    settings: dict[str, TrainingData],
    options: argparse.Namespace,
    clock: Callable[[], float],
) -> tuple[dict[str, list[float]], dict[str, list[float]]]:
    """Return images per second, and their ratio to the bare step, of each round."""
    batches = list(settings["fit, cache"].train_dl)
    rates: dict[str, list[float]] = {"bare": []} | {name: [] for name in settings}
    ratios: dict[str, list[float]] = {name: [] for name in settings}
    bare = partial(bare_speed, network, precision=options.precision, clock=clock)
    bare(batches[:WARM_UP])
    for _ in range(options.rounds):
        before = bare(batches)
        rates["bare"].append(before)
        for name, data in settings.items():
            speed, after = fit_speed(network, data, options.precision), bare(batches)
            rates[name].append(speed)
            rates["bare"].append(after)
            ratios[name].append(speed / ((before + after) / 2))
            before = after
    return rates, ratios


def bare_speed(
    network: SegmentationNetwork, batches: list[Sample], *, precision: NetworkPrecision, clock: Callable[[], float]
) -> float:
    """Return images per second of forward, loss, backward and the optimizer's step."""
    network.train().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(network.parameters(), 1e-4, fused=True)
    start = clock()
    for batch in batches:
        with network_autocast(precision, torch.device("cpu")):
            output = network(batch.image, batch.valid)
        total_loss(output, batch.label, batch.valid, LOSSES, None).backward()
        optimizer.step()
        optimizer.zero_grad()
    return sum(len(batch.image) for batch in batches) / (clock() - start)


def fit_speed(network: SegmentationNetwork, data: TrainingData, precision: NetworkPrecision) -> float:
    """Return images per second of the second epoch of `fit`."""
    history: list[dict[str, float]] = []
    fit_options = FitOptions(epochs=2, lr=(1e-4, 1e-4), checkpoint=False, precision=precision)
    fit(network, data.loaders, legend=data.legend, losses=LOSSES, weight=None, options=fit_options, history=history)
    return history[-1]["images"] / history[-1]["train_seconds"]


def first_batch_seconds(model: PSPNetClassifier, clock: Callable[[], float]) -> float:
    """Return the seconds from the call of `model.fit` to its first step, for which its batch is there."""
    inner, begun = SegmentationTask.training_step, list[float]()

    def training_step(task: SegmentationTask, batch: Sample, number: int) -> None:
        begun.append(clock())
        inner(task, batch, number)

    with patch.object(SegmentationTask, "training_step", training_step):
        start = clock()
        model.fit(1, checkpoint=False, calibrate=None)
    return begun[0] - start


def loading_seconds(data: TrainingData, clock: Callable[[], float]) -> float:
    """Return the seconds to read and augment a chip in this process, over an epoch after one to warm up."""
    batches = replace(data, workers=0).train_dl
    count = sum(len(batch.image) for batch in batches)
    start = clock()
    for _ in batches:
        pass
    return (clock() - start) / count


if __name__ == "__main__":
    main()
