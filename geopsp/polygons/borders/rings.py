"""Join arcs to rings, sorted by region."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.polygons.borders.topology import RegionRings
from geopsp.polygons.borders.trace_arcs import ArcGraph


def build_rings(graph: ArcGraph, regions: NDArray[np.int32], count: int) -> RegionRings:
    """Return the rings of regions: each region's shell first, then its holes in the order in which they were traced.

    Args:
        graph: All arcs of these regions; the next dart of each must be known.
        regions: (labels,) for each label in the arcs, of which 0 is nodata, the region that it belongs to, 0 to
            count - 1, or -1 if its rings are not needed.
        count: Number of regions.
    """
    arcs = graph.arcs
    darts, rings, starts = _build(
        arcs.xy, arcs.starts, arcs.left, arcs.right, graph.next_dart, graph.next_dart_same_region, regions, count
    )
    return RegionRings(darts, rings, starts)


@jit("f8[:, ::1]", "i8[::1]", "i4[::1]", "i4[::1]", "i4[::1]", "i4[::1]", "i4[::1]", "i8")
def _build(
    xy: Any, starts: Any, left: Any, right: Any, next_dart: Any, next_same: Any, regions: Any, count: Any
) -> Any:
    region_of = np.empty(next_dart.size, np.int32)
    size = 0
    for arc in range(left.size):
        region_of[2 * arc], region_of[2 * arc + 1] = regions[left[arc]], regions[right[arc]]
        size += (region_of[2 * arc] >= 0) + (region_of[2 * arc + 1] >= 0)
    traced, used = np.empty(size, np.int32), 0  # darts, ring after ring
    ends, ring_region, is_shell = np.empty(size, np.int64), np.empty(size, np.int32), np.empty(size, np.bool_)
    rings = 0
    region_starts = np.zeros(count + 1, np.int64)
    done = np.zeros(next_dart.size, np.bool_)
    for first in range(next_dart.size):
        if region_of[first] < 0 or done[first]:
            continue
        dart, area = first, 0.0
        while not done[dart]:
            done[dart] = True
            traced[used] = dart
            used += 1
            area += _area(xy, starts, dart)
            other = next_same[dart]
            dart = other if other >= 0 and region_of[other] == region_of[dart] else next_dart[dart]
        ends[rings], ring_region[rings], is_shell[rings] = used, region_of[first], area < 0
        region_starts[region_of[first] + 1] += 1
        rings += 1
    region_starts = np.cumsum(region_starts)
    order = _sort_rings(ring_region[:rings], is_shell[:rings], region_starts)
    darts, ring_starts, used = np.empty(size, np.int64), np.zeros(rings + 1, np.int64), 0
    for number in range(rings):
        ring = order[number]
        for at in range(0 if ring == 0 else ends[ring - 1], ends[ring]):
            darts[used] = traced[at]
            used += 1
        ring_starts[number + 1] = used
    return darts, ring_starts, region_starts


@jit()
def _sort_rings(ring_region: Any, is_shell: Any, region_starts: Any) -> Any:
    """Return the rings sorted by region, shells first."""
    position = region_starts[:-1].copy()
    order = np.empty(ring_region.size, np.int64)
    for shells in (True, False):
        for ring in range(ring_region.size):
            if is_shell[ring] == shells:
                order[position[ring_region[ring]]] = ring
                position[ring_region[ring]] += 1
    return order


@jit()
def _area(xy: Any, starts: Any, dart: Any) -> Any:
    """Return twice the signed area between a dart and the origin; the sum over a ring is negative for a shell."""
    low, high = starts[dart >> 1], starts[(dart >> 1) + 1]
    area = 0.0
    for at in range(low, high - 1):
        area += float(xy[at, 0]) * xy[at + 1, 1] - float(xy[at + 1, 0]) * xy[at, 1]
    return -area if dart & 1 else area
