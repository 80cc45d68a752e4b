"""Arcs, rings and polygons as flat arrays.

Coordinates are columns and rows of pixel corners of the whole raster. Left and right are as on a screen, with rows
going down: an arc that runs east has the upper pixels on its left. A region lies to the left of its rings, so on a
north-up map shells run counter-clockwise, and holes clockwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from geopsp.core.disk_array import ScratchArrays
from geopsp.core.jit import jit

Polygons = NDArray[np.object_]


@dataclass(frozen=True, slots=True, eq=False)
class Arcs:
    """Borders of two regions; each runs from a node to a node, or is closed.

    A node is a corner where three or four borders meet, or where a border leaves the frame of the traced pixels.
    """

    xy: NDArray[np.float64]
    """(vertices, 2) columns and rows; int32, or float64 if smoothed or stitched."""

    starts: NDArray[np.int64]
    """(arcs + 1,) start of each arc in `xy`, and the end."""

    left: NDArray[np.int32]
    """(arcs,) region on the left; 0 is nodata, or outside of the frame."""

    right: NDArray[np.int32]
    """(arcs,) region on the right, likewise."""

    def __len__(self) -> int:
        return self.left.size


@dataclass(frozen=True, slots=True, eq=False)
class RegionRings:
    """Rings of regions, made of darts: dart 2 a is arc a forwards, dart 2 a + 1 is arc a backwards."""

    darts: NDArray[np.int64]
    """(darts,) ring after ring; the region lies to the left of each."""

    rings: NDArray[np.int64]
    """(rings + 1,) start of each ring in `darts`, and the end; a region's shell before its holes."""

    regions: NDArray[np.int64]
    """(regions + 1,) start of each region in `rings`, and the end."""


@dataclass(frozen=True, slots=True, eq=False)
class RaggedPolygons:
    """Polygons in columns and rows, as ragged arrays."""

    xy: NDArray[np.float64]
    """(vertices, 2) columns and rows; the first vertex of a ring is also its last."""

    rings: NDArray[np.int64]
    """(rings + 1,) start of each ring in `xy`, and the end; a polygon's shell before its holes."""

    polygons: NDArray[np.int64]
    """(polygons + 1,) start of each polygon in `rings`, and the end."""

    def __len__(self) -> int:
        return self.polygons.size - 1

    def part(self, start: int, stop: int) -> RaggedPolygons:
        """Return the polygons from `start` to before `stop`; vertices are not copied."""
        rings = self.rings[self.polygons[start] : self.polygons[stop] + 1]
        return RaggedPolygons(
            self.xy[rings[0] : rings[-1]], rings - rings[0], self.polygons[start : stop + 1] - self.polygons[start]
        )

    def take(self, indices: NDArray[np.intp]) -> RaggedPolygons:
        """Return the polygons at these indices, in this order."""
        rings, polygon_starts = members(self.polygons, indices)
        vertices, ring_starts = members(self.rings, rings)
        return RaggedPolygons(self.xy[vertices], ring_starts, polygon_starts)

    def to_shapely(self, transform: Affine) -> Polygons:
        """Return (polygons,) geometries in CRS units."""
        xy = to_crs(self.xy, transform)
        polygons: Any = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, (self.rings, self.polygons))
        return np.asarray(polygons, object)


class PolygonStore:
    """Concatenates polygons, in files if there are many."""

    def __init__(self, arrays: ScratchArrays) -> None:
        """Start without polygons.

        Args:
            arrays: Makes the files.
        """
        self._xy, self._rings, self._polygons = (
            arrays.growing(np.float64, 2), arrays.growing(np.int64), arrays.growing(np.int64)
        )  # fmt: skip
        for starts in (self._rings, self._polygons):
            starts.append(np.zeros(1, np.int64))

    def __len__(self) -> int:
        return len(self._polygons) - 1

    def append(self, outlines: RaggedPolygons) -> None:
        """Add polygons.

        Raises:
            OSError: if the disk is full.
        """
        num_vertices, num_rings = len(self._xy), len(self._rings) - 1
        self._xy.append(outlines.xy)
        self._rings.append(outlines.rings[1:] + num_vertices)
        self._polygons.append(outlines.polygons[1:] + num_rings)

    def finish(self) -> RaggedPolygons:
        """Return all polygons; then this object has none any more."""
        return RaggedPolygons(self._xy.finish(), self._rings.finish(), self._polygons.finish())


def members(starts: NDArray[np.int64], groups: NDArray[np.intp]) -> tuple[NDArray[np.intp], NDArray[np.int64]]:
    """Return the indices of the members of some groups, one group after the other, and the new starts."""
    counts = starts[groups + 1] - starts[groups]
    ends = np.concatenate([[0], np.cumsum(counts)])
    return np.repeat(starts[groups] - ends[:-1], counts) + np.arange(ends[-1]), ends


def to_crs(xy: NDArray[np.float64], transform: Affine) -> NDArray[np.float64]:
    """Convert (n, 2) columns and rows to CRS units, rounded exactly as by GDAL."""
    t, (cols, rows) = transform, xy.T
    return np.column_stack([t.c + cols * t.a + rows * t.b, t.f + cols * t.d + rows * t.e])


def build_polygons(arcs: Arcs, rings: RegionRings, *, is_vertex: NDArray[np.bool_] | None = None) -> RaggedPolygons:
    """Return the polygons of regions, with a vertex at each node.

    Args:
        arcs: All arcs of the rings.
        rings: Rings of these arcs.
        is_vertex: (arcs, 2) False where the first or last vertex of an arc is no vertex of a polygon, because the arc
            was only cut there. None: all True.
    """
    counts = np.ones((len(arcs), 2), np.bool_) if is_vertex is None else is_vertex
    starts = _ring_starts(arcs.starts, rings.darts, rings.rings, counts)
    xy = np.empty((starts[-1], 2))
    _write_vertices(xy, arcs.xy, arcs.starts, rings.darts, rings.rings, counts)
    return RaggedPolygons(xy, starts, rings.regions)


@jit("i8[::1]", "i8[::1]", "i8[::1]", "b1[:, ::1]")
def _ring_starts(arc_starts: Any, darts: Any, rings: Any, is_vertex: Any) -> Any:
    """Return the start of each ring in the vertices."""
    starts = np.zeros(rings.size, np.int64)
    for ring in range(rings.size - 1):
        count = 1
        for at in range(rings[ring], rings[ring + 1]):
            arc, backwards = darts[at] >> 1, darts[at] & 1
            count += arc_starts[arc + 1] - arc_starts[arc] - 2 + is_vertex[arc, backwards]
        starts[ring + 1] = starts[ring] + count
    return starts


@jit("f8[:, ::1]", "f8[:, ::1]", "i8[::1]", "i8[::1]", "i8[::1]", "b1[:, ::1]")
def _write_vertices(xy: Any, vertices: Any, arc_starts: Any, darts: Any, rings: Any, is_vertex: Any) -> None:
    """Write the vertices of each dart without the last, dart after dart; then the first vertex of the ring again."""
    used = 0
    for ring in range(rings.size - 1):
        first = used
        for at in range(rings[ring], rings[ring + 1]):
            arc, backwards = darts[at] >> 1, darts[at] & 1
            low, high = arc_starts[arc], arc_starts[arc + 1]
            for step in range(0 if is_vertex[arc, backwards] else 1, high - low - 1):
                vertex = high - 1 - step if backwards else low + step
                xy[used, 0], xy[used, 1] = vertices[vertex, 0], vertices[vertex, 1]
                used += 1
        xy[used, 0], xy[used, 1] = xy[first, 0], xy[first, 1]
        used += 1
