"""Corners that borders have at seams only because they were simplified on both sides by themselves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.polygons.borders.topology import Arcs
from geopsp.polygons.borders.trace_arcs import ArcGraph

ROUNDS = 8
"""How often all cuts are looked at; few are left for a second time."""


BIN = 16
"""Pixels on a side of the squares in which vertices are looked up."""


def drop_seam_vertices(
    net: ArcGraph, darts: NDArray[np.int64], others: NDArray[np.float64], *, least: float, reach: float, inner: bool
) -> tuple[ArcGraph, NDArray[np.float64]]:
    """Cuts whose triangle with their neighbours is smaller than `least` are no vertices any more.

    The smallest go first, and only where no other vertex lies in the triangle, so that no borders come to cross or
    touch. Their neighbours are vertices of the same border, `reach` pixels away at most.

    Args:
        net: Arcs that go on at the cuts; what is `kept` of them changes.
        darts: (cuts,) one that leaves each; two borders end there, and no region of nothing lies beside them.
        others: (vertices, 2) of all borders up to `reach` from the cuts, but the cuts themselves.
        least: In square pixels.
        reach: In pixels.
        inner: True if so do vertices of arcs from cut to cut, which could not go before.

    Returns:
        The arcs, and (n, 2) the vertices that were asked for and are left.
    """
    arcs = net.arcs
    asked = np.column_stack([darts, np.zeros_like(darts)])
    if inner:
        asked = np.concatenate([asked, _between(net, darts)])
    places = arcs.xy[_at(arcs.starts, asked[:, 0], asked[:, 1])]
    points = np.concatenate([others[~np.isin(others @ (1, 1j), places @ (1, 1j))], places])
    owner = np.arange(len(points)) - (len(points) - len(places))  # under 0: nobody's that may go
    bins = np.floor(points / BIN).astype(np.int64) + 1
    width = int(bins[:, 0].max(initial=0)) + 2
    keys = bins[:, 1] * width + bins[:, 0]
    order = np.argsort(keys)
    lookup = keys[order], points[order], owner[order], width
    alive, gone = np.ones(len(asked), np.bool_), np.zeros(len(arcs.xy), np.bool_)
    lines = arcs.xy, arcs.starts, net.following, net.kept, gone
    for _ in range(ROUNDS):
        sizes = _triangles(*lines, asked, alive, reach)
        small = np.flatnonzero(sizes < least)
        queue = small[np.argsort(sizes[small], kind="stable")]
        if not _drop(*lines, net.instead, asked, alive, queue, least, reach, *lookup):
            break
    counts = np.add.reduceat(~gone, arcs.starts[:-1], dtype=np.int64) if len(arcs) else np.empty(0, np.int64)
    starts = np.concatenate([[0], np.cumsum(counts)])
    return replace(net, arcs=Arcs(arcs.xy[~gone], starts, arcs.left, arcs.right)), places[alive]


def _between(net: ArcGraph, darts: NDArray[np.int64]) -> NDArray[np.int64]:
    """(vertices, 2) dart and step of all that lie on arcs from cut to cut."""
    met = np.zeros((len(net.arcs), 2), np.bool_)
    for leaving in (darts, net.following[darts ^ 1]):
        met[leaving >> 1, leaving & 1] = True
    chosen = np.flatnonzero(met.all(axis=1))
    counts = np.diff(net.arcs.starts)[chosen] - 2
    steps = np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts) + 1
    return np.column_stack([np.repeat(2 * chosen, counts), steps])


@jit
def _size(starts: Any, dart: Any) -> Any:
    return starts[(dart >> 1) + 1] - starts[dart >> 1]


def _at(starts: Any, darts: NDArray[np.int64], steps: NDArray[np.int64]) -> Any:
    """Where vertices of darts stand."""
    return np.where(darts & 1, starts[(darts >> 1) + 1] - 1 - steps, starts[darts >> 1] + steps)


@jit
def _place(starts: Any, dart: Any, step: Any) -> Any:
    """Where a vertex stands, counted as its dart runs."""
    return starts[(dart >> 1) + 1] - 1 - step if dart & 1 else starts[dart >> 1] + step


@jit
def _vertex(xy: Any, starts: Any, dart: Any, step: Any) -> Any:
    at = _place(starts, dart, step)
    return xy[at, 0], xy[at, 1]


@jit
def _next(starts: Any, following: Any, kept: Any, gone: Any, dart: Any, step: Any) -> Any:
    """The next vertex of the border as dart and step; dart -1 if it is not known how it goes on."""
    while True:
        step += 1
        last = _size(starts, dart) - 1
        if step < last:
            if not gone[_place(starts, dart, step)]:
                return dart, step
            continue
        if step == last and kept[dart >> 1, 1 - (dart & 1)]:
            return dart, step
        dart, step = following[dart], 0
        if dart < 0:
            return dart, step


@jit
def _triangle(xy: Any, starts: Any, following: Any, kept: Any, gone: Any, dart: Any, step: Any, reach: Any) -> Any:
    """The area of a vertex's triangle, and its neighbours; infinite if one is too far, or not known."""
    x, y = _vertex(xy, starts, dart, step)
    one, one_step = _next(starts, following, kept, gone, dart, step)
    two, two_step = _next(starts, following, kept, gone, dart ^ 1, _size(starts, dart) - 1 - step)
    if one < 0 or two < 0:
        return np.inf, x, y, x, y, x, y, one, one_step, two, two_step
    a, b = _vertex(xy, starts, one, one_step)
    c, d = _vertex(xy, starts, two, two_step)
    area = abs((a - x) * (d - y) - (c - x) * (b - y)) / 2
    if max(abs(a - x), abs(b - y), abs(c - x), abs(d - y)) > reach:
        area = np.inf
    return area, x, y, a, b, c, d, one, one_step, two, two_step


