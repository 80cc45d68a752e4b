"""What polygons will cost in time and disk space, from those of a small part of the raster."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from rasterio.windows import Window as RioWindow

from geopsp.core.grid import Window
from geopsp.core.jit import compile_ahead
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.options import check_nodata, option_values
from geopsp.core.temporary_folder import scratch_folder
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.options import PolygonOptions
from geopsp.polygons.polygonizer import compiled_modules
from geopsp.polygons.raster_to_polygons import raster_to_polygons
from geopsp.raster.geotiff import encode_geotiff
from geopsp.raster.open import gdal_env, open_raster

SIDE = 1024
"""Largest side, in pixels, of the part that is tried, in the middle of the raster."""


@dataclass(frozen=True, slots=True)
class PolygonCost:
    """Time and size of polygons."""

    seconds: float
    num_bytes: float


def estimate_polygons(raster: str | Path, ending: str, options: PolygonOptions) -> PolygonCost:
    """Make polygons of the middle of a raster, and return what all of it would cost; classes to drop count, too.

    Args:
        raster: As of `raster_to_polygons`.
        ending: Of the file that would be written.
        options: Of the polygons.

    Raises:
        InputNotFoundError, RasterError, GridError: as `raster_to_polygons`.
    """
    with ClassRaster.open(raster, nodata=check_nodata("nodata", options.nodata)) as opened:
        grid, nodata = opened.grid, opened.nodata
    width, height = min(SIDE, grid.width), min(SIDE, grid.height)
    window = Window((grid.width - width) // 2, (grid.height - height) // 2, width, height)
    with gdal_env(raster), open_raster(raster) as dataset:
        place = RioWindow(window.col, window.row, width, height)
        data, valid = dataset.read(1, window=place), dataset.read_masks(1, window=place) > 0
    _, positions = np.unique(data, return_inverse=True)
    codes = np.minimum(positions.reshape(data.shape), IGNORE_INDEX - 1).astype(np.uint8)
    codes[~valid | (data == nodata)] = IGNORE_INDEX
    plain = replace(options, keep=None, drop=None, confidence=None, nodata=None, overwrite=False)
    compile_ahead(compiled_modules(plain))
    with scratch_folder() as folder:
        part, out = folder / "part.tif", folder / f"part{ending}"
        part.write_bytes(encode_geotiff(codes[None], grid.crop(window), nodata=IGNORE_INDEX))
        start = time.perf_counter()
        raster_to_polygons(part, out, **option_values(plain))
        seconds = time.perf_counter() - start
        num_bytes = sum(each.stat().st_size for each in folder.iterdir() if each != part)
    factor = grid.width * grid.height / (width * height)
    return PolygonCost(seconds * factor, num_bytes * factor)
