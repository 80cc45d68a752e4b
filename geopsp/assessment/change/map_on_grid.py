"""A class map, and its confidence, read on the grid of another map."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rasterio.enums import Resampling

from geopsp.core.crs import Bounds, full_circle, full_turns, transform_bounds
from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.pixel_size import ground_size
from geopsp.core.text import format_pixel_size
from geopsp.errors import GridError, RasterError
from geopsp.labels.raster_labels import label_pixels
from geopsp.polygons.class_raster import CodeSource
from geopsp.polygons.confidence import Confidence
from geopsp.raster.open import open_raster
from geopsp.raster.scene import Scene

logger = logging.getLogger(__name__)

MAX_SAMPLED = 2**19
"""Pixels whose places on another grid are computed at a time."""

MAX_SOURCE = 2**24
"""Pixels of a map that are read at a time to sample it."""


@dataclass(frozen=True, slots=True, eq=False)
class MapOnGrid:
    """A class map on another grid: each pixel is that under its centre. Several threads may read it."""

    source: CodeSource
    """The map on its own grid."""

    grid: Grid
    """Where it is read."""

    @property
    def offset(self) -> Window | None:
        """The grid as a window of the map's own; None if their pixels are not aligned."""
        own = self.source.grid
        window = own.window_of(self.grid)
        if window is None or own.crs is None or not own.crs.is_geographic:
            return window
        return window if window.intersect(own.full_window) == window else None  # longitudes may lie a circle apart

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Return (rows, cols) codes of a window; 255 for nodata and outside of the map."""
        offset = self.offset
        if offset is not None:
            return self.source.read(window.shift(offset.col, offset.row))
        codes = np.full((window.height, window.width), IGNORE_INDEX, np.uint8)
        for part in _parts(window, MAX_SAMPLED):
            self._sample(part, codes[part.slices(window)])
        return codes

    def _sample(self, window: Window, codes: NDArray[np.uint8]) -> None:
        """Fill (rows, cols) codes of a window; in parts, if it takes many pixels of the map."""
        own = self.source.grid
        col, row = label_pixels(self.grid.crop(window), own)
        inside = (col >= 0) & (col < own.width) & (row >= 0) & (row < own.height)
        if not inside.any():
            return
        cols, rows = col[inside].astype(np.intp), row[inside].astype(np.intp)
        left, top = int(cols.min()), int(rows.min())
        source = Window(left, top, int(cols.max()) - left + 1, int(rows.max()) - top + 1)
        if source.width * source.height > MAX_SOURCE and codes.size > 1:
            for part in _parts(window, codes.size // 2):
                self._sample(part, codes[part.slices(window)])
            return
        codes[inside] = self.source.read(source)[rows - top, cols - left]


def _parts(window: Window, most: int) -> Iterator[Window]:
    """Yield parts of a window of at most so many pixels, from halves of the longer side."""
    col, row, width, height = window.col, window.row, window.width, window.height
    if width * height <= max(most, 1):
        yield window
    elif width >= height:
        yield from _parts(Window(col, row, width // 2, height), most)
        yield from _parts(Window(col + width // 2, row, width - width // 2, height), most)
    else:
        yield from _parts(Window(col, row, width, height // 2), most)
        yield from _parts(Window(col, row + height // 2, width, height - height // 2), most)


@dataclass(frozen=True, slots=True, eq=False)
class ConfidenceOnGrid:
    """The confidence of a map on another grid, of the same pixels as the classes."""

    confidence: Confidence
    col: int
    """Column of the grid on which the raster begins."""

    row: int
    """Its row."""

    @classmethod
    def open(cls, path: str | Path, grid: Grid) -> ConfidenceOnGrid:
        """Open the confidence raster of a map.

        Raises:
            InputNotFoundError: if there is no such raster.
            RasterError: if it has several bands.
            GridError: if it cannot be brought onto the grid, or lies elsewhere.
        """
        scene = Scene.open(path, onto=grid, resampling=Resampling.nearest)
        if len(scene.bands) != 1:
            raise RasterError(
                f"{path} has {len(scene.bands)} bands, but must have one, with values from 0 to 1. Export that band."
            )
        window = grid.window_of(scene.grid)
        assert window is not None
        if window.intersect(grid.full_window).is_empty:
            raise GridError(f"{path} ({scene.grid}) lies beside the maps ({grid}). Is it the right raster?")
        band = scene.sources[0].indexes[0] - 1
        with open_raster(path) as dataset:
            confidence = Confidence(scene, float(dataset.scales[band]), float(dataset.offsets[band]))
        return cls(confidence, window.col, window.row)

    def read(self, window: Window) -> NDArray[np.float32]:
        """Return (h, w) values of a window; NaN where the confidence is unknown."""
        return self.confidence.read(window.shift(-self.col, -self.row))


@dataclass(frozen=True, slots=True, eq=False)
class ConfidencePair:
    """The confidences of two maps on one grid."""

    one: ConfidenceOnGrid
    other: ConfidenceOnGrid

    def read(self, window: Window) -> NDArray[np.float32]:
        """Return (2, h, w) values of a window; NaN where unknown."""
        return np.stack([self.one.read(window), self.other.read(window)])


def compare_grids(ours: Grid, theirs: Grid, name: str, other: str) -> str | None:
    """Return how a map's grid differs from that of another, in words; None if their pixels are the same.

    Args:
        ours: The grid of the change.
        theirs: The grid of the map that is brought onto it.
        name: The map on `ours`.
        other: The map on `theirs`.

    Raises:
        GridError: if the maps cannot be compared, or share no ground.
    """
    bounds = transform_bounds(theirs.bounds(), theirs.crs.to_wkt(), ours.crs.to_wkt(), past_180=True)
    if bounds is None or _are_apart(bounds, ours):
        raise GridError(
            f"{name} ({ours}) and {other} ({theirs}) have no ground in common. Check that both have the right CRS and "
            "show the same place."
        )
    if ours.window_of(theirs) is not None:
        return None
    begin = f"{other} is brought onto the grid of {name}, each pixel from the one under its centre"
    return f"{begin}: {_difference(ours, theirs)}. Expect apparent change along the borders of classes."


def _difference(ours: Grid, theirs: Grid) -> str:
    """Say in what two grids differ."""
    if ours.crs != theirs.crs:
        (width, height), (other_width, other_height) = ground_size(ours), ground_size(theirs)
        size = format_pixel_size(float(f"{width:.4g}"), float(f"{height:.4g}"), "metre")
        other_size = format_pixel_size(float(f"{other_width:.4g}"), float(f"{other_height:.4g}"), "metre")
        return f"the maps differ in CRS, with pixels of {size} and {other_size} on the ground"
    ratios = [a / b for a, b in zip(theirs.cell_size, ours.cell_size, strict=True)]
    if max(ratios) > 1 + 1e-6 or min(ratios) < 1 - 1e-6:
        sizes = [format_pixel_size(*grid.cell_size, grid.unit) for grid in (ours, theirs)]
        return f"the pixels are {sizes[0]} and {sizes[1]}"
    shift = ours.offset_of(theirs)
    if shift is None:
        return "the grids are rotated against each other"
    cols, rows = (abs(each - round(each)) for each in shift)
    return f"the grids are shifted by {cols:.2g} columns and {rows:.2g} rows of a pixel"


def _are_apart(bounds: Bounds, grid: Grid) -> bool:
    """Return whether bounds in the CRS of a grid share no ground with it."""
    left, bottom, right, top = grid.bounds()
    if bounds[1] >= top or bounds[3] <= bottom:
        return True
    circle = full_circle(grid.crs.to_wkt())
    if circle is not None and full_turns((bounds[0], bounds[2]), (left, right), circle):
        return False
    return bounds[0] >= right or bounds[2] <= left
