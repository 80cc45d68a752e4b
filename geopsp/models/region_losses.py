"""Losses that compare regions, not pixels, over the classes present; 0 where nothing is labelled.

Logits are (n, classes, ...), labels (n, ...) channel indices, IGNORE where nothing is known. Sums run in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geopsp.core.legend import IGNORE_INDEX

TINY = torch.finfo(torch.float32).tiny


def class_masks(labels: Tensor, classes: int) -> Tensor:
    """(n, ...) -> (n, classes, ...): True where a pixel is of a class; False throughout where it is IGNORE."""
    return labels.unsqueeze(1) == torch.arange(classes, device=labels.device).view(-1, *[1] * (labels.ndim - 1))


def _overlap(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(classes,) probability over the labelled pixels: rightly given to a class, wrongly given, and missed."""
    target = class_masks(labels, logits.shape[1])
    chance = logits.float().softmax(dim=1) * (labels != IGNORE_INDEX).unsqueeze(1)
    axes = [0, *range(2, logits.ndim)]
    right = (chance * target).sum(axes)
    return right, chance.sum(axes) - right, target.sum(axes) - right


def mean_over_present(loss: Tensor, present: Tensor) -> Tensor:
    """The mean of what is present; 0 if nothing is."""
    return (loss * present).sum() / present.sum().clamp_min(1)


def tversky(logits: Tensor, labels: Tensor, *, alpha: float, beta: float) -> Tensor:
    """One minus the mean Tversky index of the classes present in the batch.

    Args:
        alpha: weight of false positives.
        beta: weight of false negatives; with both 1/2, the index is Dice's.

    Source: Salehi et al., "Tversky loss function for image segmentation using 3D fully convolutional networks" (2017).
    """
    right, wrong, missed = _overlap(logits, labels)
    index = right / (right + alpha * wrong + beta * missed).clamp_min(TINY)
    return mean_over_present(1 - index, right + missed > 0)


def dice(logits: Tensor, labels: Tensor, *, average: str) -> Tensor:
    """One minus the soft Dice score: of all classes together (`micro`), or the mean of those present (`macro`)."""
    if average == "macro":
        return tversky(logits, labels, alpha=0.5, beta=0.5)
    right, wrong, missed = (part.sum() for part in _overlap(logits, labels))
    score = 2 * right / (2 * right + wrong + missed).clamp_min(TINY)
    return mean_over_present(1 - score, right + missed > 0)


def lovasz(logits: Tensor, labels: Tensor) -> Tensor:
    """The mean over the classes present of the Lovasz extension of one minus their IoU.

    Source: Berman et al., "The Lovasz-Softmax loss" (2018), algorithm 1. The weights (the steps by which IoU falls,
    pixel after pixel) are written out, since differences of IoU lose their digits in large batches.
    """
    classes = logits.shape[1]
    target = class_masks(labels, classes)
    error = (target.float() - logits.float().softmax(dim=1)).abs()
    error = error * (labels != IGNORE_INDEX).unsqueeze(1)  # unlabelled pixels come last, with those that are right
    error, order = error.transpose(0, 1).flatten(1).sort(dim=1, descending=True)  # (classes, pixels)
    target = target.transpose(0, 1).flatten(1).gather(1, order)
    true = target.sum(dim=1, keepdim=True).float()
    both = true - target.cumsum(dim=1, dtype=torch.float32)
    either = true + (~target).cumsum(dim=1, dtype=torch.float32)
    step = torch.where(target, 1 / either, both / (either * (either - 1).clamp_min(1)))
    return mean_over_present((error * step).sum(dim=1), true[:, 0] > 0)
