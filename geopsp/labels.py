"""Polygons or a label raster, burned to class codes on any grid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from operator import itemgetter
from pathlib import Path
from typing import Any, Literal

import geopandas as gpd
import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.warp import transform_bounds
from shapely.geometry import mapping

from geopsp.errors import LabelError, OptionError
from geopsp.grid import Grid
from geopsp.legend import BACKGROUND, IGNORE, Legend
from geopsp.scene import Scene, describe, read_legend
from geopsp.vectors import PolygonIndex, clean, miss, read_vector

Background = Literal["class", "ignore"]

MAX_CLASSES = 254


@dataclass(frozen=True, slots=True, eq=False)
class Burned:
    """Labels on a grid."""

    codes: NDArray[np.uint8]
    """(rows, cols) class codes; IGNORE where nothing is known."""

    contested: NDArray[np.bool_]
    """(rows, cols); True where polygons of several classes lie, so that the priority decided."""


@dataclass(slots=True, eq=False)
class PolygonLabels:
    """Polygons with a class each."""

    legend: Legend
    polygons: PolygonIndex
    """In burning order: what comes later lies on top."""

    codes: NDArray[np.uint8]
    """(polygons,)"""

    background: Background
    all_touched: bool
    source: str
    counts: dict[str, int]
    """What reading found: polygons, repaired, null, empty, not_polygons, without_class."""

    priority: str

    def burn(self, grid: Grid) -> Burned:
        """Codes where a pixel's centre lies in a polygon (with `all_touched`, where the polygon touches the pixel)."""
        fill = 0 if self.background == "class" else IGNORE
        geometries, hits = self.polygons.hits(grid)
        if not len(hits):
            codes = np.full((grid.height, grid.width), fill, np.uint8)
            return Burned(codes, np.zeros(codes.shape, bool))
        shapes = [(mapping(shape), int(code)) for shape, code in zip(geometries, self.codes[hits], strict=True)]
        codes = self._rasterize(shapes, grid, fill)
        if len(np.unique(self.codes[hits])) == 1:
            return Burned(codes, np.zeros(codes.shape, bool))
        by_code = sorted(shapes, key=itemgetter(1))
        highest, lowest = (self._rasterize(part, grid, fill) for part in (by_code, by_code[::-1]))
        return Burned(codes, highest != lowest)

    def _rasterize(self, shapes: list[tuple[Any, int]], grid: Grid, fill: int) -> NDArray[np.uint8]:
        burned: NDArray[np.uint8] = rasterize(
            shapes,
            out_shape=(grid.height, grid.width),
            transform=grid.transform,
            fill=fill,
            dtype="uint8",
            all_touched=self.all_touched,
        )
        return burned

    def report(self) -> dict[str, Any]:
        return {"source": self.source, **self.counts, "priority": self.priority}

    def require_overlap(self, grid: Grid) -> None:
        """As `PolygonIndex.require_overlap`."""
        self.polygons.require_overlap(grid, self.source)


@dataclass(slots=True, eq=False)
class RasterLabels:
    """A raster of class codes, sampled by nearest neighbour, never interpolated."""

    legend: Legend
    scene: Scene
    source: str

    def burn(self, grid: Grid) -> Burned:
        """Codes of the label pixels under the grid's; IGNORE where there are none."""
        window = self.scene.grid.window_of(grid)
        if window is None:
            self.scene = Scene.open(self.source, resampling=Resampling.nearest, onto=grid)
            window = self.scene.grid.window_of(grid)
        assert window is not None
        patch = self.scene.read(window)
        known = patch.valid & np.isin(patch.data[0], self.legend.codes)
        return Burned(np.where(known, patch.data[0], IGNORE).astype(np.uint8), np.zeros(known.shape, bool))

    def report(self) -> dict[str, Any]:
        return {"source": self.source}

    def require_overlap(self, grid: Grid) -> None:
        """Nothing, if the label raster's box meets the grid's.

        Raises:
            LabelError: if it does not; says how far away it is.
        """
        theirs = self.scene.grid
        bounds = transform_bounds(theirs.crs, grid.crs, *theirs.bounds())
        away = float(shapely.distance(shapely.box(*bounds), shapely.polygons(grid.corners())))
        if away > 0:
            raise LabelError(miss(self.source, grid, np.array(bounds), away))


