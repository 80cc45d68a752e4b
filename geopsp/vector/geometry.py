"""Geometries of a layer: repaired, flattened, buffered and reprojected."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geopsp.core.crs import full_circle, get_transformer, metre_axes, transform_bounds

POLYGONS = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


Shapes = NDArray[np.object_]


Mask = NDArray[np.bool_]


MAX_EDGE_DEGREES = 0.01
"""Edges longer than this are divided before they are reprojected; at 45 degrees such an edge bends by 2 cm."""


METRES_PER_DEGREE = 111_000.0
"""Roughly."""


MAX_SEGMENTS = 20_000
"""Roughly the largest number of parts that an outline is divided into."""


AREA_OF_USE_MARGINS = (15.0, 3.0, 0.0)
"""Degrees around a CRS's area of use within which shapes are kept; the first with which a shape can be projected."""


def valid_polygons(shapes: Shapes, *, crs: pyproj.CRS, buffer: float = 0.0) -> tuple[Shapes, Mask, Mask]:
    """Repair and flatten shapes, and buffer lines and points.

    An area that several parts or loops of an outline cover belongs to the shape.

    Args:
        shapes: (n,) shapes, none of them missing, with finite coordinates (see `finite`).
        crs: Of the shapes.
        buffer: Metres by which lines and points are widened; polygons never are.

    Returns:
        (n,) shapes in two dimensions, (n,) True for repaired polygons, (n,) True for shapes with an area. Shapes
        without an area stay unchanged.
    """
    shapes = shapely.force_2d(shapes) if shapely.has_z(shapes).any() else shapes.copy()
    thin = ~np.isin(shapely.get_type_id(shapes), POLYGONS)
    invalid = ~shapely.is_valid(shapes)
    shapes[invalid] = shapely.make_valid(shapes[invalid], method="structure")
    mixed = shapely.get_type_id(shapes) == shapely.GeometryType.GEOMETRYCOLLECTION
    shapes[mixed] = [_areal_part(shape) for shape in shapes[mixed]]
    if buffer > 0:
        thin &= shapely.area(shapes) == 0
        shapes[thin] = buffered(shapes[thin], buffer, crs)
    areal = np.isin(shapely.get_type_id(shapes), POLYGONS) & (shapely.area(shapes) > 0)
    return shapes, invalid & areal, areal


def finite(shapes: Shapes) -> Mask:
    """Return (n,) True for shapes of which no vertex is infinite or NaN, in x or y; also for missing ones."""
    points, owner = shapely.get_coordinates(shapes, return_index=True)
    is_finite = np.ones(len(shapes), bool)
    is_finite[owner[~np.isfinite(points).all(axis=1)]] = False
    return is_finite


def _areal_part(shape: Any) -> Any:
    parts = [part for part in shapely.get_parts(shape) if shapely.area(part) > 0]
    return shapely.union_all(parts) if parts else shape


def buffered(shapes: Shapes, metres: float, crs: pyproj.CRS) -> Shapes:
    """Return polygons around lines and points; the metres are true on the ground at the middle of each shape."""
    left, bottom, right, top = shapely.bounds(shapes).T
    axes = metre_axes(np.column_stack([(left + right) / 2, (bottom + top) / 2]), crs)
    return _multiplied(shapely.buffer(_multiplied(shapes, np.linalg.inv(axes).astype(float)), metres), axes)


def _multiplied(shapes: Shapes, axes: NDArray[np.float64]) -> Shapes:
    """Multiply the vertices of each shape by its own matrix, (n, 2, 2)."""
    points, owner = shapely.get_coordinates(shapes, return_index=True)
    m, (x, y) = axes[owner], points.T
    moved = np.column_stack([m[:, 0, 0] * x + m[:, 0, 1] * y, m[:, 1, 0] * x + m[:, 1, 1] * y])
    return np.asarray(shapely.set_coordinates(shapes.copy(), moved), object)


