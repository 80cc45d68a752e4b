"""Transforms between coordinate reference systems (CRS), and metres per CRS unit."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyproj
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from geopsp.core.text import format_error
from geopsp.errors import LabelError

Bounds = tuple[float, float, float, float]
"""(left, bottom, right, top)"""


DIFFERENCE_STEP = 10.0
"""Metres to each side of a point over which a projection's scale is measured."""


MAX_TURNS = 2
"""Full circles by which longitudes may differ."""


def metre_axes(points: NDArray[np.float64], crs: pyproj.CRS) -> NDArray[np.float64]:
    """Return by how much x and y change, in CRS units, one metre to the east and one metre to the north of each point.

    Args:
        points: (n, 2) x and y.
        crs: Of the points.

    Returns:
        (n, 2, 2); rows are x and y, columns east and north. Points that cannot be taken to longitude and latitude get
        the CRS's unit without distortion.
    """
    axes = np.zeros((len(points), 2, 2))
    if crs.is_geographic:
        latitude = np.clip(np.nan_to_num(points[:, 1]), -89.99994, 89.99994)
        axes[:, 1, 1] = 1 / metres_per_degree(crs)
        axes[:, 0, 0] = axes[:, 1, 1] / np.cos(np.radians(latitude))
        return axes
    unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
    geodetic = crs.geodetic_crs
    if geodetic is not None:
        to_degrees = get_transformer(crs.to_wkt(), geodetic.to_wkt())
        from_degrees = get_transformer(geodetic.to_wkt(), crs.to_wkt())
        longitude, latitude = to_degrees.transform(*points.T)
        step = DIFFERENCE_STEP / metres_per_degree(crs)
        for column, (east, north) in enumerate(((step / np.cos(np.radians(latitude)), 0.0), (0.0, step))):
            ahead = np.array(from_degrees.transform(longitude + east, latitude + north))
            behind = np.array(from_degrees.transform(longitude - east, latitude - north))
            axes[:, :, column] = (ahead - behind).T / (2 * DIFFERENCE_STEP)
    with np.errstate(invalid="ignore"):
        is_valid = np.isfinite(axes).all(axis=(1, 2)) & (np.abs(np.linalg.det(np.nan_to_num(axes, posinf=0))) > 0)
    axes[~is_valid] = np.eye(2) / unit
    return axes


def metres_per_degree(crs: pyproj.CRS) -> float:
    """Return the length of a degree along the equator."""
    ellipsoid = crs.ellipsoid
    radius = ellipsoid.semi_major_metre if ellipsoid else 6378137.0
    return float(np.pi * radius / 180)


@lru_cache(maxsize=32)
def get_transformer(source: str, target: str) -> pyproj.Transformer:
    """Return the transformer from x and y in one CRS to x and y in another.

    Raises:
        LabelError: if there is none, as between two planets.
    """
    try:
        return pyproj.Transformer.from_crs(source, target, always_xy=True)
    except ProjError as error:
        names = [pyproj.CRS.from_user_input(crs).name for crs in (source, target)]
        raise LabelError(
            f"Cannot transform coordinates between {' and '.join(names)}, the CRS of the labels and of the image: "
            f"{format_error(error)}. Check that both are correct and of one planet."
        ) from error


@lru_cache(maxsize=32)
def full_circle(crs: str) -> float | None:
    """Return 360 degrees in the unit of a geographic CRS; None for other CRSs."""
    found = pyproj.CRS.from_user_input(crs)
    if not found.is_geographic or not found.axis_info:
        return None
    return float(round(2 * np.pi / found.axis_info[0].unit_conversion_factor, 6))


def full_turns(span: tuple[float, float], onto: tuple[float, float], circle: float) -> list[float]:
    """Return the multiples of a full circle by which longitudes `span` must be shifted to overlap those in `onto`.

    At most `MAX_TURNS` circles, either way.
    """
    slack = 1e-9 * circle
    low = np.floor((onto[0] + slack - span[1]) / circle) + 1
    high = np.ceil((onto[1] - slack - span[0]) / circle) - 1
    turns = range(-MAX_TURNS, MAX_TURNS + 1)
    return [turn * circle for turn in turns if low <= turn <= high]


def transform_bounds(bounds: Bounds, source: str, target: str, *, past_180: bool = False) -> Bounds | None:
    """Return bounds in another CRS, with densified edges; None if they cannot be projected.

    Bounds that cross the antimeridian become all longitudes, -180 to 180, or go on past 180 with `past_180`.
    """
    try:
        found = get_transformer(source, target).transform_bounds(*bounds, densify_pts=21)
    except ProjError:
        return None
    if not np.isfinite(found).all():
        return None
    left, bottom, right, top = found
    if left <= right:
        return left, bottom, right, top
    half = (full_circle(target) or 360.0) / 2
    return (left, bottom, right + 2 * half, top) if past_180 else (-half, bottom, half, top)
