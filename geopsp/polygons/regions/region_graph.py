"""The region adjacency graph of a class raster of any size: areas of the regions, lengths of their shared borders.

Nodata pixels form regions too; one of these surrounds the raster. The raster is read in cells that overlap by one
pixel. Regions of two cells that share a pixel are joined. Areas and lengths are sums of integers, so the result does
not depend on the order of the sums, and therefore not on the cells.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from geopsp.core.connected_regions import flatten, label_regions, unite_pairs
from geopsp.core.grid import Window
from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.parallel import cpu_count, map_ordered
from geopsp.polygons.class_raster import CodeSource
from geopsp.polygons.ground_metric import GroundMetric, example_metric, pixel_area

GRAPH_CELL = 2048
"""Width and height of a cell, in pixels."""


UNITS_PER_PIXEL = 2**24
"""Integer units of area of a pixel of mean size."""


UNITS_PER_SIDE = 2**10
"""Integer units of length of a side of such a pixel. Few, so that all sides in a projected CRS are equally long."""


MAX_UNITS = 2**60
"""Upper limit of areas, in units."""


NO_NODATA = IGNORE_INDEX + 1
"""A code that no pixel has: all pixels are labelled."""


COLUMNS = ("codes", "areas", "first_pixels", "pairs", "lengths")
"""The arrays of a cell's graph that are concatenated."""


Item = TypeVar("Item")


Result = TypeVar("Result")


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
class RegionGraph:
    """Regions and their shared borders.

    It takes about 60 bytes per region, and 160 more while cells are joined.
    """

    codes: NDArray[np.uint8]
    """(regions,)"""

    areas: NDArray[np.int64]
    """(regions,) in units; limited to `max_area`."""

    first_pixels: NDArray[np.int64]
    """(regions,) number of the first pixel, counted row by row over the raster with a border of one pixel."""

    pairs: NDArray[np.int32]
    """(borders, 2) indices of two adjacent regions; a pair may occur more than once."""

    lengths: NDArray[np.int64]
    """(borders,) in units."""

    owners: NDArray[np.int32]
    """(regions of cells,) index of the region that each region of a cell belongs to."""

    cell_starts: NDArray[np.int64]
    """(cells + 1,) start of each cell in `owners`, and the end."""

    max_area: int

    def merge(self, owners: NDArray[np.int32]) -> RegionGraph:
        """Merge each region into `owners[region]`; a region that stays is its own owner."""
        areas, first_pixels = self.areas.copy(), self.first_pixels.copy()
        _add_to_owners(owners, areas, first_pixels, self.max_area)
        kept = owners == np.arange(owners.size, dtype=np.int32)
        owners = (np.cumsum(kept, dtype=np.int32) - np.int32(1))[owners]
        pairs = owners[self.pairs]
        differ = pairs[:, 0] != pairs[:, 1]
        return replace(
            self, codes=self.codes[kept], areas=areas[kept], first_pixels=first_pixels[kept], pairs=pairs[differ],
            lengths=self.lengths[differ], owners=owners[self.owners],
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _CellGraph:
    """The graph of one cell; `pairs` and `side_labels` are labels, which begin at 1."""

    codes: NDArray[np.uint8]
    areas: NDArray[np.int64]
    first_pixels: NDArray[np.int64]
    pairs: NDArray[np.int32]
    lengths: NDArray[np.int64]

    side_labels: tuple[NDArray[np.int32], ...]
    """Labels of the first and the last row, the first and the last column."""


def build_region_graph(
    raster: CodeSource,
    units: IntegerUnits,
    *,
    max_area: int,
    all_borders: bool,
    cell_size: int,
    on_cell: Callable[[], None] = lambda: None,
) -> RegionGraph:
    """Build the graph of the 4-connected regions of a raster.

    Args:
        raster: Class codes.
        units: Integer units for its pixels.
        max_area: Limit of areas, in units: larger regions count as this large.
        all_borders: False leaves out borders between two regions of a cell that both reach `max_area`.
        cell_size: In pixels.
        on_cell: Called after each cell.
    """
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in COLUMNS}
    same = [np.empty((0, 2), np.int32)]
    count, starts = 0, [0]
    above = beside = np.empty(0, np.int32)
    below = np.empty(raster.grid.width + 2, np.int32)
    windows = list(raster.grid.blocks(cell_size))
    cells = _map_cells(lambda window: _cell_graph(raster, window, units, max_area, all_borders), windows)
    with closing(cells):
        for window, cell in zip(windows, cells, strict=True):
            top, bottom, left, right = (side + np.int32(count - 1) for side in cell.side_labels)
            if window.col:
                same.append(_pairs_along_seam(beside, left))
            else:
                above, below = below, np.empty_like(below)
            cols = slice(window.col, window.col + top.size)
            if window.row:
                same.append(_pairs_along_seam(above[cols], top))
            below[cols], beside = bottom, right
            np.add(cell.pairs, np.int32(count - 1), out=cell.pairs)
            for name in COLUMNS:
                columns[name].append(getattr(cell, name))
            count += cell.codes.size
            starts.append(count)
            on_cell()
    return _join_cells(columns, np.concatenate(same), np.array(starts), max_area)


