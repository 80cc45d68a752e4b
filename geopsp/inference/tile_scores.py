"""What the network says of a tile, as a map needs it: the class where the tile is alone, shares where others say more.

Shares are whole numbers, so that their weighted sums are exact: round((ONE - 1) p) of a probability p, and 1 more for
the likeliest class, so that a class that wins in a tile by however little also wins where tiles agree.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from geopsp.core.grid import Window
from geopsp.errors import ModelError
from geopsp.inference import kernels
from geopsp.inference.tile_plan import WEIGHT_ONE

SCORE_ONE = 2**17 - 1
"""The largest share; times all weights it still fits 32 bits."""


CACHED = 2**20
"""Bytes of an array that a step of several operations works on. Larger ones cost twice the time: they leave the
processor's cache between two operations, and their memory is new each time."""


RowsCols = tuple[slice, slice]
"""Rows and columns."""


@dataclass(frozen=True, slots=True, eq=False)
class TileScores:
    """What is known of a tile's pixels, by areas that do not overlap."""

    interior: RowsCols
    """Where no other tile says anything."""

    index: Tensor
    """(rows, cols) uint8 of the core: channel of the likeliest class, the first of equals."""

    overlaps: list[tuple[RowsCols, Tensor]]
    """Elsewhere: (classes, rows, cols) int32 shares, of ONE."""


def score_tile(scores: Tensor, edges: tuple[bytes, bytes], *, everywhere: bool) -> TileScores:
    """What scores, (classes, s, s), say of a tile.

    Args:
        scores: Logits: softmax makes probabilities of them.
        edges: The tile's weights, down and across.
        everywhere: True if shares are wanted also where no other tile says anything.

    Raises:
        ModelError: if they are not numbers.
    """
    alone = (slice(0, 0),) * 2 if everywhere else (_alone(edges[0]), _alone(edges[1]))
    say = _said if kernels.use_numba(scores.device.type) else _said_by_torch
    told, known = say(scores, alone, _around(alone, scores.shape[-1]))
    if not known:
        raise ModelError(
            "The network gives numbers that are not finite (NaN or infinite). Check its weights, or use precision "
            "fp32 (--precision fp32)."
        )
    return told


def _around(core: RowsCols, size: int) -> list[RowsCols]:
    """The areas of a tile beside its core."""
    whole, (rows, cols) = slice(0, size), core
    if not _holds(core):
        return [(whole, whole)]
    above, below = slice(0, rows.start), slice(rows.stop, size)
    rims = [(above, whole), (rows, slice(0, cols.start)), (rows, slice(cols.stop, size)), (below, whole)]
    return [rim for rim in rims if _holds(rim)]


def _said(scores: Tensor, core: RowsCols, rims: list[RowsCols]) -> tuple[TileScores, bool]:
    """What is told of a tile, and whether all scores are numbers."""
    pixels = scores.permute(1, 2, 0).contiguous().numpy()
    index = torch.empty(_shape(core), dtype=torch.uint8)
    known = bool(kernels.likeliest(pixels, core[0].start, core[1].start, index.numpy()))
    shares = [(rim, torch.empty(len(scores), *_shape(rim), dtype=torch.int32)) for rim in rims]
    for (rows, cols), room in shares:
        known &= bool(kernels.shares(pixels, rows.start, cols.start, SCORE_ONE, room.numpy()))
    return TileScores(core, index, shares), known


def _said_by_torch(scores: Tensor, core: RowsCols, rims: list[RowsCols]) -> tuple[TileScores, bool]:
    best = scores.amax(dim=0)
    index = torch.empty(_shape(core), dtype=torch.uint8, device=scores.device)
    first_of(scores[:, *core], index)
    shares = [(rim, _shares(scores[:, *rim], best[rim])) for rim in rims]
    return TileScores(core, index, shares), bool(torch.isfinite(best).all())


def _shares(scores: Tensor, best: Tensor) -> Tensor:
    """(classes, rows, cols) int32, of ONE."""
    return scores.softmax(dim=0).mul_(SCORE_ONE - 1).add_(0.5).to(torch.int32).add_(scores == best)


def first_of(values: Tensor, index: Tensor, area: RowsCols | None = None) -> None:
    """`index`, (rows, cols) uint8, says which of (classes, rows, cols) values is the largest, the first of equals.

    Args:
        values: On a CPU contiguous whole numbers.
        index: As contiguous.
        area: Where; None: everywhere.
    """
    rows, cols = area or (slice(0, values.shape[1]), slice(0, values.shape[2]))
    if kernels.use_numba(values.device.type):
        kernels.first_of(values.numpy(), index.numpy(), rows.start, rows.stop, cols.start, cols.stop)
        return
    values, index = values[:, rows, cols], index[rows, cols]
    if not index.numel():
        return
    top = values.amax(dim=0)
    before = torch.ones_like(index)
    index.zero_()
    for channel in values[:-1]:  # counting those before it takes a quarter of the time of max(dim=0)
        before &= channel != top
        index += before


def _shape(area: RowsCols) -> tuple[int, int]:
    rows, cols = area
    return rows.stop - rows.start, cols.stop - cols.start


def _holds(area: RowsCols) -> bool:
    return all(side.stop > side.start for side in area)


@lru_cache(maxsize=64)
def _alone(line: bytes) -> slice:
    """The pixels of a tile, along an axis, that no other tile shares; 0 to 0 if there are none."""
    alone = np.flatnonzero(np.frombuffer(line, np.uint8) == WEIGHT_ONE)
    return slice(int(alone[0]), int(alone[-1]) + 1) if len(alone) else slice(0, 0)


def rows_at_once(bytes_a_row: int, device: torch.device) -> int:
    """How many rows to work on at a time: on a CPU those that stay in its cache, elsewhere all."""
    return max(1, CACHED // bytes_a_row) if device.type == "cpu" else 1 << 30


def inside(area: RowsCols, tile: Window) -> Window:
    """An area of a tile, where it lies on the map."""
    rows, cols = area
    return Window(tile.col + cols.start, tile.row + rows.start, cols.stop - cols.start, rows.stop - rows.start)
