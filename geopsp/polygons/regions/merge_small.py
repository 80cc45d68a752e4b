"""Small regions become part of their neighbours."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np

from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX
from geopsp.polygons.regions.connected_regions import find
from geopsp.polygons.regions.region_graph import Graph


def merge_small_regions(graph: Graph, least: int) -> Graph:
    """Regions of which none is smaller than `least`, but those with nothing all around.

    The smallest goes first, to the neighbour with the longest border; of equals, the one or to the one whose first
    pixel comes first. Its pixels take that neighbour's code, and regions of this code that they touch become one.
    Some 100 bytes a small region.

    Args:
        graph: With the borders of all that are smaller.
        least: In units of area.
    """
    found = _absorbed(
        graph.codes, graph.areas.copy(), graph.firsts.copy(), graph.pairs, graph.lengths, least, IGNORE_INDEX
    )
    return graph.joined(found)


@jit
def _absorbed(codes: Any, areas: Any, firsts: Any, pairs: Any, lengths: Any, least: Any, nothing: Any) -> Any:
    """(regions,) the region that each is part of."""
    owners = np.arange(codes.size).astype(np.int32)
    heads, tails, nexts = _linked(codes, areas, pairs, least, nothing)
    shared, around = np.full(codes.size, -1, np.int64), np.empty(codes.size, np.int32)
    queue = [
        (areas[one], firsts[one], one) for one in range(codes.size) if areas[one] < least and codes[one] != nothing
    ]
    heapify(queue)
    while queue:
        area, first, small = heappop(queue)
        if owners[small] != small or area != areas[small] or first != firsts[small]:
            continue  # it was merged or has grown since
        count = _neighbours(small, owners, heads, nexts, pairs, lengths, shared, around)
        best = _longest(around[:count], shared, firsts)
        shared[around[:count]] = -1
        if best < 0:
            continue
        around[count] = small
        for part in around[: count + 1]:
            if part == best or (part != small and codes[part] != codes[best]):
                continue
            owners[part] = best
            areas[best] = min(least, areas[best] + areas[part])
            firsts[best] = min(firsts[best], firsts[part])
            if heads[part] >= 0 and heads[best] >= 0:  # large ones have none
                nexts[tails[best]], tails[best] = heads[part], tails[part]
        if areas[best] < least:
            heappush(queue, (areas[best], firsts[best], best))
    for one in range(owners.size):
        owners[one] = find(owners, one)
    return owners


@jit
def _longest(around: Any, shared: Any, firsts: Any) -> Any:
    """The neighbour with the longest border, -1 if there is none."""
    best = -1
    for other in around:
        longer = best < 0 or shared[other] > shared[best]
        if longer or (shared[other] == shared[best] and firsts[other] < firsts[best]):
            best = other
    return best


@jit
def _linked(codes: Any, areas: Any, pairs: Any, least: Any, nothing: Any) -> Any:
    """Borders of small regions as linked lists; border b is link 2 b of its first region, 2 b + 1 of its second.

    Those of large ones are not asked for.
    """
    heads, tails = np.full(codes.size, -1, np.int64), np.full(codes.size, -1, np.int64)
    nexts = np.full(2 * pairs.shape[0], -1, np.int64)
    for link in range(nexts.size):
        one, other = pairs[link >> 1, link & 1], pairs[link >> 1, 1 - (link & 1)]
        if areas[one] < least and codes[one] != nothing and codes[other] != nothing:
            nexts[link], heads[one] = heads[one], link
            if tails[one] < 0:
                tails[one] = link
    return heads, tails, nexts


@jit
def _neighbours(
    one: Any, owners: Any, heads: Any, nexts: Any, pairs: Any, lengths: Any, shared: Any, around: Any
) -> Any:
    """How many neighbours a region has; `around` begins with them, `shared` has the lengths of borders with them."""
    count, link = 0, heads[one]
    while link >= 0:
        other = find(owners, pairs[link >> 1, 1 - (link & 1)])
        if other != one:
            if shared[other] < 0:
                around[count], shared[other] = other, 0
                count += 1
            shared[other] += lengths[link >> 1]
        link = nexts[link]
    return count
