"""Rows of a map that later tiles may still overlap: what all buffers of tiles have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Window
from geopsp.inference.tile_ops import Array, TileOps
from geopsp.inference.tile_plan import RowsCols, TilePlan


@dataclass(frozen=True, slots=True, eq=False)
class BlendedRows:
    """Rows that no later tile overlaps, as views of the buffer; undefined where `valid` is False."""

    index: Array
    """(rows, cols) uint8: channel of the likeliest class, the first of equal ones."""

    valid: NDArray[np.bool_]
    """(rows, cols); a copy on devices, where rows are encoded with delay."""

    sums: Array
    """(classes, rows, cols) int32, from 0 to SUM_ONE: of all pixels if the buffer was asked for scores.

    None of a `ClassBuffer`, which has no sums.
    """

    agreement: Array | None
    """(rows, cols) int32, up to about SCORE_ONE: the classes' smallest scores of any tile, added up."""

    ops: TileOps
    """Of the device that they are on."""

    image: Array | None = None
    """(bands, rows, cols) float32: normalised bands, if the buffer was asked for them."""


class RollingRows(ABC):
    """As many rows of a window of the map as a tile has; finished ones are given out, and others come in below."""

    def __init__(self, plan: TilePlan, window: Window, ops: TileOps) -> None:
        """Begin at the top.

        Args:
            plan: The tiles of the map.
            window: The part of the map whose rows are given out.
            ops: Of the device that the rows are on.
        """
        self.window, self.row, self.filled_stop = window, window.row, window.row
        self.rows = min(plan.size, window.height)
        self.shape = self.rows, window.width
        self.valid = np.zeros(self.shape, bool)
        self._ops = ops

    @property
    def held(self) -> Window:
        """The rows that are held, as a window of the map."""
        return Window(self.window.col, self.row, self.window.width, self.rows)

    def _place(self, tile: Window, valid: NDArray[np.bool_]) -> tuple[RowsCols, RowsCols] | None:
        """Take the valid mask, (s, s), of a tile; return where they meet, in the buffer and in the tile.

        None: nowhere.
        """
        part = tile.intersect(self.held)
        if part.is_empty:
            return None
        target, source = part.slices(self.held), part.slices(tile)
        self.valid[target] = valid[source]
        self.filled_stop = max(self.filled_stop, part.row_stop)
        return target, source

    def finish_rows(self, row: int) -> Iterator[tuple[int, BlendedRows | None]]:
        """Yield the finished rows above `row` and drop them from the buffer.

        Each item is a number of rows and their content, None where no tile was added. Use it, or on a device start
        what is computed of it, before the next one: it is a view of the buffer.
        """
        while (count := min(row - self.row, self.rows)) > 0:
            if self.filled_stop <= self.row:
                yield count, None
            else:
                yield from self._finished(count)
                self._drop(count)
            self.row += count

    @abstractmethod
    def _finished(self, count: int) -> Iterator[tuple[int, BlendedRows]]:
        """Yield the first `count` rows, all at once or some at a time."""

    @abstractmethod
    def _stores(self) -> Iterable[tuple[Array, int]]:
        """Return the arrays (..., rows, cols), beside the valid mask, and what they hold without a tile."""

    def _drop(self, count: int) -> None:
        """Move the rows below the first `count` up, and empty those that come into the buffer."""
        keep = self.rows - count
        for store, empty in self._stores():
            self._move_up(store, count)
            store[..., keep:, :] = empty
        self.valid[:keep], self.valid[keep:] = self.valid[count:].copy(), False

    def _move_up(self, store: Array, count: int) -> None:
        kept = store[..., count:, :]
        keep = kept.shape[-2]
        store[..., :keep, :] = self._ops.copy(kept) if keep > count else kept
