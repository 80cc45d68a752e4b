"""The logits of a tile as a map needs them: classes where the tile is alone, scores where tiles overlap.

Scores are whole numbers, so that their weighted sums are exact: round((SCORE_ONE - 1) p) of a probability p, and 1 more
for the likeliest class, so that a class that wins in a tile by however little also wins where tiles agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from geopsp.core.grid import Window
from geopsp.errors import ModelError
from geopsp.inference.kernels_numba import NumbaOps
from geopsp.inference.tile_ops import Array
from geopsp.inference.tile_plan import WEIGHT_ONE, RowsCols

NOT_FINITE = (
    'The network gives numbers that are not finite (NaN or infinite). Check its weights, or use `precision="fp32"`.'
)


@dataclass(frozen=True, slots=True, eq=False)
class TileScores:
    """Classes and scores of a tile, by areas that do not overlap."""

    interior: RowsCols
    """Where no other tile counts."""

    index: Array
    """(rows, cols) uint8 of the interior: channel of the likeliest class, the first of equal ones."""

    overlaps: list[tuple[RowsCols, Array]]
    """Elsewhere: (classes, rows, cols) int32 scores, from 0 to SCORE_ONE."""


def score_tile(logits: Array, edges: tuple[bytes, bytes], ops: NumbaOps, *, everywhere: bool) -> TileScores:
    """Make classes and scores of the logits of a tile, (classes, s, s).

    Args:
        logits: Softmax makes probabilities of them.
        edges: The tile's weights, down and across.
        ops: Of the CPU.
        everywhere: True gives scores also where no other tile counts.

    Raises:
        ModelError: if logits are NaN or infinite.
    """
    interior = (slice(0, 0),) * 2 if everywhere else _interior(edges)
    areas = _around(interior, logits.shape[-1])
    index, scores, usable = ops.score(logits, interior, areas)
    if not usable:
        raise ModelError(NOT_FINITE)
    return TileScores(interior, index, list(zip(areas, scores, strict=True)))


def shared_areas(edges: tuple[bytes, bytes]) -> list[RowsCols]:
    """Return the areas of a tile, which do not overlap, where other tiles count."""
    return _around(_interior(edges), len(edges[0]))


def _interior(edges: tuple[bytes, bytes]) -> RowsCols:
    return _unshared(edges[0]), _unshared(edges[1])


def _around(interior: RowsCols, size: int) -> list[RowsCols]:
    """Return the areas of a tile beside its interior."""
    whole, (rows, cols) = slice(0, size), interior
    if _is_empty(interior):
        return [(whole, whole)]
    above, below = slice(0, rows.start), slice(rows.stop, size)
    areas = [(above, whole), (rows, slice(0, cols.start)), (rows, slice(cols.stop, size)), (below, whole)]
    return [area for area in areas if not _is_empty(area)]


def _is_empty(area: RowsCols) -> bool:
    return any(side.stop <= side.start for side in area)


@lru_cache(maxsize=64)
def _unshared(line: bytes) -> slice:
    """Return the pixels of a tile, along an axis, where no other tile counts; 0 to 0 if there are none."""
    found = np.flatnonzero(np.frombuffer(line, np.uint8) == WEIGHT_ONE)
    return slice(int(found[0]), int(found[-1]) + 1) if len(found) else slice(0, 0)


def area_window(area: RowsCols, tile: Window) -> Window:
    """Return the window of the map that an area of a tile covers."""
    rows, cols = area
    return Window(tile.col + cols.start, tile.row + rows.start, cols.stop - cols.start, rows.stop - rows.start)
