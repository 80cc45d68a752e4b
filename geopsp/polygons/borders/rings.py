"""Rings of darts, sorted by the region that they go around."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.polygons.borders.topology import RegionRings
from geopsp.polygons.borders.trace_arcs import ArcGraph


def faces(net: ArcGraph, regions: NDArray[np.int32], count: int) -> RegionRings:
    """The rings of regions, each region's shell first, holes in the order in which they were traced.

    Args:
        net: All arcs of these regions, each of which goes on.
        regions: (labels,) for each label in the arcs, of which 0 is nothing, the number of the region that it is part
            of, 0 to count - 1; -1: of none that is asked for.
        count: Regions.
    """
    arcs = net.arcs
    darts, rings, starts = _faces(
        arcs.xy, arcs.starts, arcs.left, arcs.right, net.following, net.instead, regions, count
    )
    return RegionRings(darts, rings, starts)


@jit
def _faces(xy: Any, starts: Any, left: Any, right: Any, following: Any, instead: Any, regions: Any, count: Any) -> Any:
    owner = np.empty(following.size, np.int32)
    wanted = 0
    for arc in range(left.size):
        owner[2 * arc], owner[2 * arc + 1] = regions[left[arc]], regions[right[arc]]
        wanted += (owner[2 * arc] >= 0) + (owner[2 * arc + 1] >= 0)
    found = np.empty(wanted, np.int32)  # darts, ring after ring
    ends, ring_owner, shell, rings = (
        np.empty(wanted, np.int64),
        np.empty(wanted, np.int32),
        np.empty(wanted, np.bool_),
        0,
    )
    held = np.zeros(count + 1, np.int64)
    at = 0
    done = np.zeros(following.size, np.bool_)
    for first in range(following.size):
        if owner[first] < 0 or done[first]:
            continue
        dart, area = first, 0.0
        while not done[dart]:
            done[dart] = True
            found[at] = dart
            at += 1
            area += _area(xy, starts, dart)
            other = instead[dart]
            dart = other if other >= 0 and owner[other] == owner[dart] else following[dart]
        ends[rings], ring_owner[rings], shell[rings] = at, owner[first], area < 0
        held[owner[first] + 1] += 1
        rings += 1
    held = np.cumsum(held)
    place = held[:-1].copy()
    order = np.empty(rings, np.int64)
    for shells in (True, False):
        for ring in range(rings):
            if shell[ring] == shells:
                order[place[ring_owner[ring]]] = ring
                place[ring_owner[ring]] += 1
    darts, ring_starts, at = np.empty(wanted, np.int64), np.zeros(rings + 1, np.int64), 0
    for number in range(rings):
        ring = order[number]
        for step in range(0 if ring == 0 else ends[ring - 1], ends[ring]):
            darts[at] = found[step]
            at += 1
        ring_starts[number + 1] = at
    return darts, ring_starts, held


@jit
def _area(xy: Any, starts: Any, dart: Any) -> Any:
    """Twice the area between the dart and the origin; the sum over a ring is negative for a shell."""
    low, high = starts[dart >> 1], starts[(dart >> 1) + 1]
    found = 0.0
    for at in range(low, high - 1):
        found += float(xy[at, 0]) * xy[at + 1, 1] - float(xy[at + 1, 0]) * xy[at, 1]
    return -found if dart & 1 else found
