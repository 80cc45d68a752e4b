"""Fill small holes and merge small regions of a class raster before it is traced."""

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

from geopsp.core.disk_array import IN_MEMORY, ScratchArrays
from geopsp.core.full_disk import full_disk_hint
from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.output import write_errors
from geopsp.core.progress import Progress
from geopsp.core.text import format_error
from geopsp.errors import OutputError
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.ground_metric import GroundMetric
from geopsp.polygons.regions.cell_graph import IntegerUnits
from geopsp.polygons.regions.fill_holes import fill_small_holes
from geopsp.polygons.regions.merge_small import merge_small_regions
from geopsp.polygons.regions.region_graph import GRAPH_CELL, apply_codes, build_region_graph

BLOCK = 512
"""Width and height of the file's blocks, in pixels."""


def clean_raster(
    raster: ClassRaster,
    metric: GroundMetric,
    *,
    min_area: float,
    fill_holes: float,
    folder: Path,
    cell_size: int = GRAPH_CELL,
    progress: Progress | None = None,
) -> ClassRaster:
    """Return a raster with small holes filled, then small regions merged; `raster` itself if both limits are 0.

    Holes that merging creates are filled too. The result does not depend on the cells. It takes some 170 bytes per
    region, on the disk if there are many, so that memory does not grow with the raster.

    Args:
        raster: Class codes.
        metric: Pixel sizes of its grid.
        min_area: In m2. Smaller regions (4-connected) are merged, see `merge_small_regions`.
        fill_holes: In m2. Smaller holes are filled, see `fill_small_holes`.
        folder: Where temporary files are written. The caller deletes it.
        cell_size: Width and height of the cells that are read at once, in pixels.
        progress: Called after each cell; the raster is read twice.

    Raises:
        RasterError: if the raster cannot be read, or has too many regions.
        OutputError: if the files cannot be written.
    """
    if min_area <= 0 and fill_holes <= 0:
        return raster
    units = IntegerUnits.from_metric(metric)
    smallest, hole = units.to_units(min_area), units.to_units(fill_holes)
    total = 2 * len(list(raster.grid.blocks(cell_size)))
    done = 0

    def on_cell() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    path = (folder / "cleaned.tif").absolute()  # a relative one may look like a URL
    with write_errors(path):
        graph = build_region_graph(
            raster, units, max_area=max(smallest, hole), all_borders=fill_holes > 0, cell_size=cell_size,
            arrays=ScratchArrays(folder, in_memory=IN_MEMORY), on_cell=on_cell,
        )  # fmt: skip
        if fill_holes > 0:
            graph = fill_small_holes(graph, hole)
        if min_area > 0:
            graph = merge_small_regions(graph, smallest)
        if fill_holes > 0 < min_area:
            graph = fill_small_holes(graph, hole)  # merging may have created some
    with closing(apply_codes(raster, graph, cell_size=cell_size)) as cells:
        write_codes(path, raster.grid, cells, on_cell)
    return ClassRaster(path, raster.grid, np.dtype(np.uint8), IGNORE_INDEX, has_mask=False)


def write_codes(
    path: Path, grid: Grid, cells: Iterable[tuple[Window, NDArray[np.uint8]]], on_cell: Callable[[], None]
) -> None:
    """Write a GeoTIFF of the codes, without a CRS, as GeoTIFF cannot hold every CRS."""
    profile = {"driver": "GTiff", "width": grid.width, "height": grid.height, "count": 1, "dtype": "uint8"}
    profile |= {"transform": grid.transform, "nodata": IGNORE_INDEX}
    profile |= {"tiled": True, "blockxsize": BLOCK, "blockysize": BLOCK}
    profile |= {"compress": "packbits", "sparse_ok": True, "bigtiff": "if_safer"}
    checksums: list[tuple[RioWindow, int]] = []
    try:
        with rasterio.open(path, "w", **profile) as dataset:
            for window, codes in cells:
                area = RioWindow(window.col, window.row, window.width, window.height)
                checksums.append((area, crc32(codes.tobytes())))
                dataset.write(codes, 1, window=area)
                on_cell()
        with rasterio.open(path) as dataset:  # GDAL raises no error if the disk is full when it closes a file
            complete = all(crc32(dataset.read(1, window=area).tobytes()) == checksum for area, checksum in checksums)
    except RasterioError as error:
        raise OutputError(f"Cannot write {path}: {format_error(error)}.{full_disk_hint(error, path)}") from error
    if not complete:
        raise OutputError(f"{path} does not contain what was written to it.{full_disk_hint(path=path)}")
