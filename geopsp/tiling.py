"""Tile plans and blend weights as pure functions.

In one dimension, length 20, size 8, overlap 2 (so a step of 6):

    tile 0   0..7
    tile 1        6..13
    tile 2             12..19

A last tile that would overhang is moved back inside, so that every tile of a raster at least as large as a
tile sees real pixels only: length 19 ends with 11..18. A raster smaller than a tile is covered by one that overhangs.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geopsp.errors import OptionError
from geopsp.grid import Window


def starts(length: int, *, size: int, overlap: int) -> list[int]:
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


def ramp(size: int, overlap: int) -> NDArray[np.float32]:
    """(size,) weights, strictly positive: 1 in the middle, falling linearly over `overlap` pixels at either end."""
    distance = np.minimum(np.arange(size), np.arange(size)[::-1]).astype(np.float32)
    weights: NDArray[np.float32] = np.minimum(1, (distance + 0.5) / max(overlap, 0.5)).astype(np.float32)
    return weights


@dataclass(frozen=True, slots=True)
class TilePlan:
    """Tiles of size x size, in rows of tiles from the top, that cover width x height pixels."""

    width: int
    height: int
    size: int
    overlap: int

    @property
    def cols(self) -> list[int]:
        return starts(self.width, size=self.size, overlap=self.overlap)

    @property
    def rows(self) -> list[int]:
        return starts(self.height, size=self.size, overlap=self.overlap)

    def __len__(self) -> int:
        return len(self.cols) * len(self.rows)

    def windows(self, row: int) -> list[Window]:
        """The tiles whose first line is `row`, from left to right."""
        return [Window(col, row, self.size, self.size) for col in self.cols]

    def weights(self) -> NDArray[np.float32]:
        """(size, size) blend weights, strictly positive; the same for every tile."""
        line = ramp(self.size, self.overlap)
        return np.outer(line, line).astype(np.float32)
