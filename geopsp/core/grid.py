"""Where pixels lie: whole-pixel windows on one georeferenced lattice."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
from affine import Affine
from numpy.typing import NDArray
from rasterio.crs import CRS

from geopsp.errors import OptionError

ALIGNMENT_TOLERANCE = 1e-3
"""Largest offset, in pixels, at which two lattices count as the same one."""


@dataclass(frozen=True, slots=True)
class Window:
    """A rectangle of whole pixels; it may overhang the grid that it is laid on."""

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

    def intersect(self, other: Window) -> Window:
        """The pixels in both; `empty` where there are none."""
        col, row = max(self.col, other.col), max(self.row, other.row)
        width = max(0, min(self.col_stop, other.col_stop) - col)
        height = max(0, min(self.row_stop, other.row_stop) - row)
        return Window(col, row, width, height)

    def slices(self, origin: Window) -> tuple[slice, slice]:
        """(rows, cols) of this window inside an array whose first pixel is `origin`'s."""
        row, col = self.row - origin.row, self.col - origin.col
        return slice(row, row + self.height), slice(col, col + self.width)

    # names of earlier versions
    empty = is_empty


@dataclass(frozen=True, slots=True)
class Grid:
    """A lattice of pixels: `transform` takes (col, row) to CRS units at a pixel's corner."""

    crs: CRS
    transform: Affine
    width: int
    height: int

    @property
    def full_window(self) -> Window:
        """The whole grid."""
        return Window(0, 0, self.width, self.height)

    @property
    def cell_size(self) -> tuple[float, float]:
        """Pixel width and height in CRS units, both positive, rotation taken out."""
        t = self.transform
        return float(np.hypot(t.a, t.d)), float(np.hypot(t.b, t.e))

    @property
    def unit(self) -> str:
        """What lengths are counted in: "degree", "metre"."""
        return str(self.crs.units_factor[0]) if self.crs else "unit"

    def crop(self, window: Window) -> Grid:
        """The grid of `window`; it may overhang, so this also pads."""
        t = self.transform
        left = t.c + t.a * window.col + t.b * window.row
        top = t.f + t.d * window.col + t.e * window.row
        return Grid(self.crs, Affine(t.a, t.b, left, t.d, t.e, top), window.width, window.height)

    def corners(self) -> NDArray[np.float64]:
        """(4, 2) corner coordinates in ring order."""
        cols = np.array([0, self.width, self.width, 0], float)
        rows = np.array([0, 0, self.height, self.height], float)
        t = self.transform
        return np.column_stack([t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f])

    def bounds(self) -> tuple[float, float, float, float]:
        """(left, bottom, right, top) in CRS units; of a rotated grid, the box around it."""
        low, high = self.corners().min(axis=0), self.corners().max(axis=0)
        return float(low[0]), float(low[1]), float(high[0]), float(high[1])

    def offset_of(self, other: Grid) -> tuple[float, float] | None:
        """Columns and rows from this grid's origin to `other`'s; None if CRS, pixel size or rotation differ."""
        if self.crs != other.crs:
            return None
        ours, theirs = self.transform, other.transform
        axes = [[ours.a, ours.b], [ours.d, ours.e]]
        away = [[theirs.a, theirs.b, theirs.c - ours.c], [theirs.d, theirs.e, theirs.f - ours.f]]
        step = np.linalg.solve(axes, away)
        drift = np.abs(step[:, :2] - np.eye(2)).max() * max(other.width, other.height, 1)
        return (float(step[0, 2]), float(step[1, 2])) if drift < ALIGNMENT_TOLERANCE else None

    def window_of(self, other: Grid) -> Window | None:
        """`other` as a window of this grid; None unless it lies on the same lattice to a thousandth of a pixel."""
        offset = self.offset_of(other)
        if offset is None:
            return None
        col, row = round(offset[0]), round(offset[1])
        if max(abs(offset[0] - col), abs(offset[1] - row)) > ALIGNMENT_TOLERANCE:
            return None
        return Window(col, row, other.width, other.height)

    def to_pixel_coordinates(self, points: NDArray[np.float64]) -> NDArray[np.float64]:
        """(points, 2) columns and rows, in pixels from this grid's corner, of points in CRS units."""
        t = ~self.transform
        x, y = points[:, 0], points[:, 1]
        return np.column_stack([t.a * x + t.b * y + t.c, t.d * x + t.e * y + t.f])

    def enclosing_window(self, points: NDArray[np.float64]) -> Window:
        """The smallest window of whole pixels, give or take a thousandth, that holds (points, 2) in CRS units."""
        places = self.to_pixel_coordinates(points)
        col, row = (math.floor(low + ALIGNMENT_TOLERANCE) for low in places.min(axis=0))
        col_stop, row_stop = (math.ceil(high - ALIGNMENT_TOLERANCE) for high in places.max(axis=0))
        return Window(col, row, col_stop - col, row_stop - row)

    def blocks(self, size: int) -> Iterator[Window]:
        """Windows of at most size x size that partition the grid, row by row."""
        for row in range(0, self.height, size):
            for col in range(0, self.width, size):
                yield Window(col, row, size, size).intersect(self.full_window)

    def __repr__(self) -> str:
        x, y = self.cell_size
        name = _short_name(self.crs) if self.crs else "no CRS"
        left, bottom, right, top = self.bounds()
        return (
            f"<{self.width} x {self.height} pixels of {x:g} x {y:g}, {name}, "
            f"x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}>"
        )

    # names of earlier versions
    window = full_window
    pixels_at = to_pixel_coordinates
    window_around = enclosing_window


def _short_name(crs: CRS) -> str:
    """The CRS as authority and code, else by the name that its WKT begins with."""
    text = str(crs.to_string())
    return text.split('"')[1] if '["' in text else text


def tile_starts(length: int, *, size: int, overlap: int) -> list[int]:
    """First pixels of the tiles that cover `length` pixels, ascending.

    Raises:
        OptionError: unless 0 <= overlap <= size / 2, so that at most two tiles meet at a pixel of a regular run.
    """
    if size < 1 or not 0 <= 2 * overlap <= size:
        raise OptionError(f"Overlap must lie between 0 and half a tile; found overlap {overlap} with tiles of {size}.")
    if length <= size:
        return [0]
    step = size - overlap
    return [*range(0, length - size, step), length - size]
