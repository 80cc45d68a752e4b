"""What several tiles say of a pixel, as one: a weighted mean that is exact, so that no order and no cut can be seen.

Probabilities and weights are whole numbers: a probability p is round(ONE * p), the weights of all tiles at a pixel sum
to UNIT * UNIT, and the largest sum still fits 32 bits. Sums of whole numbers are the same in any order, and where all
tiles agree the mean is what they say, to the last bit.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geopsp.grid import Window
from geopsp.maps.plan import UNIT

ONE = 2**17 - 1
"""The whole number that stands for a probability of 1."""

FULL = ONE * UNIT * UNIT
"""The same times all weights: the largest sum there can be."""

CACHED = 2**20
"""Bytes of an array that a step of several operations works on. Larger ones cost twice the time: they leave the
processor's cache between two operations, and their memory is new each time."""


@dataclass(frozen=True, slots=True, eq=False)
class Finished:
    """Rows that no later tile touches, as views of the canvas; of no meaning where `valid` is False."""

    index: Tensor
    """(rows, cols) uint8: channel of the likeliest class, the first of equals."""

    valid: Tensor
    """(rows, cols) bool, on the CPU."""

    top: Tensor
    """(rows, cols) int32: the sum of the likeliest class, of FULL."""

    sums: Tensor
    """(classes, rows, cols) int32: of all classes."""

    agreed: Tensor | None
    """(rows, cols) int32: what all tiles at a pixel grant its classes, of ONE; where they agree, all."""


class Canvas:
    """The rows of a window of the map that later tiles may still touch."""

    def __init__(self, window: Window, size: int, classes: int, device: torch.device, *, disagreement: bool) -> None:
        """`size` is the tiles'; `disagreement`: True if it shall be known where tiles differ."""
        self.window, self.row, self.reached = window, window.row, window.row
        self.rows = min(size, window.height)
        shape = (self.rows, window.width)
        self.sums = torch.zeros(classes, *shape, dtype=torch.int32, device=device)
        self.least = torch.full_like(self.sums, ONE) if disagreement else None
        self.valid = torch.zeros(shape, dtype=torch.bool)
        self.step = rows_at_once(4 * classes * window.width, device)

    def add(self, tile: Window, valid: Tensor, shares: Tensor, weights: Tensor) -> None:
        """A tile counts.

        Args:
            tile: Where it lies.
            valid: (s, s) bool, on the CPU; True where there is ground.
            shares: (classes, s, s) int32, of ONE.
            weights: (s, s) int32, of UNIT * UNIT.
        """
        here = Window(self.window.col, self.row, self.window.width, self.rows)
        part = tile.intersect(here)
        if part.empty:
            return
        inside, place = part.slices(tile), part.slices(here)
        shares = shares[:, *inside]
        self.sums[:, *place].addcmul_(shares, weights[inside])
        if self.least is not None:
            least = self.least[:, *place]
            torch.minimum(least, shares, out=least)
        self.valid[place] = valid[inside]
        self.reached = max(self.reached, part.row_stop)

    def up_to(self, row: int) -> Iterator[tuple[int, Finished | None]]:
        """Gives out the rows above `row`, some at a time, and moves on.

        Each item is a number of rows and what they hold, None where no tile was added; it is to be used before the
        next one is asked for.
        """
        while (count := min(row - self.row, self.rows)) > 0:
            if self.reached <= self.row:
                yield count, None
            else:
                for top in range(0, count, self.step):
                    part = slice(top, min(top + self.step, count))
                    yield part.stop - top, self._finished(part)
            self._move(count)

    def _finished(self, part: slice) -> Finished:
        sums = self.sums[:, part]
        top = sums.amax(dim=0)
        agreed = None if self.least is None else self.least[:, part].sum(dim=0, dtype=torch.int32)
        return Finished(first_of(sums, top), self.valid[part], top, sums, agreed)

    def _move(self, count: int) -> None:
        if self.reached > self.row:
            keep = self.rows - count
            for store, empty in ((self.sums, 0), (self.least, ONE), (self.valid, 0)):
                if store is not None:
                    store[..., :keep, :] = store[..., count:, :].clone()
                    store[..., keep:, :] = empty
        self.row += count


def first_of(sums: Tensor, top: Tensor) -> Tensor:
    """(rows, cols) uint8: the first of (classes, rows, cols) that equals the largest.

    Counting those before it takes a quarter of the time of `max(dim=0)`, and is the same on every device.
    """
    if sums.device.type == "cpu":
        return torch.from_numpy(_first_of(sums.numpy(), top.numpy()))
    before = torch.ones_like(top, dtype=torch.uint8)
    index = torch.zeros_like(before)
    for channel in sums[:-1]:
        before &= channel != top
        index += before
    return index


def _first_of(sums: NDArray[np.int32], top: NDArray[np.int32]) -> NDArray[np.uint8]:
    """The same by numpy, which compares twice as fast."""
    before = np.ones(top.shape, bool)
    index = np.zeros(top.shape, np.uint8)
    for channel in sums[:-1]:
        before &= channel != top
        index += before.view(np.uint8)
    return index


def rows_at_once(bytes_a_row: int, device: torch.device) -> int:
    """How many rows to work on at a time: on a CPU those that stay in its cache, elsewhere all."""
    return max(1, CACHED // bytes_a_row) if device.type == "cpu" else 1 << 30
