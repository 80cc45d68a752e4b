"""The rasters that a prediction can give, and how each is stored."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np

from geopsp.legend import IGNORE, Legend

STEPS = 254
"""A share is stored as round(254 p), with scale 1/254 and nodata 255."""

ProbabilityType = Literal["uint8", "float16"]


@dataclass(frozen=True, slots=True)
class Product:
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

    reduce: Literal["mode", "mean"]
    """How one pixel is made of four."""

    legend: Legend | None = None
    """Of a class raster."""

    scale: float = 1.0
    """What a stored value is multiplied by."""

    def nothing(self, height: int, width: int) -> np.ndarray:
        """(bands, height, width) pixels of nodata, read-only, that take no memory."""
        return np.broadcast_to(np.array(self.nodata, self.dtype), (len(self.bands), height, width))


def classes(path: Path, legend: Legend) -> Product:
    """Class codes; 255 where nothing is known."""
    return Product("classes", path, ("class",), "uint8", IGNORE, "mode", legend)


def share(name: str, path: Path) -> Product:
    """One band of shares, 0 to 1."""
    return Product(name, path, (name,), "uint8", IGNORE, "mean", scale=1 / STEPS)


def probabilities(path: Path, legend: Legend, kind: ProbabilityType = "uint8") -> Product:
    """One band a class."""
    names = tuple(legend.names)
    if kind == "float16":
        return Product("probabilities", path, names, kind, np.nan, "mean")
    return Product("probabilities", path, names, kind, IGNORE, "mean", scale=1 / STEPS)