def _join_cells(
    columns: dict[str, list[NDArray[Any]]], same: NDArray[np.int32], cell_starts: NDArray[np.int64], max_area: int
) -> RegionGraph:
    """Merge regions of cells that are the same; empties `columns` to halve the memory."""
    parent = np.arange(cell_starts[-1], dtype=np.int32)
    owners = parent.copy()
    unite_pairs(parent, same)
    flatten(parent)
    arrays = {name: np.concatenate(columns.pop(name)) for name in COLUMNS}
    return RegionGraph(**arrays, owners=owners, cell_starts=cell_starts, max_area=max_area).merge(parent)


def apply_codes(
    raster: CodeSource, graph: RegionGraph, *, cell_size: int
) -> Generator[tuple[Window, NDArray[np.uint8]], None, None]:
    """Yield the raster cell by cell, each pixel with the code of its region in the graph."""
    table = graph.codes[graph.owners]

    def recode(cell: tuple[Window, int]) -> NDArray[np.uint8]:
        window, start = cell
        labels, _ = label_regions(_read_with_overlap(raster, window), nodata=NO_NODATA)
        codes: NDArray[np.uint8] = _look_up(labels[1 : window.height + 1, 1 : window.width + 1], table[start:])
        return codes

    windows = list(raster.grid.blocks(cell_size))
    with closing(_map_cells(recode, zip(windows, graph.cell_starts.tolist(), strict=False))) as cells:
        yield from zip(windows, cells, strict=True)


def _map_cells(work: Callable[[Item], Result], cells: Iterable[Item]) -> Generator[Result, None, None]:
    """Yield `work(cell)` of each cell in order, computed in threads."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        yield from map_ordered(pool, work, cells, in_flight=4 * cpu_count())


def _read_with_overlap(raster: CodeSource, window: Window) -> NDArray[np.uint8]:
    """Read a cell with one more row above and column to the left, and at the raster's end also below and right."""
    right, below = window.col_stop == raster.grid.width, window.row_stop == raster.grid.height
    return raster.read(Window(window.col - 1, window.row - 1, window.width + 1 + right, window.height + 1 + below))


def _cell_graph(
    raster: CodeSource, window: Window, units: IntegerUnits, max_area: int, all_borders: bool
) -> _CellGraph:
    pixels = _read_with_overlap(raster, window)
    labels, count = label_regions(pixels, nodata=NO_NODATA)
    left, top = window.col - 1, window.row - 1
    codes, areas, first_pixels = _measure_regions(
        labels, count, pixels, units.metric, units.per_m2, max_area, left, top, raster.grid.width, raster.grid.height
    )
    ignored_area = max_area + 1 if all_borders else max_area
    pairs, lengths = _measure_borders(labels, areas, units.metric, units.per_metre, ignored_area, left, top)
    sides = tuple(side.copy() for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]))
    return _CellGraph(codes, areas, first_pixels, pairs, lengths, sides)


def _pairs_along_seam(one: NDArray[np.int32], two: NDArray[np.int32]) -> NDArray[np.int32]:
    """Return (n, 2) regions of two cells that share pixels of a seam, given per pixel by each cell."""
    changes = np.append(True, (one[1:] != one[:-1]) | (two[1:] != two[:-1]))
    return np.column_stack([one[changes], two[changes]])


@jit("i4[:, :]", "u1[::1]")
def _look_up(labels: Any, table: Any) -> Any:
    codes = np.empty(labels.shape, np.uint8)
    for row in range(labels.shape[0]):
        for col in range(labels.shape[1]):
            codes[row, col] = table[labels[row, col] - 1]
    return codes


@jit("i4[::1]", "i8[::1]", "i8[::1]", "i8")
def _add_to_owners(owners: Any, areas: Any, first_pixels: Any, max_area: Any) -> None:
    """Add areas and first pixels of merged regions to their owners'."""
    for region in range(owners.size):
        owner = owners[region]
        if owner != region:
            areas[owner] = min(max_area, areas[owner] + areas[region])
            first_pixels[owner] = min(first_pixels[owner], first_pixels[region])


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
