"""The weighted mean of overlapping tiles, exact: neither the order of tiles nor the cut into parts can be seen.

Scores and weights are whole numbers, the weights of all tiles at a pixel sum to WEIGHT_ONE squared, and the largest sum
still fits 32 bits. Sums of whole numbers are the same in any order, and where all tiles agree the mean is their score,
to the last bit. Where a tile is alone, its class is the map's.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Window
from geopsp.inference.kernels_numba import NumbaOps
from geopsp.inference.rolling_rows import BlendedRows, RollingRows
from geopsp.inference.tile_ops import Array
from geopsp.inference.tile_plan import SCORE_ONE, WEIGHT_ONE, RowsCols, TilePlan, runs_of_true
from geopsp.inference.tile_scores import TileScores, area_window

SUM_ONE = SCORE_ONE * WEIGHT_ONE * WEIGHT_ONE
"""The weighted sum of probability 1, the largest there can be."""


class BlendBuffer(RollingRows):
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
        super().__init__(plan, window, ops)
        self._ops: NumbaOps = ops
        self.sums = ops.zeros((classes, *self.shape))
        self.smallest = ops.zeros((classes, *self.shape)) + SCORE_ONE if needs_agreement else None
        self.index = ops.zeros(self.shape, "uint8")
        self.image = ops.zeros((image_bands, *self.shape), "float32") if image_bands else None
        self._summed_cols = [slice(0, window.width)]
        """Columns with sums, in rows where no tiles of two rows overlap."""
        if not needs_scores:
            self._summed_cols = runs_of_true(plan.shared_cols[window.col : window.col_stop])
        self._shared_rows = plan.shared_rows

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
        placed = self._place(tile, valid)
        if placed is None:
            return
        target, source = placed
        if self.image is not None and image is not None:
            self.image[:, *target] = image[:, *source]
        buffer = self.held
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

    def _finished(self, count: int) -> Iterator[tuple[int, BlendedRows]]:
        for rows, columns in self._pieces(count):
            for cols in columns:
                self._ops.argmax(self.sums, self.index, (rows, cols))
            agreement = None if self.smallest is None else self._ops.total(self.smallest[:, rows])
            image = None if self.image is None else self.image[:, rows]
            sums = self.sums[:, rows]
            yield (
                rows.stop - rows.start,
                BlendedRows(self.index[rows], self.valid[rows], sums, agreement, self._ops, image),
            )

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

    def _stores(self) -> Iterable[tuple[Array, int]]:
        stores = (self.smallest, SCORE_ONE), (self.index, 0), (self.image, 0)
        return [(store, empty) for store, empty in stores if store is not None]

    def _drop(self, count: int) -> None:
        for rows, columns in self._pieces(count):
            for cols in columns:
                self.sums[:, rows, cols] = 0
        self._move_up(self.sums, count)
        self.sums[:, max(self.rows - count, count) :] = 0  # those between are empty already
        super()._drop(count)
