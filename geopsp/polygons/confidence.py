"""Read the confidence of a class map from a raster."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Grid, Window
from geopsp.errors import GridError, RasterError
from geopsp.raster.open import open_raster
from geopsp.raster.scene import Scene

ROUNDING_ERROR = 1e-6
"""Values this far below 0 or above 1 are accepted and clipped."""


class ConfidenceSource(Protocol):
    """What gives the confidence of windows of a grid; several threads may read it."""

    def read(self, window: Window) -> NDArray[np.float32]:
        """Return (h, w) values of a window, or (2, h, w) of two confidences; NaN where unknown."""


@dataclass(frozen=True, slots=True, eq=False)
class Confidence:
    """A raster of values from 0 to 1. Several threads may read it; it can be sent to other processes."""

    scene: Scene

    scale: float
    """Factor for stored values."""

    offset: float
    """Added to scaled values."""

    @classmethod
    def open(cls, path: str | Path, grid: Grid) -> Confidence:
        """Open the confidence raster of a map on `grid`.

        Raises:
            InputNotFoundError: if there is no such raster.
            RasterError: if it has several bands.
            GridError: if it is on another grid.
        """
        scene = Scene.open(path)
        if len(scene.bands) != 1:
            raise RasterError(
                f"{path} has {len(scene.bands)} bands, but must have one, with values from 0 to 1. Export that band."
            )
        if scene.grid.window_of(grid) != scene.grid.full_window:
            raise GridError(
                f"{path} is on another grid ({scene.grid}) than the map ({grid}). Warp it to the grid of the map."
            )
        band = scene.sources[0].indexes[0] - 1
        with open_raster(path) as dataset:
            return cls(scene, float(dataset.scales[band]), float(dataset.offsets[band]))

    def read(self, window: Window) -> NDArray[np.float32]:
        """Return (h, w) values of a window, which may extend beyond the raster; NaN where the confidence is unknown.

        Raises:
            RasterError: if pixels cannot be read, or are not from 0 to 1.
        """
        pixels = self.scene.read(window)
        values = np.where(pixels.valid, pixels.data[0] * self.scale + self.offset, np.nan)
        known = values[pixels.valid]
        if known.size and not (known.min() >= -ROUNDING_ERROR and known.max() <= 1 + ROUNDING_ERROR):
            raise RasterError(
                f"{self.scene.name} contains values from {known.min():g} to {known.max():g}, but confidence must be "
                "from 0 to 1. Set the band's scale, e.g. gdal_edit.py -scale 0.01 for percent."
            )
        return values.clip(0, 1).astype(np.float32)
