"""Whether labels overlap an image; if not, where they lie, how far away, and what may be the reason."""

from __future__ import annotations

import numpy as np
import pyproj
import shapely

from geopsp.core.crs import transform_bounds
from geopsp.core.grid import Grid
from geopsp.core.text import format_length
from geopsp.errors import LabelError
from geopsp.labels.feature_index import FeaturesInMemory, FeaturesOnDisk
from geopsp.vector.layer import Box


def require_overlap(features: FeaturesInMemory | FeaturesOnDisk, grid: Grid, source: str) -> None:
    """Check that a polygon meets the grid; of a large file, that the box of a feature does.

    Raises:
        LabelError: if none does; the message says where they lie instead, and a likely reason.
    """
    outline = shapely.polygons(grid.corners())
    distance = None
    if isinstance(features, FeaturesOnDisk):
        if features.touches(grid):
            return
        bounds = features.layer.bounds()
    else:
        if shapely.intersects(features.query(grid).polygons().shapes, outline).any():
            return
        bounds = _box(shapely.total_bounds(features.features.polygons().shapes))
        shapes = features.in_crs(grid.crs).shapes
        distance = float(np.nanmin(shapely.distance(shapes, outline), initial=np.inf))
    projected = transform_bounds(bounds, features.crs.to_wkt(), grid.crs.to_wkt()) if bounds else None
    if projected is not None and distance is None:
        distance = float(shapely.distance(shapely.box(*projected), outline))
    message = f"The labels of {source} do not overlap the image."
    if bounds is not None:
        message = no_overlap_message(source, grid, projected, distance)
    raise LabelError(f"{message} {likely_cause(bounds, features.crs, grid)}")


def no_overlap_message(source: str, grid: Grid, bounds: Box | None, distance: float | None) -> str:
    """Say where labels lie that do not overlap the image.

    Args:
        source: The name of the labels.
        grid: The image.
        bounds: Of the labels, in the CRS of the grid; None if they cannot be projected into it.
        distance: From the image, in CRS units; None if it is not known.
    """
    crs = _crs_name(pyproj.CRS.from_wkt(grid.crs.to_wkt()))
    if bounds is None or (distance is not None and not np.isfinite(distance)):
        return f"The labels of {source} cannot be projected into the CRS of the image, {crs}."
    away = f": they are {format_length(distance, grid.unit)} away" if distance else ""
    return (
        f"The labels of {source} do not overlap the image{away}. "
        f"Labels: {_extent(bounds)}; image: {_extent(grid.bounds())} ({crs})."
    )


def likely_cause(bounds: Box | None, crs: pyproj.CRS, grid: Grid) -> str:
    """Say what to check: whether labels would overlap the image with another CRS, or with x and y swapped.

    `bounds` are those of the labels, in their CRS; None if they are not known.
    """
    image = grid.crs.to_wkt()
    given, wanted = _crs_name(crs), _crs_name(pyproj.CRS.from_wkt(image))
    outline = shapely.polygons(grid.corners())
    if bounds is not None:
        left, bottom, right, top = bounds
        swapped = (bottom, left, top, right)
        for box, assumed, words in (
            (swapped, crs.to_wkt(), "They would fit with x and y (latitude and longitude?) swapped: swap them."),
            (bounds, "EPSG:4326", f"Their CRS is {given}, but they would fit as EPSG:4326: assign that CRS."),
            (swapped, "EPSG:4326", f"Their CRS is {given}, but they would fit as EPSG:4326 with x and y swapped."),
            (bounds, image, f"Their CRS is {given}, but they would fit as {wanted}: assign that CRS."),
        ):
            if assumed == "EPSG:4326" and not _on_globe(box):
                continue
            projected = transform_bounds(box, assumed, image)
            if projected is not None and shapely.box(*projected).intersects(outline):
                return words
    return "Check that both have the right CRS and show the same place."


def _crs_name(crs: pyproj.CRS) -> str:
    code = crs.to_epsg()
    return f"EPSG:{code}" if code else crs.name


def _extent(box: Box) -> str:
    left, bottom, right, top = box
    return f"x {left:.7g} to {right:.7g}, y {bottom:.7g} to {top:.7g}"


def _on_globe(box: Box) -> bool:
    return -180 <= box[0] <= box[2] <= 180 and -90 <= box[1] <= box[3] <= 90


def _box(bounds: object) -> Box | None:
    left, bottom, right, top = map(float, np.asarray(bounds))
    return (left, bottom, right, top) if np.isfinite([left, bottom, right, top]).all() else None
