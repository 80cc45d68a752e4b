"""Scores of a classification, from pixel counts over a whole data set.

A class that occurs neither in the labels nor in the predictions scores NaN, not 0 or 1.
"""

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
from geopsp.core.notebook_html import MAX_ROWS, Cell, format_score, html_block, html_table
from geopsp.core.text import format_count
from geopsp.training.reliability import Reliability

BOUNDARY_FRACTION = 0.02
"""Width of a boundary over the diagonal of a tile. Source: Cheng et al., "Boundary IoU" (2021)."""


COUNTERS = 64
"""Sets of counters on a GPU."""


@dataclass(slots=True, eq=False)
class Confusion:
    """Confusion matrix: pixel counts by class in the labels (row) and in the predictions (column)."""

    legend: Legend
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))
    """(classes, classes) pixels; row: true class, column: predicted class."""

    boundary: NDArray[np.int64] | None = None
    """(classes, 2) boundary pixels, see `boundary_counts`; None: not counted."""

    reliability: Reliability | None = None
    """Of the probabilities of the network, without calibration; None: not counted."""

    calibrated: Reliability | None = None
    """Of its calibrated probabilities; None: it is not calibrated."""

    def __post_init__(self) -> None:
        if not self.counts.size:
            self.counts = np.zeros((len(self.legend), len(self.legend)), np.int64)

    def add(self, truth: NDArray[Any], predicted: NDArray[Any]) -> None:
        """Count the pixels of two arrays of channel indices; pixels where either is IGNORE_INDEX do not count."""
        known = (truth != IGNORE_INDEX) & (predicted != IGNORE_INDEX)
        size = len(self.legend)
        pairs = truth[known].astype(np.int64) * size + predicted[known]
        self.counts += np.bincount(pairs, minlength=size * size).reshape(size, size)

    @property
    def _correct(self) -> NDArray[np.float64]:
        return np.diag(self.counts).astype(float)

    @property
    def _true_and_predicted(self) -> NDArray[np.float64]:
        """Pixels of each class in the labels, plus those in the predictions."""
        both: NDArray[np.float64] = (self.counts.sum(axis=0) + self.counts.sum(axis=1)).astype(float)
        return both

    def iou(self) -> NDArray[np.float64]:
        """Return the intersection over union, (classes,); NaN for a class that does not occur."""
        return _ratio(self._correct, self._true_and_predicted - self._correct)

    def dice(self) -> NDArray[np.float64]:
        """Return the Dice score, which is F1, (classes,); NaN for a class that does not occur."""
        return _ratio(2 * self._correct, self._true_and_predicted)

    def boundary_iou(self) -> NDArray[np.float64]:
        """Return the intersection over union of the boundaries, (classes,).

        NaN for a class without boundary pixels, and for all classes if boundaries were not counted.

        Source: Cheng et al., "Boundary IoU" (2021), section 5; here over the whole data set.
        """
        counts = np.zeros((len(self.legend), 2), np.int64) if self.boundary is None else self.boundary
        return _ratio(counts[:, 0], counts[:, 1])

    def mean_iou(self) -> float:
        """Return the mean IoU of the classes that occur; NaN if none does."""
        return _mean(self.iou())

    def mean_dice(self) -> float:
        """Return the mean Dice score of the classes that occur; NaN if none does."""
        return _mean(self.dice())

    def mean_boundary_iou(self) -> float:
        """Return the mean boundary IoU of the classes with a boundary; NaN if none has one."""
        return _mean(self.boundary_iou())

    def accuracy(self) -> float:
        """Return the fraction of labelled pixels that are predicted correctly; NaN if there are none."""
        return float(_ratio(self._correct.sum(), self.counts.sum()))

    def per_class(self) -> pd.DataFrame:
        """Return one row per class: precision, recall, f1, iou, boundary_iou (if counted), pixels (in the labels)."""
        true, predicted = self.counts.sum(axis=1), self.counts.sum(axis=0)
        columns = {
            "precision": _ratio(self._correct, predicted),
            "recall": _ratio(self._correct, true),
            "f1": self.dice(),
            "iou": self.iou(),
            **({} if self.boundary is None else {"boundary_iou": self.boundary_iou()}),
            "pixels": true,
        }
        return pd.DataFrame(columns, index=pd.Index(self.legend.names, name="class"))

    def to_json(self) -> dict[str, Any]:
        """Return all scores and the counts; None where a score is NaN."""

        def or_none(value: float) -> float | None:
            return float(value) if np.isfinite(value) else None

        rows = self.per_class().to_dict(orient="index")
        return {
            "miou": or_none(self.mean_iou()),
            "dice": or_none(self.mean_dice()),
            **({} if self.boundary is None else {"boundary_miou": or_none(self.mean_boundary_iou())}),
            "accuracy": or_none(self.accuracy()),
            "per_class": {
                str(name): {str(key): or_none(value) for key, value in row.items()} for name, row in rows.items()
            },
            **self._calibration(),
            "confusion": {"classes": self.legend.names, "rows_true": self.counts.tolist()},
        }

    def _calibration(self) -> dict[str, Any]:
        found = {"uncalibrated": self.reliability, "calibrated": self.calibrated}
        entry = {name: each.to_json() for name, each in found.items() if each is not None}
        return {"calibration": entry} if entry else {}

    def shares(self) -> NDArray[np.float64]:
        """Return the counts as fractions of each class in the labels, (classes, classes); NaN for one without."""
        return _ratio(self.counts, np.broadcast_to(self.counts.sum(axis=1, keepdims=True), self.counts.shape))

    def table(self) -> pd.DataFrame:
        """Return the counts with class names; row: true class, column: predicted class."""
        names = self.legend.names
        return pd.DataFrame(self.counts, index=pd.Index(names, name="true"), columns=names)

    def __repr__(self) -> str:
        return f"<{self._summary}>"

    @property
    def _summary(self) -> str:
        """Number of classes and pixels, and the overall scores."""
        classes, pixels = len(self.legend), int(self.counts.sum())
        words = f"{format_count(classes, 'class', 'classes')}, {format_count(pixels, 'pixel')}"
        return f"Confusion of {words}: mIoU {self.mean_iou():.3f}, accuracy {self.accuracy():.3f}"

    def _repr_html_(self) -> str:
        scores = self.per_class()
        rows: list[list[Cell]] = [
            [info, *(format_score(score) for score in row[:-1]), f"{int(row[-1]):,}"]
            for info, row in zip(self.legend, scores.to_numpy(), strict=True)
        ]
        header = ["class", *(str(name).replace("iou", "IoU").replace("_", " ") for name in scores.columns)]
        return html_block(self._summary, html_table(header, rows), self._matrix_html())

    def _matrix_html(self) -> str:
        """Return the shares of the predictions of each class in the labels, as HTML."""
        if len(self.legend) > MAX_ROWS:
            return ""
        shares = self.shares()
        cells = [["\N{EN DASH}" if math.isnan(share) else f"{share:.1%}" for share in row] for row in shares]
        rows: list[list[Cell]] = [[info, *row] for info, row in zip(self.legend, cells, strict=True)]
        header = ["ground truth \N{RIGHTWARDS ARROW} prediction", *self.legend.names]
        return html_table(header, rows, shades=np.nan_to_num(shares).tolist())

    def confused(self, one: str, other: str) -> float:
        """Return how often two classes are confused: the wrong fraction of their pixels predicted as one of the two."""
        i, j = self.legend.names.index(one), self.legend.names.index(other)
        counts = self.counts[np.ix_([i, j], [i, j])]
        return float(_ratio(counts[0, 1] + counts[1, 0], counts.sum()))


