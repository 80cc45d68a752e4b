"""Labels from a raster of class codes, sampled by nearest neighbour."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from numpy.typing import NDArray

from geopsp.core.crs import full_circle, full_turns, get_transformer, transform_bounds
from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX, ClassInfo, Legend
from geopsp.core.parallel import cpu_count
from geopsp.core.paths import file_fingerprint
from geopsp.errors import LabelError
from geopsp.labels.class_mapping import Value
from geopsp.labels.class_table import ClassTable
from geopsp.labels.label_classes import LabelClasses, RasterRules, label_classes, mask_targets
from geopsp.labels.label_file import BLOCK, LabelFile, ValueCounts, count_values
from geopsp.labels.overlap import no_overlap_message
from geopsp.labels.rasterize import RasterizedLabels
from geopsp.raster.legend_io import read_legend
from geopsp.raster.scene import Scene

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class RasterLabels:
    """A raster of class codes, or of colours that stand for classes, on a grid of its own."""

    file: LabelFile
    table: ClassTable
    """Codes by value, or by colour 0xRRGGBB."""

    source: str
    notes: tuple[str, ...] = ()
    rules: RasterRules = field(default_factory=RasterRules)

    @property
    def scene(self) -> Scene:
        """The pixels of the raster."""
        return self.file.scene

    @property
    def legend(self) -> Legend:
        return self.table.legend

    def burn(self, grid: Grid) -> RasterizedLabels:
        """Return the codes of the label pixels that contain the grid's pixel centres; IGNORE_INDEX outside."""
        codes = np.full((grid.height, grid.width), IGNORE_INDEX, np.uint8)
        own = self.scene.grid
        window = own.window_of(grid)
        inside = window is not None and window.intersect(own.full_window) == window
        if window is not None and (inside or own.crs is None or not own.crs.is_geographic):
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
        data, valid = self.file.read(window)
        return np.where(valid, map_values(data, self.table.codes), IGNORE_INDEX).astype(np.uint8)

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
        return [*parts, *self.rules.identity()]


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
    circle = full_circle(labels.crs.to_wkt()) if labels.crs and labels.crs.is_geographic else None
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


def read_label_raster(path: str | Path, rules: RasterRules) -> RasterLabels:
    """Open a raster of class codes or colours.

    Classes are the values found, named by the raster's own class table if it has one; or what a table of mask classes
    says.

    Raises:
        LabelError: if it has several bands that are no colours, or values that are neither class codes nor mapped.
    """
    source = str(path)
    file, classes = read_classes([LabelFile.open(path, nodata=rules.nodata)], rules, source)
    return RasterLabels(file[0], classes.table, source, (*classes.notes, *classes.warnings), rules)


def read_classes(files: list[LabelFile], rules: RasterRules, source: str) -> tuple[list[LabelFile], LabelClasses]:
    """Return label rasters as they must be read, and their classes; what may surprise is logged as a warning.

    Args:
        files: One or several.
        rules: The options of labels.
        source: Their name in messages.

    Raises:
        LabelError: if some are of colours and others of codes, or as `label_classes`.
    """
    files = _as_colors_or_codes(files, rules, source)
    known = None if rules.classes is None else mask_targets(files, rules, rules.classes, source)
    counts = count_values(files, source, known)
    legend = None if rules.classes else _common_legend(files, counts, source)
    classes = label_classes(files, counts, rules, source, legend)
    for warning in classes.warnings:
        logger.warning(warning)
    return files, classes


def _common_legend(files: Sequence[LabelFile], counts: ValueCounts, source: str) -> Legend | None:
    """Return the classes that the files themselves name; None if there are none.

    Raises:
        LabelError: if two files give one value different names, or different colours by their palettes.
    """
    needed = "Name the classes with `mask_classes`: by `color` if the colours are right, by `code` if the values are."
    for value, colors in counts.palettes.items():
        if len(colors) > 1:
            (one, path), (other, second) = list(colors.items())[:2]
            raise LabelError(
                f"The palettes of {source} differ: the value {value} is #{one:06x} in {path}, but #{other:06x} in "
                f"{second}. {needed}"
            )
    with ThreadPoolExecutor(cpu_count()) as pool:
        legends = list(pool.map(lambda file: read_legend(file.path), files))
    found: dict[int, tuple[ClassInfo, str]] = {}
    for file, legend in zip(files, legends, strict=True):
        for info in legend or ():
            first, path = found.setdefault(info.code, (info, file.path))
            if first.name != info.name:
                raise LabelError(
                    f"The class tables of {source} differ: the value {info.code} is {first.name!r} in {path}, but "
                    f"{info.name!r} in {file.path}. {needed}"
                )
    return Legend(tuple(found[code][0] for code in sorted(found))) if found else None


def _as_colors_or_codes(files: list[LabelFile], rules: RasterRules, source: str) -> list[LabelFile]:
    """Expand palettes if the classes are named by colours only."""
    by_color = rules.classes is not None and all(entry.value is None for entry in rules.classes.classes)
    if by_color:
        files = [replace(file, expand_palette=file.palette is not None) for file in files]
    colored, coded = ([file for file in files if file.has_colors is wanted] for wanted in (True, False))
    if colored and coded:
        raise LabelError(
            f"{source} has masks of colours ({colored[0].path}) and masks of one band ({coded[0].path}). Convert them "
            "to one kind, or name only those of one kind."
        )
    return files
