"""Join arcs across seams, and finish their smoothing where it had to wait."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.polygons.borders.point_set import indices_among, is_among
from geopsp.polygons.borders.seam_nodes import SeamNodes
from geopsp.polygons.borders.smooth import SmoothingState, Unfinished, resume_smoothing
from geopsp.polygons.borders.topology import Arcs
from geopsp.polygons.borders.trace_arcs import ArcGraph

Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class JoinedArcs:
    """Arcs joined across seams."""

    graph: ArcGraph

    state: SmoothingState
    """How far the same arcs are smoothed."""


def smooth_across_seams(
    graph: ArcGraph, nodes: SeamNodes, vertices: Floats, unfinished: Unfinished, *, rounds: int
) -> tuple[ArcGraph, Floats, Unfinished]:
    """Join arcs across seams and smooth them as if there were no seams.

    Args:
        graph: Arcs smoothed in cells, except near ends on seams.
        nodes: The corners on seams.
        vertices: (n, 2) vertices of all borders near seams, except those in `nodes.through`.
        unfinished: What is left of their smoothing.
        rounds: Rounds of smoothing.

    Returns:
        The arcs, the (n, 2) vertices of all borders near seams, and what is still left.
    """
    joined = join_arcs(graph, nodes, unfinished, rounds=rounds)
    arcs, state = joined.graph.arcs, joined.state
    if not len(arcs):
        return joined.graph, vertices, Unfinished.none()
    inner = (arcs.left > 0) & (arcs.right > 0)
    chosen = np.flatnonzero(inner & (np.minimum.reduceat(state.rounds_done, arcs.starts[:-1]) < rounds))
    sizes = np.diff(arcs.starts)[chosen]
    indices = _ranges(arcs.starts[chosen], sizes)
    unfinished_arcs = Arcs(arcs.xy[indices], _starts(sizes), arcs.left[chosen], arcs.right[chosen])
    vertices = vertices[~is_among(vertices, unfinished_arcs.xy)]
    state = SmoothingState(
        unfinished_arcs, state.is_closed[chosen], state.rounds_done[indices], state.open_ends[chosen], unfinished
    )
    smoothed, left = resume_smoothing(state, rounds, vertices)
    return _replace_arcs(joined.graph, chosen, smoothed), np.concatenate([vertices, smoothed.xy]), left


def join_arcs(graph: ArcGraph, nodes: SeamNodes, unfinished: Unfinished, *, rounds: int) -> JoinedArcs:
    """Join arcs where only one other continues; drop corners there that are no vertices."""
    arcs = graph.arcs
    at_seam, unlinked = np.zeros((len(arcs), 2), np.bool_), np.zeros((len(arcs), 2), np.bool_)
    at_seam[nodes.darts >> 1, nodes.darts & 1] = True
    unlinked[nodes.unlinked >> 1, nodes.unlinked & 1] = True
    continuation = np.full(2 * len(arcs), -1, np.int64)
    partners = graph.next_dart[nodes.through ^ 1]
    continuation[nodes.through ^ 1], continuation[partners ^ 1] = partners, nodes.through
    rounds_done = _rounds_done(arcs, at_seam, unfinished, rounds)
    xy, starts, rounds_done, first, last, closed = _join(
        arcs.xy, arcs.starts, graph.is_vertex, continuation, rounds_done
    )
    new_dart = np.full(2 * len(arcs) + 1, -1, np.int32)  # of -1, in the last place, it is -1
    new_dart[first], new_dart[last ^ 1] = 2 * np.arange(first.size), 2 * np.arange(first.size) + 1
    next_dart, next_same = (
        np.column_stack([new_dart[after[last]], new_dart[after[first ^ 1]]])
        for after in (graph.next_dart, graph.next_dart_same_region)
    )
    next_dart[closed] = np.column_stack([2 * np.flatnonzero(closed), 2 * np.flatnonzero(closed) + 1])
    backwards = (first & 1).astype(np.bool_)
    left, right = arcs.left[first >> 1], arcs.right[first >> 1]
    joined = Arcs(xy, starts, np.where(backwards, right, left), np.where(backwards, left, right))
    directions = np.column_stack(
        [_first_directions(graph.directions, first), _first_directions(graph.directions, last ^ 1) ^ 2]
    )
    is_vertex, open_ends = (
        np.column_stack([ends[first >> 1, first & 1], ends[last >> 1, 1 - (last & 1)]])
        for ends in (graph.is_vertex, unlinked)
    )
    is_vertex |= closed[:, None]
    joined_graph = ArcGraph(joined, directions, next_dart.reshape(-1), next_same.reshape(-1), is_vertex)
    return JoinedArcs(joined_graph, SmoothingState(joined, closed, rounds_done, open_ends, unfinished))


def _first_directions(directions: NDArray[np.int8], darts: NDArray[np.int64]) -> NDArray[np.int8]:
    """Return (darts,) direction of the first pixel side of each dart."""
    first: NDArray[np.int8] = np.where(darts & 1, directions[darts >> 1, 1] ^ 2, directions[darts >> 1, 0])
    return first


def _replace_arcs(graph: ArcGraph, chosen: NDArray[np.int64], new: Arcs) -> ArcGraph:
    """Replace the vertices of chosen arcs."""
    arcs = graph.arcs
    xy, starts = _replace(arcs.xy, arcs.starts, chosen, new.xy, new.starts)
    arcs = Arcs(xy, starts, arcs.left, arcs.right)
    return ArcGraph(arcs, graph.directions, graph.next_dart, graph.next_dart_same_region, graph.is_vertex)


@jit("f8[:, ::1]", "i8[::1]", "i8[::1]", "f8[:, ::1]", "i8[::1]")
def _replace(xy: Any, starts: Any, chosen: Any, new_xy: Any, new_starts: Any) -> Any:
    """Return the vertices of all arcs and their starts; chosen arcs, in ascending order, have new vertices."""
    result, result_starts = np.empty((len(xy) + len(new_xy), 2)), np.zeros_like(starts)
    used, position = 0, 0
    for arc in range(starts.size - 1):
        is_chosen = position < chosen.size and chosen[position] == arc
        source = new_xy if is_chosen else xy
        low, high = (new_starts[position], new_starts[position + 1]) if is_chosen else (starts[arc], starts[arc + 1])
        position += is_chosen
        for at in range(low, high):
            result[used, 0], result[used, 1] = source[at, 0], source[at, 1]
            used += 1
        result_starts[arc + 1] = used
    return result[:used], result_starts


def _starts(sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    return np.concatenate([[0], np.cumsum(sizes)]).astype(np.int64)


def _ranges(begins: NDArray[np.int64], sizes: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the concatenated ranges from each `begin` on, of these sizes."""
    result: NDArray[np.int64] = np.arange(sizes.sum()) + np.repeat(begins - _starts(sizes)[:-1], sizes)
    return result


