"""The model's own map of chosen windows as polygons, to be corrected."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
from numpy.typing import NDArray

from geopsp.core.grid import Grid
from geopsp.core.jit import compile_ahead
from geopsp.core.legend import BACKGROUND, IGNORE_INDEX, Legend
from geopsp.polygons.attributes import AttributeTable
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.ground_metric import GroundMetric
from geopsp.polygons.options import PolygonSettings
from geopsp.polygons.polygonizer import Polygonizer, compiled_modules
from geopsp.polygons.regions.clean import clean_raster
from geopsp.raster.geotiff import encode_geotiff

FIELDS = ("class", "window")
"""The columns of the polygons: the class, and the rank of the window."""


class MapPolygons:
    """Makes polygons of small maps."""

    def __init__(self, legend: Legend, settings: PolygonSettings, folder: Path) -> None:
        """Compile what is needed.

        Args:
            legend: The classes of the maps.
            settings: Of the polygons. Background becomes no polygon, unless they name the classes to keep or drop:
                chips have background wherever there is no polygon.
            folder: For temporary files.

        Raises:
            OptionError: if the settings name a class that is not there.
        """
        settings.selected_codes(legend)
        self._legend, self._settings, self._folder = legend, settings, folder
        names = {code: f"class {code}" for code in range(IGNORE_INDEX)} | {info.code: info.name for info in legend}
        self._all_codes = Legend.from_names(names)
        asked = settings.keep is not None or settings.drop is not None
        hidden = [] if asked else [info.code for info in legend if info.name == BACKGROUND]
        self._hidden = np.array(hidden, np.uint8)
        compile_ahead(compiled_modules(settings))

    def polygons(self, codes: NDArray[np.uint8], grid: Grid, rank: int) -> gpd.GeoDataFrame:
        """Return the polygons of a window, (rows, cols) class codes with IGNORE_INDEX for nodata, with its rank."""
        path = self._folder / f"{rank}.tif"
        path.write_bytes(encode_geotiff(codes[None], grid, nodata=IGNORE_INDEX))
        settings = self._settings
        metric = GroundMetric.from_grid(grid)
        with ClassRaster.open(path, nodata=IGNORE_INDEX) as raster:
            table = AttributeTable(grid, metric, self._all_codes, has_moved=bool(settings.regularize))
            with clean_raster(
                raster, metric, min_area=settings.min_area, fill_holes=settings.fill_holes, folder=self._folder
            ) as cleaned:
                batches = list(Polygonizer(settings, table, self._folder).batches(cleaned, None, None))
        path.unlink()
        return self._frame(batches, grid, rank)

    def _frame(self, batches: Sequence[object], grid: Grid, rank: int) -> gpd.GeoDataFrame:
        parts = [batch.select(["code", "geometry"]).to_pandas() for batch in batches]  # type: ignore[attr-defined]
        table = pd.concat(parts) if parts else pd.DataFrame({"code": [], "geometry": []})
        table = table[~table["code"].isin(self._hidden)]
        names = {info.code: info.name for info in self._legend}
        crs = pyproj.CRS.from_user_input(grid.crs)
        return gpd.GeoDataFrame(
            {"class": [names[code] for code in table["code"]], "window": np.full(len(table), rank, np.int64)},
            geometry=shapely.from_wkb(table["geometry"].to_numpy(object)),
            crs=crs,
        )


def join_frames(frames: Sequence[gpd.GeoDataFrame], crs: pyproj.CRS) -> gpd.GeoDataFrame:
    """Return the polygons of all windows in one CRS."""
    parts = [frame if frame.crs == crs else frame.to_crs(crs) for frame in frames if len(frame)]
    if not parts:
        columns = {"class": pd.Series([], dtype=object), "window": np.zeros(0, np.int64)}
        return gpd.GeoDataFrame(columns, geometry=[], crs=crs)
    return gpd.GeoDataFrame(pd.concat(parts, ignore_index=True), geometry="geometry", crs=crs)
