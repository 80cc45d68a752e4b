"""Scores of classes from a confusion matrix."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def class_scores(confusion: Floats, *, labelled_only: bool = False) -> Floats:
    """Return (..., 2 + 3 classes) mean IoU, accuracy, and IoU, precision and recall of each class, as of `Confusion`.

    Args:
        confusion: (..., classes, classes) pixels by labelled and predicted class; one column more holds those that are
            predicted as no class.
        labelled_only: True gives no IoU (NaN) to a class without labelled pixels, whatever is predicted, so that the
            means of two models on the same pixels are over the same classes.
    """
    classes = confusion.shape[-2]
    labelled, predicted = confusion.sum(axis=-1), confusion.sum(axis=-2)[..., :classes]
    correct = np.diagonal(confusion, axis1=-2, axis2=-1)
    union = labelled + predicted - correct
    if labelled_only:
        union = np.where(labelled > 0, union, 0)
    iou, precision, recall = (_ratio(correct, whole) for whole in (union, predicted, labelled))
    occurs = (~np.isnan(iou)).sum(axis=-1)
    mean = _ratio(np.nansum(iou, axis=-1), occurs)
    accuracy = _ratio(correct.sum(axis=-1), labelled.sum(axis=-1))
    return np.concatenate([mean[..., None], accuracy[..., None], iou, precision, recall], axis=-1)


def _ratio(part: Floats, whole: Any) -> Floats:
    """Return part / whole; NaN where whole is 0."""
    ratio: Floats = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio
