"""Grids of pixels (CRS, transform, size), windows on them, and where tiles start along an axis."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from geopsp.core.text import format_pixel_size
from geopsp.errors import OptionError

ALIGNMENT_TOLERANCE = 1e-3
"""Largest offset, in pixels, at which the pixels of two grids count as aligned."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of whole pixels of a grid; it may overhang the grid."""

    col: int
    row: int
    width: int
    height: int

    @property
    def col_stop(self) -> int:
        return self.col + self.width

    @property
    def row_stop(self) -> int:
        return self.row + self.height

    @property
    def is_empty(self) -> bool:
        return self.width <= 0 or self.height <= 0

    def shift(self, cols: int, rows: int) -> Window:
        return replace(self, col=self.col + cols, row=self.row + rows)

    def pad(self, pixels: int) -> Window:
        """Return the window with so many pixels more on each side."""
        return Window(self.col - pixels, self.row - pixels, self.width + 2 * pixels, self.height + 2 * pixels)

    def intersect(self, other: Window) -> Window:
        """Return the window of the pixels that are in both; it is empty if there are none."""
        col, row = max(self.col, other.col), max(self.row, other.row)
        width = max(0, min(self.col_stop, other.col_stop) - col)
        height = max(0, min(self.row_stop, other.row_stop) - row)
        return Window(col, row, width, height)

    def slices(self, origin: Window) -> tuple[slice, slice]:
        """Return the slices, (rows, cols), of this window in an array that holds the window `origin`."""
        row, col = self.row - origin.row, self.col - origin.col
        return slice(row, row + self.height), slice(col, col + self.width)

    # names of earlier versions
    empty = is_empty


@dataclass(frozen=True, slots=True)
class Grid:
    """A grid of pixels; `transform` takes (col, row) to the CRS coordinates of a pixel's corner."""

    crs: CRS
    """None of an image without georeference."""

    transform: Affine
    width: int
    height: int

    @property
    def full_window(self) -> Window:
        """The window of the whole grid."""
        return Window(0, 0, self.width, self.height)

    @property
    def cell_size(self) -> tuple[float, float]:
        """Pixel width and height in CRS units, both positive, along the axes of a rotated grid."""
        t = self.transform
        return float(np.hypot(t.a, t.d)), float(np.hypot(t.b, t.e))

    @property
    def unit(self) -> str:
        """The unit of lengths, e.g. "metre" or "degree"; "unit" without a CRS."""
        return str(self.crs.units_factor[0]) if self.crs else "unit"

    @property
    def without_georeference(self) -> Grid:
        """The grid of the same pixels without CRS and place."""
        return Grid(None, Affine.identity(), self.width, self.height)

    def crop(self, window: Window) -> Grid:
        """Return the grid of a window, which may overhang, so that this also pads."""
        t = self.transform
        left = t.c + t.a * window.col + t.b * window.row
        top = t.f + t.d * window.col + t.e * window.row
        return Grid(self.crs, Affine(t.a, t.b, left, t.d, t.e, top), window.width, window.height)

    def corners(self) -> NDArray[np.float64]:
        """Return the corners, (4, 2), in CRS units and ring order."""
        cols = np.array([0, self.width, self.width, 0], float)
        rows = np.array([0, 0, self.height, self.height], float)
        t = self.transform
        return np.column_stack([t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f])

    def bounds(self) -> tuple[float, float, float, float]:
        """Return (left, bottom, right, top) in CRS units; for a rotated grid, the box around it."""
        low, high = self.corners().min(axis=0), self.corners().max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def offset_of(self, other: Grid) -> tuple[float, float] | None:
        """Return columns and rows from this grid's origin to another's; None if CRS, pixel size or rotation differ."""
        if self.crs != other.crs:
            return None
        ours, theirs = self.transform, other.transform
        axes = [[ours.a, ours.b], [ours.d, ours.e]]
        others = [[theirs.a, theirs.b, theirs.c - ours.c], [theirs.d, theirs.e, theirs.f - ours.f]]
        relative = np.linalg.solve(axes, others)
        drift = np.abs(relative[:, :2] - np.eye(2)).max() * max(other.width, other.height, 1)
        return (float(relative[0, 2]), float(relative[1, 2])) if drift < ALIGNMENT_TOLERANCE else None

    def window_of(self, other: Grid) -> Window | None:
        """Return `other` as a window of this grid; None unless their pixels are aligned."""
        offset = self.offset_of(other)
        if offset is None:
            return None
        col, row = round(offset[0]), round(offset[1])
        if max(abs(offset[0] - col), abs(offset[1] - row)) > ALIGNMENT_TOLERANCE:
            return None
        return Window(col, row, other.width, other.height)

    def to_pixel_coordinates(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """Return columns and rows, (n, 2), in pixels from this grid's corner, of points in CRS units, (n, 2)."""
        t = ~self.transform
        x, y = points[:, 0], points[:, 1]
        return np.column_stack([t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f])

    def enclosing_window(self, points: NDArray[np.float64]) -> Window:
        """Return the smallest window, within the tolerance, that holds points in CRS units, (n, 2)."""
        pixels = self.to_pixel_coordinates(points)
        col, row = (math.floor(low + ALIGNMENT_TOLERANCE) for low in pixels.min(axis=0))
        col_stop, row_stop = (math.ceil(high - ALIGNMENT_TOLERANCE) for high in pixels.max(axis=0))
        return Window(col, row, col_stop - col, row_stop - row)

    def blocks(self, size: int) -> Iterator[Window]:
        """Yield windows of at most size x size pixels that partition the grid, row by row."""
        for row in range(0, self.height, size):
            for col in range(0, self.width, size):
                yield Window(col, row, size, size).intersect(self.full_window)

    def __str__(self) -> str:
        """Describe the grid in a message."""
        left, bottom, right, top = self.bounds()
        return (
            f"{self.width:,} x {self.height:,} pixels of {format_pixel_size(*self.cell_size, self.unit)}, "
            f"{_crs_name(self.crs)}, x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}"
        )

    def __repr__(self) -> str:
        x, y = self.cell_size
        left, bottom, right, top = self.bounds()
        return (  # hashed into the keys of maps: never change it
            f"<{self.width} x {self.height} pixels of {x:g} x {y:g}, {_crs_name(self.crs)}, "
            f"x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}>"
        )

    # names of earlier versions
    window = full_window
    pixels_at = to_pixel_coordinates
    window_around = enclosing_window


def _crs_name(crs: CRS | None) -> str:
    """Return authority and code, else the name in the WKT, else "no CRS"."""
    if not crs:
        return "no CRS"
    text = str(crs.to_string())
    return text.split('"')[1] if '["' in text else text


def tile_starts(length: int, *, size: int, overlap: int) -> list[int]:
    """Return the first pixels of tiles that cover `length` pixels, ascending.

    Raises:
        OptionError: unless 0 <= overlap <= size / 2, so that at most two tiles meet at a pixel, but for the last two.
    """
    if size < 1 or not 0 <= 2 * overlap <= size:
        raise OptionError(
            f"The overlap of the tiles is {overlap} pixels, but must be between 0 and half a tile ({size} pixels)."
        )
    if length <= size:
        return [0]
    step = size - overlap
    return [*range(0, length - size, step), length - size]
