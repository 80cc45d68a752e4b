"""Random chips, in which all classes come up equally often."""

from __future__ import annotations

import numpy as np

from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipSpec
from geopsp.chips.results import CandidateChip, ExportTotals
from geopsp.core.grid import Window


class RandomChipSampler:
    """Draws windows around random pixels of random classes, taken from the chips of the grid."""

    def __init__(self, totals: ExportTotals, inputs: LabelledScenes, spec: ChipSpec) -> None:
        self._inputs, self._spec = inputs, spec
        frame = totals.frame()
        frame = frame[frame["angle"] == 0] if len(frame) else frame
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


def _clamp(first: int, size: int, length: int) -> int:
    """Move the first pixel of a chip so that the chip lies in the scene, if that is large enough."""
    return max(0, min(first, length - size))
