"""Polygons as the bytes that files hold, and a point inside each, without an object for any of them."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from affine import Affine
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.errors import OutputError
from geopsp.polygons.features import Features

LITTLE, POLYGON, MULTIPOLYGON = 1, 3, 6
"""Order of bytes; types of geometries."""


MOST = 2**31 - 1
"""Bytes that an Arrow array of binary holds."""


Floats = NDArray[np.float64]


def wkb(features: Features, transform: Affine) -> Any:
    """(features,) pyarrow array of well-known binary, in CRS units; multipolygons where one has several parts.

    Raises:
        OutputError: if they are too large for one array.

    Source: OGC 06-103r4, clause 8.
    """
    outlines, parts = features.outlines, features.parts
    polygons = 9 + 4 * np.diff(outlines.polygons) + 16 * np.diff(outlines.rings[outlines.polygons])
    before = np.concatenate([[0], np.cumsum(polygons)])
    sizes = np.diff(before[parts]) + 9 * (np.diff(parts) > 1)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    if starts[-1] > MOST:
        raise OutputError(
            f"{len(features)} polygons take {starts[-1]:,} bytes; at most {MOST:,} can be written at once. "
            "Simplify them, or dissolve fewer."
        )
    content = np.empty(starts[-1], np.uint8)
    _encode(outlines.xy, outlines.rings, outlines.polygons, parts, tuple(map(float, transform[:6])), content)
    buffers = [None, pa.py_buffer(starts.astype(np.int32)), pa.py_buffer(content)]
    return pa.Array.from_buffers(pa.binary(), len(features), buffers)


@jit
def _encode(xy, rings, polygons, parts, transform, content):  # type: ignore[no-untyped-def]
    """Writes one feature after the other."""
    at = 0
    for feature in range(parts.size - 1):
        first, last = parts[feature], parts[feature + 1]
        if last - first > 1:
            at = _head(content, at, MULTIPOLYGON, last - first)
        for polygon in range(first, last):
            at = _head(content, at, POLYGON, polygons[polygon + 1] - polygons[polygon])
            for ring in range(polygons[polygon], polygons[polygon + 1]):
                low, high = rings[ring], rings[ring + 1]
                at = _number(content, at, high - low)
                end = at + 16 * (high - low)
                _place(xy, low, transform, content[at:end].view(np.float64))
                at = end


@jit
def _place(xy, first, transform, found):  # type: ignore[no-untyped-def]
    """Fills in x and y of each vertex, with the very sums of `planar.placed`."""
    a, b, c, d, e, f = transform
    for place in range(found.size // 2):
        column, row = xy[first + place, 0], xy[first + place, 1]
        found[2 * place] = c + column * a + row * b
        found[2 * place + 1] = f + column * d + row * e


@jit
def _head(content, at, kind, count):  # type: ignore[no-untyped-def]
    """Where it goes on behind a geometry's type and the count of its parts."""
    content[at] = LITTLE
    return _number(content, _number(content, at + 1, kind), count)


@jit
def _number(content, at, number):  # type: ignore[no-untyped-def]
    """Where it goes on behind four bytes."""
    for place in range(4):
        content[at + place] = (number >> (8 * place)) & 255
    return at + 4
