"""Overviews: each level has half the resolution of the one before."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX
from geopsp.raster.cog.raster_spec import RasterSpec


@jit("u1[:, ::1]", "u1", "u1[:, ::1]")
def mode_of_four(pixels: Any, nodata: Any, out: Any) -> None:
    """Write the mode of each 2 x 2 pixels into `out`, (rows, cols).

    Nodata pixels do not count; of equally frequent values the first in reading order wins.
    """
    for row in range(out.shape[0]):
        upper, lower, modes = pixels[2 * row], pixels[2 * row + 1], out[row]
        for col in range(modes.size):
            a, b, c, d = upper[2 * col], upper[2 * col + 1], lower[2 * col], lower[2 * col + 1]
            best = c if c != nodata else d
            best = b if b != nodata else best
            best = a if a != nodata else best
            best = c if c == d and c != nodata else best
            best = b if b in (c, d) and b != nodata else best
            best = a if a in (b, c, d) and a != nodata else best
            modes[col] = best


COUNT_UNIT = 1024
"""Added to the sum of four values once for each valid one, so that one number holds both sum and count.

It is larger than any sum of four values.
"""


def is_blank(rows: NDArray[Any], spec: RasterSpec) -> bool:
    """Return True for rows made by `RasterSpec.blank` and for slices of them, without looking at the pixels.

    Other arrays may hold nothing but nodata and still give False.
    """
    if any(rows.strides) or not rows.size:
        return not rows.size
    return bool(np.array_equal(rows[0, 0, 0], spec.nodata, equal_nan=spec.dtype != "uint8"))


def downsample(rows: NDArray[Any], spec: RasterSpec) -> NDArray[Any]:
    """Halve the resolution of (bands, rows, cols) pixels; odd sizes are rounded up.

    Classes: the mode, of equally frequent ones the first in reading order. Other rasters: the mean, rounded half up.
    The result is nodata only where all four pixels are.
    """
    height, width = rows.shape[1:]
    if is_blank(rows, spec):
        return spec.blank(-(-height // 2), -(-width // 2))
    if height % 2 or width % 2:
        rows = np.pad(rows, ((0, 0), (0, height % 2), (0, width % 2)), constant_values=spec.nodata)
    if spec.resampling == "mode":
        coarse = np.empty((len(rows), rows.shape[1] // 2, rows.shape[2] // 2), np.uint8)
        for band, modes in zip(rows, coarse, strict=True):
            mode_of_four(np.ascontiguousarray(band), np.uint8(IGNORE_INDEX), modes)
        return coarse
    return _means(rows) if spec.dtype == "uint8" else _float_means(rows)


def _split_in_four(rows: NDArray[Any]) -> list[NDArray[Any]]:
    """Return the four pixels of each 2 x 2 as four contiguous arrays, in reading order."""
    return [np.ascontiguousarray(rows[:, row::2, col::2]) for row in (0, 1) for col in (0, 1)]


def _means(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    table = np.arange(IGNORE_INDEX + 1, dtype=np.uint16) + COUNT_UNIT
    table[IGNORE_INDEX] = 0
    totals = sum(np.take(table, pixels) for pixels in _split_in_four(rows))
    return np.take(_mean_table(), totals)


def _mean_table() -> NDArray[np.uint8]:
    """Return the rounded mean for each count x COUNT_UNIT + sum."""
    count, total = np.divmod(np.arange(5 * COUNT_UNIT), COUNT_UNIT)
    means = (2 * total + count) // np.maximum(2 * count, 1)
    return np.where(count == 0, IGNORE_INDEX, np.minimum(means, IGNORE_INDEX)).astype(np.uint8)


def _float_means(rows: NDArray[np.float16]) -> NDArray[np.float16]:
    four = [pixels.astype(np.float32) for pixels in _split_in_four(rows)]
    valid = [~np.isnan(pixels) for pixels in four]
    count = sum(v.astype(np.float32) for v in valid)
    total = sum(np.where(v, pixels, np.float32(0)) for pixels, v in zip(four, valid, strict=True))
    mean: NDArray[np.float32] = np.full_like(total, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean.astype(np.float16)
