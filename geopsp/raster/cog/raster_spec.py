"""What an output raster looks like: bands, type, nodata, classes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from geopsp.core.legend import Legend


@dataclass(frozen=True, slots=True)
class RasterSpec:
    """One raster: what it is called, what its pixels are, and how coarser levels are made of finer ones."""

    name: str
    """"classes", "confidence", "probabilities" or "disagreement"."""

    path: Path
    bands: tuple[str, ...]
    """A name for each band."""

    dtype: str
    """"uint8" or "float16"."""

    nodata: float
    """255, or NaN of floats."""

    resampling: Literal["mode", "mean"]
    """How one pixel is made of four."""

    legend: Legend | None = None
    """Of a class raster."""

    scale: float = 1.0
    """What a stored value is multiplied by."""

    def blank(self, height: int, width: int) -> np.ndarray:
        """(bands, height, width) pixels of nodata, read-only, that take no memory."""
        return np.broadcast_to(np.array(self.nodata, self.dtype), (len(self.bands), height, width))
