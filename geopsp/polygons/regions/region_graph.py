"""The regions of a class raster of any size as a graph: how large each is, and how long its borders with others are.

What is nothing has regions too, of which one lies around the raster. The raster is read in cells that overlap by a
pixel. What a cell holds of a region is a piece; pieces that share a pixel are of one region. Areas and lengths are
counted in whole units, so that no sum depends on its order, and with it on the cells.
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

from geopsp.core.grid import Window
from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.parallel import cpu_count, map_ordered
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.ground_metric import GroundMetric, pixel_area
from geopsp.polygons.regions.connected_regions import find, label_regions, union

CELL = 2048
"""Pixels on a side of what is read at once."""


UNITS = 2**24
"""Units of area that a pixel holds on average."""


SIDE = 2**10
"""Units of length that a side of such a square pixel has: so few that sides of a projected map are equally long."""


MOST = 2**60
"""Units of area beyond which none is told from another."""


OTHER = IGNORE_INDEX + 1
"""What no pixel is, so that each has a label."""


COLUMNS = ("codes", "areas", "firsts", "pairs", "lengths")
"""What is gathered of the cells."""


T = TypeVar("T")


R = TypeVar("R")


@dataclass(frozen=True, slots=True, eq=False)
class IntegerUnits:
    """From the ground to whole units."""

    metric: GroundMetric

    area: float
    """Units a m2."""

    length: float
    """Units a metre."""

    @classmethod
    def of(cls, metric: GroundMetric) -> IntegerUnits:
        known = metric.density[np.isfinite(metric.density)]
        pixel = known.mean() if known.any() else 1.0
        return cls(metric, float(UNITS / pixel), float(SIDE / np.sqrt(pixel)))

    def units(self, area: float) -> int:
        """Units in an area in m2."""
        return round(min(area * self.area, MOST))


@dataclass(frozen=True, slots=True, eq=False)
class Graph:
    """Regions and their borders: some 60 bytes a region, and 160 more while they are joined."""

    codes: NDArray[np.uint8]
    """(regions,)"""

    areas: NDArray[np.int64]
    """(regions,) in units; what is as large as `cap` is that large."""

    firsts: NDArray[np.int64]
    """(regions,) number of the first pixel, row by row, from 0 above and to the left of the raster's first one on."""

    pairs: NDArray[np.int32]
    """(borders, 2) two regions each; a pair may come more than once."""

    lengths: NDArray[np.int64]
    """(borders,) in units."""

    pieces: NDArray[np.int32]
    """(pieces,) the region that each is of."""

    cells: NDArray[np.int64]
    """(cells + 1,) where each cell's pieces begin, and the end."""

    cap: int

    def joined(self, owners: NDArray[np.int32]) -> Graph:
        """Each region is made part of its owner, which owns itself."""
        areas, firsts = self.areas.copy(), self.firsts.copy()
        _pool(owners, areas, firsts, self.cap)
        kept = owners == np.arange(owners.size, dtype=np.int32)
        owners = (np.cumsum(kept, dtype=np.int32) - np.int32(1))[owners]
        pairs = owners[self.pairs]
        apart = pairs[:, 0] != pairs[:, 1]
        return replace(
            self, codes=self.codes[kept], areas=areas[kept], firsts=firsts[kept], pairs=pairs[apart],
            lengths=self.lengths[apart], pieces=owners[self.pieces],
        )  # fmt: skip


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """What a cell holds."""

    codes: NDArray[np.uint8]
    areas: NDArray[np.int64]
    firsts: NDArray[np.int64]
    pairs: NDArray[np.int32]
    lengths: NDArray[np.int64]

    sides: tuple[NDArray[np.int32], ...]
    """Labels of the first and the last row, the first and the last column."""


