"""The weighted mean of overlapping tiles, exact: neither the order of tiles nor the cut into parts can be seen.

Scores and weights are whole numbers, the weights of all tiles at a pixel sum to WEIGHT_ONE squared, and the largest sum
still fits 32 bits. Sums of whole numbers are the same in any order, and where all tiles agree the mean is their score,
to the last bit. Where a tile is alone, its class is the map's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Window
from geopsp.inference.kernels_numba import NumbaOps
from geopsp.inference.tile_ops import Array, TileOps
from geopsp.inference.tile_plan import SCORE_ONE, WEIGHT_ONE, RowsCols, TilePlan, runs_of_true
from geopsp.inference.tile_scores import TileScores, area_window

SUM_ONE = SCORE_ONE * WEIGHT_ONE * WEIGHT_ONE
"""The weighted sum of probability 1, the largest there can be."""


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


class BlendBuffer:
    """Weighted class scores of the rows that later tiles may still overlap."""

    def __init__(
        self,
        plan: TilePlan,
        window: Window,
        classes: int,
        ops: NumbaOps,
        *,
        needs_scores: bool,
        needs_agreement: bool,
        image_bands: int = 0,
    ) -> None:
        """Make an empty buffer.

        Args:
            plan: The tiles of the map.
            window: The part of the map whose rows are blended.
            classes: Number of classes.
            ops: Of the CPU; `DeviceBlender` is for others.
            needs_scores: True gives sums of all pixels, not only where tiles overlap.
            needs_agreement: True also keeps how far tiles agree.
            image_bands: Bands of the image that are kept beside the scores; 0: none.
        """
        self.window, self.row, self.filled_stop = window, window.row, window.row
        self.rows = min(plan.size, window.height)
        shape = (self.rows, window.width)
        self.sums = ops.zeros((classes, *shape))
        self.smallest = ops.zeros((classes, *shape)) + SCORE_ONE if needs_agreement else None
        self.index = ops.zeros(shape, "uint8")
        self.valid = np.zeros(shape, bool)
        self.image = ops.zeros((image_bands, *shape), "float32") if image_bands else None
        self._summed_cols = [slice(0, window.width)]
        """Columns with sums, in rows where no tiles of two rows overlap."""
        if not needs_scores:
            self._summed_cols = runs_of_true(plan.shared_cols[window.col : window.col_stop])
        self._shared_rows = plan.shared_rows
        self._ops = ops

    def add(
        self, tile: Window, valid: NDArray[np.bool_], scores: TileScores, weights: Array, image: Array | None = None
    ) -> None:
        """Add a tile.

        Args:
            tile: Its window of the map.
            valid: (s, s)
            scores: Of the tile.
            weights: (s, s) int32, from 1 to WEIGHT_ONE squared.
            image: (bands, s, s) float32, if the buffer keeps it.
        """
        buffer = Window(self.window.col, self.row, self.window.width, self.rows)
        part = tile.intersect(buffer)
        if part.is_empty:
            return
        self.valid[part.slices(buffer)] = valid[part.slices(tile)]
        if self.image is not None and image is not None:
            self.image[:, *part.slices(buffer)] = image[:, *part.slices(tile)]
        self.filled_stop = max(self.filled_stop, part.row_stop)
        interior = area_window(scores.interior, tile)
        part = interior.intersect(buffer)
        if not part.is_empty:
            self.index[part.slices(buffer)] = scores.index[part.slices(interior)]
        for area, area_scores in scores.overlaps:
            overlap = area_window(area, tile)
            part = overlap.intersect(buffer)
            if not part.is_empty:
                found = area_scores[:, *part.slices(overlap)]
                self._blend(part.slices(buffer), found, weights, part.slices(tile))

    def _blend(self, target: RowsCols, scores: Array, weights: Array, source: RowsCols) -> None:
        """Add scores; `target` is their area in the buffer, `source` in the tile."""
        self._ops.add_weighted(self.sums, target, scores, weights, source)
        if self.smallest is not None:
            self._ops.lower(self.smallest[:, *target], scores)

    def finish_rows(self, row: int) -> Iterator[tuple[int, BlendedRows | None]]:
        """Yield the finished rows above `row` and drop them from the buffer.

        Each item is a number of rows and their content, None where no tile was added. Use it before the next one: it
        is a view of the buffer.
        """
        while (count := min(row - self.row, self.rows)) > 0:
            if self.filled_stop <= self.row:
                yield count, None
            else:
                for rows, columns in self._pieces(count):
                    yield rows.stop - rows.start, self._finished(rows, columns)
            self._drop(count)

    def _pieces(self, count: int) -> Iterator[tuple[slice, list[slice]]]:
        """Yield the first `count` rows, some at a time, with the columns of each that have sums."""
        shared = self._shared_rows[self.row : self.row + count]
        all_cols, top = slice(0, self.window.width), 0
        while top < count:
            columns = [all_cols] if shared[top] else self._summed_cols
            width = max((cols.stop - cols.start for cols in columns), default=1)
            step = self._ops.rows_at_once(4 * len(self.sums) * width)
            stop = top + 1
            while stop < min(count, top + step) and shared[stop] == shared[top]:
                stop += 1
            yield slice(top, stop), columns
            top = stop

    def _finished(self, rows: slice, columns: list[slice]) -> BlendedRows:
        for cols in columns:
            self._ops.argmax(self.sums, self.index, (rows, cols))
        agreement = None if self.smallest is None else self._ops.total(self.smallest[:, rows])
        image = None if self.image is None else self.image[:, rows]
        return BlendedRows(self.index[rows], self.valid[rows], self.sums[:, rows], agreement, self._ops, image)

    def _drop(self, count: int) -> None:
        """Move the rows below the first `count` up, and empty those that come into the buffer."""
        if self.filled_stop > self.row:
            for rows, columns in self._pieces(count):
                for cols in columns:
                    self.sums[:, rows, cols] = 0
            keep = self.rows - count
            fresh = slice(max(keep, count), None)  # the sums between are empty already
            stores = (self.sums, 0), (self.smallest, SCORE_ONE), (self.index, 0), (self.image, 0)
            for store, empty in stores:
                if store is not None:
                    store[..., :keep, :] = self._ops.copy(store[..., count:, :])
                    store[..., fresh if store is self.sums else slice(keep, None), :] = empty
            self.valid[:keep], self.valid[keep:] = self.valid[count:].copy(), False
        self.row += count
