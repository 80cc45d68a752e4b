"""The features near a grid, found in memory or read from a large file by bounding box."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

from geopsp.core.crs import full_circle, full_turns, metre_axes, transform_bounds
from geopsp.core.grid import Grid, Window
from geopsp.labels.features import POLYGON, LabelFeatures, LabelRules, concatenate, read_features
from geopsp.labels.rasterize import pixel_coordinates
from geopsp.vector.geometry import reproject_shapes
from geopsp.vector.layer import Box, VectorLayer

logger = logging.getLogger(__name__)

CACHE_VERTICES = 1_000_000
"""Vertices of features read by bounding box that are kept for the next window."""


MIN_MARGIN = 32
"""Pixels that are read beyond each side of a window, at least."""


READ_AHEAD_PIXELS = (1024, 32768)
"""Smallest and largest side, in pixels, of what is read at once: small where features are dense."""


BURN_BLOCK = 1024
"""Side, in pixels, of what is burned and counted at once."""


BOX_SLACK = 0.02
"""Fraction of its size by which a box is widened, as edges may bend from one CRS to another."""


@dataclass(frozen=True, slots=True, eq=False)
class ProjectedShapes:
    """Shapes in a CRS."""

    shapes: NDArray[np.object_]
    """None where they cannot be projected."""

    tree: shapely.STRtree

    circle: float | None
    """A full circle in the CRS's unit; None if it is not geographic."""

    span: tuple[float, float]
    """Left and right."""

    def turns(self, grid: Grid) -> list[float]:
        """Return the shifts, other than 0, by which longitudes of the shapes meet those of a grid."""
        if self.circle is None:
            return []
        left, _, right, _ = grid.bounds()
        return [turn for turn in full_turns(self.span, (left, right), self.circle) if turn]


