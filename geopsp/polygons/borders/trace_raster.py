"""Trace a raster cell by cell, in threads; yield features as they are finished."""

from __future__ import annotations

from collections.abc import Callable, Generator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from itertools import chain, islice
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Window
from geopsp.core.parallel import cpu_count, map_ordered
from geopsp.core.progress import Progress
from geopsp.polygons.borders.stitch import CellStitcher
from geopsp.polygons.borders.trace_cell import ALL_CODES, CellGrid, OpenRegions, trace_cell
from geopsp.polygons.class_raster import CodeSource
from geopsp.polygons.confidence import ConfidenceSource
from geopsp.polygons.features import Features
from geopsp.polygons.ground_metric import GroundMetric

TRACE_CELL = 1024
"""Width and height of a cell, in pixels. Polygons do not depend on it."""


IN_FLIGHT = 4
"""Cells per thread that are in work or wait to be taken."""


Result = TypeVar("Result")


MinTriangle = Callable[[Window], float]
"""Returns for a window how large a triangle must be, in square pixels, for its vertex to stay."""


class MapCells(Protocol):
    """Calls a function for cells, wherever that may be."""

    def __call__(self, trace: Callable[[Window], Any], cells: Sequence[Window], /) -> Generator[Any]:
        """Yield `trace(cell)` of each cell, in their order."""


@dataclass(frozen=True, slots=True, eq=False)
class CellTracer(Generic[Result]):
    """Traces a cell; the arguments are those of `trace_raster`."""

    raster: CodeSource
    metric: GroundMetric
    finish: Callable[[Features], Result]
    grid: CellGrid
    connectivity: int
    selected: NDArray[np.bool_]
    min_triangle: MinTriangle | None
    smooth: int
    confidence: ConfidenceSource | None

    def __call__(self, window: Window) -> tuple[Result, OpenRegions]:
        """Return the finished features of a cell, and its open regions."""
        around = Window(window.col - 1, window.row - 1, window.width + 2, window.height + 2)
        features, open_regions = trace_cell(
            self.raster.read(around),
            window,
            self.grid,
            self.metric,
            connectivity=self.connectivity,
            selected=self.selected,
            confidence=None if self.confidence is None else self.confidence.read(window),
            min_triangle=self.min_triangle(window) if self.min_triangle else 0.0,
            smooth=self.smooth,
        )
        return self.finish(features), open_regions


def trace_raster(
    raster: CodeSource,
    metric: GroundMetric,
    finish: Callable[[Features], Result],
    *,
    connectivity: int = 4,
    selected: NDArray[np.bool_] = ALL_CODES,
    min_triangle: MinTriangle | None = None,
    smooth: int = 0,
    confidence: ConfidenceSource | None = None,
    cell_size: int = TRACE_CELL,
    threads: int | None = None,
    map_cells: MapCells | None = None,
    progress: Progress | None = None,
) -> Generator[Result]:
    """Yield `finish(features)` of all features of a raster, some features at a time.

    A feature comes once all its cells are traced: for each row of cells, first the features inside of one cell, in the
    order of their first pixels, then those that end in this row.

    Args:
        raster: Class codes.
        metric: Pixel sizes of its grid.
        finish: Called in a thread.
        connectivity: 4, or 8: pixels of one code that touch at corners belong to one feature.
        selected: (256,) True for codes that become features.
        min_triangle: How large triangles must be for their vertices to stay, in cells and on their seams. None: nothing
            is simplified.
        smooth: Rounds of smoothing.
        confidence: A raster on the same grid.
        cell_size: In pixels.
        threads: None: one per core.
        map_cells: Traces the cells elsewhere; None: threads of this process do.
        progress: Called after each cell.

    Raises:
        RasterError: if the raster is damaged, or contains values that are not codes.
    """
    grid = CellGrid(raster.grid.width, raster.grid.height, cell_size)
    stitcher = CellStitcher(
        grid, connectivity=connectivity, selected=selected, min_triangle=min_triangle, smooth=smooth
    )
    tracer = CellTracer(raster, metric, finish, grid, connectivity, selected, min_triangle, smooth, confidence)
    count, rows, done = threads or cpu_count(), grid.rows(), 0
    with ThreadPoolExecutor(count) as pool:
        in_threads = partial(map_ordered, pool, in_flight=IN_FLIGHT * count)
        with closing((map_cells or in_threads)(tracer, list(chain(*rows)))) as cells:
            for row in rows:
                row_regions = []
                for finished, open_regions in islice(cells, len(row)):
                    yield finished
                    row_regions.append(open_regions)
                    done += 1
                    if progress:
                        progress(done, len(rows) * len(row))
                yield pool.submit(finish, stitcher.add_row(row_regions)).result()
