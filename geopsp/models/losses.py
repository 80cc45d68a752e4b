"""Losses over labelled pixels, in float32. They stay finite, and are 0 where nothing is labelled.

Logits are (n, classes, ...), labels (n, ...) channel indices, `IGNORE_INDEX` where unlabelled. A new loss of regions is
a function and an entry in `FRACTIONS`, with a field of that name in `LossSpec`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping
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
"""Both parameters of the Beta distribution of mixup shares. Source: Zhang et al., "mixup" (2018), section 3.1."""


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


FRACTIONS: dict[str, Callable[[Tensor, Tensor, LossSpec], Tensor]] = {
    "dice_loss_fraction": lambda logits, labels, spec: dice(logits, labels, average=spec.dice_loss_average),
    "lovasz_fraction": lambda logits, labels, _: lovasz(logits, labels),
    "tversky_fraction": lambda logits, labels, spec: tversky(
        logits, labels, alpha=spec.tversky_alpha, beta=spec.tversky_beta
    ),
}
"""Losses of regions, by the field of `LossSpec` that holds their share of the total loss."""


def class_weights(pixels: Tensor) -> Tensor:
    """Return (classes,) weights in proportion to 1 / sqrt(pixels), with mean 1 over all pixels.

    The largest is at most 10 times the smallest; that of an absent class is 0.
    """
    pixels = pixels.double()
    present = pixels > 0
    if not present.any():
        return torch.zeros_like(pixels).float()
    raw = torch.where(present, pixels.clamp_min(1).rsqrt(), 0)
    raw = torch.where(present, raw.clamp_max(raw[present].min() * WEIGHT_CAP), 0)
    return (raw * pixels.sum() / (raw * pixels).sum()).float()


def ignore_channels(labels: Tensor, channels: Iterable[int]) -> Tensor:
    """Set the labels of these channels to `IGNORE_INDEX`."""
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
    """Return the mean cross entropy of the labelled pixels, weighted by class.

    Args:
        logits: (n, classes, ...).
        labels: (n, ...).
        weight: (classes,); None: 1 each.
        focal: True scales each pixel by (1 - p)^2. Source: Lin et al., "Focal Loss" (2017), equation 4.
        smoothing: Share of each label that is spread evenly over all classes. Source: Szegedy et al. (2016), section 7.
        hardest: Share of the labelled pixels that count, those of highest unweighted cross entropy. Source:
            Shrivastava et al., "Training Region-based Object Detectors with Online Hard Example Mining" (2016).
    """
    logits = logits.float()
    plain = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="none")
    loss = plain
    if smoothing:
        loss = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="none", label_smoothing=smoothing)
    labelled = labels != IGNORE_INDEX
    counted = labelled.float()
    if weight is not None:
        counted = counted * weight[labels.where(labelled, 0)]
    if hardest < 1:
        counted = counted * _hardest(plain.detach(), labelled, hardest)
    if focal:
        loss = loss * (1 - torch.exp(-plain)).square()
    return (loss * counted).sum() / counted.sum().clamp_min(TINY)


def _hardest(loss: Tensor, labelled: Tensor, share: float) -> Tensor:
    """Return True at the labelled pixels of highest loss: `share` of them, but at least one pixel of the batch."""
    ranked = loss.masked_fill(~labelled, -1).flatten()
    # the top-k is as large as it can ever be, so that no count has to leave the GPU
    indices = ranked.topk(math.ceil(share * ranked.numel())).indices
    count = (labelled.sum() * share).round().clamp_min(1)
    first = torch.arange(indices.numel(), device=loss.device) < count
    return torch.zeros_like(ranked, dtype=torch.bool).scatter(0, indices, first).view_as(labelled)


def presence_loss(logits: Tensor, labels: Tensor, valid: Tensor) -> Tensor:
    """Return the mean binary cross entropy of which classes occur in each tile.

    A class without a labelled pixel is known to be absent only where every valid pixel is labelled; else it does not
    count.

    Args:
        logits: (n, classes).
        labels: (n, h, w).
        valid: (n, 1, h, w), 0 where invalid.
    """
    present = class_masks(labels, logits.shape[1]).flatten(2).any(dim=2)  # (n, classes)
    complete = ((labels != IGNORE_INDEX) | (valid[:, 0] == 0)).flatten(1).all(dim=1, keepdim=True)
    counted = present | (complete & present.any(dim=1, keepdim=True))
    loss = F.binary_cross_entropy_with_logits(logits.float(), present.float(), reduction="none")
    return mean_over_present(loss, counted)


def labels_at(labels: Tensor, points: Tensor) -> Tensor:
    """Return the labels, (n, k), of the pixels in which points lie.

    Args:
        labels: (n, h, w).
        points: (n, k, 2) as (x, y) in 0..1.
    """
    height, width = labels.shape[-2:]
    col = (points[..., 0] * width).long().clamp(0, width - 1)
    row = (points[..., 1] * height).long().clamp(0, height - 1)
    return labels.flatten(1).gather(1, row * width + col)


def total_loss(output: TrainingOutput, labels: Tensor, valid: Tensor, spec: LossSpec, weight: Tensor | None) -> Tensor:
    """Return the loss that training minimises. An auxiliary head of pixels and PointRend have plain cross entropy.

    Args:
        output: Of the network, in training mode.
        labels: (n, h, w).
        valid: (n, 1, h, w), 0 where invalid.
        spec: Options of the loss.
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
    for name, region_loss in FRACTIONS.items():
        if fraction := getattr(spec, name):
            loss = loss + fraction * region_loss(logits, labels, spec)
    if aux is not None and aux.ndim > 2:
        loss = loss + spec.aux_weight * cross_entropy(aux, labels, weight=weight)
    elif aux is not None:
        loss = loss + spec.aux_weight * presence_loss(aux, labels, valid)
    if output.points is not None and output.point_logits is not None:
        loss = loss + cross_entropy(output.point_logits, labels_at(labels, output.points), weight=weight)
    return loss


def draw_mixup_share() -> float:
    """Draw a share from the Beta distribution, with the seed from torch's random state alone."""
    seed = int(torch.randint(2**63 - 1, ()))
    return float(np.random.default_rng(seed).beta(MIXUP_ALPHA, MIXUP_ALPHA))


def mixup_batch(image: Tensor, valid: Tensor, labels: Tensor, *, share: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Blend each image with the next of the batch; return image, valid mask, own labels and the partner's labels.

    Pixels that are invalid in either image are invalid and unlabelled, and 0 in the image. The loss is `share` times
    that of the own labels plus 1 - `share` times that of the partner's. A batch of one stays the same.

    Args:
        image: (n, bands, h, w).
        valid: (n, 1, h, w), 0 where invalid.
        labels: (n, h, w).
        share: Weight of the own image, 0 to 1.

    Source: Zhang et al., "mixup: Beyond Empirical Risk Minimization" (2018), section 2.
    """
    both_valid = torch.minimum(valid, valid.roll(1, 0))
    invalid = both_valid == 0
    blend = torch.lerp(image.roll(1, 0), image, share).masked_fill(invalid, 0)
    own, partner = (part.masked_fill(invalid[:, 0], IGNORE_INDEX) for part in (labels, labels.roll(1, 0)))
    return blend, both_valid, own, partner
