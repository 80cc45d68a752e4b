"""Right-angled outlines of buildings."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.polygons.borders.topology import Polygons, RaggedPolygons

MAX_WALLS = 1000
"""Limit of walls of a ring. Polygons with more stay unchanged; no building has as many."""


STEP_DEPTH = 1.4
"""Depth in pixels of the steps of slanting walls."""


MIN_MOVE = 1e-9
"""Moves below this fraction of the tolerance are rounding errors."""


def regularize_outlines(
    outlines: RaggedPolygons, *, tolerance: float, pixel: NDArray[np.float64], largest_pixel: float
) -> tuple[RaggedPolygons, NDArray[np.float64]]:
    """Give polygons right angles where that moves them little.

    Walls run along or across a polygon's main direction, each at the mean position of the part of the outline that it
    replaces, so the area hardly changes. If the result is invalid or moved too far, a rectangle of the same area is
    tried; if that is too, the polygon stays unchanged (as round ones do). Other polygons are not looked at.

    Args:
        outlines: Valid polygons, traced from pixels.
        tolerance: Limit of the distance between the old and the new outline, in the units of `pixel`. Shorter walls are
            merged with longer ones. Below two pixels, the steps of slanting walls may stay.
        pixel: (polygons, 2) widths and heights of pixels, all positive. Angles are right in these units.
        largest_pixel: The largest width or height of a pixel of all polygons.

    Returns:
        The polygons, and (polygons,) the distance between each old and new outline; 0 for those that stay unchanged,
        which are the old ones but for rounding.
    """
    if not len(outlines):
        return outlines, np.zeros(0)
    scaled = RaggedPolygons(outlines.xy * _per_vertex(pixel, outlines), outlines.rings, outlines.polygons)
    before = scaled.to_shapely(Affine.identity())
    new, moved = before.copy(), np.zeros(len(outlines))
    # A larger tolerance would turn walls with notches.
    vertices, starts = _remove_steps(scaled, min(tolerance / 2, STEP_DEPTH * largest_pixel))
    directions = _main_directions(scaled.xy[vertices], starts, outlines.polygons)
    vertices, starts = _remove_steps(scaled, tolerance / 2)
    upright = RaggedPolygons(_rotate(scaled, 1 / directions), outlines.rings, outlines.polygons)
    remaining = np.arange(len(outlines))
    for candidates in (
        _build_walls(upright, vertices, starts, directions, float(tolerance)),
        _rectangles(upright, directions, shapely.area(before)),
    ):
        distance = shapely.hausdorff_distance(before[remaining], candidates[remaining])
        good = (distance <= tolerance) & shapely.is_valid(candidates[remaining])
        distance[distance < MIN_MOVE * tolerance] = 0
        moved[remaining[good]], new[remaining[good]] = distance[good], candidates[remaining[good]]
        remaining = remaining[~good]
    xy, rings, polygons = _to_ragged(shapely.orient_polygons(new, exterior_cw=True))  # rows go down
    return RaggedPolygons(xy / _per_vertex(pixel, RaggedPolygons(xy, rings, polygons)), rings, polygons), moved


def _to_polygons(xy: NDArray[Any], rings: NDArray[np.int64], polygons: NDArray[np.int64]) -> Polygons:
    geometries: Any = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, (rings, polygons))
    return np.asarray(geometries, object)


def _to_ragged(geometries: Polygons) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    _, xy, (rings, polygons) = shapely.to_ragged_array(geometries)
    return xy, rings.astype(np.int64), polygons.astype(np.int64)


def _remove_steps(outlines: RaggedPolygons, tolerance: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Remove the steps of slanting edges (Douglas-Peucker); rings that would have under four edges stay unchanged.

    Returns:
        Indices of the vertices that are left, and (rings + 1,) start of each ring in them.
    """
    lines: Any = shapely.from_ragged_array(shapely.GeometryType.LINESTRING, outlines.xy, (outlines.rings,))
    plain = shapely.simplify(lines, tolerance, preserve_topology=False)
    _, xy, (ring_starts,) = shapely.to_ragged_array(np.where(shapely.get_num_points(plain) < 5, lines, plain))
    starts: NDArray[np.int64] = ring_starts.astype(np.int64)
    return _find_vertices(xy, starts, outlines.xy, outlines.rings), starts


