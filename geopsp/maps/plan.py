"""Which tiles make a map, how much each counts where they overlap, and in which parts the map is made.

In one dimension, length 20, size 8, overlap 2 (so a step of 6):

    tile 0   0..7
    tile 1        6..13
    tile 2             12..19

A last tile that would overhang is moved back inside, so that every tile of a raster at least as large as a tile sees
real pixels only: length 19 ends with 11..18. A raster smaller than a tile is covered by one that overhangs.

A map is made part by part. A part is computed from all tiles that touch it, so that parts need nothing of each other:
tiles that touch two parts are computed for both, unless one follows the other down the map and is made with it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from geopsp.grid import Window
from geopsp.tiling import starts

BLOCK = 512
"""Side of the blocks that a map is stored in."""

SIDE = 8192
"""Side of a part, where a map is larger."""

UNIT = 128
"""Sum of the weights of all tiles at a pixel, along one axis."""


MOST = 2
"""Tiles before and after one that may touch it: the last one is moved back, so that it may touch two."""


@dataclass(frozen=True, slots=True)
class Part:
    """A piece of the map that is made, and stored, at a time."""

    number: int
    window: Window


@dataclass(frozen=True, slots=True)
class MapPlan:
    """Tiles of size x size that cover width x height pixels, and the map's parts, numbered down each column of them."""

    width: int
    height: int
    size: int
    overlap: int
    part_width: int = SIDE
    part_height: int = SIDE
    block: int = BLOCK

    def __post_init__(self) -> None:
        starts(0, size=self.size, overlap=self.overlap)
        assert self.part_width % self.block == self.part_height % self.block == 0

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

    @property
    def levels(self) -> int:
        """How often a part can be halved so that its blocks still are the map's: overviews that it holds."""
        count = 0
        while (self.part_width >> count) % (2 * self.block) == (self.part_height >> count) % (2 * self.block) == 0:
            count += 1
        return count

    @property
    def shape(self) -> tuple[int, int]:
        """(rows, columns) of parts."""
        return -(-self.height // self.part_height), -(-self.width // self.part_width)

    @property
    def parts(self) -> int:
        """How many parts there are."""
        return self.shape[0] * self.shape[1]

    def part(self, number: int) -> Part:
        """The part of that number."""
        col, row = divmod(number, self.shape[0])
        corner = Window(col * self.part_width, row * self.part_height, self.part_width, self.part_height)
        return Part(number, corner.intersect(Window(0, 0, self.width, self.height)))

    def runs(self, numbers: list[int]) -> list[list[Part]]:
        """The parts of these ascending numbers, those together that follow each other down the map."""
        runs: list[list[Part]] = []
        for number in numbers:
            if runs and runs[-1][-1].number == number - 1 and number % self.shape[0]:
                runs[-1].append(self.part(number))
            else:
                runs.append([self.part(number)])
        return runs

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
    return tuple(starts(length, size=size, overlap=overlap))


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
    left = np.full(len(total), UNIT)
    shares = []
    for first in firsts:
        inside = slice(first, first + size)
        shares.append(np.maximum(np.floor(slope / total[inside] * UNIT), 1).astype(np.int64))
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
