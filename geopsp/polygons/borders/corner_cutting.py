"""Cut corners of borders: which, and how far. Compiled.

States of vertices are those of one round; see `smooth`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from geopsp.core.jit import jit
from geopsp.polygons.borders.vertex_bins import BINS, double_area, has_vertex

MAX_REACH = 2.0
"""The first round cuts less than this many pixels (along columns or rows) off the end of an edge, the second less than
half of it, and so on. Longer edges stay straight in the middle."""


SLOPE_FACTOR = 8.0
"""Factor of `MAX_REACH` for edges whose next edge is so short that the border hardly moves: the steps of a slope."""


LONG_EDGE = 3 * SLOPE_FACTOR
"""An edge of more than this times the reach of a round loses a fixed length, whatever is at its other end. That is at
most a quarter of it, so what is left is still long in the next round."""


LONG_EDGE_SHARE = 0.75
"""Of the most that may be cut a long edge loses this share; shorter ones lose from half of it to nearly all."""


FAR_EDGE = 5 * SLOPE_FACTOR * MAX_REACH
"""Length in pixels from which on an edge is long in each round, even if rounds are still to be done at its other end:
all of them together cut less than 2 * `SLOPE_FACTOR` * `MAX_REACH` there."""


WAITING, CURRENT, AHEAD = 0, 1, 2
"""State of a vertex in a round: it lacks rounds before this one; it has had all of them; it has had this one too."""


@jit("f8[:, ::1]", "i8[::1]", "b1[:, ::1]", "i8")
def left_distance(xy: Any, starts: Any, open_ends: Any, rounds: Any) -> Any:
    """Return the distance of the farthest vertex from its open end that may lack rounds."""
    farthest = 0.0
    for arc in range(len(open_ends)):
        for end in range(2):
            last, step = (starts[arc + 1] - 1, -1) if end else (starts[arc], 1)
            for nth in range(1, 1 + _count_waiting(xy, starts, open_ends, rounds, arc, end)):
                farthest = max(farthest, _length(xy, last + step * nth, last))
    return farthest


@jit()
def _count_waiting(xy: Any, starts: Any, open_ends: Any, rounds: Any, arc: Any, end: Any) -> Any:
    """Return how many vertices next to an end of an arc wait in the last of some rounds.

    To cut a vertex, its neighbours must be known, and which way they turn, which depends on their neighbours. So two
    more vertices near an open end wait in each round, but none behind a far edge.
    """
    last, step = (starts[arc + 1] - 1, -1) if end else (starts[arc], 1)
    count, most = 0, min(2 * rounds, starts[arc + 1] - starts[arc]) - 1 if open_ends[arc, end] else 0
    while count < most and _length(xy, last + step * count, last + step * (count + 1)) <= FAR_EDGE:
        count += 1
    return count


@jit("f8[:, ::1]", "i8[::1]", "b1[::1]", "i1[::1]", "b1[:, ::1]", "i8")
def round_states(xy: Any, starts: Any, is_closed: Any, rounds_done: Any, open_ends: Any, number: Any) -> Any:
    """Return (vertices,) WAITING, CURRENT or AHEAD."""
    states = np.empty(len(xy), np.int8)
    for at in range(len(xy)):
        states[at] = WAITING if rounds_done[at] < number else CURRENT if rounds_done[at] == number else AHEAD
    for arc in range(is_closed.size):
        for end in range(2):
            last, step = (starts[arc + 1] - 1, -1) if end else (starts[arc], 1)
            if not is_closed[arc]:
                states[last] = WAITING
            for nth in range(1, 1 + _count_waiting(xy, starts, open_ends, number + 1, arc, end)):
                at = last + step * nth
                states[at] = AHEAD if states[at] == AHEAD else WAITING
    return states


@jit(
    "f8[:, ::1]", "f8[:, ::1]", "i8[::1]", "b1[::1]", "b1[::1]", "b1[::1]", "i1[::1]", "i1[::1]", "i8", "f8", "b1",
    BINS, "f8[:, ::1]", BINS,
)  # fmt: skip
def cut_corners(
    xy: Any, uncut: Any, starts: Any, inner: Any, is_closed: Any, is_open: Any, states: Any, rounds_done: Any,
    number: Any, reach: Any, are_free: Any, bins: Any, others: Any, other_bins: Any,
) -> Any:  # fmt: skip
    """Replace each corner to cut by its two points, or by one where those of two corners coincide.

    Corners whose triangle, sides included, contains another vertex stay; `are_free` is True if none can. Arcs do not
    cross, so an arc that reached into a triangle would have a vertex there. Therefore no two of the triangles overlap.
    `others` are vertices that do not move. Edges are as long as between `uncut` vertices. Corners that are cut beside a
    vertex that waits, on arcs with an open end, are returned, too, and where they were cut.
    """
    new, new_starts, new_rounds = (
        np.empty((2 * len(xy) + 1, 2)),
        np.zeros_like(starts),
        np.empty(2 * len(xy) + 1, np.int8),
    )
    turns = np.zeros(len(xy), np.int8)
    newly_cut = np.empty((2 * (states == WAITING).sum() + 1, 4))
    used, num_cut = 0, 0
    for arc in range(is_closed.size):
        begin, end, first = starts[arc], starts[arc + 1] - 1, used
        if inner[arc]:
            _find_turns(xy, begin, end, is_closed[arc], turns)
        last_x, last_y = 0.0, 0.0
        for at in range(begin, end if is_closed[arc] else end + 1):
            x, y, rounds = xy[at, 0], xy[at, 1], rounds_done[at]
            ax, ay, bx, by = x, y, x, y
            if states[at] == CURRENT:
                rounds = number + 1
                if turns[at] != 0:
                    before, after = at - 1 if at > begin else end - 1, at + 1
                    length_before, length_after = _length(uncut, at, before), _length(uncut, at, after)
                    cut, of = _share(length_before, length_after, turns[at], turns[before], reach)
                    ax, ay = x + (uncut[before, 0] - x) * cut / of, y + (uncut[before, 1] - y) * cut / of
                    cut, of = _share(length_after, length_before, turns[at], turns[after], reach)
                    bx, by = x + (uncut[after, 0] - x) * cut / of, y + (uncut[after, 1] - y) * cut / of
                    if not are_free and (
                        has_vertex(xy, *bins, x, y, ax, ay, bx, by)
                        or (len(others) > 0 and has_vertex(others, *other_bins, x, y, ax, ay, bx, by))
                    ):
                        ax, ay, bx, by = x, y, x, y
                    newly_cut[num_cut] = (x, y, ax, ay)
                    num_cut += is_open[arc] & (states[before] == WAITING)
                    newly_cut[num_cut] = (x, y, bx, by)
                    num_cut += is_open[arc] & (states[after] == WAITING)
            new[used, 0], new[used, 1], new_rounds[used] = ax, ay, rounds
            used += (used == first) | (ax != last_x) | (ay != last_y)
            new[used, 0], new[used, 1], new_rounds[used] = bx, by, rounds
            used += (bx != ax) | (by != ay)
            last_x, last_y = bx, by
        if is_closed[arc] and (last_x != new[first, 0] or last_y != new[first, 1]):
            new[used, 0], new[used, 1], new_rounds[used] = new[first, 0], new[first, 1], new_rounds[first]
            used += 1
        new_starts[arc + 1] = used
    return new[:used], new_starts, new_rounds[:used], newly_cut[:num_cut]


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
def _share(length: Any, next_length: Any, turn: Any, other_turn: Any, reach: Any) -> Any:
    """Return how much of an edge is cut off at a corner, as numerator and denominator.

    Of a long edge it is a fixed length, whatever is at its other end: that may be far away in another cell.
    """
    is_step, is_long, is_next_short = (
        turn * other_turn <= 0,
        length > LONG_EDGE * reach,
        next_length <= reach / 2,
    )
    max_cut = reach * SLOPE_FACTOR if is_next_short and (is_step or is_long) else reach
    if is_long:
        return LONG_EDGE_SHARE * max_cut, length
    parts = 2.0 if is_step else 4.0
    while length >= max_cut * parts:
        parts *= 2
    return 1.0, parts


@jit()
def _length(xy: Any, one: Any, two: Any) -> Any:
    """Return the distance along columns or along rows, whichever is larger."""
    return max(abs(xy[one, 0] - xy[two, 0]), abs(xy[one, 1] - xy[two, 1]))
