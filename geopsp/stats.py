"""Statistics of bands, gathered in one pass and merged exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

EXACT = 2**20
"""Pixels of 16 bits whose squares add up exactly in a float64."""


@dataclass(frozen=True, slots=True, eq=False)
class BandStats:
    """Count, mean, spread and range of each band over valid pixels.

    `m2` is the sum of squared deviations from the mean, which merges without loss.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
    """

    count: int
    """Valid pixels seen."""

    mean: NDArray[np.float64]
    """(bands,)"""

    m2: NDArray[np.float64]
    """(bands,)"""

    low: NDArray[np.float64]
    """(bands,); inf before any pixel."""

    high: NDArray[np.float64]
    """(bands,); -inf before any pixel."""

    @classmethod
    def none(cls, bands: int) -> BandStats:
        """Of no pixel at all."""
        return cls(0, np.zeros(bands), np.zeros(bands), np.full(bands, np.inf), np.full(bands, -np.inf))

    @classmethod
    def of(cls, data: NDArray[Any], valid: NDArray[np.bool_]) -> BandStats:
        """Of one array, (bands, rows, cols), where `valid`, (rows, cols)."""
        pixels = data.reshape(len(data), -1)
        found = pixels if np.count_nonzero(valid) == valid.size else np.compress(valid.ravel(), pixels, axis=1)
        if not found.shape[1]:
            return cls.none(len(data))
        values = found.astype(np.float64)
        exact = found.dtype.kind in "iu" and found.dtype.itemsize <= 2 and found.shape[1] <= EXACT
        mean, m2 = _of_integers(values) if exact else _of_floats(values)
        return cls(
            values.shape[1], mean, m2, found.min(axis=1).astype(np.float64), found.max(axis=1).astype(np.float64)
        )

    def merge(self, other: BandStats) -> BandStats:
        """Of the pixels of both."""
        count = self.count + other.count
        if not count:
            return self
        delta = other.mean - self.mean
        share = other.count / count
        return BandStats(
            count,
            self.mean + delta * share,
            self.m2 + other.m2 + np.square(delta) * (self.count * share),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    @property
    def std(self) -> NDArray[np.float64]:
        """(bands,) population standard deviation."""
        return np.sqrt(self.m2 / max(self.count, 1))

    def to_json(self) -> dict[str, Any]:
        rows = {name: getattr(self, name).tolist() for name in ("mean", "m2", "low", "high")} if self.count else {}
        return {"count": self.count, "bands": len(self.mean), **rows}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> BandStats:
        if not row["count"]:
            return cls.none(int(row["bands"]))
        return cls(int(row["count"]), *(np.asarray(row[name], float) for name in ("mean", "m2", "low", "high")))


def merge_all(parts: Sequence[BandStats], bands: int) -> BandStats:
    """Statistics of all parts together, merged in the given order."""
    total = BandStats.none(bands)
    for part in parts:
        total = total.merge(part)
    return total


def _of_floats(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(bands,) mean and sum of squared deviations of (bands, pixels), which are changed."""
    mean = values.mean(axis=1)
    values -= mean[:, None]
    return mean, np.einsum("bp,bp->b", values, values)


def _of_integers(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """The same, from sums that are whole numbers: twice as fast, and exact."""
    count = values.shape[1]
    sums = [int(band.sum()) for band in values]
    squares = [int(square) for square in np.einsum("bp,bp->b", values, values)]  # a dot would start threads of its own
    m2 = [(count * square - total * total) / count for total, square in zip(sums, squares, strict=True)]
    return np.array(sums, float) / count, np.array(m2)
