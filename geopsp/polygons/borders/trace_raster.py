"""Trace a raster cell by cell, in threads; yield features as they are finished."""

from __future__ import annotations

from collections.abc import Callable, Generator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from itertools import chain, islice
from typing import TypeVar

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
        progress: Called after each cell.

    Raises:
        RasterError: if the raster is damaged, or contains values that are not codes.
    """
    grid = CellGrid(raster.grid.width, raster.grid.height, cell_size)
    stitcher = CellStitcher(
        grid, connectivity=connectivity, selected=selected, min_triangle=min_triangle, smooth=smooth
    )
    count = threads or cpu_count()

    def trace(window: Window) -> tuple[Result, OpenRegions]:
        around = Window(window.col - 1, window.row - 1, window.width + 2, window.height + 2)
        values = None if confidence is None else confidence.read(window)
        features, open_regions = trace_cell(
            raster.read(around),
            window,
            grid,
            metric,
            connectivity=connectivity,
            selected=selected,
            confidence=values,
            min_triangle=min_triangle(window) if min_triangle else 0.0,
            smooth=smooth,
        )
        return finish(features), open_regions

    rows, done = grid.rows(), 0
    with (
        ThreadPoolExecutor(count) as pool,
        closing(map_ordered(pool, trace, chain(*rows), in_flight=IN_FLIGHT * count)) as cells,
    ):
        for row in rows:
            row_regions = []
            for finished, open_regions in islice(cells, len(row)):
                yield finished
                row_regions.append(open_regions)
                done += 1
                if progress:
                    progress(done, len(rows) * len(row))
            yield pool.submit(finish, stitcher.add_row(row_regions)).result()
