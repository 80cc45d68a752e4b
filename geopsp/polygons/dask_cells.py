"""Cells of a raster, traced by the workers of a Dask cluster.

What tracing needs travels as the result of one task, on which all others depend: a worker that lacks it gets it from
another one, and if it is lost with its worker it is made again. A task is a few cells. Their polygons and open regions
come back in the order of the cells, and this process joins them across the seams.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from functools import lru_cache
from itertools import chain
from typing import Any, TypeVar

from geopsp.cluster.client import num_threads
from geopsp.cluster.order import Order, order_in_memory
from geopsp.cluster.tasks import TaskWords, run_in_order
from geopsp.cluster.workers import check_workers, require_same, require_visible
from geopsp.core.grid import Window
from geopsp.core.paths import file_fingerprint

Traced = TypeVar("Traced")

TASKS_PER_THREAD = 8
"""Tasks for each thread of the cluster, at least, if there are enough cells."""


MAX_CELLS = 4
"""Cells of a task; more would save no time, and take memory where there are many polygons."""


PACKAGES = ("numpy", "numba", "pyproj", "pyarrow")
"""Packages on whose version polygons may depend."""


CONSEQUENCE = "the last digits of coordinates and areas may differ from those made here"
"""Of another version of a package."""


@dataclass(frozen=True, slots=True, eq=False)
class TracingJob:
    """All that workers need to trace cells."""

    trace: Callable[[Window], Any]
    close: Callable[[], None]
    """Closes the class raster until the next read."""

    files: tuple[str, ...]
    """Paths of the rasters that are read."""

    fingerprint: tuple[str, ...]
    """Of these files."""


def trace_on_cluster(
    trace: Callable[[Window], Traced],
    cells: Sequence[Window],
    *,
    client: Any,
    files: Sequence[str],
    close: Callable[[], None],
) -> Generator[Traced]:
    """Yield `trace(cell)` of each cell, in their order.

    Args:
        trace: Traces a cell; can be sent to other processes.
        cells: All cells.
        client: Of a Dask cluster.
        files: Paths of the rasters that are read.
        close: Closes the class raster, which `trace` opens again: a temporary one is deleted in the end.

    Raises:
        OptionError: if workers have another version of geopsp, if cells kill one worker after the other, or if the
            scheduler is gone.
        InputNotFoundError, RasterError: if a worker does not see the rasters, or cannot read them.
    """
    order = order_in_memory(TracingJob(trace, close, tuple(files), _fingerprint(files)))
    key = f"geopsp-{secrets.token_hex(16)}"
    sent = client.submit(Order, order.digest, order.version, content=order.content, key=key)
    check_workers(client, _check_job, order, packages=PACKAGES, consequence=CONSEQUENCE)
    size = max(1, min(MAX_CELLS, len(cells) // max(1, TASKS_PER_THREAD * num_threads(client))))
    groups = [cells[at : at + size] for at in range(0, len(cells), size)]
    words = TaskWords(
        describe=lambda number: _describe(groups[number]),
        kind="cell",
        remedy="",
        left="Nothing was written.",
    )
    with closing(run_in_order(client, _trace, groups, sent, words=words)) as results:
        yield from chain.from_iterable(results)


def _describe(cells: Sequence[Window]) -> str:
    first = cells[0]
    more = f" and {len(cells) - 1} more" if len(cells) > 1 else ""
    return f"the cell of {first.width} x {first.height} pixels at column {first.col}, row {first.row}{more}"


def _fingerprint(files: Sequence[str]) -> tuple[str, ...]:
    return tuple(line for file in files for line in file_fingerprint(file, ""))


def _trace(cells: Sequence[Window], order: Order) -> list[Any]:
    """Run on a worker: trace cells."""
    job = _open_job(order)
    try:
        return list(map(job.trace, cells))
    finally:
        job.close()


def _check_job(order: Order) -> None:
    """Run on a worker: check that it can trace cells."""
    _open_job(order)


@lru_cache(maxsize=2)
def _open_job(order: Order) -> TracingJob:
    """Run on a worker: unpack the job, and check that its rasters are there.

    Raises:
        OptionError, InputNotFoundError, RasterError: if not.
    """
    job: TracingJob = order.open("polygons")
    require_visible("raster", job.files)
    require_same("a raster", _fingerprint(job.files), job.fingerprint)
    return job