def _rounds_done(arcs: Arcs, at_seam: NDArray[np.bool_], unfinished: Unfinished, rounds: int) -> NDArray[np.int8]:
    """Return (vertices,) rounds of smoothing of each: all but for those that are left, and none at ends on seams."""
    found = indices_among(arcs.xy, unfinished.vertices)
    done = np.full(len(arcs.xy), rounds, np.int8)
    done[found >= 0] = unfinished.rounds_done[found[found >= 0]]
    done[arcs.starts[:-1][at_seam[:, 0]]] = 0
    done[arcs.starts[1:][at_seam[:, 1]] - 1] = 0
    return done


@jit("f8[:, ::1]", "i8[::1]", "b1[:, ::1]", "i8[::1]", "i1[::1]")
def _join(xy: Any, starts: Any, is_vertex: Any, continuation: Any, rounds_done: Any) -> Any:
    """Return vertices of the joined arcs, their starts, rounds done, first and last darts, and which are closed."""
    count = starts.size - 1
    new, new_rounds = np.empty((len(xy) + count, 2)), np.empty(len(xy) + count, np.int8)
    new_starts = np.zeros(count + 1, np.int64)
    first, last, is_closed = np.empty(count, np.int64), np.empty(count, np.int64), np.zeros(count, np.bool_)
    joined = np.zeros(count, np.bool_)
    used, made = 0, 0
    for closed in (False, True):
        for arc in range(count):
            if joined[arc] or not (closed or continuation[2 * arc] < 0 or continuation[2 * arc + 1] < 0):
                continue
            dart = 2 * arc if closed or continuation[2 * arc + 1] < 0 else 2 * arc + 1
            first[made], is_closed[made] = dart, closed
            begin = True
            while True:
                number, backwards = dart >> 1, dart & 1
                joined[number] = True
                low, high = starts[number], starts[number + 1]
                keep = is_vertex[number, backwards] or (begin and not closed)
                for step in range(0 if keep else 1, high - low - 1):
                    at = high - 1 - step if backwards else low + step
                    new[used], new_rounds[used] = xy[at], rounds_done[at]
                    used += 1
                begin = False
                if continuation[dart] < 0 or continuation[dart] == first[made]:
                    break
                dart = continuation[dart]
            last[made] = dart
            end = low if backwards else high - 1
            if closed:
                new[used], new_rounds[used] = new[new_starts[made]], new_rounds[new_starts[made]]
            else:
                new[used], new_rounds[used] = xy[end], rounds_done[end]
            used += 1
            made += 1
            new_starts[made] = used
    return (
        new[:used].copy(), new_starts[: made + 1].copy(), new_rounds[:used].copy(), first[:made].copy(),
        last[:made].copy(), is_closed[:made].copy(),
    )  # fmt: skip
