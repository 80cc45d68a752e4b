"""Mean-field inference of the CRF on the CPU, compiled, in threads by rows.

A pixel's sums run over its neighbours in one fixed order and no function of a library is called, so that the result in
a pixel is the same, to the last bit, wherever the array begins and whatever the number of threads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Executor
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.fast_exp import exp_differences
from geopsp.core.jit import jit
from geopsp.models.crf import CRFParameters

ROWS_AT_ONCE = 8
"""Rows that a thread takes at a time."""


def mean_field(
    prior: NDArray[np.float32],
    image: NDArray[np.float32],
    valid: NDArray[np.bool_],
    crf: CRFParameters,
    *,
    core: slice,
    pool: Executor | None = None,
) -> NDArray[np.float32]:
    """Return the probabilities of the core's rows, (classes, rows, cols), after all iterations; 0 where invalid.

    Args:
        prior: (classes, rows, cols) probabilities, which sum to one where valid, 0 elsewhere.
        image: (bands, rows, cols) normalised bands.
        valid: (rows, cols); other pixels neither give nor take messages.
        crf: The parameters.
        core: The rows that are returned; those around it count as far as the halo reaches.
        pool: Threads; None: the caller's.
    """
    rows = valid.shape[0]
    offsets = np.array(crf.offsets(), np.int64).reshape(-1, 2)
    nearness = np.exp(-np.square(offsets).sum(axis=1) / (2 * crf.appearance_sigma**2)).astype(np.float32)
    weights = np.empty((len(offsets), *valid.shape), np.float32)
    contrast = np.float32(1 / (2 * crf.color_sigma**2 * len(image)))
    _by_rows(pool, partial(_similarities, image, valid, offsets, nearness, contrast, weights), 0, rows)
    appearance, smoothness = np.zeros(valid.shape, np.float32), np.zeros(valid.shape, np.float32)
    taps = np.array(crf.taps(), np.float32)
    factors = np.float32(crf.appearance_weight), np.float32(crf.smoothness_weight)
    _by_rows(pool, partial(_factors, valid, weights, offsets, taps, *factors, appearance, smoothness), 0, rows)
    now, after = prior, np.zeros_like(prior)
    for left in reversed(range(crf.iterations)):
        first, stop = max(0, core.start - left * crf.reach), min(rows, core.stop + left * crf.reach)
        update = partial(_update, prior, now, weights, offsets, appearance, taps, smoothness, after)
        _by_rows(pool, update, first, stop)
        now, after = after, np.zeros_like(prior) if now is prior else now
    return now[:, core]


def _by_rows(pool: Executor | None, work: Callable[[int, int], Any], first: int, stop: int) -> None:
    """Call `work(first, stop)` for all rows: in the caller's thread at once, or in the pool's by some rows."""
    if pool is None:
        work(first, stop)
        return
    for _ in pool.map(work, *zip(*_pieces(first, stop), strict=True)):
        pass


def _pieces(first: int, stop: int) -> Iterator[tuple[int, int]]:
    for row in range(first, stop, ROWS_AT_ONCE):
        yield row, min(row + ROWS_AT_ONCE, stop)


_LINES = "f4[:, :, ::1]"


@jit(_LINES, "b1[:, ::1]", "i8[:, ::1]", "f4[::1]", "f4", _LINES, "i8", "i8")
def _similarities(
    image: Any, valid: Any, offsets: Any, nearness: Any, contrast: Any, weights: Any, first: Any, stop: Any
) -> None:
    """Write the appearance kernel of rows to `weights`, (pairs, rows, cols): of a pixel and the one at the offset."""
    bands, rows, cols = image.shape
    exponent, zeros = np.zeros(cols, np.float32), np.zeros(cols, np.float32)
    power, kernel = np.empty(cols, np.int32), np.empty(cols, np.float32)
    least = np.float32(1e-9)  # smaller numbers would soon be subnormal, which is slow
    for pair in range(len(offsets)):
        down, across = offsets[pair]
        left, right = max(0, -across), min(cols, cols - across)
        for row in range(first, stop):
            out = weights[pair, row]
            if row + down >= rows or right <= left:
                out[:] = 0
                continue
            out[:left] = 0
            out[right:] = 0
            difference, known, near = exponent[left:right], valid[row, left:right], out[left:right]
            other_known = valid[row + down, left + across : right + across]
            difference[:] = 0
            for band in range(bands):
                here, there = image[band, row, left:right], image[band, row + down, left + across : right + across]
                for at in range(difference.size):
                    step = here[at] - there[at]
                    difference[at] -= step * step * contrast
            exp_differences(exponent, zeros, power, kernel)
            found = kernel[left:right]
            for at in range(near.size):
                counts = known[at] & other_known[at] & (found[at] > least)
                near[at] = found[at] * nearness[pair] * np.float32(counts)


@jit("b1[:, ::1]", _LINES, "i8[:, ::1]", "f4[::1]", "f4", "f4", "f4[:, ::1]", "f4[:, ::1]", "i8", "i8")
def _factors(
    valid: Any, weights: Any, offsets: Any, taps: Any, appearance_weight: Any, smoothness_weight: Any,
    appearance: Any, smoothness: Any, first: Any, stop: Any,
) -> None:  # fmt: skip
    """Write each kernel's weight over the sum of the kernel, itself included, of rows; (rows, cols)."""
    total = np.empty(valid.shape[1], np.float32)
    for row in range(first, stop):
        _sum_of_similarities(weights, offsets, row, total)
        for col in range(total.size):
            appearance[row, col] = appearance_weight / total[col]
        _sum_of_taps(valid, taps, row, total)
        for col in range(total.size):
            smoothness[row, col] = smoothness_weight / total[col] if valid[row, col] else np.float32(0)


