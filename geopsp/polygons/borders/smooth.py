"""Smooth the shared borders of regions, without gaps or overlaps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.polygons.borders.topology import Arcs

MAX_REACH = 2.0
"""The first round cuts less than this many pixels (along columns or rows) off the end of an edge, the second less than
half of it, and so on. Longer edges stay straight in the middle."""


SLOPE_FACTOR = 8.0
"""Factor of `MAX_REACH` for edges whose next edge is so short that the border hardly moves: the steps of a slope."""


BIN = 8.0
"""Width and height in pixels of the bins in which vertices near seams are looked up; inside cells bins are pixels."""


WAITING, CURRENT, AHEAD = 0, 1, 2
"""State of a vertex in a round: it lacks rounds before this one; it has had all of them; it has had this one too."""


@dataclass(frozen=True, slots=True, eq=False)
class SmoothingState:
    """Arcs that are partly smoothed."""

    arcs: Arcs

    is_closed: NDArray[np.bool_]
    """(arcs,) True if an arc ends where it begins and no other arc ends there: its first vertex is like all others."""

    rounds_done: NDArray[np.int8]
    """(vertices,) number of rounds that each has had."""

    open_ends: NDArray[np.bool_]
    """(arcs, 2) True for ends where the next arc is not yet known."""


def smooth_arcs(arcs: Arcs, rounds: int, *, open_ends: NDArray[np.bool_] | None = None, hold: float = np.inf) -> Arcs:
    """Smooth arcs by cutting their corners.

    Each round cuts a quarter off both ends of an edge, which rounds corners. If the border turns left at one end of an
    edge and right at the other, it cuts half, so that steps become a straight line. It cuts less where this exceeds
    `MAX_REACH`. Nodes stay, and so do arcs that touch nodata or the frame. A corner is not cut if another vertex is in
    the way, so no arcs cross or touch that did not before; all regions stay, with the same neighbours. No border moves
    by 2 * `MAX_REACH` or more.

    Args:
        arcs: All arcs of a cell.
        rounds: 2 or 3 look smooth.
        open_ends: (arcs, 2) True for ends where the border continues in another cell. Vertices that depend on how it
            continues are left for `resume_smoothing`.
        hold: Distance from such an end, in pixels, up to which vertices are left.

    Source: Chaikin, An algorithm for high-speed curve generation, 1974.
    """
    open_ends = np.zeros((len(arcs), 2), np.bool_) if open_ends is None else open_ends
    inner = (arcs.left > 0) & (arcs.right > 0)
    arcs = replace(arcs, xy=arcs.xy.astype(np.float64))
    state = SmoothingState(arcs, inner & _closed(arcs), np.zeros(len(arcs.xy), np.int8), open_ends)
    return _run_rounds(state, inner, rounds, hold, 1.0) if inner.any() else arcs


def resume_smoothing(state: SmoothingState, rounds: int, vertices: NDArray[np.float64], *, hold: float) -> Arcs:
    """Finish the smoothing of arcs, except near ends that are still open.

    Args:
        state: Arcs, parts of which were left.
        rounds: As in `smooth_arcs`.
        vertices: (n, 2) vertices of all other borders within 2 * `MAX_REACH` * `SLOPE_FACTOR` of what was left.
        hold: As in `smooth_arcs`.
    """
    arcs, count = state.arcs, len(state.arcs)
    added = int(len(vertices) > 0)  # the vertices are added as an arc that is not smoothed
    no_regions = np.append(arcs.left, np.int32(0))[: count + added]
    with_others = Arcs(
        np.concatenate([arcs.xy, vertices]),
        np.append(arcs.starts, [len(arcs.xy) + len(vertices)] * added),
        no_regions,
        no_regions,
    )
    state = SmoothingState(
        with_others,
        np.append(state.is_closed, [False] * added),
        np.append(state.rounds_done, np.full(len(vertices), rounds, np.int8)),
        np.concatenate([state.open_ends, np.zeros((added, 2), np.bool_)]),
    )
    smoothed = _run_rounds(state, np.arange(count + added) < count, rounds, hold, BIN)
    starts = smoothed.starts[: count + 1]
    return Arcs(smoothed.xy[: starts[-1]], starts, arcs.left, arcs.right)


def _run_rounds(state: SmoothingState, inner: NDArray[np.bool_], rounds: int, hold: float, bin_size: float) -> Arcs:
    """Smooth the inner arcs; each round cuts only vertices that have had all rounds before."""
    arcs, is_closed, open_ends = state.arcs, state.is_closed, state.open_ends
    xy, starts, rounds_done = arcs.xy, arcs.starts, state.rounds_done
    for number in range(rounds):
        reach = MAX_REACH / 2**number
        due = _due(xy, starts, is_closed, rounds_done, open_ends, number, hold)
        turns = _turns(xy, starts, inner, is_closed)
        cut = (turns != 0) & (due == CURRENT)
        if cut.any():
            cuts = _cut_points(xy, starts, is_closed, turns, due, cut, reach)
            low, high = _bounds(xy, cut, reach * SLOPE_FACTOR)
            _keep_blocked(xy, cut, cuts, *_bin_vertices(xy, low, high, bin_size), low, bin_size)
            xy, starts, rounds_done = _cut_corners(xy, starts, is_closed, due, cut, cuts, rounds_done, number)
        else:
            rounds_done = rounds_done + (due == CURRENT)
    return replace(arcs, xy=xy, starts=starts)


@jit("f8[:, ::1]", "b1[::1]", "f8")
def _bounds(xy: Any, chosen: Any, reach: Any) -> Any:
    """Return the lowest and highest columns and rows that the triangles of chosen vertices can reach."""
    low, high = np.full(2, np.inf), np.full(2, -np.inf)
    first, last = np.full(2, np.inf), np.full(2, -np.inf)
    for at in range(len(xy)):
        for axis in range(2):
            first[axis], last[axis] = min(first[axis], xy[at, axis]), max(last[axis], xy[at, axis])
            if chosen[at]:
                low[axis], high[axis] = min(low[axis], xy[at, axis]), max(high[axis], xy[at, axis])
    return np.floor(np.maximum(low - reach, first)), np.minimum(high + reach, last)


def _closed(arcs: Arcs) -> NDArray[np.bool_]:
    """Return (arcs,) True if an arc ends where it begins and no other arc ends there."""
    first, last = arcs.xy[arcs.starts[:-1]], arcs.xy[arcs.starts[1:] - 1]
    _, ends, counts = np.unique(np.concatenate([first, last]) @ (1, 1j), return_inverse=True, return_counts=True)
    result: NDArray[np.bool_] = (first == last).all(axis=1) & (counts[ends[: len(arcs)]] == 2)
    return result


@jit("f8[:, ::1]", "i8[::1]", "b1[::1]", "i1[::1]", "b1[:, ::1]", "i8", "f8")
def _due(xy: Any, starts: Any, is_closed: Any, rounds_done: Any, open_ends: Any, number: Any, hold: Any) -> Any:
    """Return (vertices,) WAITING, CURRENT or AHEAD.

    To cut a vertex, its neighbours must be known, and which way they turn, which depends on their neighbours. So two
    more vertices near an open end wait in each round.
    """
    due = np.empty(len(xy), np.int8)
    for at in range(len(xy)):
        due[at] = WAITING if rounds_done[at] < number else CURRENT if rounds_done[at] == number else AHEAD
    for arc in range(is_closed.size):
        for end in range(2):
            last = starts[arc + 1] - 1 if end else starts[arc]
            if not is_closed[arc]:
                due[last] = WAITING
            if not open_ends[arc, end]:
                continue
            for step in range(1, min(2 * number + 2, starts[arc + 1] - starts[arc])):
                at = last - step if end else last + step
                if _length(xy, at, last) <= hold:
                    due[at] = WAITING
    return due


@jit("f8[:, ::1]", "i8[::1]", "b1[::1]", "b1[::1]")
def _turns(xy: Any, starts: Any, inner: Any, is_closed: Any) -> Any:
    """Return (vertices,) 1 or -1 where an inner arc turns to one side or the other, else 0; 0 at ends."""
    turns = np.zeros(len(xy), np.int8)
    for arc in range(inner.size):
        begin, end = starts[arc], starts[arc + 1] - 1
        if not inner[arc]:
            continue
        for at in range(begin if is_closed[arc] else begin + 1, end):
            before = at - 1 if at > begin else end - 1
            turns[at] = np.sign(_area(xy[before, 0], xy[before, 1], xy[at, 0], xy[at, 1], xy[at + 1, 0], xy[at + 1, 1]))
        if is_closed[arc]:
            turns[end] = turns[begin]  # the same corner
    return turns


@jit()
def _area(ax: Any, ay: Any, bx: Any, by: Any, cx: Any, cy: Any) -> Any:
    """Return twice the signed area of a triangle; if a and c are swapped, exactly the negative."""
    return (ax - bx) * (cy - by) - (ay - by) * (cx - bx)


@jit("f8[:, ::1]", "i8[::1]", "b1[::1]", "i1[::1]", "i1[::1]", "b1[::1]", "f8")
def _cut_points(xy: Any, starts: Any, is_closed: Any, turns: Any, due: Any, cut: Any, reach: Any) -> Any:
    """Return (vertices, 4) points where the edges before and after a corner are cut.

    An edge to a vertex that is AHEAD was already cut at that end.
    """
    cuts = np.empty((len(xy), 4))
    for arc in range(is_closed.size):
        begin, end = starts[arc], starts[arc + 1] - 1
        for at in range(begin, end):
            if not cut[at]:
                continue
            before = at - 1 if at > begin else end - 1
            length_before = _uncut_length(xy, turns, due, at, before)
            length_after = _uncut_length(xy, turns, due, at, at + 1)
            for column, other, next_length in ((0, before, length_after), (2, at + 1, length_before)):
                is_step, gone = turns[at] * turns[other] <= 0, due[other] == AHEAD and turns[other] != 0
                parts = 2.0 if is_step else 4.0
                max_cut = reach * SLOPE_FACTOR if is_step and next_length <= reach / 2 else reach
                while _length(xy, at, other) >= max_cut * (parts - gone):
                    parts *= 2
                cuts[at, column] = xy[at, 0] + (xy[other, 0] - xy[at, 0]) / (parts - gone)
                cuts[at, column + 1] = xy[at, 1] + (xy[other, 1] - xy[at, 1]) / (parts - gone)
        if is_closed[arc]:
            cuts[end] = cuts[begin]
    return cuts


@jit()
def _uncut_length(xy: Any, turns: Any, due: Any, at: Any, other: Any) -> Any:
    """Return the length of an edge, before its other end was cut if that is AHEAD."""
    if due[other] != AHEAD or turns[other] == 0:
        return _length(xy, at, other)
    return _length(xy, at, other) * (2.0 if turns[at] != turns[other] else 4 / 3)


@jit()
def _length(xy: Any, one: Any, two: Any) -> Any:
    """Return the distance along columns or along rows, whichever is larger."""
    return max(abs(xy[one, 0] - xy[two, 0]), abs(xy[one, 1] - xy[two, 1]))


@jit("f8[:, ::1]", "f8[::1]", "f8[::1]", "f8")
def _bin_vertices(xy: Any, low: Any, high: Any, size: Any) -> Any:
    """Sort vertices inside of bounds into square bins; return (rows, cols) starts of bins, and the sorted indices."""
    first = np.zeros((int((high[1] - low[1]) / size) + 1, int((high[0] - low[0]) / size) + 1), np.int32)
    for at in range(len(xy)):
        if low[0] <= xy[at, 0] <= high[0] and low[1] <= xy[at, 1] <= high[1]:
            first[int((xy[at, 1] - low[1]) / size), int((xy[at, 0] - low[0]) / size)] += 1
    flat, total = first.reshape(-1), 0
    for each in range(flat.size):
        total += flat[each]
        flat[each] = total
    order = np.empty(total, np.int32)
    for at in range(len(xy)):
        if low[0] <= xy[at, 0] <= high[0] and low[1] <= xy[at, 1] <= high[1]:
            row, col = int((xy[at, 1] - low[1]) / size), int((xy[at, 0] - low[0]) / size)
            first[row, col] -= 1
            order[first[row, col]] = at
    return first, order


@jit("f8[:, ::1]", "b1[::1]", "f8[:, ::1]", "i4[:, ::1]", "i4[::1]", "f8[::1]", "f8")
def _keep_blocked(xy: Any, cut: Any, cuts: Any, first: Any, order: Any, low: Any, size: Any) -> None:
    """Set `cut` to False at corners whose triangle, sides included, contains another vertex.

    Arcs do not cross, so an arc that reached into a triangle would have a vertex there. Therefore no two of the
    remaining triangles overlap.
    """
    cols, flat = first.shape[1], first.reshape(-1)
    blocked = np.zeros(cut.size, np.bool_)
    for at in range(cut.size):
        if cut[at]:
            blocked[at] = _is_blocked(xy, at, cuts[at], flat, cols, order, low, size)
    cut[blocked] = False


@jit()
def _is_blocked(xy: Any, at: Any, cuts: Any, first: Any, cols: Any, order: Any, low: Any, size: Any) -> Any:
    """Return True if a vertex lies in the triangle of a corner and its two cuts, except at these three points."""
    px, py, ax, ay, bx, by = xy[at, 0], xy[at, 1], cuts[0], cuts[1], cuts[2], cuts[3]
    left, right = min(px, ax, bx), max(px, ax, bx)
    top, bottom = min(py, ay, by), max(py, ay, by)
    for row in range(int((top - low[1]) / size), int((bottom - low[1]) / size) + 1):
        begin, end = row * cols + int((left - low[0]) / size), row * cols + int((right - low[0]) / size) + 1
        for position in range(first[begin], first[end] if end < first.size else order.size):
            x, y = xy[order[position], 0], xy[order[position], 1]
            if x < left or x > right or y < top or y > bottom or (x == px and y == py):
                continue
            if (x == ax and y == ay) or (x == bx and y == by):
                continue
            one, two, three = _area(px, py, x, y, ax, ay), _area(ax, ay, x, y, bx, by), _area(bx, by, x, y, px, py)
            if min(one, two, three) >= 0 or max(one, two, three) <= 0:
                return True
    return False


@jit("f8[:, ::1]", "i8[::1]", "b1[::1]", "i1[::1]", "b1[::1]", "f8[:, ::1]", "i1[::1]", "i8")
def _cut_corners(
    xy: Any, starts: Any, is_closed: Any, due: Any, cut: Any, cuts: Any, rounds_done: Any, number: Any
) -> Any:
    """Replace each corner to cut by its two points, or by one where those of two corners coincide."""
    new, new_starts, new_rounds = np.empty((2 * len(xy), 2)), np.zeros_like(starts), np.empty(2 * len(xy), np.int8)
    used = 0
    for arc in range(is_closed.size):
        begin, end = starts[arc], starts[arc + 1] - 1
        for at in range(begin, end if is_closed[arc] else end + 1):
            rounds = number + 1 if due[at] == CURRENT else rounds_done[at]
            for column in range(0, 4 if cut[at] else 2, 2):
                x, y = (cuts[at, column], cuts[at, column + 1]) if cut[at] else (xy[at, 0], xy[at, 1])
                if used == new_starts[arc] or new[used - 1, 0] != x or new[used - 1, 1] != y:
                    new[used, 0], new[used, 1], new_rounds[used] = x, y, rounds
                    used += 1
        if is_closed[arc]:
            first = new_starts[arc]
            if new[used - 1, 0] != new[first, 0] or new[used - 1, 1] != new[first, 1]:
                new[used], new_rounds[used] = new[first], new_rounds[first]
                used += 1
        new_starts[arc + 1] = used
    return new[:used].copy(), new_starts, new_rounds[:used].copy()
