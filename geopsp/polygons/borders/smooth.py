"""Rounded borders of two regions, with no gap and no overlap."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.polygons.borders.topology import Arcs

REACH = 2.0
"""Pixels along columns or rows: the first round takes less than this off the end of an edge, the second less than half
of it, and so on; edges stay straight where they are longer."""


FAR = 8.0
"""The same in units of `REACH` where the next edge is so short that the border hardly moves: the steps of a slant."""


BIN = 8.0
"""Pixels on a side of the squares in which vertices near seams are looked up; in cells these are pixels."""


WAITS, NOW, AHEAD = 0, 1, 2
"""What a vertex does in a round: it had fewer before it, all, or this one too."""


@dataclass(frozen=True, slots=True, eq=False)
class SmoothingState:
    """Arcs that are being smoothed."""

    arcs: Arcs

    loops: NDArray[np.bool_]
    """(arcs,) True where one goes round to where no other ends: its first vertex is like all others."""

    done: NDArray[np.int8]
    """(vertices,) how many rounds each has had."""

    waits: NDArray[np.bool_]
    """(arcs, 2) True at ends where it is not known yet how the border goes on."""


def smooth_arcs(arcs: Arcs, rounds: int, *, waits: NDArray[np.bool_] | None = None, hold: float = np.inf) -> Arcs:
    """The same arcs with their corners cut, over and over, until they look like curves.

    Each round takes a quarter off both ends of an edge, so it rounds corners, but half where the border turns left at
    one end and right at the other, so that steps become a straight line; and less where that is not below the reach.
    Nodes stay, and so do arcs with nothing on a side: the frame and the edge of nodata. A corner is not cut where any
    other vertex is in the way, so no two arcs cross or touch that did not, and all regions stay, with the same
    neighbours. No point of a border ends up 2 * `REACH` or more from where it was.

    Args:
        arcs: All arcs of a cell.
        rounds: Two or three look smooth.
        waits: (arcs, 2) True at ends where borders go on: what depends on how, waits for `smoothed_on`.
        hold: Pixels from such an end up to which vertices wait.

    Source: Chaikin, An algorithm for high-speed curve generation, 1974.
    """
    waits = np.zeros((len(arcs), 2), np.bool_) if waits is None else waits
    inner = (arcs.left > 0) & (arcs.right > 0)
    arcs = replace(arcs, xy=arcs.xy.astype(np.float64))
    rough = SmoothingState(arcs, inner & _loops(arcs), np.zeros(len(arcs.xy), np.int8), waits)
    return _rounded(rough, inner, rounds, hold, 1.0) if inner.any() else arcs


def resume_smoothing(rough: SmoothingState, rounds: int, others: NDArray[np.float64], *, hold: float) -> Arcs:
    """Arcs as `smoothed` leaves them where it knows how all go on, but at ends that still wait.

    Args:
        rough: Arcs that parts of which had to wait.
        rounds: As before.
        others: (vertices, 2) of all other borders up to `FAR` times 2 * `REACH` from what waited.
        hold: As before.
    """
    arcs, count = rough.arcs, len(rough.arcs)
    nobody, added = np.append(arcs.left, np.int32(0)), int(len(others) > 0)
    every = Arcs(
        np.concatenate([arcs.xy, others]),
        np.append(arcs.starts, [len(arcs.xy) + len(others)] * added),
        nobody[: count + added],
        nobody[: count + added],
    )
    rough = SmoothingState(
        every,
        np.append(rough.loops, [False] * added),
        np.append(rough.done, np.full(len(others), rounds, np.int8)),
        np.concatenate([rough.waits, np.zeros((added, 2), np.bool_)]),
    )
    found = _rounded(rough, np.arange(count + added) < count, rounds, hold, BIN)
    starts = found.starts[: count + 1]
    return Arcs(found.xy[: starts[-1]], starts, arcs.left, arcs.right)


def _rounded(rough: SmoothingState, inner: NDArray[np.bool_], rounds: int, hold: float, size: float) -> Arcs:
    """The inner arcs after all rounds, in each of which only those vertices are cut that have had all before."""
    arcs, loops, waits = rough.arcs, rough.loops, rough.waits
    xy, starts, done = arcs.xy, arcs.starts, rough.done
    for number in range(rounds):
        reach = REACH / 2**number
        due = _due(xy, starts, loops, done, waits, number, hold)
        turns = _turns(xy, starts, inner, loops)
        cut = (turns != 0) & (due == NOW)
        if cut.any():
            legs = _legs(xy, starts, loops, turns, due, cut, reach)
            low, high = _box(xy, xy[cut], reach * FAR)
            _keep_blocked(xy, cut, legs, *_bins(xy, low, high, size), low, size)
            xy, starts, done = _cut(xy, starts, loops, due, cut, legs, done, number)
        else:
            done = done + (due == NOW)
    return replace(arcs, xy=xy, starts=starts)


def _box(xy: NDArray[np.float64], chosen: NDArray[np.float64], around: float) -> tuple[Any, Any]:
    """The least and most columns and rows that triangles of the chosen vertices can lie in."""
    return (
        np.floor(np.maximum(chosen.min(axis=0) - around, xy.min(axis=0))),
        np.minimum(chosen.max(axis=0) + around, xy.max(axis=0)),
    )


def _loops(arcs: Arcs) -> NDArray[np.bool_]:
    """(arcs,) True where an arc goes round to where no other ends: its first vertex is like all others."""
    first, last = arcs.xy[arcs.starts[:-1]], arcs.xy[arcs.starts[1:] - 1]
    _, ends, counts = np.unique(np.concatenate([first, last]) @ (1, 1j), return_inverse=True, return_counts=True)
    result: NDArray[np.bool_] = (first == last).all(axis=1) & (counts[ends[: len(arcs)]] == 2)
    return result


@jit
def _due(xy: Any, starts: Any, loops: Any, done: Any, waits: Any, number: Any, hold: Any) -> Any:
    """(vertices,) WAITS, NOW or AHEAD.

    A round needs to know a vertex's neighbours and which way they turn, for which it needs theirs. So two vertices more
    wait in each round.
    """
    due = np.empty(len(xy), np.int8)
    for at in range(len(xy)):
        due[at] = WAITS if done[at] < number else NOW if done[at] == number else AHEAD
    for arc in range(loops.size):
        for end in range(2):
            last = starts[arc + 1] - 1 if end else starts[arc]
            if not loops[arc]:
                due[last] = WAITS
            if not waits[arc, end]:
                continue
            for step in range(1, min(2 * number + 2, starts[arc + 1] - starts[arc])):
                at = last - step if end else last + step
                if _length(xy, at, last) <= hold:
                    due[at] = WAITS
    return due


@jit
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


@jit
def _turn(ax: Any, ay: Any, bx: Any, by: Any, cx: Any, cy: Any) -> Any:
    """Twice the area of a triangle, positive to one side; to the last bit the other number if a and c change places."""
    return (ax - bx) * (cy - by) - (ay - by) * (cx - bx)


@jit
def _legs(xy: Any, starts: Any, loops: Any, turns: Any, due: Any, cut: Any, reach: Any) -> Any:
    """(vertices, 4) where the edges before and after a corner are cut; those to vertices ahead were cut there."""
    legs = np.empty((len(xy), 4))
    for arc in range(loops.size):
        begin, end = starts[arc], starts[arc + 1] - 1
        for at in range(begin, end):
            if not cut[at]:
                continue
            before = at - 1 if at > begin else end - 1
            back, ahead = _whole(xy, turns, due, at, before), _whole(xy, turns, due, at, at + 1)
            for place, other, beside in ((0, before, ahead), (2, at + 1, back)):
                step, gone = turns[at] * turns[other] <= 0, due[other] == AHEAD and turns[other] != 0
                parts, most = 2.0 if step else 4.0, reach * FAR if step and beside <= reach / 2 else reach
                while _length(xy, at, other) >= most * (parts - gone):
                    parts *= 2
                legs[at, place] = xy[at, 0] + (xy[other, 0] - xy[at, 0]) / (parts - gone)
                legs[at, place + 1] = xy[at, 1] + (xy[other, 1] - xy[at, 1]) / (parts - gone)
        if loops[arc]:
            legs[end] = legs[begin]
    return legs


@jit
def _whole(xy: Any, turns: Any, due: Any, at: Any, other: Any) -> Any:
    """The length of an edge, before its other end was cut if that is ahead."""
    if due[other] != AHEAD or turns[other] == 0:
        return _length(xy, at, other)
    return _length(xy, at, other) * (2.0 if turns[at] != turns[other] else 4 / 3)


@jit
def _length(xy: Any, one: Any, two: Any) -> Any:
    """Pixels along columns or rows, whichever are more."""
    return max(abs(xy[one, 0] - xy[two, 0]), abs(xy[one, 1] - xy[two, 1]))


@jit
def _bins(xy: Any, low: Any, high: Any, size: Any) -> Any:
    """Vertices of a box by the square that they lie in: where each square's begin in their order; the order."""
    first = np.zeros((int((high[1] - low[1]) / size) + 1, int((high[0] - low[0]) / size) + 1), np.int32)
    for at in range(len(xy)):
        if low[0] <= xy[at, 0] <= high[0] and low[1] <= xy[at, 1] <= high[1]:
            first[int((xy[at, 1] - low[1]) / size), int((xy[at, 0] - low[0]) / size)] += 1
    flat, total = first.reshape(-1), 0
    for square in range(flat.size):
        total += flat[square]
        flat[square] = total
    order = np.empty(total, np.int32)
    for at in range(len(xy)):
        if low[0] <= xy[at, 0] <= high[0] and low[1] <= xy[at, 1] <= high[1]:
            row, col = int((xy[at, 1] - low[1]) / size), int((xy[at, 0] - low[0]) / size)
            first[row, col] -= 1
            order[first[row, col]] = at
    return first, order


