"""Bounding boxes and the direction of rings of polygons in well-known binary, without a geometry object for each."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit

MULTIPOLYGON = np.int64(6)
"""WKB's code of the type."""


def boxes_of_wkb(shapes: Any) -> tuple[NDArray[np.float64], bool]:
    """Return bounding boxes, and whether all shells run counterclockwise, and all holes clockwise.

    Args:
        shapes: (n,) pyarrow array, of type binary, of polygons and multipolygons; little-endian, x and y.

    Returns:
        (n, 4) left, bottom, right, top; NaN of an empty shape.
    """
    boxes = np.empty((len(shapes), 4))
    if not len(shapes):
        return boxes, True
    _, starts, content = shapes.buffers()
    first = np.frombuffer(starts, np.int32)[shapes.offset : shapes.offset + len(shapes)]
    return boxes, bool(_measure(np.frombuffer(content, np.uint8), first, boxes))


@jit("Array(u1, 1, 'C', True)", "Array(i4, 1, 'C', True)", "f8[:, ::1]")
def _measure(content, starts, boxes):  # type: ignore[no-untyped-def]
    """Write the boxes; return True if all rings run as they should."""
    counterclockwise = True
    for shape in range(starts.size):
        left, bottom, right, top = np.inf, np.inf, -np.inf, -np.inf
        at, count = np.int64(starts[shape]), np.int64(1)
        if _read_uint32(content, at + 1) == MULTIPOLYGON:
            count = _read_uint32(content, at + 5)
            at += 9
        for _ in range(count):
            rings = _read_uint32(content, at + 5)
            at += 9
            for ring in range(rings):
                end = at + 4 + 16 * _read_uint32(content, at)
                xy = content[at + 4 : end].view(np.float64)
                at, twice_area = end, 0.0
                for vertex in range(0, xy.size, 2):
                    x, y = xy[vertex], xy[vertex + 1]
                    left, bottom, right, top = min(left, x), min(bottom, y), max(right, x), max(top, y)
                    if vertex:
                        width, height = x - xy[0], y - xy[1]  # small numbers: nothing is lost to rounding
                        twice_area += (xy[vertex - 2] - xy[0]) * height - width * (xy[vertex - 1] - xy[1])
                counterclockwise &= (twice_area > 0) == (ring == 0)
        boxes[shape, 0], boxes[shape, 1], boxes[shape, 2], boxes[shape, 3] = left, bottom, right, top
        if left > right:
            boxes[shape] = np.nan
    return counterclockwise


@jit()
def _read_uint32(content, at):  # type: ignore[no-untyped-def]
    number = np.int64(0)
    for byte in range(4):
        number |= np.int64(content[at + byte]) << (8 * byte)
    return number
