"""Pixels of one grid taken onto another of the same CRS."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio._err import CPLE_BaseError
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.errors import CRSError, RasterioError
from rasterio.vrt import WarpedVRT
from rasterio.warp import calculate_default_transform, transform_bounds

from geopsp.core.grid import Grid, Window
from geopsp.errors import GridError
from geopsp.raster.info import RasterInfo
from geopsp.raster.open import open_raster
from geopsp.raster.valid_mask import warped_validity


def resample_to_grid(
    data: NDArray[Any], valid: NDArray[np.bool_], source: Grid, target: Grid, *, nearest: bool = False
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """(bands, rows, cols) pixels of `target` and where they are valid: where the pixel under their centre is.

    Between the four pixels around a centre by distance, the invalid ones left out; integers are rounded.
    """
    rows, cols = np.mgrid[0 : target.height, 0 : target.width] + 0.5
    t = target.transform
    points = np.column_stack([(t.a * cols + t.b * rows + t.c).ravel(), (t.d * cols + t.e * rows + t.f).ravel()])
    places = source.to_pixel_coordinates(points)
    shape = (target.height, target.width)
    flat = np.where(valid, data, 0).reshape(len(data), -1)
    under = _inside(places, source)
    seen = valid.ravel()[under]
    if nearest:
        return flat[:, under].reshape(-1, *shape), seen.reshape(shape)
    low = np.floor(places - 0.5)
    share = places - 0.5 - low
    total, weights = np.zeros((len(data), len(points))), np.zeros(len(points))
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        at = _inside(low + np.array([right, down]), source)
        weight = np.abs(1 - right - share[:, 0]) * np.abs(1 - down - share[:, 1]) * valid.ravel()[at]
        total += flat.take(at, axis=1) * weight
        weights += weight
    total /= np.where(weights > 0, weights, 1)
    if data.dtype.kind in "iu":
        np.rint(total, out=total)
    return np.where(seen, total, 0).astype(data.dtype).reshape(-1, *shape), seen.reshape(shape)


def _inside(places: NDArray[np.float64], grid: Grid) -> NDArray[np.intp]:
    """Flat positions of the pixels that places lie in, of the nearest ones for places a hair outside."""
    col = places[:, 0].astype(np.intp).clip(0, grid.width - 1)
    row = places[:, 1].astype(np.intp).clip(0, grid.height - 1)
    flat: NDArray[np.intp] = row * grid.width + col
    return flat


WARP_CELL = 256
"""Side, in pixels, of the cells that a warped file is read in: these always, so that a pixel has one value."""


def open_source(source: RasterInfo) -> Any:
    """The file opened to read, as it lies on the scene's lattice."""
    dataset = open_raster(source.path)
    if source.resampling is None:
        return dataset
    grid = source.grid
    place = {"crs": grid.crs, "transform": grid.transform, "width": grid.width, "height": grid.height}
    carried = warped_validity(dataset, source.dtype, source.nodata, source.indexes)
    return WarpedVRT(dataset, **place, resampling=source.resampling, **carried)


def warp_cells(window: Window, place: Window) -> Iterator[Window]:
    """The cells of a file at `place`, counted from its corner and cut where it ends, that meet a window in it."""
    first_row, first_col = (
        (window.row - place.row) // WARP_CELL * WARP_CELL,
        (window.col - place.col) // WARP_CELL * WARP_CELL,
    )
    for row in range(first_row, window.row_stop - place.row, WARP_CELL):
        for col in range(first_col, window.col_stop - place.col, WARP_CELL):
            yield Window(place.col + col, place.row + row, WARP_CELL, WARP_CELL).intersect(place)


def align_to_grid(source: RasterInfo, lattice: Grid, resampling: Resampling, *, thin: bool = False) -> RasterInfo:
    """The source as it lies on the lattice: as it is if already there, else as a warp would place it.

    Args:
        source: A raster file.
        lattice: Whose pixels it shall have.
        resampling: How it is warped.
        thin: True averages a source, unless by nearest, whose pixels are at most half as wide as the lattice's.

    Raises:
        GridError: if there is no way from one CRS to the other.
    """
    if lattice.window_of(source.grid) is not None:
        return source
    box = _reprojected(source, lattice)
    if thin and resampling != Resampling.nearest and min(lattice.cell_size) >= 2 * max(box.cell_size) * (1 - 1e-9):
        resampling = Resampling.average
    return replace(source, grid=lattice.crop(lattice.enclosing_window(box.corners())), resampling=resampling)


def _reprojected(source: RasterInfo, lattice: Grid) -> Grid:
    """A grid in the lattice's CRS that holds the source, of pixels like its."""
    if source.grid.crs == lattice.crs:
        return source.grid
    try:
        transform, width, height = calculate_default_transform(
            source.grid.crs, lattice.crs, source.grid.width, source.grid.height, *source.grid.bounds()
        )
    except (RasterioError, CRSError, CPLE_BaseError) as error:
        raise GridError(f"{source.path}, {source.grid!r}, cannot be warped onto {lattice!r} ({error}).") from error
    return Grid(lattice.crs, transform, width, height)


def north_up(grid: Grid, cell_size: float | None = None) -> Grid:
    """A lattice of upright pixels from the grid's upper left corner, over all of it."""
    left, bottom, right, top = grid.bounds()
    x, y = (cell_size, cell_size) if cell_size else grid.cell_size
    lattice = Grid(grid.crs, Affine(x, 0, left, 0, -y, top), 1, 1)
    return lattice.crop(lattice.enclosing_window(np.array([(left, top), (right, bottom)])))


def reproject_extent(extent: Sequence[float], crs: CRS, grid: Grid) -> tuple[float, float, float, float]:
    """The box in the grid's CRS that holds an extent (left, bottom, right, top) of another CRS.

    Raises:
        GridError: if there is no way from one CRS to the other, or the extent has no place in it.
    """
    why = "it has no place there"
    try:
        box = transform_bounds(crs, grid.crs, *extent) if crs != grid.crs else tuple(extent)
        if np.isfinite(box).all():
            return float(box[0]), float(box[1]), float(box[2]), float(box[3])
    except (RasterioError, CRSError, CPLE_BaseError) as error:
        why = str(error)
    raise GridError(f"The extent cannot be taken into the CRS of {grid!r}: {why}.")
