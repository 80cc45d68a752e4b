"""A raster of class codes as labels: sampled by nearest neighbour, never interpolated."""

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

from geopsp.core.crs import get_transformer, transform_bounds
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

BLOCK = 2048
"""Pixels on each side of what is read at once."""


@dataclass(frozen=True, slots=True, eq=False)
class RasterLabels:
    """A raster of class codes."""

    scene: Scene
    table: ClassTable
    source: str
    notes: tuple[str, ...] = ()
    mapping: Mapping[Value, ClassTarget] = field(default_factory=dict)

    @property
    def legend(self) -> Legend:
        return self.table.legend

    def burn(self, grid: Grid) -> RasterizedLabels:
        """Codes of the label pixels under the grid's centres; IGNORE where there are none."""
        codes = np.full((grid.height, grid.width), IGNORE_INDEX, np.uint8)
        window = self.scene.grid.window_of(grid)
        if window is not None:
            codes[:] = self._codes(window)
        else:
            self._sample(grid, grid.full_window, codes)
        return RasterizedLabels(codes, np.zeros(codes.shape, bool))

    def count(self, grid: Grid, window: Window) -> dict[str, Any]:
        """Nothing: there are no polygons."""
        return {}

    def _sample(self, grid: Grid, window: Window, codes: NDArray[np.uint8]) -> None:
        """Fills a window of `codes` with the label pixels in which its centres lie; a part at a time."""
        col, row = label_pixels(grid.crop(window), self.scene.grid)
        own = self.scene.grid
        inside = (col >= 0) & (col < own.width) & (row >= 0) & (row < own.height)
        if not inside.any():
            return
        cols, rows = col[inside].astype(np.intp), row[inside].astype(np.intp)
        left, top = int(cols.min()), int(rows.min())
        part = Window(left, top, int(cols.max()) - left + 1, int(rows.max()) - top + 1)
        if part.width * part.height > BLOCK**2 and max(window.width, window.height) > 1:
            for half in _halves(window):
                self._sample(grid, half, codes)
            return
        codes[window.slices(grid.full_window)][inside] = self._codes(part)[rows - top, cols - left]

    def _codes(self, window: Window) -> NDArray[np.uint8]:
        patch = self.scene.read(window)
        return np.where(patch.valid, map_values(patch.data[0], self.table.codes), IGNORE_INDEX).astype(np.uint8)

    def report(self) -> dict[str, Any]:
        return {"source": self.source, "notes": list(self.notes)}

    def require_overlap(self, grid: Grid) -> None:
        """Nothing, if the label raster's box meets the grid's.

        Raises:
            LabelError: if it does not; says how far away it is.
        """
        theirs = self.scene.grid
        bounds = transform_bounds(theirs.bounds(), theirs.crs.to_wkt(), grid.crs.to_wkt())
        outline = shapely.polygons(grid.corners())
        away = float(shapely.distance(shapely.box(*bounds), outline)) if bounds else None
        if away is None or away > 0:
            raise LabelError(no_overlap_message(self.source, grid, bounds, away))

    def fingerprint(self) -> list[str]:
        """What tells the file and the mapping from others."""
        parts = [*self.scene.fingerprint(), *file_fingerprint(self.source, ""), repr(self.legend.to_json())]
        return [*parts, *mapping_identity(self.mapping)]


def _halves(window: Window) -> list[Window]:
    """The longer side cut in two."""
    col, row, width, height = window.col, window.row, window.width, window.height
    if width >= height:
        half = width // 2
        return [Window(col, row, half, height), Window(col + half, row, width - half, height)]
    half = height // 2
    return [Window(col, row, width, half), Window(col, row + half, width, height - half)]


def label_pixels(grid: Grid, labels: Grid) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """(rows, cols) column and row of the label pixel in which each centre lies; infinite where none can."""
    t, inverse = grid.transform, ~labels.transform
    cols, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x, y = t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f
    if grid.crs != labels.crs:
        x, y = get_transformer(grid.crs.to_wkt(), labels.crs.to_wkt()).transform(x, y)
    return np.floor(inverse.a * x + inverse.b * y + inverse.c), np.floor(inverse.d * x + inverse.e * y + inverse.f)