def boundary_width(size: int) -> int:
    """Return the width in pixels of a boundary in tiles of size x size, at least 1."""
    return max(1, round(BOUNDARY_FRACTION * math.hypot(size, size)))


def boundary_counts(labels: Tensor, predicted: Tensor, classes: int, width: int) -> Tensor:
    """Count the boundary pixels of each class that labels and prediction share, and those of either.

    The boundary of a class is the pixels with another class at most `width` rows and columns away. Outside the tile
    and on unlabelled pixels nothing is known, so they make no boundary, and none is counted there.

    Args:
        labels: (n, h, w) channel indices, or IGNORE_INDEX.
        predicted: (n, h, w) channel indices, on the same device.
        classes: Number of channels.
        width: In pixels.

    Returns:
        (classes, 2) int64: in both, in either.
    """
    known = (labels != IGNORE_INDEX) & (predicted != IGNORE_INDEX)
    in_labels, in_predicted = _near_other(labels, known, width), _near_other(predicted, known, width)
    both = _count(labels, in_labels & in_predicted & (labels == predicted), classes)
    either = _count(labels, in_labels, classes) + _count(predicted, in_predicted, classes) - both
    return torch.stack([both, either], dim=1)


def _near_other(labels: Tensor, known: Tensor, width: int) -> Tensor:
    """Return True at known pixels with a known pixel of another class at most `width` away."""
    values = labels.float()
    # all neighbours are of one class if their highest and lowest index are the same: no axis of classes is needed
    highest = _max_filter(values.masked_fill(~known, -math.inf), width)
    lowest = -_max_filter((-values).masked_fill(~known, -math.inf), width)
    return known & ((highest != values) | (lowest != values))


def _max_filter(values: Tensor, width: int) -> Tensor:
    """Return the maximum within `width` rows and columns of each pixel, one axis after the other."""
    for _ in range(2):
        values = F.max_pool1d(values, 2 * width + 1, stride=1, padding=width).transpose(1, 2)
    return values


def _count(labels: Tensor, chosen: Tensor, classes: int) -> Tensor:
    """Count the chosen pixels of each class, (classes,)."""
    return torch.bincount(labels.where(chosen, classes).flatten(), minlength=classes)[:classes]


def _ratio(part: Any, whole: Any) -> NDArray[np.float64]:
    """Return part / whole; NaN where whole is 0."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    ratio: NDArray[np.float64] = np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
    return ratio


def _mean(scores: NDArray[np.float64]) -> float:
    """Return the mean of the scores that are not NaN; NaN if all are."""
    return float(np.nanmean(scores)) if np.isfinite(scores).any() else math.nan


def count_pairs(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Count pixels by true and predicted class, (classes, classes), from (n, h, w) channel indices on any device."""
    if labels.device.type == "cuda":
        return count_pairs_on_gpu(labels, predicted, classes)
    known = labels != IGNORE_INDEX
    pairs = labels[known] * classes + predicted[known]
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def count_pairs_on_gpu(labels: Tensor, predicted: Tensor, classes: int) -> Tensor:
    """Count as `count_pairs`, without anything whose size a GPU has to tell first.

    Pixels are counted in `COUNTERS` sets of counters: most pixels are of few pairs, and additions to one counter wait
    for each other.
    """
    pairs = (labels * classes + predicted).where(labels != IGNORE_INDEX, classes**2).flatten()
    size = classes**2 + 1
    places = pairs + size * (torch.arange(len(pairs), device=pairs.device) % COUNTERS)
    counts = pairs.new_zeros(COUNTERS * size).scatter_add_(0, places, torch.ones_like(places))
    return counts.view(COUNTERS, size).sum(dim=0)[:-1].view(classes, classes)
