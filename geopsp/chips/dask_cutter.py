"""Chips cut by the workers of a Dask cluster, numbered and put together as one process would.

Images, labels and options lie in a temporary folder inside that of the export, as a file that each worker reads once. A
task is a run of rows (`dask_rows`), whose chips the worker writes into a folder of its own. This process numbers the
chips, in the order of the rows, and moves their files to their places. A worker that dies leaves only its own folder
behind, which is removed in the end.
"""

from __future__ import annotations

import math
import os
import re
import shutil
from collections.abc import Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, replace
from itertools import count, groupby
from pathlib import Path
from typing import Any

from geopsp.chips.chip_files import Kind
from geopsp.chips.cutter import ChipRow
from geopsp.chips.dask_rows import CutChips, CuttingJob, cut_batch, cut_rows, open_job
from geopsp.chips.journal import CHIP_FILES
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipSpec
from geopsp.chips.random_chips import (
    DRAWS_PER_BATCH,
    RandomChipSampler,
    batches_to_draw,
    choose_new,
    missing_chips,
    num_batches,
)
from geopsp.chips.results import ExportTotals, Position, RowResult
from geopsp.cluster.client import num_threads
from geopsp.cluster.order import Order, order_file
from geopsp.cluster.tasks import TaskWords, run_in_order
from geopsp.cluster.workers import check_workers
from geopsp.core.bands import BandStats
from geopsp.core.output import write_errors
from geopsp.core.owned_files import unfinished_name

STAGING = "cut"
"""What the temporary folder is for, in its name."""


RUNS_PER_THREAD = 8
"""Runs of rows for each thread of the cluster, at least, if there are enough rows."""


MAX_CHIPS = 1000
"""Chips of a run of rows, unless a row or a row of blocks has more."""


MAX_ROWS_PER_BLOCK = 8
"""Rows of chips up to which a run covers whole rows of blocks, so that no block is read for two runs."""


MOVING_THREADS = 8
"""Files that are moved at a time; on a shared disk each takes a while."""


FILES_PER_MOVE = 64
"""Files that a thread moves one after the other, at least."""


NUMBER = re.compile(r"\d+")
"""With which the name of a file begins."""


PACKAGES = ("numpy", "rasterio", "shapely", "pyproj")
"""Packages on whose version chips may depend."""


CONSEQUENCE = "chips may differ from those that are cut here"
"""Of another version of a package."""


@contextmanager
def cutting_on_cluster(
    inputs: LabelledScenes,
    spec: ChipSpec,
    totals: ExportTotals,
    *,
    client: Any,
    folder: Path,
    kind: Kind,
    first: int = 0,
) -> Iterator[ClusterCutter]:
    """Yield a cutter that has the client's workers cut chips; they come to the same files as those of this process.

    Args:
        inputs: Images and labels.
        spec: Which chips are cut.
        totals: The results of rows that are done, to which the others are added.
        client: Of a Dask cluster.
        folder: Of the export, with its subfolders.
        kind: Format of the files.
        first: The number of the first chip of the export.

    Raises:
        OptionError, OutputError, InputNotFoundError, RasterError: if a worker has another version of geopsp, or does
            not see the folder, the images or the labels.
    """
    staging = folder.absolute() / unfinished_name(STAGING)
    with write_errors(folder):
        staging.mkdir()
    try:
        job = CuttingJob(inputs, spec, kind, staging, tuple(inputs.fingerprint_of_files()))
        with (
            ThreadPoolExecutor(MOVING_THREADS) as pool,
            write_errors(folder),
            order_file(job, staging / "order") as order,
        ):
            check_workers(client, open_job, order, packages=PACKAGES, consequence=CONSEQUENCE)
            yield ClusterCutter(client, job, order, totals, folder, first, pool)
    finally:
        _remove(staging)


def _remove(staging: Path) -> None:
    """Remove the temporary folder; under another name first, as tasks that are cancelled may still write into it."""
    gone = staging.with_name(unfinished_name(STAGING))
    try:
        staging.replace(gone)
    except OSError:
        gone = staging
    shutil.rmtree(gone, ignore_errors=True)


