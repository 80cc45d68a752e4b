"""Merge small regions into their neighbours, the smallest first.

Of many small regions the smallest are sorted at a time. Those that have grown meanwhile wait in a heap, or are found
among the others later.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from geopsp.core.connected_regions import find
from geopsp.core.disk_array import ScratchArrays
from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX
from geopsp.polygons.regions.cell_graph import MAX_UNITS
from geopsp.polygons.regions.region_graph import RegionGraph

BATCH = 2**21
"""Regions that are sorted at a time; each takes some 150 bytes of memory meanwhile."""


STEPS = 2**13
"""Regions that are merged before the memory of tables is released. Few, as each may lie elsewhere."""


Key = tuple[int, int]
"""Area in units, and first pixel: the order in which regions are merged."""


class _Tables(NamedTuple):
    """What is known of regions and borders; a NamedTuple because numba takes these as arguments."""

    codes: NDArray[np.uint8]
    areas: NDArray[np.int64]
    first_pixels: NDArray[np.int64]

    pairs: NDArray[np.int32]
    """(borders, 2)"""

    lengths: NDArray[np.int64]
    """(borders,)"""

    owners: NDArray[np.int32]
    """(regions,) the region that each was merged into, or another that was merged into that one."""

    links: NDArray[np.int64]
    """(regions, 2) first and last link in the list of the borders of each small region, plus 1; 0: it has no list.

    Border b is link 2 b in the list of its first region, 2 b + 1 in that of its second.
    """

    nexts: NDArray[np.int64]
    """(2 borders,) the next link in the same list, likewise."""

    shared: NDArray[np.int64]
    """(regions,) length of the border shared with the region that is being merged, plus 1; 0: none."""


def _example_tables() -> _Tables:
    """Return tables of the types that the compiled functions take."""
    numbers, pairs, owners = np.zeros(1, np.int64), np.zeros((1, 2), np.int32), np.zeros(1, np.int32)
    return _Tables(
        np.zeros(1, np.uint8), numbers, numbers, pairs, numbers, owners, np.zeros((1, 2), np.int64), numbers, numbers
    )


def merge_small_regions(graph: RegionGraph, min_area: int) -> RegionGraph:
    """Merge regions smaller than `min_area` until none is left, except those that border only on nodata.

    The smallest region goes first, to the neighbour with the longest shared border. Ties go to the region with the
    earlier first pixel. The merged pixels take the neighbour's code; adjacent regions of that code become one region.
    It takes about 95 bytes per region, on the disk if there are many.

    Args:
        graph: A graph with the borders of all smaller regions; its arrays become those of the new one.
        min_area: In units.
    """
    arrays, tables = graph.arrays, _make_tables(graph, min_area)
    low, end = (0, 0), (min_area, 0)
    least = np.zeros(len(list(arrays.chunks(graph.codes.size))), np.int64)
    while low < end:
        batch, low = _smallest(tables, arrays, low, end, least)
        waiting, state = np.empty_like(batch), np.zeros(2, np.int64)
        while _merge(tables, batch, waiting, state, low, min_area, STEPS):
            arrays.release()
    for start, stop in arrays.chunks(graph.codes.size):
        _flatten(tables.owners, start, stop)
    return graph.merge(tables.owners)


def _make_tables(graph: RegionGraph, min_area: int) -> _Tables:
    arrays, count, borders = graph.arrays, graph.codes.size, graph.lengths.size
    tables = _Tables(
        graph.codes,
        areas=arrays.zeros(np.int64, count),
        first_pixels=arrays.zeros(np.int64, count),
        pairs=graph.pairs,
        lengths=graph.lengths,
        owners=arrays.zeros(np.int32, count),
        links=arrays.zeros(np.int64, count, 2),
        nexts=arrays.zeros(np.int64, 2 * borders),
        shared=arrays.zeros(np.int64, count),
    )
    for start, stop in arrays.chunks(count):
        tables.areas[start:stop] = graph.areas[start:stop]
        tables.first_pixels[start:stop] = graph.first_pixels[start:stop]
        tables.owners[start:stop] = np.arange(start, stop, dtype=np.int32)
    for start, stop in arrays.chunks(2 * borders):
        _link_borders(tables, min_area, start, stop)
    return tables


def _smallest(
    tables: _Tables, arrays: ScratchArrays, low: Key, end: Key, least: NDArray[np.int64]
) -> tuple[NDArray[np.int64], Key]:
    """Return a batch of the smallest regions that are left, sorted.

    Args:
        tables: Of regions.
        arrays: Releases their memory.
        low: The first key that counts.
        end: The first that does not.
        least: (chunks,) what the area of each region that is left of a chunk reaches; chunks of larger ones are not
            looked at. It is brought up to date.

    Returns:
        (regions, 3) areas, first pixels and numbers; and the key before which no other region is left.
    """
    found, num_found, count = [np.empty((0, 3), np.int64)], 0, tables.codes.size
    with_some = np.zeros(least.size, np.bool_)
    for chunk, (start, stop) in enumerate(arrays.chunks(count)):
        if least[chunk] <= end[0]:
            regions, least[chunk] = _small_regions(tables, low, end, start, stop)
            found.append(regions)
            num_found, with_some[chunk] = num_found + len(regions), len(regions) > 0
        if num_found > 2 * BATCH or stop == count:
            batch = np.concatenate(found)
            order = np.lexsort((batch[:, 1], batch[:, 0]))
            if len(batch) > BATCH:
                end = int(batch[order[BATCH], 0]), int(batch[order[BATCH], 1])
            found, num_found = [batch[order[:BATCH]]], min(len(batch), BATCH)
    least[with_some] = np.minimum(least[with_some], end[0])  # some may have been too many
    return found[0], end


@jit(_example_tables, "UniTuple(i8, 2)", "UniTuple(i8, 2)", "i8", "i8")
def _small_regions(tables: Any, low: Any, end: Any, start: Any, stop: Any) -> Any:
    """Return (n, 3) areas, first pixels and numbers of the regions with keys from `low` to before `end`.

    Returns:
        And the least area of the others with keys from `low` on.
    """
    found, count, least = np.empty((stop - start, 3), np.int64), 0, MAX_UNITS + 1
    for region in range(start, stop):
        area, first = tables.areas[region], tables.first_pixels[region]
        is_left = tables.owners[region] == region and tables.codes[region] != IGNORE_INDEX
        if not is_left or (area, first) < low:
            continue
        if (area, first) < end:
            found[count, 0], found[count, 1], found[count, 2] = area, first, region
            count += 1
        else:
            least = min(least, area)
    return found[:count].copy(), least


@jit(_example_tables, "i8[:, ::1]", "i8[:, ::1]", "i8[::1]", "UniTuple(i8, 2)", "i8", "i8")
def _merge(tables: Any, batch: Any, waiting: Any, state: Any, end: Any, min_area: Any, steps: Any) -> Any:
    """Merge some regions; return False when none is left before the key `end`.

    Args:
        tables: Of regions and borders.
        batch: Sorted regions.
        waiting: A heap of regions that have grown and still come before `end`.
        state: (2,) how many of `batch` are done, and how many are in the heap.
        end: The first key that does not count.
        min_area: In units.
        steps: After so many regions the work pauses.
    """
    areas, first_pixels, owners, codes = tables.areas, tables.first_pixels, tables.owners, tables.codes
    done, size = state
    around = np.empty(64, np.int32)
    for _ in range(steps):
        if done == len(batch) and size == 0:
            return False
        if size == 0 or (done < len(batch) and _is_before(batch[done], waiting[0])):
            area, first, small = batch[done, 0], batch[done, 1], batch[done, 2]
            done += 1
        else:
            area, first, small = waiting[0, 0], waiting[0, 1], waiting[0, 2]
            size = _remove_first(waiting, size)
        if owners[small] != small or area != areas[small] or first != first_pixels[small]:
            continue  # it was merged or has grown since
        around, count = _collect_neighbours(small, tables, around)
        best = _longest_border(around[:count], tables.shared, first_pixels)
        tables.shared[around[:count]] = 0
        if best < 0:
            continue
        for at in range(count + 1):
            member = around[at] if at < count else small
            if member == best or (member != small and codes[member] != codes[best]):
                continue
            owners[member] = best
            areas[best] = min(min_area, areas[best] + areas[member])
            first_pixels[best] = min(first_pixels[best], first_pixels[member])
            _join_lists(tables.links, tables.nexts, best, member)
        if areas[best] < min_area and (areas[best], first_pixels[best]) < end:
            size = _add(waiting, size, areas[best], first_pixels[best], best)
    state[0], state[1] = done, size
    return True


@jit()
def _is_before(one: Any, other: Any) -> Any:
    """Return True if a region comes first: by area, then by first pixel."""
    return one[0] < other[0] or (one[0] == other[0] and one[1] < other[1])


@jit()
def _add(heap: Any, size: Any, area: Any, first: Any, region: Any) -> Any:
    """Add a region to a heap, which has room; return its new size."""
    heap[size, 0], heap[size, 1], heap[size, 2] = area, first, region
    at = size
    while at > 0 and _is_before(heap[at], heap[(at - 1) // 2]):
        _swap(heap, at, (at - 1) // 2)
        at = (at - 1) // 2
    return size + 1


@jit()
def _remove_first(heap: Any, size: Any) -> Any:
    """Remove the first region of a heap; return its new size."""
    size -= 1
    heap[0] = heap[size]
    at, below = 0, 1
    while below < size:
        if below + 1 < size and _is_before(heap[below + 1], heap[below]):
            below += 1
        if not _is_before(heap[below], heap[at]):
            break
        _swap(heap, at, below)
        at, below = below, 2 * below + 1
    return size


@jit()
def _swap(heap: Any, one: Any, other: Any) -> None:
    for column in range(3):
        heap[one, column], heap[other, column] = heap[other, column], heap[one, column]


@jit("i4[::1]", "i8", "i8")
def _flatten(owners: Any, start: Any, stop: Any) -> None:
    for region in range(start, stop):
        owners[region] = find(owners, region)


@jit()
def _longest_border(around: Any, shared: Any, first_pixels: Any) -> Any:
    """Return the neighbour with the longest shared border, or -1."""
    best = -1
    for other in around:
        longer = best < 0 or shared[other] > shared[best]
        if longer or (shared[other] == shared[best] and first_pixels[other] < first_pixels[best]):
            best = other
    return best


@jit(_example_tables, "i8", "i8", "i8")
def _link_borders(tables: Any, min_area: Any, start: Any, stop: Any) -> None:
    """Put the links from `start` to before `stop` into the lists of the borders of small regions."""
    areas, codes, links = tables.areas, tables.codes, tables.links
    for link in range(start, stop):
        region, other = tables.pairs[link >> 1, link & 1], tables.pairs[link >> 1, 1 - (link & 1)]
        if areas[region] < min_area and codes[region] != IGNORE_INDEX and codes[other] != IGNORE_INDEX:
            tables.nexts[link], links[region, 0] = links[region, 0], link + 1
            if links[region, 1] == 0:
                links[region, 1] = link + 1


@jit()
def _join_lists(links: Any, nexts: Any, region: Any, member: Any) -> None:
    """Append the borders of a member to those of a region, unless one of them is large and has no list."""
    if links[member, 0] and links[region, 0]:
        nexts[links[region, 1] - 1], links[region, 1] = links[member, 0], links[member, 1]


@jit()
def _collect_neighbours(region: Any, tables: Any, around: Any) -> Any:
    """Write the lengths of shared borders to `shared`.

    Returns:
        `around`, or a larger array in its place, which begins with the region's neighbours; and how many they are.
    """
    count, link = 0, tables.links[region, 0]
    while link:
        border, side = (link - 1) >> 1, (link - 1) & 1
        other = find(tables.owners, tables.pairs[border, 1 - side])
        if other != region:
            if tables.shared[other] == 0:
                if count == around.size:
                    around = np.append(around, np.empty_like(around))
                around[count], tables.shared[other] = other, 1
                count += 1
            tables.shared[other] += tables.lengths[border]
        link = tables.nexts[link - 1]
    return around, count
