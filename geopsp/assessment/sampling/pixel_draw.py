"""The second pass over a map: find the pixels that were drawn by their rank, row by row, in their stratum."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geopsp.assessment.sampling.pixel_counts import PixelCounts, block_counts
from geopsp.assessment.sampling.strata_raster import NUM_KEYS, StrataRaster, num_threads
from geopsp.core.grid import Window
from geopsp.core.jit import jit
from geopsp.core.parallel import map_ordered

NO_STRATUM = NUM_KEYS - 1
"""In place of a stratum's index."""


OnStrip = Callable[[int, int], None]


@dataclass(frozen=True, slots=True, eq=False)
class DrawnPixels:
    """Pixels of a sample, in the order of the rows of the map."""

    rows: NDArray[np.int64]
    cols: NDArray[np.int64]
    keys: NDArray[np.int64]
    clusters: NDArray[np.int64] | None = None
    """Number of the block of each pixel, from 1 on; None but for cluster samples."""

    def __len__(self) -> int:
        return len(self.rows)


def draw_ranks(seed: int, stream: int, population: int, size: int) -> NDArray[np.int64]:
    """Return (size,) ascending numbers below `population`, drawn at random without replacement.

    Memory does not grow with the population.

    Args:
        seed: Of the sample.
        stream: Number of the stratum: its draw does not depend on those of others.
        population: Number of pixels.
        size: How many are drawn.
    """
    if size == population:
        return np.arange(population)
    drawn = np.random.default_rng([seed, stream]).choice(population, size, replace=False, shuffle=False)
    return np.sort(drawn.astype(np.int64))


def find_pixels(
    raster: StrataRaster,
    counts: PixelCounts,
    strata: NDArray[np.uint16],
    ranks: list[NDArray[np.int64]],
    on_strip: OnStrip,
) -> DrawnPixels:
    """Find pixels by their ranks among those of their stratum, counted row by row over the whole map.

    Args:
        raster: The map.
        counts: Its pixels by key.
        strata: (NUM_KEYS,) index of the stratum of each key; NO_STRATUM for keys that are not drawn.
        ranks: Ascending ranks of the pixels of each stratum.
        on_strip: Called after each strip with the strips done and their number.

    Raises:
        RasterError: if the map cannot be read.
    """
    starts = np.concatenate([[0], np.cumsum([len(found) for found in ranks])]).astype(np.int64)
    flat = np.concatenate(ranks).astype(np.int64)

    def find(task: tuple[Window, NDArray[np.int64], NDArray[np.int64]]) -> NDArray[np.int64]:
        window, before, after = task
        first, last = (
            starts[:-1] + [int(np.searchsorted(of, at)) for of, at in zip(ranks, seen, strict=True)]
            for seen in (before, after)
        )
        found = np.empty((int((last - first).sum()), 3), np.int64)
        if len(found):
            _find(raster.read(window), strata, before.copy(), flat, first, last, found)
            found[:, 0] += window.row
        return found

    parts = _each_strip(find, _tasks(counts, strata, len(ranks)), counts, on_strip)
    rows, cols, keys = np.concatenate(parts).T
    return DrawnPixels(rows, cols, keys)


def _tasks(
    counts: PixelCounts, strata: NDArray[np.uint16], num_strata: int
) -> Iterator[tuple[Window, NDArray[np.int64], NDArray[np.int64]]]:
    """Yield each strip, and how many pixels of each stratum lie before its begin and before its end."""
    before = np.zeros(num_strata, np.int64)
    for window, (keys, numbers) in zip(counts.strips, counts.by_strip, strict=True):
        after = before.copy()
        drawn = strata[keys] != NO_STRATUM
        np.add.at(after, strata[keys[drawn]].astype(np.int64), numbers[drawn])
        yield window, before, after
        before = after


def find_blocks(
    raster: StrataRaster, counts: PixelCounts, ranks: NDArray[np.int64], size: int, on_strip: OnStrip
) -> DrawnPixels:
    """Find all pixels of blocks by the ranks of these, counted row by row over the blocks that have pixels.

    Args:
        raster: The map.
        counts: Its blocks by strip.
        ranks: Ascending ranks of blocks.
        size: Side of the blocks in pixels.
        on_strip: Called after each strip with the strips done and their number.

    Raises:
        RasterError: if the map cannot be read.
    """
    ends, is_drawn = np.cumsum(counts.blocks), raster.is_drawn

    def find(task: tuple[Window, int, int]) -> NDArray[np.int64]:
        window, begin, end = task
        first, last = np.searchsorted(ranks, [begin, end])
        if first == last:
            return np.empty((0, 4), np.int64)
        keys = raster.read(window)
        rows, cols = np.nonzero(block_counts(keys, is_drawn, size))
        parts = []
        for number in range(first, last):
            row, col = rows[ranks[number] - begin] * size, cols[ranks[number] - begin] * size
            block = keys[row : row + size, col : col + size]
            down, right = np.nonzero(is_drawn[block])
            parts.append(
                np.column_stack(
                    [window.row + row + down, col + right, block[down, right], np.full(len(down), number + 1)]
                )
            )
        return np.concatenate(parts).astype(np.int64)

    tasks = zip(counts.strips, (ends - counts.blocks).tolist(), ends.tolist(), strict=True)
    rows, cols, keys, clusters = np.concatenate(_each_strip(find, tasks, counts, on_strip)).T
    return DrawnPixels(rows, cols, keys, clusters)


def _each_strip(
    find: Callable[..., NDArray[np.int64]], tasks: Iterator[object], counts: PixelCounts, on_strip: OnStrip
) -> list[NDArray[np.int64]]:
    """Return what is found in each strip, in their order."""
    threads, parts = num_threads(counts.strips), []
    with (
        ThreadPoolExecutor(threads) as pool,
        closing(map_ordered(pool, find, tasks, in_flight=threads + 1)) as results,
    ):
        for done, found in enumerate(results, 1):
            parts.append(found)
            on_strip(done, len(counts.strips))
    return parts


@jit("u2[:, ::1]", "u2[::1]", "i8[::1]", "i8[::1]", "i8[::1]", "i8[::1]", "i8[:, ::1]")
def _find(keys, strata, seen, ranks, first, last, found):  # type: ignore[no-untyped-def]
    """Write row, col and key of the pixels whose rank in their stratum is wanted.

    `seen` holds how many pixels of each stratum lie before the window; `first` and `last` enclose the ranks in it.
    """
    height, width = keys.shape
    count = 0
    for row in range(height):
        start = 0
        while start < width:
            key = keys[row, start]
            end = start + 1
            while end < width and keys[row, end] == key:
                end += 1
            stratum = strata[key]
            if stratum != NO_STRATUM:
                at, before = first[stratum], seen[stratum]
                seen[stratum] = before + end - start
                while at < last[stratum] and ranks[at] < seen[stratum]:
                    found[count, 0], found[count, 1], found[count, 2] = row, start + ranks[at] - before, key
                    at += 1
                    count += 1
                first[stratum] = at
            start = end
