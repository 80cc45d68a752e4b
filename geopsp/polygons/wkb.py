"""Encode polygons as well-known binary, without a geometry object for each."""

from __future__ import annotations

from typing import Any

import numpy as np
import pyarrow as pa
from affine import Affine
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.errors import OutputError
from geopsp.polygons.borders.topology import RaggedPolygons
from geopsp.polygons.features import Features

LITTLE_ENDIAN, POLYGON, MULTIPOLYGON = 1, np.int64(3), np.int64(6)  # of one type: one compiled version of functions
"""WKB's codes of the byte order and of geometry types."""


HEADER_BYTES = 9
"""Bytes before the polygons of a multipolygon."""


MAX_BYTES = 2**31 - 1
"""Capacity of an Arrow array of type binary."""


Floats = NDArray[np.float64]


def encode_wkb(features: Features, transform: Affine) -> Any:
    """Return a (features,) pyarrow array of WKB in CRS units; features of several polygons are multipolygons.

    Raises:
        OutputError: if they are too large for one array.

    Source: OGC 06-103r4, clause 8.
    """
    return _encode(features.outlines, features.parts, transform)


def encode_polygons(outlines: RaggedPolygons, transform: Affine) -> Any:
    """Return a (polygons,) pyarrow array of WKB of each polygon, as `encode_wkb`."""
    return _encode(outlines, np.arange(len(outlines) + 1), transform)


def multipolygon_header(count: int) -> NDArray[np.uint8]:
    """Return the bytes that make a multipolygon of the WKB of polygons that follow."""
    header = np.empty(HEADER_BYTES, np.uint8)
    _write_header(header, np.int64(0), MULTIPOLYGON, count)
    return header


def _encode(outlines: RaggedPolygons, parts: NDArray[np.int64], transform: Affine) -> Any:
    polygons = 9 + 4 * np.diff(outlines.polygons) + 16 * np.diff(outlines.rings[outlines.polygons])
    before = np.concatenate([[0], np.cumsum(polygons)])
    sizes = np.diff(before[parts]) + HEADER_BYTES * (np.diff(parts) > 1)
    starts = np.concatenate([[0], np.cumsum(sizes)])
    if starts[-1] > MAX_BYTES:
        polygons_are = "1 polygon is" if parts.size == 2 else f"{parts.size - 1} polygons are"
        raise OutputError(
            f"{polygons_are} {starts[-1]:,} bytes long, but at most {MAX_BYTES:,} bytes can be written at once. "
            "Simplify the polygons, or write them without `dissolve`."
        )
    content = np.empty(starts[-1], np.uint8)
    _write_features(outlines.xy, outlines.rings, outlines.polygons, parts, tuple(map(float, transform[:6])), content)
    buffers = [None, pa.py_buffer(starts.astype(np.int32)), pa.py_buffer(content)]
    return pa.Array.from_buffers(pa.binary(), parts.size - 1, buffers)


@jit("f8[:, ::1]", "i8[::1]", "i8[::1]", "i8[::1]", "UniTuple(f8, 6)", "u1[::1]")
def _write_features(xy, rings, polygons, parts, transform, content):  # type: ignore[no-untyped-def]
    at = np.int64(0)
    for feature in range(parts.size - 1):
        first, last = parts[feature], parts[feature + 1]
        if last - first > 1:
            at = _write_header(content, at, MULTIPOLYGON, last - first)
        for polygon in range(first, last):
            at = _write_header(content, at, POLYGON, polygons[polygon + 1] - polygons[polygon])
            for ring in range(polygons[polygon], polygons[polygon + 1]):
                low, high = rings[ring], rings[ring + 1]
                at = _write_uint32(content, at, high - low)
                end = at + 16 * (high - low)
                _write_vertices(xy, low, transform, content[at:end].view(np.float64))
                at = end


@jit()
def _write_vertices(xy, first, transform, coordinates):  # type: ignore[no-untyped-def]
    """Write x and y of each vertex; rounded exactly as by `to_crs`."""
    a, b, c, d, e, f = transform
    for vertex in range(coordinates.size // 2):
        col, row = xy[first + vertex, 0], xy[first + vertex, 1]
        coordinates[2 * vertex] = c + col * a + row * b
        coordinates[2 * vertex + 1] = f + col * d + row * e


@jit()
def _write_header(content, at, kind, count):  # type: ignore[no-untyped-def]
    """Write the byte order, a geometry type and the number of its parts; return the position behind them."""
    content[at] = LITTLE_ENDIAN
    return _write_uint32(content, _write_uint32(content, at + 1, kind), count)


@jit()
def _write_uint32(content, at, number):  # type: ignore[no-untyped-def]
    """Return the position behind the four bytes."""
    for byte in range(4):
        content[at + byte] = (number >> (8 * byte)) & 255
    return at + 4