class FeaturesInMemory:
    """Features in memory, reprojected vertex by vertex into each CRS that a query asks for."""

    def __init__(self, features: LabelFeatures, crs: pyproj.CRS) -> None:
        self.features = features
        self.crs = crs
        self._by_crs: dict[str, ProjectedShapes] = {}
        self._last: tuple[CRS | None, Any] = (None, None)
        self._owned: tuple[Grid, NDArray[np.float64]] | None = None

    def in_crs(self, crs: CRS) -> ProjectedShapes:
        """Return the shapes in a CRS and their spatial index."""
        last = self._last
        if last[0] is crs:
            return last[1]  # type: ignore[no-any-return]
        key = crs.to_wkt()
        if key not in self._by_crs:
            shapes = reproject_shapes(self.features.shapes, self.crs, key)
            left, _, right, _ = shapely.total_bounds(shapes)
            self._by_crs[key] = ProjectedShapes(shapes, shapely.STRtree(shapes), full_circle(key), (left, right))
        self._last = crs, self._by_crs[key]
        return self._by_crs[key]

    @property
    def num_unprojectable(self) -> int:
        """Polygons that cannot be projected into one of the CRSs asked for; of several CRSs, the largest number."""
        polygon = self.features.kinds == POLYGON
        lost = [int((shapely.is_missing(found.shapes) & polygon).sum()) for found in self._by_crs.values()]
        return max(lost, default=0)

    def query(self, grid: Grid) -> LabelFeatures:
        """Return the features, in the grid's CRS, whose boxes meet the grid's, the lowest first.

        Longitudes of a geographic grid and of the features may differ by full circles.
        """
        found = self.in_crs(grid.crs)
        box = shapely.box(*grid.bounds())
        rows = np.sort(found.tree.query(box))
        features = replace(self.features.take(rows), shapes=found.shapes[rows])
        turns = found.turns(grid)
        if not turns:
            return features
        return concatenate([features, *(self._query_shifted(box, turn, found) for turn in turns)]).in_order()

    def owned_by(self, grid: Grid, window: Window) -> LabelFeatures:
        """Return the features that a window owns: of windows that partition the grid, one owns each feature."""
        window = window.intersect(grid.full_window)
        projected = self.in_crs(grid.crs)
        if projected.turns(grid):
            found = self.query(grid)
            found = found.take(np.unique(found.keys[:, -1], return_index=True)[1])  # once, if it is at both ends
            return found.take(_in_window(window, _owner_pixels(found.shapes, grid)))
        if self._owned is None or self._owned[0] is not grid:
            self._owned = grid, _owner_pixels(projected.shapes, grid)
        return self.features.take(_in_window(window, self._owned[1]))

    def _query_shifted(self, box: Any, shift: float, found: ProjectedShapes) -> LabelFeatures:
        rows = np.sort(found.tree.query(shapely.transform(box, lambda xy: np.subtract(xy, [shift, 0]))))
        moved = shapely.transform(found.shapes[rows], lambda xy: np.add(xy, [shift, 0]))
        return replace(self.features.take(rows), shapes=moved)

    def __getstate__(self) -> dict[str, Any]:
        shapes = shapely.to_wkb(self.features.shapes)  # all at once: pickling each shape takes three times as long
        return {"features": replace(self.features, shapes=shapes), "crs": self.crs.to_wkt()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        features = replace(state["features"], shapes=shapely.from_wkb(state["features"].shapes))
        self.__init__(features, pyproj.CRS.from_wkt(state["crs"]))  # type: ignore[misc]


class FeaturesOnDisk:
    """Features of a large file, read by bounding box; those of the last windows are kept."""

    def __init__(self, layer: VectorLayer, rules: LabelRules) -> None:
        self.layer = layer
        self.rules = rules
        self.crs = pyproj.CRS.from_user_input(layer.crs)
        self._read_ahead = READ_AHEAD_PIXELS[0]
        self._kept: list[tuple[Box | None, FeaturesInMemory, int]] = []
        self._lock = threading.Lock()
        self._span: tuple[float, float] | None = None
        self._told: set[int] = set()

    def query(self, grid: Grid) -> LabelFeatures:
        """See `FeaturesInMemory.query`."""
        box = query_box(grid, self.crs, buffer=self.rules.buffer)
        with self._lock:
            index = next((index for kept, index, _ in self._kept if box_contains(kept, box)), None)
            if index is None:
                index = self._read(grid)
        return index.query(grid)

    def owned_by(self, grid: Grid, window: Window) -> LabelFeatures:
        """See `FeaturesInMemory.owned_by`."""
        parts = []
        for block in burn_blocks(window.intersect(grid.full_window)):
            found = self.query(grid.crop(block))
            parts.append(found.take(_in_window(block, _owner_pixels(found.shapes, grid))))
        return concatenate(parts)

    def touches(self, grid: Grid) -> bool:
        """Return True if the box of a feature meets the grid's, slightly widened."""
        box = query_box(grid, self.crs, buffer=self.rules.buffer)
        return any(len(self.layer.read([], box=part, most=1)) for part in self._boxes(box))

    def _read(self, grid: Grid) -> FeaturesInMemory:
        """Read the features of a window and of its neighbourhood, and keep them."""
        x, y = (max(MIN_MARGIN, (self._read_ahead - side) // 2) for side in (grid.width, grid.height))
        wide = grid.crop(Window(-x, -y, grid.width + 2 * x, grid.height + 2 * y))
        box = query_box(wide, self.crs, buffer=self.rules.buffer)
        parts = [self.layer.read(self.rules.columns, box=part) for part in self._boxes(box)]
        frame = parts[0] if len(parts) == 1 else _merged(parts)
        features, left_out = read_features(frame, self.rules, self.layer.source)
        for note in left_out.notes(self.layer.source, told=self._told):
            logger.warning("%s.", note)
        self._told.update(left_out.endless)
        index = FeaturesInMemory(features, self.crs)
        vertices = int(shapely.get_num_coordinates(features.shapes).sum())
        factor = 2 if vertices < CACHE_VERTICES / 16 else 0.5 if vertices > CACHE_VERTICES / 4 else 1
        self._read_ahead = int(np.clip(self._read_ahead * factor, *READ_AHEAD_PIXELS))
        self._kept.insert(0, (box, index, vertices))
        total = np.cumsum([size for _, _, size in self._kept])
        del self._kept[max(1, int(np.searchsorted(total, CACHE_VERTICES, side="right"))) :]
        return index

    def _boxes(self, box: Box | None) -> list[Box | None]:
        """Return a box and, of longitudes, those that differ by full circles and may hold features."""
        circle = full_circle(self.crs.to_wkt())
        if box is None or circle is None:
            return [box]
        if self._span is None:
            bounds = self.layer.bounds()
            self._span = (bounds[0], bounds[2]) if bounds else (-circle, circle)
        left, bottom, right, top = box
        turns = full_turns((left, right), self._span, circle)
        return [box, *((left + turn, bottom, right + turn, top) for turn in turns if turn)]

    def __getstate__(self) -> dict[str, Any]:
        return {"layer": self.layer, "rules": self.rules}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def _merged(parts: Sequence[gpd.GeoDataFrame]) -> gpd.GeoDataFrame:
    """Return the features of several boxes, each once, in the order of the file."""
    frame = gpd.GeoDataFrame(pd.concat([part for part in parts if len(part)] or parts[:1]))
    return frame[~frame.index.duplicated()].sort_index()


def burn_blocks(window: Window) -> Iterator[Window]:
    """Yield blocks that partition a window.

    Burning and counting use the same blocks, so that features of a large file are read once for both.
    """
    for row in range(window.row, window.row_stop, BURN_BLOCK):
        for col in range(window.col, window.col_stop, BURN_BLOCK):
            yield Window(col, row, BURN_BLOCK, BURN_BLOCK).intersect(window)


def _in_window(window: Window, pixels: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return (n,) True for those of (n, 2) columns and rows that lie in the window."""
    first, stop = (window.col, window.row), (window.col_stop, window.row_stop)
    return np.asarray(((pixels >= first) & (pixels < stop)).all(axis=1))


def _owner_pixels(shapes: NDArray[np.object_], grid: Grid) -> NDArray[np.float64]:
    """Return (n, 2) column and row of the pixel that decides which window owns a shape; -1 if it misses the grid.

    The pixel holds the first vertex inside the grid. Of a shape without such a vertex, it holds a point of the
    intersection with the grid.
    """
    points, of_shape = shapely.get_coordinates(shapes, return_index=True)
    pixels = pixel_coordinates(points, grid)
    inside = _in_window(grid.full_window, pixels)
    owners, first = np.unique(of_shape[inside], return_index=True)
    chosen = np.full((len(shapes), 2), -1.0)
    chosen[owners] = np.floor(pixels[inside][first])
    near = ~shapely.is_missing(shapes) & shapely.intersects(shapely.box(*grid.bounds()), shapely.envelope(shapes))
    near[owners] = False
    others = np.flatnonzero(near)
    shared = shapely.intersection(shapes[others], shapely.polygons(grid.corners()))
    meet = ~shapely.is_empty(shared)
    points = shapely.get_coordinates(shapely.point_on_surface(shared[meet]))
    last = [grid.width - 1, grid.height - 1]
    chosen[others[meet]] = np.clip(np.floor(pixel_coordinates(points, grid)), 0, last)
    return chosen


def query_box(grid: Grid, crs: pyproj.CRS, *, buffer: float) -> Box | None:
    """Return a box in a layer's CRS that contains all features of a grid; None if there is no such box.

    `buffer` is in metres, as in `LabelRules`.
    """
    found = transform_bounds(grid.bounds(), grid.crs.to_wkt(), crs.to_wkt(), past_180=True)
    if found is None:
        return None
    left, bottom, right, top = found
    x, y = _margin_of_buffer(found, crs, buffer) + BOX_SLACK * np.array([right - left, top - bottom])
    return float(left - x), float(bottom - y), float(right + x), float(top + y)


def _margin_of_buffer(box: Box, crs: pyproj.CRS, metres: float) -> NDArray[np.float64]:
    """Return (2,) x and y that metres may reach around a box; 10% more, as the scale beyond the box is not known."""
    if not metres:
        return np.zeros(2)
    xs, ys = np.meshgrid(np.linspace(box[0], box[2], 5), np.linspace(box[1], box[3], 5))
    if crs.is_geographic:
        ys = np.clip(ys + np.array([[-1], [-1], [0], [1], [1]]), -89.9, 89.9)
    axes = metre_axes(np.column_stack([xs.ravel(), ys.ravel()]), crs)
    return np.asarray(1.1 * metres * np.abs(axes).sum(axis=2).max(axis=0))


def box_contains(outer: Box | None, inner: Box | None) -> bool:
    """Return True if the inner box lies in the outer one; None is a box around everything."""
    if outer is None or inner is None:
        return outer is None
    return outer[0] <= inner[0] and outer[1] <= inner[1] and outer[2] >= inner[2] and outer[3] >= inner[3]


def polygons_by_block(
    features: FeaturesInMemory | FeaturesOnDisk, grid: Grid
) -> Iterator[tuple[Window, LabelFeatures]]:
    """Yield the blocks of the grid that polygons meet, and these polygons, the lowest first."""
    for window in burn_blocks(grid.full_window):
        found = features.query(grid.crop(window)).polygons()
        if len(found):
            yield window, found