def _main_directions(
    xy: NDArray[np.float64], rings: NDArray[np.int64], polygons: NDArray[np.int64]
) -> NDArray[np.complex128]:
    """Return (polygons,) main directions as complex numbers of modulus 1.

    Four times their angle is the mean over the edges, weighted by squared length, as short edges are mostly steps.
    """
    steps = np.diff(xy @ (1, 1j), append=0)
    steps[rings[1:] - 1] = 0  # between rings
    length = np.maximum(np.abs(steps), np.finfo(np.float64).tiny)
    sums = np.add.reduceat((steps / length) ** 4 * length**2, rings[polygons[:-1]])
    result: NDArray[np.complex128] = np.exp(0.25j * np.angle(sums))
    return result


def _rotate(outlines: RaggedPolygons, directions: NDArray[np.complex128]) -> NDArray[np.float64]:
    """Return the vertices of each polygon, rotated about the origin."""
    xy = (outlines.xy @ (1, 1j)) * np.repeat(directions, np.diff(outlines.rings[outlines.polygons]))
    return np.column_stack([xy.real, xy.imag])


def _build_walls(
    upright: RaggedPolygons,
    vertices: NDArray[np.int64],
    starts: NDArray[np.int64],
    directions: NDArray[np.complex128],
    min_length: float,
) -> Polygons:
    """Return (polygons,) with walls along and across their main directions; None if a ring has no four walls."""
    positions = _mean_positions(upright.xy, upright.rings, vertices, starts)
    corners, starts = _wall_corners(upright.xy[vertices], starts, positions, min_length)
    polygons = upright.polygons
    counts = np.diff(starts)
    good = np.logical_and.reduceat(counts > 0, polygons[:-1])
    result = np.full(good.size, None, object)
    kept = np.repeat(good, np.diff(polygons))
    kept_corners = np.repeat(kept, counts)
    new_rings = np.concatenate([[0], np.cumsum(counts[kept])])
    new_polygons = np.concatenate([[0], np.cumsum(np.diff(polygons)[good])])
    chosen = RaggedPolygons(corners[kept_corners], new_rings, new_polygons)
    result[good] = _to_polygons(_rotate(chosen, directions[good]), new_rings, new_polygons)
    return result


def _rectangles(upright: RaggedPolygons, directions: NDArray[np.complex128], areas: NDArray[np.float64]) -> Polygons:
    """Return (polygons,) rectangles at the centres of their bounds, of the same area; None for polygons with holes."""
    x, y = upright.xy.T
    starts = upright.rings[upright.polygons[:-1]]
    left, right = np.minimum.reduceat(x, starts), np.maximum.reduceat(x, starts)
    top, bottom = np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)
    width, height = right - left, bottom - top
    inset = (width + height - np.sqrt((width - height) ** 2 + 4 * areas)) / 4
    left, right, top, bottom = left + inset, right - inset, top + inset, bottom - inset
    corners = np.stack([left + 1j * top, left + 1j * bottom, right + 1j * bottom, right + 1j * top], axis=1)
    corners *= directions[:, None]
    rectangles: Any = shapely.polygons(np.stack([corners.real, corners.imag], axis=2))
    rectangles[np.diff(upright.polygons) > 1] = None
    return np.asarray(rectangles, object)


def _per_vertex(values: NDArray[np.float64], outlines: RaggedPolygons) -> NDArray[np.float64]:
    """Repeat the value of each polygon for its vertices."""
    result: NDArray[np.float64] = np.repeat(values, np.diff(outlines.rings[outlines.polygons]), axis=0)
    return result


@jit("f8[:, ::1]", "i8[::1]", "f8[:, ::1]", "i8[::1]")
def _find_vertices(plain: Any, starts: Any, xy: Any, rings: Any) -> Any:
    """Return (vertices,) indices in `xy` of the vertices of plain rings, which are some of those of the same ring."""
    indices = np.empty(len(plain), np.int64)
    for ring in range(rings.size - 1):
        low, size, at = rings[ring], rings[ring + 1] - rings[ring] - 1, 0
        for vertex in range(starts[ring], starts[ring + 1]):
            for _ in range(size):
                if xy[low + at, 0] == plain[vertex, 0] and xy[low + at, 1] == plain[vertex, 1]:
                    break
                at = (at + 1) % size
            indices[vertex] = low + at
    return indices


