"""The corners on seams, at which borders of several cells meet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.polygons.borders.trace_arcs import ArcGraph
from geopsp.polygons.borders.trace_cell import CellGrid


@dataclass(frozen=True, slots=True, eq=False)
class SeamNodes:
    """Corners on seams, and the darts that leave them."""

    fixed: NDArray[np.float64]
    """(corners, 2) those where more than two borders meet, or nothing lies beside them."""

    through: NDArray[np.int64]
    """(corners,) one dart of each other, where the border of two regions was cut."""

    cuts: NDArray[np.int64]
    """(cuts,) those of them where it bends."""

    darts: NDArray[np.int64]
    """(darts,) all."""

    unknown: NDArray[np.int64]
    """(darts,) those of which the corner is not looked at yet, as it lies below these rows."""


def link_across_seams(net: ArcGraph, lattice: CellGrid, row: int, stop: int) -> SeamNodes:
    """What follows at the seams' corners in these rows is known: the first border to the left."""
    arcs = net.arcs
    keys, darts = _leaving(arcs.xy, arcs.starts, net.ways, lattice.width, lattice.height, lattice.side, row)
    order = np.argsort(keys)
    keys, darts = keys[order], darts[order]
    below = stop * (lattice.width + 1)
    places = _link(
        arcs.xy, arcs.starts, arcs.left, arcs.right, net.following, net.instead, net.kept, keys, darts, below
    )
    corners = np.unique(keys[~np.isin(keys >> 2, keys[places] >> 2)] >> 2)
    row_of, col_of = np.divmod(corners, lattice.width + 1)
    fixed, through = np.column_stack([col_of, row_of]).astype(np.float64), darts[places]
    cuts = through[net.kept[through >> 1, through & 1]]
    return SeamNodes(fixed, through, cuts, darts, darts[keys >> 2 >= below])


@jit
def _leaving(xy: Any, starts: Any, ways: Any, width: Any, height: Any, side: Any, row: Any) -> Any:
    """The darts that leave a corner on a seam, each with four times the corner's number plus its direction."""
    count = 2 * (starts.size - 1)
    keys, darts, used = np.empty(count, np.int64), np.empty(count, np.int64), 0
    for dart in range(count):
        at = starts[dart >> 1] if not dart & 1 else starts[(dart >> 1) + 1] - 1
        x, y = int(xy[at, 0]), int(xy[at, 1])
        if y < row or not ((x % side == 0 and 0 < x < width) or (y % side == 0 and 0 < y < height)):
            continue
        way = ways[dart >> 1, 0] if not dart & 1 else ways[dart >> 1, 1] ^ 2
        keys[used], darts[used] = (y * (width + 1) + x) * 4 + way, dart
        used += 1
    return keys[:used], darts[:used]


@jit
def _link(
    xy: Any, starts: Any, left: Any, right: Any, following: Any, instead: Any, kept: Any, keys: Any, darts: Any,
    stop: Any,
) -> Any:  # fmt: skip
    """Joins the darts of each corner before `stop`, which lie together.

    Gives the place of one dart at each where the border of two regions just goes on.
    Two borders that meet there in a straight line are one, and the corner none of a polygon's.
    """
    leaving, through, used = np.empty(4, np.int64), np.empty(keys.size, np.int64), 0
    low = 0
    while low < keys.size and keys[low] >> 2 < stop:
        for way in range(4):
            leaving[way] = -1
        high = low
        while high < keys.size and keys[high] >> 2 == keys[low] >> 2:
            leaving[keys[high] & 3] = darts[high]
            high += 1
        _join(leaving, following, instead)
        if high - low == 2:
            arc = darts[low] >> 1
            if _is_straight(xy, starts, darts[low], darts[low + 1]):
                for step in range(low, high):
                    kept[darts[step] >> 1, darts[step] & 1] = False
            if left[arc] > 0 and right[arc] > 0:
                through[used] = low
                used += 1
        low = high
    return through[:used]


@jit
def _join(leaving: Any, following: Any, instead: Any) -> None:
    """Each dart that arrives at a corner goes on with the first to the left of those that leave it."""
    full = leaving.min() >= 0
    for way in range(4):
        if leaving[way] < 0:
            continue
        arriving, onward = leaving[way] ^ 1, way ^ 2
        to_left, straight, to_right = leaving[(onward + 3) & 3], leaving[onward], leaving[(onward + 1) & 3]
        following[arriving] = to_left if to_left >= 0 else straight if straight >= 0 else to_right
        if full:
            instead[arriving] = to_right


@jit
def _is_straight(xy: Any, starts: Any, one: Any, two: Any) -> Any:
    """True if two darts that leave a corner do so in opposite directions."""
    at, step = (starts[one >> 1], 1) if not one & 1 else (starts[(one >> 1) + 1] - 1, -1)
    x, y = xy[at + step, 0] - xy[at, 0], xy[at + step, 1] - xy[at, 1]
    at, step = (starts[two >> 1], 1) if not two & 1 else (starts[(two >> 1) + 1] - 1, -1)
    u, v = xy[at + step, 0] - xy[at, 0], xy[at + step, 1] - xy[at, 1]
    return x * v == y * u and x * u + y * v < 0