def graph_of(
    codes: ClassRaster,
    scale: IntegerUnits,
    *,
    cap: int,
    every: bool,
    size: int,
    step: Callable[[], None] = lambda: None,
) -> Graph:
    """The 4-connected regions of a raster.

    Args:
        codes: The raster.
        scale: Of its pixels.
        cap: Units of area: larger ones are not told apart.
        every: False leaves out borders of pieces that are both as large as the cap.
        size: Of the cells.
        step: Called after each cell.
    """
    columns: dict[str, list[NDArray[Any]]] = {name: [] for name in COLUMNS}
    same = [np.empty((0, 2), np.int32)]
    count, starts = 0, [0]
    above = beside = np.empty(0, np.int32)
    below = np.empty(codes.grid.width + 2, np.int32)
    windows = list(codes.grid.blocks(size))
    parts = _side_by_side(lambda window: _part(codes, window, scale, cap=cap, every=every), windows)
    with closing(parts):
        for window, part in zip(windows, parts, strict=True):
            top, bottom, left, right = (side + np.int32(count - 1) for side in part.sides)
            if window.col:
                same.append(_met(beside, left))
            else:
                above, below = below, np.empty_like(below)
            along = slice(window.col, window.col + top.size)
            if window.row:
                same.append(_met(above[along], top))
            below[along], beside = bottom, right
            np.add(part.pairs, np.int32(count - 1), out=part.pairs)
            for name in COLUMNS:
                columns[name].append(getattr(part, name))
            count += part.codes.size
            starts.append(count)
            step()
    return _united(columns, np.concatenate(same), np.array(starts), cap)


def _united(
    columns: dict[str, list[NDArray[Any]]], same: NDArray[np.int32], cells: NDArray[np.int64], cap: int
) -> Graph:
    """The regions that the pieces make; takes the columns away, as both would need twice the memory."""
    owners = np.arange(cells[-1], dtype=np.int32)
    pieces = owners.copy()
    _unite(owners, same)
    whole = {name: np.concatenate(columns.pop(name)) for name in COLUMNS}
    return Graph(**whole, pieces=pieces, cells=cells, cap=cap).joined(owners)


def apply_codes(
    codes: ClassRaster, graph: Graph, *, size: int
) -> Generator[tuple[Window, NDArray[np.uint8]], None, None]:
    """Cell by cell, the raster where each pixel has its region's code."""
    table = graph.codes[graph.pieces]

    def read(cell: tuple[Window, int]) -> NDArray[np.uint8]:
        window, start = cell
        labels, _ = label_regions(_with_rim(codes, window), nothing=OTHER)
        found: NDArray[np.uint8] = _painted(labels[1 : window.height + 1, 1 : window.width + 1], table[start:])
        return found

    windows = list(codes.grid.blocks(size))
    with closing(_side_by_side(read, zip(windows, graph.cells.tolist(), strict=False))) as cells:
        yield from zip(windows, cells, strict=True)


def _side_by_side(read: Callable[[T], R], cells: Iterable[T]) -> Generator[R, None, None]:
    """What is read of each cell, in order, a few at a time."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        yield from map_ordered(pool, read, cells, in_flight=4 * cpu_count())


def _with_rim(codes: ClassRaster, window: Window) -> NDArray[np.uint8]:
    """The codes of a cell, with those above and to the left, and with the raster's surroundings at its frame."""
    right, below = window.col_stop == codes.grid.width, window.row_stop == codes.grid.height
    return codes.read(Window(window.col - 1, window.row - 1, window.width + 1 + right, window.height + 1 + below))


def _part(codes: ClassRaster, window: Window, scale: IntegerUnits, *, cap: int, every: bool) -> _Part:
    """What lies in a cell."""
    pixels = _with_rim(codes, window)
    labels, count = label_regions(pixels, nothing=OTHER)
    place = window.col - 1, window.row - 1, codes.grid.width, codes.grid.height
    kinds, areas, firsts = _measure(labels, count, pixels, scale.metric, scale.area, cap, *place)
    large = cap + 1 if every else cap
    pairs, lengths = _borders(labels, areas, scale.metric, scale.length, large, window.col - 1, window.row - 1)
    sides = tuple(side.copy() for side in (labels[0], labels[-1], labels[:, 0], labels[:, -1]))
    return _Part(kinds, areas, firsts, pairs, lengths, sides)


