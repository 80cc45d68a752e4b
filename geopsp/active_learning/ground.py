"""Windows on the ground: outlines in one CRS, no overlap, distances and density."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import geopandas as gpd
import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geopsp.core.grid import Grid

OUTLINE_POINTS = 8
"""Points on each side of an outline in another CRS, where it is curved."""

OVERLAP_TOLERANCE = 1e-6
"""Fraction of a window up to which it may overlap another: rounding."""

ONE_KM2 = 1e6
"""In m2."""


def outlines(grids: Sequence[Grid], scenes: NDArray[np.intp], corners: NDArray[np.intp], size: int) -> gpd.GeoSeries:
    """Return the outlines of windows in the CRS of the first grid.

    Args:
        grids: Of the scenes.
        scenes: (n,) positions in `grids`.
        corners: (n, 2) first column and first row of each window.
        size: Side of a window in pixels.
    """
    crs = pyproj.CRS.from_user_input(grids[0].crs)
    shapes = np.empty(len(scenes), object)
    for number, grid in enumerate(grids):
        found = np.flatnonzero(scenes == number)
        same = grid.crs == grids[0].crs
        rings = corners[found][:, None] + _ring(size, 1 if same else OUTLINE_POINTS)
        points = _to_crs(grid, rings.reshape(-1, 2)).reshape(rings.shape)
        polygons = gpd.GeoSeries(shapely.polygons(points), crs=pyproj.CRS.from_user_input(grid.crs))
        shapes[found] = (polygons if same else polygons.to_crs(crs)).to_numpy()
    return gpd.GeoSeries(shapes, crs=crs)


def _ring(size: int, points: int) -> NDArray[np.float64]:
    """Return the closed ring of a square, (4 points + 1, 2), in pixels."""
    corners = np.array([[0, 0], [size, 0], [size, size], [0, size], [0, 0]], float)
    steps = np.arange(points)[:, None] / points
    sides = [first + steps * (second - first) for first, second in pairwise(corners)]
    return np.concatenate([*sides, corners[:1]])


def _to_crs(grid: Grid, pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (n, 2) columns and rows in CRS units."""
    t, (col, row) = grid.transform, pixels.T
    return np.column_stack([t.a * col + t.b * row + t.c, t.d * col + t.e * row + t.f])


def earth_centred(points: NDArray[np.float64], crs: Any) -> NDArray[np.float64]:
    """Return (n, 2) points of a CRS as (n, 3) metres from the Earth's centre, between which distances are chords."""
    to_degrees = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
    lon, lat = to_degrees.transform(*points.T)
    to_metres = pyproj.Transformer.from_crs("EPSG:4979", "EPSG:4978", always_xy=True)
    return np.column_stack(to_metres.transform(lon, lat, np.zeros(len(points))))


@dataclass(slots=True, eq=False)
class Spacing:
    """Says which windows may still be chosen: none that overlaps, is too near, or makes one place too dense."""

    shapes: NDArray[np.object_]
    """(n,) outlines in one CRS."""

    centres: NDArray[np.float64]
    """(n, 3) as `earth_centred`."""

    min_distance: float = 0.0
    """Metres between centres."""

    max_per_km2: float | None = None
    """Windows in a circle of 1 km2 around the centre of one, itself included; below 1, one in a larger circle."""

    _tree: shapely.STRtree = field(init=False)
    _chosen: list[int] = field(init=False, default_factory=list)
    _near: NDArray[np.int64] = field(init=False)
    """(n,) chosen windows in the circle around each."""

    def __post_init__(self) -> None:
        self._tree = shapely.STRtree(self.shapes)
        self._near = np.zeros(len(self.shapes), np.int64)

    @classmethod
    def of(cls, shapes: gpd.GeoSeries, *, min_distance: float, max_per_km2: float | None) -> Spacing:
        """Return the spacing of windows with these outlines."""
        array = shapes.to_numpy()
        centres = shapely.get_coordinates(shapely.centroid(array))
        return cls(array, earth_centred(centres, shapes.crs), min_distance, max_per_km2)

    def still_allowed(self, position: int) -> NDArray[np.bool_]:
        """Choose a window, and return (n,) False for those that cannot be chosen any more."""
        allowed = np.ones(len(self.shapes), bool)
        shape = self.shapes[position]
        touching = self._tree.query(shape, predicate="intersects")
        shared = shapely.area(shapely.intersection(self.shapes[touching], shape))
        allowed[touching[shared > OVERLAP_TOLERANCE * shape.area]] = False
        distances = np.linalg.norm(self.centres - self.centres[position], axis=1)
        allowed &= distances >= self.min_distance
        self._chosen.append(position)
        return allowed & self._dense_allowed(distances)

    def _dense_allowed(self, distances: NDArray[np.float64]) -> NDArray[np.bool_]:
        """Return (n,) False where one more would be too many around itself or around one that is chosen."""
        if self.max_per_km2 is None:
            return np.ones(len(self.shapes), bool)
        most = max(math.floor(self.max_per_km2), 1)
        radius = math.sqrt(ONE_KM2 * max(1 / self.max_per_km2, 1) / math.pi)
        self._near += distances <= radius
        allowed = self._near < most
        for full in (number for number in self._chosen if self._near[number] >= most):
            allowed &= np.linalg.norm(self.centres - self.centres[full], axis=1) > radius
        return allowed
