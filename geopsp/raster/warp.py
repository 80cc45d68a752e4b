"""Align rasters to a grid: warp files with GDAL, resample arrays in memory."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from rasterio.warp import calculate_default_transform, transform_bounds

from geopsp.core.grid import Grid, Window
from geopsp.core.text import format_error
from geopsp.errors import GridError
from geopsp.raster.image_vrt import has_mask_band, open_image, open_with_one_alpha
from geopsp.raster.info import RasterInfo
from geopsp.raster.open import GDAL_ERRORS
from geopsp.raster.valid_mask import alpha_band, warp_options


def resample_to_grid(
    data: NDArray[Any], valid: NDArray[np.bool_], source: Grid, target: Grid, *, nearest: bool = False
) -> tuple[NDArray[Any], NDArray[np.bool_]]:
    """Resample pixels to a grid of the same CRS, e.g. a rotated one.

    A target pixel is valid where the source pixel under its centre is. Its value is interpolated bilinearly from the
    valid ones of the four nearest pixels; integers are rounded.

    Args:
        data: (bands, rows, cols) pixels on `source`.
        valid: (rows, cols) valid mask.
        source: Their grid.
        target: The grid to resample to.
        nearest: True takes the value of the pixel under the centre instead.

    Returns:
        (bands, rows, cols) pixels on `target`, 0 where invalid, and their (rows, cols) valid mask.
    """
    rows, cols = np.mgrid[0 : target.height, 0 : target.width] + 0.5
    t = target.transform
    points = np.column_stack([(t.a * cols + t.b * rows + t.c).ravel(), (t.d * cols + t.e * rows + t.f).ravel()])
    centres = source.to_pixel_coordinates(points)
    shape = (target.height, target.width)
    flat = np.where(valid, data, 0).reshape(len(data), -1)
    under_centre = _flat_indices(centres, source)
    target_valid = valid.ravel()[under_centre]
    if nearest:
        return flat[:, under_centre].reshape(-1, *shape), target_valid.reshape(shape)
    low = np.floor(centres - 0.5)
    fraction = centres - 0.5 - low
    total, weights = np.zeros((len(data), len(points))), np.zeros(len(points))
    for right, down in ((0, 0), (1, 0), (0, 1), (1, 1)):
        i = _flat_indices(low + np.array([right, down]), source)
        weight = np.abs(1 - right - fraction[:, 0]) * np.abs(1 - down - fraction[:, 1]) * valid.ravel()[i]
        total += flat.take(i, axis=1) * weight
        weights += weight
    total /= np.where(weights > 0, weights, 1)
    if data.dtype.kind in "iu":
        np.rint(total, out=total)
    resampled = np.where(target_valid, total, 0).astype(data.dtype)
    return resampled.reshape(-1, *shape), target_valid.reshape(shape)


def _flat_indices(positions: NDArray[np.float64], grid: Grid) -> NDArray[np.intp]:
    """Return flat indices of the pixels at (n, 2) columns and rows; of the nearest pixel for those off the grid."""
    col = positions[:, 0].astype(np.intp).clip(0, grid.width - 1)
    row = positions[:, 1].astype(np.intp).clip(0, grid.height - 1)
    flat: NDArray[np.intp] = row * grid.width + col
    return flat


WARP_CELL = 256
"""Side in pixels of the cells in which a warped file is read.

GDAL's warp gives a pixel a value that depends on the window that is read with it; fixed cells make it unique.
"""


def open_source(source: RasterInfo) -> Any:
    """Open a file as it lies on the scene's grid: the dataset itself, with its palette expanded, or a WarpedVRT."""
    dataset = open_image(source.path, expand_palette=source.palette == "expanded")
    if source.resampling is None:
        return dataset
    alpha = alpha_band(dataset)
    if alpha is not None and alpha not in source.indexes and has_mask_band(dataset):
        dataset.close()
        dataset = open_with_one_alpha(source.path, alpha)  # a warp knows but one mask
    grid = source.grid
    georeference = {"crs": grid.crs, "transform": grid.transform, "width": grid.width, "height": grid.height}
    options = warp_options(dataset, source.dtype, source.nodata, source.indexes)
    return WarpedVRT(dataset, **georeference, resampling=source.resampling, **options)


