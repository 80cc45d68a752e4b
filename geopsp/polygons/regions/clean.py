"""Class rasters without small holes and small regions, before they become polygons."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import closing
from pathlib import Path
from zlib import crc32

import numpy as np
import rasterio
from numpy.typing import NDArray
from rasterio.errors import RasterioError
from rasterio.windows import Window as RioWindow

from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.progress import Progress
from geopsp.errors import OutputError
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.ground_metric import GroundMetric
from geopsp.polygons.regions.fill_holes import fill_small_holes
from geopsp.polygons.regions.merge_small import merge_small_regions
from geopsp.polygons.regions.region_graph import CELL, IntegerUnits, apply_codes, graph_of

BLOCK = 512
"""Pixels on a side of the file's blocks."""


def clean_raster(
    codes: ClassRaster,
    metric: GroundMetric,
    *,
    min_area: float,
    fill_holes: float,
    folder: Path,
    cell: int = CELL,
    progress: Progress | None = None,
) -> ClassRaster:
    """The raster with small holes filled, then small regions merged; `codes` itself if both limits are 0.

    Holes that merging makes are filled too. The result does not depend on the cells. Memory is some 220 bytes a region.

    Args:
        codes: The raster.
        metric: Of its grid.
        min_area: In m2: a region (4-connected) smaller than this becomes part of the neighbour with which it shares
            the longest border, as `merged` has it.
        fill_holes: In m2: what lies in a hole of a polygon smaller than this becomes part of the polygon.
        folder: Where a temporary file is made, for the caller to remove.
        cell: Pixels on a side of what is read at once.
        progress: Told after each cell, of two rounds over the raster.

    Raises:
        RasterError: if the raster cannot be read.
        OutputError: if the file cannot be written.
    """
    if min_area <= 0 and fill_holes <= 0:
        return codes
    scale = IntegerUnits.of(metric)
    least, hole = scale.units(min_area), scale.units(fill_holes)
    rounds = 2 * len(list(codes.grid.blocks(cell)))
    done = 0

    def step() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, rounds)

    graph = graph_of(codes, scale, cap=max(least, hole), every=fill_holes > 0, size=cell, step=step)
    if fill_holes > 0:
        graph = fill_small_holes(graph, hole)
    if min_area > 0:
        graph = merge_small_regions(graph, least)
    if fill_holes > 0 < min_area:
        graph = fill_small_holes(graph, hole)  # those that merging has made
    out = folder / "cleaned.tif"
    with closing(apply_codes(codes, graph, size=cell)) as cells:
        _write(out, codes.grid, cells, step)
    return ClassRaster(out, codes.grid, np.dtype(np.uint8), IGNORE_INDEX, masked=False)


def _write(path: Path, grid: Grid, cells: Iterable[tuple[Window, NDArray[np.uint8]]], step: Callable[[], None]) -> None:
    """A raster of the codes, without a CRS, as not every file can hold every one."""
    profile = {"driver": "GTiff", "width": grid.width, "height": grid.height, "count": 1, "dtype": "uint8"}
    profile |= {
        "transform": grid.transform,
        "nodata": IGNORE_INDEX,
        "tiled": True,
        "blockxsize": BLOCK,
        "blockysize": BLOCK,
    }
    profile |= {"compress": "packbits", "sparse_ok": True, "bigtiff": "if_safer"}
    checks: list[tuple[RioWindow, int]] = []
    try:
        with rasterio.open(path, "w", **profile) as dataset:
            for window, codes in cells:
                checks.append((RioWindow(window.col, window.row, window.width, window.height), crc32(codes.tobytes())))
                dataset.write(codes, 1, window=checks[-1][0])
                step()
        with rasterio.open(path) as dataset:  # GDAL says nothing if the disk is full as it closes a file
            whole = all(crc32(dataset.read(1, window=area).tobytes()) == check for area, check in checks)
    except RasterioError as error:
        raise OutputError(f"{path} cannot be written ({error}). Is the disk full?") from error
    if not whole:
        raise OutputError(f"{path} is not what was written. Is the disk full?")
