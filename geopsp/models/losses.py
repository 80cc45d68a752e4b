"""Losses that stay finite: in float32, over labelled pixels only, 0 where nothing is labelled.

Logits are (n, classes, ...), labels (n, ...) channel indices, IGNORE where nothing is known.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.errors import OptionError
from geopsp.models.network import TrainingOutput
from geopsp.models.region_losses import TINY, class_masks, dice, lovasz, mean_over_present, tversky

WEIGHT_CAP = 10.0
"""Largest ratio between the weights of two classes under class balancing."""


AVERAGES = ("micro", "macro")


MIXUP_ALPHA = 0.4
"""Both parameters of the Beta distribution of shares. Source: Zhang et al., "mixup" (2018), section 3.1."""


@dataclass(frozen=True, slots=True)
class LossSpec:
    """What is minimised: cross entropy, plus what is asked for here."""

    class_balancing: bool = False
    """True weights classes by one over the root of their pixels, capped at 10 to 1."""

    focal_loss: bool = False
    """True scales each pixel's cross entropy by (1 - p)^2."""

    dice_loss_fraction: float = 0.0
    """Share of the soft Dice loss in the sum; what the three shares leave is cross entropy."""

    dice_loss_average: str = "micro"
    """`micro`: all pixels of all classes together; `macro`: the mean over the classes present."""

    lovasz_fraction: float = 0.0
    """Share of the Lovasz-softmax loss in the sum."""

    tversky_fraction: float = 0.0
    """Share of the Tversky loss in the sum."""

    tversky_alpha: float = 0.3
    """Weight of false positives in the Tversky loss. 0.3 and 0.7 as in Salehi et al. (2017)."""

    tversky_beta: float = 0.7
    """Weight of false negatives in the Tversky loss."""

    label_smoothing: float = 0.0
    """Share of each pixel's label that is spread evenly over all classes."""

    ohem: float = 1.0
    """Share of the labelled pixels, the hardest, that count in the cross entropy (online hard example mining)."""

    mixup: bool = False
    """True trains on blends of two chips."""

    ignore_classes: tuple[str, ...] = ()
    """Names of classes whose pixels count as unlabelled."""

    aux_weight: float = 0.4
    """Weight of the auxiliary head. Source: Zhao et al. (2017), table 2."""

    def __post_init__(self) -> None:
        for name in ("dice_loss_fraction", "lovasz_fraction", "tversky_fraction", "label_smoothing"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name} is {getattr(self, name)}; needed a share from 0 to 1.")
        for name in ("tversky_alpha", "tversky_beta", "aux_weight"):
            if not 0 <= getattr(self, name) < math.inf:
                raise OptionError(f"{name} is {getattr(self, name)}; needed a weight of 0 or more.")
        if not self.tversky_alpha + self.tversky_beta > 0:
            raise OptionError("tversky_alpha and tversky_beta are both 0; needed one of them above 0.")
        if not 0 < self.ohem <= 1:
            raise OptionError(f"ohem is {self.ohem}; needed a share above 0, up to 1 (all pixels).")
        if self.dice_loss_average not in AVERAGES:
            raise OptionError(f"dice_loss_average is {self.dice_loss_average!r}; needed one of {', '.join(AVERAGES)}.")
        if self.entropy_fraction < 0:
            raise OptionError(
                f"The fractions of Dice ({self.dice_loss_fraction}), Lovasz ({self.lovasz_fraction}) and Tversky "
                f"({self.tversky_fraction}) sum to {1 - self.entropy_fraction:g}; needed at most 1. Lower one."
            )

    @property
    def entropy_fraction(self) -> float:
        """What the other losses leave to cross entropy."""
        left = math.fsum((1, -self.dice_loss_fraction, -self.lovasz_fraction, -self.tversky_fraction))
        return 0.0 if abs(left) < 1e-9 else left  # shares such as 0.6, 0.3 and 0.1 are not exact

    def ignored(self, legend: Legend) -> list[int]:
        """The channels of the classes to ignore."""
        return [legend.names.index(name) for name in self.ignore_classes]

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "ignore_classes": list(self.ignore_classes)}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> LossSpec:
        """The losses saved; what was not an option yet takes its default."""
        known = {field.name for field in fields(cls)}
        if unknown := sorted(set(row) - known):
            raise OptionError(
                f"Unknown loss options {', '.join(unknown)}; needed some of {', '.join(sorted(known))}. "
                "A newer geopsp may have saved them: update."
            )
        return cls(**{**row, "ignore_classes": tuple(row.get("ignore_classes", ()))})


def class_weights(pixels: Tensor) -> Tensor:
    """(classes,) weights with mean 1 over the pixels: one over the root of the counts, at most 10 to 1; absent: 0."""
    pixels = pixels.double()
    present = pixels > 0
    if not present.any():
        return torch.zeros_like(pixels).float()
    raw = torch.where(present, pixels.clamp_min(1).rsqrt(), 0)
    raw = torch.where(present, raw.clamp_max(raw[present].min() * WEIGHT_CAP), 0)
    return (raw * pixels.sum() / (raw * pixels).sum()).float()


def ignore_channels(labels: Tensor, channels: Iterable[int]) -> Tensor:
    """The labels with IGNORE in place of these channels."""
    for channel in channels:
        labels = labels.masked_fill(labels == channel, IGNORE_INDEX)
    return labels