def warp_cells(window: Window, file_window: Window) -> Iterator[Window]:
    """Yield the warp cells that a window inside a file meets.

    Cells are counted from the corner of `file_window`, the file's window on the scene's grid, and cut at its edges.
    """
    first_row = (window.row - file_window.row) // WARP_CELL * WARP_CELL
    first_col = (window.col - file_window.col) // WARP_CELL * WARP_CELL
    for row in range(first_row, window.row_stop - file_window.row, WARP_CELL):
        for col in range(first_col, window.col_stop - file_window.col, WARP_CELL):
            yield Window(file_window.col + col, file_window.row + row, WARP_CELL, WARP_CELL).intersect(file_window)


def align_to_grid(
    source: RasterInfo, grid: Grid, resampling: Resampling, *, average_if_finer: bool = False
) -> RasterInfo:
    """Return the source as it lies on a grid: unchanged if its pixels are the grid's, else as a warp places it.

    Args:
        source: A raster file.
        grid: The grid to align to; its size does not matter.
        resampling: How the file is warped.
        average_if_finer: True averages, unless resampling is nearest, if the grid's pixels are at least twice as wide
            as the file's.

    Raises:
        GridError: if there is no transform from one CRS to the other.
    """
    if grid.window_of(source.grid) is not None:
        return source
    reprojected = _reproject_grid(source, grid)
    finer = min(grid.cell_size) >= 2 * max(reprojected.cell_size) * (1 - 1e-9)
    if average_if_finer and finer and resampling != Resampling.nearest:
        resampling = Resampling.average
    return replace(source, grid=grid.crop(grid.enclosing_window(reprojected.corners())), resampling=resampling)


def _reproject_grid(source: RasterInfo, grid: Grid) -> Grid:
    """Return a grid in the CRS of `grid` that covers the source with pixels of about its size."""
    if source.grid.crs == grid.crs:
        return source.grid
    try:
        transform, width, height = calculate_default_transform(
            source.grid.crs, grid.crs, source.grid.width, source.grid.height, *source.grid.bounds()
        )
    except GDAL_ERRORS as error:
        raise GridError(
            f"Cannot warp {source.path} ({source.grid}) onto the grid ({grid}): {format_error(error)}. "
            "Check that both have the right CRS."
        ) from error
    return Grid(grid.crs, transform, width, height)


def north_up(grid: Grid, cell_size: float | None = None) -> Grid:
    """Return a north-up grid from the upper left corner of a grid's bounds, large enough to cover it.

    Args:
        grid: The grid to cover.
        cell_size: Side of a pixel in CRS units; None keeps the grid's pixel size.
    """
    left, bottom, right, top = grid.bounds()
    x, y = (cell_size, cell_size) if cell_size else grid.cell_size
    corner = Grid(grid.crs, Affine(x, 0, left, 0, -y, top), 1, 1)
    return corner.crop(corner.enclosing_window(np.array([(left, top), (right, bottom)])))


def reproject_extent(extent: Sequence[float], crs: CRS, grid: Grid) -> tuple[float, float, float, float]:
    """Return the bounds, in the CRS of a grid, of an extent (left, bottom, right, top) in another CRS.

    Raises:
        GridError: if there is no transform from one CRS to the other, or the extent is outside the grid's CRS.
    """
    reason = "it lies outside the area of that CRS"
    try:
        box = transform_bounds(crs, grid.crs, *extent) if crs != grid.crs else tuple(extent)
        if np.isfinite(box).all():
            return float(box[0]), float(box[1]), float(box[2]), float(box[3])
    except GDAL_ERRORS as error:
        reason = format_error(error)
    raise GridError(f"Cannot transform the extent to the CRS of the image ({grid}): {reason}.")
