"""Drop vertices that borders have on seams only because each cell was simplified on its own."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.polygons.borders.point_set import is_among
from geopsp.polygons.borders.topology import Arcs
from geopsp.polygons.borders.trace_arcs import ArcGraph

MAX_PASSES = 8
"""Limit of passes over all candidates; few are left for a second one."""


BIN = 16
"""Width and height in pixels of the bins in which vertices are looked up."""


def drop_seam_vertices(
    graph: ArcGraph,
    darts: NDArray[np.int64],
    vertices: NDArray[np.float64],
    *,
    min_triangle: float,
    max_distance: float,
    between_seams: bool,
) -> tuple[ArcGraph, NDArray[np.float64]]:
    """Drop vertices on seams whose triangle with their neighbours is smaller than `min_triangle`.

    The smallest triangle goes first, and only if no other vertex lies in it, so that no borders come to cross or touch.
    The neighbours are vertices of the same border, at most `max_distance` away.

    Args:
        graph: Arcs that are linked across seams; `is_vertex` is changed in place.
        darts: (n,) one dart that leaves each vertex to check. Two borders end there, and nodata touches neither.
        vertices: (n, 2) vertices of all borders up to `max_distance` from the seams, except those to check.
        min_triangle: In square pixels.
        max_distance: In pixels.
        between_seams: True to drop also vertices of arcs from seam to seam, which simplifying had to keep.

    Returns:
        The arcs, and the (n, 2) checked vertices that are left.
    """
    arcs = graph.arcs
    candidates = np.column_stack([darts, np.zeros_like(darts)])  # dart and step
    if between_seams:
        candidates = np.concatenate([candidates, _inner_vertices(graph, darts)])
    xy = arcs.xy[_vertex_indices(arcs.starts, candidates[:, 0], candidates[:, 1])]
    points = np.concatenate([vertices[~is_among(vertices, xy)], xy])
    candidate_of = np.arange(len(points)) - (len(points) - len(xy))  # negative for points that stay
    bins = np.floor(points / BIN).astype(np.int64) + 1
    width = int(bins[:, 0].max(initial=0)) + 2
    keys = bins[:, 1] * width + bins[:, 0]
    order = np.argsort(keys)
    lookup = keys[order], points[order], candidate_of[order], width
    is_left, dropped = np.ones(len(candidates), np.bool_), np.zeros(len(arcs.xy), np.bool_)
    lines = arcs.xy, arcs.starts, graph.next_dart, graph.is_vertex, dropped
    for _ in range(MAX_PASSES):
        areas = _triangle_areas(*lines, candidates, is_left, max_distance)
        small = np.flatnonzero(areas < min_triangle)
        queue = small[np.argsort(areas[small], kind="stable")]
        if not _drop(
            *lines, graph.next_dart_same_region, candidates, is_left, queue, min_triangle, max_distance, *lookup
        ):
            break
    counts = np.add.reduceat(~dropped, arcs.starts[:-1], dtype=np.int64) if len(arcs) else np.empty(0, np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)])
    return replace(graph, arcs=Arcs(arcs.xy[~dropped], starts, arcs.left, arcs.right)), xy[is_left]


def _inner_vertices(graph: ArcGraph, darts: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return (n, 2) dart and step of all inner vertices of arcs that run from a vertex of `darts` to another."""
    at_seam = np.zeros((len(graph.arcs), 2), np.bool_)
    for leaving in (darts, graph.next_dart[darts ^ 1]):
        at_seam[leaving >> 1, leaving & 1] = True
    chosen = np.flatnonzero(at_seam.all(axis=1))
    counts = np.diff(graph.arcs.starts)[chosen] - 2
    steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    return np.column_stack([np.repeat(2 * chosen, counts), steps])


@jit()
def _size(starts: Any, dart: Any) -> Any:
    """Return how many vertices a dart has."""
    return starts[(dart >> 1) + 1] - starts[dart >> 1]


def _vertex_indices(starts: Any, darts: NDArray[np.int64], steps: NDArray[np.int64]) -> Any:
    """Return the indices of vertices, each counted along its dart."""
    return np.where(darts & 1, starts[(darts >> 1) + 1] - 1 - steps, starts[darts >> 1] + steps)


@jit()
def _vertex_index(starts: Any, dart: Any, step: Any) -> Any:
    """Return the index of a vertex that is counted along its dart."""
    return starts[(dart >> 1) + 1] - 1 - step if dart & 1 else starts[dart >> 1] + step


@jit()
def _vertex(xy: Any, starts: Any, dart: Any, step: Any) -> Any:
    at = _vertex_index(starts, dart, step)
    return xy[at, 0], xy[at, 1]


@jit()
def _next_vertex(starts: Any, next_dart: Any, is_vertex: Any, dropped: Any, dart: Any, step: Any) -> Any:
    """Return the next vertex of the border as dart and step; dart -1 if the next dart is not yet known."""
    while True:
        step += 1
        last = _size(starts, dart) - 1
        if step < last:
            if not dropped[_vertex_index(starts, dart, step)]:
                return dart, step
            continue
        if step == last and is_vertex[dart >> 1, 1 - (dart & 1)]:
            return dart, step
        dart, step = next_dart[dart], 0
        if dart < 0:
            return dart, step


