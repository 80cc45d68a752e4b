"""Simplify the shared borders of regions, without gaps or overlaps."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.polygons.borders.topology import Arcs, RegionRings, build_polygons


def simplify_arcs(arcs: Arcs, rings: RegionRings, min_triangle: float) -> Arcs:
    """Remove vertices whose triangle with their two neighbours is smaller than `min_triangle`.

    Vertices are removed one by one, the smallest triangle first. Nodes stay, and so do arcs that touch nodata or the
    frame. No arcs cross or touch that did not before, so all regions stay, with the same neighbours.

    Args:
        arcs: All arcs of a cell.
        rings: Rings of all its regions, in the order of their labels.
        min_triangle: In square pixels.

    Source: Visvalingam and Whyatt, Line generalisation by repeated elimination of points, 1993.
    """
    free = (arcs.left > 0) & (arcs.right > 0) & (np.diff(arcs.starts) > 2)
    if min_triangle <= 0 or not free.any():
        return arcs
    # Only the regions of these arcs are needed: other arcs have no vertex to remove.
    regions = np.unique(np.concatenate([arcs.left[free], arcs.right[free]])) - 1
    polygons = build_polygons(arcs, rings).to_shapely(Affine.identity())[regions]
    simplified = shapely.coverage_simplify(polygons, math.sqrt(min_triangle), simplify_boundary=False)
    oriented = shapely.orient_polygons(simplified, exterior_cw=True)  # GEOS may reverse rings; rows go down
    _, xy, (starts, _) = shapely.to_ragged_array(oriented)
    return _arcs_of_rings(arcs, rings, free, _rings_of(rings.regions, regions), xy, starts.astype(np.int64))


def _rings_of(starts: NDArray[np.int64], regions: NDArray[Any]) -> NDArray[np.int64]:
    """Return the rings of some regions, one region after the other."""
    counts = starts[regions + 1] - starts[regions]
    first = np.repeat(starts[regions] - np.cumsum(counts) + counts, counts)
    result: NDArray[np.int64] = first + np.arange(first.size)
    return result


def _arcs_of_rings(
    arcs: Arcs, rings: RegionRings, free: Any, chosen: NDArray[np.int64], xy: NDArray[Any], starts: NDArray[np.int64]
) -> Arcs:
    """Return the free arcs as they are in the simplified rings; all arcs unchanged if a ring has lost a node.

    No ring should lose one: GEOS keeps all points where more than two rings meet, or where rings begin to share edges.
    """
    sizes = np.diff(arcs.starts)
    vertices = arcs.xy.copy()
    if starts.size - 1 != chosen.size or not _copy_rings(
        vertices, arcs.starts, sizes, free, rings.darts, rings.rings, chosen, xy, starts
    ):
        return arcs
    new_starts = np.concatenate([[0], np.cumsum(sizes)])
    kept = np.arange(new_starts[-1]) + np.repeat(arcs.starts[:-1] - new_starts[:-1], sizes)
    return Arcs(vertices[kept], new_starts, arcs.left, arcs.right)


@jit("i4[:, ::1]", "i8[::1]", "i8[::1]", "b1[::1]", "i8[::1]", "i8[::1]", "i8[::1]", "f8[:, ::1]", "i8[::1]")
def _copy_rings(
    vertices: Any,
    starts: Any,
    sizes: Any,
    free: Any,
    darts: Any,
    rings: Any,
    chosen: Any,
    xy: Any,
    ring_starts: Any,
) -> Any:
    """Overwrite free arcs and their sizes by the simplified rings; return False if a node is not found."""
    for number in range(chosen.size):
        ring_darts = darts[rings[chosen[number]] : rings[chosen[number] + 1]]
        ring = xy[ring_starts[number] : ring_starts[number + 1] - 1]
        if not _copy_ring(vertices, starts, sizes, free, ring_darts, ring):
            return False
    return True


@jit()
def _copy_ring(vertices: Any, starts: Any, sizes: Any, free: Any, darts: Any, ring: Any) -> Any:
    """Do the same for one ring. It passes no point twice, so a node is identified by its coordinates."""
    size = len(ring)
    first = _find_point(ring, 0, vertices[_first_vertex(starts, sizes, darts[0])])
    if first == size:
        if darts.size > 1:
            return False
        first = 0  # a closed arc without a node, which may begin anywhere
    at = first
    for number in range(darts.size):
        to = first + size
        if number + 1 < darts.size:
            to = _find_point(ring, at + 1, vertices[_first_vertex(starts, sizes, darts[number + 1])])
        arc = darts[number] >> 1
        if to > first + size or to - at >= starts[arc + 1] - starts[arc]:
            return False
        if free[arc] and not darts[number] & 1:
            for step in range(to - at + 1):
                point = ring[(at + step) % size]
                vertices[starts[arc] + step, 0], vertices[starts[arc] + step, 1] = point[0], point[1]
            sizes[arc] = to - at + 1
        at = to
    return True


@jit()
def _first_vertex(starts: Any, sizes: Any, dart: Any) -> Any:
    """Return the index of the vertex at which a dart begins."""
    return starts[dart >> 1] + (sizes[dart >> 1] - 1 if dart & 1 else 0)


@jit()
def _find_point(ring: Any, start: Any, point: Any) -> Any:
    """Return the first index >= `start`, modulo the ring's size, of a point; `start` + size if there is none."""
    for at in range(start, start + len(ring)):
        if ring[at % len(ring), 0] == point[0] and ring[at % len(ring), 1] == point[1]:
            return at
    return start + len(ring)
