"""Classes of a map at points, and the area of each class, read block by block."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import numpy as np
import pandas as pd
import pyproj
from numpy.typing import NDArray

from geopsp.assessment.accuracy.estimators import group_sums
from geopsp.assessment.sampling.pixel_counts import PixelAreas
from geopsp.core.crs import get_transformer
from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.parallel import cpu_count, map_ordered
from geopsp.core.progress import Progress
from geopsp.polygons.class_raster import ClassRaster

READ_SIZE = 512
"""Side of the windows in which points are read."""


BLOCK = 1024
"""Side of the windows in which all pixels are read."""


SQUARE_METRES_PER_HECTARE = 10_000.0


def pixels_at(points: NDArray[np.float64], crs: pyproj.CRS, grid: Grid) -> NDArray[np.int64]:
    """Return the row and column of the pixel that contains each point, (n, 2); -1 outside of the grid.

    Args:
        points: (n, 2) x and y.
        crs: Of the points.
        grid: Of the map.
    """
    own = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    if not own.equals(crs, ignore_axis_order=True):
        points = np.column_stack(get_transformer(crs.to_wkt(), own.to_wkt()).transform(*points.T))
    cols, rows = np.floor(grid.to_pixel_coordinates(points)).T
    with np.errstate(invalid="ignore"):
        inside = (cols >= 0) & (cols < grid.width) & (rows >= 0) & (rows < grid.height)
    return np.where(inside[:, None], np.column_stack([rows, cols]), -1).astype(np.int64)


def codes_at(raster: ClassRaster, pixels: NDArray[np.int64]) -> NDArray[np.uint8]:
    """Return the codes of pixels, (n,); IGNORE_INDEX for nodata, and for pixels outside of the map.

    Args:
        raster: The map.
        pixels: (n, 2) rows and columns; -1 for points outside of the map.
    """
    codes = np.full(len(pixels), IGNORE_INDEX, np.uint8)
    places = pd.DataFrame(pixels, columns=["row", "col"])
    places = places[places["row"] >= 0]
    for _, group in places.groupby([places["row"] // READ_SIZE, places["col"] // READ_SIZE]):
        rows, cols = group["row"].to_numpy(), group["col"].to_numpy()
        top, left = int(rows.min()), int(cols.min())
        window = Window(left, top, int(cols.max()) - left + 1, int(rows.max()) - top + 1)
        codes[group.index] = raster.read(window)[rows - top, cols - left]
    return codes


def is_known(classes: NDArray[np.object_]) -> NDArray[np.bool_]:
    """Return (n,) True where there is a class name, not None."""
    return np.array([name is not None for name in classes], np.bool_)


def positions(wanted: Iterable[str | None], names: Sequence[str]) -> NDArray[np.intp]:
    """Return the position of each wanted name among names, (n,); -1 for None and for others."""
    place: dict[str | None, int] = {name: at for at, name in enumerate(names)}
    return np.array([place.get(name, -1) for name in wanted], np.intp)


def areas_of(areas: PixelAreas, window: Window) -> NDArray[np.float64]:
    """Return (rows, cols) hectares of the pixels of a window."""
    rows = np.repeat(np.arange(window.row, window.row_stop), window.width)
    cols = np.tile(np.arange(window.col, window.col_stop), window.height)
    found = areas.at(rows, cols)
    return found.reshape(window.height, window.width) / SQUARE_METRES_PER_HECTARE


def over_blocks(grid: Grid, work: Callable[[Window], Any], progress: Progress) -> Iterator[Any]:
    """Yield what `work` returns of each block of a grid, in order; threads work ahead."""
    total = -(-grid.height // BLOCK) * -(-grid.width // BLOCK)
    with (
        ThreadPoolExecutor(cpu_count()) as pool,
        closing(map_ordered(pool, work, grid.blocks(BLOCK), in_flight=cpu_count() + 2)) as results,
    ):
        for done, result in enumerate(results, 1):
            yield result
            progress(done, total)


def class_areas(
    raster: ClassRaster, areas: PixelAreas, progress: Progress
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return the number of pixels and the hectares of each code of a map, (255,) each."""

    def count(window: Window) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
        codes = raster.read(window).ravel().astype(np.intp)
        hectares = areas_of(areas, window).ravel()
        return np.bincount(codes, minlength=256).astype(np.int64), group_sums(codes, hectares, 256)

    pixels, hectares = np.zeros(256, np.int64), np.zeros(256)
    for found, area in over_blocks(raster.grid, count, progress):
        pixels += found
        hectares += area
    return pixels[:IGNORE_INDEX], hectares[:IGNORE_INDEX]


def compared_areas(
    raster: ClassRaster,
    burn: Callable[[Grid], NDArray[np.uint8]],
    areas: PixelAreas,
    progress: Progress,
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """Return pixels and hectares by class in the map (row) and in the reference (column), (256, 256) each.

    The last row is nodata of the map, the last column what the reference does not label.

    Args:
        raster: The map.
        burn: Returns the reference codes, (rows, cols), on a grid.
        areas: Areas of the map's pixels.
        progress: Called after each block.
    """

    def compare(window: Window) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]:
        reference = burn(raster.grid.crop(window))
        pairs = raster.read(window).ravel().astype(np.intp) * 256 + reference.ravel()
        counts = np.bincount(pairs).astype(np.int64)
        found = np.flatnonzero(counts).astype(np.int64)
        if (reference == IGNORE_INDEX).all():  # most of a large map may be unlabelled
            return found, counts[found], np.zeros(len(found))
        return found, counts[found], group_sums(pairs, areas_of(areas, window).ravel(), 256 * 256)[found]

    pixels, hectares = np.zeros(256 * 256, np.int64), np.zeros(256 * 256)
    for found, counts, area in over_blocks(raster.grid, compare, progress):
        pixels[found] += counts
        hectares[found] += area
    return pixels.reshape(256, 256), hectares.reshape(256, 256)
