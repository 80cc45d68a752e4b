"""What a training run will cost in steps, time, memory and disk space, before its first step."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import Any

import torch

from geopsp.core.options import option_fields
from geopsp.core.text import format_count, format_duration
from geopsp.models.device import pick_device
from geopsp.models.memory import WEIGHT_COPIES, free_memory, restored, step_bytes, weight_bytes
from geopsp.training.classifier import PixelClassifier
from geopsp.training.evaluate import to_device
from geopsp.training.fit_options import FitOptions, RunConfig
from geopsp.training.step import eval_if_frozen, make_batch, step_loss
from geopsp.training.training_data import TrainingData

TIMED_STEPS = 2
"""Steps that are timed, after a first one that does not count."""

DISK_COPIES = 5
"""Sizes of the weights that a run takes on the disk: the model, and four for the checkpoints."""

GIB = 2**30


@dataclass(frozen=True, slots=True)
class TrainingCost:
    """What a training run costs."""

    lines: tuple[str, ...]
    """In words."""

    seconds: float
    """Of all steps, or the time that was given; without validation."""

    num_bytes: int
    """Of what is written while it trains."""


def estimate_training(classifier: PixelClassifier, **options: Any) -> TrainingCost:
    """Return what `fit` with these options would do, and what it would cost; the network does not change.

    Time and memory are measured with a few steps of one batch, in float32, without saving anything.

    Raises:
        OptionError: if an option is out of range.
        TrainingError: if memory is too small for a step.
    """
    given = FitOptions(**{name: options[name] for name in option_fields(FitOptions) if name in options})
    run = RunConfig(**{name: options[name] for name in option_fields(RunConfig) if name in options})
    data = classifier.data
    assert data is not None, "a classifier of the shell has data"
    batch, chips, checks = data.loaders.batch_size, len(data.loaders.train), len(data.loaders.valid)
    steps = max(1, chips // batch)
    size = f"{data.chip_size} x {data.chip_size} pixels"
    parts = f"{format_count(chips, 'training chip')} and {format_count(checks, 'validation tile')} of {size}"
    lines = [f"{parts}; {format_count(steps, 'step')} of {batch} chips an epoch."]
    device = pick_device(run.device or classifier.device)
    seconds = _step_seconds(classifier, data, device)
    if given.minutes is not None:
        lines.append(f"{given.minutes:g} min: about {max(1, round(60 * given.minutes / seconds)):,} steps on {device}.")
        total = 60 * given.minutes
    else:
        epochs = given.num_epochs
        total = epochs * steps * seconds
        lines.append(
            f"{format_count(epochs, 'epoch')}: {epochs * steps:,} steps of {seconds:.2g} s on {device}, about "
            f"{format_duration(total)}, and validation after each epoch."
        )
    weights = weight_bytes(classifier.model.network)
    lines.append(_memory(classifier, device, batch, weights))
    return TrainingCost(tuple(lines), total, DISK_COPIES * weights)


def _step_seconds(classifier: PixelClassifier, data: TrainingData, device: torch.device) -> float:
    """Return the shortest time of a step; weights and statistics stay as they are."""
    network = classifier.model.network
    loaders = replace(data.loaders, workers=0)
    best = float("inf")
    with restored(network), torch.random.fork_rng(devices=[]):
        network.to(device).to(memory_format=torch.channels_last).train()
        eval_if_frozen(network.encoder)
        batch = make_batch(to_device(next(iter(loaders.train_loader())), device), data.legend, classifier.model.losses)
        for step in range(1 + TIMED_STEPS):
            start = time.perf_counter()
            step_loss(network, batch, classifier.model.losses, None).backward()  # type: ignore[no-untyped-call]
            if device.type == "cuda":
                torch.cuda.synchronize(device)
            best = min(best, time.perf_counter() - start) if step else best
    return best


def _memory(classifier: PixelClassifier, device: torch.device, batch: int, weights: int) -> str:
    network, size = classifier.model.network, classifier.model.tile_size
    one = step_bytes(network, torch.zeros(1, classifier.model.spec.bands, size, size), device)
    needed, free = (batch * one + WEIGHT_COPIES * weights) / GIB, free_memory(device) / GIB
    return (
        f"Memory: about {needed:.1f} GiB for a step, {free:.1f} GiB free. Disk: {weights / 2**20:.0f} MiB for the "
        "model, four times as much for the checkpoints while it trains."
    )
