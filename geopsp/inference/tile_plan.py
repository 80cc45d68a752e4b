"""Which tiles make a map, and how much each counts where they overlap.

In one dimension, length 20, size 8, overlap 2 (so a step of 6):

    tile 0   0..7
    tile 1        6..13
    tile 2             12..19

A last tile that would overhang is moved back inside, so that every tile of a raster at least as large as a tile sees
real pixels only: length 19 ends with 11..18. A raster smaller than a tile is covered by one that overhangs.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Window, tile_starts

WEIGHT_ONE = 128
"""Sum of the weights of all tiles at a pixel, along one axis."""


MOST = 2
"""Tiles before and after one that may touch it: the last one is moved back, so that it may touch two."""


@dataclass(frozen=True, slots=True)
class TilePlan:
    """Tiles of size x size pixels that cover width x height pixels."""

    width: int
    height: int
    size: int
    overlap: int

    def __post_init__(self) -> None:
        tile_starts(0, size=self.size, overlap=self.overlap)

    @property
    def cols(self) -> tuple[int, ...]:
        """First columns of the tiles."""
        return _starts(self.width, self.size, self.overlap)

    @property
    def rows(self) -> tuple[int, ...]:
        """First rows of the tiles."""
        return _starts(self.height, self.size, self.overlap)

    def __len__(self) -> int:
        """How many tiles there are."""
        return len(self.cols) * len(self.rows)

    def tiles(self, window: Window) -> Iterator[tuple[int, list[int]]]:
        """First rows of the tiles that touch a window, and first columns."""
        cols = [col for col in self.cols if window.col - self.size < col < window.col_stop]
        for row in self.rows:
            if window.row - self.size < row < window.row_stop:
                yield row, cols

    def count(self, window: Window) -> int:
        """How many tiles touch a window."""
        return sum(len(cols) for _, cols in self.tiles(window))

    def edges(self, row: int, col: int) -> tuple[bytes, bytes]:
        """The weights, down and across, of the tile that begins there; alike where tiles have the same neighbours."""
        down = axis_weights(self.height, self.size, self.overlap)[self.rows.index(row)]
        across = axis_weights(self.width, self.size, self.overlap)[self.cols.index(col)]
        return down, across

    @property
    def shared_rows(self) -> NDArray[np.bool_]:
        """(height,) True where more than one tile lies at a row."""
        return _shared(self.height, self.size, self.overlap)

    @property
    def shared_cols(self) -> NDArray[np.bool_]:
        """(width,) True where more than one tile lies at a column."""
        return _shared(self.width, self.size, self.overlap)


def weights(down: bytes, across: bytes) -> NDArray[np.int32]:
    """(size, size) positive weights of a tile, by its edges; over all tiles at a pixel they sum to UNIT * UNIT."""
    rows, cols = (np.frombuffer(line, np.uint8).astype(np.int32) for line in (down, across))
    return np.outer(rows, cols)


@lru_cache(maxsize=16)
def _starts(length: int, size: int, overlap: int) -> tuple[int, ...]:
    return tuple(tile_starts(length, size=size, overlap=overlap))


@lru_cache(maxsize=16)
def _shared(length: int, size: int, overlap: int) -> NDArray[np.bool_]:
    ends = np.zeros(max(length, size) + 1, np.int64)
    for first in _starts(length, size, overlap):
        ends[first] += 1
        ends[min(first + size, len(ends) - 1)] -= 1
    shared: NDArray[np.bool_] = np.cumsum(ends)[:length] > 1
    shared.setflags(write=False)
    return shared


def bands_of(marks: NDArray[np.bool_]) -> list[slice]:
    """The runs of True."""
    edges = np.flatnonzero(np.diff(marks.astype(np.int8), prepend=0, append=0))
    return [slice(int(first), int(stop)) for first, stop in edges.reshape(-1, 2)]


@lru_cache(maxsize=16)
def axis_weights(length: int, size: int, overlap: int) -> tuple[bytes, ...]:
    """Of each tile along an axis, `size` whole weights from 1 to UNIT, as bytes, that sum to UNIT at each pixel.

    They fall towards a tile's edge over `overlap` pixels, as far as others share the pixel.
    """
    firsts = _starts(length, size, overlap)
    slope = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
    slope = np.minimum(slope / max(overlap, 0.5), 1)
    total = np.zeros(firsts[-1] + size)
    for first in firsts:
        total[first : first + size] += slope
    left = np.full(len(total), WEIGHT_ONE)
    shares = []
    for first in firsts:
        inside = slice(first, first + size)
        shares.append(np.maximum(np.floor(slope / total[inside] * WEIGHT_ONE), 1).astype(np.int64))
        left[inside] -= shares[-1]
    for number, (first, mine) in enumerate(zip(firsts, shares, strict=True)):
        inside = slice(first, first + size)
        near = firsts[max(number - MOST, 0) : number + MOST + 1]
        top = slope >= _largest(near, slope, first)  # what rounding left goes to the first that counts most
        mine[top] += left[inside][top]
        left[inside] = np.where(top, 0, left[inside])
    return tuple(mine.astype(np.uint8).tobytes() for mine in shares)


def _largest(near: tuple[int, ...], slope: NDArray[np.float64], first: int) -> NDArray[np.float64]:
    """(size,) the largest slope of any tile at each pixel of the one at `first`."""
    size, largest = len(slope), slope.copy()
    for other in near:
        shift = other - first
        if 0 < abs(shift) < size:
            mine, theirs = slice(max(shift, 0), size + min(shift, 0)), slice(max(-shift, 0), size - max(shift, 0))
            largest[mine] = np.maximum(largest[mine], slope[theirs])
    return largest
