"""Features as they are found made into valid polygons: repaired, flattened, lines and points buffered."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geopsp.errors import LabelError

POLYGONS = (shapely.GeometryType.POLYGON, shapely.GeometryType.MULTIPOLYGON)

Shapes = NDArray[np.object_]
Mask = NDArray[np.bool_]


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
    """Polygons around lines and points; in degrees, each is scaled at the latitude of its own middle."""
    if not crs.is_geographic:
        return np.asarray(shapely.buffer(shapes, metres / crs.axis_info[0].unit_conversion_factor), object)
    degrees = metres / metres_per_degree(crs)
    found = [_buffered_on_globe(shape, degrees) for shape in shapes]
    return np.array(found, object) if found else shapes


def _buffered_on_globe(shape: Any, degrees: float) -> Any:
    left, bottom, right, top = shapely.bounds(shape)
    if not np.isfinite([left, bottom, right, top]).all():
        return shape
    scale = np.array([max(np.cos(np.radians((bottom + top) / 2)), 1e-6), 1.0])
    return shapely.transform(
        shapely.buffer(shapely.transform(shape, lambda xy: xy * scale), degrees), lambda xy: xy / scale
    )


def metres_per_degree(crs: pyproj.CRS) -> float:
    """Along the equator."""
    ellipsoid = crs.ellipsoid
    radius = ellipsoid.semi_major_metre if ellipsoid else 6378137.0
    return float(np.pi * radius / 180)


def check_buffer(buffer: float) -> None:
    """Nothing, if lines and points can be buffered so.

    Raises:
        LabelError: if it is not a number of metres from 0 on.
    """
    if not (np.isfinite(buffer) and buffer >= 0):
        raise LabelError(f"buffer is {buffer}; needed a number of metres from 0 on.")
