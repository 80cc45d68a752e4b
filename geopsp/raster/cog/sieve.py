"""GDAL's sieve over part files: small regions of a finished class raster join their largest neighbour."""

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
from geopsp.core.output import write_errors
from geopsp.errors import OutputError
from geopsp.raster.cog.overviews import is_blank
from geopsp.raster.cog.part_file import PartWriter
from geopsp.raster.cog.part_grid import PartGrid
from geopsp.raster.cog.part_mosaic import PartMosaic, PartPath
from geopsp.raster.cog.raster_spec import RasterSpec

CODE_SHIFT = np.uint8(1)
"""Added to all codes, so that the nodata value 255 becomes 0, which GDAL's mask takes for nodata."""


def sieve(
    spec: RasterSpec,
    part_grid: PartGrid,
    source: PartPath,
    target: PartPath,
    size: int,
    *,
    pool: Executor | None = None,
) -> None:
    """Write the parts at `source` to `target`, with regions (4-connected) of fewer than `size` pixels merged.

    Nodata pixels stay nodata and absorb nothing. Needs one byte of disk space per pixel beside the parts; memory
    depends on the number of regions only.

    Raises:
        OutputError: if a part is missing or damaged, or the disk is full.
    """
    folder = target(0).parent
    with write_errors(folder), TemporaryDirectory(prefix=".sieve-", dir=folder) as scratch:
        codes, row = _allocate(Path(scratch) / "codes", part_grid), 0
        for rows in PartMosaic(spec, part_grid, source).rows(0):
            if not is_blank(rows, spec):
                codes[row : row + rows.shape[1]] = rows[0] + CODE_SHIFT
            row += rows.shape[1]
        if codes.size > size:  # else no region has a neighbour to join
            with rasterio.open(_write_vrt(Path(scratch) / "codes", part_grid)) as dataset:
                band = rasterio.band(dataset, 1)  # rasterio would copy an array
                gdal_sieve(band, size, out=codes, mask=band, connectivity=4)  # GDAL reads a row before it writes it
        for number in range(len(part_grid)):
            _write_part(spec, part_grid, number, codes, target(number), pool)


def _write_vrt(path: Path, part_grid: PartGrid) -> Path:
    """Write a VRT that lets GDAL read a file of raw pixels as a raster."""
    vrt = path.with_suffix(".vrt")
    vrt.write_text(
        f'<VRTDataset rasterXSize="{part_grid.width}" rasterYSize="{part_grid.height}">'
        "<GeoTransform>1,1,0,0,0,-1</GeoTransform>"
        '<VRTRasterBand dataType="Byte" band="1" subClass="VRTRawRasterBand">'
        f'<SourceFilename relativeToVRT="1">{path.name}</SourceFilename></VRTRasterBand></VRTDataset>',
        encoding="utf-8",
    )
    return vrt


def _allocate(path: Path, part_grid: PartGrid) -> NDArray[np.uint8]:
    """Return (height, width) zeros in a memory-mapped file.

    The disk space is reserved first: if the disk fills up while a mapped file is written, the process is killed.
    """
    needed = part_grid.width * part_grid.height
    with path.open("wb") as file:
        if hasattr(os, "posix_fallocate"):
            os.posix_fallocate(file.fileno(), 0, needed)
        elif shutil.disk_usage(path.parent).free < needed:
            raise OutputError(
                f"The sieve needs {needed / 1e6:,.0f} MB of disk space in {path.parent}. Free some space."
            )
        file.truncate(needed)
    return np.memmap(path, np.uint8, "r+", shape=(part_grid.height, part_grid.width))


def _write_part(
    spec: RasterSpec, part_grid: PartGrid, number: int, codes: NDArray[np.uint8], path: Path, pool: Executor | None
) -> None:
    """Write one part of the shifted codes."""
    window = part_grid.part(number).window
    rows, cols = window.slices(Window(0, 0, part_grid.width, part_grid.height))
    part = codes[rows, cols]
    with PartWriter(
        path, window.width, window.height, spec, block=part_grid.block, levels=part_grid.levels, pool=pool
    ) as writer:
        for row in range(0, window.height, part_grid.block):
            writer.append(part[None, row : row + part_grid.block] - CODE_SHIFT)
