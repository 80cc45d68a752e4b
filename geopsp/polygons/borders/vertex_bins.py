"""Find the vertices in a triangle."""

from __future__ import annotations

from typing import Any

import numpy as np

from geopsp.core.jit import jit

BINS = "Tuple((i4[::1], i4[::1], i8))"
"""What `fill_bins` returns, in numba's notation."""


@jit("f8[:, ::1]")
def fill_bins(xy: Any) -> Any:
    """Sort vertices into bins of a pixel around pixel corners.

    No coordinate may be negative. A bin may hold vertices around several corners.

    Returns:
        (bins,) last vertex of each bin, (vertices,) the vertex before each one in its bin, both -1 where there is none;
        bins from one row of corners to the next.
    """
    count, width = 1024, 0.0
    while count < 2 * len(xy):
        count *= 2
    for at in range(len(xy)):
        width = max(width, xy[at, 0])
    step = int(width) + 2
    last, previous = np.full(count, -1, np.int32), np.empty(len(xy), np.int32)
    for at in range(len(xy)):
        number = (int(xy[at, 1] + 0.5) * step + int(xy[at, 0] + 0.5)) & (count - 1)
        previous[at] = last[number]
        last[number] = at
    return last, previous, step


@jit()
def last_in_bin(last: Any, step: Any, x: Any, y: Any) -> Any:
    """Return the last vertex in the bin of a point, or -1."""
    return last[(int(y + 0.5) * step + int(x + 0.5)) & (last.size - 1)]


@jit()
def has_vertex(
    xy: Any, last: Any, previous: Any, step: Any, px: Any, py: Any, ax: Any, ay: Any, bx: Any, by: Any
) -> Any:
    """Return True if a vertex in bins lies in the triangle p, a, b or on its sides, but not at its corners."""
    left, right = min(px, ax, bx), max(px, ax, bx)
    top, bottom = min(py, ay, by), max(py, ay, by)
    for row in range(int(top + 0.5), int(bottom + 0.5) + 1):
        for col in range(int(left + 0.5), int(right + 0.5) + 1):
            at = last[(row * step + col) & (last.size - 1)]
            while at >= 0:
                x, y = xy[at, 0], xy[at, 1]
                at = previous[at]
                if (x < left) | (x > right) | (y < top) | (y > bottom):
                    continue
                if (x == px and y == py) or (x == ax and y == ay) or (x == bx and y == by):
                    continue
                one = double_area(px, py, x, y, ax, ay)
                two, three = double_area(ax, ay, x, y, bx, by), double_area(bx, by, x, y, px, py)
                if min(one, two, three) >= 0 or max(one, two, three) <= 0:
                    return True
    return False


@jit()
def double_area(ax: Any, ay: Any, bx: Any, by: Any, cx: Any, cy: Any) -> Any:
    """Return twice the signed area of a triangle; if a and c are swapped, exactly the negative."""
    return (ax - bx) * (cy - by) - (ay - by) * (cx - bx)