@dataclass(frozen=True, slots=True, eq=False)
class ClusterCutter:
    """Has workers cut chips, and gives their files the names that one process would give them."""

    client: Any
    job: CuttingJob
    order: Order
    totals: ExportTotals
    folder: Path
    first: int
    """The number of the first chip of the export."""

    pool: Executor
    """Moves files."""

    def grid_chips(self, chip_rows: list[ChipRow]) -> Generator[RowResult]:
        """See `Cutter.grid_chips`."""
        runs = split_rows(chip_rows, self.job.inputs, self.job.spec, num_threads(self.client))

        def describe(number: int) -> str:
            top, bottom = runs[number][0], runs[number][-1]
            name = self.job.inputs.scenes[top.scene].name
            return f"the chips of {name} from row {top.row} to row {bottom.row + self.job.spec.tile_size}"

        with closing(run_in_order(self.client, cut_rows, runs, self.order, words=_words(describe))) as results:
            for cut in results:
                chips = sum(result.num_unrotated for result in cut.results)
                self._place(cut, dict(enumerate(range(self._next, self._next + chips))))
                for result in cut.results:
                    self.totals.add(result)
                    yield result

    def random_chips(self) -> Generator[RowResult]:
        """See `Cutter.random_chips`."""
        if not self.job.spec.random_chips:
            return
        sampler = RandomChipSampler(self.totals, self.job.inputs, self.job.spec)
        job, known = replace(self.job, sampler=sampler), self.totals.positions()
        batches = batches_to_draw(self.totals, self.job.spec, sampler)
        numbers = count(num_batches(self.totals))
        words = _words(lambda number: f"batch {number} of the random chips")
        with (
            order_file(job, self.job.staging / "order-random") as order,
            closing(run_in_order(self.client, cut_batch, numbers, order, words=words)) as results,
        ):
            for _, cut in zip(batches, results, strict=False):  # batches first: the end needs no more results
                yield self._choose(cut, known)

    @property
    def _next(self) -> int:
        """The number of the next chip."""
        return self.first + self.totals.num_unrotated

    def _choose(self, cut: CutChips, known: set[Position]) -> RowResult:
        """Take the random chips of a batch that are new, as many as are missing, and add them to the totals."""
        chosen = choose_new(cut.positions, known, missing_chips(self.totals, self.job.spec))
        known.update(cut.positions[at] for at in chosen)
        self._place(cut, {at: self._next + number for number, at in enumerate(chosen)})
        result = RowResult(BandStats.empty(len(self.job.inputs.scenes[0].bands)))
        result.counts.update(draws=DRAWS_PER_BATCH, random_chips=len(chosen))
        for written in (cut.results[at] for at in chosen):
            result.add(written)
        self.totals.add(result)
        return result

    def _place(self, cut: CutChips, numbers: Mapping[int, int]) -> None:
        """Give the chips of a task their numbers: move their files and rename them in the index; remove the others."""
        own = self.job.staging / cut.folder
        moves = [
            (f"{own}/{part}/{name}", f"{self.folder}/{part}/{_renamed(name, numbers)}")
            for part, names in cut.files.items()
            for name in names
            if _number(name) in numbers
        ]
        size = max(FILES_PER_MOVE, -(-len(moves) // MOVING_THREADS))
        for moved in [self.pool.submit(_move, moves[at : at + size]) for at in range(0, len(moves), size)]:
            moved.result()
        shutil.rmtree(own, ignore_errors=True)
        for row in (row for result in cut.results for row in result.rows):
            if row["chip"] is not None and _number(row["chip"]) in numbers:
                row |= {name: _renamed(row[name], numbers) for _, name in CHIP_FILES}


def _move(moves: Iterable[tuple[str, str]]) -> None:
    """Move files, one after the other, from one path to another."""
    for source, target in moves:
        os.replace(source, target)  # noqa: PTH105 (of strings: a path object costs more than the move)


def _number(name: str) -> int:
    """Return the number with which the name of a file begins."""
    return int(NUMBER.match(name)[0])  # type: ignore[index]


def _renamed(name: str, numbers: Mapping[int, int]) -> str:
    """Return the name of a file with the number that its chip gets."""
    digits = NUMBER.match(name)[0]  # type: ignore[index]
    return f"{numbers[int(digits)]:06d}{name[len(digits) :]}"


def _words(describe: Any) -> TaskWords:
    left = "The chips cut so far are kept, and the same command resumes from them."
    return TaskWords(describe, kind="row", remedy="", left=left)


def split_rows(
    chip_rows: Sequence[ChipRow], inputs: LabelledScenes, spec: ChipSpec, threads: int
) -> list[list[ChipRow]]:
    """Split rows of chips into runs within column strips; chips do not depend on it.

    Args:
        chip_rows: As `cutter.plan` returns them.
        inputs: Images and labels.
        spec: Which chips are cut.
        threads: Of the cluster.
    """
    fair = len(chip_rows) // max(1, RUNS_PER_THREAD * threads)
    return list(_split_strips(chip_rows, inputs, spec, fair))


def _split_strips(
    chip_rows: Iterable[ChipRow], inputs: LabelledScenes, spec: ChipSpec, fair: int
) -> Iterator[list[ChipRow]]:
    for (scene, columns), found in groupby(chip_rows, key=lambda chip_row: (chip_row.scene, chip_row.columns)):
        rows, block = list(found), inputs.scenes[scene].block_shape[0]
        length = max(1, min(fair, MAX_CHIPS // len(columns)))
        per_block = math.lcm(block, spec.step) // spec.step
        if per_block <= MAX_ROWS_PER_BLOCK:
            length = per_block * math.ceil(length / per_block)
        yield from (rows[at : at + length] for at in range(0, len(rows), length))
