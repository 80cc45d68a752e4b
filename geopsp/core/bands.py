"""Band names, per-band statistics (gathered in one pass, merged exactly) and normalisation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.argument_names import did_you_mean
from geopsp.core.text import format_count
from geopsp.errors import BandError


@dataclass(frozen=True, slots=True, eq=False)
class Normalization:
    """Normalisation of pixels: (pixel - mean) / std for each band, 0 where invalid."""

    mean: NDArray[np.float32]
    """(bands,)"""

    std: NDArray[np.float32]
    """(bands,); 1 for a band whose pixels are all equal."""

    @classmethod
    def from_stats(cls, stats: BandStats) -> Normalization:
        varies = (stats.high != stats.low) & (stats.std.astype(np.float32) > 0)  # equal floats have a std of about 0
        return cls(stats.mean.astype(np.float32), np.where(varies, stats.std, 1).astype(np.float32))

    def __call__(self, data: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.float32]:
        """Normalise pixels, (bands, rows, cols); `valid`, (rows, cols), is True for valid ones."""
        all_valid = bool(valid.all())
        values = data if all_valid else np.where(valid, data, 0)  # before the cast: a nodata value may not fit float32
        pixels = values.astype(np.float32)
        pixels -= self.mean[:, None, None]
        pixels *= (1 / self.std)[:, None, None]
        if not all_valid:
            pixels *= valid
        return pixels


MAX_EXACT_PIXELS = 2**20
"""Number of 16-bit pixels up to which the sum of squares is exact in float64."""


@dataclass(frozen=True, slots=True, eq=False)
class BandStats:
    """Count of valid pixels, and mean, squared deviations and range of each band.

    Source: Chan, Golub, LeVeque, "Updating formulae and a pairwise algorithm for computing sample variances" (1979).
    """

    count: int
    """Number of valid pixels."""

    mean: NDArray[np.float64]
    """(bands,)"""

    m2: NDArray[np.float64]
    """(bands,) sum of squared deviations from the mean, which merges without loss."""

    low: NDArray[np.float64]
    """(bands,) minimum; inf without pixels."""

    high: NDArray[np.float64]
    """(bands,) maximum; -inf without pixels."""

    @classmethod
    def empty(cls, bands: int) -> BandStats:
        """Return the statistics of no pixels."""
        return cls(0, np.zeros(bands), np.zeros(bands), np.full(bands, np.inf), np.full(bands, -np.inf))

    @classmethod
    def from_array(cls, data: NDArray[Any], valid: NDArray[np.bool_]) -> BandStats:
        """Compute the statistics of an array, (bands, rows, cols), where `valid`, (rows, cols), is True."""
        pixels = data.reshape(len(data), -1)
        if np.count_nonzero(valid) < valid.size:
            pixels = np.compress(valid.ravel(), pixels, axis=1)
        count = pixels.shape[1]
        if not count:
            return cls.empty(len(data))
        values = pixels.astype(np.float64)
        exact = pixels.dtype.kind in "iu" and pixels.dtype.itemsize <= 2 and count <= MAX_EXACT_PIXELS
        mean, m2 = _moments_of_integers(values) if exact else _moments_of_floats(values)
        return cls(count, mean, m2, pixels.min(axis=1).astype(np.float64), pixels.max(axis=1).astype(np.float64))

    def merge(self, other: BandStats) -> BandStats:
        """Return the statistics of the pixels of both."""
        count = self.count + other.count
        if not count:
            return self
        delta = other.mean - self.mean
        fraction = other.count / count
        return BandStats(
            count,
            self.mean + delta * fraction,
            self.m2 + other.m2 + np.square(delta) * (self.count * fraction),
            np.minimum(self.low, other.low),
            np.maximum(self.high, other.high),
        )

    def before(self, conversion: Sequence[tuple[float, float]]) -> BandStats:
        """Return the statistics of the values that a conversion, (gain above 0, bias) by band, turns into these."""
        gain, bias = np.array(conversion, float).T
        mean, low, high = ((each - bias) / gain for each in (self.mean, self.low, self.high))
        return BandStats(self.count, mean, self.m2 / np.square(gain), low, high)

    @property
    def std(self) -> NDArray[np.float64]:
        """Population standard deviation, (bands,)."""
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
    """Merge statistics in the given order."""
    total = BandStats.empty(bands)
    for part in parts:
        total = total.merge(part)
    return total


def _moments_of_floats(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean and the sum of squared deviations, (bands,), of (bands, pixels); overwrites `values`."""
    mean = values.mean(axis=1)
    values -= mean[:, None]
    return mean, np.einsum("bp,bp->b", values, values)


def _moments_of_integers(values: NDArray[np.float64]) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the same from integer sums, which are exact and twice as fast."""
    count = values.shape[1]
    sums = [int(band.sum()) for band in values]
    squares = [int(square) for square in np.einsum("bp,bp->b", values, values)]  # a dot would start threads of its own
    m2 = [(count * square - total * total) / count for total, square in zip(sums, squares, strict=True)]
    return np.array(sums, float) / count, np.array(m2)


def has_band_names(bands: Sequence[str]) -> bool:
    """True unless all names are mere numbers: "band_1", "band_2" ..."""
    return not all(band.startswith("band_") for band in bands)


def match_bands(wanted: Sequence[str | int], found: Sequence[str], *, where: str) -> tuple[int, ...]:
    """Return the positions, from 0, of the wanted bands among those found.

    Bands match by number (3 or "band_3") or by name, in any case. If a raster has no band names but as many bands as
    there are wanted names, these are taken in order.

    Args:
        wanted: Numbers from 1, or names.
        found: Names of all bands of a raster.
        where: The raster, for messages.

    Raises:
        BandError: if a band is missing.
    """
    names = [band for band in wanted if isinstance(band, str)]
    if len(names) == len(wanted) and has_band_names(names) and not has_band_names(found):
        if len(wanted) != len(found):
            raise BandError(
                f"{where} has {format_count(len(found), 'band')} without names, but {len(wanted)} are needed: "
                f"{', '.join(names)}. Give the band numbers with `bands`, or set the band names in the file."
            )
        return tuple(range(len(wanted)))
    by_name = {f"band_{i + 1}": i for i in range(len(found))} | {name.lower(): i for i, name in enumerate(found)}
    positions = [band - 1 if isinstance(band, int) else by_name.get(band.lower(), -1) for band in wanted]
    missing = [str(band) for band, i in zip(wanted, positions, strict=True) if not 0 <= i < len(found)]
    if missing:
        raise BandError(
            f"{where} has no band {', '.join(missing)}; it has {len(found)}: {', '.join(found)}."
            f"{did_you_mean(missing[0], found)} Choose a raster with those bands, or set the band names in the file."
        )
    return tuple(positions)
