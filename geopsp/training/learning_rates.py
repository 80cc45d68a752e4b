"""Learning rates by rule, and the groups of parameters that have them.

Source of the rule: AdamW at 1e-3 is its authors' own default (Loshchilov and Hutter, "Decoupled Weight Decay
Regularization", 2019); a lower rate for pretrained layers, down to a tenth, is usual in segmentation
(mmsegmentation's training tricks, PaddleSeg's `backbone_lr_mult`; Howard and Ruder, "Universal Language Model
Fine-tuning", 2018, section 3.2), but in short runs a tenth was no better than one rate for all (docs/benchmarks.md);
the square root of the batch size is the scaling of adaptive optimizers (Malladi et al., "On the SDEs and Scaling Rules
for Adaptive Gradient Algorithms", 2022).
"""

from __future__ import annotations

import logging
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from geopsp.models.encoder_stages import encoder_stages
from geopsp.models.network import SegmentationNetwork
from geopsp.training.step import is_frozen

logger = logging.getLogger(__name__)

DECODER_RATE, ENCODER_RATE = 1e-3, 3e-4
"""Highest rates of new layers, and of an encoder with pretrained weights, at a step of `REFERENCE_BATCH` chips."""


SCRATCH_RATE = 2e-3
"""Highest rate of all layers where the encoder starts from random weights."""


REFERENCE_BATCH = 8
"""Chips of a step for which the rates stand; others scale with the square root of their number."""


WEIGHT_DECAY = 1e-2


def default_rates(network: SegmentationNetwork, *, pretrained: bool, batch: int) -> tuple[float, float]:
    """Return the highest learning rates of the encoder and of all other layers, by rule.

    Args:
        network: A frozen encoder has no rate of its own.
        pretrained: True if the encoder starts from trained weights.
        batch: Chips of a step, on all devices together.
    """
    scale = math.sqrt(batch / REFERENCE_BATCH)
    encoder, others = (ENCODER_RATE, DECODER_RATE) if pretrained else (SCRATCH_RATE, SCRATCH_RATE)
    encoder, others = (float(f"{rate * scale:.3g}") for rate in (encoder, others))
    return (others if is_frozen(network.encoder) else encoder), others


def log_rates(network: SegmentationNetwork, rates: tuple[float, float], *, pretrained: bool, batch: int) -> None:
    """Log the rates by rule, and what they follow from; arguments as of `default_rates`."""
    encoder, others = rates
    if is_frozen(network.encoder):
        rates_text, start = f"{others:g}", "the encoder is frozen"
    elif pretrained:
        rates_text, start = f"{encoder:g} for the encoder, {others:g} for the other layers", "pretrained encoder"
    else:
        rates_text, start = f"{others:g}", "encoder from random weights"
    logger.info(f"Learning rate: {rates_text} ({start}, {batch} chips per step)")


def starts_pretrained(settings: Mapping[str, Any], *, trained: bool) -> bool:
    """Return True if the encoder of a model has trained weights.

    Args:
        settings: Of the model; "encoder_weights" are those that it began with.
        trained: True if the model was trained before.
    """
    return trained or settings.get("encoder_weights") is not None


def make_optimizer(
    network: SegmentationNetwork, rates: tuple[float, float], device: torch.device, *, graded: bool = True,
    recipe: int = 2,
) -> torch.optim.AdamW:  # fmt: skip
    """Return the optimizer of training; the network is on the device. Arguments as of `parameter_groups`."""
    groups = parameter_groups(network, rates, graded=graded, recipe=recipe)
    return torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=device.type in {"cpu", "cuda"})


def parameter_groups(
    network: SegmentationNetwork, rates: tuple[float, float], *, graded: bool = True, recipe: int = 2
) -> list[dict[str, Any]]:
    """Group the trainable parameters by learning rate and weight decay; those of the last layers come last.

    Args:
        network: Its parameters are grouped.
        rates: Of the first and the last layers.
        graded: True raises the rates evenly in their logarithm, from the first stage of the encoder to the layers
            behind it; False: all of the encoder has the first rate.
        recipe: 1 makes the groups of version 0.1: one stage for each child of the encoder, weight decay on everything.

    Source: Howard and Ruder, "Universal Language Model Fine-tuning" (2018), section 3.2 (discriminative rates); no
    decay on norms and biases: He et al., "Bag of Tricks for Image Classification" (2019), section 3.1.
    """
    encoder_rate, last_rate = rates
    if graded and encoder_rate != last_rate:
        bands = next(p.shape[1] for p in network.encoder.parameters() if p.ndim == 4)
        stages = encoder_stages(network.encoder, bands) if recipe > 1 else _encoder_children(network.encoder)
    else:
        stages = [list(network.encoder.parameters())]
    in_encoder = {id(p) for stage in stages for p in stage}
    stages.append([p for p in network.parameters() if id(p) not in in_encoder])
    stage_rates = np.geomspace(encoder_rate, last_rate, len(stages)).tolist()
    if encoder_rate == last_rate:
        stages, stage_rates = [[p for stage in stages for p in stage]], [last_rate]
    groups = [
        {"params": [p for p in stage if p.requires_grad], "lr": rate}
        for stage, rate in zip(stages, stage_rates, strict=True)
    ]
    if recipe > 1:
        groups = [part for group in groups for part in _split_decay(group)]
    return [group for group in groups if group["params"]]


def _split_decay(group: dict[str, Any]) -> list[dict[str, Any]]:
    """Return the parameters without weight decay (norms and biases: those of one axis), and those with it."""
    one_axis = [p for p in group["params"] if p.ndim <= 1]
    others = [p for p in group["params"] if p.ndim > 1]
    return [{**group, "params": one_axis, "weight_decay": 0.0}, {**group, "params": others}]


def _encoder_children(encoder: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of each child in order, as version 0.1 took them for stages."""
    inner = encoder
    while len(children := [child for child in inner.children() if any(True for _ in child.parameters())]) == 1:
        inner = children[0]
    return [list(child.parameters()) for child in children]
