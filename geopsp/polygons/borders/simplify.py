"""Simplify the shared borders of regions, without gaps or overlaps."""

from __future__ import annotations

from heapq import heappop, heappush
from typing import Any

import numpy as np

from geopsp.core.jit import jit
from geopsp.polygons.borders.topology import Arcs, RegionRings
from geopsp.polygons.borders.trace_arcs import ArcGraph

ROUNDING = 1e-6
"""More than rounding moves a point of a triangle's side, less than the distance of another pixel corner from it."""


def simplify_arcs(graph: ArcGraph, rings: RegionRings, min_triangle: float) -> Arcs:
    """Remove vertices whose triangle with their two neighbours has at most `min_triangle`.

    Vertices are removed one by one, in each arc the smallest triangle first, and only if no other vertex lies in it.
    So no arcs cross or touch that did not before, and all regions stay, with the same neighbours. Nodes stay, and so do
    arcs that touch nodata or the frame.

    Args:
        graph: All arcs of a cell, with vertices at pixel corners.
        rings: Rings of all its regions, in the order of their labels.
        min_triangle: In square pixels.

    Source: Visvalingam and Whyatt, Line generalisation by repeated elimination of points, 1993.
    """
    arcs = graph.arcs
    is_free = (arcs.left > 0) & (arcs.right > 0) & (np.diff(arcs.starts) > 2)
    if min_triangle <= 0 or not is_free.any():
        return arcs
    width, height = arcs.xy.max(axis=0).astype(np.int64) + 1
    limit = int(min(2 * min_triangle, 2 * width * height))
    xy, starts = _simplify(
        arcs.xy.astype(np.int32), arcs.starts, rings.darts, is_free, graph.next_dart, limit, width, height
    )
    return Arcs(xy.astype(np.float64), starts, arcs.left, arcs.right)


@jit("i4[:, ::1]", "i8[::1]", "i8[::1]", "b1[::1]", "i4[::1]", "i8", "i8", "i8")
def _simplify(
    xy: Any, starts: Any, darts: Any, is_free: Any, next_dart: Any, limit: Any, width: Any, height: Any
) -> Any:
    """Return the vertices that are left, and the starts of arcs, simplified in the order of their first darts."""
    is_vertex = np.zeros((height, width), np.bool_)
    for at in range(len(xy)):
        is_vertex[xy[at, 1], xy[at, 0]] = True
    before, after = np.arange(-1, len(xy) - 1).astype(np.int32), np.arange(1, len(xy) + 1).astype(np.int32)
    areas = np.full(len(xy), -1, np.int64)  # twice the areas of triangles in the queue
    sizes = starts[1:] - starts[:-1]
    queue = [np.int64(0) for _ in range(0)]
    done = ~is_free
    for dart in darts:
        if not done[dart >> 1]:
            done[dart >> 1] = True
            _simplify_arc(dart, xy, starts, sizes, next_dart, limit, is_vertex, before, after, areas, queue)
    return _remaining(xy, starts, sizes, after)


@jit()
def _simplify_arc(
    dart: Any, xy: Any, starts: Any, sizes: Any, next_dart: Any, limit: Any, is_vertex: Any, before: Any, after: Any,
    areas: Any, queue: Any,
) -> None:  # fmt: skip
    """Take vertices out of the linked list of an arc; the queue is empty before and after.

    Of equal triangles the first along the dart goes first.
    """
    arc, forwards = dart >> 1, not dart & 1
    begin, end = starts[arc], starts[arc + 1] - 1
    is_closed = _is_closed(arc, next_dart)
    if is_closed:
        before[begin], after[end - 1] = end - 1, begin
    least = 4 if xy[begin, 0] == xy[end, 0] and xy[begin, 1] == xy[end, 1] else 2
    for at in range(begin if is_closed else begin + 1, end):
        _push(at, begin, end, xy, forwards, limit, before, after, areas, queue)
    while queue and sizes[arc] > least:
        key = heappop(queue)
        step = key & 0xFFFFFFFF
        at = begin + step if forwards or step == 0 else end - step
        if areas[at] != key >> 32:
            continue  # removed, or its neighbours have changed
        areas[at] = -1
        one, two = before[at], after[at]
        if sizes[arc] == 3 and _has_straight_arc(arc, xy, starts, sizes, next_dart):
            continue
        if not _is_empty(xy, at, one, two, is_vertex):
            continue
        is_vertex[xy[at, 1], xy[at, 0]] = False
        sizes[arc] -= 1
        after[one], before[two] = two, one
        before[at] = after[at] = -1
        for neighbour in (one, two):
            if is_closed or begin < neighbour < end:
                _push(neighbour, begin, end, xy, forwards, limit, before, after, areas, queue)
    queue.clear()


