"""Features as they are found made into valid polygons: repaired, flattened, lines and points buffered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geopsp.core.crs import get_transformer, metre_axes, transform_bounds
from geopsp.errors import LabelError

POLYGONS = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)


Shapes = NDArray[np.object_]


Mask = NDArray[np.bool_]


LONG = 0.01
"""Degrees beyond which an edge is divided before it is reprojected; at 45 degrees it bends by two centimetres."""


METRES = 111_000.0
"""Metres a degree, roughly."""


MOST = 20_000
"""Parts, roughly, into which an outline is divided at most."""


MARGINS = (15.0, 3.0, 0.0)
"""Degrees around a CRS's area of use within which shapes are kept; fewer where they have no place in it then."""


def valid_polygons(shapes: Shapes, *, crs: pyproj.CRS, buffer: float = 0.0) -> tuple[Shapes, Mask, Mask]:
    """(n,) polygons in two dimensions, (n,) True where one was repaired, (n,) True where one has area.

    What has no area stays as it is. Lines and points are buffered by metres; polygons never are.
    """
    shapes = shapely.force_2d(shapes) if shapely.has_z(shapes).any() else shapes.copy()
    thin = ~np.isin(shapely.get_type_id(shapes), POLYGONS)
    invalid = ~shapely.is_valid(shapes)
    shapes[invalid] = shapely.make_valid(shapes[invalid])
    mixed = shapely.get_type_id(shapes) == shapely.GeometryType.GEOMETRYCOLLECTION
    shapes[mixed] = [_areal_part(shape) for shape in shapes[mixed]]
    if buffer > 0:
        thin &= shapely.area(shapes) == 0
        shapes[thin] = buffered(shapes[thin], buffer, crs)
    areal = np.isin(shapely.get_type_id(shapes), POLYGONS) & (shapely.area(shapes) > 0)
    return shapes, invalid & areal, areal


def _areal_part(shape: Any) -> Any:
    parts = [part for part in shapely.get_parts(shape) if shapely.area(part) > 0]
    return shapely.union_all(parts) if parts else shape


def buffered(shapes: Shapes, metres: float, crs: pyproj.CRS) -> Shapes:
    """Polygons around lines and points, as far on the ground as asked for at the middle of each."""
    left, bottom, right, top = shapely.bounds(shapes).T
    axes = metre_axes(np.column_stack([(left + right) / 2, (bottom + top) / 2]), crs)
    return _turned(shapely.buffer(_turned(shapes, np.linalg.inv(axes).astype(float)), metres), axes)


def _turned(shapes: Shapes, axes: NDArray[np.float64]) -> Shapes:
    """Each shape's vertices times its own matrix."""
    points, owner = shapely.get_coordinates(shapes, return_index=True)
    m, (x, y) = axes[owner], points.T
    moved = np.column_stack([m[:, 0, 0] * x + m[:, 0, 1] * y, m[:, 1, 0] * x + m[:, 1, 1] * y])
    return np.asarray(shapely.set_coordinates(shapes.copy(), moved), object)


def check_buffer(buffer: float) -> None:
    """Nothing, if lines and points can be buffered so.

    Raises:
        LabelError: if it is not a number of metres from 0 on.
    """
    if not (isinstance(buffer, int | float | np.number) and np.isfinite(buffer) and buffer >= 0):
        raise LabelError(f"buffer is {buffer!r}; needed a number of metres from 0 on.")


def reprojected(shapes: Shapes, here: pyproj.CRS, there: str) -> Shapes:
    """The shapes in another CRS, long edges bent as they are there; None for those that have no place in it.

    Of a shape that reaches far beyond the CRS's area of use, where projections fold, what lies in and around it is
    left. That depends on nothing but the shape, so that all windows see the same.
    """
    target = pyproj.CRS.from_wkt(there)
    if here == target:
        return shapes
    step = LONG if here.is_geographic else LONG * METRES / here.axis_info[0].unit_conversion_factor
    to_there = get_transformer(here.to_wkt(), there)
    moved = _moved(shapes, to_there, step)
    beyond = np.zeros(len(shapes), bool)
    for margin in MARGINS:
        area = _area_of_use(target, here, margin)
        if area is None:
            continue
        if margin == MARGINS[0]:
            beyond = ~shapely.covers(area, shapely.envelope(shapes))
        again = np.flatnonzero(beyond)
        parts = shapely.intersection(shapes[again], area)
        kept = shapely.area(parts) > 0
        moved[again[kept]] = _moved(parts[kept], to_there, step)
        beyond &= shapely.is_missing(moved)
    return moved


def _moved(shapes: Shapes, to_there: pyproj.Transformer, step: float) -> Shapes:
    bounds = shapely.bounds(shapes)
    with np.errstate(invalid="ignore"):
        large = np.maximum(bounds[:, 2] - bounds[:, 0], bounds[:, 3] - bounds[:, 1]) > step
    shapes = shapes.copy()
    shapes[large] = shapely.segmentize(shapes[large], np.maximum(step, shapely.length(shapes[large]) / MOST))
    moved = shapely.transform(shapes, lambda xy: np.column_stack(to_there.transform(*xy.T)))
    moved[~np.isfinite(shapely.bounds(moved)).all(axis=1)] = None
    return np.asarray(moved, object)


def _area_of_use(crs: pyproj.CRS, here: pyproj.CRS, margin: float) -> Any:
    """Where a CRS is used and degrees around it, as boxes in another CRS; None: it is not known."""
    named = crs.to_authority()  # well-known text of the first version does not tell the area
    use, globe = pyproj.CRS.from_authority(*named).area_of_use if named else crs.area_of_use, here.geodetic_crs
    if use is None or globe is None:
        return None
    south, north = max(use.south - margin, -90.0), min(use.north + margin, 90.0)
    west, east = use.west - margin, use.east + margin + (360 if use.east < use.west else 0)
    spans = [(west, east), (west + 360, east + 360), (west - 360, east - 360)]
    spans = [(max(a, -180.0), min(b, 180.0)) for a, b in spans if min(b, 180.0) > max(a, -180.0)]
    found = [transform_bounds((a, south, b, north), globe.to_wkt(), here.to_wkt()) for a, b in spans]
    boxes = [shapely.box(*bounds) for bounds in found if bounds is not None]
    return shapely.union_all(boxes) if boxes else None