@jit("f8[:, ::1]", "i8[::1]", "i8[::1]", "i8[::1]")
def _mean_positions(xy: Any, rings: Any, vertices: Any, starts: Any) -> Any:
    """Return (vertices,) mean positions of the parts of the outlines that the edges of plain rings replace."""
    means = np.zeros(vertices.size)
    for ring in range(rings.size - 1):
        low, size = rings[ring], rings[ring + 1] - rings[ring] - 1
        for edge in range(starts[ring], starts[ring + 1] - 1):
            one, last = vertices[edge], vertices[edge + 1]
            axis = 0 if _is_along(xy[one], xy[last]) else 1
            length, total = xy[last, axis] - xy[one, axis], 0.0
            while one != last:
                two = low + (one - low + 1) % size
                total += (xy[two, axis] - xy[one, axis]) * (xy[one, 1 - axis] + xy[two, 1 - axis]) / 2
                one = two
            means[edge] = total / length
    return means


@jit("f8[:, ::1]", "i8[::1]", "f8[::1]", "f8")
def _wall_corners(xy: Any, rings: Any, means: Any, min_length: Any) -> Any:
    """Return closed rings of corners and their starts; a ring is empty if it has no four walls, or too many."""
    corners, starts = np.empty((len(xy) + rings.size, 2)), np.zeros_like(rings)
    position, weight = np.empty(MAX_WALLS), np.empty(MAX_WALLS)
    is_along = np.empty(MAX_WALLS, np.bool_)
    for ring in range(rings.size - 1):
        count = _merge_edges(xy[rings[ring] : rings[ring + 1]], means[rings[ring] :], position, weight, is_along)
        while count > 4:
            shortest, length = _shortest_wall(position, count)
            if length >= min_length:
                break
            count = _remove_wall(position, weight, is_along, count, shortest)
        at = starts[ring]
        for wall in range(count):
            after = (wall + 1) % count
            corners[at + wall, 0] = position[after] if is_along[wall] else position[wall]
            corners[at + wall, 1] = position[wall] if is_along[wall] else position[after]
        if count:
            corners[at + count] = corners[at]
        starts[ring + 1] = at + count + (count > 0)
    return corners[: starts[-1]], starts


@jit()
def _merge_edges(xy: Any, means: Any, position: Any, weight: Any, is_along: Any) -> Any:
    """Merge successive edges of one direction to a wall at their mean position.

    Returns:
        The number of walls; 0 if under four or too many.
    """
    size = len(xy) - 1
    first = 0
    while first < size and _is_along(xy[first], xy[first + 1]) == _is_along(xy[(first - 1) % size], xy[first]):
        first += 1
    count = 0
    for step in range(size if first < size else 0):
        edge = (first + step) % size
        along = _is_along(xy[edge], xy[edge + 1])
        if step == 0 or along != is_along[count - 1]:
            if count == MAX_WALLS:
                return 0
            position[count], weight[count], is_along[count] = 0, 0, along
            count += 1
        length = abs(xy[edge + 1, 0] - xy[edge, 0]) if along else abs(xy[edge + 1, 1] - xy[edge, 1])
        weight[count - 1] += length
        position[count - 1] += length * means[edge]
    for wall in range(count):
        position[wall] /= weight[wall]
    return count if count >= 4 else 0


@jit()
def _is_along(one: Any, two: Any) -> Any:
    """Return True for an edge along the main direction, False for one across it."""
    return abs(two[0] - one[0]) > abs(two[1] - one[1])


@jit()
def _shortest_wall(position: Any, count: Any) -> Any:
    """Return the shortest wall and its length, which is the distance of its two neighbours."""
    shortest, length = 0, np.inf
    for wall in range(count):
        distance = abs(position[(wall + 1) % count] - position[wall - 1 if wall else count - 1])
        if distance < length:
            shortest, length = wall, distance
    return shortest, length


@jit()
def _remove_wall(position: Any, weight: Any, is_along: Any, count: Any, wall: Any) -> Any:
    """Remove a wall and merge its neighbours at their mean position; return how many walls are left."""
    before, after = (wall - 1) % count, (wall + 1) % count
    total = weight[before] + weight[after]
    position[before] = (position[before] * weight[before] + position[after] * weight[after]) / total
    weight[before] = total
    left = 0
    for other in range(count):
        if other not in (wall, after):
            position[left], weight[left], is_along[left] = position[other], weight[other], is_along[other]
            left += 1
    return left
