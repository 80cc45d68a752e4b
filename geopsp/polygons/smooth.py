"""Rounded borders of two regions, with no gap and no overlap."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.polygons.compiled import compiled
from geopsp.polygons.planar import Arcs

REACH = 2.0
"""Pixels along columns or rows: the first round takes less than this off the end of an edge, the second less than half
of it, and so on; edges stay straight where they are longer."""

FAR = 8.0
"""The same in units of `REACH` where the next edge is so short that the border hardly moves: the steps of a slant."""


def smoothed(arcs: Arcs, rounds: int) -> Arcs:
    """The same arcs with their corners cut, over and over, until they look like curves.

    Each round takes a quarter off both ends of an edge, so it rounds corners, but half where the border turns left at
    one end and right at the other, so that steps become a straight line; and less where that is not below the reach.
    Nodes stay, and so do arcs with nothing on a side: the frame and the edge of nodata. A corner is not cut where any
    other vertex is in the way, so no two arcs cross or touch that did not, and all regions stay, with the same
    neighbours. No point of a border ends up 2 * `REACH` or more from where it was.

    Args:
        arcs: All arcs of a cell.
        rounds: Two or three look smooth.

    Source: Chaikin, An algorithm for high-speed curve generation, 1974.
    """
    inner = (arcs.left > 0) & (arcs.right > 0)
    xy, starts = arcs.xy.astype(np.float64), arcs.starts
    if not inner.any():
        return Arcs(xy, starts, arcs.left, arcs.right)
    loops = inner & _loops(arcs)
    for number in range(rounds):
        reach = REACH / 2**number
        turns = _turns(xy, starts, inner, loops)
        legs = _legs(xy, starts, loops, turns, reach)
        _keep_blocked(xy, turns, legs, *_bins(xy))
        xy, starts = _cut(xy, starts, loops, turns, legs)
    return Arcs(xy, starts, arcs.left, arcs.right)


def _loops(arcs: Arcs) -> NDArray[np.bool_]:
    """(arcs,) True where an arc goes round to where no other ends: its first vertex is like all others."""
    first, last = arcs.xy[arcs.starts[:-1]], arcs.xy[arcs.starts[1:] - 1]
    _, ends, counts = np.unique(np.concatenate([first, last]) @ (1, 1j), return_inverse=True, return_counts=True)
    result: NDArray[np.bool_] = (first == last).all(axis=1) & (counts[ends[: len(arcs)]] == 2)
    return result


@compiled
def _turns(xy: Any, starts: Any, inner: Any, loops: Any) -> Any:
    """(vertices,) 1 or -1 where an inner arc turns to one side or the other, 0 where it does not, and at its ends."""
    turns = np.zeros(len(xy), np.int8)
    for arc in range(inner.size):
        begin, end = starts[arc], starts[arc + 1] - 1
        if not inner[arc]:
            continue
        for at in range(begin if loops[arc] else begin + 1, end):
            before = at - 1 if at > begin else end - 1
            turns[at] = np.sign(_turn(xy[before, 0], xy[before, 1], xy[at, 0], xy[at, 1], xy[at + 1, 0], xy[at + 1, 1]))
        if loops[arc]:
            turns[end] = turns[begin]  # one corner
    return turns


@compiled
def _turn(ax: Any, ay: Any, bx: Any, by: Any, cx: Any, cy: Any) -> Any:
    """Twice the area of a triangle, positive to one side; to the last bit the other number if a and c change places."""
    return (ax - bx) * (cy - by) - (ay - by) * (cx - bx)


@compiled
def _legs(xy: Any, starts: Any, loops: Any, turns: Any, reach: Any) -> Any:
    """(vertices, 4) where the edges before and after a corner are cut."""
    legs = np.empty((len(xy), 4))
    for arc in range(loops.size):
        begin, end = starts[arc], starts[arc + 1] - 1
        for at in range(begin, end):
            if turns[at] == 0:
                continue
            before = at - 1 if at > begin else end - 1
            back, ahead = _length(xy, at, before), _length(xy, at, at + 1)
            for place, other, length, beside in ((0, before, back, ahead), (2, at + 1, ahead, back)):
                step = turns[at] * turns[other] <= 0
                share, most = 0.5 if step else 0.25, reach * FAR if step and beside <= reach / 2 else reach
                while share * length >= most:
                    share /= 2
                legs[at, place] = xy[at, 0] + share * (xy[other, 0] - xy[at, 0])
                legs[at, place + 1] = xy[at, 1] + share * (xy[other, 1] - xy[at, 1])
        if loops[arc]:
            legs[end] = legs[begin]
    return legs


@compiled
def _length(xy: Any, one: Any, two: Any) -> Any:
    """Pixels along columns or rows, whichever are more."""
    return max(abs(xy[one, 0] - xy[two, 0]), abs(xy[one, 1] - xy[two, 1]))


@compiled
def _bins(xy: Any) -> Any:
    """Vertices by the pixel that they lie in: where each pixel's begin in their order, the order, the first pixel."""
    low = np.array([np.floor(xy[:, 0].min()), np.floor(xy[:, 1].min())])
    first = np.zeros((int(xy[:, 1].max() - low[1]) + 1, int(xy[:, 0].max() - low[0]) + 1), np.int32)
    for at in range(len(xy)):
        first[int(xy[at, 1] - low[1]), int(xy[at, 0] - low[0])] += 1
    flat, total = first.reshape(-1), 0
    for pixel in range(flat.size):
        total += flat[pixel]
        flat[pixel] = total
    order = np.empty(len(xy), np.int32)
    for at in range(len(xy)):
        row, col = int(xy[at, 1] - low[1]), int(xy[at, 0] - low[0])
        first[row, col] -= 1
        order[first[row, col]] = at
    return first, order, low


