"""show_map: a map of any size beside its images, with polygons over it, as a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import geopandas as gpd
import shapely
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure

from geopsp.core.escape import printable
from geopsp.core.grid import Grid
from geopsp.core.options import require_int, require_number
from geopsp.errors import GridError
from geopsp.raster.class_map import read_overview
from geopsp.raster.find_images import Images
from geopsp.raster.scene import RasterArray, Scene
from geopsp.report.map_polygons import read_map_polygons
from geopsp.training.plots import add_legend, plain_text, rgb_band_indices, subplots, to_rgb

MAX_POLYGONS = 20_000
"""Polygons that a figure shows: the largest ones, as others are smaller than its pixels."""


@plain_text()
def show_map(
    path: str | Path,
    images: Images | None = None,
    polygons: str | Path | gpd.GeoDataFrame | None = None,
    *,
    alpha: float | None = None,
    rgb_bands: Sequence[str | int] | None = None,
    pixels: int = 1000,
) -> Figure:
    """Draw a class raster of any size in the colours of its classes, with a legend; only overviews are read.

    Args:
        path: The map, e.g. what `classify_pixels` returned.
        images: What it was made of, drawn beside the map and below its classes.
        polygons: Polygons of it, whose outlines are drawn.
        alpha: Opacity of the classes over the images, 0 to 1; None: 0.5 with images, else 1.
        rgb_bands: Names or numbers of the bands to show as red, green and blue.
        pixels: Pixels along the longer side.

    Raises:
        InputNotFoundError, RasterError, GridError, BandError, LabelError, OptionError: as the input is.
    """
    require_int("pixels", pixels, minimum=1)
    if alpha is not None:
        require_number("alpha", alpha, minimum=0, maximum=1)
    overview = read_overview(path, pixels)
    outlines = None if polygons is None else read_map_polygons(polygons, overview.grid, most=MAX_POLYGONS)
    count, aspect = 1 if images is None else 2, overview.grid.height / overview.grid.width
    width = min(6.0, 7.0 / aspect) + 0.6
    figure, axes = subplots(1, count, count * width, min(6.0 * aspect, 7.0) + 1.2)
    extent, panel = _extent(overview.grid), axes[0, -1]
    if images is not None:
        image, bands = read_images(images, overview.grid)
        rgb = to_rgb(image.data, image.valid, rgb_band_indices(bands, rgb_bands))
        for axis in axes[0]:
            axis.imshow(rgb, extent=extent)
        _label(axes[0, 0], "image", overview.grid)
    opacity = alpha if alpha is not None else 1.0 if images is None else 0.5
    panel.imshow(overview.colors(), extent=extent, alpha=opacity, interpolation="nearest")
    _label(panel, Path(path).name, overview.grid)
    if outlines is not None:
        _draw(panel, outlines, overview.grid)
    shares = overview.shares()
    shown = [info for info in overview.legend if shares[info.code]]
    add_legend(figure, [(f"{info.name} {shares[info.code]:.1%}", info.color) for info in shown])
    return figure


def _extent(grid: Grid) -> tuple[float, float, float, float]:
    """Return the extent of a picture in CRS units, in matplotlib's order; of a rotated one, in its pixels."""
    if _is_rotated(grid):
        return 0, grid.width, grid.height, 0
    t = grid.transform
    return t.c, t.c + t.a * grid.width, t.f + t.e * grid.height, t.f


def _is_rotated(grid: Grid) -> bool:
    return bool(grid.transform.b or grid.transform.d)


def read_images(images: Images, grid: Grid) -> tuple[RasterArray, tuple[str, ...]]:
    """Read images on the grid of a map; return them with the names of their bands.

    Raises:
        GridError, ...: if the grid has no CRS, or as `Scene.open`.
    """
    if grid.crs is None:
        raise GridError("The map has no CRS, so no images can be drawn beside it. Leave them out.")
    scene = Scene.open(images, onto=grid, expand_palette=True)
    window = scene.grid.window_of(grid)
    assert window is not None, "they are on the same grid"
    return scene.read(window), scene.bands


def _label(axes: Axes, title: str, grid: Grid) -> None:
    axes.set_title(printable(title), fontsize=10)
    axes.set_aspect("equal")
    axes.ticklabel_format(useOffset=False, style="plain")
    axes.locator_params(nbins=4)
    axes.tick_params(labelsize=7)
    if _is_rotated(grid) or grid.crs is None:
        axes.set_axis_off()
    else:
        axes.set_xlabel(f"x ({grid.unit})", fontsize=8)
        axes.set_ylabel(f"y ({grid.unit})", fontsize=8)


def _draw(axes: Axes, polygons: gpd.GeoDataFrame, grid: Grid) -> None:
    """Draw the outlines of polygons over the map."""
    borders = shapely.boundary(polygons.geometry.to_numpy())  # None of a collection
    lines = [shapely.get_coordinates(line) for line in shapely.get_parts(borders[~shapely.is_missing(borders)])]
    if _is_rotated(grid):
        lines = [grid.to_pixel_coordinates(line) for line in lines]
    axes.add_collection(LineCollection(lines, colors="black", linewidths=0.6), autolim=False)
