"""Trace the borders of a cell's regions as arcs from node to node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.polygons.borders.topology import Arcs

NORTH, EAST, SOUTH, WEST = 0, 1, 2, 3
"""Directions along pixel sides; d - 1 is to the left of d, d ^ 2 is opposite to d."""


@dataclass(frozen=True, slots=True, eq=False)
class ArcGraph:
    """Arcs, and how they are connected at their ends; see `RegionRings` for darts."""

    arcs: Arcs

    directions: NDArray[np.int8]
    """(arcs, 2) direction of the first and of the last pixel side of each arc."""

    next_dart: NDArray[np.int32]
    """(2 arcs,) the dart that follows each dart along the region on its left; -1 if not yet known."""

    next_dart_same_region: NDArray[np.int32]
    """(2 arcs,) the dart to take instead if the region on its left is the same, else -1.

    Where a region touches itself at a corner, this closes a hole there, so that no ring passes a corner twice.
    """

    is_vertex: NDArray[np.bool_]
    """(arcs, 2) False for a first or last vertex where a straight border was only cut."""


def trace_arcs(labels: NDArray[np.int32]) -> ArcGraph:
    """Trace the borders of all regions of a cell, also along its sides; label 0 is nodata.

    Arcs are also cut at the cell's corners, and where a border leaves a side of the cell. Coordinates are relative to
    the cell.
    """
    xy, starts, left, right, directions, next_dart, next_same = _trace(np.pad(labels, 1))
    return ArcGraph(
        Arcs(xy.astype(np.float64), starts, left, right),
        directions,
        next_dart,
        next_same,
        np.ones(directions.shape, np.bool_),
    )


def select_arcs(
    graph: ArcGraph,
    new_labels: NDArray[np.int32],
    *,
    dropped: NDArray[np.bool_] | None = None,
    open_ends: NDArray[np.bool_] | None = None,
) -> ArcGraph:
    """Return the arcs of some regions, with new labels.

    Args:
        graph: Arcs.
        new_labels: (labels,) new label of each label; 0: not selected.
        dropped: (arcs,) True for arcs to leave out in any case.
        open_ends: (arcs, 2) True for ends where the next arc is in another cell, and not yet known.
    """
    arcs, count = graph.arcs, len(graph.arcs)
    dropped = np.zeros(count, np.bool_) if dropped is None else dropped
    open_ends = np.zeros((count, 2), np.bool_) if open_ends is None else open_ends
    xy, starts, kept, left, right, next_dart, next_same = _select(
        arcs.xy, arcs.starts, arcs.left, arcs.right, graph.next_dart, graph.next_dart_same_region, new_labels, dropped,
        open_ends,
    )  # fmt: skip
    return ArcGraph(Arcs(xy, starts, left, right), graph.directions[kept], next_dart, next_same, graph.is_vertex[kept])


@jit("f8[:, ::1]", "i8[::1]", "i4[::1]", "i4[::1]", "i4[::1]", "i4[::1]", "i4[::1]", "b1[::1]", "b1[:, ::1]")
def _select(
    xy: Any,
    starts: Any,
    left: Any,
    right: Any,
    next_dart: Any,
    next_same: Any,
    new_labels: Any,
    dropped: Any,
    open_ends: Any,
) -> Any:
    new_index, kept, vertices = np.full(left.size, -1, np.int32), 0, 0
    for arc in range(left.size):
        if not dropped[arc] and (new_labels[left[arc]] or new_labels[right[arc]]):
            new_index[arc] = kept
            kept += 1
            vertices += starts[arc + 1] - starts[arc]
    new_xy, new_starts, old = np.empty((vertices, 2), xy.dtype), np.zeros(kept + 1, np.int64), np.empty(kept, np.int64)
    new_left, new_right = np.empty(kept, np.int32), np.empty(kept, np.int32)
    new_next, new_next_same = np.full(2 * kept, -1, np.int32), np.full(2 * kept, -1, np.int32)
    for arc in range(left.size):
        new = new_index[arc]
        if new < 0:
            continue
        old[new] = arc
        size = starts[arc + 1] - starts[arc]
        new_starts[new + 1] = new_starts[new] + size
        for step in range(size):
            new_xy[new_starts[new] + step, 0] = xy[starts[arc] + step, 0]
            new_xy[new_starts[new] + step, 1] = xy[starts[arc] + step, 1]
        new_left[new], new_right[new] = new_labels[left[arc]], new_labels[right[arc]]
        for backwards in range(2):
            if open_ends[arc, 1 - backwards]:
                continue
            dart = next_dart[2 * arc + backwards]
            if dart >= 0 and new_index[dart >> 1] >= 0:
                new_next[2 * new + backwards] = 2 * new_index[dart >> 1] + (dart & 1)
            dart = next_same[2 * arc + backwards]
            if dart >= 0 and new_index[dart >> 1] >= 0:
                new_next_same[2 * new + backwards] = 2 * new_index[dart >> 1] + (dart & 1)
    return new_xy, new_starts, old, new_left, new_right, new_next, new_next_same


@jit("i4[:, ::1]")
def _trace(padded: Any) -> Any:
    corners, node_of, turns, ends = _find_corners(padded)
    max_arcs = ends // 2 + turns // 4
    xy = np.empty((turns + ends + turns // 4, 2), np.int32)
    starts, count = np.zeros(max_arcs + 1, np.int64), 0
    left, right = np.empty(max_arcs, np.int32), np.empty(max_arcs, np.int32)
    directions = np.empty((max_arcs, 2), np.int8)
    leaving = np.full((ends, 4), -1, np.int32)  # darts by node and direction
    untraced = corners & 15
    end_nodes = np.empty((max_arcs, 2), np.int32)  # the nodes at which an arc begins and ends; -1 if it is closed
    for closed in (False, True):
        for row in range(corners.shape[0]):
            for col in range(corners.shape[1]):
                if untraced[row, col] == 0 or not (closed or corners[row, col] & 16):
                    continue
                for direction in range(4):
                    if not untraced[row, col] >> direction & 1:
                        continue
                    left[count], right[count] = _labels_beside(padded, row, col, direction)
                    directions[count, 0] = direction
                    end, end_row, end_col, last = _follow_border(
                        corners, untraced, row, col, direction, xy, starts[count]
                    )
                    directions[count, 1] = last
                    if closed:
                        end_nodes[count] = -1
                    else:
                        end_nodes[count, 0], end_nodes[count, 1] = node_of[row, col], node_of[end_row, end_col]
                        leaving[end_nodes[count, 0], direction] = 2 * count
                        leaving[end_nodes[count, 1], last ^ 2] = 2 * count + 1
                    count += 1
                    starts[count] = end
    left, right, directions = left[:count].copy(), right[:count].copy(), directions[:count].copy()
    next_dart, next_same = _connect_darts(directions, end_nodes, leaving)
    return xy[: starts[count]].copy(), starts[: count + 1].copy(), left, right, directions, next_dart, next_same


@jit()
def _find_corners(padded: Any) -> Any:
    """Find the pixel corners where borders are.

    Returns:
        (rows + 1, cols + 1) a bit for each pixel side at a corner that separates two regions, plus 16 at nodes;
        (rows + 1, cols + 1) numbers of the nodes; how many corners are turns of arcs; how many ends of arcs there are.
    """
    height, width = padded.shape[0] - 2, padded.shape[1] - 2
    corners, node_of = np.zeros((height + 1, width + 1), np.uint8), np.empty((height + 1, width + 1), np.int32)
    nodes, turns, ends = 0, 0, 0
    for row in range(height + 1):
        for col in range(width + 1):
            nw, ne = padded[row, col], padded[row, col + 1]
            sw, se = padded[row + 1, col], padded[row + 1, col + 1]
            if nw == ne and ne == se and se == sw:
                continue
            north, east, south, west = int(nw != ne), int(ne != se), int(se != sw), int(sw != nw)
            bits = north | east << 1 | south << 2 | west << 3
            degree = north + east + south + west
            at_top_or_bottom, at_left_or_right = row in (0, height), col in (0, width)
            if degree > 2 or (at_top_or_bottom and north + south > 0) or (at_left_or_right and east + west > 0):
                node_of[row, col] = nodes
                nodes += 1
                ends += degree
                bits |= 16
            elif bits not in (5, 10):
                turns += 1
            corners[row, col] = bits
    return corners, node_of, turns, ends


@jit()
def _labels_beside(padded: Any, row: Any, col: Any, direction: Any) -> Any:
    """Return the regions to the left and right of the pixel side that leaves a corner in a direction."""
    nw, ne = padded[row, col], padded[row, col + 1]
    sw, se = padded[row + 1, col], padded[row + 1, col + 1]
    if direction == 0:
        return nw, ne
    if direction == 1:
        return ne, se
    if direction == 2:
        return se, sw
    return sw, nw


@jit()
def _follow_border(corners: Any, untraced: Any, row: Any, col: Any, direction: Any, xy: Any, used: Any) -> Any:
    """Follow a border to its next node, or around; write its turns to `xy`, remove its sides from `untraced`.

    Returns:
        The end in `xy`, row and column of the last corner, and the direction of the last side.
    """
    first_row, first_col = row, col
    xy[used, 0], xy[used, 1] = col, row
    used += 1
    untraced[row, col] &= 15 ^ (1 << direction)
    while True:
        row, col = row + (direction == 2) - (direction == 0), col + (direction == 1) - (direction == 3)
        back = direction ^ 2
        if corners[row, col] & 16 or (row == first_row and col == first_col):
            untraced[row, col] &= 15 ^ (1 << back)
            break
        untraced[row, col] = 0
        onward = corners[row, col] ^ (1 << back)
        if not onward >> direction & 1:
            direction = 0 if onward == 1 else 1 if onward == 2 else 2 if onward == 4 else 3
            xy[used, 0], xy[used, 1] = col, row
            used += 1
    xy[used, 0], xy[used, 1] = col, row
    return used + 1, row, col, direction


@jit()
def _connect_darts(directions: Any, end_nodes: Any, leaving: Any) -> Any:
    """Return the next dart of each dart: the leftmost one at its node, which stays at the pixel on the left."""
    count = directions.shape[0]
    next_dart, next_same = np.empty(2 * count, np.int32), np.full(2 * count, -1, np.int32)
    for dart in range(2 * count):
        arc, backwards = dart >> 1, dart & 1
        node = end_nodes[arc, 1 - backwards]
        if node < 0:
            next_dart[dart] = dart
            continue
        direction = directions[arc, 0] ^ 2 if backwards else directions[arc, 1]
        to_left, to_right = leaving[node, (direction + 3) & 3], leaving[node, (direction + 1) & 3]
        straight = leaving[node, direction]
        if to_left < 0:
            next_dart[dart] = straight if straight >= 0 else to_right
            continue
        next_dart[dart] = to_left
        if to_right >= 0 and straight >= 0:
            next_same[dart] = to_right
    return next_dart, next_same
