"""Scores of classes from a confusion matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def class_scores(confusion: Floats) -> Floats:
    """Return (..., 2 + 3 classes) mean IoU, accuracy, and IoU, precision and recall of each class, as of `Confusion`.

    Args:
        confusion: (..., classes, classes) pixels by labelled and predicted class.
    """
    labelled, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    iou, precision, recall = (_ratio(correct, whole) for whole in (labelled + predicted - correct, predicted, labelled))
    occurs = (~np.isnan(iou)).sum(axis=-1)
    mean = _ratio(np.nansum(iou, axis=-1), occurs)
    accuracy = _ratio(correct.sum(axis=-1), labelled.sum(axis=-1))
    return np.concatenate([mean[..., None], accuracy[..., None], iou, precision, recall], axis=-1)


def _ratio(part: Floats, whole: Any) -> Floats:
    """Return part / whole; NaN where whole is 0."""
    ratio: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio
