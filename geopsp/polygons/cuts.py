"""Corners that borders have at seams only because they were simplified on both sides by themselves."""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import njit
from numpy.typing import NDArray

from geopsp.polygons.trace import Net

ROUNDS = 8
"""How often all cuts are looked at; few are left for a second time."""

BIN = 16
"""Pixels on a side of the squares in which vertices are looked up."""


def forget_cuts(
    net: Net, darts: NDArray[np.int64], others: NDArray[np.float64], *, least: float, reach: float
) -> NDArray[np.float64]:
    """Cuts whose triangle with their neighbours is smaller than `least` are no vertices any more.

    The smallest go first, and only where no other vertex lies in the triangle, so that no borders come to cross or
    touch. Their neighbours are vertices of the same border, `reach` pixels away at most.

    Args:
        net: Of which what is `kept` changes.
        darts: (cuts,) one that leaves each; two borders end there, and no region of nothing lies beside them.
        others: (vertices, 2) of all borders up to `reach` from the cuts, but the cuts themselves.
        least: In square pixels.
        reach: In pixels.

    Returns:
        (n, 2) the cuts that are left.
    """
    arcs = net.arcs
    places = arcs.xy[np.where(darts & 1, arcs.starts[(darts >> 1) + 1] - 1, arcs.starts[darts >> 1])]
    points = np.concatenate([others, places])
    owner = np.append(np.full(len(others), -1, np.int64), np.arange(darts.size))
    bins = np.floor(points / BIN).astype(np.int64)
    width = int(bins[:, 0].max(initial=0)) + 2
    keys = (bins[:, 1] + 1) * width + bins[:, 0] + 1
    order = np.argsort(keys)
    keys, points, owner = keys[order], points[order], owner[order]
    alive = np.ones(darts.size, np.bool_)
    for _ in range(ROUNDS):
        sizes = _triangles(arcs.xy, arcs.starts, net.following, net.kept, darts, alive, reach)
        small = np.flatnonzero(sizes < least)
        queue = small[np.argsort(sizes[small], kind="stable")]
        if not _drop(
            arcs.xy, arcs.starts, net.following, net.instead, net.kept, darts, alive, queue, least, reach,
            keys, points, owner, width,
        ):  # fmt: skip
            break
    left: NDArray[np.float64] = places[alive]
    return left


@njit(cache=True, nogil=True)
def _size(starts: Any, dart: Any) -> Any:
    return starts[(dart >> 1) + 1] - starts[dart >> 1]


@njit(cache=True, nogil=True)
def _vertex(xy: Any, starts: Any, dart: Any, step: Any) -> Any:
    """A vertex of a dart, counted as it runs."""
    at = starts[(dart >> 1) + 1] - 1 - step if dart & 1 else starts[dart >> 1] + step
    return xy[at, 0], xy[at, 1]


@njit(cache=True, nogil=True)
def _next(starts: Any, following: Any, kept: Any, dart: Any, step: Any) -> Any:
    """The next vertex of the border as dart and step; dart -1 if it is not known how it goes on."""
    while True:
        step += 1
        if step < _size(starts, dart) - 1 or (step == _size(starts, dart) - 1 and kept[dart >> 1, 1 - (dart & 1)]):
            return dart, step
        dart, step = following[dart], 0
        if dart < 0:
            return dart, step


@njit(cache=True, nogil=True)
def _triangle(xy: Any, starts: Any, following: Any, kept: Any, dart: Any, reach: Any) -> Any:
    """The area of a cut's triangle, and its neighbours; infinite if one is too far."""
    x, y = _vertex(xy, starts, dart, 0)
    one, one_step = _next(starts, following, kept, dart, 0)
    two, two_step = _next(starts, following, kept, following[dart ^ 1], 0)
    a, b = _vertex(xy, starts, one, one_step)
    c, d = _vertex(xy, starts, two, two_step)
    area = abs((a - x) * (d - y) - (c - x) * (b - y)) / 2
    if max(abs(a - x), abs(b - y), abs(c - x), abs(d - y)) > reach:
        area = np.inf
    return area, x, y, a, b, c, d, one, one_step, two, two_step


@njit(cache=True, nogil=True)
def _triangles(xy: Any, starts: Any, following: Any, kept: Any, darts: Any, alive: Any, reach: Any) -> Any:
    found = np.full(darts.size, np.inf)
    for cut in range(darts.size):
        if alive[cut]:
            found[cut] = _triangle(xy, starts, following, kept, darts[cut], reach)[0]
    return found


@njit(cache=True, nogil=True)
def _drop(
    xy: Any, starts: Any, following: Any, instead: Any, kept: Any, darts: Any, alive: Any, queue: Any, least: Any,
    reach: Any, keys: Any, points: Any, owner: Any, width: Any,
) -> Any:  # fmt: skip
    """Drops what can be dropped; True if anything was."""
    changed = False
    for cut in queue:
        dart, back = darts[cut], following[darts[cut] ^ 1]
        area, x, y, a, b, c, d, one, one_step, two, two_step = _triangle(xy, starts, following, kept, dart, reach)
        if area >= least or (a == c and b == d):
            continue
        if _closes(xy, starts, following, instead, kept, one, one_step, c, d):
            continue
        if _closes(xy, starts, following, instead, kept, two, two_step, a, b):
            continue
        if not _empty(x, y, a, b, c, d, cut, keys, points, owner, alive, width):
            continue
        kept[dart >> 1, dart & 1] = kept[back >> 1, back & 1] = False
        alive[cut] = False
        changed = True
    return changed


@njit(cache=True, nogil=True)
def _closes(xy: Any, starts: Any, following: Any, instead: Any, kept: Any, dart: Any, step: Any, x: Any, y: Any) -> Any:
    """True if the vertex after this one is there, so that the ring is a triangle; or may be, below the last cells."""
    ways = (dart, np.int64(-1))
    if step == _size(starts, dart) - 1:
        ways, step = (np.int64(following[dart]), np.int64(instead[dart])), 0
        if ways[0] < 0:
            return True
    for way in ways:
        if way >= 0:
            after, at = _next(starts, following, kept, way, step)
            if after < 0 or _vertex(xy, starts, after, at) == (x, y):
                return True
    return False


@njit(cache=True, nogil=True)
def _empty(
    x: Any, y: Any, a: Any, b: Any, c: Any, d: Any, cut: Any, keys: Any, points: Any, owner: Any, alive: Any, width: Any
) -> Any:
    """True if no vertex but its own lies in the triangle or on it."""
    left, right = int(np.floor(min(x, a, c) / BIN)) + 1, int(np.floor(max(x, a, c) / BIN)) + 1
    upper, lower = int(np.floor(min(y, b, d) / BIN)) + 1, int(np.floor(max(y, b, d) / BIN)) + 1
    for row in range(upper, lower + 1):
        first = np.searchsorted(keys, row * width + left)
        for at in range(first, keys.size):
            if keys[at] > row * width + right:
                break
            if owner[at] == cut or (owner[at] >= 0 and not alive[owner[at]]):
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