def read_labels(
    labels: str | Path | gpd.GeoDataFrame,
    *,
    class_field: str | None = None,
    background: Background = "class",
    all_touched: bool = False,
    priority: Sequence[str] | None = None,
) -> PolygonLabels | RasterLabels:
    """Labels from a vector file, a GeoDataFrame or a raster of codes.

    Args:
        labels: A vector file, `file|layername=layer`, a GeoDataFrame, or a label raster.
        class_field: The attribute that holds the class, names or numbers; None: all polygons are one class.
        background: "class": what no polygon covers is class 0, "background"; "ignore": it is unlabelled.
        all_touched: True burns each pixel that a polygon touches; False those whose centre it covers.
        priority: Class names, the one on top first. Where polygons overlap, what is not named lies below, smaller
            polygons above larger ones; None means that for all classes.

    Raises:
        InputNotFoundError: if there is no such file or layer.
        LabelError: if there are no polygons, no such field, or too many classes.
    """
    if background not in ("class", "ignore"):
        raise OptionError(f"background is {background!r}; needed 'class' or 'ignore'.")
    if not isinstance(labels, gpd.GeoDataFrame) and _is_raster(labels):
        if class_field is not None or priority is not None or all_touched:
            raise OptionError(
                f"{labels} is a label raster; class_field, priority and all_touched are for polygons. Leave them out."
            )
        return _read_raster(labels, background)
    frame, source = read_vector(labels, field_wanted=class_field)
    frame, counts = clean(frame, source)
    names, values = _class_values(frame, class_field, source)
    known = values.notna().to_numpy()
    counts["without_class"] = int((~known).sum())
    legend, codes = _class_table(names, values[known], background)
    shapes = frame.geometry[known]
    order, words = _burning_order(shapes, codes, legend, priority)
    polygons = PolygonIndex(shapes.iloc[order])
    return PolygonLabels(legend, polygons, codes[order], background, all_touched, source, counts, words)


def _is_raster(path: str | Path) -> bool:
    return Path(str(path)).suffix.lower() in {".tif", ".tiff", ".vrt", ".img"}


def _class_values(frame: gpd.GeoDataFrame, class_field: str | None, source: str) -> tuple[str, pd.Series]:
    """The name of the field and each polygon's class, as found."""
    if class_field is None:
        return "", pd.Series(1, index=frame.index)
    fields = [str(name) for name in frame.columns if name != frame.geometry.name]
    if class_field not in fields:
        raise LabelError(f"{source} has no field {class_field!r}; it has {', '.join(fields) or 'none'}.")
    values = frame[class_field]
    if not pd.api.types.is_numeric_dtype(values):
        values = values.astype("string").str.strip().replace("", pd.NA)
    if not values.notna().any():
        raise LabelError(f"The field {class_field!r} of {source} is empty; needed a class for each polygon.")
    return class_field, values


def _class_table(name: str, values: pd.Series, background: Background) -> tuple[Legend, NDArray[np.uint8]]:
    """The legend and each polygon's code: numbers within 1 to 254 stay codes, anything else is numbered in order."""
    names: dict[int, str]
    if not name:
        names, codes = {1: "object"}, np.ones(len(values), np.uint8)
    elif pd.api.types.is_numeric_dtype(values) and _are_codes(values):
        codes = values.to_numpy().astype(np.uint8)
        names = {int(code): BACKGROUND if code == 0 else f"class {code}" for code in np.unique(codes)}
    else:
        found, numbers = np.unique(values.to_numpy(), return_inverse=True)
        if len(found) > MAX_CLASSES:
            raise LabelError(
                f"The field {name!r} holds {len(found)} classes; at most {MAX_CLASSES} fit. Is it the right field?"
            )
        codes = (numbers + 1).astype(np.uint8)
        names = {i: text if isinstance(text, str) else f"{text:.15g}" for i, text in enumerate(found, start=1)}
        if background == "class" and BACKGROUND in map(str.lower, names.values()):
            codes, names = _merge_background(codes, names)
    if background == "class":
        names = {0: BACKGROUND, **names}
    return Legend.from_names(names), codes


