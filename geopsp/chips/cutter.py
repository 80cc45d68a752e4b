"""All chips of a ground, unit by unit: rows of chips down each strip of each scene, then random ones."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count, groupby, pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.chips.chip import Chip, LabelPatch, chip_windows, count_codes, is_empty, make_chip, skip_reason
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipSpec
from geopsp.chips.random_chips import RandomChipSampler
from geopsp.chips.results import CandidateChip, ExportTotals, RowResult
from geopsp.core.bands import BandStats
from geopsp.core.grid import Window
from geopsp.core.parallel import prefetch
from geopsp.raster.row_buffer import RowBuffer, Rows, read_parallel
from geopsp.raster.scene import RasterArray, Scene

DRAWS_PER_BATCH = 32
"""Random chips drawn in a unit of work."""


ROWS_IN_FLIGHT = 2
"""Units in hand: while one is written, the next is read."""


MAX_DRAWS_PER_CHIP = 20
"""Draws for each random chip that is asked for; after that there are taken to be no more."""


Write = Callable[[str, Chip], tuple[str, str]]
"""Writes a chip's files under a stem, and gives their names."""


@dataclass(frozen=True, slots=True)
class ChipRow:
    """A row of chips in a strip of a scene."""

    scene: int
    columns: range
    """First columns of the chips."""

    row: int
    owned: Window
    """Where polygons are counted with this unit; these windows partition the scene."""


def plan(ground: LabelledScenes, spec: ChipSpec) -> list[ChipRow]:
    """The units of the regular chips, strip by strip, from the top."""
    return [unit for number in range(len(ground.scenes)) for unit in _plan_scene(ground, spec, number)]


def _plan_scene(ground: LabelledScenes, spec: ChipSpec, number: int) -> Iterator[ChipRow]:
    scene = ground.scenes[number]
    rows, columns = chip_windows(scene.grid, spec)
    pixel = len(scene.bands) * scene.dtype.itemsize + 8  # validity, codes, conflicts, area, and what burning them takes
    runs = column_strips(columns, spec.tile_size, bytes_a_column=2 * pixel * (spec.tile_size + scene.block_shape[0]))
    lefts = [0, *(run[0] for run in runs[1:]), scene.grid.width]
    tops = [*rows, max(scene.grid.height, rows[-1] + 1)]
    for run, (left, right) in zip(runs, pairwise(lefts), strict=True):
        for row, below in pairwise(tops):
            yield ChipRow(number, run, row, Window(left, row, right - left, below - row))


