"""Small regions of a finished class map join their largest neighbour, as GDAL's sieve does it on the whole raster."""

from __future__ import annotations

import os
import shutil
from concurrent.futures import Executor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.features import sieve as gdal_sieve

from geopsp.core.grid import Window
from geopsp.errors import OutputError
from geopsp.raster.cog.overviews import is_blank
from geopsp.raster.cog.part_file import PartWriter, disk_errors
from geopsp.raster.cog.part_grid import PartGrid
from geopsp.raster.cog.part_mosaic import PartMosaic, PartPath
from geopsp.raster.cog.raster_spec import RasterSpec

UP = np.uint8(1)
"""What is added to a code, so that 255 becomes 0, which a mask takes for nothing."""


def sieve(
    product: RasterSpec,
    part_grid: PartGrid,
    source: PartPath,
    target: PartPath,
    size: int,
    *,
    pool: Executor | None = None,
) -> None:
    """The parts at `target` are those at `source`, but regions (4-connected) of fewer than `size` pixels.

    Unknown pixels stay, and nothing joins them. The disk holds a byte a pixel meanwhile, beside the parts; memory
    grows with the number of regions only.

    Raises:
        OutputError: if a part is missing or damaged, or the disk is full.
    """
    folder = target(0).parent
    with disk_errors(folder), TemporaryDirectory(prefix=".sieve-", dir=folder) as scratch:
        codes, row = _room(Path(scratch) / "codes", part_grid), 0
        for rows in PartMosaic(product, part_grid, source).rows(0):
            if not is_blank(rows, product):
                codes[row : row + rows.shape[1]] = rows[0] + UP
            row += rows.shape[1]
        if codes.size > size:  # else no region has a neighbour to join
            with rasterio.open(_seen_by_gdal(Path(scratch) / "codes", part_grid)) as dataset:
                band = rasterio.band(dataset, 1)  # of arrays a copy would be made
                gdal_sieve(band, size, out=codes, mask=band, connectivity=4)  # a row is written when it was read
        for number in range(len(part_grid)):
            _write_part(product, part_grid, number, codes, target(number), pool)


def _seen_by_gdal(path: Path, part_grid: PartGrid) -> Path:
    """What makes a raster of a file of nothing but pixels."""
    vrt = path.with_suffix(".vrt")
    vrt.write_text(
        f'<VRTDataset rasterXSize="{part_grid.width}" rasterYSize="{part_grid.height}">'
        "<GeoTransform>1,1,0,0,0,-1</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
        f'<SourceFilename relativeToVRT="1">{path.name}</SourceFilename></VRTRasterBand></VRTDataset>',
        encoding="utf-8",
    )
    return vrt


def _room(path: Path, part_grid: PartGrid) -> NDArray[np.uint8]:
    """(height, width) zeros that lie in a file, for which the disk has room: else a full one would end the program."""
    needed = part_grid.width * part_grid.height
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, needed)
        elif shutil.disk_usage(path.parent).free < needed:
            raise OutputError(f"The sieve needs {needed / 1e6:,.0f} MB beside {path.parent}. Make room on the disk.")
        file.truncate(needed)
    return np.memmap(path, np.uint8, "r+", shape=(part_grid.height, part_grid.width))


def _write_part(
    product: RasterSpec, part_grid: PartGrid, number: int, codes: NDArray[np.uint8], path: Path, pool: Executor | None
) -> None:
    """A part of codes that are each one up."""
    window = part_grid.part(number).window
    rows, cols = window.slices(Window(0, 0, part_grid.width, part_grid.height))
    part = codes[rows, cols]
    with PartWriter(
        path, window.width, window.height, product, block=part_grid.block, levels=part_grid.levels, pool=pool
    ) as writer:
        for row in range(0, window.height, part_grid.block):
            writer.append(part[None, row : row + part_grid.block] - UP)