@jit()
def _is_closed(arc: Any, next_dart: Any) -> Any:
    """Return True if an arc has no node."""
    return next_dart[2 * arc] == 2 * arc and next_dart[2 * arc + 1] == 2 * arc + 1


@jit()
def _push(
    at: Any, begin: Any, end: Any, xy: Any, forwards: Any, limit: Any, before: Any, after: Any, areas: Any, queue: Any
) -> None:
    """Queue a vertex if its triangle is small."""
    one, two = before[at], after[at]
    area = (xy[one, 0] - xy[at, 0]) * (xy[two, 1] - xy[at, 1]) - (xy[two, 0] - xy[at, 0]) * (xy[one, 1] - xy[at, 1])
    areas[at] = abs(area)
    if areas[at] <= limit:
        step = at - begin if forwards or at == begin else end - at
        heappush(queue, areas[at] << 32 | step)


@jit()
def _has_straight_arc(arc: Any, xy: Any, starts: Any, sizes: Any, next_dart: Any) -> Any:
    """Return True if another arc is a straight line between the same nodes."""
    first, end = 2 * arc, starts[arc + 1] - 1
    dart = next_dart[first ^ 1]
    while dart != first:
        last = starts[dart >> 1] if dart & 1 else starts[(dart >> 1) + 1] - 1
        if sizes[dart >> 1] == 2 and xy[last, 0] == xy[end, 0] and xy[last, 1] == xy[end, 1]:
            return True
        dart = next_dart[dart ^ 1]
    return False


@jit()
def _is_empty(xy: Any, at: Any, one: Any, two: Any, is_vertex: Any) -> Any:
    """Return True if a triangle, sides included, contains no vertex except its corners."""
    corners = (np.int64(at), np.int64(one), np.int64(two))
    for row in range(min(xy[at, 1], xy[one, 1], xy[two, 1]), max(xy[at, 1], xy[one, 1], xy[two, 1]) + 1):
        low, high = np.inf, -np.inf
        for number in range(3):
            x, y = xy[corners[number], 0], xy[corners[number], 1]
            u, v = xy[corners[number - 1], 0], xy[corners[number - 1], 1]
            if y == v == row:
                low, high = min(low, x, u), max(high, x, u)
            elif y != v and min(y, v) <= row <= max(y, v):
                col = x + (row - y) * (u - x) / (v - y)
                low, high = min(low, col), max(high, col)
        for col in range(int(np.ceil(low - ROUNDING)), int(np.floor(high + ROUNDING)) + 1):
            if is_vertex[row, col]:
                is_corner = False
                for corner in corners:
                    is_corner |= xy[corner, 0] == col and xy[corner, 1] == row
                if not is_corner:
                    return False
    return True


@jit()
def _remaining(xy: Any, starts: Any, sizes: Any, after: Any) -> Any:
    """Return the vertices of the linked lists, and the starts of arcs."""
    new_starts = np.zeros_like(starts)
    new_starts[1:] = np.cumsum(sizes)
    new = np.empty((new_starts[-1], 2), np.int32)
    for arc in range(sizes.size):
        at = starts[arc]
        while after[at] < 0:  # a closed arc that lost its first vertex
            at += 1
        for step in range(new_starts[arc], new_starts[arc + 1]):
            new[step, 0], new[step, 1] = xy[at, 0], xy[at, 1]
            at = after[at]
    return new, new_starts
