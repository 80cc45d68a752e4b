"""Small holes of polygons are filled.

A hole is what a polygon cuts off from the raster's surroundings: in the graph of regions, one of the parts into which
the graph falls without it. What is in a hole meets, besides itself, only the polygon around; so filling it makes no
other hole smaller, and once over all is enough.

Source: Hopcroft and Tarjan (1973), Algorithm 447: efficient algorithms for graph manipulation.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX
from geopsp.polygons.regions.region_graph import Graph


def fill_small_holes(graph: Graph, least: int) -> Graph:
    """Regions without holes smaller than `least`, in units of area: whatever lies there is of the region around.

    Some 100 bytes a region.

    Args:
        graph: With all borders.
        least: In units of area.
    """
    outside = int(graph.firsts.argmin())
    starts, others = _neighbours(graph.codes.size, graph.pairs)
    return graph.joined(_owners(graph.codes, graph.areas.copy(), starts, others, outside, least, IGNORE_INDEX))


@jit
def _neighbours(count: Any, pairs: Any) -> Any:
    """Where each region's neighbours begin, and all of them, one region after the other."""
    starts = np.zeros(count + 1, np.int64)
    for pair in range(pairs.shape[0]):
        for side in range(2):
            starts[pairs[pair, side] + 1] += 1
    starts = np.cumsum(starts)
    ends, others = starts[:-1].copy(), np.empty(starts[-1], np.int32)
    for pair in range(pairs.shape[0]):
        for side in range(2):
            one = pairs[pair, side]
            others[ends[one]] = pairs[pair, 1 - side]
            ends[one] += 1
    return starts, others


@jit
def _owners(codes: Any, areas: Any, starts: Any, others: Any, outside: Any, least: Any, nothing: Any) -> Any:
    """(regions,) the region that each is part of: what is behind a region, as seen from outside, in its holes."""
    count = codes.size
    # when a region was met on the walk, the earliest that it or what is behind it touches, and from where it was met
    met, low, before = np.zeros(count, np.int32), np.zeros(count, np.int32), np.full(count, outside, np.int32)
    order, places, hole = np.empty(count, np.int32), starts[:-1].copy(), np.zeros(count, np.bool_)
    one, time = outside, 1
    met[one], low[one], order[0] = 1, 1, one
    while True:
        if places[one] < starts[one + 1]:
            other = others[places[one]]
            places[one] += 1
            if met[other]:
                low[one] = min(low[one], met[other])
                continue
            order[time] = other
            time += 1
            before[other], met[other], low[other] = one, time, time
            one = other
        elif one == outside:
            break
        else:
            last = before[one]
            hole[one] = low[one] >= met[last] and codes[last] != nothing and areas[one] < least
            low[last] = min(low[last], low[one])
            areas[last] = min(least, areas[last] + areas[one])
            one = last
    owners = np.arange(count).astype(np.int32)
    for one in order[1:time]:
        last = before[one]
        if hole[one] or owners[last] != last:
            owners[one] = owners[last]
    return owners
