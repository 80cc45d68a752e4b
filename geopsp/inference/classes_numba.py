"""The classes of a map on the CPU, compiled: of all pixels of a tile, and of those on which tiles do not agree.

Some functions take `channels`, a tuple with an element for each class: its length is a constant for the compiler, which
then makes vector instructions for loops over interleaved classes.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.fast_exp import exp_differences
from geopsp.core.jit import jit
from geopsp.inference.tile_plan import SCORE_ONE, RowsCols

UNKNOWN = 255
"""The channel index of pixels without a tile."""


def likeliest(
    logits: NDArray[np.float32], rows: slice | None = None, cols: slice | None = None
) -> tuple[NDArray[np.uint8], bool]:
    """Return the channel of the largest logit of each pixel of an area, the first of equal ones.

    Args:
        logits: (s, s, classes), contiguous.
        rows: Of the area; None: all.
        cols: Of the area; None: all.

    Returns:
        (rows, cols) channels, and whether all logits of the area are usable: none is NaN or +inf, and not all of a
        pixel are -inf.
    """
    side = slice(0, logits.shape[0])
    rows, cols = rows or side, cols or side
    index = np.empty((rows.stop - rows.start, cols.stop - cols.start), np.uint8)
    usable = _likeliest(logits, rows.start, cols.start, (0,) * logits.shape[2], index)
    return index, bool(usable)


@jit()
def _likeliest(logits: Any, top: Any, left: Any, channels: Any, index: Any) -> Any:
    """Write the channels of (rows, cols, classes) logits from (top, left) on to `index`, (h, w) uint8.

    Returns:
        True if all logits are usable.
    """
    classes, (rows, cols), wrong = len(channels), index.shape, np.int32(0)
    found = np.empty(cols, np.int32)
    for row in range(rows):
        pixels = logits[top + row, left : left + cols].reshape(-1)
        for col in range(cols):
            best, channel = pixels[col * classes], np.int32(0)
            unusable = np.int32(not best < np.inf)
            for other in range(1, classes):
                value = pixels[col * classes + other]
                more = value > best
                best = value if more else best
                channel = np.int32(other) if more else channel
                unusable |= np.int32(not value < np.inf)
            wrong |= unusable | np.int32(not best > -np.inf)
            found[col] = channel
        index[row] = found
    return wrong == 0


def take_classes(
    index: NDArray[np.uint8],
    disputed: NDArray[np.bool_],
    target: RowsCols,
    others: NDArray[np.uint8],
    source: RowsCols,
) -> None:
    """Take the classes of another tile, and mark where it does not agree with those before.

    Args:
        index: (rows, cols), UNKNOWN where no tile was; contiguous, as are the others. Changed at `target`.
        disputed: (rows, cols); becomes True where tiles differ.
        target: As large as `source`.
        others: (s, s) of the tile.
        source: What is taken of it.
    """
    (row, col), (top, left) = ((area[0].start, area[1].start) for area in (target, source))
    height, width = (side.stop - side.start for side in target)
    _take_classes(index, disputed, row, col, others, top, left, height, width)


@jit("u1[:, ::1]", "b1[:, ::1]", "i8", "i8", "u1[:, ::1]", "i8", "i8", "i8", "i8")
def _take_classes(
    index: Any, disputed: Any, row: Any, col: Any, others: Any, top: Any, left: Any, height: Any, width: Any
) -> None:
    for down in range(height):
        before, marks = index[row + down, col : col + width], disputed[row + down, col : col + width]
        after = others[top + down, left : left + width]
        for at in range(width):
            marks[at] |= (before[at] != after[at]) & (before[at] != np.uint8(UNKNOWN))
            before[at] = after[at]


def add_scores(
    sums: NDArray[np.int32],
    rows: NDArray[np.intp],
    cols: NDArray[np.intp],
    logits: NDArray[np.float32],
    weights: NDArray[np.int32],
    area: RowsCols,
) -> None:
    """Add the weighted scores of those pixels that lie in an area of a tile.

    Args:
        sums: (n, classes) of all pixels.
        rows: (n,) where each pixel is, in rows of the area; ascending.
        cols: (n,) the same in its columns.
        logits: (h, w, classes) of the area, contiguous.
        weights: (s, s) of the tile, contiguous.
        area: Where it lies in the tile.
    """
    first, stop = np.searchsorted(rows, (0, len(logits)))
    found = slice(int(first), int(stop))
    _add_scores(sums[found], rows[found], cols[found], logits, weights, area[0].start, area[1].start, SCORE_ONE)


@jit("i4[:, ::1]", "i8[::1]", "i8[::1]", "f4[:, :, ::1]", "i4[:, ::1]", "i8", "i8", "i8")
def _add_scores(sums: Any, rows: Any, cols: Any, logits: Any, weights: Any, top: Any, left: Any, one: Any) -> None:
    """Add weighted scores, as `kernels_numba` makes them, to the last bit."""
    classes = sums.shape[1]
    best, power, chances = np.empty(classes, np.float32), np.empty(classes, np.int32), np.empty(classes, np.float32)
    most, half = np.float32(one - 1), np.float32(0.5)
    for at in range(rows.size):
        if not 0 <= cols[at] < logits.shape[1]:
            continue
        values, weight = logits[rows[at], cols[at]], weights[top + rows[at], left + cols[at]]
        best[:] = values.max()
        exp_differences(values, best, power, chances)
        total = np.float32(0)
        for channel in range(classes):
            total += chances[channel]
        total = most / total
        for channel in range(classes):
            score = np.int32(chances[channel] * total + half) + (values[channel] == best[channel])
            sums[at, channel] += score * weight
