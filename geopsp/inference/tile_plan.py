"""Overlapping tiles and their blending weights.

In one dimension, length 20, size 8, overlap 2 (a step of 6):

    tile 0   0..7
    tile 1        6..13
    tile 2             12..19

A last tile that would overhang is moved back inside, so that every tile of a raster at least as large as a tile holds
real pixels only: length 19 ends with 11..18. A raster smaller than a tile is covered by one tile that overhangs.

Weights and scores are whole numbers (fixed point): their sums do not depend on the order of the tiles.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Window, tile_starts

WEIGHT_ONE = 128
"""Sum of the weights of all tiles at a pixel, along one axis."""


SCORE_ONE = 2**17 - 1
"""The fixed-point score of probability 1; times all weights it still fits 32 bits."""


RowsCols: TypeAlias = tuple[slice, slice]
"""The rows and columns of a rectangle."""


MAX_NEIGHBOURS = 2
"""Tiles on each side that may overlap a tile: the last one is moved back, so that there may be two."""


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
        """Return the number of tiles."""
        return len(self.cols) * len(self.rows)

    def tiles(self, window: Window) -> Iterator[tuple[int, list[int]]]:
        """Yield the tiles that touch a window: for each row of tiles, its first row and their first columns."""
        cols = [col for col in self.cols if window.col - self.size < col < window.col_stop]
        for row in self.rows:
            if window.row - self.size < row < window.row_stop:
                yield row, cols

    def count(self, window: Window) -> int:
        """Return the number of tiles that touch a window."""
        return sum(len(cols) for _, cols in self.tiles(window))

    def edges(self, row: int, col: int) -> tuple[bytes, bytes]:
        """Return the weights, down and across, of the tile at (row, col); equal for tiles with the same neighbours."""
        down = axis_weights(self.height, self.size, self.overlap)[self.rows.index(row)]
        across = axis_weights(self.width, self.size, self.overlap)[self.cols.index(col)]
        return down, across

    @property
    def shared_rows(self) -> NDArray[np.bool_]:
        """(height,) True where tiles overlap."""
        return _shared(self.height, self.size, self.overlap)

    @property
    def shared_cols(self) -> NDArray[np.bool_]:
        """(width,) True where tiles overlap."""
        return _shared(self.width, self.size, self.overlap)


def weights(down: bytes, across: bytes) -> NDArray[np.int32]:
    """Return the (size, size) positive weights of a tile; those of all tiles at a pixel sum to WEIGHT_ONE squared."""
    rows, cols = (np.frombuffer(line, np.uint8).astype(np.int32) for line in (down, across))
    return np.outer(rows, cols)


@lru_cache(maxsize=16)
def _starts(length: int, size: int, overlap: int) -> tuple[int, ...]:
    return tuple(tile_starts(length, size=size, overlap=overlap))


@lru_cache(maxsize=16)
def _shared(length: int, size: int, overlap: int) -> NDArray[np.bool_]:
    changes = np.zeros(max(length, size) + 1, np.int64)
    for first in _starts(length, size, overlap):
        changes[first] += 1
        changes[min(first + size, len(changes) - 1)] -= 1
    shared: NDArray[np.bool_] = np.cumsum(changes)[:length] > 1
    shared.setflags(write=False)
    return shared


def runs_of_true(marks: NDArray[np.bool_]) -> list[slice]:
    """Return the runs of True in a 1-D array."""
    changes = np.flatnonzero(np.diff(marks.astype(np.int8), prepend=0, append=0))
    return [slice(int(first), int(stop)) for first, stop in changes.reshape(-1, 2)]


@lru_cache(maxsize=16)
def axis_weights(length: int, size: int, overlap: int) -> tuple[bytes, ...]:
    """Return the weights of each tile along an axis: `size` bytes from 1 to WEIGHT_ONE, which sum to it at each pixel.

    They fall towards a tile's edge over `overlap` pixels, where other tiles share the pixel.
    """
    firsts = _starts(length, size, overlap)
    slope = np.minimum(np.arange(size), np.arange(size)[::-1]) + 0.5
    slope = np.minimum(slope / max(overlap, 0.5), 1)
    total = np.zeros(firsts[-1] + size)
    for first in firsts:
        total[first : first + size] += slope
    remainder = np.full(len(total), WEIGHT_ONE)
    lines = []
    for first in firsts:
        pixels = slice(first, first + size)
        lines.append(np.maximum(np.floor(slope / total[pixels] * WEIGHT_ONE), 1).astype(np.int64))
        remainder[pixels] -= lines[-1]
    for number, (first, line) in enumerate(zip(firsts, lines, strict=True)):
        pixels = slice(first, first + size)
        neighbours = firsts[max(number - MAX_NEIGHBOURS, 0) : number + MAX_NEIGHBOURS + 1]
        top = slope >= _largest(neighbours, slope, first)  # the remainder goes to the first tile of largest weight
        line[top] += remainder[pixels][top]
        remainder[pixels] = np.where(top, 0, remainder[pixels])
    return tuple(line.astype(np.uint8).tobytes() for line in lines)


def _largest(neighbours: tuple[int, ...], slope: NDArray[np.float64], first: int) -> NDArray[np.float64]:
    """Return the largest slope, (size,), of any tile at each pixel of the tile that begins at `first`."""
    size, largest = len(slope), slope.copy()
    for other in neighbours:
        shift = other - first
        if 0 < abs(shift) < size:
            mine, theirs = slice(max(shift, 0), size + min(shift, 0)), slice(max(-shift, 0), size - max(shift, 0))
            largest[mine] = np.maximum(largest[mine], slope[theirs])
    return largest
