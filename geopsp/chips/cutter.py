"""Cut all chips: rows of chips down each column strip of each scene, then random chips."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from itertools import groupby, pairwise
from typing import Any, Protocol

import numpy as np
import rasterio
from numpy.typing import NDArray

from geopsp.chips.chip import Chip, LabelPatch, chip_windows, count_codes, is_empty, make_chip, skip_reason
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipSpec
from geopsp.chips.random_chips import (
    DRAWS_PER_BATCH,
    RandomChipSampler,
    batches_to_draw,
    choose_new,
    draws_of,
    missing_chips,
)
from geopsp.chips.results import CandidateChip, ExportTotals, RowResult
from geopsp.core.bands import BandStats
from geopsp.core.grid import Window
from geopsp.core.options import require_int
from geopsp.core.parallel import cpu_count, map_ordered, prefetch
from geopsp.raster.row_buffer import RowBuffer, Rows, read_parallel
from geopsp.raster.scene import RasterArray, Scene

ROWS_IN_FLIGHT = 2
"""Rows of chips in memory: while one is written, the next is cut."""


MAX_STRIP_BYTES = 256e6
"""Memory of the rows of a column strip; a wider scene is cut in several strips."""


GDAL_CACHE_BYTES = 64 * 2**20
"""GDAL's own cache of blocks; small, as each block is read once."""


class Cutter(Protocol):
    """Cuts chips in order; results are added to the totals before they are yielded."""

    def grid_chips(self, chip_rows: list[ChipRow]) -> Generator[RowResult]:
        """Yield the results of rows in their order, each after its files are written."""

    def random_chips(self) -> Generator[RowResult]:
        """Yield the results of batches of random chips, until the totals contain as many as asked for."""


class ChipWriter(Protocol):
    """Writes the files of a chip under a stem, and returns the names of the image and of the labels."""

    def __call__(self, stem: str, chip: Chip, /) -> tuple[str, str]: ...


@dataclass(frozen=True, slots=True)
class ChipRow:
    """A row of chips in a column strip of a scene."""

    scene: int
    columns: range
    """First columns of the chips."""

    row: int
    owned: Window
    """Where polygons are counted with this row; the windows of all rows partition the scene."""


@dataclass(frozen=True, slots=True, eq=False)
class LoadedRow:
    """Labels and pixels of a row of chips."""

    chip_row: ChipRow
    result: RowResult
    """Counts of polygons and of chips that their labels rule out."""

    labels: LabelPatch
    columns: list[int]
    """First columns of the chips that may be kept."""

    pixels: tuple[NDArray[Any], NDArray[np.bool_]] | None
    """(bands, rows, cols) pixels and (rows, cols) valid mask; None if no chip may be kept."""


@dataclass(slots=True, eq=False)
class PendingRow:
    """A row whose chips are being written."""

    result: RowResult
    futures: list[Future[RowResult]]


def plan(inputs: LabelledScenes, spec: ChipSpec) -> list[ChipRow]:
    """Return the rows of chips of the grid: scene by scene, strip by strip, from the top."""
    return [chip_row for number in range(len(inputs.scenes)) for chip_row in _plan_scene(inputs, spec, number)]


def _plan_scene(inputs: LabelledScenes, spec: ChipSpec, number: int) -> Iterator[ChipRow]:
    scene = inputs.scenes[number]
    rows, columns = chip_windows(scene.grid, spec)
    # 8 bytes: valid mask, codes, conflicts, area of interest, and what burning takes
    pixel_bytes = len(scene.bands) * scene.dtype.itemsize + 8
    column_bytes = 2 * pixel_bytes * (spec.tile_size + scene.block_shape[0])
    strips = column_strips(columns, spec.tile_size, column_bytes=column_bytes)
    lefts = [0, *(strip[0] for strip in strips[1:]), scene.grid.width]
    tops = [*rows, max(scene.grid.height, rows[-1] + 1)]
    for strip, (left, right) in zip(strips, pairwise(lefts), strict=True):
        for row, next_row in pairwise(tops):
            yield ChipRow(number, strip, row, Window(left, row, right - left, next_row - row))


