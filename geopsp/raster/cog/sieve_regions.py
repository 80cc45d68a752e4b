"""Small regions of an array of codes join their largest neighbour; all tables of regions are on disk.

The array is labelled in strips. A region that continues in the strips below gets a number in each; a union-find joins
them. The result is that of GDAL's sieve: of neighbours of equal size, the first wins that is met from pixel to pixel,
row by row, at each pixel first at its upper side, then at its left side.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.connected_regions import find, label_regions, union
from geopsp.core.disk_array import DiskArray
from geopsp.core.jit import jit
from geopsp.core.parallel import cpu_count, map_ordered

STRIP_PIXELS = 2**22
"""Pixels of a strip; it takes about 10 bytes of memory for each."""


MAX_THREADS = 4
"""Strips that are labelled at a time."""


CHUNK = 2**20
"""Regions that are looked at before the memory of the tables is released."""


MAX_PIXELS = 2**31 - 1
"""Larger regions count as this large, as they do for GDAL."""


NO_NEIGHBOUR, RESOLVED = -1, -2
"""In the table of neighbours: none that a region could join; the code of the region has become its neighbour's."""


class RegionTables:
    """Numbers of regions in strips, and what is known of them."""

    def __init__(self, folder: Path) -> None:
        """Start without regions, in new files."""
        self.parents = DiskArray(folder / "parents", np.int64)
        """(numbers,) a smaller number of the same region, or the number itself: its root."""
        self.sizes = DiskArray(folder / "sizes", np.int32)
        """(numbers,) pixels; at first of the strip, at roots of all strips, then everywhere of all strips."""
        self.codes = DiskArray(folder / "region_codes", np.uint8)
        """(numbers,) the code; at roots at last that of the region which it joins."""
        self.neighbours = DiskArray(folder / "neighbours", np.int64)
        """(numbers,) at roots of small regions the root of the largest neighbour."""

    def __len__(self) -> int:
        return self.parents.array.size

    def release(self) -> None:
        for table in (self.parents, self.sizes, self.codes, self.neighbours):
            table.release()

    def chunks(self) -> Iterator[tuple[int, int]]:
        """Yield ranges of numbers; release the memory after each."""
        for start in range(0, len(self), CHUNK):
            yield start, min(start + CHUNK, len(self))
            self.release()


