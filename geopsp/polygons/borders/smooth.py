"""Smooth the shared borders of regions, without gaps or overlaps."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.polygons.borders.topology import Arcs
from geopsp.polygons.borders.vertex_bins import BINS, double_area, fill_bins, has_vertex, last_in_bin

MAX_REACH = 2.0
"""The first round cuts less than this many pixels (along columns or rows) off the end of an edge, the second less than
half of it, and so on. Longer edges stay straight in the middle."""


SLOPE_FACTOR = 8.0
"""Factor of `MAX_REACH` for edges whose next edge is so short that the border hardly moves: the steps of a slope."""


FREE_ROUNDS = 2
"""Rounds in which nothing can be in the way if all vertices are pixel corners and all edges run along pixel sides.

No border passes through the row of pixels beside an edge, as it would meet the edge there, in a node. The first round
cuts at most half of an edge, and less than `MAX_REACH` if the next one is longer than a pixel, so its triangles lie in
these rows, and its new vertices on pixel sides. So the triangles of the second round lie in these rows, too.
"""


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
    state = SmoothingState(arcs, inner & _closed(arcs.xy, arcs.starts), np.zeros(len(arcs.xy), np.int8), open_ends)
    return _run_rounds(state, inner, rounds, hold, np.empty((0, 2))) if inner.any() else arcs


def resume_smoothing(state: SmoothingState, rounds: int, vertices: NDArray[np.float64], *, hold: float) -> Arcs:
    """Finish the smoothing of arcs, except near ends that are still open.

    Args:
        state: Arcs, parts of which were left.
        rounds: As in `smooth_arcs`.
        vertices: (n, 2) vertices of all other borders within 2 * `MAX_REACH` * `SLOPE_FACTOR` of what was left.
        hold: As in `smooth_arcs`.
    """
    return _run_rounds(state, np.ones(len(state.arcs), np.bool_), rounds, hold, vertices)


def needed_distance(arcs: Arcs, rounds: int, open_ends: NDArray[np.bool_], *, hold: float) -> float:
    """Return how far from open ends `resume_smoothing` needs the vertices of other borders, in pixels.

    Args:
        arcs: Smoothed by `smooth_arcs`, as are the other arguments.
        rounds: Rounds of smoothing.
        open_ends: (arcs, 2) True for ends where the border continues in another cell.
        hold: Distance from such an end up to which vertices were left.
    """
    return float(_left_distance(arcs.xy, arcs.starts, open_ends, rounds, hold) + MAX_REACH * SLOPE_FACTOR)


@jit("f8[:, ::1]", "i8[::1]", "b1[:, ::1]", "i8", "f8")
def _left_distance(xy: Any, starts: Any, open_ends: Any, rounds: Any, hold: Any) -> Any:
    """Return the distance of the farthest vertex from its open end that may lack rounds."""
    farthest = 0.0
    for arc in range(len(open_ends)):
        for end in range(2):
            if not open_ends[arc, end]:
                continue
            last = starts[arc + 1] - 1 if end else starts[arc]
            for step in range(1, min(2 * rounds, starts[arc + 1] - starts[arc])):
                distance = _length(xy, last - step if end else last + step, last)
                if distance <= hold:
                    farthest = max(farthest, distance)
    return farthest


def _run_rounds(
    state: SmoothingState, inner: NDArray[np.bool_], rounds: int, hold: float, others: NDArray[np.float64]
) -> Arcs:
    """Smooth the inner arcs; each round cuts only vertices that have had all rounds before.

    Args:
        state: Arcs.
        inner: (arcs,) True for arcs to smooth.
        rounds: Rounds in all.
        hold: As in `smooth_arcs`.
        others: (n, 2) vertices that do not move.
    """
    arcs, is_closed, open_ends = state.arcs, state.is_closed, state.open_ends
    xy, starts, rounds_done = arcs.xy, arcs.starts, state.rounds_done
    free_rounds = FREE_ROUNDS if not rounds_done.any() and not len(others) and _on_lattice(xy, starts) else 0
    other_bins = fill_bins(others)
    for number in range(rounds):
        due = _due(xy, starts, is_closed, rounds_done, open_ends, number, hold)
        bins = fill_bins(xy if number >= free_rounds else xy[:0])
        xy, starts, rounds_done = _cut_corners(
            xy, starts, inner, is_closed, due, rounds_done, number, MAX_REACH / 2**number, number < free_rounds, bins,
            others, other_bins,
        )  # fmt: skip
    return replace(arcs, xy=xy, starts=starts)


@jit("f8[:, ::1]", "i8[::1]")
def _on_lattice(xy: Any, starts: Any) -> Any:
    """Return True if all vertices are pixel corners and all edges run along columns or rows."""
    for arc in range(starts.size - 1):
        for at in range(starts[arc], starts[arc + 1]):
            if xy[at, 0] != np.floor(xy[at, 0]) or xy[at, 1] != np.floor(xy[at, 1]):
                return False
            if at > starts[arc] and xy[at, 0] != xy[at - 1, 0] and xy[at, 1] != xy[at - 1, 1]:
                return False
    return True


@jit("f8[:, ::1]", "i8[::1]")
def _closed(xy: Any, starts: Any) -> Any:
    """Return (arcs,) True if an arc ends where it begins and no other arc ends there."""
    count = starts.size - 1
    loops, points, used = np.empty(count, np.int64), np.empty((count, 2)), 0
    for arc in range(count):
        first, last = starts[arc], starts[arc + 1] - 1
        loops[used], points[used, 0], points[used, 1] = arc, xy[first, 0], xy[first, 1]
        used += (xy[first, 0] == xy[last, 0]) & (xy[first, 1] == xy[last, 1])
    points = points[:used]
    last_of, previous, step = fill_bins(points)
    ends = np.zeros(used, np.int64)
    for arc in range(count):
        for at in (starts[arc], starts[arc + 1] - 1):
            found = last_in_bin(last_of, step, xy[at, 0], xy[at, 1])
            while found >= 0:
                ends[found] += points[found, 0] == xy[at, 0] and points[found, 1] == xy[at, 1]
                found = previous[found]
    is_closed = np.zeros(count, np.bool_)
    is_closed[loops[:used][ends == 2]] = True
    return is_closed


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


@jit(
    "f8[:, ::1]", "i8[::1]", "b1[::1]", "b1[::1]", "i1[::1]", "i1[::1]", "i8", "f8", "b1", BINS,
    "f8[:, ::1]", BINS,
)  # fmt: skip
def _cut_corners(
    xy: Any, starts: Any, inner: Any, is_closed: Any, due: Any, rounds_done: Any, number: Any, reach: Any,
    are_free: Any, bins: Any, others: Any, other_bins: Any,
) -> Any:  # fmt: skip
    """Replace each corner to cut by its two points, or by one where those of two corners coincide.

    Corners whose triangle, sides included, contains another vertex stay; `are_free` is True if none can. Arcs do not
    cross, so an arc that reached into a triangle would have a vertex there. Therefore no two of the triangles overlap.
    `others` are vertices that do not move.
    """
    new, new_starts, new_rounds = (
        np.empty((2 * len(xy) + 1, 2)),
        np.zeros_like(starts),
        np.empty(2 * len(xy) + 1, np.int8),
    )
    turns = np.zeros(len(xy), np.int8)
    used = 0
    for arc in range(is_closed.size):
        begin, end, first = starts[arc], starts[arc + 1] - 1, used
        if inner[arc]:
            _find_turns(xy, begin, end, is_closed[arc], turns)
        last_x, last_y = 0.0, 0.0
        for at in range(begin, end if is_closed[arc] else end + 1):
            x, y, rounds = xy[at, 0], xy[at, 1], rounds_done[at]
            ax, ay, bx, by = x, y, x, y
            if due[at] == CURRENT:
                rounds = number + 1
                if turns[at] != 0:
                    before, after = at - 1 if at > begin else end - 1, at + 1
                    gone_before, gone_after = due[before] == AHEAD, due[after] == AHEAD
                    length_before, length_after = _length(xy, at, before), _length(xy, at, after)
                    uncut_before = _uncut_length(length_before, turns[at], turns[before], gone_before)
                    uncut_after = _uncut_length(length_after, turns[at], turns[after], gone_after)
                    parts = _parts(length_before, uncut_after, turns[at], turns[before], gone_before, reach)
                    ax, ay = x + (xy[before, 0] - x) / parts, y + (xy[before, 1] - y) / parts
                    parts = _parts(length_after, uncut_before, turns[at], turns[after], gone_after, reach)
                    bx, by = x + (xy[after, 0] - x) / parts, y + (xy[after, 1] - y) / parts
                    if not are_free and (
                        has_vertex(xy, *bins, x, y, ax, ay, bx, by)
                        or (len(others) > 0 and has_vertex(others, *other_bins, x, y, ax, ay, bx, by))
                    ):
                        ax, ay, bx, by = x, y, x, y
            new[used, 0], new[used, 1], new_rounds[used] = ax, ay, rounds
            used += (used == first) | (ax != last_x) | (ay != last_y)
            new[used, 0], new[used, 1], new_rounds[used] = bx, by, rounds
            used += (bx != ax) | (by != ay)
            last_x, last_y = bx, by
        if is_closed[arc] and (last_x != new[first, 0] or last_y != new[first, 1]):
            new[used, 0], new[used, 1], new_rounds[used] = new[first, 0], new[first, 1], new_rounds[first]
            used += 1
        new_starts[arc + 1] = used
    return new[:used], new_starts, new_rounds[:used]


@jit()
def _find_turns(xy: Any, begin: Any, end: Any, is_closed: Any, turns: Any) -> None:
    """Set `turns` to 1 or -1 where an arc turns to one side or the other, else to 0; at ends to 0."""
    for at in range(begin if is_closed else begin + 1, end):
        before = at - 1 if at > begin else end - 1
        area = double_area(xy[before, 0], xy[before, 1], xy[at, 0], xy[at, 1], xy[at + 1, 0], xy[at + 1, 1])
        turns[at] = (area > 0) - (area < 0)
    if is_closed:
        turns[end] = turns[begin]  # the same corner


@jit()
def _parts(length: Any, next_length: Any, turn: Any, other_turn: Any, other_is_ahead: Any, reach: Any) -> Any:
    """Return into how many parts an edge is divided, one of which is cut off at a corner.

    An edge to a vertex that is ahead was already cut at that end.
    """
    is_step = turn * other_turn <= 0
    parts = 2.0 if is_step else 4.0
    gone = 1.0 if other_is_ahead and other_turn != 0 else 0.0
    max_cut = reach * SLOPE_FACTOR if is_step and next_length <= reach / 2 else reach
    while length >= max_cut * (parts - gone):
        parts *= 2
    return parts - gone


@jit()
def _uncut_length(length: Any, turn: Any, other_turn: Any, other_is_ahead: Any) -> Any:
    """Return the length of an edge, before its other end was cut if that is ahead."""
    if not other_is_ahead or other_turn == 0:
        return length
    return length * (2.0 if turn != other_turn else 4 / 3)


@jit()
def _length(xy: Any, one: Any, two: Any) -> Any:
    """Return the distance along columns or along rows, whichever is larger."""
    return max(abs(xy[one, 0] - xy[two, 0]), abs(xy[one, 1] - xy[two, 1]))
