"""The borders of the regions of a cell, followed from node to node."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.polygons.borders.topology import Arcs

NORTH, EAST, SOUTH, WEST = 0, 1, 2, 3
"""Directions along the sides of pixels; d - 1 is to the left of d."""


@dataclass(frozen=True, slots=True, eq=False)
class ArcGraph:
    """Arcs, and how they go on at their ends."""

    arcs: Arcs

    ways: NDArray[np.int8]
    """(arcs, 2) the direction in which each begins, and that in which it ends."""

    following: NDArray[np.int32]
    """(2 arcs,) the dart that follows each along the same region; -1 if it is not known yet."""

    instead: NDArray[np.int32]
    """(2 arcs,) the dart that follows if the region to its left is the same: a region that touches itself at a corner
    has a hole there, rather than a waist; else -1."""

    kept: NDArray[np.bool_]
    """(arcs, 2) False for a first or last vertex that is just a cut in a straight border."""


def trace(labels: NDArray[np.int32]) -> ArcGraph:
    """The borders of all regions of a cell, of which 0 is none, also along the cell's sides.

    Arcs are cut at the cell's corners too, and wherever one leaves a side. Coordinates are the cell's own.
    """
    xy, starts, left, right, ways, following, instead = _trace(np.pad(labels, 1))
    return ArcGraph(Arcs(xy, starts, left, right), ways, following, instead, np.ones(ways.shape, np.bool_))


def select(
    net: ArcGraph,
    renumber: NDArray[np.int32],
    *,
    dropped: NDArray[np.bool_] | None = None,
    met: NDArray[np.bool_] | None = None,
) -> ArcGraph:
    """The arcs of the regions that have a new number, with the new numbers.

    Args:
        net: Arcs.
        renumber: (labels,) a new number for each label; 0: none.
        dropped: (arcs,) True for those that are left out in any case.
        met: (arcs, 2) True at ends where others go on, as yet unknown.
    """
    arcs, count = net.arcs, len(net.arcs)
    dropped = np.zeros(count, np.bool_) if dropped is None else dropped
    met = np.zeros((count, 2), np.bool_) if met is None else met
    xy, starts, kept, left, right, following, instead = _select(
        arcs.xy, arcs.starts, arcs.left, arcs.right, net.following, net.instead, renumber, dropped, met
    )
    return ArcGraph(Arcs(xy, starts, left, right), net.ways[kept], following, instead, net.kept[kept])


@jit
def _select(
    xy: Any, starts: Any, left: Any, right: Any, following: Any, instead: Any, renumber: Any, dropped: Any, met: Any
) -> Any:
    place, kept, vertices = np.full(left.size, -1, np.int32), 0, 0
    for arc in range(left.size):
        if not dropped[arc] and (renumber[left[arc]] or renumber[right[arc]]):
            place[arc] = kept
            kept += 1
            vertices += starts[arc + 1] - starts[arc]
    new_xy, new_starts, old = np.empty((vertices, 2), xy.dtype), np.zeros(kept + 1, np.int64), np.empty(kept, np.int64)
    new_left, new_right = np.empty(kept, np.int32), np.empty(kept, np.int32)
    follow, other = np.full(2 * kept, -1, np.int32), np.full(2 * kept, -1, np.int32)
    for arc in range(left.size):
        new = place[arc]
        if new < 0:
            continue
        old[new] = arc
        size = starts[arc + 1] - starts[arc]
        new_starts[new + 1] = new_starts[new] + size
        for step in range(size):
            new_xy[new_starts[new] + step, 0] = xy[starts[arc] + step, 0]
            new_xy[new_starts[new] + step, 1] = xy[starts[arc] + step, 1]
        new_left[new], new_right[new] = renumber[left[arc]], renumber[right[arc]]
        for backwards in range(2):
            if met[arc, 1 - backwards]:
                continue
            dart = following[2 * arc + backwards]
            if dart >= 0 and place[dart >> 1] >= 0:
                follow[2 * new + backwards] = 2 * place[dart >> 1] + (dart & 1)
            dart = instead[2 * arc + backwards]
            if dart >= 0 and place[dart >> 1] >= 0:
                other[2 * new + backwards] = 2 * place[dart >> 1] + (dart & 1)
    return new_xy, new_starts, old, new_left, new_right, follow, other


@jit
def _trace(padded: Any) -> Any:
    arms, node_of, turns, ends = _arms(padded)
    most = ends // 2 + turns // 4
    xy, used = np.empty((turns + ends + turns // 4, 2), np.int32), 0
    starts, count = np.zeros(most + 1, np.int64), 0
    left, right = np.empty(most, np.int32), np.empty(most, np.int32)
    ways = np.empty((most, 2), np.int8)
    leaving = np.full((ends, 4), -1, np.int32)  # darts by node and direction
    rest = arms & 15
    heads = np.empty((most, 2), np.int32)  # the nodes at which an arc begins and ends
    for loops in (False, True):
        for row in range(arms.shape[0]):
            for col in range(arms.shape[1]):
                if rest[row, col] == 0 or not (loops or arms[row, col] & 16):
                    continue
                for way in range(4):
                    if not rest[row, col] >> way & 1:
                        continue
                    left[count], right[count] = _sides(padded, row, col, way)
                    ways[count, 0] = way
                    used, end_row, end_col, last = _walk(arms, rest, row, col, way, xy, used)
                    ways[count, 1] = last
                    if loops:
                        heads[count] = -1
                    else:
                        heads[count, 0], heads[count, 1] = node_of[row, col], node_of[end_row, end_col]
                        leaving[heads[count, 0], way] = 2 * count
                        leaving[heads[count, 1], last ^ 2] = 2 * count + 1
                    count += 1
                    starts[count] = used
    left, right, ways = left[:count].copy(), right[:count].copy(), ways[:count].copy()
    following, instead = _follow(ways, heads, leaving)
    return xy[:used].copy(), starts[: count + 1].copy(), left, right, ways, following, instead


@jit
def _arms(padded: Any) -> Any:
    """(rows + 1, cols + 1) a bit for each side that leaves a corner and parts two regions, and 16 at nodes.

    Also the numbers of nodes, where they are; how many corners are turns, and how many arcs end at nodes.
    """
    height, width = padded.shape[0] - 2, padded.shape[1] - 2
    arms, node_of = np.zeros((height + 1, width + 1), np.uint8), np.empty((height + 1, width + 1), np.int32)
    nodes, turns, ends = 0, 0, 0
    for row in range(height + 1):
        for col in range(width + 1):
            nw, ne = padded[row, col], padded[row, col + 1]
            sw, se = padded[row + 1, col], padded[row + 1, col + 1]
            if nw == ne and ne == se and se == sw:
                continue
            north, east, south, west = int(nw != ne), int(ne != se), int(se != sw), int(sw != nw)
            found = north | east << 1 | south << 2 | west << 3
            degree = north + east + south + west
            level, upright = row in (0, height), col in (0, width)
            if degree > 2 or (level and north + south > 0) or (upright and east + west > 0):
                node_of[row, col] = nodes
                nodes += 1
                ends += degree
                found |= 16
            elif found not in (5, 10):
                turns += 1
            arms[row, col] = found
    return arms, node_of, turns, ends


@jit
def _sides(padded: Any, row: Any, col: Any, way: Any) -> Any:
    """The regions left and right of the pixel side that leaves a corner in this direction."""
    nw, ne = padded[row, col], padded[row, col + 1]
    sw, se = padded[row + 1, col], padded[row + 1, col + 1]
    if way == 0:
        return nw, ne
    if way == 1:
        return ne, se
    if way == 2:
        return se, sw
    return sw, nw


@jit
def _walk(arms: Any, rest: Any, row: Any, col: Any, way: Any, xy: Any, used: Any) -> Any:
    """Follows a border to its next node, or round; takes the sides from `rest`, writes the turns to `xy`.

    Gives the place in `xy`, the last corner, and the direction in which it was reached.
    """
    first_row, first_col = row, col
    xy[used, 0], xy[used, 1] = col, row
    used += 1
    rest[row, col] &= 15 ^ (1 << way)
    while True:
        row, col = row + (way == 2) - (way == 0), col + (way == 1) - (way == 3)
        back = way ^ 2
        if arms[row, col] & 16 or (row == first_row and col == first_col):
            rest[row, col] &= 15 ^ (1 << back)
            break
        rest[row, col] = 0
        ahead = arms[row, col] ^ (1 << back)
        if not ahead >> way & 1:
            way = 0 if ahead == 1 else 1 if ahead == 2 else 2 if ahead == 4 else 3
            xy[used, 0], xy[used, 1] = col, row
            used += 1
    xy[used, 0], xy[used, 1] = col, row
    return used + 1, row, col, way


@jit
def _follow(ways: Any, heads: Any, leaving: Any) -> Any:
    """The dart that follows each: at a node the first to the left, which keeps to the pixel that we go around."""
    count = ways.shape[0]
    following, instead = np.empty(2 * count, np.int32), np.full(2 * count, -1, np.int32)
    for dart in range(2 * count):
        arc, backwards = dart >> 1, dart & 1
        node = heads[arc, 1 - backwards]
        if node < 0:
            following[dart] = dart
            continue
        way = ways[arc, 0] ^ 2 if backwards else ways[arc, 1]
        to_left, to_right = leaving[node, (way + 3) & 3], leaving[node, (way + 1) & 3]
        straight = leaving[node, way]
        if to_left < 0:
            following[dart] = straight if straight >= 0 else to_right
            continue
        following[dart] = to_left
        if to_right >= 0 and straight >= 0:
            instead[dart] = to_right
    return following, instead
