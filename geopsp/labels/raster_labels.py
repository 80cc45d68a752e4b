"""Labels from a raster of class codes, sampled by nearest neighbour."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import shapely
from numpy.typing import NDArray
from rasterio.enums import Resampling

from geopsp.core.crs import full_circle, full_turns, get_transformer, transform_bounds
from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.parallel import cpu_count, map_ordered
from geopsp.core.paths import file_fingerprint
from geopsp.errors import LabelError
from geopsp.labels.class_mapping import (
    OTHERS,
    Background,
    ClassTable,
    ClassTarget,
    Value,
    class_table,
    mapping_identity,
    normalize_value,
)
from geopsp.labels.overlap import no_overlap_message
from geopsp.labels.rasterize import RasterizedLabels
from geopsp.raster.info import read_info
from geopsp.raster.legend_io import read_legend
from geopsp.raster.scene import Scene

MAX_DISTINCT_VALUES = 2**16
"""A raster with more values is no label raster."""


BLOCK = 2048
"""Side, in pixels, of what is read at once."""


@dataclass(frozen=True, slots=True, eq=False)
class RasterLabels:
    """A raster of class codes, on a grid of its own."""

    scene: Scene
    table: ClassTable
    source: str
    notes: tuple[str, ...] = ()
    mapping: Mapping[Value, ClassTarget] = field(default_factory=dict)

    @property
    def legend(self) -> Legend:
        return self.table.legend

    def burn(self, grid: Grid) -> RasterizedLabels:
        """Return the codes of the label pixels that contain the grid's pixel centres; IGNORE_INDEX outside."""
        codes = np.full((grid.height, grid.width), IGNORE_INDEX, np.uint8)
        own = self.scene.grid
        window = own.window_of(grid)
        if window is not None and (not own.crs.is_geographic or window.intersect(own.full_window) == window):
            codes[:] = self._codes(window)
        else:
            self._sample(grid, grid.full_window, codes)
        return RasterizedLabels(codes, np.zeros(codes.shape, bool))

    def count(self, grid: Grid, window: Window) -> dict[str, Any]:
        """Return {}, as there are no polygons; see `PolygonLabels.count`."""
        return {}

    def _sample(self, grid: Grid, window: Window, codes: NDArray[np.uint8]) -> None:
        """Fill a window of `codes`, which has the size of the grid; in halves, if it takes many label pixels."""
        label_grid = self.scene.grid
        col, row = label_pixels(grid.crop(window), label_grid)
        inside = (col >= 0) & (col < label_grid.width) & (row >= 0) & (row < label_grid.height)
        if not inside.any():
            return
        cols, rows = col[inside].astype(np.intp), row[inside].astype(np.intp)
        left, top = int(cols.min()), int(rows.min())
        label_window = Window(left, top, int(cols.max()) - left + 1, int(rows.max()) - top + 1)
        if label_window.width * label_window.height > BLOCK**2 and max(window.width, window.height) > 1:
            for half in _halves(window):
                self._sample(grid, half, codes)
            return
        codes[window.slices(grid.full_window)][inside] = self._codes(label_window)[rows - top, cols - left]

    def _codes(self, window: Window) -> NDArray[np.uint8]:
        """Read the class codes of a window of the label raster."""
        pixels = self.scene.read(window)
        return np.where(pixels.valid, map_values(pixels.data[0], self.table.codes), IGNORE_INDEX).astype(np.uint8)

    def report(self) -> dict[str, Any]:
        """Return what chips.json says of the labels: their source and notes."""
        return {"source": self.source, "notes": list(self.notes)}

    def require_overlap(self, grid: Grid) -> None:
        """Check that the bounds of the label raster meet the grid.

        Raises:
            LabelError: if they do not; the message says where the labels lie instead.
        """
        label_grid = self.scene.grid
        bounds = transform_bounds(label_grid.bounds(), label_grid.crs.to_wkt(), grid.crs.to_wkt(), past_180=True)
        outline = shapely.polygons(grid.corners())
        distance = float(shapely.distance(shapely.box(*bounds), outline)) if bounds else None
        circle = full_circle(grid.crs.to_wkt())
        if bounds and circle and full_turns(bounds[::2], grid.bounds()[::2], circle):
            distance = float(shapely.distance(*(shapely.box(0, b[1], 1, b[3]) for b in (bounds, grid.bounds()))))
        if distance is None or distance > 0:
            message = no_overlap_message(self.source, grid, bounds, distance)
            raise LabelError(f"{message} Check that both have the right CRS and show the same place.")

    def fingerprint(self) -> list[str]:
        """Return what identifies the files, their classes and the class mapping."""
        parts = [*self.scene.fingerprint(), *file_fingerprint(self.source, ""), repr(self.legend.to_json())]
        return [*parts, *mapping_identity(self.mapping)]


def _halves(window: Window) -> list[Window]:
    """Cut a window into two along its longer side."""
    col, row, width, height = window.col, window.row, window.width, window.height
    if width >= height:
        half = width // 2
        return [Window(col, row, half, height), Window(col + half, row, width - half, height)]
    half = height // 2
    return [Window(col, row, width, half), Window(col, row + half, width, height - half)]


