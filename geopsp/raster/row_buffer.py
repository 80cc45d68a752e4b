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
        self._first = self._stop = 0
        self._rows: Rows | None = None

    def read(self, first: int, stop: int) -> Rows:
        """Return views of the rows from `first` to `stop`; `first` may not be above that of the last request."""
        start = self._stop
        if self._rows is None or first >= self._stop:
            self._rows, start = None, first - first % self._block
        if stop > start:
            new_stop = -(-stop // self._block) * self._block
            new_rows = self._read(start, new_stop)
            self._rows, self._first = self._append(new_rows, first, start)
            self._stop = new_stop
        assert self._rows is not None
        span = slice(first - self._first, stop - self._first)
        return tuple(array[..., span, :] for array in self._rows)

    def _append(self, new_rows: Rows, first: int, start: int) -> tuple[Rows, int]:
        """Return the rows from `first` with the new ones below them, and the number of the first row."""
        if self._rows is None:
            return new_rows, start
        kept = slice(first - self._first, None)
        pairs = zip(self._rows, new_rows, strict=True)
        return tuple(np.concatenate([old[..., kept, :], new], axis=-2) for old, new in pairs), first


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
