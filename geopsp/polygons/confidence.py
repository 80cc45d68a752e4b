"""How sure a map is of each of its pixels, as a raster tells."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Grid, Window
from geopsp.errors import GridError, RasterError
from geopsp.raster.open import open_raster
from geopsp.raster.scene import Scene

ROUNDED = 1e-6
"""So far beyond 0 and 1 a share may lie, as rounding may bring it there."""


@dataclass(frozen=True, slots=True, eq=False)
class Confidence:
    """A raster of shares from 0 to 1. Safe to read from several threads and to send to other processes."""

    scene: Scene

    scale: float
    """What stored values are multiplied by."""

    offset: float
    """What is then added."""

    @classmethod
    def open(cls, path: str | Path, grid: Grid) -> Confidence:
        """The confidence of a map that lies on `grid`.

        Raises:
            InputNotFoundError: if there is no such raster.
            RasterError: if it is not a raster of one band.
            GridError: if it lies on another grid.
        """
        scene = Scene.open(path)
        if len(scene.bands) != 1:
            raise RasterError(
                f"{path} has {len(scene.bands)} bands; needed one, of shares from 0 to 1. Export that one."
            )
        if scene.grid.window_of(grid) != scene.grid.full_window:
            raise GridError(
                f"{path} lies on {scene.grid!r}, the map on {grid!r}; needed the same pixels. Warp it onto the map."
            )
        place = scene.sources[0].indexes[0] - 1
        with open_raster(path) as dataset:
            return cls(scene, float(dataset.scales[place]), float(dataset.offsets[place]))

    def read(self, window: Window) -> NDArray[np.float32]:
        """(h, w) shares of a window, which may overhang; NaN where nothing is known.

        Raises:
            RasterError: if pixels cannot be read, or are no shares.
        """
        patch = self.scene.read(window)
        values = np.where(patch.valid, patch.data[0] * self.scale + self.offset, np.nan)
        known = values[patch.valid]
        if known.size and not (known.min() >= -ROUNDED and known.max() <= 1 + ROUNDED):
            raise RasterError(
                f"{self.scene.name} holds values from {known.min():g} to {known.max():g}; needed shares from 0 to 1. "
                "Set the band's scale, e.g. gdal_edit.py -scale 0.01 for percent."
            )
        return values.clip(0, 1).astype(np.float32)