@jit
def _keep_blocked(xy: Any, cut: Any, legs: Any, first: Any, order: Any, low: Any, size: Any) -> None:
    """No cut any more at corners whose triangle, sides included, holds another vertex.

    Arcs do not cross, so one that reached into a triangle would have a vertex there; and so two such triangles are
    apart.
    """
    cols, flat = first.shape[1], first.reshape(-1)
    blocked = np.zeros(cut.size, np.bool_)
    for at in range(cut.size):
        if cut[at]:
            blocked[at] = _held(xy, at, legs[at], flat, cols, order, low, size)
    cut[blocked] = False


@jit
def _held(xy: Any, at: Any, legs: Any, first: Any, cols: Any, order: Any, low: Any, size: Any) -> Any:
    """True if a vertex that lies elsewhere is in the triangle of this one and its legs."""
    px, py, ax, ay, bx, by = xy[at, 0], xy[at, 1], legs[0], legs[1], legs[2], legs[3]
    left, right = min(px, ax, bx), max(px, ax, bx)
    top, bottom = min(py, ay, by), max(py, ay, by)
    for row in range(int((top - low[1]) / size), int((bottom - low[1]) / size) + 1):
        begin, end = row * cols + int((left - low[0]) / size), row * cols + int((right - low[0]) / size) + 1
        for place in range(first[begin], first[end] if end < first.size else order.size):
            x, y = xy[order[place], 0], xy[order[place], 1]
            if x < left or x > right or y < top or y > bottom or (x == px and y == py):
                continue
            if (x == ax and y == ay) or (x == bx and y == by):
                continue
            one, two, three = _turn(px, py, x, y, ax, ay), _turn(ax, ay, x, y, bx, by), _turn(bx, by, x, y, px, py)
            if min(one, two, three) >= 0 or max(one, two, three) <= 0:
                return True
    return False


