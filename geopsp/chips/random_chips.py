"""Random chips, in which all classes come up equally often."""

from __future__ import annotations

from collections.abc import Collection, Iterator, Sequence
from itertools import count

import numpy as np

from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipSpec
from geopsp.chips.results import CandidateChip, ExportTotals, Position
from geopsp.core.grid import Window

DRAWS_PER_BATCH = 32
"""Random chips that are drawn at once, and journalled as one row."""


MAX_DRAWS_PER_CHIP = 20
"""Draws for each random chip that is asked for, until the search is given up."""


class RandomChipSampler:
    """Draws windows around random pixels of random classes, taken from the chips of the grid."""

    def __init__(self, totals: ExportTotals, inputs: LabelledScenes, spec: ChipSpec) -> None:
        self._inputs, self._spec = inputs, spec
        frame = totals.frame()
        frame = frame[frame["angle"] == 0] if len(frame) else frame
        num_random = totals.counts["random_chips"]  # of an export that goes on; they are the last rows
        frame = frame.iloc[: len(frame) - num_random]
        self._positions = frame[["scene", "col", "row"]].to_numpy(int) if len(frame) else np.empty((0, 3), int)
        codes = inputs.legend.codes if len(frame) else []
        self._cumulative = {code: frame[f"pixels_{code}"].to_numpy(np.int64).cumsum() for code in codes}
        self.classes = [code for code, sums in self._cumulative.items() if sums[-1] > 0]
        """Codes of the classes that occur."""

    def draw(self, number: int) -> CandidateChip | None:
        """Draw a chip; None if it is skipped. The same number and seed draw the same chip."""
        rng = np.random.default_rng((self._spec.seed, number))
        code = int(rng.choice(self.classes))
        sums = self._cumulative[code]
        scene_number, col, row = self._positions[np.searchsorted(sums, rng.integers(sums[-1]), side="right")].tolist()
        size, scene = self._spec.tile_size, self._inputs.scenes[scene_number]
        codes = self._inputs.read_chip(scene, Window(col, row, size, size)).codes
        down, right = divmod(int(rng.choice(np.flatnonzero(codes == code))), size)
        up, left = rng.integers(size, size=2).tolist()
        window = Window(
            _clamp(col + right - left, size, scene.grid.width),
            _clamp(row + down - up, size, scene.grid.height),
            size,
            size,
        )
        chip = self._inputs.read_chip(scene, window)
        candidate = CandidateChip.from_chip(self._inputs, scene_number, window, chip)
        return None if candidate.skip_reason(self._inputs, self._spec) else candidate


def batches_to_draw(totals: ExportTotals, spec: ChipSpec, sampler: RandomChipSampler) -> Iterator[int]:
    """Yield the numbers of batches of random chips, until the totals contain as many as asked for."""
    for batch in count(num_batches(totals)):
        exhausted = batch * DRAWS_PER_BATCH > MAX_DRAWS_PER_CHIP * spec.random_chips
        if missing_chips(totals, spec) <= 0 or not sampler.classes or exhausted:
            return
        yield batch


def num_batches(totals: ExportTotals) -> int:
    """Return the number of batches of random chips that are drawn."""
    return totals.counts["draws"] // DRAWS_PER_BATCH


def draws_of(batch: int) -> range:
    """Return the numbers of the draws of a batch."""
    return range(batch * DRAWS_PER_BATCH, (batch + 1) * DRAWS_PER_BATCH)


def missing_chips(totals: ExportTotals, spec: ChipSpec) -> int:
    """Return the number of random chips that are asked for and not yet cut."""
    return spec.random_chips - totals.counts["random_chips"]


def choose_new(positions: Sequence[Position], known: Collection[Position], most: int) -> list[int]:
    """Return the indices of positions that are new, each position once; at most `most`."""
    new = {position: at for at, position in reversed(list(enumerate(positions))) if position not in known}
    return sorted(new.values())[:most]


def _clamp(first: int, size: int, length: int) -> int:
    """Move the first pixel of a chip so that the chip lies in the scene, if that is large enough."""
    return max(0, min(first, length - size))