@compiled
def _keep_blocked(xy: Any, turns: Any, legs: Any, first: Any, order: Any, low: Any) -> None:
    """No turn any more at corners whose triangle, sides included, holds another vertex.

    Arcs do not cross, so one that reached into a triangle would have a vertex there; and so two such triangles are
    apart.
    """
    cols, flat = first.shape[1], first.reshape(-1)
    blocked = np.zeros(turns.size, np.bool_)
    for at in range(turns.size):
        if turns[at] != 0:
            blocked[at] = _held(xy, at, legs[at], flat, cols, order, low)
    turns[blocked] = 0


@compiled
def _held(xy: Any, at: Any, legs: Any, first: Any, cols: Any, order: Any, low: Any) -> Any:
    """True if a vertex that lies elsewhere is in the triangle of this one and its legs."""
    px, py, ax, ay, bx, by = xy[at, 0], xy[at, 1], legs[0], legs[1], legs[2], legs[3]
    left, right = min(px, ax, bx), max(px, ax, bx)
    top, bottom = min(py, ay, by), max(py, ay, by)
    for row in range(int(top - low[1]), int(bottom - low[1]) + 1):
        begin, end = row * cols + int(left - low[0]), row * cols + int(right - low[0]) + 1
        for place in range(first[begin], first[end] if end < first.size else order.size):
            x, y = xy[order[place], 0], xy[order[place], 1]
            if x < left or x > right or y < top or y > bottom or (x == px and y == py):
                continue
            one, two, three = _turn(px, py, x, y, ax, ay), _turn(ax, ay, x, y, bx, by), _turn(bx, by, x, y, px, py)
            if min(one, two, three) >= 0 or max(one, two, three) <= 0:
                return True
    return False


@compiled
def _cut(xy: Any, starts: Any, loops: Any, turns: Any, legs: Any) -> Any:
    """The arcs with the two legs of each corner that turns instead of it, one vertex where those of two meet."""
    new, new_starts = np.empty((2 * len(xy), 2)), np.zeros_like(starts)
    used = 0
    for arc in range(loops.size):
        begin, end = starts[arc], starts[arc + 1] - 1
        for at in range(begin, end if loops[arc] else end + 1):
            if turns[at] == 0:
                new[used] = xy[at]
                used += 1
                continue
            if at == begin or new[used - 1, 0] != legs[at, 0] or new[used - 1, 1] != legs[at, 1]:
                new[used, 0], new[used, 1] = legs[at, 0], legs[at, 1]
                used += 1
            new[used, 0], new[used, 1] = legs[at, 2], legs[at, 3]
            used += 1
        if loops[arc]:
            new_first = new[new_starts[arc]]
            if new[used - 1, 0] != new_first[0] or new[used - 1, 1] != new_first[1]:
                new[used] = new_first
                used += 1
        new_starts[arc + 1] = used
    return new[:used].copy(), new_starts
