"""Losses of the overlap of regions: Dice, Tversky and Lovasz, over the classes present; 0 where nothing is labelled.

Logits are (n, classes, ...), labels (n, ...) channel indices, `IGNORE_INDEX` where unlabelled. Sums are in float32.
"""

from __future__ import annotations

import torch
from torch import Tensor

from geopsp.core.legend import IGNORE_INDEX

TINY = torch.finfo(torch.float32).tiny
"""Smallest divisor."""


def class_masks(labels: Tensor, classes: int) -> Tensor:
    """Return (n, classes, ...) from (n, ...): True where a pixel has the class; all False where it is unlabelled."""
    return labels.unsqueeze(1) == torch.arange(classes, device=labels.device).view(-1, *[1] * (labels.ndim - 1))


def _overlap(logits: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Return soft true positives, false positives and false negatives of the labelled pixels, (classes,) each."""
    target = class_masks(labels, logits.shape[1])
    probability = logits.float().softmax(dim=1) * (labels != IGNORE_INDEX).unsqueeze(1)
    axes = [0, *range(2, logits.ndim)]
    true_positives = (probability * target).sum(axes)
    return true_positives, probability.sum(axes) - true_positives, target.sum(axes) - true_positives


def mean_over_present(loss: Tensor, present: Tensor) -> Tensor:
    """Return the mean of the losses that are present; 0 if none is."""
    return (loss * present).sum() / present.sum().clamp_min(1)


def tversky(logits: Tensor, labels: Tensor, *, alpha: float, beta: float) -> Tensor:
    """Return 1 minus the mean Tversky index of the classes present in the batch.

    Args:
        logits: (n, classes, ...).
        labels: (n, ...).
        alpha: Weight of false positives.
        beta: Weight of false negatives. With both 0.5, the index is the Dice score.

    Source: Salehi et al., "Tversky loss function for image segmentation using 3D fully convolutional networks" (2017).
    """
    tp, fp, fn = _overlap(logits, labels)
    index = tp / (tp + alpha * fp + beta * fn).clamp_min(TINY)
    return mean_over_present(1 - index, tp + fn > 0)


def dice(logits: Tensor, labels: Tensor, *, average: str) -> Tensor:
    """Return 1 minus the soft Dice score: "micro": of all classes together; "macro": the mean of those present."""
    if average == "macro":
        return tversky(logits, labels, alpha=0.5, beta=0.5)
    tp, fp, fn = (part.sum() for part in _overlap(logits, labels))
    score = 2 * tp / (2 * tp + fp + fn).clamp_min(TINY)
    return mean_over_present(1 - score, tp + fn > 0)


def lovasz(logits: Tensor, labels: Tensor) -> Tensor:
    """Return the Lovasz extension of 1 - IoU, averaged over the classes present.

    The weights, by which IoU falls from pixel to pixel, are computed in closed form: differences of IoU lose their
    digits in large batches.

    Source: Berman et al., "The Lovasz-Softmax loss" (2018), algorithm 1.
    """
    classes = logits.shape[1]
    target = class_masks(labels, classes)
    error = (target.float() - logits.float().softmax(dim=1)).abs()
    error = error * (labels != IGNORE_INDEX).unsqueeze(1)  # unlabelled pixels sort last, with those of no error
    error, order = error.transpose(0, 1).flatten(1).sort(dim=1, descending=True)  # (classes, pixels)
    target = target.transpose(0, 1).flatten(1).gather(1, order)
    count = target.sum(dim=1, keepdim=True).float()
    intersection = count - target.cumsum(dim=1, dtype=torch.float32)
    union = count + (~target).cumsum(dim=1, dtype=torch.float32)
    step = torch.where(target, 1 / union, intersection / (union * (union - 1).clamp_min(1)))
    return mean_over_present((error * step).sum(dim=1), count[:, 0] > 0)
