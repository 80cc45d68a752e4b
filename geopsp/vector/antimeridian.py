"""Polygons in longitude and latitude (WGS 84), cut where they cross the antimeridian, as GeoJSON needs them.

Source: RFC 7946, 3.1.9.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

Shapes = NDArray[np.object_]


Floats = NDArray[np.float64]


WGS84 = pyproj.CRS.from_epsg(4326)


MIN_DECIMALS, MAX_DECIMALS = 7, 15
"""Of degrees: a centimetre, as RFC 7946 recommends, and what a number of 64 bits holds."""


MAX_EDGE = 90.0
"""Degrees of longitude; GDAL takes much longer edges for such that cross the antimeridian."""


METRES_PER_DEGREE = 111_320.0
"""Roughly."""


MAX_HALVINGS = 4
"""How often an edge that seems to cross the antimeridian is halved to be sure."""


def to_wgs84(shapes: Shapes, crs: pyproj.CRS) -> Shapes:
    """Return polygons in WGS 84 with longitudes from -180 to 180; those across the antimeridian become multipolygons.

    Args:
        shapes: (n,) valid polygons and multipolygons.
        crs: Their CRS. Longitudes of a geographic one may lie beyond 180 degrees.
    """
    to_degrees = _Degrees(crs)
    degrees = np.asarray(shapely.transform(shapes, to_degrees), object)
    left, _, right, _ = shapely.bounds(degrees).T
    beyond = (left < -180) | (right > 180)
    for at in np.flatnonzero(beyond | (right - left > 180)):
        parts = [_polygon(part, to_degrees) for part in shapely.get_parts(shapes[at])]
        degrees[at] = _with_short_edges(shapely.union_all(parts) if len(parts) > 1 else parts[0])
    return degrees


def decimals(resolution: float) -> int:
    """Return how many decimals of degrees tell a hundredth of some metres apart."""
    needed = math.ceil(-math.log10(resolution / 100 / METRES_PER_DEGREE))
    return min(max(needed, MIN_DECIMALS), MAX_DECIMALS)


class _Degrees:
    """Takes x and y of a CRS to longitude and latitude in WGS 84."""

    def __init__(self, crs: pyproj.CRS) -> None:
        self._transform = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True).transform
        self.is_projected = not crs.is_geographic
        self._unit = 1.0 if self.is_projected else float(np.degrees(crs.axis_info[0].unit_conversion_factor))

    def __call__(self, xy: Floats) -> Floats:
        lon, lat = (np.asarray(angle, float) for angle in self._transform(*xy.T))
        if not self.is_projected:  # the turn that PROJ may have left out
            lon = lon + 360 * np.round((xy[:, 0] * self._unit - lon) / 360)
        return np.column_stack([lon, lat])


def _polygon(shape: Any, to_degrees: _Degrees) -> Any:
    """Return a polygon with longitudes from -180 to 180: each ring is cut by itself."""
    shell, *holes = (_within_180(shapely.Polygon(_ring(shapely.get_coordinates(ring), to_degrees)))
                     for ring in shapely.get_rings(shape))  # fmt: skip
    return shapely.difference(shell, shapely.union_all(holes)) if holes else shell


def _ring(xy: Floats, to_degrees: _Degrees) -> Floats:
    """Return a ring with continuous longitudes; one around a pole also runs along the pole."""
    degrees = to_degrees(xy)
    if not to_degrees.is_projected:
        return degrees
    for _ in range(MAX_HALVINGS):
        jumps = np.flatnonzero(np.abs(np.diff(degrees[:, 0])) > 180)
        if not jumps.size:
            return degrees
        xy = np.insert(xy, jumps + 1, (xy[jumps] + xy[jumps + 1]) / 2, axis=0)
        degrees = to_degrees(xy)
    turns = np.cumsum(np.round(np.diff(degrees[:, 0], prepend=degrees[0, 0]) / 360))
    degrees[:, 0] -= 360 * turns
    if not turns[-1]:
        return degrees
    pole = np.copysign(90.0, degrees[:, 1].mean())
    (start, _), (end, _) = degrees[0], degrees[-1]
    return np.concatenate([degrees, [[end, pole], [start, pole], degrees[0]]])


def _within_180(polygon: Any) -> Any:
    """Cut a polygon into turns of 360 degrees, and return them one over the other."""
    left, bottom, right, top = polygon.bounds
    if left >= -180 and right <= 180:
        return polygon
    parts = []
    for turn in range(int(np.floor((left + 180) / 360)), int(np.ceil((right - 180) / 360)) + 1):
        strip = shapely.box(360 * turn - 180, bottom - 1, 360 * turn + 180, top + 1)
        found = shapely.get_parts(shapely.intersection(polygon, strip))
        parts += [shapely.transform(part, lambda xy, turn=turn: xy - [360 * turn, 0]) for part in found if part.area]
    return shapely.union_all(parts)


def _with_short_edges(shape: Any) -> Any:
    left, _, right, _ = shape.bounds
    return shapely.segmentize(shape, MAX_EDGE) if right - left > MAX_EDGE else shape
