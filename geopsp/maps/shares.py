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

from geopsp.errors import ModelError
from geopsp.grid import Window
from geopsp.maps import kernels
from geopsp.maps.plan import UNIT

ONE = 2**17 - 1
"""The largest share; times all weights it still fits 32 bits."""

CACHED = 2**20
"""Bytes of an array that a step of several operations works on. Larger ones cost twice the time: they leave the
processor's cache between two operations, and their memory is new each time."""

Area = tuple[slice, slice]
"""Rows and columns."""


@dataclass(frozen=True, slots=True, eq=False)
class Told:
    """What is known of a tile's pixels, by areas that do not overlap."""

    core: Area
    """Where no other tile says anything."""

    index: Tensor
    """(rows, cols) uint8 of the core: channel of the likeliest class, the first of equals."""

    rims: list[tuple[Area, Tensor]]
    """Elsewhere: (classes, rows, cols) int32 shares, of ONE."""


def tell(scores: Tensor, edges: tuple[bytes, bytes], *, everywhere: bool) -> Told:
    """What scores, (classes, s, s), say of a tile.

    Args:
        scores: Logits: softmax makes probabilities of them.
        edges: The tile's weights, down and across.
        everywhere: True if shares are wanted also where no other tile says anything.

    Raises:
        ModelError: if they are not numbers.
    """
    rows, cols = (slice(0, 0),) * 2 if everywhere else (_alone(line) for line in edges)
    size = scores.shape[-1]
    whole, index = slice(0, size), torch.empty(rows.stop - rows.start, cols.stop - cols.start, dtype=torch.uint8)
    index = index.to(scores.device)
    for part in _strips(scores, (rows, cols)):
        near = scores[:, *part].contiguous()
        _require_numbers(first_of(near, index[part[0].start - rows.start : part[0].stop - rows.start]))
    rims = [(whole, whole)]
    if index.numel():
        above, below = slice(0, rows.start), slice(rows.stop, size)
        rims = [(above, whole), (rows, slice(0, cols.start)), (rows, slice(cols.stop, size)), (below, whole)]
    return Told((rows, cols), index, [(area, _shares(scores, area)) for area in rims if _holds(area)])


def first_of(values: Tensor, index: Tensor, area: Area | None = None) -> bool:
    """`index`, (rows, cols) uint8, says which of (classes, rows, cols) values is the largest, the first of equals.

    Args:
        values: Contiguous.
        index: Contiguous.
        area: Where; None: everywhere.

    Returns:
        True if all values are numbers under infinity, and not all of a pixel's are -inf.
    """
    rows, cols = area or (slice(0, values.shape[1]), slice(0, values.shape[2]))
    if kernels.serve(values.device.type):
        arrays = values.numpy(), index.numpy()
        return bool(kernels.first_of(*arrays, rows.start, rows.stop, cols.start, cols.stop))
    values, index = values[:, rows, cols], index[rows, cols]
    top = values.amax(dim=0)
    before = torch.ones_like(index)
    index.zero_()
    for channel in values[:-1]:  # counting those before it takes a quarter of the time of max(dim=0)
        before &= channel != top
        index += before
    return not values.is_floating_point() or bool(torch.isfinite(top).all())


def _holds(area: Area) -> bool:
    return all(side.stop > side.start for side in area)


@lru_cache(maxsize=64)
def _alone(line: bytes) -> slice:
    """The pixels of a tile, along an axis, that no other tile shares; 0 to 0 if there are none."""
    alone = np.flatnonzero(np.frombuffer(line, np.uint8) == UNIT)
    return slice(int(alone[0]), int(alone[-1]) + 1) if len(alone) else slice(0, 0)


def _strips(scores: Tensor, area: Area) -> list[Area]:
    """An area in pieces that stay in the cache."""
    rows, cols = area
    step = rows_at_once(4 * len(scores) * max(cols.stop - cols.start, 1), scores.device)
    return [
        (slice(top, min(top + step, rows.stop)), cols) for top in range(rows.start, rows.stop, step) if _holds(area)
    ]


def _shares(scores: Tensor, area: Area) -> Tensor:
    """(classes, rows, cols) int32, of ONE."""
    rows, cols = area
    shape = (len(scores), rows.stop - rows.start, cols.stop - cols.start)
    shares = torch.empty(shape, dtype=torch.int32, device=scores.device)
    for part in _strips(scores, area):
        near = scores[:, *part].contiguous()
        _require_numbers(_put_shares(near, near.softmax(dim=0), shares, part[0].start - rows.start))
    return shares


def _put_shares(scores: Tensor, chances: Tensor, shares: Tensor, top: int) -> bool:
    """The shares of these scores and probabilities stand from the row `top` on; False if they are not numbers."""
    if kernels.serve(scores.device.type):
        return bool(kernels.shares(scores.numpy(), chances.numpy(), ONE, shares.numpy(), top))
    best = scores.amax(dim=0)
    place = slice(top, top + scores.shape[1])
    shares[:, place] = chances.mul_(ONE - 1).add_(0.5)
    shares[:, place] += scores == best
    return bool(torch.isfinite(best).all())


def _require_numbers(known: bool) -> None:
    if not known:
        raise ModelError(
            "The network gives numbers that are not finite (NaN or infinite). Check its weights, or use precision "
            "fp32 (--precision fp32)."
        )


def rows_at_once(bytes_a_row: int, device: torch.device) -> int:
    """How many rows to work on at a time: on a CPU those that stay in its cache, elsewhere all."""
    return max(1, CACHED // bytes_a_row) if device.type == "cpu" else 1 << 30


def inside(area: Area, tile: Window) -> Window:
    """An area of a tile, where it lies on the map."""
    rows, cols = area
    return Window(tile.col + cols.start, tile.row + rows.start, cols.stop - cols.start, rows.stop - rows.start)