def _are_codes(values: pd.Series) -> bool:
    numbers = values.to_numpy(dtype=float)
    return bool((numbers == np.floor(numbers)).all() and numbers.min() >= 0 and numbers.max() <= MAX_CLASSES)


def _merge_background(codes: NDArray[np.uint8], names: dict[int, str]) -> tuple[NDArray[np.uint8], dict[int, str]]:
    """Polygons that are called background become class 0; the others are numbered anew from 1."""
    old = next(code for code, text in names.items() if text.lower() == BACKGROUND)
    rest = [code for code in names if code != old]
    table = np.zeros(256, np.uint8)
    table[rest] = np.arange(1, len(rest) + 1)
    return table[codes], {int(table[code]): names[code] for code in rest}


def _burning_order(
    shapes: gpd.GeoSeries, codes: NDArray[np.uint8], legend: Legend, priority: Sequence[str] | None
) -> tuple[NDArray[np.intp], str]:
    """Positions from the bottom to the top, and the rule in words."""
    top = list(priority or ())
    rank = np.zeros(256, int)
    for height, name in enumerate(reversed(top), start=1):
        rank[legend.code_of(name)] = height
    order = np.lexsort((np.arange(len(codes)), -shapely.area(shapes.to_numpy()), rank[codes]))
    words = "smaller polygons lie on top of larger ones"
    return order, f"{', then '.join(top)} on top; else {words}" if top else words


def _read_raster(path: str | Path, background: Background) -> RasterLabels:
    """A raster of codes: its classes are the values found, named by our own tag where there is one; 0 is background."""
    source = describe(path)
    if len(source.indexes) != 1 or np.dtype(source.dtype).kind not in "iu":
        raise LabelError(
            f"{path} has {len(source.indexes)} bands of {source.dtype}; a label raster has one band of whole numbers."
        )
    scene = Scene.open(path, resampling=Resampling.nearest)
    found = {int(v) for block in scene.grid.blocks(2048) for v in _values(scene, block)} - {IGNORE}
    found -= {0} if background == "ignore" else set()
    if not found or min(found) < 0 or max(found) >= IGNORE:
        raise LabelError(f"{path} holds the values {sorted(found)[:9]}; needed codes from 0 to {IGNORE - 1}.")
    known = read_legend(path)
    names = {c.code: c.name for c in known or ()}
    colors = {c.code: c.color for c in known or ()}
    legend = Legend.from_names(
        {code: names.get(code, f"class {code}" if code else BACKGROUND) for code in sorted(found)}, colors
    )
    return RasterLabels(legend, scene, str(path))


def _values(scene: Scene, block: Any) -> NDArray[Any]:
    patch = scene.read(block)
    return np.unique(patch.data[0][patch.valid])


@dataclass(slots=True, eq=False)
class Area:
    """An area of interest: outside of it, nothing is labelled."""

    polygons: PolygonIndex
    source: str

    @classmethod
    def read(cls, aoi: str | Path | gpd.GeoDataFrame) -> Area:
        """The polygons of a layer; of a file with several, the one named `aoi`, else the first.

        Raises:
            InputNotFoundError, LabelError: as `read_vector`, or if there are no polygons.
        """
        frame, source = read_vector(aoi, layer_wanted="aoi")
        return cls(PolygonIndex(clean(frame, source)[0].geometry), source)

    def inside(self, grid: Grid) -> NDArray[np.bool_]:
        """(rows, cols); True where a pixel's centre lies in the area."""
        shapes, hits = self.polygons.hits(grid)
        if not len(hits):
            return np.zeros((grid.height, grid.width), bool)
        if shapely.covers(shapes, shapely.polygons(grid.corners())).any():
            return np.ones((grid.height, grid.width), bool)
        out_shape = (grid.height, grid.width)
        burned = rasterize(list(shapes), out_shape=out_shape, transform=grid.transform, fill=0, dtype="uint8")
        return np.asarray(burned, bool)

    def require_overlap(self, grid: Grid) -> None:
        """As `PolygonIndex.require_overlap`."""
        self.polygons.require_overlap(grid, self.source)