def column_strips(columns: range, size: int, *, column_bytes: float) -> list[range]:
    """Split the first columns of chips into strips of at most `MAX_STRIP_BYTES`.

    Args:
        columns: First columns of all chips.
        size: Side of a chip in pixels.
        column_bytes: Memory of one column of pixels.
    """
    width = max(size, int(MAX_STRIP_BYTES / column_bytes))
    num_chips = max(1, (width - size) // columns.step + 1)
    return [columns[i : i + num_chips] for i in range(0, len(columns), num_chips)]


@contextmanager
def cutting_here(
    inputs: LabelledScenes,
    spec: ChipSpec,
    totals: ExportTotals,
    *,
    write: ChipWriter,
    first: int = 0,
    workers: int | None = None,
) -> Iterator[ChipCutter]:
    """Yield a cutter of this process.

    Args:
        inputs: Images and labels.
        spec: Which chips are cut.
        totals: The results of rows that are done, to which the others are added.
        write: Writes a chip.
        first: The number of the first chip of the export.
        workers: Threads; None: one per CPU core.
    """
    if workers is not None:
        require_int("workers", workers, minimum=1)
    with ThreadPoolExecutor(workers or cpu_count()) as pool, rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
        yield ChipCutter(inputs, spec, totals, pool, write=write, first=first + totals.num_unrotated)


class ChipCutter:
    """Cuts chips in order, skips those that are not worth keeping, and has the others written by a thread pool."""

    def __init__(
        self,
        inputs: LabelledScenes,
        spec: ChipSpec,
        totals: ExportTotals,
        pool: Executor,
        *,
        write: ChipWriter,
        first: int = 0,
    ) -> None:
        """Results are added to `totals`; `first` is the number of the next chip."""
        self.inputs, self.spec, self.totals = inputs, spec, totals
        self._pool, self._writer, self._next = pool, write, first

    def grid_chips(self, chip_rows: list[ChipRow]) -> Generator[RowResult]:
        """See `Cutter.grid_chips`."""
        with (
            ThreadPoolExecutor(1) as cutter,
            closing(prefetch(self._load_rows(chip_rows))) as loaded,
            closing(map_ordered(cutter, self._cut, loaded, in_flight=ROWS_IN_FLIGHT)) as pending_rows,
        ):
            for pending in pending_rows:
                yield self._finish(pending)

    def random_chips(self) -> Generator[RowResult]:
        """See `Cutter.random_chips`."""
        sampler = RandomChipSampler(self.totals, self.inputs, self.spec)
        known = self.totals.positions()
        for batch in batches_to_draw(self.totals, self.spec, sampler):
            drawn = [chip for chip in self._pool.map(sampler.draw, draws_of(batch)) if chip is not None]
            chosen = choose_new([chip.position for chip in drawn], known, missing_chips(self.totals, self.spec))
            known.update(drawn[at].position for at in chosen)
            pending = PendingRow(self._empty_result(), [])
            pending.result.counts.update(draws=DRAWS_PER_BATCH, random_chips=len(chosen))
            for at in chosen:
                self._submit(pending, drawn[at])
            yield self._finish(pending)

    def _empty_result(self) -> RowResult:
        return RowResult(BandStats.empty(len(self.inputs.scenes[0].bands)))

    def _finish(self, pending: PendingRow) -> RowResult:
        """Wait for the files of a row, and add its result to the totals."""
        result = pending.result
        for future in pending.futures:
            result.add(future.result())
        self.totals.add(result)
        return result

    def _load_rows(self, chip_rows: list[ChipRow]) -> Iterator[LoadedRow]:
        with ThreadPoolExecutor(1) as reader:
            for (number, columns), rows in groupby(chip_rows, key=lambda chip_row: (chip_row.scene, chip_row.columns)):
                span = range(columns[0], columns[-1] + self.spec.tile_size)
                strip = ColumnStrip(self.inputs, self.inputs.scenes[number], span, self._pool)
                for chip_row in rows:
                    yield self._load(chip_row, strip, reader)

    def _load(self, chip_row: ChipRow, strip: ColumnStrip, reader: Executor) -> LoadedRow:
        """Read the pixels of a row while its labels are burned; only afterwards, if labels can rule all chips out."""
        first, stop = chip_row.row, chip_row.row + self.spec.tile_size
        reading = None if self.spec.asks_for_labels else reader.submit(strip.pixels, first, stop)
        result = self._empty_result()
        counts = self.inputs.labels.count(self.inputs.scenes[chip_row.scene].grid, chip_row.owned)
        result.polygons.update(self.inputs.to_chip_codes(counts.pop("polygons", {})))
        result.counts.update(counts)
        labels = strip.labels(first, stop)
        columns = [
            col for col in chip_row.columns if self._may_be_kept(result, labels.crop(self._slices(chip_row, col)))
        ]
        pixels = reading.result() if reading else strip.pixels(first, stop) if columns else None
        return LoadedRow(chip_row, result, labels, columns, pixels)

    def _slices(self, chip_row: ChipRow, col: int) -> Any:
        """Return the index of a chip in the arrays of its row."""
        left = col - chip_row.columns[0]
        return ..., slice(left, left + self.spec.tile_size)

    def _may_be_kept(self, result: RowResult, labels: LabelPatch) -> bool:
        """Return True if the labels alone do not rule a chip out; else count the reason."""
        if not self.spec.asks_for_labels:
            return True
        legend = self.inputs.legend
        reason = skip_reason(count_codes(labels.codes, legend), legend, self.spec, valid=1.0, inside=labels.all_inside)
        result.counts.update([f"skipped_{reason}"] if reason else [])
        return reason is None

    def _cut(self, loaded: LoadedRow) -> PendingRow:
        """Cut the chips of a row, and submit those that are kept to be written."""
        pending, chip_row, size = PendingRow(loaded.result, []), loaded.chip_row, self.spec.tile_size
        for col in loaded.columns:
            assert loaded.pixels is not None
            data, valid = (array[self._slices(chip_row, col)] for array in loaded.pixels)
            window = Window(col, chip_row.row, size, size)
            patch = RasterArray(data, valid, self.inputs.scenes[chip_row.scene].grid.crop(window))
            chip = make_chip(patch, loaded.labels.crop(self._slices(chip_row, col)))
            candidate = CandidateChip.from_chip(self.inputs, chip_row.scene, window, chip)
            if reason := candidate.skip_reason(self.inputs, self.spec):
                pending.result.counts[f"skipped_{reason}"] += 1
            elif self.spec.grid:
                self._submit(pending, candidate)
            else:  # random chips are drawn from those that the grid would have
                pending.result.rows.append(candidate.index_row(self.inputs))
        return pending

    def _submit(self, pending: PendingRow, candidate: CandidateChip) -> None:
        pending.futures.append(self._pool.submit(self.write, f"{self._next:06d}", candidate))
        self._next += 1

    def write(self, stem: str, candidate: CandidateChip) -> RowResult:
        """Write a chip, and those of its rotated copies that are worth keeping."""
        result = self._empty_result()
        self._write_files(result, stem, candidate)
        scene = self.inputs.scenes[candidate.scene]
        for angle in self.spec.angles:
            copy = self.inputs.read_chip(scene, candidate.window, angle)
            rotated = CandidateChip.from_chip(self.inputs, candidate.scene, candidate.window, copy, angle)
            if reason := rotated.skip_reason(self.inputs, self.spec):
                result.counts[f"skipped_{reason}"] += 1
            else:
                self._write_files(result, f"{stem}_r{angle:g}".replace(".", "p"), rotated)
        return result

    def _write_files(self, result: RowResult, stem: str, candidate: CandidateChip) -> None:
        chip = candidate.chip
        image, label = self._writer(stem, chip)
        result.rows.append(candidate.index_row(self.inputs, image, label))
        result.stats = result.stats.merge(BandStats.from_array(chip.patch.data, chip.patch.valid))
        result.counts["conflict_pixels"] += chip.conflicts
        result.counts["empty"] += is_empty(candidate.counts, self.inputs.legend)


class ColumnStrip:
    """Labels and pixels of some columns of a scene, read from the top down."""

    def __init__(self, inputs: LabelledScenes, scene: Scene, columns: range, pool: Executor) -> None:
        """`columns` is a range of pixel columns; `pool` reads."""

        def window(first: int, stop: int) -> Window:
            return Window(columns.start, first, len(columns), stop - first)

        def burn(first: int, stop: int) -> Rows:
            labels = inputs.read_labels(scene, scene.grid.crop(window(first, stop)))
            return tuple(array for array in labels if array is not None)

        def read(first: int, stop: int) -> Rows:
            return read_parallel(scene, window(first, stop), pool)

        self._labels, self._pixels = (RowBuffer(rows, block=scene.block_shape[0]) for rows in (burn, read))

    def labels(self, first: int, stop: int) -> LabelPatch:
        """Return the labels of some rows; `first` may not be above that of the last request."""
        return LabelPatch(*self._labels.read(first, stop))

    def pixels(self, first: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """Return (bands, rows, cols) pixels and (rows, cols) valid mask of some rows; `first` as for `labels`."""
        data, valid = self._pixels.read(first, stop)
        return data, valid
