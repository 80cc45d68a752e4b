"""Link arcs of several cells at the corners where they meet a seam."""

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
    """Pixel corners on seams where arcs end, and the darts that leave them."""

    fixed: NDArray[np.float64]
    """(n, 2) corners where more than two borders meet, or that touch nodata, or that are not linked yet."""

    through: NDArray[np.int64]
    """(n,) one dart of each other corner, where a border of two regions was cut."""

    bends: NDArray[np.int64]
    """(n,) those of them where the border bends."""

    darts: NDArray[np.int64]
    """(darts,) all darts that leave corners on seams."""

    unlinked: NDArray[np.int64]
    """(darts,) those whose corner is not linked yet, as it lies below the rows of cells."""


def link_across_seams(graph: ArcGraph, grid: CellGrid, row: int, row_stop: int) -> SeamNodes:
    """Fill in the next darts at corners on seams between two rows: the leftmost dart."""
    arcs = graph.arcs
    keys, darts = _darts_at_seams(arcs.xy, arcs.starts, graph.directions, grid.width, grid.height, grid.cell_size, row)
    order = np.argsort(keys)
    keys, darts = keys[order], darts[order]
    corner_stop = row_stop * (grid.width + 1)
    positions = _link(
        arcs.xy, arcs.starts, arcs.left, arcs.right, graph.next_dart, graph.next_dart_same_region, graph.is_vertex,
        keys, darts, corner_stop,
    )  # fmt: skip
    fixed = np.unique(keys[~np.isin(keys >> 2, keys[positions] >> 2)] >> 2)
    rows, cols = np.divmod(fixed, grid.width + 1)
    through = darts[positions]
    bends = through[graph.is_vertex[through >> 1, through & 1]]
    return SeamNodes(
        np.column_stack([cols, rows]).astype(np.float64), through, bends, darts, darts[keys >> 2 >= corner_stop]
    )


@jit("f8[:, ::1]", "i8[::1]", "i1[:, ::1]", "i8", "i8", "i8", "i8")
def _darts_at_seams(xy: Any, starts: Any, directions: Any, width: Any, height: Any, cell_size: Any, row: Any) -> Any:
    """Return the darts that leave a corner on a seam, with keys of four times the corner's number plus direction."""
    count = 2 * (starts.size - 1)
    keys, darts, used = np.empty(count, np.int64), np.empty(count, np.int64), 0
    for dart in range(count):
        at = starts[dart >> 1] if not dart & 1 else starts[(dart >> 1) + 1] - 1
        x, y = int(xy[at, 0]), int(xy[at, 1])
        if y < row or not ((x % cell_size == 0 and 0 < x < width) or (y % cell_size == 0 and 0 < y < height)):
            continue
        direction = directions[dart >> 1, 0] if not dart & 1 else directions[dart >> 1, 1] ^ 2
        keys[used], darts[used] = (y * (width + 1) + x) * 4 + direction, dart
        used += 1
    return keys[:used], darts[:used]


@jit("f8[:, ::1]", "i8[::1]", "i4[::1]", "i4[::1]", "i4[::1]", "i4[::1]", "b1[:, ::1]", "i8[::1]", "i8[::1]", "i8")
def _link(
    xy: Any,
    starts: Any,
    left: Any,
    right: Any,
    next_dart: Any,
    next_same: Any,
    is_vertex: Any,
    keys: Any,
    darts: Any,
    corner_stop: Any,
) -> Any:
    """Link the darts of each corner before `corner_stop`; the darts are sorted by corner.

    Two borders that meet in a straight line are one, so their corner becomes no vertex of a polygon.

    Returns:
        The position in `darts` of one dart for each corner where the border of two regions continues.
    """
    leaving, through, used = np.empty(4, np.int64), np.empty(keys.size, np.int64), 0
    low = 0
    while low < keys.size and keys[low] >> 2 < corner_stop:
        for direction in range(4):
            leaving[direction] = -1
        high = low
        while high < keys.size and keys[high] >> 2 == keys[low] >> 2:
            leaving[keys[high] & 3] = darts[high]
            high += 1
        _connect(leaving, next_dart, next_same)
        if high - low == 2:
            arc = darts[low] >> 1
            if _is_straight(xy, starts, darts[low], darts[low + 1]):
                for at in range(low, high):
                    is_vertex[darts[at] >> 1, darts[at] & 1] = False
            if left[arc] > 0 and right[arc] > 0:
                through[used] = low
                used += 1
        low = high
    return through[:used]


@jit()
def _connect(leaving: Any, next_dart: Any, next_same: Any) -> None:
    """Set the next dart of each dart that arrives at a corner: the leftmost of those that leave it."""
    full = leaving.min() >= 0
    for direction in range(4):
        if leaving[direction] < 0:
            continue
        arriving, onward = leaving[direction] ^ 1, direction ^ 2
        to_left, straight, to_right = leaving[(onward + 3) & 3], leaving[onward], leaving[(onward + 1) & 3]
        next_dart[arriving] = to_left if to_left >= 0 else straight if straight >= 0 else to_right
        if full:
            next_same[arriving] = to_right


@jit()
def _is_straight(xy: Any, starts: Any, one: Any, two: Any) -> Any:
    """Return True if two darts leave a corner in opposite directions."""
    at, step = (starts[one >> 1], 1) if not one & 1 else (starts[(one >> 1) + 1] - 1, -1)
    x, y = xy[at + step, 0] - xy[at, 0], xy[at + step, 1] - xy[at, 1]
    at, step = (starts[two >> 1], 1) if not two & 1 else (starts[(two >> 1) + 1] - 1, -1)
    u, v = xy[at + step, 0] - xy[at, 0], xy[at + step, 1] - xy[at, 1]
    return x * v == y * u and x * u + y * v < 0
