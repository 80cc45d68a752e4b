"""Right-angled outlines of what people build."""

from __future__ import annotations

from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.polygons.borders.topology import Polygons, RaggedPolygons

WALLS = 1000
"""More than a ring of a building has; a polygon with more in one ring stays as it was."""


STEP = 1.4
"""Pixels: how deep the steps of slanting walls are."""


ROUNDING = 1e-9
"""The share of the tolerance below which a move is none."""


def regularize_outlines(
    outlines: RaggedPolygons, *, tolerance: float, pixel: tuple[float, float] | NDArray[np.float64]
) -> tuple[RaggedPolygons, NDArray[np.float64]]:
    """The same polygons with right angles where that moves them little, and how far each has moved, else 0.

    Walls run along or across a polygon's main direction, each at the mean place of the outline that it stands for, so
    that the area hardly changes. Where that is no valid polygon or too far, a rectangle of the same area is tried;
    where that is, too, the polygon stays as it was (as round ones do). Of two that would overlap, the one that moved
    further stays as it was, so walls that two share mostly do; and so of two that would come to share a wall.

    Args:
        outlines: Valid polygons that do not overlap, traced from pixels.
        tolerance: How far any corner, old or new, may be from the other outline, in the units of `pixel`. Shorter
            walls become part of longer ones. With less than two pixels, the steps of slanting walls may stay.
        pixel: Width and height of a pixel, both positive; or (polygons, 2) where each lies. Angles are right in these
            units.
    """
    if not len(outlines):
        return outlines, np.zeros(0)
    old = outlines.shapes(Affine.identity())
    sizes = np.broadcast_to(pixel, (len(outlines), 2))
    ground = RaggedPolygons(outlines.xy * _each(sizes, outlines), outlines.rings, outlines.polygons)
    before = ground.shapes(Affine.identity())
    new, moved = before.copy(), np.zeros(len(outlines))
    places, starts = _plain(ground, min(tolerance / 2, STEP * float(sizes.max())))  # more would turn walls with notches
    turns = _directions(ground.xy[places], starts, outlines.polygons)
    places, starts = _plain(ground, tolerance / 2)
    flat = RaggedPolygons(_turned(ground, 1 / turns), outlines.rings, outlines.polygons)
    waiting = np.arange(len(outlines))
    for candidates in (
        _walled(flat, places, starts, turns, float(tolerance)),
        _rectangles(flat, turns, shapely.area(before)),
    ):
        far = shapely.hausdorff_distance(before[waiting], candidates[waiting])
        good = (far <= tolerance) & shapely.is_valid(candidates[waiting])
        far[far < ROUNDING * tolerance] = 0
        moved[waiting[good]], new[waiting[good]] = far[good], candidates[waiting[good]]
        waiting = waiting[~good]
    changed = moved > 0
    xy, rings, polygons = _ragged(shapely.orient_polygons(new, exterior_cw=True))  # rows go down
    made = _polygons(xy / _each(sizes, RaggedPolygons(xy, rings, polygons)), rings, polygons)
    made[~changed] = old[~changed]
    _keep_apart(made, moved, old)
    return RaggedPolygons(*_ragged(made)), moved


def _polygons(xy: NDArray[Any], rings: NDArray[np.int64], polygons: NDArray[np.int64]) -> Polygons:
    found: Any = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, (rings, polygons))
    return np.asarray(found, object)


def _ragged(found: Polygons) -> tuple[NDArray[np.float64], NDArray[np.int64], NDArray[np.int64]]:
    _, xy, (rings, polygons) = shapely.to_ragged_array(found)
    return xy, rings.astype(np.int64), polygons.astype(np.int64)