@jit()
def _triangle(
    xy: Any, starts: Any, next_dart: Any, is_vertex: Any, dropped: Any, dart: Any, step: Any, max_distance: Any
) -> Any:
    """Return the area of a vertex's triangle, its corners, and its neighbours as dart and step.

    The area is infinite if a neighbour is too far away, or not yet known.
    """
    x, y = _vertex(xy, starts, dart, step)
    one, one_step = _next_vertex(starts, next_dart, is_vertex, dropped, dart, step)
    two, two_step = _next_vertex(starts, next_dart, is_vertex, dropped, dart ^ 1, _size(starts, dart) - 1 - step)
    if one < 0 or two < 0:
        return np.inf, x, y, x, y, x, y, one, one_step, two, two_step
    a, b = _vertex(xy, starts, one, one_step)
    c, d = _vertex(xy, starts, two, two_step)
    area = abs((a - x) * (d - y) - (c - x) * (b - y)) / 2
    if max(abs(a - x), abs(b - y), abs(c - x), abs(d - y)) > max_distance:
        area = np.inf
    return area, x, y, a, b, c, d, one, one_step, two, two_step


@jit("f8[:, ::1]", "i8[::1]", "i4[::1]", "b1[:, ::1]", "b1[::1]", "i8[:, ::1]", "b1[::1]", "f8")
def _triangle_areas(
    xy: Any,
    starts: Any,
    next_dart: Any,
    is_vertex: Any,
    dropped: Any,
    candidates: Any,
    is_left: Any,
    max_distance: Any,
) -> Any:
    areas = np.full(is_left.size, np.inf)
    for candidate in range(is_left.size):
        if is_left[candidate]:
            dart, step = candidates[candidate, 0], candidates[candidate, 1]
            areas[candidate] = _triangle(xy, starts, next_dart, is_vertex, dropped, dart, step, max_distance)[0]
    return areas


@jit(
    "f8[:, ::1]",
    "i8[::1]",
    "i4[::1]",
    "b1[:, ::1]",
    "b1[::1]",
    "i4[::1]",
    "i8[:, ::1]",
    "b1[::1]",
    "i8[::1]",
    "f8",
    "f8",
    "i8[::1]",
    "f8[:, ::1]",
    "i8[::1]",
    "i8",
)
def _drop(
    xy: Any, starts: Any, next_dart: Any, is_vertex: Any, dropped: Any, next_same: Any, candidates: Any, is_left: Any,
    queue: Any, min_triangle: Any, max_distance: Any, keys: Any, points: Any, candidate_of: Any, width: Any,
) -> Any:  # fmt: skip
    """Drop the candidates of the queue that can be dropped; return True if any was."""
    changed = False
    for candidate in queue:
        dart, step = candidates[candidate, 0], candidates[candidate, 1]
        area, x, y, a, b, c, d, one, one_step, two, two_step = _triangle(
            xy, starts, next_dart, is_vertex, dropped, dart, step, max_distance
        )
        if area >= min_triangle or (a == c and b == d):
            continue
        if _is_last_triangle(xy, starts, next_dart, is_vertex, dropped, next_same, one, one_step, c, d):
            continue
        if _is_last_triangle(xy, starts, next_dart, is_vertex, dropped, next_same, two, two_step, a, b):
            continue
        if not _is_empty(x, y, a, b, c, d, candidate, keys, points, candidate_of, is_left, width):
            continue
        if step == 0:
            back = next_dart[dart ^ 1]
            is_vertex[dart >> 1, dart & 1] = is_vertex[back >> 1, back & 1] = False
        else:
            dropped[_vertex_index(starts, dart, step)] = True
        is_left[candidate] = False
        changed = True
    return changed


@jit()
def _is_last_triangle(
    xy: Any,
    starts: Any,
    next_dart: Any,
    is_vertex: Any,
    dropped: Any,
    next_same: Any,
    dart: Any,
    step: Any,
    x: Any,
    y: Any,
) -> Any:
    """Return True if the vertex after this one is at (x, y), so the ring is a triangle; or if that is not yet known."""
    branches = (np.int64(dart), np.int64(-1))
    if step == _size(starts, dart) - 1:
        branches, step = (np.int64(next_dart[dart]), np.int64(next_same[dart])), 0
        if branches[0] < 0:
            return True
    for branch in branches:
        if branch >= 0:
            after, at = _next_vertex(starts, next_dart, is_vertex, dropped, branch, step)
            if after < 0 or _vertex(xy, starts, after, at) == (x, y):
                return True
    return False


@jit()
def _is_empty(
    x: Any, y: Any, a: Any, b: Any, c: Any, d: Any, candidate: Any, keys: Any, points: Any, candidate_of: Any,
    is_left: Any, width: Any,
) -> Any:  # fmt: skip
    """Return True if no vertex except its corners lies in the triangle (x, y), (a, b), (c, d) or on its sides."""
    left, right = int(np.floor(min(x, a, c) / BIN)) + 1, int(np.floor(max(x, a, c) / BIN)) + 1
    upper, lower = int(np.floor(min(y, b, d) / BIN)) + 1, int(np.floor(max(y, b, d) / BIN)) + 1
    for row in range(upper, lower + 1):
        first = np.searchsorted(keys, row * width + left)
        for at in range(first, keys.size):
            if keys[at] > row * width + right:
                break
            if candidate_of[at] == candidate or (candidate_of[at] >= 0 and not is_left[candidate_of[at]]):
                continue
            u, v = points[at, 0], points[at, 1]
            if not (min(x, a, c) <= u <= max(x, a, c) and min(y, b, d) <= v <= max(y, b, d)):
                continue
            if (u == a and v == b) or (u == c and v == d):
                continue
            one = (a - x) * (v - y) - (u - x) * (b - y)
            two = (c - a) * (v - b) - (u - a) * (d - b)
            three = (x - c) * (v - d) - (u - c) * (y - d)
            if (one >= 0 and two >= 0 and three >= 0) or (one <= 0 and two <= 0 and three <= 0):
                return False
    return True
