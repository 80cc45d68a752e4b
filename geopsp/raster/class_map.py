"""ClassMap: the path of a class raster, which shows itself in a notebook; its overview in colours."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.vrt import WarpedVRT

from geopsp.core.grid import Grid
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.notebook_html import Cell, html_block, html_facts, html_table
from geopsp.core.pictures import png_of_colors
from geopsp.core.text import format_pixel_size
from geopsp.errors import GeopspError, RasterError
from geopsp.raster.legend_io import read_legend
from geopsp.raster.open import GDAL_ERRORS, gdal_env, open_raster, read_error

if TYPE_CHECKING:
    _Path = Path
else:
    _Path = type(Path())  # before Python 3.12 only the path of the system can be subclassed

THUMBNAIL = 400
"""Pixels along the longer side of the map that a notebook shows."""


class ClassMap(_Path):
    """The path of a class raster, as `classify_pixels` returns it: a `Path` in every respect.

    A notebook shows its overview in the colours of its classes, with their shares.
    """

    def with_segments(self, *segments: Any) -> Path:
        """Return a plain path: what lies beside a map, or above it, is no map."""
        return Path(*segments)

    def _repr_html_(self) -> str | None:
        try:
            overview = read_overview(self, THUMBNAIL)
        except GeopspError:  # a dry run wrote none, or it was moved: then a notebook shows the path
            return None
        grid = overview.file_grid
        facts = {
            "size": f"{grid.width:,} x {grid.height:,} pixels of {format_pixel_size(*grid.cell_size, grid.unit)}",
            "CRS": str(grid.crs.to_string()) if grid.crs else "none",
        }
        shares = overview.shares()
        rows: list[list[Cell]] = [[info, f"{shares[info.code]:.1%}"] for info in overview.legend if shares[info.code]]
        png = png_of_colors(overview.colors())
        image = f'<img alt="Map of {len(rows)} classes" style="max-width:100%" src="{png}">'
        return html_block(str(self), image, html_table(["class", "share (about)"], rows), html_facts(facts))


@dataclass(frozen=True, slots=True, eq=False)
class Overview:
    """A class raster, of few pixels."""

    codes: NDArray[np.uint8]
    """(rows, cols); IGNORE_INDEX where there is no class."""

    grid: Grid
    file_grid: Grid
    """The grid of the file."""

    legend: Legend

    def colors(self) -> NDArray[np.uint8]:
        """Return the colours, (rows, cols, 4), transparent where there is no class."""
        table = np.zeros((256, 4), np.uint8)
        table[self.legend.codes] = [(*info.rgb, 255) for info in self.legend]
        colors: NDArray[np.uint8] = table[self.codes]
        return colors

    def shares(self) -> NDArray[np.float64]:
        """Return the fraction of each code of the pixels with a class, (256,)."""
        counts = np.bincount(self.codes.ravel(), minlength=256).astype(float)
        counts[IGNORE_INDEX] = 0
        shares: NDArray[np.float64] = counts / max(counts.sum(), 1)
        return shares


def read_overview(path: str | Path, pixels: int, *, legend: Legend | None = None, crs: Any = None) -> Overview:
    """Read a class raster at no more than a number of pixels along its longer side, from its overviews.

    Args:
        path: The raster.
        pixels: Pixels along the longer side.
        legend: Classes of a raster that has no class table.
        crs: The CRS to warp it to; None: its own.

    Raises:
        InputNotFoundError, RasterError: if it cannot be read, or has no classes.
    """
    legend = read_legend(path) or legend
    if legend is None:
        raise RasterError(f"{path} has no class names or colours, so it cannot be shown as a map. Give a class raster.")
    with gdal_env(path), open_raster(path) as dataset:
        if dataset.count != 1 or np.dtype(dataset.dtypes[0]).kind not in "iu":
            raise RasterError(
                f"{path} has {dataset.count} band(s) of {dataset.dtypes[0]}, but a map has one band of class codes. "
                "Give the map that `geopsp predict` wrote."
            )
        file_grid = Grid(dataset.crs, dataset.transform, dataset.width, dataset.height)
        try:
            if crs is None:
                return _read(dataset, pixels, file_grid, legend)
            with WarpedVRT(dataset, crs=crs, nodata=IGNORE_INDEX) as warped:
                return _read(warped, pixels, file_grid, legend)
        except GDAL_ERRORS as error:
            raise read_error(str(path), file_grid.full_window, error) from error


def _read(dataset: Any, pixels: int, file_grid: Grid, legend: Legend) -> Overview:
    step = max(1.0, max(dataset.width, dataset.height) / pixels)
    height, width = (max(1, round(side / step)) for side in (dataset.height, dataset.width))
    codes = dataset.read(1, out_shape=(height, width))
    codes = np.where((codes >= 0) & (codes < IGNORE_INDEX), codes, IGNORE_INDEX).astype(np.uint8)
    codes[dataset.read_masks(1, out_shape=(height, width)) == 0] = IGNORE_INDEX
    scale = Affine.scale(dataset.width / width, dataset.height / height)
    return Overview(codes, Grid(dataset.crs, dataset.transform * scale, width, height), file_grid, legend)
