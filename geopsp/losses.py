"""Losses that stay finite: in float32, over labelled pixels only, 0 where nothing is labelled."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from geopsp.errors import OptionError
from geopsp.legend import IGNORE
from geopsp.models.pspnet import TrainingOutput

WEIGHT_CAP = 10.0
"""Largest ratio between the weights of two classes under class balancing."""


@dataclass(frozen=True, slots=True)
class LossSpec:
    """What is minimised: cross entropy, plus what is asked for here."""

    class_balancing: bool = False
    """True weights classes by one over the root of their pixels, capped at 10 to 1."""

    focal_loss: bool = False
    """True scales each pixel's cross entropy by (1 - p)^2."""

    dice_loss_fraction: float = 0.0
    """Share of the soft Dice loss in the sum."""

    aux_weight: float = 0.4
    """Weight of the auxiliary head. Source: Zhao et al. (2017), table 2."""

    def __post_init__(self) -> None:
        if not 0 <= self.dice_loss_fraction <= 1:
            raise OptionError(f"dice_loss_fraction is {self.dice_loss_fraction}; needed a share from 0 to 1.")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> LossSpec:
        return cls(**row)


def balance(pixels: Tensor) -> Tensor:
    """(classes,) weights with mean 1 over the pixels: one over the root of the counts, at most 10 to 1; absent: 0."""
    pixels = pixels.double()
    present = pixels > 0
    if not present.any():
        return torch.zeros_like(pixels).float()
    raw = torch.where(present, pixels.clamp_min(1).rsqrt(), 0)
    raw = torch.where(present, raw.clamp_max(raw[present].min() * WEIGHT_CAP), 0)
    return (raw * pixels.sum() / (raw * pixels).sum()).float()


def cross_entropy(logits: Tensor, labels: Tensor, *, weight: Tensor | None = None, focal: bool = False) -> Tensor:
    """The mean over labelled pixels, weighted by class.

    Args:
        logits: (n, classes, ...).
        labels: (n, ...) channel indices; IGNORE where nothing is known.
        weight: (classes,); None: 1 each.
        focal: True scales each pixel by (1 - p)^2. Source: Lin et al., "Focal Loss" (2017), equation 4.
    """
    each = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE, reduction="none")
    known = labels != IGNORE
    share = known.float()
    if weight is not None:
        share = share * weight[labels.where(known, 0)]
    if focal:
        each = each * (1 - torch.exp(-each)).square()
    return (each * share).sum() / share.sum().clamp_min(torch.finfo(torch.float32).tiny)


def dice(logits: Tensor, labels: Tensor) -> Tensor:
    """One minus the mean soft Dice score of the classes present in the batch. Shapes as `cross_entropy`."""
    known = labels != IGNORE
    target = F.one_hot(labels.where(known, 0), logits.shape[1]).movedim(-1, 1).float() * known[:, None]
    chance = logits.float().softmax(dim=1) * known[:, None]
    axes = [0, *range(2, logits.ndim)]
    both, either = (chance * target).sum(axes), (chance + target).sum(axes)
    present = target.sum(axes) > 0
    score = (2 * both / either.clamp_min(1e-6)) * present
    return (present.sum() - score.sum()) / present.sum().clamp_min(1)


def labels_at(labels: Tensor, points: Tensor) -> Tensor:
    """(n, h, w) at (n, k, 2) -> (n, k): the label of the pixel that each point lies in."""
    height, width = labels.shape[-2:]
    col = (points[..., 0] * width).long().clamp(0, width - 1)
    row = (points[..., 1] * height).long().clamp(0, height - 1)
    return labels.flatten(1).gather(1, row * width + col)


def total_loss(output: TrainingOutput, labels: Tensor, spec: LossSpec, weight: Tensor | None) -> Tensor:
    """The sum that training minimises. Auxiliary head and points take plain cross entropy."""
    loss = cross_entropy(output.logits, labels, weight=weight, focal=spec.focal_loss)
    if spec.dice_loss_fraction:
        share = spec.dice_loss_fraction
        loss = (1 - share) * loss + share * dice(output.logits, labels)
    loss = loss + spec.aux_weight * cross_entropy(output.aux, labels, weight=weight)
    if output.points is not None and output.point_logits is not None:
        loss = loss + cross_entropy(output.point_logits, labels_at(labels, output.points), weight=weight)
    return loss
