"""Losses over labelled pixels, in float32. They stay finite, and are 0 where nothing is labelled.

Logits are (n, classes, ...), labels (n, ...) channel indices, `IGNORE_INDEX` where unlabelled. A new loss of regions is
a function and an entry in `FRACTIONS`, with a field of that name in `LossSpec`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from geopsp.core.legend import IGNORE_INDEX
from geopsp.models.loss_options import BALANCING_POWER, LossSpec
from geopsp.models.network import TrainingOutput
from geopsp.models.region_losses import TINY, class_masks, dice, lovasz, mean_over_present, tversky

WEIGHT_CAP = 10.0
"""Largest ratio between the weights of two classes under class balancing."""


BOUNDARY_WIDTH = 2
"""Rows and columns from another class within which a pixel is near a boundary."""


MIXUP_ALPHA = 0.4
"""Both parameters of the Beta distribution of mixup shares. Source: Zhang et al., "mixup" (2018), section 3.1."""


FRACTIONS: dict[str, Callable[[Tensor, Tensor, LossSpec], Tensor]] = {
    "dice_loss_fraction": lambda logits, labels, spec: dice(logits, labels, average=spec.dice_loss_average),
    "lovasz_fraction": lambda logits, labels, _: lovasz(logits, labels),
    "tversky_fraction": lambda logits, labels, spec: tversky(
        logits, labels, alpha=spec.tversky_alpha, beta=spec.tversky_beta
    ),
}
"""Losses of regions, by the field of `LossSpec` that holds their share of the total loss."""


def class_weights(pixels: Tensor, power: float = BALANCING_POWER) -> Tensor:
    """Return (classes,) weights in proportion to 1 / pixels ** power, with mean 1 over all pixels.

    The largest is at most 10 times the smallest; that of an absent class is 0.
    """
    pixels = pixels.double()
    present = pixels > 0
    if not present.any():
        return torch.zeros_like(pixels).float()
    raw = torch.where(present, pixels.clamp_min(1) ** -power, 0)
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
    boundary: float = 0.0,
) -> Tensor:
    """Return the mean cross entropy of the labelled pixels, weighted by class and place.

    Args:
        logits: (n, classes, ...).
        labels: (n, ...).
        weight: (classes,); None: 1 each.
        focal: True scales each pixel by (1 - p)^2. Source: Lin et al., "Focal Loss" (2017), equation 4.
        smoothing: Share of each label that is spread evenly over all classes. Source: Szegedy et al. (2016), section 7.
        hardest: Share of the labelled pixels that count, those of highest unweighted cross entropy. Source:
            Shrivastava et al., "Training Region-based Object Detectors with Online Hard Example Mining" (2016).
        boundary: What pixels near another class count more than others; labels must be (n, h, w). Source: Ronneberger
            et al., "U-Net" (2015), equation 2, with a step in place of the Gaussian.
    """
    logits = logits.float()
    plain = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="none")
    loss = plain
    if smoothing:
        loss = F.cross_entropy(logits, labels, ignore_index=IGNORE_INDEX, reduction="none", label_smoothing=smoothing)
    counted = pixel_weights(labels, weight=weight, boundary=boundary)
    if hardest < 1:
        counted = counted * _hardest(plain.detach(), labels != IGNORE_INDEX, hardest)
    if focal:
        loss = loss * (1 - torch.exp(-plain)).square()
    return (loss * counted).sum() / counted.sum().clamp_min(TINY)


def pixel_weights(labels: Tensor, *, weight: Tensor | None = None, boundary: float = 0.0) -> Tensor:
    """Return how much each pixel counts in the cross entropy, by class and place; 0 where it is unlabelled.

    Args:
        labels: (n, ...).
        weight: (classes,); None: 1 each.
        boundary: What pixels near another class count more than others; labels must be (n, h, w).
    """
    labelled = labels != IGNORE_INDEX
    counted = labelled.float()
    if weight is not None:
        counted = counted * weight[labels.where(labelled, 0)]
    if boundary:
        counted = counted * (1 + boundary * near_boundary(labels).float())
    return counted


def near_boundary(labels: Tensor) -> Tensor:
    """Return where a pixel of another class is at most `BOUNDARY_WIDTH` rows and columns away, (n, h, w) bool.

    Unlabelled pixels are of no class.
    """
    side, labelled = 2 * BOUNDARY_WIDTH + 1, labels != IGNORE_INDEX
    # the largest and the smallest class around each pixel; codes are below IGNORE_INDEX
    planes = torch.stack([labels.where(labelled, -1), -labels.where(labelled, IGNORE_INDEX)], dim=1).float()
    largest, smallest = F.max_pool2d(planes, side, stride=1, padding=BOUNDARY_WIDTH).unbind(dim=1)
    return (largest > -smallest) & labelled


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
        boundary=spec.boundary_weight,
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