def label_pixels(grid: Grid, labels: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return (rows, cols) column and (rows, cols) row of the label pixel that contains each pixel centre of a grid.

    Both are infinite where a centre cannot be projected into the CRS of the labels.
    """
    t, inverse = grid.transform, ~labels.transform
    cols, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x, y = t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f
    if grid.crs != labels.crs:
        x, y = get_transformer(grid.crs.to_wkt(), labels.crs.to_wkt()).transform(x, y)
    x = _in_longitudes(x, labels)
    return np.floor(inverse.a * x + inverse.b * y + inverse.c), np.floor(inverse.d * x + inverse.e * y + inverse.f)


def _in_longitudes(x: NDArray[np.float64], labels: Grid) -> NDArray[np.float64]:
    """Return x coordinates, shifted by full circles into the longitudes of a geographic grid."""
    circle = full_circle(labels.crs.to_wkt()) if labels.crs.is_geographic else None
    if circle is None:
        return x
    left, _, right, _ = labels.bounds()
    with np.errstate(invalid="ignore"):
        return np.where((x < left) | (x > right), left + np.mod(x - left, circle), x)


def map_values(data: NDArray[Any], codes: Mapping[Value, int]) -> NDArray[np.uint8]:
    """Return the code of each value; IGNORE_INDEX for values without one."""
    values = sorted(value for value in codes if not isinstance(value, str))
    if data.dtype.kind in "iu":  # floats do not hold every whole number
        limits = np.iinfo(data.dtype)
        values = [value for value in values if float(value).is_integer() and limits.min <= value <= limits.max]
    if not values:
        return np.full(data.shape, IGNORE_INDEX, np.uint8)
    keys = np.array(values, data.dtype if data.dtype.kind in "iu" else float)
    table = np.array([codes[value] for value in values], np.uint8)
    if data.dtype == np.uint8:
        lookup = np.full(256, IGNORE_INDEX, np.uint8)
        lookup[keys.astype(int)] = table
        return np.asarray(lookup[data])
    position = np.minimum(np.searchsorted(keys, data), len(keys) - 1)
    return np.where(keys[position] == data, table[position], IGNORE_INDEX).astype(np.uint8)


def read_label_raster(
    path: str | Path, background: Background, mapping: Mapping[Value, ClassTarget] | None = None
) -> RasterLabels:
    """Open a raster of class codes. Its classes are the values found, named by its own class table if it has one.

    Raises:
        LabelError: if it has several bands, or values that are neither class codes nor mapped.
    """
    source = str(path)
    info = read_info(path)
    if len(info.indexes) != 1:
        raise LabelError(
            f"{source} has {len(info.indexes)} bands of {info.dtype}, but a label raster has one band of whole numbers."
        )
    scene = Scene.open(path, resampling=Resampling.nearest)
    mapped = {key for key in mapping or {} if isinstance(key, int)}
    values = _distinct_values(scene, source)
    labelled = values - ({IGNORE_INDEX, *([0] if background == "ignore" else [])} - mapped)
    _require_codes(labelled, source, mapping or {})
    known = read_legend(path)
    table = class_table(labelled, source, background="ignore", mapping=mapping, known=known)
    notes = list(table.notes)
    unnamed = sorted(labelled - {info.code for info in known} - mapped) if known else []
    if unnamed:
        notes.append(f"{source} contains {', '.join(map(str, unnamed))}, which its own class table does not name")
    if IGNORE_INDEX in values - labelled:
        notes.append(f"{source} contains {IGNORE_INDEX}, which is not its nodata value: these pixels are unlabelled")
    return RasterLabels(scene, table, source, tuple(notes), mapping or {})


def _distinct_values(scene: Scene, source: str) -> set[int]:
    """Return all values of a raster, read block by block.

    Raises:
        LabelError: if they are no whole numbers, or too many.
    """
    found: set[int] = set()

    def values_of(block: Window) -> NDArray[Any]:
        pixels = scene.read(block)
        return np.asarray(pd.unique(pixels.data[0][pixels.valid]))

    blocks = (block for block in scene.grid.blocks(BLOCK) if not scene.known_empty(block))
    with ThreadPoolExecutor(cpu_count()) as pool, closing(map_ordered(pool, values_of, blocks, in_flight=16)) as parts:
        for values in parts:
            _require_whole_numbers(values, source)
            found |= {int(value) for value in values.tolist()}
            if len(found) > MAX_DISTINCT_VALUES:
                raise LabelError(
                    f"{source} has more than {MAX_DISTINCT_VALUES:,} different values, but must contain class codes. "
                    "Is it the right file?"
                )
    return found


def _require_whole_numbers(values: NDArray[Any], source: str) -> None:
    if values.dtype.kind == "f" and not (values == np.floor(values)).all():
        examples = ", ".join(map(str, values[values != np.floor(values)][:3].tolist()))
        raise LabelError(
            f"{source} has values such as {examples} ({values.dtype}), but a label raster contains whole numbers."
        )


def _require_codes(values: set[int], source: str, mapping: Mapping[Value, ClassTarget]) -> None:
    if not values:
        raise LabelError(f"{source} has no labelled pixel, but must contain codes from 0 to {IGNORE_INDEX - 1}.")
    mapped = {normalize_value(float(key)) if isinstance(key, str) and key.isdigit() else key for key in mapping}
    wrong = sorted(value for value in values if not 0 <= value < IGNORE_INDEX and value not in mapped)
    if wrong and OTHERS not in mapping:
        listed = ", ".join(map(str, wrong[:9])) + ", ..." * (len(wrong) > 9)
        raise LabelError(
            f"{source} contains {listed}, but class codes are whole numbers from 0 to {IGNORE_INDEX - 1}. "
            "Map other values to classes with `class_mapping`."
        )