def sieve_regions(codes: DiskArray, size: int, folder: Path, *, strip_pixels: int = STRIP_PIXELS) -> None:
    """Let 4-connected regions of fewer than `size` pixels take the code of their largest neighbour, in place.

    If that is small too, it is that of the neighbour's largest neighbour, and so on. Regions stay where this leads to
    no large region. Memory does not depend on the number of regions; they take 21 bytes each on disk.

    Args:
        codes: (rows, cols) codes; pixels of 0 are unknown: they stay, and no region joins them.
        size: In pixels.
        folder: Where the tables are written. The caller deletes it.
        strip_pixels: Pixels that are labelled at a time.
    """
    rows = max(1, strip_pixels // max(1, codes.array.shape[1]))
    tables = RegionTables(folder)
    first_numbers = _number_regions(codes, rows, tables)
    for start, stop in tables.chunks():
        _flatten(tables.parents.array, tables.sizes.array, start, stop)
    if not len(tables):
        return
    above = np.full(codes.array.shape[1], -1)
    for (_, labels), first in zip(_strips(codes, rows), first_numbers, strict=True):
        roots = _roots(tables, first, int(labels.max()))
        _find_neighbours(labels, roots, above, tables.sizes.array, tables.neighbours.array, size)
        above = roots[labels[-1]]
        codes.release()
        tables.release()
    for start, stop in tables.chunks():
        _join(tables.codes.array, tables.sizes.array, tables.neighbours.array, size, start, stop)
    for (row, labels), first in zip(_strips(codes, rows), first_numbers, strict=True):
        roots = _roots(tables, first, int(labels.max()))
        new_codes = np.append(np.uint8(0), tables.codes.array[roots[1:]])
        codes.array[row : row + len(labels)] = new_codes[labels]
        codes.release()
        tables.release()


def _strips(codes: DiskArray, rows: int) -> Generator[tuple[int, NDArray[np.int32]]]:
    """Yield the first row of each strip, and its labels."""

    def label(row: int) -> tuple[int, NDArray[np.int32]]:
        return row, label_regions(codes.array[row : row + rows], nodata=0)[0]

    threads = min(cpu_count(), MAX_THREADS)
    starts = range(0, len(codes.array), rows)
    with (
        ThreadPoolExecutor(threads) as pool,
        closing(map_ordered(pool, label, starts, in_flight=threads + 1)) as strips,
    ):
        yield from strips


def _number_regions(codes: DiskArray, rows: int, tables: RegionTables) -> list[int]:
    """Fill the tables with all regions; return the number of each strip's label 1."""
    first_numbers = []
    above = np.full(codes.array.shape[1], -1)
    for row, labels in _strips(codes, rows):
        first, count = len(tables), int(labels.max())
        first_numbers.append(first)
        for table, value in zip(
            (tables.parents, tables.sizes, tables.codes, tables.neighbours), (0, 0, 0, NO_NEIGHBOUR), strict=True
        ):
            table.grow(count, value)
        parents, sizes, region_codes = tables.parents.array, tables.sizes.array, tables.codes.array
        parents[first:] = np.arange(first, first + count)
        strip = codes.array[row : row + len(labels)]
        _measure(labels, strip, sizes[first:], region_codes[first:])
        numbers = np.append(-1, np.arange(first, first + count))
        _unite_across(above, numbers[labels[0]], parents, sizes, region_codes)
        above = numbers[labels[-1]]
        codes.release()
        tables.release()
    return first_numbers


def _roots(tables: RegionTables, first: int, count: int) -> NDArray[np.int64]:
    """Return (count + 1,) the root of each label of a strip; -1 for 0, which is unknown."""
    return np.append(np.int64(-1), tables.parents.array[first : first + count])


@jit("i4[:, ::1]", "u1[:, ::1]", "i4[::1]", "u1[::1]")
def _measure(labels: Any, codes: Any, sizes: Any, region_codes: Any) -> None:
    """Count the pixels of a strip's regions, and note their codes."""
    for row in range(labels.shape[0]):
        for col in range(labels.shape[1]):
            if labels[row, col]:
                sizes[labels[row, col] - 1] += 1
                region_codes[labels[row, col] - 1] = codes[row, col]


@jit("i8[::1]", "i8[::1]", "i8[::1]", "i4[::1]", "u1[::1]")
def _unite_across(above: Any, below: Any, parents: Any, sizes: Any, codes: Any) -> None:
    """Join regions of one code that share a side of the seam of two strips."""
    for col in range(above.size):
        one, two = above[col], below[col]
        if one < 0 or two < 0 or codes[one] != codes[two]:
            continue
        if col and above[col - 1] == one and below[col - 1] == two:
            continue
        one, two = find(parents, one), find(parents, two)
        if one != two:
            root = union(parents, one, two)
            sizes[root] = min(MAX_PIXELS, np.int64(sizes[one]) + sizes[two])


@jit("i8[::1]", "i4[::1]", "i8", "i8")
def _flatten(parents: Any, sizes: Any, start: Any, stop: Any) -> None:
    """Give numbers their root and its size; smaller numbers have theirs."""
    for number in range(start, stop):
        parents[number] = parents[parents[number]]
        sizes[number] = sizes[parents[number]]


@jit("i4[:, ::1]", "i8[::1]", "i8[::1]", "i4[::1]", "i8[::1]", "i8")
def _find_neighbours(labels: Any, roots: Any, above: Any, sizes: Any, neighbours: Any, size: Any) -> None:
    """Note the largest neighbours of small regions, as far as they meet in this strip or at its upper side."""
    for row in range(labels.shape[0]):
        for col in range(labels.shape[1]):
            if row == 0:
                _compare(roots[labels[0, col]], above[col], sizes, neighbours, size)
            elif labels[row, col] != labels[row - 1, col]:
                _compare(roots[labels[row, col]], roots[labels[row - 1, col]], sizes, neighbours, size)
            if col and labels[row, col] != labels[row, col - 1]:
                _compare(roots[labels[row, col]], roots[labels[row, col - 1]], sizes, neighbours, size)


@jit()
def _compare(one: Any, two: Any, sizes: Any, neighbours: Any, size: Any) -> None:
    """Note each of two adjacent regions for the other if it is the largest so far."""
    if one < 0 or two < 0 or one == two:
        return
    for small, other in ((one, two), (two, one)):
        if sizes[small] < size and (neighbours[small] < 0 or sizes[neighbours[small]] < sizes[other]):
            neighbours[small] = other


@jit("u1[::1]", "i4[::1]", "i8[::1]", "i8", "i8", "i8")
def _join(codes: Any, sizes: Any, neighbours: Any, size: Any, start: Any, stop: Any) -> None:
    """Follow the largest neighbours of small regions to a large one, and give all on the way its code.

    The way ends before if two small regions are each other's largest neighbours; longer circles cannot be, as of equal
    neighbours the first that is met wins.
    """
    for number in range(start, stop):
        if neighbours[number] < 0:
            continue
        at = number
        while True:
            onward = neighbours[at]
            if onward < 0 or sizes[onward] >= size or neighbours[onward] == at:
                break
            at = onward
        is_joined = onward == RESOLVED or (onward >= 0 and sizes[onward] >= size)
        code = codes[onward] if onward >= 0 else codes[at]
        at = number
        while neighbours[at] >= 0:
            onward = neighbours[at]
            neighbours[at] = RESOLVED if is_joined else NO_NEIGHBOUR
            if is_joined:
                codes[at] = code
            at = onward
