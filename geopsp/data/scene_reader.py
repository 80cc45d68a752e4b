"""Chips without files: windows of the scenes, with labels rasterized when they are read."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from geopsp.chips.chip_set import ChipSet
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.core.grid import Window
from geopsp.data.dataset import RawChip


class SceneChipReader:
    """Reads the pixels of a chip set from the scenes that it is cut from.

    It can be read from several threads and sent to other processes: scenes open their files in each.
    """

    def __init__(self, labelled_scenes: LabelledScenes, chips: ChipSet, *, margin: int = 0) -> None:
        self.labelled_scenes, self.margin, self.size = labelled_scenes, margin, chips.tile_size
        numbers = {scene.name: number for number, scene in enumerate(labelled_scenes.scenes)}
        self.scene_numbers = chips.index["source"].map(numbers).to_numpy(np.intp)
        self.positions = chips.index[["row", "col"]].to_numpy(np.intp)
        self.angles = chips.index["angle"].to_numpy(float)

    def read(self, row: int, top: int, left: int, size: int) -> RawChip:
        """Read a window, moved so that it extends outside the scene no more than the chip does.

        A rotated chip has no pixels around it: its window is moved into the chip.

        Raises:
            RasterError: if a file's pixels cannot be read.
        """
        scene, angle = self.labelled_scenes.scenes[self.scene_numbers[row]], float(self.angles[row])
        chip_row, chip_col = self.positions[row].tolist()
        if angle:
            chip = self.labelled_scenes.read_chip(scene, Window(chip_col, chip_row, self.size, self.size), angle)
            top, left = (first % (self.size - size + 1) for first in (top, left))
            rows, cols = slice(top, top + size), slice(left, left + size)
            return RawChip(chip.patch.data[:, rows, cols], chip.patch.valid[rows, cols], chip.codes[rows, cols])
        window = Window(
            self._clamp(chip_col, left, size, scene.grid.width),
            self._clamp(chip_row, top, size, scene.grid.height),
            size,
            size,
        )
        chip = self.labelled_scenes.read_chip(scene, window)
        return RawChip(chip.patch.data, chip.patch.valid, chip.codes)

    def _clamp(self, chip: int, shift: int, size: int, length: int) -> int:
        """Return the first pixel of a window along a side of the scene that is `length` pixels long."""
        return min(max(chip + shift, 0), max(length, chip + self.size) - size)


def safe_margin(chips: ChipSet, rows: NDArray[np.intp], gap: float | None) -> int:
    """Return by how many pixels training windows may leave their chip: half a chip, and at most half the gap.

    Args:
        chips: The whole set.
        rows: The training chips.
        gap: Distance to the nearest validation chip, in CRS units; None: unknown, and the result is 0.
    """
    if gap is None:
        return 0
    corners = shapely.get_coordinates(chips.index.geometry.to_numpy()[rows]).reshape(len(rows), 5, 2)
    longest = np.linalg.norm(np.diff(corners, axis=1), axis=2).max()
    return min(chips.tile_size // 2, int(gap / longest * chips.tile_size / 2 + 1e-3))
