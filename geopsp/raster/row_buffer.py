"""Strips of a scene that move down a row of blocks at a time: each block is read once, and memory stays bounded."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Window
from geopsp.raster.scene import Scene

PIECE = 2048
"""Pixels that one thread reads at a time, along a side that is not cut into larger blocks."""


Rows = tuple[NDArray[Any], ...]


class RowBuffer:
    """Arrays (..., rows, cols) of the rows last asked for; rows are asked for from the top down.

    What two requests share is kept, so that each row is read once, and always with the others of its row of blocks.
    """

    def __init__(self, read: Callable[[int, int], Rows], *, block: int) -> None:
        """`read` gives the rows from the first up to the second number; `block` is the height of a row of blocks."""
        self._read, self._block = read, block
        self._first = self._stop = 0
        self._held: Rows | None = None

    def read(self, first: int, stop: int) -> Rows:
        """Views of the rows from `first`, not above those of the last request, up to `stop`."""
        start = self._stop
        if self._held is None or first >= self._stop:
            self._held, start = None, first - first % self._block
        if stop > start:
            new_stop = -(-stop // self._block) * self._block
            fresh = self._read(start, new_stop)
            self._held, self._first = self._joined(fresh, first, start)
            self._stop = new_stop
        assert self._held is not None
        span = slice(first - self._first, stop - self._first)
        return tuple(array[..., span, :] for array in self._held)

    def _joined(self, fresh: Rows, first: int, start: int) -> tuple[Rows, int]:
        """The rows still needed and the new ones below them, and the number of the first."""
        if self._held is None:
            return fresh, start
        kept = slice(first - self._first, None)
        pairs = zip(self._held, fresh, strict=True)
        return tuple(np.concatenate([old[..., kept, :], new], axis=-2) for old, new in pairs), first


def read_parallel(scene: Scene, window: Window, pool: Executor) -> Rows:
    """(bands, rows, cols) pixels and (rows, cols) validity of a window, read in pieces of whole blocks."""
    wanted = [piece for piece in split_at_blocks(window, scene.block_shape) if not scene.known_empty(piece)]
    if wanted == [window]:
        patch = scene.read(window)
        return patch.data, patch.valid
    data = np.zeros((len(scene.bands), window.height, window.width), scene.dtype)
    valid = np.zeros((window.height, window.width), bool)

    def fill(piece: Window) -> None:
        patch = scene.read(piece)
        inside = piece.slices(window)
        data[:, *inside], valid[inside] = patch.data, patch.valid

    for _ in pool.map(fill, wanted):
        pass
    return data, valid


def split_at_blocks(window: Window, block: tuple[int, int]) -> Iterator[Window]:
    """Parts of a window, cut where blocks of (rows, cols) end."""
    row_cuts, col_cuts = (
        _cuts(first, stop, side)
        for first, stop, side in (
            (window.row, window.row_stop, block[0]),
            (window.col, window.col_stop, block[1]),
        )
    )
    for row, row_stop in pairwise(row_cuts):
        for col, col_stop in pairwise(col_cuts):
            yield Window(col, row, col_stop - col, row_stop - row)


def _cuts(first: int, stop: int, side: int) -> Sequence[int]:
    """Where to cut from first to stop: at multiples of the block's side, about PIECE apart."""
    step = side * max(1, PIECE // side)
    return [first, *range(first - first % step + step, stop, step), stop]
