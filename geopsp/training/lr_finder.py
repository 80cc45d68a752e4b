"""The learning-rate range test.

Lightning's own does not work where a module takes its steps itself, as ours does to halve batches that do not fit.
"""

from __future__ import annotations

import logging
from itertools import chain, repeat

import numpy as np
import torch
from torch import Tensor, nn

from geopsp.core.legend import Legend
from geopsp.core.progress import progress_bar
from geopsp.data.loader import ChipLoaders
from geopsp.errors import OptionError
from geopsp.models.device import autocast, device_name, pick_device
from geopsp.models.losses import LossSpec
from geopsp.models.network import SegmentationNetwork
from geopsp.training.evaluate import to_device
from geopsp.training.lightning_module import WEIGHT_DECAY
from geopsp.training.options import CLIP
from geopsp.training.step import MicroBatchGradients, batch_of, eval_if_frozen

logger = logging.getLogger(__name__)

LOWEST, HIGHEST = 1e-6, 1.0


DEFAULT_RATE = 1e-3
"""Taken when the test finds no slope."""


FEWEST = 8


SMOOTH = 0.9


SKIP = 10


DIVERGED = 4.0
"""Times the lowest loss at which the test ends."""


def find_lr(
    network: SegmentationNetwork,
    feed: ChipLoaders,
    *,
    legend: Legend,
    losses: LossSpec,
    weight: Tensor | None,
    steps: int,
    device: str | None = None,
) -> tuple[float, list[float], list[float]]:
    """A good learning rate, with the rates tried and the smoothed loss at each; the network stays as it was.

    The rate rises from batch to batch; where the loss falls fastest is a good one.

    Raises:
        OptionError: if there are too few steps.
        TrainingError: if memory does not hold a single chip.

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), section 3.3.
    """
    if steps < FEWEST:
        raise OptionError(f"steps is {steps}; needed at least {FEWEST}.")
    where = pick_device(device)
    logger.info(f"Looking for a learning rate in {steps} steps on {device_name(where)}")
    weight = None if weight is None else weight.to(where)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    torch.manual_seed(feed.seed)
    network.to(where).train()
    eval_if_frozen(network.encoder)
    trained, gradients = (
        [p for p in network.parameters() if p.requires_grad],
        MicroBatchGradients(losses, feed.batch_size),
    )
    optimizer = torch.optim.AdamW(trained, lr=LOWEST, weight_decay=WEIGHT_DECAY)
    rates, smoothed, mean = np.geomspace(LOWEST, HIGHEST, steps).tolist(), list[float](), 0.0
    batches = chain.from_iterable(repeat(feed.train_loader()))
    try:
        with progress_bar("Learning rates") as progress:
            for n, (rate, sample) in enumerate(zip(rates, batches, strict=False), 1):
                optimizer.param_groups[0]["lr"] = rate
                batch = batch_of(to_device(sample, where), legend, losses)
                with autocast(where):
                    loss = gradients(network, batch, weight)
                nn.utils.clip_grad_norm_(trained, CLIP)
                optimizer.step()
                mean = SMOOTH * mean + (1 - SMOOTH) * loss.item()
                smoothed.append(mean / (1 - SMOOTH**n))
                progress(n, steps)
                if not smoothed[-1] < DIVERGED * min(smoothed):
                    break
    finally:
        network.cpu().load_state_dict(before)
        network.zero_grad()
        network.eval()
    return steepest_lr(rates[: len(smoothed)], smoothed), rates[: len(smoothed)], smoothed


def steepest_lr(rates: list[float], losses: list[float]) -> float:
    """The rate at which the loss falls fastest, by the logarithm of the rate; 0.001 where it never falls.

    The first losses, of which the mean is still noise, are left out.
    """
    first = min(SKIP, len(losses) // 4)
    last = int(np.isfinite(losses).argmin()) if not np.isfinite(losses).all() else len(losses)
    if last - first < 3:
        return DEFAULT_RATE
    slope = np.gradient(losses[first:last], np.log(rates[first:last]))
    return rates[first + int(slope.argmin())] if slope.min() < 0 else DEFAULT_RATE