@jit
def _triangles(xy: Any, starts: Any, following: Any, kept: Any, gone: Any, asked: Any, alive: Any, reach: Any) -> Any:
    found = np.full(alive.size, np.inf)
    for place in range(alive.size):
        if alive[place]:
            dart, step = asked[place, 0], asked[place, 1]
            found[place] = _triangle(xy, starts, following, kept, gone, dart, step, reach)[0]
    return found


@jit
def _drop(
    xy: Any, starts: Any, following: Any, kept: Any, gone: Any, instead: Any, asked: Any, alive: Any, queue: Any,
    least: Any, reach: Any, keys: Any, points: Any, owner: Any, width: Any,
) -> Any:  # fmt: skip
    """Drops what can be dropped; True if anything was."""
    changed = False
    for place in queue:
        dart, step = asked[place, 0], asked[place, 1]
        area, x, y, a, b, c, d, one, one_step, two, two_step = _triangle(
            xy, starts, following, kept, gone, dart, step, reach
        )
        if area >= least or (a == c and b == d):
            continue
        if _closes(xy, starts, following, kept, gone, instead, one, one_step, c, d):
            continue
        if _closes(xy, starts, following, kept, gone, instead, two, two_step, a, b):
            continue
        if not _empty(x, y, a, b, c, d, place, keys, points, owner, alive, width):
            continue
        if step == 0:
            back = following[dart ^ 1]
            kept[dart >> 1, dart & 1] = kept[back >> 1, back & 1] = False
        else:
            gone[_place(starts, dart, step)] = True
        alive[place] = False
        changed = True
    return changed


@jit
def _closes(
    xy: Any, starts: Any, following: Any, kept: Any, gone: Any, instead: Any, dart: Any, step: Any, x: Any, y: Any
) -> Any:
    """True if the vertex after this one is there, so that the ring is a triangle; or may be, below the last cells."""
    ways = (np.int64(dart), np.int64(-1))
    if step == _size(starts, dart) - 1:
        ways, step = (np.int64(following[dart]), np.int64(instead[dart])), 0
        if ways[0] < 0:
            return True
    for way in ways:
        if way >= 0:
            after, at = _next(starts, following, kept, gone, way, step)
            if after < 0 or _vertex(xy, starts, after, at) == (x, y):
                return True
    return False


@jit
def _empty(
    x: Any,
    y: Any,
    a: Any,
    b: Any,
    c: Any,
    d: Any,
    place: Any,
    keys: Any,
    points: Any,
    owner: Any,
    alive: Any,
    width: Any,
) -> Any:
    """True if no vertex but its own lies in the triangle or on it."""
    left, right = int(np.floor(min(x, a, c) / BIN)) + 1, int(np.floor(max(x, a, c) / BIN)) + 1
    upper, lower = int(np.floor(min(y, b, d) / BIN)) + 1, int(np.floor(max(y, b, d) / BIN)) + 1
    for row in range(upper, lower + 1):
        first = np.searchsorted(keys, row * width + left)
        for at in range(first, keys.size):
            if keys[at] > row * width + right:
                break
            if owner[at] == place or (owner[at] >= 0 and not alive[owner[at]]):
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
