"""Coarser levels of a map: one pixel of four."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX
from geopsp.raster.cog.raster_spec import RasterSpec


@jit
def mode_of_four(pixels: Any, nothing: Any, out: Any) -> None:
    """`out`, (rows, cols), are the commonest of 2 x 2 pixels each, of equals the first; `nothing` if all four are."""
    for row in range(out.shape[0]):
        upper, lower, found = pixels[2 * row], pixels[2 * row + 1], out[row]
        for col in range(found.size):
            a, b, c, d = upper[2 * col], upper[2 * col + 1], lower[2 * col], lower[2 * col + 1]
            best = c if c != nothing else d
            best = b if b != nothing else best
            best = a if a != nothing else best
            best = c if c == d and c != nothing else best
            best = b if b in (c, d) and b != nothing else best
            best = a if a in (b, c, d) and a != nothing else best
            found[col] = best


KNOWN = 1024
"""More than four shares sum to: added for each pixel that is known, it counts them beside their sum."""


def is_blank(rows: NDArray[Any], product: RasterSpec) -> bool:
    """True of what `Product.nothing` gives, and of parts of it; other rows of nodata may pass for something."""
    if any(rows.strides) or not rows.size:
        return not rows.size
    return bool(np.array_equal(rows[0, 0, 0], product.nodata, equal_nan=product.dtype != "uint8"))


def downsample(rows: NDArray[Any], product: RasterSpec) -> NDArray[Any]:
    """(bands, ceil(rows / 2), ceil(cols / 2)) of (bands, rows, cols); nodata only where all four pixels are.

    Classes: the commonest, of equally common ones the first in reading order. Shares: the mean, half up.
    """
    height, width = rows.shape[1:]
    if is_blank(rows, product):
        return product.blank(-(-height // 2), -(-width // 2))
    if height % 2 or width % 2:
        rows = np.pad(rows, ((0, 0), (0, height % 2), (0, width % 2)), constant_values=product.nodata)
    if product.resampling == "mode":
        coarse = np.empty((len(rows), rows.shape[1] // 2, rows.shape[2] // 2), np.uint8)
        for band, found in zip(rows, coarse, strict=True):
            mode_of_four(np.ascontiguousarray(band), np.uint8(IGNORE_INDEX), found)
        return coarse
    return _means(rows) if product.dtype == "uint8" else _float_means(rows)


def _four(rows: NDArray[Any]) -> list[NDArray[Any]]:
    """The four pixels that become one, each in an array of its own, in reading order."""
    return [np.ascontiguousarray(rows[:, row::2, col::2]) for row in (0, 1) for col in (0, 1)]


def _means(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    table = np.arange(IGNORE_INDEX + 1, dtype=np.uint16) + KNOWN
    table[IGNORE_INDEX] = 0
    totals = sum(np.take(table, pixels) for pixels in _four(rows))
    return np.take(_mean_table(), totals)


def _mean_table() -> NDArray[np.uint8]:
    """Means by count x KNOWN + sum."""
    count, total = np.divmod(np.arange(5 * KNOWN), KNOWN)
    means = (2 * total + count) // np.maximum(2 * count, 1)
    return np.where(count == 0, IGNORE_INDEX, np.minimum(means, IGNORE_INDEX)).astype(np.uint8)


def _float_means(rows: NDArray[np.float16]) -> NDArray[np.float16]:
    four = [pixels.astype(np.float32) for pixels in _four(rows)]
    known = [~np.isnan(pixels) for pixels in four]
    count = sum(k.astype(np.float32) for k in known)
    total = sum(np.where(k, pixels, np.float32(0)) for pixels, k in zip(four, known, strict=True))
    mean: NDArray[np.float32] = np.full_like(total, np.nan)
    np.divide(total, count, out=mean, where=count > 0)
    return mean.astype(np.float16)