def _met(one: NDArray[np.int32], two: NDArray[np.int32]) -> NDArray[np.int32]:
    """(pairs, 2) pieces that are the same, of those along a seam."""
    new = np.append(True, (one[1:] != one[:-1]) | (two[1:] != two[:-1]))
    return np.column_stack([one[new], two[new]])


@jit
def _painted(labels: Any, table: Any) -> Any:
    codes = np.empty(labels.shape, np.uint8)
    for row in range(labels.shape[0]):
        for col in range(labels.shape[1]):
            codes[row, col] = table[labels[row, col] - 1]
    return codes


@jit
def _unite(owners: Any, same: Any) -> None:
    """Pieces that are the same have one owner."""
    for pair in range(same.shape[0]):
        union(owners, same[pair, 0], same[pair, 1])
    for one in range(owners.size):
        owners[one] = find(owners, one)


@jit
def _pool(owners: Any, areas: Any, firsts: Any, cap: Any) -> None:
    """Owners have the areas and the first pixels of all that is theirs."""
    for one in range(owners.size):
        owner = owners[one]
        if owner != one:
            areas[owner] = min(cap, areas[owner] + areas[one])
            firsts[owner] = min(firsts[owner], firsts[one])


@jit
def _measure(
    labels: Any, count: Any, codes: Any, metric: Any, scale: Any, cap: Any, left: Any, top: Any, width: Any, height: Any
) -> Any:
    """Codes, areas and first pixels. What overlaps counts for no area; a pixel of unknown area is a large one."""
    kinds, areas, firsts = np.empty(count, np.uint8), np.zeros(count, np.int64), np.full(count, -1, np.int64)
    for row in range(labels.shape[0]):
        for col in range(labels.shape[1]):
            one = labels[row, col] - 1
            if firsts[one] < 0:
                kinds[one] = codes[row, col]
                firsts[one] = (top + row + 1) * (width + 2) + left + col + 1
            if row > 0 and col > 0 and top + row < height and left + col < width and areas[one] < cap:
                area = pixel_area(metric, left + col + 0.5, top + row + 0.5) * scale
                areas[one] = min(cap, areas[one] + int(area + 0.5)) if area < cap else cap
    return kinds, areas, firsts


@jit
def _borders(labels: Any, areas: Any, metric: Any, scale: Any, large: Any, left: Any, top: Any) -> Any:
    """Pairs of labels that share sides, and how long these are, as at the knot before; none of two large ones."""
    # neighbours make a planar graph, which has fewer than three edges a node
    room = 8
    while room < 6 * areas.size:
        room *= 2
    places = np.full(room, -1, np.int32)
    pairs, lengths = np.empty((3 * areas.size, 2), np.int32), np.empty(3 * areas.size, np.int64)
    count = 0
    for row in range(1, labels.shape[0]):
        for col in range(1, labels.shape[1]):
            one = labels[row, col]
            if labels[row, col - 1] == one and labels[row - 1, col] == one:
                continue
            for down in range(2):
                two = labels[row - down, col - 1 + down]
                if one == two or (areas[one - 1] >= large and areas[two - 1] >= large):
                    continue
                low, high = min(one, two), max(one, two)
                slot = ((low * 0x9E3779B1 + high * 0x85EBCA6B) >> 16) & (room - 1)
                while places[slot] >= 0 and (pairs[places[slot], 0] != low or pairs[places[slot], 1] != high):
                    slot = (slot + 1) & (room - 1)
                at = places[slot]
                if at < 0:
                    at = places[slot] = count
                    pairs[at, 0], pairs[at, 1], lengths[at] = low, high, 0
                    count += 1
                knot = (top + row) // metric.step, (left + col) // metric.step
                length = scale * math.sqrt(metric.across[knot] if down else metric.along[knot])
                lengths[at] += int(length + 0.5) if length >= 0 else 0  # of unknown length
    return pairs[:count].copy(), lengths[:count].copy()
