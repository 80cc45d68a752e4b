"""A map and its images, read at the size of a screen, for the panel of the report that compares them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyproj

from geopsp.core.grid import Grid
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.paths import is_local
from geopsp.core.pictures import class_palette, jpeg_of_colors, png_of_classes, stretch
from geopsp.errors import GridError
from geopsp.models.spectral_bands import rgb_bands
from geopsp.raster.class_map import read_overview
from geopsp.raster.find_images import Images
from geopsp.raster.scene import Scene

MAX_SIDE = 2000
"""Of the pictures, in pixels."""

PERCENTILES = (2, 98)
"""Of the values of an image, between black and white."""

NO_DATA = 238
"""Grey of an image where it has no data."""

STEPS = 16
"""Intervals along each side at whose ends longitude and latitude are known; between them they are interpolated."""


@dataclass(frozen=True, slots=True)
class PanelClass:
    """A class of the map."""

    name: str
    color: str
    """In the picture, where it is unlike that of every other class."""

    share: float
    """Of the map's pixels, about."""


@dataclass(frozen=True, slots=True)
class MapPanel:
    """What the panel shows."""

    name: str
    width: int
    height: int
    classes: tuple[PanelClass, ...]
    picture: str
    """Of the map."""

    image: str
    """"" without images."""

    crs: str
    size: str
    """Of the map, in words."""

    geometry: str
    """JSON: "transform" from pixels of the picture to the CRS, "degrees" longitude and latitude on a coarse grid."""


def read_map_panel(path: str | Path, images: Images | None, legend: Legend) -> MapPanel:
    """Read a map and images for the panel, from overviews where there are some.

    Args:
        path: A class raster.
        images: As `find_images` takes them; None: the map alone.
        legend: Classes of a map that has no class table.

    Raises:
        InputNotFoundError, RasterError: if a file cannot be read, or the map has no classes.
        GridError: if the images lie elsewhere.
    """
    overview = read_overview(path, MAX_SIDE, legend=legend)
    legend, grid = overview.legend, overview.grid
    indices = legend.codes_to_indices(overview.codes)
    counts = np.bincount(indices[indices != IGNORE_INDEX], minlength=len(legend))[: len(legend)]
    total = max(int(counts.sum()), 1)
    classes = tuple(
        PanelClass(info.name, "#{:02x}{:02x}{:02x}".format(*color), int(count) / total)
        for info, color, count in zip(legend, class_palette(legend), counts, strict=True)
    )
    return MapPanel(
        name=Path(path).name if is_local(path) else str(path),
        width=grid.width,
        height=grid.height,
        classes=classes,
        picture=png_of_classes(indices, legend),
        image="" if images is None else _read_image(images, grid),
        crs=_crs_name(grid),
        size=str(overview.file_grid),
        geometry=json.dumps({"transform": list(grid.transform)[:6], "degrees": _degrees(grid)}),
    )


def _read_image(images: Images, grid: Grid) -> str:
    """Return a JPEG of images on a grid."""
    shown = rgb_bands(Scene.open(images, expand_palette=True).bands)
    scene = Scene.open(images, bands=[band + 1 for band in sorted(set(shown))], onto=grid, expand_palette=True)
    window = scene.grid.window_of(grid)
    assert window is not None, (scene.grid, grid)
    raster = scene.read(window)
    if not raster.valid.any():
        raise GridError(
            f"The images ({scene.grid}) do not overlap the map ({grid}). Give the images that the map was made of."
        )
    data = raster.data[[sorted(set(shown)).index(band) for band in shown]].astype(np.float32)
    low, high = np.percentile(data[:, raster.valid], PERCENTILES, axis=1)
    colors = stretch(data, low.tolist(), high.tolist())
    return jpeg_of_colors(np.where(raster.valid[..., None], colors, NO_DATA).astype(np.uint8))


def _crs_name(grid: Grid) -> str:
    if not grid.crs:
        return ""
    authority = grid.crs.to_authority()
    return ":".join(authority) if authority else str(pyproj.CRS.from_user_input(grid.crs).name)


def _degrees(grid: Grid) -> list[list[list[float]]]:
    """Return longitude and latitude at (STEPS + 1, STEPS + 1) points; [] where they are not known."""
    if not grid.crs:
        return []
    cols, rows = np.meshgrid(np.linspace(0, grid.width, STEPS + 1), np.linspace(0, grid.height, STEPS + 1))
    t = grid.transform
    transformer = pyproj.Transformer.from_crs(grid.crs, 4326, always_xy=True)
    longitude, latitude = transformer.transform(t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f)
    points = np.stack([longitude, latitude], axis=-1)
    if not np.isfinite(points).all():
        return []
    found: list[list[list[float]]] = points.round(7).tolist()
    return found