@jit()
def _sum_of_similarities(weights: Any, offsets: Any, row: Any, total: Any) -> None:
    """Write 1 and the similarities of a row's pixels to their neighbours, added up, to (cols,)."""
    total[:] = np.float32(1)
    for pair in range(len(offsets)):
        down, across = offsets[pair]
        left, right = max(0, -across), min(total.size, total.size - across)
        if right <= left:
            continue
        mine, beside = total[left:right], weights[pair, row, left:right]
        for at in range(mine.size):
            mine[at] += beside[at]
        if row - down >= 0:
            mine, beside = total[left + across : right + across], weights[pair, row - down, left:right]
            for at in range(mine.size):
                mine[at] += beside[at]


@jit()
def _sum_of_taps(valid: Any, taps: Any, row: Any, total: Any) -> None:
    """Write the smoothness kernel's sum over the valid neighbours of a row's pixels, and themselves, to (cols,)."""
    radius, column = taps.size - 1, np.zeros(total.size, np.float32)
    for down in range(max(-radius, -row), min(radius, len(valid) - 1 - row) + 1):
        tap, known = taps[abs(down)], valid[row + down]
        for col in range(total.size):
            column[col] += tap * np.float32(known[col])
    total[:] = 0
    _add_across(column, taps, total)


@jit(_LINES, _LINES, _LINES, "i8[:, ::1]", "f4[:, ::1]", "f4[::1]", "f4[:, ::1]", _LINES, "i8", "i8")
def _update(
    prior: Any, now: Any, weights: Any, offsets: Any, appearance: Any, taps: Any, smoothness: Any, after: Any,
    first: Any, stop: Any,
) -> None:  # fmt: skip
    """Write one iteration of rows of `now` to `after`, (classes, rows, cols)."""
    classes, cols = prior.shape[0], prior.shape[2]
    message, smooth = np.empty((classes, cols), np.float32), np.empty((classes, cols), np.float32)
    for row in range(first, stop):
        _appearance_messages(now, weights, offsets, row, message)
        _smoothness_messages(now, taps, row, smooth)
        for channel in range(classes):
            line, other = message[channel], smooth[channel]
            for col in range(cols):
                line[col] = line[col] * appearance[row, col] + other[col] * smoothness[row, col]
        _normalise(prior, message, row, after)


@jit()
def _normalise(prior: Any, message: Any, row: Any, after: Any) -> None:
    """Write a row of the prior times exp(message), divided by the sum over the classes, to `after`."""
    classes, cols = message.shape
    best, power, chance = message[0].copy(), np.empty(cols, np.int32), np.empty(cols, np.float32)
    for channel in range(1, classes):
        for col in range(cols):
            best[col] = max(best[col], message[channel, col])
    total = np.zeros(cols, np.float32)
    for channel in range(classes):
        exp_differences(message[channel], best, power, chance)
        out, given = after[channel, row], prior[channel, row]
        for col in range(cols):
            out[col] = given[col] * chance[col]
            total[col] += out[col]
    for col in range(cols):
        total[col] = np.float32(1) / total[col] if total[col] > 0 else np.float32(0)
    for channel in range(classes):
        out = after[channel, row]
        for col in range(cols):
            out[col] *= total[col]


@jit()
def _appearance_messages(now: Any, weights: Any, offsets: Any, row: Any, message: Any) -> None:
    """Write the weighted sum over the neighbours of a row, those of each pair on both sides, to (classes, cols)."""
    classes, rows, cols = now.shape
    message[:] = 0
    for pair in range(len(offsets)):
        down, across = offsets[pair]
        left, right = max(0, -across), min(cols, cols - across)
        if right <= left:
            continue
        if row + down < rows:
            weight = weights[pair, row, left:right]
            for channel in range(classes):
                total, other = message[channel, left:right], now[channel, row + down, left + across : right + across]
                for at in range(weight.size):
                    total[at] += weight[at] * other[at]
        if row - down >= 0:
            weight = weights[pair, row - down, left:right]
            for channel in range(classes):
                total, other = message[channel, left + across : right + across], now[channel, row - down, left:right]
                for at in range(weight.size):
                    total[at] += weight[at] * other[at]


@jit()
def _smoothness_messages(now: Any, taps: Any, row: Any, smooth: Any) -> None:
    """Write the smoothness kernel's sum over the neighbours of a row, one axis after the other, to (classes, cols)."""
    classes, rows, cols = now.shape
    radius = taps.size - 1
    column = np.empty(cols, np.float32)
    for channel in range(classes):
        column[:] = 0
        for down in range(max(-radius, -row), min(radius, rows - 1 - row) + 1):
            tap, other = taps[abs(down)], now[channel, row + down]
            for col in range(cols):
                column[col] += tap * other[col]
        total = smooth[channel]
        for col in range(cols):
            total[col] = -now[channel, row, col]
        _add_across(column, taps, total)


@jit()
def _add_across(column: Any, taps: Any, total: Any) -> None:
    """Add the smoothness kernel's sum along a row, (cols,), to `total`."""
    for across in range(1 - taps.size, taps.size):
        left, right = max(0, -across), min(column.size, column.size - across)
        if right > left:
            tap, mine, other = taps[abs(across)], total[left:right], column[left + across : right + across]
            for at in range(mine.size):
                mine[at] += tap * other[at]
