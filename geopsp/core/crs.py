"""Transforms between coordinate reference systems, and metres per unit."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import pyproj
from numpy.typing import NDArray
from pyproj.exceptions import ProjError

from geopsp.errors import LabelError

Bounds = tuple[float, float, float, float]


DIFFERENCE_STEP = 10.0
"""Metres to each side over which a projection's scale is measured."""


def metre_axes(points: NDArray[np.float64], crs: pyproj.CRS) -> NDArray[np.float64]:
    """(n, 2, 2) what x and y (rows) grow by, in units of the CRS, a metre to the east and to the north (columns).

    By the CRS's unit alone where a point, (n, 2), has no place on the globe.
    """
    axes = np.zeros((len(points), 2, 2))
    if crs.is_geographic:
        latitude = np.clip(np.nan_to_num(points[:, 1]), -89.99994, 89.99994)
        axes[:, 1, 1] = 1 / metres_per_degree(crs)
        axes[:, 0, 0] = axes[:, 1, 1] / np.cos(np.radians(latitude))
        return axes
    unit = crs.axis_info[0].unit_conversion_factor if crs.axis_info else 1.0
    globe = crs.geodetic_crs
    if globe is not None:
        to_globe, back = get_transformer(crs.to_wkt(), globe.to_wkt()), get_transformer(globe.to_wkt(), crs.to_wkt())
        longitude, latitude = to_globe.transform(*points.T)
        step = DIFFERENCE_STEP / metres_per_degree(crs)
        for column, (east, north) in enumerate(((step / np.cos(np.radians(latitude)), 0.0), (0.0, step))):
            ahead = np.array(back.transform(longitude + east, latitude + north))
            behind = np.array(back.transform(longitude - east, latitude - north))
            axes[:, :, column] = (ahead - behind).T / (2 * DIFFERENCE_STEP)
    with np.errstate(invalid="ignore"):
        sound = np.isfinite(axes).all(axis=(1, 2)) & (np.abs(np.linalg.det(np.nan_to_num(axes, posinf=0))) > 0)
    axes[~sound] = np.eye(2) / unit
    return axes


def metres_per_degree(crs: pyproj.CRS) -> float:
    """Along the equator."""
    ellipsoid = crs.ellipsoid
    radius = ellipsoid.semi_major_metre if ellipsoid else 6378137.0
    return float(np.pi * radius / 180)


@lru_cache(maxsize=32)
def get_transformer(here: str, there: str) -> pyproj.Transformer:
    """From x and y in one CRS to x and y in another.

    Raises:
        LabelError: if there is no way, as from one planet to another.
    """
    try:
        return pyproj.Transformer.from_crs(here, there, always_xy=True)
    except ProjError as error:
        names = [pyproj.CRS.from_user_input(crs).name for crs in (here, there)]
        raise LabelError(
            f"There is no way between the CRS of the labels and of the image, {' and '.join(names)} ({error}). "
            "Needed two of one planet; assign the right ones."
        ) from error


def transform_bounds(bounds: Bounds, here: str, there: str) -> Bounds | None:
    """Bounds in another CRS, edges densified; all around the globe where they cross its seam; None: no place in it."""
    try:
        found = get_transformer(here, there).transform_bounds(*bounds, densify_pts=21)
    except ProjError:
        return None
    if not np.isfinite(found).all():
        return None
    left, bottom, right, top = found
    return (left, bottom, right, top) if left <= right else (-180.0, bottom, 180.0, top)
