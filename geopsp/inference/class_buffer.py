"""The classes of a map without the scores of its pixels, which only matter where tiles do not agree.

A class that is the likeliest in all tiles of a pixel also has the largest sum of their weighted scores, see
`tile_scores`. So scores are computed where tiles differ, when all of them are there; until then the logits are kept of
the pixels that tiles share. The map is that of `BlendBuffer`, to the byte.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Window
from geopsp.errors import ModelError
from geopsp.inference.classes_numba import UNKNOWN, add_scores, likeliest, take_classes
from geopsp.inference.rolling_rows import BlendedRows, RollingRows
from geopsp.inference.tile_ops import Array, TileOps
from geopsp.inference.tile_plan import RowsCols, TilePlan
from geopsp.inference.tile_scores import NOT_FINITE, area_window, shared_areas

MOST_SHARED = 4
"""Tiles overlap by at most 1 / MOST_SHARED of their size: with more, logits would take more memory than sums do."""


def holds_less_than_sums(plan: TilePlan) -> bool:
    """Return whether logits of overlaps take no more memory than the sums of a `BlendBuffer`, or hardly more."""
    return plan.overlap * MOST_SHARED <= plan.size


@dataclass(frozen=True, slots=True, eq=False)
class TileClasses:
    """Classes of a tile."""

    index: NDArray[np.uint8]
    """(s, s) channel of the likeliest class, the first of equal ones."""

    shared: list[tuple[RowsCols, NDArray[np.float32]]]
    """Areas where other tiles count, which do not overlap, with (rows, cols, classes) logits."""


def classify_tile(logits: NDArray[np.float32], edges: tuple[bytes, bytes]) -> TileClasses:
    """Make classes of the logits of a tile, (classes, s, s).

    Args:
        logits: Softmax makes probabilities of them.
        edges: The tile's weights, down and across.

    Raises:
        ModelError: if logits are NaN or infinite.
    """
    pixels = np.ascontiguousarray(logits.transpose(1, 2, 0))
    index, usable = likeliest(pixels)
    if not usable:
        raise ModelError(NOT_FINITE)
    return TileClasses(index, [(area, pixels[area].copy()) for area in shared_areas(edges)])


@dataclass(frozen=True, slots=True, eq=False)
class _Kept:
    """An area of a tile whose logits may be needed."""

    window: Window
    """In pixels of the map."""

    area: RowsCols
    """In pixels of the tile."""

    logits: NDArray[np.float32]
    """(rows, cols, classes)"""

    weights: NDArray[np.int32]
    """(s, s) of the tile."""


class ClassBuffer(RollingRows):
    """Classes of the rows that later tiles may still overlap."""

    def __init__(self, plan: TilePlan, window: Window, classes: int, ops: TileOps) -> None:
        """Make an empty buffer.

        Args:
            plan: The tiles of the map.
            window: The part of the map whose rows are blended.
            classes: Number of classes.
            ops: Of the CPU.
        """
        super().__init__(plan, window, ops)
        self.index, self.disputed = np.full(self.shape, UNKNOWN, np.uint8), np.zeros(self.shape, bool)
        self._kept: list[_Kept] = []
        self._classes = classes

    def add(
        self,
        tile: Window,
        valid: NDArray[np.bool_],
        found: TileClasses,
        weights: NDArray[np.int32],
        image: None = None,
    ) -> None:
        """Add a tile.

        Args:
            tile: Its window of the map.
            valid: (s, s)
            found: Its classes.
            weights: (s, s), from 1 to WEIGHT_ONE squared.
            image: Not kept.
        """
        placed = self._place(tile, valid)
        if placed is None:
            return
        target, source = placed
        take_classes(self.index, self.disputed, target, found.index, source)
        for area, logits in found.shared:
            window = area_window(area, tile)
            if not window.intersect(self.held).is_empty:
                self._kept.append(_Kept(window, area, logits, weights))

    def _finished(self, count: int) -> Iterator[tuple[int, BlendedRows]]:
        self._settle(count)
        yield count, BlendedRows(self.index[:count], self.valid[:count], None, None, self._ops)

    def _settle(self, count: int) -> None:
        """Write the classes of the first `count` rows where tiles do not agree."""
        found = np.flatnonzero(self.disputed[:count])  # in two dimensions numpy is many times slower
        if not len(found):
            return
        rows, cols = np.divmod(found, self.window.width)
        sums = np.zeros((len(rows), self._classes), np.int32)
        for kept in self._kept:
            top, left = kept.window.row - self.row, kept.window.col - self.window.col
            add_scores(sums, rows - top, cols - left, kept.logits, kept.weights, kept.area)
        self.index[rows, cols] = sums.argmax(axis=1)

    def _stores(self) -> Iterable[tuple[Array, int]]:
        return (self.index, UNKNOWN), (self.disputed, False)

    def _drop(self, count: int) -> None:
        super()._drop(count)
        self._kept = [kept for kept in self._kept if kept.window.row_stop > self.row + count]
