"""Scores of a classification, all from one confusion matrix. A class that never occurs scores NaN, not 0 or 1."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geopsp.legend import IGNORE, Legend


@dataclass(slots=True, eq=False)
class Confusion:
    """Counts of pixels, (classes, classes): row = true class, column = predicted class."""

    legend: Legend
    counts: NDArray[np.int64] = field(default_factory=lambda: np.zeros((0, 0), np.int64))

    def __post_init__(self) -> None:
        if not self.counts.size:
            self.counts = np.zeros((len(self.legend), len(self.legend)), np.int64)

    def add(self, truth: NDArray[Any], predicted: NDArray[Any]) -> None:
        """Counts pixels of two arrays of channel indices; those where either is IGNORE are left out."""
        known = (truth != IGNORE) & (predicted != IGNORE)
        size = len(self.legend)
        pairs = truth[known].astype(np.int64) * size + predicted[known]
        self.counts += np.bincount(pairs, minlength=size * size).reshape(size, size)

    @property
    def _right(self) -> NDArray[np.float64]:
        return np.diag(self.counts).astype(float)

    def iou(self) -> NDArray[np.float64]:
        """(classes,) intersection over union; NaN for a class neither there nor predicted."""
        union = self.counts.sum(axis=0) + self.counts.sum(axis=1) - self._right
        iou: NDArray[np.float64] = _ratio(self._right, union)
        return iou

    def mean_iou(self) -> float:
        """Mean over the classes that occur; NaN if none does."""
        iou = self.iou()
        return float(np.nanmean(iou)) if np.isfinite(iou).any() else float("nan")

    def accuracy(self) -> float:
        """Share of labelled pixels found right; NaN if there are none."""
        return float(_ratio(self._right.sum(), np.float64(self.counts.sum())))

    def per_class(self) -> pd.DataFrame:
        """One row a class: precision, recall, f1, iou, pixels (true ones)."""
        true, predicted = self.counts.sum(axis=1), self.counts.sum(axis=0)
        columns = {
            "precision": _ratio(self._right, predicted),
            "recall": _ratio(self._right, true),
            "f1": _ratio(2 * self._right, true + predicted),
            "iou": self.iou(),
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
        return float(_ratio(np.float64(part[0, 1] + part[1, 0]), np.float64(part.sum())))


def _ratio(part: Any, whole: Any) -> Any:
    """Part / whole; NaN where whole is 0."""
    part, whole = np.asarray(part, float), np.asarray(whole, float)
    return np.divide(part, whole, out=np.full(part.shape, np.nan), where=whole > 0)