def reproject_shapes(shapes: Shapes, source: pyproj.CRS, target_wkt: str) -> Shapes:
    """Reproject shapes, with vertices added to long edges, which bend; None for shapes that cannot be projected.

    A shape that reaches far beyond the target CRS's area of use, where projections fold, is clipped to this area and a
    margin. Longitudes go on past 180 where a shape crosses the antimeridian. The result depends on the shape alone, so
    that it is the same for all windows.
    """
    target = pyproj.CRS.from_wkt(target_wkt)
    if source == target:
        return shapes
    step = MAX_EDGE_DEGREES
    if not source.is_geographic:
        step = MAX_EDGE_DEGREES * METRES_PER_DEGREE / source.axis_info[0].unit_conversion_factor
    projected = _project(shapes, source, target_wkt, step)
    beyond = np.zeros(len(shapes), bool)
    for margin in AREA_OF_USE_MARGINS:
        area = _area_of_use(target, source, margin)
        if area is None:
            continue
        if margin == AREA_OF_USE_MARGINS[0]:
            beyond = ~shapely.covers(area, shapely.envelope(shapes))
        rows = np.flatnonzero(beyond)
        parts = shapely.intersection(shapes[rows], area)
        kept = shapely.area(parts) > 0
        projected[rows[kept]] = _project(parts[kept], source, target_wkt, step)
        beyond &= shapely.is_missing(projected)
    return projected


def _project(shapes: Shapes, source: pyproj.CRS, target_wkt: str, step: float) -> Shapes:
    """Transform shapes, None where that fails; `step` is the longest edge, in CRS units."""
    bounds = shapely.bounds(shapes)
    with np.errstate(invalid="ignore"):
        large = np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1]) > step
    shapes = shapes.copy()
    shapes[large] = shapely.segmentize(shapes[large], np.maximum(step, shapely.length(shapes[large]) / MAX_SEGMENTS))
    points = shapely.get_coordinates(shapes)
    x, y = get_transformer(source.to_wkt(), target_wkt).transform(*points.T)
    circle, source_circle = full_circle(target_wkt), full_circle(source.to_wkt())
    if circle is not None:
        of_part = np.repeat(*_vertices_of_parts(shapes))
        x = _unwrapped(x, of_part, circle) if source_circle is None else _like(x, points[:, 0] / source_circle, circle)
    projected = shapely.set_coordinates(shapes, np.column_stack([x, y]))
    projected[~np.isfinite(shapely.bounds(projected)).all(axis=1)] = None
    return np.asarray(projected, object)


def _vertices_of_parts(shapes: Shapes) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Return the numbers of all single parts, and how many vertices each has."""
    parts = shapely.get_parts(shapes)
    return np.arange(len(parts)), shapely.get_num_coordinates(parts)


def _like(longitudes: NDArray[np.float64], turns: NDArray[np.float64], circle: float) -> NDArray[np.float64]:
    """Return longitudes, shifted by full circles so that they are nearest to those of the source, in turns."""
    with np.errstate(invalid="ignore"):
        return np.asarray(longitudes + circle * np.rint(turns - longitudes / circle))


def _unwrapped(longitudes: NDArray[np.float64], of_part: NDArray[np.intp], circle: float) -> NDArray[np.float64]:
    """Return longitudes that go on past 180 degrees, for parts in which neighbours are more than half a circle apart.

    `of_part` has the part of each vertex, ascending.
    """
    with np.errstate(invalid="ignore"):
        jump = (np.abs(np.diff(longitudes)) > circle / 2) & (np.diff(of_part) == 0)
        crossing = np.isin(of_part, of_part[1:][jump])
        first = longitudes[np.searchsorted(of_part, of_part[crossing])]
        half = circle / 2
        unwrapped = longitudes.copy()
        unwrapped[crossing] = first + np.mod(longitudes[crossing] - first + half, circle) - half
    return unwrapped


def _area_of_use(crs: pyproj.CRS, other: pyproj.CRS, margin: float) -> Any:
    """Return the area of use of a CRS, widened by degrees, as boxes in another CRS; None if it is not known."""
    named = crs.to_authority()  # a CRS read from WKT 1 has no area of use
    use, geodetic = pyproj.CRS.from_authority(*named).area_of_use if named else crs.area_of_use, other.geodetic_crs
    if use is None or geodetic is None:
        return None
    south, north = max(use.south - margin, -90.0), min(use.north + margin, 90.0)
    west, east = use.west - margin, use.east + margin + (360 if use.east < use.west else 0)
    spans = [(west, east), (west + 360, east + 360), (west - 360, east - 360)]
    circle = full_circle(other.to_wkt())
    if circle is not None:  # whatever the convention of longitudes
        unit = circle / 360
        return shapely.union_all([shapely.box(a * unit, south * unit, b * unit, north * unit) for a, b in spans])
    spans = [(max(a, -180.0), min(b, 180.0)) for a, b in spans if min(b, 180.0) > max(a, -180.0)]
    found = [transform_bounds((a, south, b, north), geodetic.to_wkt(), other.to_wkt()) for a, b in spans]
    boxes = [shapely.box(*bounds) for bounds in found if bounds is not None]
    return shapely.union_all(boxes) if boxes else None