def _plain(outlines: RaggedPolygons, tolerance: float) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Rings without the steps of slanting edges: which vertices are left, and where each ring begins among them.

    Those with under four edges stay as they were.
    """
    lines: Any = shapely.from_ragged_array(shapely.GeometryType.LINESTRING, outlines.xy, (outlines.rings,))
    plain = shapely.simplify(lines, tolerance, preserve_topology=False)
    _, xy, (starts,) = shapely.to_ragged_array(np.where(shapely.get_num_points(plain) < 5, lines, plain))
    begins: NDArray[np.int64] = starts.astype(np.int64)
    return _places(xy, begins, outlines.xy, outlines.rings), begins


def _directions(
    xy: NDArray[np.float64], rings: NDArray[np.int64], polygons: NDArray[np.int64]
) -> NDArray[np.complex128]:
    """(polygons,) the main direction of each, as numbers of size 1: four times their angle is the mean over the edges.

    Long edges count for more than their length, as short ones are mostly steps.
    """
    steps = np.diff(xy @ (1, 1j), append=0)
    steps[rings[1:] - 1] = 0  # from ring to ring
    length = np.maximum(np.abs(steps), np.finfo(np.float64).tiny)
    sums = np.add.reduceat((steps / length) ** 4 * length**2, rings[polygons[:-1]])
    result: NDArray[np.complex128] = np.exp(0.25j * np.angle(sums))
    return result


def _turned(outlines: RaggedPolygons, turns: NDArray[np.complex128]) -> NDArray[np.float64]:
    """The vertices of each polygon turned about the origin."""
    xy = (outlines.xy @ (1, 1j)) * np.repeat(turns, np.diff(outlines.rings[outlines.polygons]))
    return np.column_stack([xy.real, xy.imag])


def _walled(
    flat: RaggedPolygons,
    places: NDArray[np.int64],
    starts: NDArray[np.int64],
    turns: NDArray[np.complex128],
    least: float,
) -> Polygons:
    """(polygons,) with walls along and across their main directions; None where a ring has no four walls."""
    means = _means(flat.xy, flat.rings, places, starts)
    corners, starts = _walls(flat.xy[places], starts, means, least)
    polygons = flat.polygons
    counts = np.diff(starts)
    good = np.logical_and.reduceat(counts > 0, polygons[:-1])
    found = np.full(good.size, None, object)
    kept = np.repeat(good, np.diff(polygons))
    counts, whole = counts * kept, np.repeat(kept, counts)
    new_rings = np.concatenate([[0], np.cumsum(counts[kept])])
    new_polygons = np.concatenate([[0], np.cumsum(np.diff(polygons)[good])])
    chosen = RaggedPolygons(corners[whole], new_rings, new_polygons)
    found[good] = _polygons(_turned(chosen, turns[good]), new_rings, new_polygons)
    return found


def _rectangles(flat: RaggedPolygons, turns: NDArray[np.complex128], areas: NDArray[np.float64]) -> Polygons:
    """(polygons,) rectangles in the middle of theirs along the main directions, of the same area; None with holes."""
    x, y = flat.xy.T
    starts = flat.rings[flat.polygons[:-1]]
    left, right = np.minimum.reduceat(x, starts), np.maximum.reduceat(x, starts)
    top, bottom = np.minimum.reduceat(y, starts), np.maximum.reduceat(y, starts)
    width, height = right - left, bottom - top
    less = (width + height - np.sqrt((width - height) ** 2 + 4 * areas)) / 4
    left, right, top, bottom = left + less, right - less, top + less, bottom - less
    corners = np.stack([left + 1j * top, left + 1j * bottom, right + 1j * bottom, right + 1j * top], axis=1)
    corners *= turns[:, None]
    found: Any = shapely.polygons(np.stack([corners.real, corners.imag], axis=2))
    found[np.diff(flat.polygons) > 1] = None
    return np.asarray(found, object)


def _each(values: NDArray[np.float64], outlines: RaggedPolygons) -> NDArray[np.float64]:
    """(vertices, ...) what their polygons have."""
    found: NDArray[np.float64] = np.repeat(values, np.diff(outlines.rings[outlines.polygons]), axis=0)
    return found


def _share_walls(some: Polygons, others: Polygons) -> NDArray[np.bool_]:
    """True where two outlines have more than points in common."""
    found: NDArray[np.bool_] = shapely.relate_pattern(some, others, "****1****")
    return found


def _keep_apart(made: Polygons, moved: NDArray[np.float64], old: Polygons) -> None:
    """Gives back their old outline to polygons that overlap others, or have a new wall with them, until none does."""
    while (changed := np.flatnonzero(moved)).size:
        one, two = shapely.STRtree(made).query(made[changed], predicate="intersects")
        one = changed[one]
        one, two = one[one != two], two[one != two]
        over = shapely.relate_pattern(made[one], made[two], "T********")
        over |= _share_walls(made[one], made[two]) & ~_share_walls(old[one], old[two])
        if not over.any():
            return
        back = np.where(moved[one] >= moved[two], one, two)[over]
        made[back], moved[back] = old[back], 0


@jit
def _places(plain: Any, starts: Any, xy: Any, rings: Any) -> Any:
    """(vertices,) where in `xy` the vertices of plain rings are, which are some of those of the same ring there."""
    places = np.empty(len(plain), np.int64)
    for ring in range(rings.size - 1):
        low, size, at = rings[ring], rings[ring + 1] - rings[ring] - 1, 0
        for vertex in range(starts[ring], starts[ring + 1]):
            for _ in range(size):
                if xy[low + at, 0] == plain[vertex, 0] and xy[low + at, 1] == plain[vertex, 1]:
                    break
                at = (at + 1) % size
            places[vertex] = low + at
    return places


@jit
def _means(uv: Any, rings: Any, places: Any, starts: Any) -> Any:
    """(vertices,) for each plain edge the mean place of the outline that it stands for."""
    means = np.zeros(places.size)
    for ring in range(rings.size - 1):
        low, size = rings[ring], rings[ring + 1] - rings[ring] - 1
        for edge in range(starts[ring], starts[ring + 1] - 1):
            one, last = places[edge], places[edge + 1]
            along = 0 if _flat(uv[one], uv[last]) else 1
            length, total = uv[last, along] - uv[one, along], 0.0
            while one != last:
                two = low + (one - low + 1) % size
                total += (uv[two, along] - uv[one, along]) * (uv[one, 1 - along] + uv[two, 1 - along]) / 2
                one = two
            means[edge] = total / length
    return means


@jit
def _walls(uv: Any, rings: Any, means: Any, least: Any) -> Any:
    """Closed rings of corners, and where each begins; empty where there are no four walls, or too many."""
    corners, starts = np.empty((len(uv) + rings.size, 2)), np.zeros_like(rings)
    place, weight = np.empty(WALLS), np.empty(WALLS)
    level = np.empty(WALLS, np.bool_)
    for ring in range(rings.size - 1):
        count = _runs(uv[rings[ring] : rings[ring + 1]], means[rings[ring] :], place, weight, level)
        while count > 4:
            shortest, length = _shortest(place, count)
            if length >= least:
                break
            count = _without(place, weight, level, count, shortest)
        at = starts[ring]
        for wall in range(count):
            after = (wall + 1) % count
            corners[at + wall, 0] = place[after] if level[wall] else place[wall]
            corners[at + wall, 1] = place[wall] if level[wall] else place[after]
        if count:
            corners[at + count] = corners[at]
        starts[ring + 1] = at + count + (count > 0)
    return corners[: starts[-1]], starts


@jit
def _runs(uv: Any, means: Any, place: Any, weight: Any, level: Any) -> Any:
    """Edges that go the same way made one wall, at their mean place; gives how many, 0 if under four or too many."""
    size = len(uv) - 1
    first = 0
    while first < size and _flat(uv[first], uv[first + 1]) == _flat(uv[(first - 1) % size], uv[first]):
        first += 1
    count = 0
    for step in range(size if first < size else 0):
        edge = (first + step) % size
        flat = _flat(uv[edge], uv[edge + 1])
        if step == 0 or flat != level[count - 1]:
            if count == WALLS:
                return 0
            place[count], weight[count], level[count] = 0, 0, flat
            count += 1
        share = abs(uv[edge + 1, 0] - uv[edge, 0]) if flat else abs(uv[edge + 1, 1] - uv[edge, 1])
        weight[count - 1] += share
        place[count - 1] += share * means[edge]
    for wall in range(count):
        place[wall] /= weight[wall]
    return count if count >= 4 else 0


@jit
def _flat(one: Any, two: Any) -> Any:
    """True for an edge along the main direction."""
    return abs(two[0] - one[0]) > abs(two[1] - one[1])


@jit
def _shortest(place: Any, count: Any) -> Any:
    """The shortest wall and its length: how far its two neighbours are apart."""
    shortest, length = 0, np.inf
    for wall in range(count):
        apart = abs(place[(wall + 1) % count] - place[wall - 1 if wall else count - 1])
        if apart < length:
            shortest, length = wall, apart
    return shortest, length


@jit
def _without(place: Any, weight: Any, level: Any, count: Any, wall: Any) -> Any:
    """Takes a wall out and makes its neighbours one, at their mean place; gives how many are left."""
    before, after = (wall - 1) % count, (wall + 1) % count
    total = weight[before] + weight[after]
    place[before] = (place[before] * weight[before] + place[after] * weight[after]) / total
    weight[before] = total
    left = 0
    for other in range(count):
        if other not in (wall, after):
            place[left], weight[left], level[left] = place[other], weight[other], level[other]
            left += 1
    return left
