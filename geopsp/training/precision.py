"""The precision of training: by the hardware, and on CPUs by a timed trial."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import replace

import torch
from lightning.pytorch.plugins import MixedPrecision, Precision
from torch import Tensor

from geopsp.core.legend import Legend
from geopsp.data.loader import ChipLoaders
from geopsp.models.device import has_bfloat16, has_float16_only, resolve_precision
from geopsp.models.loss_options import LossSpec
from geopsp.models.memory import restored
from geopsp.models.network import SegmentationNetwork
from geopsp.training.evaluate import to_device
from geopsp.training.step import eval_if_frozen, make_batch, step_loss

logger = logging.getLogger(__name__)

MIN_SPEEDUP = 1.2
"""bfloat16 is used on a CPU if a step is so many times faster: a smaller gain is not worth its rounding."""


TRIAL_CHIPS, TRIAL_STEPS = 2, 3
"""Chips of a step of the trial, and most steps in each precision after the first, which does not count."""


TRIAL_SECONDS = 1.0
"""A trial ends after a pair of steps that takes longer in all."""


MIN_STEP_SECONDS = 0.02
"""Steps that are shorter in float32 cannot be timed reliably, and stay there."""


WORDS = {"fp32": "float32", "bf16": "bfloat16", "fp16": "float16"}


def precision_plugin(precision: str, device: torch.device) -> Precision:
    """Return Lightning's plugin for a precision; "auto" is bfloat16 on GPUs that have it, else float32."""
    if precision == "auto":
        precision = "bf16" if has_bfloat16(device) else "fp32"
    if precision == "fp32":
        return Precision()
    if precision == "bf16":
        return MixedPrecision("bf16-mixed", device.type)
    return MixedPrecision("16-mixed", device.type, torch.amp.GradScaler(device.type))


def choose_precision(
    network: SegmentationNetwork,
    loaders: ChipLoaders,
    *,
    legend: Legend,
    losses: LossSpec,
    weight: Tensor | None,
    device: torch.device,
) -> str:
    """Return the precision in which to train; the network does not change.

    On a GPU this is bf16 where the hardware has it, or fp16 where it has only that. On a CPU that has bfloat16 in
    hardware both precisions are timed, since some networks gain nothing.
    """
    if device.type != "cpu":
        return "bf16" if has_bfloat16(device) else "fp16" if has_float16_only(device) else "fp32"
    if resolve_precision("auto", device) != "bf16":
        return "fp32"
    loaders = replace(loaders, workers=0, batch_size=min(TRIAL_CHIPS, loaders.batch_size), weights=None)
    with restored(network), torch.random.fork_rng(devices=[]):
        network.to(memory_format=torch.channels_last).train()
        eval_if_frozen(network.encoder)
        torch.manual_seed(loaders.seed)
        batch = make_batch(to_device(next(iter(loaders.train_loader())), device), legend, losses)

        def step(precision: str) -> None:
            with torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
                loss = step_loss(network, batch, losses, weight)
            loss.backward()  # type: ignore[no-untyped-call]

        seconds = time_steps(step)
    found = faster(seconds)
    logger.info(
        f"Precision: {WORDS[found]} (a step of {len(batch.image)} chips takes {seconds['bf16']:.2g} s in bfloat16, "
        f"{seconds['fp32']:.2g} s in float32)"
    )
    return found


def time_steps(step: Callable[[str], None], clock: Callable[[], float] = time.perf_counter) -> dict[str, float]:
    """Return the shortest time of a step in each precision, in seconds; they take turns."""
    seconds = dict.fromkeys(("fp32", "bf16"), float("inf"))
    for precision in seconds:
        step(precision)
    begin = clock()
    for _ in range(TRIAL_STEPS):
        for precision in seconds:
            start = clock()
            step(precision)
            seconds[precision] = min(seconds[precision], clock() - start)
        if clock() - begin > TRIAL_SECONDS:
            break
    return seconds


def faster(seconds: dict[str, float]) -> str:
    """Return bf16 if it is faster by enough, else fp32."""
    is_faster = seconds["fp32"] >= MIN_STEP_SECONDS and seconds["fp32"] >= MIN_SPEEDUP * seconds["bf16"]
    return "bf16" if is_faster else "fp32"
