"""Statistics of bands, gathered in one pass and merged exactly."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.errors import BandError


@dataclass(frozen=True, slots=True, eq=False)
class Normalization:
    """(pixel - mean) / std a band, and 0 where invalid."""

    mean: NDArray[np.float32]
    std: NDArray[np.float32]

    @classmethod
    def from_stats(cls, stats: BandStats) -> Normalization:
        std = stats.std
        return cls(stats.mean.astype(np.float32), np.where(std > 0, std, 1).astype(np.float32))

    def __call__(self, data: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """(bands, h, w) of any type -> float32."""
        whole = bool(valid.all())
        seen = data if whole else np.where(valid, data, 0)  # first of all: a nodata value may not fit float32
        pixels = seen.astype(np.float32)
        pixels -= self.mean[:, None, None]
        pixels *= (1 / self.std)[:, None, None]
        if not whole:
            pixels *= valid
        return pixels


MAX_EXACT_PIXELS = 2**20
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
    def empty(cls, bands: int) -> BandStats:
        """Of no pixel at all."""
        return cls(0, np.zeros(bands), np.zeros(bands), np.full(bands, np.inf), np.full(bands, -np.inf))

    @classmethod
    def from_array(cls, data: NDArray[Any], valid: NDArray[np.bool_]) -> BandStats:
        """Of one array, (bands, rows, cols), where `valid`, (rows, cols)."""
        pixels = data.reshape(len(data), -1)
        found = pixels if np.count_nonzero(valid) == valid.size else np.compress(valid.ravel(), pixels, axis=1)
        if not found.shape[1]:
            return cls.empty(len(data))
        values = found.astype(np.float64)
        exact = found.dtype.kind in "iu" and found.dtype.itemsize <= 2 and found.shape[1] <= MAX_EXACT_PIXELS
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
            return cls.empty(int(row["bands"]))
        return cls(int(row["count"]), *(np.asarray(row[name], float) for name in ("mean", "m2", "low", "high")))

    # names of earlier versions
    none = empty
    of = from_array


def merge_stats(parts: Sequence[BandStats], bands: int) -> BandStats:
    """Statistics of all parts together, merged in the given order."""
    total = BandStats.empty(bands)
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


def has_band_names(bands: Sequence[str]) -> bool:
    """True if the bands carry real names, not merely numbers."""
    return not all(band.startswith("band_") for band in bands)


def match_bands(wanted: Sequence[str | int], found: Sequence[str], *, where: str) -> tuple[int, ...]:
    """Positions, from 0, of the wanted bands among those found.

    By number (3, or "band_3"), else by name; names asked of a raster that has none are taken in
    order, if it has just as many bands.

    Raises:
        BandError: if one is missing.
    """
    texts = [w for w in wanted if isinstance(w, str)]
    if len(texts) == len(wanted) and has_band_names(texts) and not has_band_names(found):
        if len(wanted) != len(found):
            raise BandError(
                f"{where} has {len(found)} bands without names; needed {len(wanted)}: {', '.join(texts)}. "
                "Say which they are, by number (bands=, --bands), or name them in the file."
            )
        return tuple(range(len(wanted)))
    by_name = {f"band_{i}": i - 1 for i in range(1, len(found) + 1)} | {name.lower(): i for i, name in enumerate(found)}
    positions = [w - 1 if isinstance(w, int) else by_name.get(w.lower(), -1) for w in wanted]
    missing = [str(w) for w, i in zip(wanted, positions, strict=True) if not 0 <= i < len(found)]
    if missing:
        raise BandError(
            f"{where} has no band {', '.join(missing)}; it has {len(found)}: {', '.join(found)}. "
            "Choose a raster with those bands, or set the band descriptions in the file."
        )
    return tuple(positions)
