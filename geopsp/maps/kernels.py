"""What a map does with every pixel on a CPU, compiled: one pass where array operations take several.

All arrays are contiguous, with columns last; a part of one is given by where it begins and ends. Loops run along rows,
without a branch, so that they become vector instructions. Elsewhere than on a CPU torch does the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geopsp.compiled import compiled


def serve(device: str) -> bool:
    """True if what lies on a device of that type is for these functions."""
    return device == "cpu"


@compiled
def normalise(pixels: Any, valid: Any, mean: Any, scale: Any, out: Any) -> None:
    """`out`, (rows, cols, bands) float32, is (pixels - mean) x scale of (bands, rows, cols), and 0 if not valid."""
    for row in range(valid.shape[0]):
        for band in range(mean.size):
            for col in range(valid.shape[1]):
                value = (np.float32(pixels[band, row, col]) - mean[band]) * scale[band]
                out[row, col, band] = value if valid[row, col] else np.float32(0)


@compiled
def first_of(values: Any, index: Any, top: Any, bottom: Any, left: Any, right: Any) -> Any:
    """`index`, (rows, cols) uint8, says which of (classes, rows, cols) values is the largest, the first of equals.

    Returns:
        True if all values are numbers under infinity, and not all of a pixel's are -inf.
    """
    best, found = np.empty(right - left, values.dtype), np.empty(right - left, np.int32)
    wrong = 0
    for row in range(top, bottom):
        best[:] = values[0, row, left:right]
        found[:] = 0
        for channel in range(values.shape[0]):
            line = values[channel, row, left:right]
            for col in range(best.size):
                more = line[col] > best[col]
                wrong |= np.isnan(line[col])
                best[col] = line[col] if more else best[col]
                found[col] = channel if more else found[col]
        for col in range(best.size):
            wrong |= not np.isfinite(best[col])
        index[row, left:right] = found
    return not wrong


@compiled
def shares(scores: Any, chances: Any, one: Any, out: Any, top: Any) -> Any:
    """`out`, (classes, rows, cols) int32, are from the row `top` on the shares of scores with these probabilities.

    Returns:
        True if all probabilities are numbers.
    """
    most, wrong = np.float32(one - 1), 0
    best = np.empty(scores.shape[2], scores.dtype)
    for row in range(scores.shape[1]):
        best[:] = scores[0, row]
        for channel in range(1, scores.shape[0]):
            line = scores[channel, row]
            for col in range(best.size):
                best[col] = max(best[col], line[col])
        for channel in range(scores.shape[0]):
            line, chance, found = scores[channel, row], chances[channel, row], out[channel, top + row]
            for col in range(best.size):
                wrong |= np.isnan(chance[col])
                found[col] = np.int32(chance[col] * most + np.float32(0.5)) + np.int32(line[col] == best[col])
    return not wrong


@compiled
def add_weighted(sums: Any, row: Any, col: Any, values: Any, weights: Any, top: Any, left: Any) -> None:
    """(classes, rows, cols) sums grow by (classes, h, w) values times weights, from a place and a weight's place on."""
    rows, cols = values.shape[1:]
    for channel in range(sums.shape[0]):
        for down in range(rows):
            total, value = sums[channel, row + down, col : col + cols], values[channel, down]
            weight = weights[top + down, left : left + cols]
            for at in range(cols):
                total[at] += value[at] * weight[at]


@compiled
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
