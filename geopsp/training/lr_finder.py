"""A learning rate from short trainings.

Lightning's own finder raises the rate from step to step and looks at the training loss. That tells neither how well a
rate does at its end, nor on validation chips: over six data sets it was no better than the rates by rule
(docs/benchmarks.md).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Iterator, Sequence
from itertools import count, islice

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.options import require_int
from geopsp.core.progress import progress_bar
from geopsp.data.dataset import Sample
from geopsp.data.loader import ChipLoaders, tile_loader
from geopsp.data.validation_sample import sample_tiles
from geopsp.errors import TrainingError
from geopsp.models.device import (
    autocast,
    device_name,
    half_type,
    has_bfloat16,
    has_float16_only,
    memory_format,
    pick_device,
)  # fmt: skip
from geopsp.models.loss_options import LossSpec
from geopsp.models.losses import ignore_channels
from geopsp.models.network import SegmentationNetwork, mask_channels
from geopsp.training.evaluate import to_device
from geopsp.training.fit_options import CLIP
from geopsp.training.learning_rates import make_optimizer
from geopsp.training.schedule import rate_factor
from geopsp.training.step import MicroBatchGradients, eval_if_frozen, make_batch

logger = logging.getLogger(__name__)

FACTORS = (0.1, 0.3, 1.0, 3.0, 10.0)
"""The learning rates that are tried, as factors of the one by rule."""


MARGIN = 0.05
"""By how much, of the loss at the rate by rule, the loss at another must be lower: less is chance in so few steps."""


MIN_STEPS = 2 * len(FACTORS)
"""Fewest steps of all trainings together."""


NUM_TILES = 128
"""Validation tiles that each training is scored on, about."""


def find_lr(
    network: SegmentationNetwork,
    loaders: ChipLoaders,
    *,
    legend: Legend,
    losses: LossSpec,
    weight: Tensor | None,
    rule: float,
    steps: int,
    device: str | None = None,
) -> tuple[float, list[float], list[float]]:
    """Train shortly at each of some learning rates; return the best rate, the rates, and the validation loss of each.

    All trainings begin with the same weights, see the same chips, and follow the schedule of `fit`. Afterwards the
    network is as it was.

    Args:
        network: To train.
        loaders: Of its chips.
        legend: Its classes.
        losses: What it minimises.
        weight: (classes,) of the loss.
        rule: The learning rate by rule, which is one of them.
        steps: Of all trainings together.
        device: As torch names it; None: the first GPU, else the CPU.

    Raises:
        OptionError: if there are too few steps.
        TrainingError: if memory does not hold a single chip, or no training ends with a finite loss.
    """
    require_int("steps", steps, minimum=MIN_STEPS)
    where, each = pick_device(device), steps // len(FACTORS)
    rates = [float(f"{rule * factor:.3g}") for factor in FACTORS]
    logger.info(f"Trying {len(rates)} learning rates, {each} steps each, on {device_name(where)}")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    valid = tile_loader(sample_tiles(loaders.valid, NUM_TILES), loaders.batch_size, workers=loaders.workers)
    found = []
    try:
        with progress_bar("Learning rates") as progress:
            for number, rate in enumerate(rates):
                network.load_state_dict(before)
                torch.manual_seed(loaders.seed)
                for step in _train(
                    network, loaders, rate, each, legend=legend, losses=losses, weight=weight, device=where
                ):
                    progress(number * each + step, len(rates) * each)
                found.append(_validation_loss(network, valid, losses.ignored(legend), where))
                logger.info(f"Learning rate {rate:g}: validation loss {found[-1]:.4f}")
    finally:
        network.cpu().load_state_dict(before)
        network.zero_grad()
        network.eval()
    return best_rate(rates, found), rates, found


def best_rate(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the rate with the lowest loss; the one by rule, in the middle, if that is hardly lower.

    Raises:
        TrainingError: if no loss is finite.
    """
    finite = [(loss, rate) for loss, rate in zip(losses, rates, strict=True) if math.isfinite(loss)]
    if not finite:
        raise TrainingError(
            f"The validation loss is not finite at any learning rate from {rates[0]:g} to {rates[-1]:g}. Check the "
            "chips for extreme pixel values, and that the validation chips have labels."
        )
    (lowest, best), middle = min(finite), len(rates) // 2
    return best if not lowest >= (1 - MARGIN) * losses[middle] else rates[middle]


def _train(
    network: SegmentationNetwork,
    loaders: ChipLoaders,
    rate: float,
    steps: int,
    *,
    legend: Legend,
    losses: LossSpec,
    weight: Tensor | None,
    device: torch.device,
) -> Iterator[int]:
    """Train some steps with the optimizer, precision, layout and schedule of `fit`; yield how many are done."""
    half = has_bfloat16(device) or has_float16_only(device)
    network.to(device).to(memory_format=memory_format(device, half=half)).train()
    eval_if_frozen(network.encoder)
    weight = None if weight is None else weight.to(device)
    compute_gradients = MicroBatchGradients(losses, loaders.batch_size)
    optimizer = make_optimizer(network, (rate, rate), device)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    scaler = torch.amp.GradScaler(device.type, enabled=has_float16_only(device))

    def scaled_backward(loss: Tensor) -> None:
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    for step, sample in enumerate(islice(_samples(loaders), steps), 1):
        for group in optimizer.param_groups:
            group["lr"] = rate * rate_factor((step - 1) / steps)
        batch = make_batch(to_device(sample, device), legend, losses)
        with torch.autocast(device.type, half_type(device), enabled=half):
            compute_gradients(network, batch, weight, backward=scaled_backward)
        scaler.unscale_(optimizer)
        nn.utils.clip_grad_norm_(parameters, CLIP)
        scaler.step(optimizer)
        scaler.update()
        yield step


def _samples(loaders: ChipLoaders) -> Iterator[Sample]:
    """Return the batches of one epoch after the other."""
    loader = loaders.train_loader()
    for epoch in count():
        loader.sampler.set_epoch(epoch)  # type: ignore[attr-defined]
        yield from loader


def _validation_loss(
    network: SegmentationNetwork, loader: DataLoader[Sample], ignored: list[int], device: torch.device
) -> float:
    """Return the mean cross entropy of the labelled pixels."""
    total, pixels = 0.0, 0
    network.eval()
    with torch.inference_mode():
        for batch in loader:
            image, valid, label, _ = to_device(batch, device)
            labels = ignore_channels(label, ignored)
            with autocast(device):
                logits = mask_channels(network(image, valid), ignored)
            total += float(F.cross_entropy(logits.float(), labels, ignore_index=IGNORE_INDEX, reduction="sum"))
            pixels += int((labels != IGNORE_INDEX).sum())
    return total / pixels if pixels else math.nan
