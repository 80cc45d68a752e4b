"""Chips without files: windows of the scenes, their labels burned when they are asked for."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from geopsp.chips.chip_set import ChipSet
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.core.grid import Window
from geopsp.data.dataset import RawChip


class SceneChipReader:
    """The pixels of a chip set, read straight from the scenes that it was cut from.

    Safe to read from several threads and to send to other processes: scenes open files of their own in each.
    """

    def __init__(self, ground: LabelledScenes, chips: ChipSet, *, reach: int = 0) -> None:
        self.ground, self.margin, self.size = ground, reach, chips.tile_size
        numbers = {scene.name: number for number, scene in enumerate(ground.scenes)}
        self.scenes = chips.index["source"].map(numbers).to_numpy(np.intp)
        self.places = chips.index[["row", "col"]].to_numpy(np.intp)
        self.angles = chips.index["angle"].to_numpy(float)

    def read(self, row: int, top: int, left: int, size: int) -> RawChip:
        """The window is moved back so far that it looks out of the scene no more than the chip does.

        A turned copy of a chip has no surroundings: of that, whatever is asked for lies within.

        Raises:
            RasterError: if a file's pixels cannot be read.
        """
        scene, angle = self.ground.scenes[self.scenes[row]], float(self.angles[row])
        chip_row, chip_col = self.places[row].tolist()
        if angle:
            chip = self.ground.read_chip(scene, Window(chip_col, chip_row, self.size, self.size), angle)
            top, left = (first % (self.size - size + 1) for first in (top, left))
            rows, cols = slice(top, top + size), slice(left, left + size)
            return RawChip(chip.patch.data[:, rows, cols], chip.patch.valid[rows, cols], chip.codes[rows, cols])
        window = Window(
            self._kept(chip_col, left, size, scene.grid.width),
            self._kept(chip_row, top, size, scene.grid.height),
            size,
            size,
        )
        chip = self.ground.read_chip(scene, window)
        return RawChip(chip.patch.data, chip.patch.valid, chip.codes)

    def _kept(self, chip: int, shift: int, size: int, length: int) -> int:
        """The first pixel of a window, within scene and chip, along a side of the scene that is `length` long."""
        return min(max(chip + shift, 0), max(length, chip + self.size) - size)


def safe_margin(chips: ChipSet, rows: NDArray[np.intp], gap: float | None) -> int:
    """How many pixels around these chips are theirs: half a chip, and at most half the gap to all others.

    Args:
        chips: The whole set.
        rows: The training chips.
        gap: From them to the nearest validation chip, in CRS units; None: unknown, then there are none.
    """
    corners = shapely.get_coordinates(chips.index.geometry.to_numpy()[rows]).reshape(len(rows), 5, 2)
    longest = np.linalg.norm(np.diff(corners, axis=1), axis=2).max()
    return min(chips.tile_size // 2, int((gap or 0) / longest * chips.tile_size / 2 + 1e-3))
