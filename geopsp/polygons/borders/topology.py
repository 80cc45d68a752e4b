"""The plane parted into regions: borders, rings of them, polygons.

Coordinates are columns and rows of pixel corners of the whole raster; left and right are as on a screen, rows going
down: who goes east has the upper pixels on the left. A region lies to the left of its rings, so shells run
counter-clockwise on a north-up map, and holes clockwise.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from geopsp.core.jit import jit

Polygons = NDArray[np.object_]


@dataclass(frozen=True, slots=True, eq=False)
class Arcs:
    """Borders of two regions, each from a node to a node, or round to where it began.

    A node is a corner where three or four borders meet; or where a border leaves the frame of what was traced.
    """

    xy: NDArray[Any]
    """(vertices, 2) columns and rows; int32, or float64 where they were smoothed."""

    starts: NDArray[np.int64]
    """(arcs + 1,) where each begins in `xy`, and the end."""

    left: NDArray[np.int32]
    """(arcs,) the region to the left; 0 is nothing: nodata, or beyond the frame."""

    right: NDArray[np.int32]
    """(arcs,)"""

    def __len__(self) -> int:
        return self.left.size


@dataclass(frozen=True, slots=True, eq=False)
class RegionRings:
    """Regions 1, 2, ... as rings of darts: dart 2 a is arc a as it runs, dart 2 a + 1 the same backwards."""

    darts: NDArray[np.int64]
    """(darts,) ring after ring; the region lies to the left of each."""

    rings: NDArray[np.int64]
    """(rings + 1,) where each begins in `darts`, and the end; a region's shell before its holes."""

    regions: NDArray[np.int64]
    """(regions + 1,) where each begins in `rings`, and the end."""


@dataclass(frozen=True, slots=True, eq=False)
class RaggedPolygons:
    """Polygons as flat arrays."""

    xy: NDArray[np.float64]
    """(vertices, 2) columns and rows; a ring's first vertex is also its last."""

    rings: NDArray[np.int64]
    """(rings + 1,) where each begins in `xy`, and the end; a polygon's shell before its holes."""

    polygons: NDArray[np.int64]
    """(polygons + 1,) where each begins in `rings`, and the end."""

    def __len__(self) -> int:
        return self.polygons.size - 1

    def shapes(self, transform: Affine) -> Polygons:
        """(polygons,) in CRS units."""
        xy = to_crs(self.xy, transform)
        found: Any = shapely.from_ragged_array(shapely.GeometryType.POLYGON, xy, (self.rings, self.polygons))
        return np.asarray(found, object)


def to_crs(xy: NDArray[np.float64], transform: Affine) -> NDArray[np.float64]:
    """(n, 2) in CRS units, of columns and rows: the very coordinates that GDAL gives them."""
    t, (columns, rows) = transform, xy.T
    return np.column_stack([t.c + columns * t.a + rows * t.b, t.f + columns * t.d + rows * t.e])


def outlines(arcs: Arcs, faces: RegionRings, *, kept: NDArray[np.bool_] | None = None) -> RaggedPolygons:
    """The regions' polygons, a vertex at each node.

    Args:
        arcs: With all that the faces are made of.
        faces: Of them.
        kept: (arcs, 2) False where an arc's first or last vertex is none of a polygon: just a cut in a straight line.
    """
    counts = np.ones((len(arcs), 2), np.bool_) if kept is None else kept
    rings = _ring_starts(arcs.starts, faces.darts, faces.rings, counts)
    xy = np.empty((rings[-1], 2))
    _fill(xy, arcs.xy, arcs.starts, faces.darts, faces.rings, counts)
    return RaggedPolygons(xy, rings, faces.regions)


@jit
def _ring_starts(starts: Any, darts: Any, rings: Any, kept: Any) -> Any:
    """Where each ring begins among the vertices."""
    found = np.zeros(rings.size, np.int64)
    for ring in range(rings.size - 1):
        count = 1
        for place in range(rings[ring], rings[ring + 1]):
            arc, backwards = darts[place] >> 1, darts[place] & 1
            count += starts[arc + 1] - starts[arc] - 2 + kept[arc, backwards]
        found[ring + 1] = found[ring] + count
    return found


@jit
def _fill(xy: Any, vertices: Any, starts: Any, darts: Any, rings: Any, kept: Any) -> None:
    """Writes the vertices of the darts, one after the other, each but its last."""
    at = 0
    for ring in range(rings.size - 1):
        first = at
        for place in range(rings[ring], rings[ring + 1]):
            arc, backwards = darts[place] >> 1, darts[place] & 1
            low, high = starts[arc], starts[arc + 1]
            for step in range(0 if kept[arc, backwards] else 1, high - low - 1):
                vertex = high - 1 - step if backwards else low + step
                xy[at, 0], xy[at, 1] = vertices[vertex, 0], vertices[vertex, 1]
                at += 1
        xy[at, 0], xy[at, 1] = xy[first, 0], xy[first, 1]
        at += 1
