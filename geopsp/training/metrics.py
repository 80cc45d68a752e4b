"""Scores of a classification, all from counts over a whole split. A class that never occurs scores NaN, not 0 or 1."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from geopsp.core.legend import IGNORE_INDEX, Legend

BOUNDARY_SHARE = 0.02
"""Width of a boundary as a share of the tile's diagonal. Source: Cheng et al., "Boundary IoU" (2021)."""


@dataclass(slots=True, eq=False)
class Confusion:
    """Counts of pixels, (classes, classes): row = true class, column = predicted class."""

    legend: Legend
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    boundary: NDArray[np.int64] | None = None
    """(classes, 2) as `boundary_counts` gives them; None: not counted."""

    def __post_init__(self) -> None:
        if not self.counts.size:
            self.counts = np.zeros((len(self.legend), len(self.legend)), np.int64)

    def add(self, truth: NDArray[Any], predicted: NDArray[Any]) -> None:
        """Counts pixels of two arrays of channel indices; those where either is IGNORE are left out."""
        known = (truth != IGNORE_INDEX) & (predicted != IGNORE_INDEX)
        size = len(self.legend)
        pairs = truth[known].astype(np.int64) * size + predicted[known]
        self.counts += np.bincount(pairs, minlength=size * size).reshape(size, size)

    @property
    def _right(self) -> NDArray[np.float64]:
        return np.diag(self.counts).astype(float)

    @property
    def _either(self) -> NDArray[np.float64]:
        either: NDArray[np.float64] = (self.counts.sum(axis=0) + self.counts.sum(axis=1)).astype(float)
        return either

    def iou(self) -> NDArray[np.float64]:
        """(classes,) intersection over union; NaN for a class neither there nor predicted."""
        return _ratio(self._right, self._either - self._right)

    def dice(self) -> NDArray[np.float64]:
        """(classes,) Dice score, which is F1; NaN for a class neither there nor predicted."""
        return _ratio(2 * self._right, self._either)

    def boundary_iou(self) -> NDArray[np.float64]:
        """(classes,) intersection over union of the boundaries; NaN for a class without any, or if none were counted.

        Source: Cheng et al., "Boundary IoU" (2021), section 5; here over the whole split.
        """
        counts = np.zeros((len(self.legend), 2), np.int64) if self.boundary is None else self.boundary
        return _ratio(counts[:, 0], counts[:, 1])

    def mean_iou(self) -> float:
        """Mean over the classes that occur; NaN if none does."""
        return _mean(self.iou())

    def mean_dice(self) -> float:
        """Mean over the classes that occur; NaN if none does."""
        return _mean(self.dice())

    def mean_boundary_iou(self) -> float:
        """Mean over the classes with a boundary; NaN if none has one."""
        return _mean(self.boundary_iou())

    def accuracy(self) -> float:
        """Share of labelled pixels found right; NaN if there are none."""
        return float(_ratio(self._right.sum(), self.counts.sum()))

    def per_class(self) -> pd.DataFrame:
        """One row a class: precision, recall, f1, iou, boundary_iou (where counted), pixels (true ones)."""
        true, predicted = self.counts.sum(axis=1), self.counts.sum(axis=0)
        columns = {
            "precision": _ratio(self._right, predicted),
            "recall": _ratio(self._right, true),
            "f1": self.dice(),
            "iou": self.iou(),
            **({} if self.boundary is None else {"boundary_iou": self.boundary_iou()}),
            "pixels": true,
        }
        return pd.DataFrame(columns, index=pd.Index(self.legend.names, name="class"))

    def to_json(self) -> dict[str, Any]:
        """All scores and the counts; None where a score is NaN."""

        def known(value: float) -> float | None:
            return float(value) if np.isfinite(value) else None

        rows = self.per_class().to_dict(orient="index")
        return {
            "miou": known(self.mean_iou()),
            "dice": known(self.mean_dice()),
            **({} if self.boundary is None else {"boundary_miou": known(self.mean_boundary_iou())}),
            "accuracy": known(self.accuracy()),
            "per_class": {
                str(name): {str(key): known(value) for key, value in row.items()} for name, row in rows.items()
            },
            "confusion": {"classes": self.legend.names, "rows_true": self.counts.tolist()},
        }

    def table(self) -> pd.DataFrame:
        """The counts with class names; rows are the truth."""
        names = self.legend.names
        return pd.DataFrame(self.counts, index=pd.Index(names, name="true"), columns=names)

    def confused(self, one: str, other: str) -> float:
        """Of the pixels that are one of two classes and were found as either, the share that took the other's name."""
        i, j = self.legend.names.index(one), self.legend.names.index(other)
        part = self.counts[np.ix_([i, j], [i, j])]
        return float(_ratio(part[0, 1] + part[1, 0], part.sum()))


def boundary_width(size: int) -> int:
    """Pixels that a boundary is wide in tiles of size x size; at least 1."""
    return max(1, round(BOUNDARY_SHARE * math.hypot(size, size)))


def boundary_counts(labels: Tensor, found: Tensor, classes: int, width: int) -> Tensor:
    """(classes, 2) int64: pixels in the boundaries of both truth and map, and in those of either.

    A boundary is what of a class lies within `width` pixels (rows and columns apart) of another. Beyond the tile's
    edges and on unlabelled pixels nothing is known, so there is no boundary, nor is one counted there.

    Args:
        labels: (n, h, w) channel indices, IGNORE where nothing is known.
        found: (n, h, w) channel indices of the map, on the same device.
    """
    known = (labels != IGNORE_INDEX) & (found != IGNORE_INDEX)
    true, drawn = _near_other(labels, known, width), _near_other(found, known, width)
    both = _count(labels, true & drawn & (labels == found), classes)
    either = _count(labels, true, classes) + _count(found, drawn, classes) - both
    return torch.stack([both, either], dim=1)


def _near_other(labels: Tensor, known: Tensor, width: int) -> Tensor:
    """True at known pixels with a known pixel of another class within `width`."""
    values = labels.float()
    # if all around are of one class, so are the highest and the lowest index: no axis of classes is needed
    highest = _highest(values.masked_fill(~known, -math.inf), width)
    lowest = -_highest((-values).masked_fill(~known, -math.inf), width)
    return known & ((highest != values) | (lowest != values))


def _highest(values: Tensor, width: int) -> Tensor:
    """The maximum within `width` rows and columns of each pixel, one axis after the other."""
    for _ in range(2):
        values = F.max_pool1d(values, 2 * width + 1, stride=1, padding=width).transpose(1, 2)
    return values


def _count(labels: Tensor, chosen: Tensor, classes: int) -> Tensor:
    """(classes,) chosen pixels of each."""
    return torch.bincount(labels.where(chosen, classes).flatten(), minlength=classes)[:classes]


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    """Part / whole; NaN where whole is 0."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio


def _mean(scores: NDArray[np.float64]) -> float:
    """The mean of those that are not NaN; NaN if all are."""
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else math.nan


def count_pairs(labels: Tensor, found: Tensor, classes: int) -> Tensor:
    """(classes, classes) pixels by true and found class, (n, h, w) each, on the device that they are on."""
    known = labels != IGNORE_INDEX
    pairs = labels[known] * classes + found[known]
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)
