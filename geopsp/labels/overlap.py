"""Where labels lie when they miss the image, how far away, and what may be the reason."""

from __future__ import annotations

import numpy as np
import pyproj
import shapely

from geopsp.core.crs import transform_bounds
from geopsp.core.grid import Grid
from geopsp.errors import LabelError
from geopsp.labels.feature_index import FeaturesInMemory, FeaturesOnDisk
from geopsp.vector.layer import Box


def require_overlap(features: FeaturesInMemory | FeaturesOnDisk, grid: Grid, source: str) -> None:
    """Nothing, if a polygon touches the grid; of a large file, if a feature's box does.

    Raises:
        LabelError: if none does; says where they lie instead, and a likely reason.
    """
    outline = shapely.polygons(grid.corners())
    if isinstance(features, FeaturesOnDisk):
        if features.touches(grid):
            return
        found = features.layer.bounds()
        crs = features.crs
        away = None
    else:
        if shapely.intersects(features.query(grid).polygons().shapes, outline).any():
            return
        shapes = features.features.polygons().shapes
        found, crs = _box(shapely.total_bounds(shapes)), features.crs
        moved, _ = features.within(grid.crs)
        away = float(np.nanmin(shapely.distance(moved, outline), initial=np.inf))
    there = transform_bounds(found, crs.to_wkt(), grid.crs.to_wkt()) if found else None
    if there is not None and away is None:
        away = float(shapely.distance(shapely.box(*there), outline))
    raise LabelError(no_overlap_message(source, grid, there, away) + (likely_cause(found, crs, grid) if found else ""))


def no_overlap_message(source: str, grid: Grid, bounds: Box | None, away: float | None) -> str:
    """What is wrong where labels lie `away` from the grid; without bounds, where they have no place in its CRS."""
    if bounds is None or (away is not None and not np.isfinite(away)):
        where = f"The labels of {source} have no place in the CRS of the image, {grid!r}. "
    else:
        unit = grid.crs.linear_units if grid.crs.is_projected else "degrees"
        left, bottom, right, top = bounds
        far = f" by {away:,.6g} {unit}" if away else ""
        where = (
            f"The labels of {source} miss the image{far}: in the image's CRS they lie at "
            f"x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}, the image is {grid!r}. "
        )
    return where + "Check that both have the right CRS and show the same place."


def likely_cause(bounds: Box, crs: pyproj.CRS, grid: Grid) -> str:
    """A likely reason: with another CRS, or x and y swapped, the labels would lie on the image."""
    left, bottom, right, top = bounds
    swapped = (bottom, left, top, right)
    image = grid.crs.to_wkt()
    guesses = (
        (swapped, crs.to_wkt(), "with x and y swapped (latitude and longitude?)"),
        (bounds, "EPSG:4326", f"if their CRS were EPSG:4326 instead of {crs.name}"),
        (swapped, "EPSG:4326", "if their CRS were EPSG:4326, with x and y swapped"),
        (bounds, image, f"if their CRS were that of the image instead of {crs.name}"),
    )
    frame = shapely.polygons(grid.corners())
    for box, assumed, words in guesses:
        if assumed == "EPSG:4326" and not _on_globe(box):
            continue
        there = transform_bounds(box, assumed, image)
        if there is not None and shapely.box(*there).intersects(frame):
            return f" They would fit {words}."
    return ""


def _on_globe(box: Box) -> bool:
    return -180 <= box[0] <= box[2] <= 180 and -90 <= box[1] <= box[3] <= 90


def _box(bounds: object) -> Box | None:
    left, bottom, right, top = map(float, np.asarray(bounds))
    return (left, bottom, right, top) if np.isfinite([left, bottom, right, top]).all() else None
