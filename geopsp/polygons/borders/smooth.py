"""Smooth the shared borders of regions, without gaps or overlaps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.polygons.borders.corner_cutting import (
    AHEAD,
    FAR_EDGE,
    MAX_REACH,
    SLOPE_FACTOR,
    cut_corners,
    left_distance,
    round_states,
)
from geopsp.polygons.borders.point_set import indices_among, is_among
from geopsp.polygons.borders.topology import Arcs
from geopsp.polygons.borders.vertex_bins import fill_bins, last_in_bin

FREE_ROUNDS = 2
"""Rounds in which nothing can be in the way if all vertices are pixel corners and all edges run along pixel sides.

No border passes through the row of pixels beside an edge, as it would meet the edge there, in a node. The first round
cuts at most half of an edge, and less than `MAX_REACH` if the next one is longer than a pixel, so its triangles lie in
these rows, and its new vertices on pixel sides. So the triangles of the second round lie in these rows, too.
"""


@dataclass(frozen=True, slots=True, eq=False)
class Unfinished:
    """What `resume_smoothing` has to know of arcs with open ends."""

    vertices: NDArray[np.float64]
    """(n, 2) those that lack rounds."""

    rounds_done: NDArray[np.int8]
    """(n,) rounds that each has had."""

    cut_corners: NDArray[np.float64]
    """(m, 2) where corners were that a round cut beside a vertex that still lacks it."""

    cut_vertices: NDArray[np.float64]
    """(m, 2) where they were cut, on the edge to that vertex."""

    cut_rounds: NDArray[np.int8]
    """(m,) number of the round."""

    @classmethod
    def none(cls) -> Unfinished:
        return cls(np.empty((0, 2)), np.empty(0, np.int8), np.empty((0, 2)), np.empty((0, 2)), np.empty(0, np.int8))

    @classmethod
    def concatenated(cls, parts: Sequence[Unfinished]) -> Unfinished:
        """Return all of one or more parts."""
        return cls(*(np.concatenate([getattr(part, field.name) for part in parts]) for field in fields(cls)))

    def shifted(self, by: NDArray[np.float64]) -> Unfinished:
        """Return the same, moved by (columns, rows)."""
        vertices, corners, cut = self.vertices + by, self.cut_corners + by, self.cut_vertices + by
        return Unfinished(vertices, self.rounds_done, corners, cut, self.cut_rounds)


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

    unfinished: Unfinished
    """What was left of them before."""


def smooth_arcs(arcs: Arcs, rounds: int, *, open_ends: NDArray[np.bool_] | None = None) -> tuple[Arcs, Unfinished]:
    """Smooth arcs by cutting their corners.

    Each round cuts a quarter off both ends of an edge, which rounds corners. If the border turns left at one end of an
    edge and right at the other, it cuts half, so that steps become a straight line. It cuts less where this exceeds
    `MAX_REACH`, and a fixed length off edges longer than `LONG_EDGE`. Nodes stay, and so do arcs that touch nodata or
    the frame. A corner is not cut if another vertex is in the way, so no arcs cross or touch that did not before; all
    regions stay, with the same neighbours. No border moves by 2 * `MAX_REACH` or more.

    Args:
        arcs: All arcs of a cell.
        rounds: 2 or 3 look smooth.
        open_ends: (arcs, 2) True for ends where the border continues in another cell. Vertices that depend on how it
            continues are left for `resume_smoothing`.

    Returns:
        The arcs, and what is left of those with open ends.

    Source: Chaikin, An algorithm for high-speed curve generation, 1974.
    """
    open_ends = np.zeros((len(arcs), 2), np.bool_) if open_ends is None else open_ends
    inner = (arcs.left > 0) & (arcs.right > 0)
    arcs = replace(arcs, xy=arcs.xy.astype(np.float64))
    is_closed, rounds_done = inner & _closed(arcs.xy, arcs.starts), np.zeros(len(arcs.xy), np.int8)
    state = SmoothingState(arcs, is_closed, rounds_done, open_ends, Unfinished.none())
    return _run_rounds(state, inner, rounds, np.empty((0, 2))) if inner.any() else (arcs, Unfinished.none())


def resume_smoothing(state: SmoothingState, rounds: int, vertices: NDArray[np.float64]) -> tuple[Arcs, Unfinished]:
    """Finish the smoothing of arcs, except near ends that are still open.

    Args:
        state: Arcs, parts of which were left.
        rounds: As in `smooth_arcs`.
        vertices: (n, 2) vertices of all other borders within 2 * `MAX_REACH` * `SLOPE_FACTOR` of what was left.

    Returns:
        As `smooth_arcs` does.
    """
    arcs, left = _run_rounds(state, np.ones(len(state.arcs), np.bool_), rounds, vertices)
    is_open = np.repeat(state.open_ends.any(axis=1), np.diff(arcs.starts))
    kept = is_among(left.cut_vertices, arcs.xy[is_open])
    return arcs, replace(
        left,
        cut_corners=left.cut_corners[kept],
        cut_vertices=left.cut_vertices[kept],
        cut_rounds=left.cut_rounds[kept],
    )


def needed_distance(arcs: Arcs, rounds: int, open_ends: NDArray[np.bool_]) -> float:
    """Return how far from open ends `resume_smoothing` needs the vertices of other borders, in pixels.

    Args:
        arcs: Smoothed by `smooth_arcs`, as are the other arguments.
        rounds: Rounds of smoothing.
        open_ends: (arcs, 2) True for ends where the border continues in another cell.
    """
    return float(left_distance(arcs.xy, arcs.starts, open_ends, rounds) + MAX_REACH * SLOPE_FACTOR)


def max_needed_distance(rounds: int) -> float:
    """Return the largest distance that `needed_distance` may return."""
    return (2 * rounds - 1) * FAR_EDGE + MAX_REACH * SLOPE_FACTOR


def _run_rounds(
    state: SmoothingState, inner: NDArray[np.bool_], rounds: int, others: NDArray[np.float64]
) -> tuple[Arcs, Unfinished]:
    """Smooth the inner arcs; each round cuts only vertices that have had all rounds before.

    Args:
        state: Arcs.
        inner: (arcs,) True for arcs to smooth.
        rounds: Rounds in all.
        others: (n, 2) vertices that do not move.

    Returns:
        As `smooth_arcs` does.
    """
    arcs, is_closed, before = state.arcs, state.is_closed, state.unfinished
    xy, starts, rounds_done, is_open = arcs.xy, arcs.starts, state.rounds_done, state.open_ends.any(axis=1)
    free_rounds = FREE_ROUNDS if not rounds_done.any() and not len(others) and _on_lattice(xy, starts) else 0
    other_bins, unfinished = fill_bins(others), [before]
    for number in range(rounds):
        states = round_states(xy, starts, is_closed, rounds_done, state.open_ends, number)
        uncut = _uncut_vertices(xy, states, before, number)
        bins = fill_bins(xy if number >= free_rounds else xy[:0])
        xy, starts, rounds_done, newly_cut = cut_corners(
            xy, uncut, starts, inner, is_closed, is_open, states, rounds_done, number,
            MAX_REACH / 2**number, number < free_rounds, bins, others, other_bins,
        )  # fmt: skip
        cut_rounds = np.full(len(newly_cut), number, np.int8)
        unfinished.append(Unfinished(xy[:0], rounds_done[:0], newly_cut[:, :2], newly_cut[:, 2:], cut_rounds))
    left = np.repeat(inner & is_open, np.diff(starts)) & (rounds_done < rounds)
    cut = Unfinished.concatenated(unfinished)
    return replace(arcs, xy=xy, starts=starts), replace(cut, vertices=xy[left], rounds_done=rounds_done[left])


def _uncut_vertices(
    xy: NDArray[np.float64], states: NDArray[np.int8], before: Unfinished, number: int
) -> NDArray[np.float64]:
    """Return (vertices, 2) where vertices were before this round, also those that are ahead beside one that is not."""
    chosen = before.cut_rounds == number
    if not chosen.any():
        return xy
    ahead = np.flatnonzero(states == AHEAD)
    found = indices_among(xy[ahead], before.cut_vertices[chosen])
    uncut = xy.copy()
    uncut[ahead[found >= 0]] = before.cut_corners[chosen][found[found >= 0]]
    return uncut


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
