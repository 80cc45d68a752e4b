"""What several tiles say of a pixel, as one: a weighted mean that is exact, so that no order and no cut can be seen.

Shares and weights are whole numbers, the weights of all tiles at a pixel sum to UNIT * UNIT, and the largest sum still
fits 32 bits. Sums of whole numbers are the same in any order, and where all tiles agree the mean is what they say, to
the last bit. Where a tile is alone, its class is the map's.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from geopsp.core.grid import Window
from geopsp.inference import kernels
from geopsp.inference.tile_plan import WEIGHT_ONE, TilePlan, bands_of
from geopsp.inference.tile_scores import SCORE_ONE, RowsCols, TileScores, first_of, inside, rows_at_once

FULL = SCORE_ONE * WEIGHT_ONE * WEIGHT_ONE
"""The largest sum there can be."""


@dataclass(frozen=True, slots=True, eq=False)
class BlendedRows:
    """Rows that no later tile touches, as views of the canvas; of no meaning where `valid` is False."""

    index: Tensor
    """(rows, cols) uint8: channel of the likeliest class, the first of equals."""

    valid: Tensor
    """(rows, cols) bool, on the CPU."""

    sums: Tensor
    """(classes, rows, cols) int32, of FULL: of all classes, where the canvas was asked for shares."""

    agreed: Tensor | None
    """(rows, cols) int32: what all tiles at a pixel grant its classes, of ONE; where they agree, all."""


class BlendBuffer:
    """The rows of a window of the map that later tiles may still touch."""

    def __init__(
        self, plan: TilePlan, window: Window, classes: int, device: torch.device, *, shares: bool, disagreement: bool
    ) -> None:
        """`shares`: True if they are wanted of every pixel; `disagreement`: if it shall be known where tiles differ."""
        self.window, self.row, self.reached = window, window.row, window.row
        self.rows = min(plan.size, window.height)
        shape = (self.rows, window.width)
        self.sums = torch.zeros(classes, *shape, dtype=torch.int32, device=device)
        self.least = torch.full_like(self.sums, SCORE_ONE) if disagreement else None
        self.index = torch.zeros(shape, dtype=torch.uint8, device=device)
        self.valid = torch.zeros(shape, dtype=torch.bool)
        self._bands = [slice(0, window.width)]
        if not shares:
            self._bands = bands_of(plan.shared_cols[window.col : window.col_stop])
        self._shared_rows = plan.shared_rows
        self._device = device

    def add(self, tile: Window, valid: Tensor, told: TileScores, weights: Tensor) -> None:
        """A tile counts.

        Args:
            tile: Where it lies.
            valid: (s, s) bool, on the CPU; True where there is ground.
            told: What the network says of it.
            weights: (s, s) int32, of UNIT * UNIT.
        """
        here = Window(self.window.col, self.row, self.window.width, self.rows)
        part = tile.intersect(here)
        if part.is_empty:
            return
        self.valid[part.slices(here)] = valid[part.slices(tile)]
        self.reached = max(self.reached, part.row_stop)
        core = inside(told.interior, tile)
        part = core.intersect(here)
        if not part.is_empty:
            self.index[part.slices(here)] = told.index[part.slices(core)]
        for area, shares in told.overlaps:
            rim = inside(area, tile)
            part = rim.intersect(here)
            if not part.is_empty:
                self._blend(part.slices(here), shares[:, *part.slices(rim)], weights, part.slices(tile))

    def _blend(self, place: RowsCols, shares: Tensor, weights: Tensor, inside: RowsCols) -> None:
        """`place` is an area of the canvas, `inside` the same of the tile."""
        if kernels.use_numba(self._device.type):
            starts = [side.start for side in (*place, *inside)]
            kernels.add_weighted(
                self.sums.numpy(), *starts[:2], shares.contiguous().numpy(), weights.numpy(), *starts[2:]
            )
        else:
            self.sums[:, *place].addcmul_(shares, weights[inside])
        if self.least is not None:
            least = self.least[:, *place]
            torch.minimum(least, shares, out=least)

    def finish_rows(self, row: int) -> Iterator[tuple[int, BlendedRows | None]]:
        """Gives out the rows above `row`, some at a time, and moves on.

        Each item is a number of rows and what they hold, None where no tile was added; it is to be used before the
        next one is asked for.
        """
        while (count := min(row - self.row, self.rows)) > 0:
            if self.reached <= self.row:
                yield count, None
            else:
                for part, bands in self._parts(count):
                    yield part.stop - part.start, self._finished(part, bands)
            self._move(count)

    def _parts(self, count: int) -> Iterator[tuple[slice, list[slice]]]:
        """The first rows in pieces, and the columns of each in which tiles meet."""
        shared = self._shared_rows[self.row : self.row + count]
        whole, top = slice(0, self.window.width), 0
        while top < count:
            bands = [whole] if shared[top] else self._bands
            width = max((band.stop - band.start for band in bands), default=1)
            step = rows_at_once(4 * len(self.sums) * width, self._device)
            stop = top + 1
            while stop < min(count, top + step) and shared[stop] == shared[top]:
                stop += 1
            yield slice(top, stop), bands
            top = stop

    def _finished(self, part: slice, bands: list[slice]) -> BlendedRows:
        for band in bands:
            first_of(self.sums, self.index, (part, band))
        agreed = None if self.least is None else self.least[:, part].sum(dim=0, dtype=torch.int32)
        return BlendedRows(self.index[part], self.valid[part], self.sums[:, part], agreed)

    def _move(self, count: int) -> None:
        """The rows below the first ones move up, and what lay in those that come is forgotten."""
        if self.reached > self.row:
            for part, bands in self._parts(count):
                for band in bands:
                    self.sums[:, part, band] = 0
            keep = self.rows - count
            fresh = slice(max(keep, count), None)  # those between are empty
            for store, empty in ((self.sums, 0), (self.least, SCORE_ONE), (self.valid, 0), (self.index, 0)):
                if store is not None:
                    store[..., :keep, :] = store[..., count:, :].clone()
                    store[..., fresh if store is self.sums else slice(keep, None), :] = empty
        self.row += count