def map_values(data: NDArray[Any], codes: Mapping[Value, int]) -> NDArray[np.uint8]:
    """The code of each value; IGNORE for values that have none."""
    values = sorted(value for value in codes if not isinstance(value, str))
    keys, table = np.array(values, float), np.array([codes[value] for value in values], np.uint8)
    if data.dtype == np.uint8:
        lookup = np.full(256, IGNORE_INDEX, np.uint8)
        lookup[keys.astype(int)] = table
        return np.asarray(lookup[data])
    place = np.minimum(np.searchsorted(keys, data), len(keys) - 1)
    return np.where(keys[place] == data, table[place], IGNORE_INDEX).astype(np.uint8)


def read_label_raster(
    path: str | Path, background: Background, mapping: Mapping[Value, ClassTarget] | None = None
) -> RasterLabels:
    """A raster of codes: its classes are the values found, named by its own class table where it has one.

    Raises:
        LabelError: if it does not hold one band of whole numbers, or numbers that are no codes and are not mapped.
    """
    source = read_info(path)
    if len(source.indexes) != 1:
        raise LabelError(
            f"{path} has {len(source.indexes)} bands of {source.dtype}; a label raster has one band of whole numbers."
        )
    scene = Scene.open(path, resampling=Resampling.nearest)
    named = {key for key in mapping or {} if isinstance(key, int)}
    seen = _values(scene, str(path))
    found = seen - ({IGNORE_INDEX, *([0] if background == "ignore" else [])} - named)
    _require_codes(found, str(path), mapping or {})
    known = read_legend(path)
    table = class_table(found, str(path), background="ignore", mapping=mapping, known=known)
    strange = sorted(found - {info.code for info in known} - named) if known else []
    notes = [*table.notes, *([f"{path} holds {strange}, which its own class table does not name"] if strange else [])]
    if IGNORE_INDEX in seen - found:
        notes.append(
            f"{path} holds {IGNORE_INDEX}, which is not its nodata value; these pixels are taken for unlabelled"
        )
    return RasterLabels(scene, table, str(path), tuple(notes), mapping or {})


def _values(scene: Scene, source: str) -> set[int]:
    """All values of a raster, block by block."""
    found: set[int] = set()

    def values_of(block: Window) -> NDArray[Any]:
        patch = scene.read(block)
        data = patch.data[0][patch.valid]
        return np.asarray(pd.unique(data))

    blocks = (block for block in scene.grid.blocks(BLOCK) if not scene.known_empty(block))
    with ThreadPoolExecutor(cpu_count()) as pool, closing(map_ordered(pool, values_of, blocks, in_flight=16)) as parts:
        for values in parts:
            _require_whole_numbers(values, source)
            found |= {int(value) for value in values.tolist()}
            if len(found) > 2**16:
                raise LabelError(
                    f"{source} has more than {2**16} distinct values, but must hold class codes. Is it the right file?"
                )
    return found


def _require_whole_numbers(values: NDArray[Any], source: str) -> None:
    if values.dtype.kind == "f" and not (values == np.floor(values)).all():
        examples = values[values != np.floor(values)][:3].tolist()
        raise LabelError(
            f"{source} has 1 bands of {values.dtype} with values such as {examples}; needed one band of whole numbers."
        )


def _require_codes(found: set[int], source: str, mapping: Mapping[Value, ClassTarget]) -> None:
    if not found:
        raise LabelError(f"{source} holds the values []; needed codes from 0 to {IGNORE_INDEX - 1}.")
    mapped = {normalize_value(float(key)) if isinstance(key, str) and key.isdigit() else key for key in mapping}
    loose = sorted(value for value in found if not 0 <= value < IGNORE_INDEX and value not in mapped)
    if loose and OTHERS not in mapping:
        raise LabelError(
            f"{source} holds the values {loose[:9]}; needed codes from 0 to {IGNORE_INDEX - 1}. "
            "Name what they mean in class_mapping."
        )
