"""Fewer vertices on the borders of two regions, with no gap and no overlap."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.polygons.borders.topology import Arcs, RegionRings, outlines


def simplify_arcs(arcs: Arcs, faces: RegionRings, least: float) -> Arcs:
    """The same arcs without the vertices whose triangle with their two neighbours is smaller than `least`.

    Nodes stay, and so do arcs with nothing on a side: the frame and the edge of nodata. What is left of an arc are some
    of its vertices; no two arcs cross or touch that did not, so that all regions stay, with the same neighbours.

    Args:
        arcs: Of a whole cell.
        faces: All its regions, in the order of their labels.
        least: In square pixels. Vertices go one by one, those of the smallest triangles first.

    Source: Visvalingam and Whyatt, Line generalisation by repeated elimination of points, 1993.
    """
    free = (arcs.left > 0) & (arcs.right > 0) & (np.diff(arcs.starts) > 2)
    if least <= 0 or not free.any():
        return arcs
    # The others have no vertex to lose, and their borders are those of these, or of nobody here.
    regions = np.unique(np.concatenate([arcs.left[free], arcs.right[free]])) - 1
    polygons = outlines(arcs, faces).shapes(Affine.identity())[regions]
    found = shapely.coverage_simplify(polygons, math.sqrt(least), simplify_boundary=False)
    turned = shapely.orient_polygons(found, exterior_cw=True)  # GEOS may turn rings of two edges; rows go down
    _, xy, (rings, _) = shapely.to_ragged_array(turned)
    return _mapped(arcs, faces, free, _members(faces.regions, regions), xy, rings.astype(np.int64))


def _members(starts: NDArray[np.int64], chosen: NDArray[Any]) -> NDArray[np.int64]:
    """The rings of the chosen regions, one after the other."""
    counts = starts[chosen + 1] - starts[chosen]
    firsts = np.repeat(starts[chosen] - np.cumsum(counts) + counts, counts)
    result: NDArray[np.int64] = firsts + np.arange(firsts.size)
    return result


def _mapped(
    arcs: Arcs, faces: RegionRings, free: Any, members: NDArray[np.int64], xy: NDArray[Any], rings: NDArray[np.int64]
) -> Arcs:
    """Free arcs as the simplified rings have them; all arcs as they were if a ring has lost a node.

    None has: GEOS fixes all places where more than two rings meet, or where an edge begins that one ring has alone.
    """
    sizes = np.diff(arcs.starts)
    vertices = arcs.xy.copy()
    if rings.size - 1 != members.size or not _cut(
        vertices, arcs.starts, sizes, free, faces.darts, faces.rings, members, xy, rings
    ):
        return arcs
    starts = np.concatenate([[0], np.cumsum(sizes)])
    kept = np.arange(starts[-1]) + np.repeat(arcs.starts[:-1] - starts[:-1], sizes)
    return Arcs(vertices[kept], starts, arcs.left, arcs.right)


@jit
def _cut(
    vertices: Any, starts: Any, sizes: Any, free: Any, darts: Any, faces: Any, members: Any, xy: Any, rings: Any
) -> Any:
    """Writes each free arc over itself as its rings have it now, and its size; False if a node is not where it was."""
    for ring in range(members.size):
        around = darts[faces[members[ring]] : faces[members[ring] + 1]]
        if not _cut_ring(vertices, starts, sizes, free, around, xy[rings[ring] : rings[ring + 1] - 1]):
            return False
    return True


@jit
def _cut_ring(vertices: Any, starts: Any, sizes: Any, free: Any, darts: Any, ring: Any) -> Any:
    """The same for one ring; it passes no point twice, so a node is known by its place."""
    size = len(ring)
    first = _place(ring, 0, vertices[_begin(starts, sizes, darts[0])])
    if first == size:
        if darts.size > 1:
            return False
        first = 0  # an arc without a node, which may begin anywhere
    at = first
    for place in range(darts.size):
        to = first + size
        if place + 1 < darts.size:
            to = _place(ring, at + 1, vertices[_begin(starts, sizes, darts[place + 1])])
        arc = darts[place] >> 1
        if to > first + size or to - at >= starts[arc + 1] - starts[arc]:
            return False
        if free[arc] and not darts[place] & 1:
            for step in range(to - at + 1):
                now = ring[(at + step) % size]
                vertices[starts[arc] + step, 0], vertices[starts[arc] + step, 1] = now[0], now[1]
            sizes[arc] = to - at + 1
        at = to
    return True


@jit
def _begin(starts: Any, sizes: Any, dart: Any) -> Any:
    """The vertex at which a dart begins."""
    return starts[dart >> 1] + (sizes[dart >> 1] - 1 if dart & 1 else 0)


@jit
def _place(ring: Any, at: Any, point: Any) -> Any:
    """The step from `at` on at which a ring passes the point; `at` plus its size if it does not."""
    for place in range(at, at + len(ring)):
        if ring[place % len(ring), 0] == point[0] and ring[place % len(ring), 1] == point[1]:
            return place
    return at + len(ring)
