"""The features near a grid, from memory or from a file read by bounding box."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray
from rasterio.crs import CRS

from geopsp.core.crs import metre_axes, transform_bounds
from geopsp.core.grid import Grid, Window
from geopsp.labels.features import POLYGON, LabelFeatures, LabelRules, joined, read_features
from geopsp.labels.geometry import reprojected
from geopsp.labels.rasterize import pixel_coordinates
from geopsp.vector.layer import Box, VectorLayer

CACHE_VERTICES = 1_000_000
"""Vertices of features read by bounding box that are kept for the next window."""


MIN_MARGIN = 32
"""Pixels beyond a window that are read with it at least."""


READ_AHEAD_PIXELS = (1024, 32768)
"""Pixels that are read in each direction, few where features are dense, at least and at most."""


PIECE = 1024
"""Pixels on each side of what is burned and counted at once."""


SLACK = 0.02
"""Share of a box by which it is widened, as edges may bend from one CRS to another."""


class FeaturesInMemory:
    """Features in memory, reprojected vertex by vertex into any CRS that is asked for."""

    def __init__(self, features: LabelFeatures, crs: pyproj.CRS) -> None:
        self.features = features
        self.crs = crs
        self._by_crs: dict[str, tuple[NDArray[np.object_], shapely.STRtree]] = {}
        self._last: tuple[CRS | None, Any] = (None, None)
        self._owned: tuple[Grid, NDArray[np.float64]] | None = None

    def within(self, crs: CRS) -> tuple[NDArray[np.object_], shapely.STRtree]:
        """The shapes in a CRS, None where they have no place in it, and their index."""
        last = self._last
        if last[0] is crs:
            return last[1]  # type: ignore[no-any-return]
        key = crs.to_wkt()
        if key not in self._by_crs:
            shapes = reprojected(self.features.shapes, self.crs, key)
            self._by_crs[key] = shapes, shapely.STRtree(shapes)
        self._last = crs, self._by_crs[key]
        return self._by_crs[key]

    @property
    def num_unprojectable(self) -> int:
        """Polygons that have no place in a CRS that was asked for."""
        polygon = self.features.kinds == POLYGON
        lost = [int((shapely.is_missing(shapes) & polygon).sum()) for shapes, _ in self._by_crs.values()]
        return max(lost, default=0)

    def query(self, grid: Grid) -> LabelFeatures:
        """Features, in the grid's CRS, whose boxes meet the grid's; beyond 180 degrees also those a turn away."""
        shapes, tree = self.within(grid.crs)
        box = shapely.box(*grid.bounds())
        found = np.sort(tree.query(box))
        here = replace(self.features.take(found), shapes=shapes[found])
        turns = _turns(grid)
        if not turns:
            return here
        return joined([here, *(self._turned(box, turn, shapes, tree) for turn in turns)]).in_order()

    def owned_by(self, grid: Grid, window: Window) -> LabelFeatures:
        """Features that the window owns among windows that partition the grid, so that each is counted once."""
        window = window.intersect(grid.full_window)
        if _turns(grid):
            found = self.query(grid)
            return found.take(_holds(window, _owned_pixels(found.shapes, grid)))
        if self._owned is None or self._owned[0] is not grid:
            self._owned = grid, _owned_pixels(self.within(grid.crs)[0], grid)
        return self.features.take(_holds(window, self._owned[1]))

    def _turned(self, box: Any, turn: float, shapes: NDArray[np.object_], tree: shapely.STRtree) -> LabelFeatures:
        found = np.sort(tree.query(shapely.transform(box, lambda xy: np.subtract(xy, [turn, 0]))))
        moved = shapely.transform(shapes[found], lambda xy: np.add(xy, [turn, 0]))
        return replace(self.features.take(found), shapes=moved)

    def __getstate__(self) -> dict[str, Any]:
        return {"features": self.features, "crs": self.crs.to_wkt()}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(state["features"], pyproj.CRS.from_wkt(state["crs"]))  # type: ignore[misc]


def _turns(grid: Grid) -> tuple[float, ...]:
    """Degrees by which features on a globe lie beside the grid once more."""
    left, _, right, _ = grid.bounds()
    return (-360.0, 360.0) if grid.crs.is_geographic and (left < -180 or right > 180) else ()


class FeaturesOnDisk:
    """Features of a large file, read by bounding box; those of the last windows are kept."""

    def __init__(self, layer: VectorLayer, rules: LabelRules) -> None:
        self.layer = layer
        self.rules = rules
        self.crs = pyproj.CRS.from_user_input(layer.crs)
        self._reach = READ_AHEAD_PIXELS[0]
        self._kept: list[tuple[Box | None, FeaturesInMemory, int]] = []
        self._lock = threading.Lock()

    def query(self, grid: Grid) -> LabelFeatures:
        """As `FeatureIndex.near`."""
        box = query_box(grid, self.crs, buffer=self.rules.buffer)
        with self._lock:
            index = next((index for own, index, _ in self._kept if covers(own, box)), None)
            if index is None:
                index = self._read(grid)
        return index.query(grid)

    def owned_by(self, grid: Grid, window: Window) -> LabelFeatures:
        """As `FeatureIndex.owned`."""
        parts = []
        for part in burn_blocks(window.intersect(grid.full_window)):
            found = self.query(grid.crop(part))
            parts.append(found.take(_holds(part, _owned_pixels(found.shapes, grid))))
        return joined(parts)

    def touches(self, grid: Grid) -> bool:
        """True if the box of a feature meets the grid's, slightly widened."""
        box = query_box(grid, self.crs, buffer=self.rules.buffer)
        return len(self.layer.read([], box=box, most=1)) > 0

    def _read(self, grid: Grid) -> FeaturesInMemory:
        """The features of a window and of its neighbourhood."""
        x, y = (max(MIN_MARGIN, (self._reach - side) // 2) for side in (grid.width, grid.height))
        wide = grid.crop(Window(-x, -y, grid.width + 2 * x, grid.height + 2 * y))
        box = query_box(wide, self.crs, buffer=self.rules.buffer)
        features, _ = read_features(self.layer.read(self.rules.columns, box=box), self.rules, self.layer.source)
        index = FeaturesInMemory(features, self.crs)
        vertices = int(shapely.get_num_coordinates(features.shapes).sum())
        self._reach = int(
            np.clip(
                self._reach * (2 if vertices < CACHE_VERTICES / 16 else 0.5 if vertices > CACHE_VERTICES / 4 else 1),
                *READ_AHEAD_PIXELS,
            )
        )
        self._kept.insert(0, (box, index, vertices))
        total = np.cumsum([size for _, _, size in self._kept])
        del self._kept[max(1, int(np.searchsorted(total, CACHE_VERTICES, side="right"))) :]
        return index

    def __getstate__(self) -> dict[str, Any]:
        return {"layer": self.layer, "rules": self.rules}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__init__(**state)  # type: ignore[misc]


def burn_blocks(window: Window) -> Iterator[Window]:
    """Parts of a window that are burned and counted at once, so that a large file is read once for both."""
    for row in range(window.row, window.row_stop, PIECE):
        for col in range(window.col, window.col_stop, PIECE):
            yield Window(col, row, PIECE, PIECE).intersect(window)


def _holds(window: Window, pixels: NDArray[np.float64]) -> NDArray[np.bool_]:
    """(n,) True for pixels, (n, 2) columns and rows, of the window."""
    first, stop = (window.col, window.row), (window.col_stop, window.row_stop)
    return np.asarray(((pixels >= first) & (pixels < stop)).all(axis=1))


def _owned_pixels(shapes: NDArray[np.object_], grid: Grid) -> NDArray[np.float64]:
    """(n, 2) column and row of the pixel of each shape that says who owns it; -1 for those that miss the grid.

    It holds the first vertex inside the grid; of a shape without one, a point of the part that it shares with the grid.
    """
    points, of_shape = shapely.get_coordinates(shapes, return_index=True)
    pixels = pixel_coordinates(points, grid)
    inside = _holds(grid.full_window, pixels)
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
    """A box in a layer's CRS that holds all that the grid may show; None: no box does."""
    left, bottom, right, top = grid.bounds()
    if _turns(grid):
        left, right = -180.0, 180.0
    found = transform_bounds((left, bottom, right, top), grid.crs.to_wkt(), crs.to_wkt())
    if found is None:
        return None
    left, bottom, right, top = found
    x, y = _away(found, crs, buffer) + SLACK * np.array([right - left, top - bottom])
    return float(left - x), float(bottom - y), float(right + x), float(top + y)


def _away(box: Box, crs: pyproj.CRS, metres: float) -> NDArray[np.float64]:
    """(2,) x and y that metres may reach around a box; a tenth more, as the scale beyond it is not known."""
    if not metres:
        return np.zeros(2)
    xs, ys = np.meshgrid(np.linspace(box[0], box[2], 5), np.linspace(box[1], box[3], 5))
    if crs.is_geographic:
        ys = np.clip(ys + np.array([[-1], [-1], [0], [1], [1]]), -89.9, 89.9)
    axes = metre_axes(np.column_stack([xs.ravel(), ys.ravel()]), crs)
    return np.asarray(1.1 * metres * np.abs(axes).sum(axis=2).max(axis=0))


def covers(own: Box | None, box: Box | None) -> bool:
    """True if all of the box lies in the own one; None is everything."""
    if own is None or box is None:
        return own is None
    return own[0] <= box[0] and own[1] <= box[1] and own[2] >= box[2] and own[3] >= box[3]


def features_by_piece(
    features: FeaturesInMemory | FeaturesOnDisk, grid: Grid
) -> Iterator[tuple[Window, LabelFeatures]]:
    """Parts of the grid where polygons lie, and these, the lowest first."""
    for window in burn_blocks(grid.full_window):
        found = features.query(grid.crop(window)).polygons()
        if len(found):
            yield window, found
