"""Polygons to be drawn over a map."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
from rasterio.warp import transform_bounds

from geopsp.core.grid import Grid
from geopsp.core.text import format_count
from geopsp.errors import GridError
from geopsp.vector.open import open_layer

logger = logging.getLogger(__name__)


def read_map_polygons(polygons: str | Path | gpd.GeoDataFrame, grid: Grid, *, most: int) -> gpd.GeoDataFrame:
    """Read the polygons that lie on a grid, in its CRS; of too many only the largest, as is logged.

    Raises:
        InputNotFoundError, LabelError: as `open_layer`.
        GridError: if the grid has no CRS.
    """
    if grid.crs is None:
        raise GridError("The map has no CRS, so no polygons can be drawn over it. Leave them out.")
    layer = open_layer(polygons)
    box = transform_bounds(grid.crs, layer.crs, *grid.bounds(), densify_pts=21)
    found: Any = layer.read(box=box).to_crs(grid.crs)
    found = found[~(found.geometry.isna() | found.geometry.is_empty)]
    if not len(found):
        logger.warning(f"No polygon of {layer.source} lies on the map.")
    if len(found) <= most:
        return found
    area = pd.Series(found.geometry.area)
    logger.info(f"{format_count(most, 'polygon')} of {len(found):,} are shown, the largest ones.")
    return found.loc[area.nlargest(most).index]
