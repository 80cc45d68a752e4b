"""Chips that areas of validation touch."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import TypeAlias

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geopsp.chips.chip_set import ChipSet
from geopsp.core.crs import full_circle, full_turns
from geopsp.data.split_groups import as_list
from geopsp.errors import ChipError
from geopsp.vector.geometry import finite, reproject_shapes, valid_polygons
from geopsp.vector.open import read_vector

logger = logging.getLogger(__name__)

Areas: TypeAlias = str | Path | gpd.GeoDataFrame | Sequence[str | Path | gpd.GeoDataFrame]
"""Polygons: one layer or several."""

SHRINK = 1e-6
"""Share by which footprints are shrunk before they are compared, so that chips with a common edge do not overlap."""


def touches_areas(chips: ChipSet, labelled: NDArray[np.intp], areas: Areas) -> NDArray[np.bool_]:
    """Return True for the chips that share more than an edge with the areas."""
    shrunk = shrink(chips.index.geometry.to_numpy()[labelled])
    found = np.zeros(len(labelled), bool)
    for layer in as_list(areas):
        frame, source = read_vector(layer)
        touching = _touching(shrunk, frame, chips.index.crs, source)
        if not len(touching):
            raise ChipError(f"No labelled chip touches the areas of {source}. Check that they lie where the chips are.")
        found[touching] = True
    return found


def _touching(shrunk: NDArray[np.object_], frame: gpd.GeoDataFrame, crs: pyproj.CRS, source: str) -> NDArray[np.intp]:
    """Return the rows of shapes in a CRS that touch a polygon, whatever the convention of longitudes."""
    shapes = frame.geometry.to_numpy()
    if not finite(shapes).all():
        logger.warning("%s has features with infinite or NaN coordinates, which are left out.", source)
    shapes = shapes[~shapely.is_missing(shapes) & finite(shapes)]
    areas, _, areal = valid_polygons(shapes, crs=frame.crs)
    areas = reproject_shapes(areas[areal], frame.crs, crs.to_wkt())
    tree, circle = shapely.STRtree(areas), full_circle(crs.to_wkt())
    (left, _, right, _), (first, _, last, _) = shapely.total_bounds(areas), shapely.total_bounds(shrunk)
    turns = [0.0] if circle is None else full_turns((first, last), (left, right), circle)
    moved = (shapely.transform(shrunk, lambda xy, turn=turn: np.add(xy, [turn, 0])) for turn in turns)
    return np.concatenate([np.zeros(0, np.intp), *(tree.query(rows, predicate="intersects")[0] for rows in moved)])


def shrink(shapes: NDArray[np.object_]) -> NDArray[np.object_]:
    """Shrink each shape towards its own centre."""
    counts = shapely.get_num_coordinates(shapes)
    centres = np.repeat(shapely.get_coordinates(shapely.centroid(shapes[counts > 0])), counts[counts > 0], axis=0)
    shrunk: NDArray[np.object_] = shapely.transform(shapes, lambda points: points + (centres - points) * SHRINK)
    return shrunk
