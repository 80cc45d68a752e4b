"""Two maps on one grid, read as one raster of changes; areas of all pairs of classes."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geopsp.assessment.change.change_codes import ChangeCodes
from geopsp.assessment.change.map_on_grid import MapOnGrid
from geopsp.assessment.joint_classes import JointClasses
from geopsp.core.disk_array import ScratchArrays
from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.output import write_errors
from geopsp.core.parallel import cpu_count, map_ordered
from geopsp.core.progress import Progress
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.ground_metric import GroundMetric
from geopsp.polygons.regions.cell_graph import IntegerUnits
from geopsp.polygons.regions.clean import write_codes
from geopsp.polygons.regions.region_graph import GRAPH_CELL, apply_codes, build_region_graph
from geopsp.polygons.zonal_stats import AREA, NUM_PIXELS, zonal_sums

TALLY_BLOCK = 1024
"""Width and height, in pixels, of what is counted at a time."""

Sums = NDArray[np.float64]
"""(classes + 1, classes + 1, 2) pixels and m2 by class before and class after; the last of each is nodata."""


@dataclass(frozen=True, slots=True, eq=False)
class MapPair:
    """Two maps on one grid, as positions of joint classes. Several threads may read it."""

    maps: tuple[MapOnGrid, MapOnGrid]
    classes: JointClasses
    grid: Grid
    metric: GroundMetric

    def read(self, window: Window) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
        """Return (rows, cols) classes of both maps in a window; IGNORE_INDEX for nodata."""
        one, other = (table[each.read(window)] for each, table in zip(self.maps, self.classes.tables, strict=True))
        return one, other

    def sums(self, one: NDArray[np.uint8], other: NDArray[np.uint8], window: Window) -> Sums:
        """Return pixels and areas of the pairs of classes in a window."""
        count = len(self.classes) + 1
        first, second = (np.minimum(each, count - 1).astype(np.int32) for each in (one, other))
        labels = first * np.int32(count) + second + np.int32(1)
        found = zonal_sums(labels, count**2, np.empty((0, 0), np.uint8), None, self.metric, window)
        return found[:, [NUM_PIXELS, AREA]].reshape(count, count, 2)

    def tally(self, progress: Progress | None = None) -> Sums:
        """Return the sums of the whole grid, read in blocks by several threads."""
        blocks, total = list(self.grid.blocks(TALLY_BLOCK)), np.zeros((len(self.classes) + 1,) * 2 + (2,))
        with (
            ThreadPoolExecutor(cpu_count()) as pool,
            closing(map_ordered(pool, self._block_sums, blocks, in_flight=4 * cpu_count())) as parts,
        ):
            for done, sums in enumerate(parts, 1):
                total += sums
                if progress:
                    progress(done, len(blocks))
        return total

    def _block_sums(self, window: Window) -> Sums:
        return self.sums(*self.read(window), window)


@dataclass(frozen=True, slots=True, eq=False)
class ChangeRaster:
    """The codes of changes; unchanged ground and nodata are 255. Several threads may read it."""

    pair: MapPair
    codes: ChangeCodes

    @property
    def grid(self) -> Grid:
        return self.pair.grid

    def read(self, window: Window) -> NDArray[np.uint8]:
        """Return (rows, cols) codes of the changes in a window, which may extend beyond the grid."""
        found = np.full((window.height, window.width), IGNORE_INDEX, np.uint8)
        inside = window.intersect(self.grid.full_window)
        if not inside.is_empty:
            codes = look_up(self.codes.lookup, *self.pair.read(inside))
            found[inside.slices(window)] = np.where(self.codes.is_change[codes], codes, np.uint8(IGNORE_INDEX))
        return found


def look_up(lookup: NDArray[np.uint8], one: NDArray[np.uint8], other: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return the code of each pair of classes."""
    pairs = one.astype(np.uint16)
    pairs <<= np.uint16(8)
    pairs |= other
    codes: NDArray[np.uint8] = np.take(lookup, pairs)
    return codes


def large_changes(
    raster: ChangeRaster, min_area: float, path: Path, *, cell_size: int = GRAPH_CELL, progress: Progress | None = None
) -> ClassRaster:
    """Write the changes without regions smaller than `min_area`, and return them.

    Regions are 4-connected pixels of one code. It takes about 75 bytes per region of changed or of unchanged ground, on
    the disk if there are many; the result does not depend on the cells.

    Args:
        raster: The changes.
        min_area: In m2.
        path: The file to write.
        cell_size: Width and height of the cells that are read at once, in pixels.
        progress: Called after each cell; the raster is read twice.

    Raises:
        RasterError: if a map cannot be read, or there are too many regions.
        OutputError: if the file cannot be written.
    """
    units = IntegerUnits.from_metric(raster.pair.metric)
    smallest = units.to_units(min_area)
    on_cell = _counter(progress, 2 * len(list(raster.grid.blocks(cell_size))))
    with write_errors(path):
        graph = build_region_graph(
            raster, units, max_area=smallest, all_borders=False, cell_size=cell_size,
            arrays=ScratchArrays(path.parent), on_cell=on_cell,
        )  # fmt: skip
    graph.erase_small(smallest)
    with closing(apply_codes(raster, graph, cell_size=cell_size)) as cells:
        write_codes(path, raster.grid, cells, on_cell)
    return ClassRaster(path, raster.grid, np.dtype(np.uint8), IGNORE_INDEX, has_mask=False)


def _counter(progress: Progress | None, total: int) -> Callable[[], None]:
    """Return a function that counts steps."""
    done = 0

    def count() -> None:
        nonlocal done
        done += 1
        if progress:
            progress(done, total)

    return count
