"""Read a scene from the top down, a row of blocks at a time: each block is read once, and memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Window
from geopsp.raster.scene import Scene

READ_SIZE = 2048
"""Side in pixels of the windows that one thread reads at a time, unless another is asked for."""


Rows = tuple[NDArray[Any], ...]
"""Arrays (..., rows, cols) of the same rows, e.g. pixels and valid mask."""


class RowBuffer:
    """Rows of a scene read from the top down.

    Each row of blocks is read once and as a whole; rows that two requests share are kept.
    """

    def __init__(self, read: Callable[[int, int], Rows], *, block: int) -> None:
        """Read with `read(first, stop)`, which returns these rows; `block` is the height of a row of blocks."""
        self._read, self._block = read, block
        self._stop = 0
        self._pieces: list[tuple[int, Rows]] = []
        """Rows as they were read, and the number of the first of each."""

    def read(self, first: int, stop: int) -> Rows:
        """Return views of the rows from `first` to `stop`; `first` may not be above that of the last request."""
        pieces = self.pieces(first, stop)
        if len(pieces) > 1:
            self._pieces = [(first, _joined([self._cut(piece, first, self._stop) for piece in self._pieces]))]
            pieces = self.pieces(first, stop)
        return pieces[0]

    def pieces(self, first: int, stop: int) -> list[Rows]:
        """Return the same rows as they were read, in one piece or several below each other, without copying any."""
        self._pieces = [(row, rows) for row, rows in self._pieces if row + rows[0].shape[-2] > first]
        if not self._pieces:
            self._stop = first - first % self._block
        if stop > self._stop:
            new_stop = -(-stop // self._block) * self._block
            self._pieces.append((self._stop, self._read(self._stop, new_stop)))
            self._stop = new_stop
        return [self._cut(piece, first, stop) for piece in self._pieces if piece[0] < stop]

    @staticmethod
    def _cut(piece: tuple[int, Rows], first: int, stop: int) -> Rows:
        """Return views of those rows of a piece that lie between `first` and `stop`."""
        row, rows = piece
        span = slice(max(first - row, 0), stop - row)
        return tuple(array[..., span, :] for array in rows)


def _joined(pieces: Sequence[Rows]) -> Rows:
    return tuple(np.concatenate(arrays, axis=-2) for arrays in zip(*pieces, strict=True))


def read_parallel(scene: Scene, window: Window, pool: Executor, *, side: int = READ_SIZE) -> Rows:
    """Read a window in parts of whole blocks; return (bands, rows, cols) pixels and the (rows, cols) valid mask."""
    parts = [part for part in split_at_blocks(window, scene.block_shape, side) if not scene.known_empty(part)]
    if parts == [window]:
        raster = scene.read(window)
        return raster.data, raster.valid
    data = np.zeros((len(scene.bands), window.height, window.width), scene.dtype)
    valid = np.zeros((window.height, window.width), bool)

    def read_part(part: Window) -> None:
        raster = scene.read(part)
        inside = part.slices(window)
        data[:, *inside], valid[inside] = raster.data, raster.valid

    for _ in pool.map(read_part, parts):
        pass
    return data, valid


def split_at_blocks(window: Window, block_shape: tuple[int, int], side: int = READ_SIZE) -> Iterator[Window]:
    """Yield parts of a window of about side x side pixels, cut at the edges of blocks of (rows, cols)."""
    row_cuts = _cuts(window.row, window.row_stop, block_shape[0], side)
    col_cuts = _cuts(window.col, window.col_stop, block_shape[1], side)
    for row, row_stop in pairwise(row_cuts):
        for col, col_stop in pairwise(col_cuts):
            yield Window(col, row, col_stop - col, row_stop - row)


def _cuts(first: int, stop: int, block: int, side: int) -> Sequence[int]:
    """Return where to cut from `first` to `stop`: at multiples of a block's side, about `side` apart."""
    step = block * max(1, side // block)
    return [first, *range(first - first % step + step, stop, step), stop]
