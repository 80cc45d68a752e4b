"""Rows of chips, and batches of random chips, cut by a worker of a Dask cluster (`dask_cutter`)."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import rasterio

from geopsp.chips.chip import Chip
from geopsp.chips.chip_files import Kind, write_chip
from geopsp.chips.cutter import GDAL_CACHE_BYTES, ChipCutter, ChipRow
from geopsp.chips.journal import CHIP_FILES
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipSpec
from geopsp.chips.random_chips import RandomChipSampler, draws_of
from geopsp.chips.results import ExportTotals, Position, RowResult
from geopsp.cluster.order import Order
from geopsp.cluster.workers import require_same, require_visible
from geopsp.core.output import write_errors
from geopsp.errors import OutputError

FOLDERS = tuple(f"{kind}s" for kind, _ in CHIP_FILES)
"""Subfolders of chips."""


@dataclass(frozen=True, slots=True, eq=False)
class CuttingJob:
    """All that workers need to cut chips."""

    inputs: LabelledScenes
    spec: ChipSpec
    kind: Kind
    staging: Path
    """The temporary folder, in which each task makes its own."""

    fingerprint: tuple[str, ...]
    """Of the files that are read."""

    sampler: RandomChipSampler | None = None
    """Draws random chips, once the chips of the grid are known."""


@dataclass(frozen=True, slots=True, eq=False)
class CutChips:
    """What a task cut: chips 0, 1, ... in a folder of its own."""

    folder: str
    """Name of the folder."""

    files: dict[str, list[str]]
    """Names of the files by subfolder; each begins with the number of its chip."""

    results: list[RowResult]
    """Of each row; of each chip if they are random."""

    positions: list[Position] = field(default_factory=list)
    """Of each chip if they are random."""


def cut_rows(chip_rows: list[ChipRow], order: Order) -> CutChips:
    """Run on a worker: cut the chips of rows that follow each other down a column strip."""
    with _cutter(order) as (cutter, folder, _):
        results = list(cutter.grid_chips(chip_rows))
        return CutChips(folder.name, _list_files(folder), results)


def cut_batch(batch: int, order: Order) -> CutChips:
    """Run on a worker: draw a batch of random chips, and cut those that are worth keeping."""
    with _cutter(order) as (cutter, folder, sampler):
        assert sampler is not None
        drawn = [chip for chip in map(sampler.draw, draws_of(batch)) if chip is not None]
        results = [cutter.write(f"{number:06d}", chip) for number, chip in enumerate(drawn)]
        return CutChips(folder.name, _list_files(folder), results, [chip.position for chip in drawn])


@contextmanager
def _cutter(order: Order) -> Iterator[tuple[ChipCutter, Path, RandomChipSampler | None]]:
    """Yield a cutter, the new folder into which it writes, and what draws random chips.

    Raises:
        OutputError: if the job's file is gone: the folder may be another export's by now.
    """
    job = open_job(order)
    if order.is_withdrawn:
        raise OutputError(f"The export was cancelled: {order.path} is gone. Repeat the same command.")
    folder = job.staging / secrets.token_hex(8)
    with write_errors(folder):
        for new in (folder, *(folder / name for name in FOLDERS)):
            new.mkdir()

    def write(stem: str, chip: Chip) -> tuple[str, str]:
        return write_chip(folder, stem, chip, job.inputs.legend, job.kind)

    with ThreadPoolExecutor(1) as pool, rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
        totals = ExportTotals.empty(job.inputs)
        yield ChipCutter(job.inputs, job.spec, totals, pool, write=write), folder, job.sampler


@lru_cache(maxsize=2)
def open_job(order: Order) -> CuttingJob:
    """Run on a worker: read the job, and check that its folder, images and labels are there.

    Raises:
        OptionError, OutputError, InputNotFoundError, RasterError: if not.
    """
    job: CuttingJob = order.open("chip folder")
    images, labels = job.inputs.files_read()
    require_visible("image", images)
    require_visible("label file", labels)
    require_same("an image, labels or an area of interest", job.inputs.fingerprint_of_files(), job.fingerprint)
    return job


def _list_files(folder: Path) -> dict[str, list[str]]:
    return {name: sorted(path.name for path in (folder / name).iterdir()) for name in FOLDERS}
