"""Merge small regions into their neighbours."""

from __future__ import annotations

from heapq import heapify, heappop, heappush
from typing import Any

import numpy as np

from geopsp.core.connected_regions import find, flatten
from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX
from geopsp.polygons.regions.region_graph import RegionGraph


def merge_small_regions(graph: RegionGraph, min_area: int) -> RegionGraph:
    """Merge regions smaller than `min_area` until none is left, except those that border only on nodata.

    The smallest region goes first, to the neighbour with the longest shared border. Ties go to the region with the
    earlier first pixel. The merged pixels take the neighbour's code; adjacent regions of that code become one region.
    It takes about 100 bytes per small region.

    Args:
        graph: A graph with the borders of all smaller regions.
        min_area: In units.
    """
    owners = _owners_after_merging(
        graph.codes, graph.areas.copy(), graph.first_pixels.copy(), graph.pairs, graph.lengths, min_area, IGNORE_INDEX
    )
    return graph.merge(owners)


@jit("u1[::1]", "i8[::1]", "i8[::1]", "i4[:, ::1]", "i8[::1]", "i8", "i8")
def _owners_after_merging(
    codes: Any, areas: Any, first_pixels: Any, pairs: Any, lengths: Any, min_area: Any, nodata: Any
) -> Any:
    """Return (regions,) the region that each is merged into."""
    owners = np.arange(codes.size).astype(np.int32)
    heads, tails, nexts = _link_borders(codes, areas, pairs, min_area, nodata)
    shared, around = np.full(codes.size, -1, np.int64), np.empty(codes.size, np.int32)
    queue = [
        (areas[region], first_pixels[region], region)
        for region in range(codes.size)
        if areas[region] < min_area and codes[region] != nodata
    ]
    heapify(queue)
    while queue:
        area, first, small = heappop(queue)
        if owners[small] != small or area != areas[small] or first != first_pixels[small]:
            continue  # it was merged or has grown since
        count = _collect_neighbours(small, owners, heads, nexts, pairs, lengths, shared, around)
        best = _longest_border(around[:count], shared, first_pixels)
        shared[around[:count]] = -1
        if best < 0:
            continue
        around[count] = small
        for member in around[: count + 1]:
            if member == best or (member != small and codes[member] != codes[best]):
                continue
            owners[member] = best
            areas[best] = min(min_area, areas[best] + areas[member])
            first_pixels[best] = min(first_pixels[best], first_pixels[member])
            if heads[member] >= 0 and heads[best] >= 0:  # large regions have no list
                nexts[tails[best]], tails[best] = heads[member], tails[member]
        if areas[best] < min_area:
            heappush(queue, (areas[best], first_pixels[best], best))
    flatten(owners)
    return owners


@jit()
def _longest_border(around: Any, shared: Any, first_pixels: Any) -> Any:
    """Return the neighbour with the longest shared border, or -1."""
    best = -1
    for other in around:
        longer = best < 0 or shared[other] > shared[best]
        if longer or (shared[other] == shared[best] and first_pixels[other] < first_pixels[best]):
            best = other
    return best


@jit()
def _link_borders(codes: Any, areas: Any, pairs: Any, min_area: Any, nodata: Any) -> Any:
    """Return linked lists of the borders of small regions: first and last link of each region, next of each link.

    Border b is link 2 b in the list of its first region, 2 b + 1 in that of its second. Large regions have no list.
    """
    heads, tails = np.full(codes.size, -1, np.int64), np.full(codes.size, -1, np.int64)
    nexts = np.full(2 * pairs.shape[0], -1, np.int64)
    for link in range(nexts.size):
        region, other = pairs[link >> 1, link & 1], pairs[link >> 1, 1 - (link & 1)]
        if areas[region] < min_area and codes[region] != nodata and codes[other] != nodata:
            nexts[link], heads[region] = heads[region], link
            if tails[region] < 0:
                tails[region] = link
    return heads, tails, nexts


@jit()
def _collect_neighbours(
    region: Any, owners: Any, heads: Any, nexts: Any, pairs: Any, lengths: Any, shared: Any, around: Any
) -> Any:
    """Write a region's neighbours to `around`, the lengths of shared borders to `shared`; return how many they are."""
    count, link = 0, heads[region]
    while link >= 0:
        other = find(owners, pairs[link >> 1, 1 - (link & 1)])
        if other != region:
            if shared[other] < 0:
                around[count], shared[other] = other, 0
                count += 1
            shared[other] += lengths[link >> 1]
        link = nexts[link]
    return count
