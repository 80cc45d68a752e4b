"""The work on every pixel of a tile on the CPU, compiled: one pass where tensor operations take several.

All arrays are contiguous. Most loops run along rows of columns without a branch, so that they become vector
instructions.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.bands import Normalization
from geopsp.core.fast_exp import exp_differences, logarithms
from geopsp.core.jit import jit
from geopsp.inference.classes_numba import likeliest
from geopsp.inference.tile_plan import SCORE_ONE, RowsCols
from geopsp.models.calibration import CLASS_MARGIN, LEAST_PROBABILITY
from geopsp.models.crf import CRFParameters
from geopsp.models.mean_field import mean_field

CACHE_BYTES = 2**20
"""Bytes of an array that a step of several operations works on. Larger ones cost twice the time: they leave the
processor's cache between two operations, and their memory is new each time."""


class NumbaOps:
    """`TileOps` on the CPU, on arrays of numpy."""

    def __init__(self, normalization: Normalization) -> None:
        self._mean, self._scale = normalization.mean, 1 / normalization.std

    def normalise(
        self, pixels: NDArray[Any], valid: NDArray[np.bool_], image: NDArray[np.float32], mask: NDArray[np.float32]
    ) -> None:
        """Normalise the pixels of a tile; see `TileOps`."""
        known = np.ascontiguousarray(pixels, np.float32 if pixels.dtype == np.float16 else None)  # numba has no float16
        bands = (0,) * len(known)
        _normalise(known, np.ascontiguousarray(valid), self._mean, self._scale, bands, image.transpose(1, 2, 0), mask)

    def image(self, bands: int, size: int) -> NDArray[np.float32]:
        return np.empty((size, size, bands), np.float32).transpose(2, 0, 1)

    def score(
        self, logits: NDArray[np.float32], interior: RowsCols, overlaps: Sequence[RowsCols]
    ) -> tuple[NDArray[np.uint8], list[NDArray[np.int32]], bool]:
        """Return classes, scores, and whether the logits are usable; see `TileOps`."""
        pixels = np.ascontiguousarray(logits.transpose(1, 2, 0))
        index, usable = likeliest(pixels, *interior)
        scores = [np.empty((len(logits), *_shape(area)), np.int32) for area in overlaps]
        for (rows, cols), found in zip(overlaps, scores, strict=True):
            usable &= bool(_scores(pixels, rows.start, cols.start, SCORE_ONE, found))
        return index, scores, usable

    def add_weighted(
        self,
        sums: NDArray[np.int32],
        target: RowsCols,
        scores: NDArray[np.int32],
        weights: NDArray[np.int32],
        source: RowsCols,
    ) -> None:
        """Add scores times weights to the sums; see `TileOps`."""
        (row, col), (top, left) = ((area[0].start, area[1].start) for area in (target, source))
        _add_weighted(sums, row, col, np.ascontiguousarray(scores), weights, top, left)

    def argmax(self, values: NDArray[np.int32], index: NDArray[np.uint8], area: RowsCols | None = None) -> None:
        """Write the channel of the largest value; see `TileOps`."""
        rows, cols = area or (slice(0, values.shape[1]), slice(0, values.shape[2]))
        _argmax(values, index, rows.start, rows.stop, cols.start, cols.stop)

    def lower(self, values: NDArray[np.int32], others: NDArray[np.int32]) -> None:
        np.minimum(values, others, out=values)

    def total(self, values: NDArray[np.int32]) -> NDArray[np.int32]:
        return np.asarray(values.sum(axis=0, dtype=np.int32))

    def largest(self, values: NDArray[np.int32]) -> NDArray[np.int32]:
        return np.asarray(values.max(axis=0, keepdims=True))

    def fractions(self, values: NDArray[np.int32], one: int) -> NDArray[np.float32]:
        found = values.astype(np.float32)
        found /= np.float32(one)
        return found

    def calibrated(
        self, values: NDArray[np.int32], one: int, weights: NDArray[np.float32], biases: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return calibrated probabilities; see `TileOps`."""
        found = np.empty(values.shape, np.float32)
        _calibrate(np.ascontiguousarray(values), one, weights, biases, found)
        return found

    def confidence(
        self, values: NDArray[np.int32], one: int, weights: NDArray[np.float32], biases: NDArray[np.float32]
    ) -> NDArray[np.float32]:
        """Return the largest calibrated probability; see `TileOps`."""
        found = np.empty((1, *values.shape[1:]), np.float32)
        _calibrate(np.ascontiguousarray(values), one, weights, biases, found)
        return found

    def whole_numbers(self, fractions: NDArray[np.float32], one: int) -> NDArray[np.int32]:
        return np.multiply(fractions, np.float32(one)).astype(np.int32)

    def mean_field(
        self,
        probabilities: NDArray[np.float32],
        image: NDArray[np.float32],
        valid: NDArray[np.bool_],
        crf: CRFParameters,
        *,
        excluded: Sequence[int],
        core: slice,
        pool: Executor | None,
    ) -> NDArray[np.float32]:
        """Return the probabilities of a CRF; see `models.mean_field`."""
        return mean_field(probabilities, image, valid, crf, excluded=excluded, core=core, pool=pool)

    def zeros(self, shape: Sequence[int], dtype: str = "int32") -> NDArray[Any]:
        return np.zeros(tuple(shape), dtype)

    def copy(self, values: NDArray[Any]) -> NDArray[Any]:
        return values.copy()

    def concatenate(self, arrays: Sequence[NDArray[Any]]) -> NDArray[Any]:
        return np.concatenate(arrays)

    def from_numpy(self, array: NDArray[Any]) -> NDArray[Any]:
        return array

    def from_tensor(self, tensor: Any) -> NDArray[Any]:
        found: NDArray[Any] = tensor.numpy()
        return found

    def lookup(self, table: NDArray[np.uint8], index: NDArray[np.uint8]) -> NDArray[np.uint8]:
        return index.copy() if np.array_equal(table, np.arange(len(table))) else table[index]

    def where(self, condition: NDArray[np.bool_], value: int, others: NDArray[Any]) -> NDArray[Any]:
        return np.where(condition, others.dtype.type(value), others)

    def cast(self, values: NDArray[Any], dtype: str) -> NDArray[Any]:
        return values.astype(dtype, copy=False)

    def to_numpy(self, values: NDArray[Any]) -> NDArray[Any]:
        return values

    def host_copy(self, values: NDArray[Any]) -> Callable[[], NDArray[Any]]:
        return lambda: values

    def rows_at_once(self, bytes_per_row: int) -> int:
        """Return how many rows stay in the processor's cache."""
        return max(1, CACHE_BYTES // bytes_per_row)


def _shape(area: RowsCols) -> tuple[int, int]:
    rows, cols = area
    return rows.stop - rows.start, cols.stop - cols.start


@jit()
def _normalise(pixels: Any, valid: Any, mean: Any, scale: Any, bands: Any, image: Any, mask: Any) -> None:
    """Write (pixels - mean) x scale of (bands, rows, cols) to (rows, cols, bands) float32, and 0 where invalid.

    `mask`, (rows, cols) float32, becomes 1 where valid, else 0. `bands` is a tuple with an element for each band, so
    that their number is a constant for the compiler.
    """
    rows, cols = valid.shape
    lines = np.empty((len(bands), cols), np.float32)
    for row in range(rows):
        for band in range(len(bands)):
            line, known = pixels[band, row], lines[band]
            for col in range(cols):
                value = (np.float32(line[col]) - mean[band]) * scale[band]
                known[col] = value if valid[row, col] else np.float32(0)
        shown = image[row].reshape(-1)
        for col in range(cols):
            for band in range(len(bands)):
                shown[col * len(bands) + band] = lines[band, col]
        for col in range(cols):
            mask[row, col] = valid[row, col]


@jit("f4[:, :, ::1]", "i8", "i8", "i8", "i4[:, :, ::1]")
def _scores(logits: Any, top: Any, left: Any, one: Any, out: Any) -> Any:
    """Write the scores of (rows, cols, classes) logits from (top, left) on to `out`, (classes, h, w) int32.

    Returns:
        True if all logits are usable.
    """
    classes, rows, cols = out.shape
    line, chances = np.empty((classes, cols), logits.dtype), np.empty((classes, cols), np.float32)
    best, total, power = np.empty(cols, logits.dtype), np.empty(cols, np.float32), np.empty(cols, np.int32)
    most, half, wrong = np.float32(one - 1), np.float32(0.5), 0
    for row in range(rows):
        wrong |= _transpose(logits[top + row, left : left + cols], line, best)
        total[:] = 0
        for channel in range(classes):
            exp_differences(line[channel], best, power, chances[channel])
            for col in range(cols):
                total[col] += chances[channel, col]
        for col in range(cols):
            total[col] = most / total[col]
        for channel in range(classes):
            found = out[channel, row]
            for col in range(cols):
                found[col] = np.int32(chances[channel, col] * total[col] + half) + (line[channel, col] == best[col])
    return wrong == 0


@jit()
def _transpose(logits: Any, line: Any, best: Any) -> Any:
    """Write (cols, classes) logits to `line`, (classes, cols), and the largest of each pixel to `best`.

    Returns:
        1 if they are not usable, else 0.
    """
    for channel in range(len(line)):
        for col in range(best.size):
            line[channel, col] = logits[col, channel]
    best[:] = line[0]
    for channel in range(1, len(line)):
        for col in range(best.size):
            best[col] = max(best[col], line[channel, col])
    wrong = _has_nonfinite(logits)
    for col in range(best.size):
        wrong |= not best[col] > -np.inf
    return wrong


@jit()
def _has_nonfinite(logits: Any) -> Any:
    """Return 1 if one of (cols, classes) logits is NaN or +inf, else 0."""
    wrong, values = 0, logits.reshape(-1)
    for at in range(values.size):
        wrong |= not values[at] < np.inf
    return wrong


@jit("i4[:, :, ::1]", "u1[:, ::1]", "i8", "i8", "i8", "i8")
def _argmax(values: Any, index: Any, top: Any, bottom: Any, left: Any, right: Any) -> None:
    """Write the channel of the largest of (classes, rows, cols) whole numbers to `index`, (rows, cols), in an area."""
    best, found = np.empty(right - left, values.dtype), np.empty(right - left, np.int32)
    for row in range(top, bottom):
        best[:] = values[0, row, left:right]
        found[:] = 0
        for channel in range(1, values.shape[0]):
            line = values[channel, row, left:right]
            for col in range(best.size):
                more = line[col] > best[col]
                best[col] = line[col] if more else best[col]
                found[col] = channel if more else found[col]
        index[row, left:right] = found


@jit("i4[:, :, ::1]", "i8", "i8", "i4[:, :, ::1]", "i4[:, ::1]", "i8", "i8")
def _add_weighted(sums: Any, row: Any, col: Any, scores: Any, weights: Any, top: Any, left: Any) -> None:
    """Add (classes, h, w) scores times weights from (top, left) on to (classes, rows, cols) sums from (row, col) on."""
    rows, cols = scores.shape[1:]
    for channel in range(sums.shape[0]):
        for down in range(rows):
            total, score = sums[channel, row + down, col : col + cols], scores[channel, down]
            weight = weights[top + down, left : left + cols]
            for at in range(cols):
                total[at] += score[at] * weight[at]


@jit("i4[:, :, ::1]", "i8", "f4[::1]", "f4[::1]", "f4[:, :, ::1]")
def _calibrate(sums: Any, one: Any, weights: Any, biases: Any, out: Any) -> None:
    """Write calibrated probabilities of (classes, rows, cols) sums to `out`, of the same shape or (1, rows, cols).

    With one band in `out` only the largest is written, which is that of the predicted class.
    """
    classes, rows, cols = sums.shape
    line, top, cap = np.empty((classes, cols), np.float32), np.empty(cols, np.int32), np.empty(cols, np.float32)
    chances, total, scratch = np.empty(cols, np.float32), np.empty(cols, np.float32), np.empty(cols, np.int32)
    least, whole = np.float32(one * LEAST_PROBABILITY), np.log(np.float32(one))
    for row in range(rows):
        top[:] = sums[0, row]
        for channel in range(1, classes):
            for col in range(cols):
                top[col] = max(top[col], sums[channel, row, col])
        cap[:] = -np.inf
        for channel in range(classes):
            for col in range(cols):
                chances[col] = max(np.float32(sums[channel, row, col]), least)
            logarithms(chances, scratch, line[channel])
            for col in range(cols):
                value = (line[channel, col] - whole) * weights[channel] + biases[channel]
                line[channel, col] = value
                cap[col] = max(cap[col], value if sums[channel, row, col] == top[col] else -np.inf)
        total[:] = 0
        for channel in range(classes):
            _below_predicted(line[channel], sums[channel, row], top, cap)
            exp_differences(line[channel], cap, scratch, chances)
            for col in range(cols):
                total[col] += chances[col]
            line[channel] = chances
        _shares(line, total, out[:, row])


@jit()
def _below_predicted(values: Any, sums: Any, top: Any, cap: Any) -> None:
    """Lower values to `CLASS_MARGIN` below `cap`, but for the predicted class, whose sum is `top`."""
    margin = np.float32(CLASS_MARGIN)
    for col in range(values.size):
        values[col] = values[col] if sums[col] == top[col] else min(values[col], cap[col] - margin)


@jit()
def _shares(parts: Any, total: Any, out: Any) -> None:
    """Write (classes, cols) parts over their total to `out`; to one of (1, cols) the largest."""
    if len(out) == len(parts):
        for channel in range(len(parts)):
            for col in range(total.size):
                out[channel, col] = parts[channel, col] / total[col]
        return
    out[0] = parts[0]
    for channel in range(1, len(parts)):
        for col in range(total.size):
            out[0, col] = max(out[0, col], parts[channel, col])
    for col in range(total.size):
        out[0, col] /= total[col]
