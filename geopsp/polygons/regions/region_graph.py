"""The region adjacency graph of a class raster of any size: areas of the regions, lengths of their shared borders.

Nodata pixels form regions too; one of these surrounds the raster. The raster is read in cells that overlap by one
pixel. Regions of two cells that share a pixel are joined. Areas and lengths are sums of integers, so the result does
not depend on the order of the sums, and therefore not on the cells. Where there are many regions, their tables lie in
files, and are worked on in the order of the regions, which is nearly that of their places.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, replace
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from geopsp.core.connected_regions import label_regions, unite_pairs
from geopsp.core.disk_array import GrowingArray, ScratchArrays
from geopsp.core.grid import Window
from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.parallel import cpu_count, map_ordered
from geopsp.errors import RasterError
from geopsp.polygons.class_raster import CodeSource
from geopsp.polygons.regions.cell_graph import NO_NODATA, IntegerUnits, cell_graph, read_with_overlap

GRAPH_CELL = 2048
"""Width and height of a cell, in pixels."""


MAX_REGIONS = 2**31 - 1
"""Regions of all cells whose numbers fit into the tables."""


COLUMNS = {"codes": np.uint8, "areas": np.int64, "first_pixels": np.int64, "pairs": np.int32, "lengths": np.int64}
"""The arrays of a cell's graph that are concatenated."""


Item = TypeVar("Item")


Result = TypeVar("Result")


@dataclass(frozen=True, slots=True, eq=False)
class RegionGraph:
    """Regions and their shared borders. It takes about 75 bytes per region, on the disk if there are many."""

    codes: NDArray[np.uint8]
    """(regions,)"""

    areas: NDArray[np.int64]
    """(regions,) in units; limited to `max_area`."""

    first_pixels: NDArray[np.int64]
    """(regions,) number of the first pixel, counted row by row over the raster with a border of one pixel; the first
    region, which surrounds the raster, has the first pixel."""

    pairs: NDArray[np.int32]
    """(borders, 2) indices of two adjacent regions; a pair may occur more than once."""

    lengths: NDArray[np.int64]
    """(borders,) in units."""

    owners: NDArray[np.int32]
    """(regions of cells,) index of the region that each region of a cell belongs to."""

    cell_starts: NDArray[np.int64]
    """(cells + 1,) start of each cell in `owners`, and the end."""

    max_area: int

    arrays: ScratchArrays
    """Makes tables of regions and borders."""

    def merge(self, owners: NDArray[np.int32]) -> RegionGraph:
        """Merge each region into `owners[region]`; a region that stays is its own owner, and owners stay.

        The arrays of this graph become those of the new one, and `owners` are overwritten.
        """
        count, kept, borders = self.codes.size, 0, 0
        for start, stop in self.arrays.chunks(count):
            _add_to_owners(owners, self.areas, self.first_pixels, self.max_area, start, stop)
        for start, stop in self.arrays.chunks(count):
            kept = _keep_owners(owners, self.codes, self.areas, self.first_pixels, kept, start, stop)
        for start, stop in self.arrays.chunks(count):
            _number_others(owners, start, stop)
        for start, stop in self.arrays.chunks(self.lengths.size):
            borders = _keep_borders(owners, self.pairs, self.lengths, borders, start, stop)
        for start, stop in self.arrays.chunks(self.owners.size):
            _renumber(self.owners, owners, start, stop)
        return replace(
            self, codes=self.codes[:kept], areas=self.areas[:kept], first_pixels=self.first_pixels[:kept],
            pairs=self.pairs[:borders], lengths=self.lengths[:borders],
        )  # fmt: skip

    def erase_small(self, min_area: int) -> None:
        """Give regions smaller than `min_area`, in units, the code of nodata."""
        for start, stop in self.arrays.chunks(self.codes.size):
            self.codes[start:stop][self.areas[start:stop] < min_area] = IGNORE_INDEX


def build_region_graph(
    raster: CodeSource,
    units: IntegerUnits,
    *,
    max_area: int,
    all_borders: bool,
    cell_size: int,
    arrays: ScratchArrays,
    on_cell: Callable[[], None] = lambda: None,
) -> RegionGraph:
    """Build the graph of the 4-connected regions of a raster.

    Args:
        raster: Class codes.
        units: Integer units for its pixels.
        max_area: Limit of areas, in units: larger regions count as this large.
        all_borders: False leaves out borders between two regions of a cell that both reach `max_area`.
        cell_size: In pixels.
        arrays: Makes tables of regions and borders.
        on_cell: Called after each cell.

    Raises:
        RasterError: if the raster is damaged, or has too many regions.
        OSError: if the disk is full.
    """
    columns = {name: arrays.growing(dtype, *[2] * (name == "pairs")) for name, dtype in COLUMNS.items()}
    same = arrays.growing(np.int32, 2)
    count, starts = 0, [0]
    above = beside = np.empty(0, np.int32)
    below = np.empty(raster.grid.width + 2, np.int32)
    windows = list(raster.grid.blocks(cell_size))
    cells = _map_cells(
        lambda window: cell_graph(raster, window, units, max_area=max_area, all_borders=all_borders), windows
    )
    with closing(cells):
        for window, cell in zip(windows, cells, strict=True):
            if count + cell.codes.size > MAX_REGIONS:
                raise RasterError(
                    f"The raster has more than {MAX_REGIONS:,} regions, too many to merge small ones or to fill holes. "
                    "Remove regions of few pixels first, e.g. by gdal_sieve.py or `sieve` of a map."
                )
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
            for name, column in columns.items():
                column.append(getattr(cell, name))
            count += cell.codes.size
            starts.append(count)
            on_cell()
    return _join_cells(columns, same, np.array(starts), max_area, arrays)


