"""Random chips, in which rare classes come up as often as any other."""

from __future__ import annotations

import numpy as np

from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipSpec
from geopsp.chips.results import CandidateChip, ExportTotals
from geopsp.core.grid import Window


class RandomChipSampler:
    """Draws windows such that each class is shown as often as any other, wherever a chip of the grid holds it."""

    def __init__(self, tally: ExportTotals, ground: LabelledScenes, spec: ChipSpec) -> None:
        self._ground, self._spec = ground, spec
        frame = tally.frame()
        frame = frame[frame["angle"] == 0] if len(frame) else frame
        self._places = frame[["scene", "col", "row"]].to_numpy(int) if len(frame) else np.empty((0, 3), int)
        codes = ground.legend.codes if len(frame) else []
        self._cumulated = {code: frame[f"pixels_{code}"].to_numpy(np.int64).cumsum() for code in codes}
        self.classes = [code for code, sums in self._cumulated.items() if sums[-1] > 0]

    def draw(self, number: int) -> CandidateChip | None:
        """The chip of a window that is drawn; None if it is not worth keeping."""
        rng = np.random.default_rng((self._spec.seed, number))
        code = int(rng.choice(self.classes))
        sums = self._cumulated[code]
        place, col, row = self._places[np.searchsorted(sums, rng.integers(sums[-1]), side="right")].tolist()
        size, scene = self._spec.tile_size, self._ground.scenes[place]
        seen = self._ground.read_chip(scene, Window(col, row, size, size)).codes
        down, right = divmod(int(rng.choice(np.flatnonzero(seen == code))), size)
        up, left = rng.integers(size, size=2).tolist()
        col, row = (
            _within(col + right - left, size, scene.grid.width),
            _within(row + down - up, size, scene.grid.height),
        )
        window = Window(col, row, size, size)
        cut = CandidateChip.of(self._ground, place, window, self._ground.read_chip(scene, window))
        return None if cut.judged(self._ground, self._spec) else cut


def _within(first: int, size: int, length: int) -> int:
    """The first pixel, moved so that a tile lies within the scene, if that is large enough."""
    return max(0, min(first, length - size))
