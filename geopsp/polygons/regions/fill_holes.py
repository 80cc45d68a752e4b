"""Fill small holes of polygons.

A hole is what a polygon separates from the raster's surroundings: without the polygon, the graph of regions falls into
parts, and each part that does not contain the surroundings is a hole. Apart from itself, a hole borders only on the
polygon around it. So filling it makes no other hole smaller, and one pass is enough.

Source: Hopcroft and Tarjan (1973), Algorithm 447: efficient algorithms for graph manipulation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX
from geopsp.polygons.regions.region_graph import RegionGraph

STEPS = 2**20
"""Steps of the search before the memory of tables is released."""


OUTSIDE = 0
"""The region that surrounds the raster."""


FOUND, LOW, PARENT = 0, 1, 2
"""Columns of the table of visits: when the search found a region, from 1 on; the earliest region that its branch
borders on; the region that it was found from."""


def fill_small_holes(graph: RegionGraph, min_area: int) -> RegionGraph:
    """Merge all regions that lie in a hole smaller than `min_area` into the region around the hole.

    It takes about 70 bytes per region, on the disk if there are many.

    Args:
        graph: A graph with all borders; its arrays become those of the new one.
        min_area: In units.
    """
    arrays, count = graph.arrays, graph.codes.size
    starts, neighbours = _adjacency_lists(graph)
    areas, position = arrays.zeros(np.int64, count), arrays.zeros(np.int64, count)
    visits, is_hole = arrays.zeros(np.int32, count, 3), arrays.zeros(np.bool_, count)
    order, owners = arrays.zeros(np.int32, count), arrays.zeros(np.int32, count)
    for first, stop in arrays.chunks(count):
        areas[first:stop], position[first:stop] = graph.areas[first:stop], starts[first:stop]
        owners[first:stop] = np.arange(first, stop, dtype=np.int32)
    visits[OUTSIDE] = 1, 1, OUTSIDE
    state = np.array([OUTSIDE, 1])
    while _search(
        graph.codes, areas, starts, neighbours, position, visits, order, is_hole, state, min_area, IGNORE_INDEX, STEPS
    ):
        arrays.release()
    for first, stop in arrays.chunks(int(state[1])):
        _fill(order, visits, is_hole, owners, max(first, 1), stop)
    return graph.merge(owners)


def _adjacency_lists(graph: RegionGraph) -> tuple[Any, Any]:
    """Return the start of each region's neighbours, and the neighbours of all regions, one region after the other."""
    arrays, count, pairs = graph.arrays, graph.codes.size, graph.pairs
    starts, total = arrays.zeros(np.int64, count + 1), 0
    for first, stop in arrays.chunks(len(pairs)):
        _count_neighbours(pairs, starts, first, stop)
    for first, stop in arrays.chunks(count + 1):
        total = _accumulate(starts, total, first, stop)
    neighbours = arrays.zeros(np.int32, total)
    for first, stop in arrays.chunks(len(pairs)):
        _list_neighbours(pairs, starts, neighbours, first, stop)
    return starts, neighbours


@jit("i4[:, ::1]", "i8[::1]", "i8", "i8")
def _count_neighbours(pairs: Any, counts: Any, first: Any, stop: Any) -> None:
    for pair in range(first, stop):
        for side in range(2):
            counts[pairs[pair, side]] += 1


@jit("i8[::1]", "i8", "i8", "i8")
def _accumulate(counts: Any, total: Any, first: Any, stop: Any) -> Any:
    """Replace counts by their sums so far, themselves included; return the last."""
    for region in range(first, stop):
        total += counts[region]
        counts[region] = total
    return total


@jit("i4[:, ::1]", "i8[::1]", "i4[::1]", "i8", "i8")
def _list_neighbours(pairs: Any, ends: Any, neighbours: Any, first: Any, stop: Any) -> None:
    """Write the neighbours of each region before its end, which moves to its start."""
    for pair in range(first, stop):
        for side in range(2):
            region = pairs[pair, side]
            ends[region] -= 1
            neighbours[ends[region]] = pairs[pair, 1 - side]


@jit(
    "u1[::1]", "i8[::1]", "i8[::1]", "i4[::1]", "i8[::1]", "i4[:, ::1]", "i4[::1]", "b1[::1]", "i8[::1]", "i8", "i8",
    "i8",
)  # fmt: skip
def _search(
    codes: Any,
    areas: Any,
    starts: Any,
    neighbours: Any,
    position: Any,
    visits: Any,
    order: Any,
    is_hole: Any,
    state: Any,
    min_area: Any,
    nodata: Any,
    steps: Any,
) -> Any:
    """Go on with a depth-first search that begins outside; return False when it has come back there.

    The regions that the search finds by way of a region lie in a hole of its parent if they border on no region found
    before the parent, that is, if the parent is an articulation point.

    Args:
        areas: Each grows by those of the regions found by way of its region, up to `min_area`.
        position: Where in `neighbours` the search goes on.
        state: (2,) the region where the search is, and how many it has found.
        steps: After so many the search pauses.
    """
    region, time = state
    for _ in range(steps):
        if position[region] < starts[region + 1]:
            other = neighbours[position[region]]
            position[region] += 1
            if visits[other, FOUND]:
                visits[region, LOW] = min(visits[region, LOW], visits[other, FOUND])
                continue
            order[time] = other
            time += 1
            visits[other, PARENT], visits[other, FOUND], visits[other, LOW] = region, time, time
            region = other
        elif region == OUTSIDE:
            state[0], state[1] = region, time
            return False
        else:
            above, low = visits[region, PARENT], visits[region, LOW]
            is_hole[region] = low >= visits[above, FOUND] and codes[above] != nodata and areas[region] < min_area
            visits[above, LOW] = min(visits[above, LOW], low)
            areas[above] = min(min_area, areas[above] + areas[region])
            region = above
    state[0], state[1] = region, time
    return True


@jit("i4[::1]", "i4[:, ::1]", "b1[::1]", "i4[::1]", "i8", "i8")
def _fill(order: Any, visits: Any, is_hole: Any, owners: Any, first: Any, stop: Any) -> None:
    """Let regions in holes, and those found by way of them, belong to the region around, as found in this order."""
    for at in range(first, stop):
        region = order[at]
        above = visits[region, PARENT]
        if is_hole[region] or owners[above] != above:
            owners[region] = owners[above]
