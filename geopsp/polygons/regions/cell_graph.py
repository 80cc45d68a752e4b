"""The region adjacency graph of one cell of a class raster, in integer units of area and length."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.connected_regions import label_regions
from geopsp.core.grid import Window
from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX
from geopsp.polygons.class_raster import CodeSource
from geopsp.polygons.ground_metric import GroundMetric, example_metric, pixel_area

UNITS_PER_PIXEL = 2**24
"""Integer units of area of a pixel of mean size."""


UNITS_PER_SIDE = 2**10
"""Integer units of length of a side of such a pixel. Few, so that all sides in a projected CRS are equally long."""


MAX_UNITS = 2**60
"""Upper limit of areas, in units."""


NO_NODATA = IGNORE_INDEX + 1
"""A code that no pixel has: all pixels are labelled."""


@dataclass(frozen=True, slots=True, eq=False)
class IntegerUnits:
    """Integer units of area and length for a raster."""

    metric: GroundMetric

    per_m2: float
    per_metre: float

    @classmethod
    def from_metric(cls, metric: GroundMetric) -> IntegerUnits:
        """Return units that suit the mean pixel area of a raster."""
        known = metric.pixel_area[np.isfinite(metric.pixel_area)]
        mean = known.mean() if known.any() else 1.0
        return cls(metric, float(UNITS_PER_PIXEL / mean), float(UNITS_PER_SIDE / np.sqrt(mean)))

    def to_units(self, area: float) -> int:
        """Convert m2 to units."""
        return round(min(area * self.per_m2, MAX_UNITS))


@dataclass(frozen=True, slots=True, eq=False)
class CellGraph:
    """The graph of one cell; `pairs` and `side_labels` are labels, which begin at 1."""

    codes: NDArray[np.uint8]
    areas: NDArray[np.int64]
    first_pixels: NDArray[np.int64]
    pairs: NDArray[np.int32]
    lengths: NDArray[np.int64]

    side_labels: tuple[NDArray[np.int32], ...]
    """Labels of the first and the last row, the first and the last column."""


def read_with_overlap(raster: CodeSource, window: Window) -> NDArray[np.uint8]:
    """Read a cell with one more row above and column to the left, and at the raster's end also below and right."""
    right, below = window.col_stop == raster.grid.width, window.row_stop == raster.grid.height
    return raster.read(Window(window.col - 1, window.row - 1, window.width + 1 + right, window.height + 1 + below))


def cell_graph(
    raster: CodeSource, window: Window, units: IntegerUnits, *, max_area: int, all_borders: bool
) -> CellGraph:
    """Return the graph of a cell; the arguments are those of `build_region_graph`."""
    pixels = read_with_overlap(raster, window)
    labels, count = label_regions(pixels, nodata=NO_NODATA)
    left, top = window.col - 1, window.row - 1
    codes, areas, first_pixels = _measure_regions(
        labels, count, pixels, units.metric, units.per_m2, max_area, left, top, raster.grid.width, raster.grid.height
    )
    ignored_area = max_area + 1 if all_borders else max_area
    pairs, lengths = _measure_borders(labels, areas, units.metric, units.per_metre, ignored_area, left, top)
    sides = tuple(side.copy() for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]))
    return CellGraph(codes, areas, first_pixels, pairs, lengths, sides)


@jit("i4[:, ::1]", "i8", "u1[:, ::1]", example_metric, "f8", "i8", "i8", "i8", "i8", "i8")
def _measure_regions(
    labels: Any,
    count: Any,
    codes: Any,
    metric: Any,
    per_m2: Any,
    max_area: Any,
    left: Any,
    top: Any,
    width: Any,
    height: Any,
) -> Any:
    """Return codes, areas and first pixels of the regions of a cell.

    Pixels of the overlap do not count for areas. A pixel of unknown area makes its region as large as `max_area`.
    """
    region_codes = np.empty(count, np.uint8)
    areas, first_pixels = np.zeros(count, np.int64), np.full(count, -1, np.int64)
    for row in range(labels.shape[0]):
        for col in range(labels.shape[1]):
            region = labels[row, col] - 1
            if first_pixels[region] < 0:
                region_codes[region] = codes[row, col]
                first_pixels[region] = (top + row + 1) * (width + 2) + left + col + 1
            if row > 0 and col > 0 and top + row < height and left + col < width and areas[region] < max_area:
                area = pixel_area(metric, left + col + 0.5, top + row + 0.5) * per_m2
                areas[region] = min(max_area, areas[region] + int(area + 0.5)) if area < max_area else max_area
    return region_codes, areas, first_pixels


@jit("i4[:, ::1]", "i8[::1]", example_metric, "f8", "i8", "i8", "i8")
def _measure_borders(
    labels: Any, areas: Any, metric: Any, per_metre: Any, ignored_area: Any, left: Any, top: Any
) -> Any:
    """Return pairs of adjacent labels and the lengths of their borders; pairs of two large regions are ignored.

    Pixel sides are as long as the metric says at the knot before them.
    """
    # A planar graph has fewer than three edges per node.
    capacity = 8
    while capacity < 6 * areas.size:
        capacity *= 2
    slots = np.full(capacity, -1, np.int32)  # a hash table of pairs
    pairs, lengths = np.empty((3 * areas.size, 2), np.int32), np.empty(3 * areas.size, np.int64)
    count = 0
    for row in range(1, labels.shape[0]):
        for col in range(1, labels.shape[1]):
            label = labels[row, col]
            if labels[row, col - 1] == label and labels[row - 1, col] == label:
                continue
            for down in range(2):
                other = labels[row - down, col - 1 + down]
                if label == other or (areas[label - 1] >= ignored_area and areas[other - 1] >= ignored_area):
                    continue
                low, high = min(label, other), max(label, other)
                slot = ((low * 0x9E3779B1 + high * 0x85EBCA6B) >> 16) & (capacity - 1)
                while slots[slot] >= 0 and (pairs[slots[slot], 0] != low or pairs[slots[slot], 1] != high):
                    slot = (slot + 1) & (capacity - 1)
                at = slots[slot]
                if at < 0:
                    at = slots[slot] = count
                    pairs[at, 0], pairs[at, 1], lengths[at] = low, high, 0
                    count += 1
                knot = (top + row) // metric.step, (left + col) // metric.step
                length = per_metre * math.sqrt(metric.e[knot] if down else metric.g[knot])
                lengths[at] += int(length + 0.5) if length >= 0 else 0  # 0 where the length is unknown
    return pairs[:count].copy(), lengths[:count].copy()
