"""The learning-rate range test.

Lightning's own works with automatic optimization only; ours is manual, to halve batches that do not fit into memory.
"""

from __future__ import annotations

import logging
from bisect import bisect_left
from collections.abc import Sequence
from itertools import chain, repeat

import numpy as np
import torch
from torch import Tensor, nn

from geopsp.core.legend import Legend
from geopsp.core.options import require_int
from geopsp.core.progress import progress_bar
from geopsp.data.loader import ChipLoaders
from geopsp.models.device import device_name, half_type, has_bfloat16, has_float16_only, memory_format, pick_device
from geopsp.models.host_copy import HostCopy
from geopsp.models.loss_options import LossSpec
from geopsp.models.network import SegmentationNetwork
from geopsp.training.evaluate import to_device
from geopsp.training.fit_options import CLIP
from geopsp.training.learning_rates import make_optimizer
from geopsp.training.step import MicroBatchGradients, eval_if_frozen, make_batch

logger = logging.getLogger(__name__)

MIN_RATE, MAX_RATE = 1e-6, 1.0
"""Range of the learning rates that are tried."""


SUGGESTED = 1e-4, 5e-3
"""Lowest and highest rate that a test suggests: others are the noise of a short test."""


DEFAULT_RATE = 1e-3
"""The learning rate where the loss never falls."""


MIN_FALL = 3
"""Fewest steps of a fall of the loss."""


MIN_STEPS = 8
"""Fewest steps of a test."""


SMOOTHING = 0.9
"""Weight of the earlier losses in their moving average."""


NOISY_STEPS = 10
"""Most steps at the start that do not count, as their average is still noise."""


DIVERGENCE = 4.0
"""Ratio of the loss to the lowest one so far at which the test ends."""


def find_lr(
    network: SegmentationNetwork,
    loaders: ChipLoaders,
    *,
    legend: Legend,
    losses: LossSpec,
    weight: Tensor | None,
    steps: int,
    device: str | None = None,
) -> tuple[float, list[float], list[float]]:
    """Return a learning rate at which the loss falls steadily, the rates tried, and the smoothed loss at each.

    The rate rises from batch to batch. Afterwards the network is as it was.

    Raises:
        OptionError: if there are too few steps.
        TrainingError: if memory does not hold a single chip.

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), section 3.3.
    """
    require_int("steps", steps, minimum=MIN_STEPS)
    where = pick_device(device)
    logger.info(f"Searching for a learning rate in {steps} steps on {device_name(where)}")
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(loaders.seed)
    rates = np.geomspace(MIN_RATE, MAX_RATE, steps).tolist()
    try:
        smoothed = _losses_at(rates, network, loaders, legend=legend, losses=losses, weight=weight, device=where)
    finally:
        network.cpu().load_state_dict(before)
        network.zero_grad()
        network.eval()
    tried = rates[: len(smoothed)]
    return valley_lr(tried, smoothed), tried, smoothed


def _losses_at(
    rates: list[float],
    network: SegmentationNetwork,
    loaders: ChipLoaders,
    *,
    legend: Legend,
    losses: LossSpec,
    weight: Tensor | None,
    device: torch.device,
) -> list[float]:
    """Train one step at each rate, and return the moving average of the loss; it ends early if the loss diverges.

    Optimizer, precision and layout are those of training.
    """
    half = has_bfloat16(device) or has_float16_only(device)
    network.to(device).to(memory_format=memory_format(device, half=half)).train()
    eval_if_frozen(network.encoder)
    weight = None if weight is None else weight.to(device)
    compute_gradients = MicroBatchGradients(losses, loaders.batch_size)
    optimizer = make_optimizer(network, (MIN_RATE, MIN_RATE), device)
    parameters = [p for group in optimizer.param_groups for p in group["params"]]
    scaler = torch.amp.GradScaler(device.type, enabled=has_float16_only(device))
    samples = chain.from_iterable(repeat(loaders.train_loader()))

    def scaled_backward(loss: Tensor) -> None:
        scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    average = LossAverage()
    with progress_bar("Learning rates") as progress:
        last: HostCopy | None = None  # is read while the next step is computed
        for n, (rate, sample) in enumerate(zip(rates, samples, strict=False), 1):
            for group in optimizer.param_groups:
                group["lr"] = rate
            batch = make_batch(to_device(sample, device), legend, losses)
            with torch.autocast(device.type, half_type(device), enabled=half):
                loss = compute_gradients(network, batch, weight, backward=scaled_backward)
            scaler.unscale_(optimizer)
            nn.utils.clip_grad_norm_(parameters, CLIP)
            scaler.step(optimizer)
            scaler.update()
            if last is not None and not average.add(float(last.wait()[0])):
                return average.smoothed
            last = HostCopy(loss[None])
            progress(n, len(rates))
    if last is not None:
        average.add(float(last.wait()[0]))
    return average.smoothed


class LossAverage:
    """The moving average of the losses of a test."""

    def __init__(self) -> None:
        self.smoothed: list[float] = []
        """By step."""

        self._mean = 0.0

    def add(self, loss: float) -> bool:
        """Add the loss of a step; return False if it diverges."""
        self._mean = SMOOTHING * self._mean + (1 - SMOOTHING) * loss
        self.smoothed.append(self._mean / (1 - SMOOTHING ** (len(self.smoothed) + 1)))
        return self.smoothed[-1] < DIVERGENCE * min(self.smoothed)


def valley_lr(rates: Sequence[float], losses: Sequence[float]) -> float:
    """Return the rate in the middle of the longest fall of the loss, between `SUGGESTED`; 0.001 if it never falls.

    The longest fall ends with the longest subsequence of losses that each are lower than the one before, and is as many
    steps long. Noise that the loss recovers from does not end it, other than the steepest slope, which is where noise
    puts it.

    Source: the "valley" of fastai's learning rate finder (Howard and Gugger, "fastai: A Layered API for Deep Learning",
    2020, section 5.5).
    """
    first = min(NOISY_STEPS, len(losses) // 4)
    last = int(np.isfinite(losses).argmin()) if not np.isfinite(losses).all() else len(losses)
    lowest: list[float] = []  # the negated last loss of the best fall of each length so far, in rising order
    length = end = 0
    for index in range(first, last):
        place = bisect_left(lowest, -losses[index])
        lowest[place : place + 1] = [-losses[index]]
        if len(lowest) > length:
            length, end = len(lowest), index
    if length < MIN_FALL:
        return DEFAULT_RATE
    middle = end - length // 2
    return float(min(max(rates[middle], SUGGESTED[0]), SUGGESTED[1]))
