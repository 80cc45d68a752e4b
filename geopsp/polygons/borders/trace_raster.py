"""A raster traced cell by cell, in threads, and put together: finished features as they come."""

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
from geopsp.polygons.borders.trace_cell import EVERY, CellGrid, OpenRegions, Shape, trace_cell
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.confidence import Confidence
from geopsp.polygons.features import Features
from geopsp.polygons.ground_metric import GroundMetric

CELL = 1024
"""Pixels on a side of a cell. Polygons do not depend on it."""


T = TypeVar("T")


IN_FLIGHT = 4
"""Cells for each thread that are begun or wait to be taken."""


def trace_raster(
    codes: ClassRaster,
    metric: GroundMetric,
    finish: Callable[[Features], T],
    *,
    connectivity: int = 4,
    wanted: NDArray[np.bool_] = EVERY,
    shape: Shape | None = None,
    least: float = 0.0,
    smooth: int = 0,
    confidence: Confidence | None = None,
    cell: int = CELL,
    threads: int | None = None,
    progress: Progress | None = None,
) -> Generator[T]:
    """What `finish` makes of all polygons of a raster, some features at a time.

    A feature is there once the cells that it lies in are done. Those inside of one cell come first, in the order of
    their first pixels, then those that end in its row of cells.

    Args:
        metric: Of its grid.
        finish: Called in a thread.
        connectivity: 4, or 8: pixels of one code that touch at corners belong to one feature.
        wanted: (256,) True for the codes whose features are made.
        shape: Simplifies the arcs of each cell.
        least: In square pixels: where it leaves a corner at a seam whose triangle is smaller, that goes.
        smooth: Rounds of smoothing.
        confidence: Of the same grid.
        cell: Pixels on a side.
        threads: None: as many as there are cores.
        progress: Told of cells.

    Raises:
        RasterError: if the raster is damaged, or holds other values than codes.
    """
    lattice = CellGrid(codes.grid.width, codes.grid.height, cell)
    seams = CellStitcher(lattice, connectivity=connectivity, wanted=wanted, least=least, smooth=smooth)
    count = threads or cpu_count()

    def work(window: Window) -> tuple[T, OpenRegions]:
        around = Window(window.col - 1, window.row - 1, window.width + 2, window.height + 2)
        shares = None if confidence is None else confidence.read(window)
        features, piece = trace_cell(
            codes.read(around), window, lattice, metric,
            connectivity=connectivity, wanted=wanted, shares=shares, shape=shape, smooth=smooth,
        )  # fmt: skip
        return finish(features), piece

    rows, done = lattice.rows(), 0
    with (
        ThreadPoolExecutor(count) as pool,
        closing(map_ordered(pool, work, chain(*rows), in_flight=IN_FLIGHT * count)) as cells,
    ):
        for row in rows:
            pieces = []
            for found, piece in islice(cells, len(row)):
                yield found
                pieces.append(piece)
                done += 1
                if progress:
                    progress(done, len(rows) * len(row))
            yield pool.submit(finish, seams.add_row(pieces)).result()