def _join_cells(
    columns: dict[str, GrowingArray],
    same: GrowingArray,
    cell_starts: NDArray[np.int64],
    max_area: int,
    arrays: ScratchArrays,
) -> RegionGraph:
    """Merge regions of cells that are the same."""
    count = int(cell_starts[-1])
    parent, owners = arrays.zeros(np.int32, count), arrays.zeros(np.int32, count)
    for start, stop in arrays.chunks(count):
        parent[start:stop] = owners[start:stop] = np.arange(start, stop, dtype=np.int32)
    pairs = same.finish()
    for start, stop in arrays.chunks(len(pairs)):
        _unite(parent, pairs[start:stop])
    for start, stop in arrays.chunks(count):
        _flatten(parent, start, stop)
    found: dict[str, Any] = {name: column.finish() for name, column in columns.items()}
    return RegionGraph(**found, owners=owners, cell_starts=cell_starts, max_area=max_area, arrays=arrays).merge(parent)


def apply_codes(
    raster: CodeSource, graph: RegionGraph, *, cell_size: int
) -> Generator[tuple[Window, NDArray[np.uint8]], None, None]:
    """Yield the raster cell by cell, each pixel with the code of its region in the graph."""

    def recode(cell: tuple[Window, int, int]) -> NDArray[np.uint8]:
        window, start, stop = cell
        labels, _ = label_regions(read_with_overlap(raster, window), nodata=NO_NODATA)
        table = graph.codes[graph.owners[start:stop]]
        codes: NDArray[np.uint8] = _look_up(labels[1 : window.height + 1, 1 : window.width + 1], table)
        return codes

    windows, starts = list(raster.grid.blocks(cell_size)), graph.cell_starts.tolist()
    with closing(_map_cells(recode, zip(windows, starts[:-1], starts[1:], strict=True))) as cells:
        for window, codes in zip(windows, cells, strict=True):
            yield window, codes
            graph.arrays.release()


def _map_cells(work: Callable[[Item], Result], cells: Iterable[Item]) -> Generator[Result, None, None]:
    """Yield `work(cell)` of each cell in order, computed in threads."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        yield from map_ordered(pool, work, cells, in_flight=2 * cpu_count())


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


@jit("i4[::1]", "i4[:, ::1]")
def _unite(parent: Any, pairs: Any) -> None:
    unite_pairs(parent, pairs)


@jit("i4[::1]", "i8", "i8")
def _flatten(parent: Any, start: Any, stop: Any) -> None:
    """Let members point to the roots of their sets, which are their smallest members; smaller ones do."""
    for member in range(start, stop):
        parent[member] = parent[parent[member]]


@jit("i4[::1]", "i8[::1]", "i8[::1]", "i8", "i8", "i8")
def _add_to_owners(owners: Any, areas: Any, first_pixels: Any, max_area: Any, start: Any, stop: Any) -> None:
    """Add areas and first pixels of merged regions to their owners'."""
    for region in range(start, stop):
        owner = owners[region]
        if owner != region:
            areas[owner] = min(max_area, areas[owner] + areas[region])
            first_pixels[owner] = min(first_pixels[owner], first_pixels[region])


@jit("i4[::1]", "u1[::1]", "i8[::1]", "i8[::1]", "i8", "i8", "i8")
def _keep_owners(owners: Any, codes: Any, areas: Any, first_pixels: Any, kept: Any, start: Any, stop: Any) -> Any:
    """Move regions that stay to the front; their place in `owners` gets -1 less the new number. Return how many stay.

    Args:
        kept: How many stay of those before.
    """
    for region in range(start, stop):
        if owners[region] == region:
            codes[kept], areas[kept], first_pixels[kept] = codes[region], areas[region], first_pixels[region]
            owners[region] = -1 - kept
            kept += 1
    return kept


@jit("i4[::1]", "i8", "i8")
def _number_others(owners: Any, start: Any, stop: Any) -> None:
    """Give the other regions the numbers of their owners, likewise."""
    for region in range(start, stop):
        if owners[region] >= 0:
            owners[region] = owners[owners[region]]


@jit("i4[::1]", "i4[:, ::1]", "i8[::1]", "i8", "i8", "i8")
def _keep_borders(owners: Any, pairs: Any, lengths: Any, kept: Any, start: Any, stop: Any) -> Any:
    """Renumber the regions of borders, and move the borders of two regions to the front; return how many they are."""
    for border in range(start, stop):
        one, two = -1 - owners[pairs[border, 0]], -1 - owners[pairs[border, 1]]
        if one != two:
            pairs[kept, 0], pairs[kept, 1], lengths[kept] = one, two, lengths[border]
            kept += 1
    return kept


@jit("i4[::1]", "i4[::1]", "i8", "i8")
def _renumber(regions: Any, owners: Any, start: Any, stop: Any) -> None:
    for at in range(start, stop):
        regions[at] = -1 - owners[regions[at]]