@jit
def _cut(xy: Any, starts: Any, loops: Any, due: Any, cut: Any, legs: Any, done: Any, number: Any) -> Any:
    """The arcs with the two legs of each corner that is cut instead of it, one vertex where those of two meet."""
    new, new_starts, rounds = np.empty((2 * len(xy), 2)), np.zeros_like(starts), np.empty(2 * len(xy), np.int8)
    used = 0
    for arc in range(loops.size):
        begin, end = starts[arc], starts[arc + 1] - 1
        for at in range(begin, end if loops[arc] else end + 1):
            had = number + 1 if due[at] == NOW else done[at]
            for leg in range(0, 4 if cut[at] else 2, 2):
                x, y = (legs[at, leg], legs[at, leg + 1]) if cut[at] else (xy[at, 0], xy[at, 1])
                if used == new_starts[arc] or new[used - 1, 0] != x or new[used - 1, 1] != y:
                    new[used, 0], new[used, 1], rounds[used] = x, y, had
                    used += 1
        if loops[arc]:
            first = new_starts[arc]
            if new[used - 1, 0] != new[first, 0] or new[used - 1, 1] != new[first, 1]:
                new[used], rounds[used] = new[first], rounds[first]
                used += 1
        new_starts[arc + 1] = used
    return new[:used].copy(), new_starts, rounds[:used].copy()