class ChipCutter:
    """Cuts, judges and numbers chips in order, and has them written by the threads of a pool."""

    def __init__(
        self,
        ground: LabelledScenes,
        spec: ChipSpec,
        tally: ExportTotals,
        pool: Executor,
        *,
        write: Write,
        first: int = 0,
    ) -> None:
        """`tally` takes up what is found; `first` is the number of the next chip."""
        self.ground, self.spec, self.tally = ground, spec, tally
        self._pool, self._write, self._next = pool, write, first

    def grid_chips(self, units: list[ChipRow]) -> Iterator[RowResult]:
        """The hauls of units, in their order; each is in the tally and its files are written when it comes."""
        waiting: deque[PendingRow] = deque()
        for shown in prefetch(self._shown(units)):
            waiting.append(self._cut(shown))
            if len(waiting) >= ROWS_IN_FLIGHT:
                yield self._finish(waiting.popleft())
        while waiting:
            yield self._finish(waiting.popleft())

    def random_chips(self) -> Iterator[RowResult]:
        """The hauls of random chips that are still missing from the tally."""
        lottery = RandomChipSampler(self.tally, self.ground, self.spec)
        known = self.tally.places()
        for unit in count(self.tally.counts["draws"] // DRAWS_PER_BATCH):
            missing = self.spec.random_chips - self.tally.counts["random_chips"]
            if (
                missing <= 0
                or not lottery.classes
                or unit * DRAWS_PER_BATCH > MAX_DRAWS_PER_CHIP * self.spec.random_chips
            ):
                return
            pending = PendingRow(self._empty_haul(), [])
            drawn = self._pool.map(lottery.draw, range(unit * DRAWS_PER_BATCH, (unit + 1) * DRAWS_PER_BATCH))
            fresh = {cut.place: cut for cut in drawn if cut is not None and cut.place not in known}
            for cut in list(fresh.values())[:missing]:
                known.add(cut.place)
                self._submit(pending, cut)
                pending.haul.counts["random_chips"] += 1
            pending.haul.counts["draws"] = DRAWS_PER_BATCH
            yield self._finish(pending)

    def _empty_haul(self) -> RowResult:
        return RowResult(BandStats.empty(len(self.ground.scenes[0].bands)))

    def _finish(self, pending: PendingRow) -> RowResult:
        haul = pending.haul
        for future in pending.jobs:
            part = future.result()
            haul.rows += part.rows
            haul.counts.update(part.counts)
            haul.stats = haul.stats.merge(part.stats)
        self.tally.add(haul)
        return haul

    def _shown(self, units: list[ChipRow]) -> Iterator[LoadedRow]:
        """What the units show, made one by one."""
        with ThreadPoolExecutor(1) as reader:
            for (number, columns), run in groupby(units, key=lambda unit: (unit.scene, unit.columns)):
                span = range(columns[0], columns[-1] + self.spec.tile_size)
                strip = ColumnStrip(self.ground, self.ground.scenes[number], span, self._pool)
                for unit in run:
                    yield self._show(unit, strip, reader)

    def _show(self, unit: ChipRow, strip: ColumnStrip, reader: Executor) -> LoadedRow:
        """The image is read beside the burning of labels, or not at all where these rule all chips out."""
        first, stop = unit.row, unit.row + self.spec.tile_size
        early = None if self.spec.asks_for_labels else reader.submit(strip.pixels, first, stop)
        haul = self._empty_haul()
        found = self.ground.labels.count(self.ground.scenes[unit.scene].grid, unit.owned)
        haul.polygons.update(self.ground.in_own_codes(found.pop("polygons", {})))
        haul.counts.update(found)
        truth = strip.truth(first, stop)
        wanted = [col for col in unit.columns if self._may_be_kept(haul, truth.part(self._place(unit, col)))]
        pixels = early.result() if early else strip.pixels(first, stop) if wanted else None
        return LoadedRow(unit, haul, truth, wanted, pixels)

    def _place(self, unit: ChipRow, col: int) -> Any:
        """Where a chip lies in what its unit shows."""
        left = col - unit.columns[0]
        return ..., slice(left, left + self.spec.tile_size)

    def _may_be_kept(self, haul: RowResult, truth: LabelPatch) -> bool:
        """True if a chip may be kept, as far as its labels tell; else the reason is counted."""
        if not self.spec.asks_for_labels:
            return True
        legend = self.ground.legend
        reason = skip_reason(count_codes(truth.codes, legend), legend, self.spec, valid=1.0, inside=truth.all_inside)
        haul.counts.update([f"skipped_{reason}"] if reason else [])
        return reason is None

    def _cut(self, shown: LoadedRow) -> PendingRow:
        """The chips of a unit are judged, and those that are kept are on their way."""
        pending, unit, size = PendingRow(shown.haul, []), shown.unit, self.spec.tile_size
        for col in shown.wanted:
            assert shown.pixels is not None
            data, valid = (array[self._place(unit, col)] for array in shown.pixels)
            window = Window(col, unit.row, size, size)
            patch = RasterArray(data, valid, self.ground.scenes[unit.scene].grid.crop(window))
            chip = make_chip(patch, shown.truth.part(self._place(unit, col)))
            self._take(pending, CandidateChip.of(self.ground, unit.scene, window, chip))
        return pending

    def _take(self, pending: PendingRow, cut: CandidateChip) -> None:
        """The chip is kept, or the reason why not is counted; without the grid it is noted for the random ones."""
        reason = cut.judged(self.ground, self.spec)
        if reason:
            pending.haul.counts[f"skipped_{reason}"] += 1
        elif self.spec.grid:
            self._submit(pending, cut)
        else:
            pending.haul.rows.append(cut.row(self.ground))

    def _submit(self, pending: PendingRow, cut: CandidateChip) -> None:
        pending.jobs.append(self._pool.submit(self._store, f"{self._next:06d}", cut))
        self._next += 1

    def _store(self, stem: str, cut: CandidateChip) -> RowResult:
        """The chip is written, and those of its turned copies that are worth it."""
        haul = self._empty_haul()
        self._keep(haul, stem, cut)
        for angle in self.spec.angles:
            copy = self.ground.read_chip(self.ground.scenes[cut.scene], cut.window, angle)
            turned = CandidateChip.of(self.ground, cut.scene, cut.window, copy, angle)
            if reason := turned.judged(self.ground, self.spec):
                haul.counts[f"skipped_{reason}"] += 1
            else:
                self._keep(haul, f"{stem}_r{angle:g}".replace(".", "p"), turned)
        return haul

    def _keep(self, haul: RowResult, stem: str, cut: CandidateChip) -> None:
        image, label = self._write(stem, cut.chip)
        haul.rows.append(cut.row(self.ground, image, label))
        haul.stats = haul.stats.merge(BandStats.from_array(cut.chip.patch.data, cut.chip.patch.valid))
        haul.counts["conflict_pixels"] += cut.chip.conflicts
        haul.counts["empty"] += is_empty(cut.counts, self.ground.legend)


@dataclass(frozen=True, slots=True, eq=False)
class LoadedRow:
    """The rows of a unit."""

    unit: ChipRow
    haul: RowResult
    """As yet without chips."""

    truth: LabelPatch
    wanted: list[int]
    """First columns of the chips that may be kept."""

    pixels: tuple[NDArray[Any], NDArray[np.bool_]] | None
    """(bands, rows, cols) and (rows, cols) validity; None where no chip is wanted."""


@dataclass(slots=True, eq=False)
class PendingRow:
    """A unit whose chips are being written."""

    haul: RowResult
    jobs: list[Future[RowResult]]


BUDGET = 256e6
"""Bytes that the rows in hand may take; a wider scene goes through in several strips."""


class ColumnStrip:
    """Labels and pixels of some columns of a scene, from the top down."""

    def __init__(self, ground: LabelledScenes, scene: Scene, columns: range, pool: Executor) -> None:
        """`columns` are the first and the last one and all between; `pool` reads."""

        def window(first: int, stop: int) -> Window:
            return Window(columns.start, first, len(columns), stop - first)

        def burn(first: int, stop: int) -> Rows:
            return tuple(part for part in ground.read_labels(scene.grid.crop(window(first, stop))) if part is not None)

        def read(first: int, stop: int) -> Rows:
            return read_parallel(scene, window(first, stop), pool)

        self._labels, self._pixels = (RowBuffer(rows, block=scene.block_shape[0]) for rows in (burn, read))

    def truth(self, first: int, stop: int) -> LabelPatch:
        """The labels of some rows, not above those last asked for."""
        return LabelPatch(*self._labels.read(first, stop))

    def pixels(self, first: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
        """(bands, rows, cols) pixels of some rows, and (rows, cols) their validity."""
        data, valid = self._pixels.read(first, stop)
        return data, valid


def column_strips(columns: range, size: int, *, bytes_a_column: float) -> list[range]:
    """The tiles' first columns in runs that fit the budget."""
    most = max(size, int(BUDGET / bytes_a_column))
    count = max(1, (most - size) // columns.step + 1)
    return [columns[i : i + count] for i in range(0, len(columns), count)]