def cross_entropy(
    logits: Tensor,
    labels: Tensor,
    *,
    weight: Tensor | None = None,
    focal: bool = False,
    smoothing: float = 0.0,
    hardest: float = 1.0,
) -> Tensor:
    """The mean over labelled pixels, weighted by class.

    Args:
        weight: (classes,); None: 1 each.
        focal: True scales each pixel by (1 - p)^2. Source: Lin et al., "Focal Loss" (2017), equation 4.
        smoothing: share of each label spread evenly over all classes. Source: Szegedy et al. (2016), section 7.
        hardest: share of the labelled pixels that count, by unweighted cross entropy. Source: Shrivastava et al.,
            "Training Region-based Object Detectors with Online Hard Example Mining" (2016).
    """
    logits = logits.float()
    plain = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="none")
    each = plain
    if smoothing:
        each = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="none", label_smoothing=smoothing)
    known = labels != IGNORE_INDEX
    counted = known.float()
    if weight is not None:
        counted = counted * weight[labels.where(known, 0)]
    if hardest < 1:
        counted = counted * _hardest(plain.detach(), known, hardest)
    if focal:
        each = each * (1 - torch.exp(-plain)).square()
    return (each * counted).sum() / counted.sum().clamp_min(TINY)


def _hardest(loss: Tensor, known: Tensor, share: float) -> Tensor:
    """True at the known pixels of greatest loss: at their share, rounded, at least one; without any, anywhere."""
    ranked = loss.masked_fill(~known, -1).flatten()
    places = ranked.topk(math.ceil(share * ranked.numel())).indices  # as many as there can be: no count leaves the GPU
    wanted = (known.sum() * share).round().clamp_min(1)
    first = torch.arange(places.numel(), device=loss.device) < wanted
    return torch.zeros_like(ranked, dtype=torch.bool).scatter(0, places, first).view_as(known)


def presence_loss(logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """The mean binary cross entropy of which classes each tile holds.

    A class that is not among the labels is known to be absent only where every valid pixel is labelled.

    Args:
        logits: (n, classes).
        labels: (n, h, w).
        valid: (n, 1, h, w); 0 where the image shows nothing.
    """
    there = class_masks(labels, logits.shape[1]).flatten(2).any(dim=2)  # (n, classes)
    complete = ((labels != IGNORE_INDEX) | (valid[:, 0] == 0)).flatten(1).all(dim=1, keepdim=True)
    counted = there | (complete & there.any(dim=1, keepdim=True))
    each = F.binary_cross_entropy_with_logits(logits.float(), there.float(), reduction="none")
    return mean_over_present(each, counted)


def labels_at(labels: Tensor, points: Tensor) -> Tensor:
    """(n, h, w) at (n, k, 2) -> (n, k): the label of the pixel that each point lies in."""
    height, width = labels.shape[-2:]
    col = (points[..., 0] * width).long().clamp(0, width - 1)
    row = (points[..., 1] * height).long().clamp(0, height - 1)
    return labels.flatten(1).gather(1, row * width + col)


def total_loss(output: TrainingOutput, labels: Tensor, valid: Tensor, spec: LossSpec, weight: Tensor | None) -> Tensor:
    """The sum that training minimises. A pixel-wise auxiliary head and points take plain cross entropy.

    Args:
        labels: (n, h, w).
        valid: (n, 1, h, w); 0 where the image shows nothing.
        weight: (classes,); None: 1 each.
    """
    logits, aux = output.logits, output.aux
    loss = spec.entropy_fraction * cross_entropy(
        logits,
        labels,
        weight=weight,
        focal=spec.focal_loss,
        smoothing=spec.label_smoothing,
        hardest=spec.ohem,
    )
    if spec.dice_loss_fraction:
        loss = loss + spec.dice_loss_fraction * dice(logits, labels, average=spec.dice_loss_average)
    if spec.lovasz_fraction:
        loss = loss + spec.lovasz_fraction * lovasz(logits, labels)
    if spec.tversky_fraction:
        index = tversky(logits, labels, alpha=spec.tversky_alpha, beta=spec.tversky_beta)
        loss = loss + spec.tversky_fraction * index
    if aux is not None and aux.ndim > 2:
        loss = loss + spec.aux_weight * cross_entropy(aux, labels, weight=weight)
    elif aux is not None:
        loss = loss + spec.aux_weight * presence_loss(aux, labels, valid)
    if output.points is not None and output.point_logits is not None:
        loss = loss + cross_entropy(output.point_logits, labels_at(labels, output.points), weight=weight)
    return loss


def draw_mixup_share() -> float:
    """A share from 0 to 1, drawn from the Beta distribution; torch's random state alone decides it."""
    seed = int(torch.randint(2**63 - 1, ()))
    return float(np.random.default_rng(seed).beta(MIXUP_ALPHA, MIXUP_ALPHA))


def mixup_batch(image: Tensor, valid: Tensor, labels: Tensor, *, share: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Each image blended with its neighbour in the batch: image, validity, own labels and the neighbour's.

    Only what both show is valid; there alone are labels, and elsewhere the image is 0. The loss is `share` times that
    of the own labels, plus the rest of that of the neighbour's. A batch of one stays as it is.

    Args:
        image: (n, bands, h, w).
        valid: (n, 1, h, w); 0 where the image shows nothing.
        labels: (n, h, w).
        share: of the own image, from 0 to 1.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018), section 2.
    """
    both = torch.minimum(valid, valid.roll(1, 0))
    blank = both == 0
    blend = torch.lerp(image.roll(1, 0), image, share).masked_fill(blank, 0)
    own, partner = (found.masked_fill(blank[:, 0], IGNORE_INDEX) for found in (labels, labels.roll(1, 0)))
    return blend, both, own, partner
