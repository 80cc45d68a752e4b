"""What a map does with every pixel on a CPU, compiled: one pass where array operations take several.

All arrays are contiguous; a part of one is given by where it begins, and where it ends. Most loops run along rows of
columns without a branch, so that they become vector instructions. Elsewhere than on a CPU torch does the same.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geopsp.core.jit import jit


def use_numba(device: str) -> bool:
    """True if what lies on a device of that type is for these functions."""
    return device == "cpu"


@jit()
def normalise(pixels: Any, valid: Any, mean: Any, scale: Any, out: Any, mask: Any) -> None:
    """`out`, (rows, cols, bands) float32, is (pixels - mean) x scale of (bands, rows, cols), and 0 if not valid.

    `mask`, (rows, cols) float32, is 1 where they are valid, else 0.
    """
    for row in range(valid.shape[0]):
        for band in range(mean.size):
            for col in range(valid.shape[1]):
                value = (np.float32(pixels[band, row, col]) - mean[band]) * scale[band]
                out[row, col, band] = value if valid[row, col] else np.float32(0)
        for col in range(valid.shape[1]):
            mask[row, col] = valid[row, col]


@jit()
def likeliest(scores: Any, top: Any, left: Any, index: Any) -> Any:
    """`index`, (h, w) uint8, says which of (rows, cols, classes) scores is the largest, the first of equals.

    Returns:
        True if all scores are numbers under infinity, and not all of a pixel's are -inf.
    """
    wrong = 0
    for row in range(index.shape[0]):
        near = scores[top + row, left : left + index.shape[1]]
        wrong |= _strange(near)
        for col in range(index.shape[1]):
            best, place = near[col, 0], 0
            for channel in range(1, scores.shape[2]):
                if near[col, channel] > best:
                    best, place = near[col, channel], channel
            wrong |= not best > -np.inf
            index[row, col] = place
    return wrong == 0


@jit()
def shares(scores: Any, top: Any, left: Any, one: Any, out: Any) -> Any:
    """`out`, (classes, h, w) int32, are the shares, of `one`, of (rows, cols, classes) scores from a place on.

    Returns:
        True if all scores are numbers under infinity, and not all of a pixel's are -inf.
    """
    classes, rows, cols = out.shape
    line, chances = np.empty((classes, cols), scores.dtype), np.empty((classes, cols), np.float32)
    best, total, power = np.empty(cols, scores.dtype), np.empty(cols, np.float32), np.empty(cols, np.int32)
    most, half, wrong = np.float32(one - 1), np.float32(0.5), 0
    for row in range(rows):
        wrong |= _turned(scores[top + row, left : left + cols], line, best)
        total[:] = 0
        for channel in range(classes):
            _exp(line[channel], best, power, chances[channel])
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
def _turned(scores: Any, line: Any, best: Any) -> Any:
    """`line` is (classes, cols) of (cols, classes) scores, `best` the largest of each pixel; 1 if they are strange."""
    for channel in range(len(line)):
        for col in range(best.size):
            line[channel, col] = scores[col, channel]
    best[:] = line[0]
    for channel in range(1, len(line)):
        for col in range(best.size):
            best[col] = max(best[col], line[channel, col])
    wrong = _strange(scores)
    for col in range(best.size):
        wrong |= not best[col] > -np.inf
    return wrong


@jit()
def _strange(scores: Any) -> Any:
    """1 if (cols, classes) scores are not all numbers under infinity, else 0."""
    wrong, line = 0, scores.reshape(-1)
    for at in range(line.size):
        wrong |= not line[at] < np.inf
    return wrong


@jit()
def _exp(values: Any, best: Any, power: Any, out: Any) -> None:
    """`out` is e to the power of values less the best, to some 1e-6: 2**n, by its bits, times the series of e**r."""
    half, lowest = np.float32(0.5), np.float32(-126)
    log2_e, log_2 = np.float32(1.442695041), np.float32(0.693147181)
    c1, c2, c3, c4, c5 = np.float32(1), np.float32(1 / 2), np.float32(1 / 6), np.float32(1 / 24), np.float32(1 / 120)
    for at in range(values.size):
        exponent = max((values[at] - best[at]) * log2_e, lowest)
        whole = np.floor(exponent + half)
        r = (exponent - whole) * log_2
        power[at] = np.int32(np.int32(whole) + np.int32(127)) << np.int32(23)
        out[at] = c1 + r * (c1 + r * (c2 + r * (c3 + r * (c4 + r * c5))))
    scale = power.view(np.float32)
    for at in range(values.size):
        out[at] *= scale[at]


@jit()
def first_of(values: Any, index: Any, top: Any, bottom: Any, left: Any, right: Any) -> None:
    """`index`, (rows, cols) uint8, says in an area which of (classes, rows, cols) whole numbers is largest."""
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


@jit()
def add_weighted(sums: Any, row: Any, col: Any, values: Any, weights: Any, top: Any, left: Any) -> None:
    """(classes, rows, cols) sums grow by (classes, h, w) values times weights, from a place and a weight's place on."""
    rows, cols = values.shape[1:]
    for channel in range(sums.shape[0]):
        for down in range(rows):
            total, value = sums[channel, row + down, col : col + cols], values[channel, down]
            weight = weights[top + down, left : left + cols]
            for at in range(cols):
                total[at] += value[at] * weight[at]
