"""What an output raster looks like: bands, data type, nodata, classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from geopsp.core.legend import Legend

FRACTION_STEPS = 254
"""A fraction p is stored as round(254 p), with scale 1/254 and nodata 255."""


@dataclass(frozen=True, slots=True)
class RasterSpec:
    """Name, path, pixel type and overview resampling of one output raster."""

    name: str
    """"classes", "confidence", "probabilities" or "disagreement"."""

    path: Path
    bands: tuple[str, ...]
    """Band names."""

    dtype: str
    """"uint8" or "float16"."""

    nodata: float
    """255, or NaN for floats."""

    resampling: Literal["mode", "mean"]
    """How overviews are made from 2 x 2 pixels."""

    legend: Legend | None = None
    """Classes of a class raster."""

    scale: float = 1.0
    """Physical value = stored value x `scale`."""

    def blank(self, height: int, width: int) -> np.ndarray:
        """Return (bands, height, width) pixels of nodata: a read-only broadcast array that takes no memory."""
        return np.broadcast_to(np.array(self.nodata, self.dtype), (len(self.bands), height, width))
