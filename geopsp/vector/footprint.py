"""The ground that shapes lie on, as GeoJSON has it: a polygon in WGS 84, and its bounds."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyproj
import shapely
from shapely.geometry import mapping

from geopsp.vector.antimeridian import MIN_DECIMALS, WGS84, Floats, Shapes, to_wgs84

Geometry = dict[str, Any]
"""A geometry of GeoJSON, with "type" and "coordinates"."""


def hull_in_wgs84(shapes: Shapes, crs: pyproj.CRS) -> Any:
    """Return the convex hull of polygons in longitude and latitude, across the antimeridian if that is shorter.

    Args:
        shapes: (n,) valid polygons and multipolygons, at least one.
        crs: Their CRS.
    """
    parts = shapely.get_parts(to_wgs84(shapes, crs))
    degrees, owners = shapely.get_coordinates(parts, return_index=True)
    left, _, right, _ = shapely.bounds(parts).T
    degrees[:, 0] += np.where(left < _west_end(left, right), 360, 0)[owners]
    hull = shapely.convex_hull(shapely.MultiPoint(degrees))
    return to_wgs84(np.array([hull], object), WGS84)[0]


def _west_end(left: Floats, right: Floats) -> float:
    """Return where the largest gap in longitudes ends: what lies west of it is nearer when shifted by a turn.

    -180 if the largest gap lies across the antimeridian, so that nothing is shifted.
    """
    order = np.argsort(left)
    starts, ends = left[order], np.maximum.accumulate(right[order])
    gaps = starts[1:] - ends[:-1]
    if not gaps.size or gaps.max() <= starts[0] + 360 - ends[-1]:
        return -180.0
    return float(starts[gaps.argmax() + 1])


def geojson_fields(shape: Any) -> dict[str, Any]:
    """Return "geometry" and "bbox" of a polygon in WGS 84, rounded to a centimetre.

    Of a shape that is cut at the antimeridian the bounds begin east of it: west is larger than east. Source: RFC 7946.
    """
    shape = shapely.orient_polygons(shape)
    parts = shapely.get_parts(shape)
    lefts, bottoms, rights, tops = shapely.bounds(parts).T
    west, east = lefts.min(), rights.max()
    if west <= -180 and east >= 180 and (inner := lefts[lefts > -180]).size and (outer := rights[rights < 180]).size:
        west, east = inner.min(), outer.max()
    bounds = [west, bottoms.min(), east, tops.max()]
    return {
        "geometry": _rounded(mapping(shape)),
        "bbox": [round(float(value), MIN_DECIMALS) for value in bounds],
    }


def _rounded(value: Any) -> Any:
    """Return a geometry with lists for tuples."""
    if isinstance(value, dict):
        return {name: _rounded(each) for name, each in value.items()}
    if isinstance(value, tuple | list):
        return [_rounded(each) for each in value]
    return round(value, MIN_DECIMALS) if isinstance(value, float) else value
