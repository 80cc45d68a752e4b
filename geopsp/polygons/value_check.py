"""Which values of a class raster from elsewhere are classes, and what of it is left out."""

from __future__ import annotations

import logging
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from geopsp.core.legend import IGNORE_INDEX
from geopsp.errors import RasterError

logger = logging.getLogger(__name__)

MOST = 0.5
"""Share of the pixels from which on it is said that they are left out."""


@dataclass(slots=True, eq=False)
class ValueCounts:
    """How many pixels have each value; masked ones do not count."""

    pixels: Counter[int] = field(default_factory=Counter)
    """By value, without nodata."""

    num_nodata: int = 0

    @property
    def total(self) -> int:
        return self.pixels.total() + self.num_nodata


def find_classes(path: str | Path, counts: ValueCounts, nodata: float | None, asked: object) -> list[int] | None:
    """Return the values that are classes, ascending; None if values are codes and 255 is none of them.

    What is left out is logged as a warning.

    Args:
        path: The raster.
        counts: Its pixels by value.
        nodata: The value that is no class.
        asked: What the user gave as nodata; None: nothing.

    Raises:
        RasterError: if there are too many values.
    """
    _warn_of_nodata(path, counts, nodata, asked)
    values = sorted(counts.pixels)
    if values and not 0 <= values[0] <= values[-1] <= IGNORE_INDEX:
        return values
    if IGNORE_INDEX not in counts.pixels:
        return None
    share = f"{counts.pixels[IGNORE_INDEX] / counts.total:.1%} of the pixels"
    if asked is None and not counts.pixels.keys() <= {0, IGNORE_INDEX}:
        logger.warning(
            f"{path} contains {IGNORE_INDEX} ({share}), which is left out. If it is a class, use `nodata='none'`."
        )
        return None
    if len(values) > IGNORE_INDEX:
        raise RasterError(
            f"{path} contains all values from 0 to {IGNORE_INDEX}, but at most {IGNORE_INDEX} of them can be "
            "classes. Name the value that is no class with `nodata`."
        )
    if asked is None:
        logger.warning(
            f"{path} is read as a mask: {IGNORE_INDEX} ({share}) is a class. If it is none, use "
            f"`nodata={IGNORE_INDEX}`."
        )
    return values


def _warn_of_nodata(path: str | Path, counts: ValueCounts, nodata: float | None, asked: object) -> None:
    """Warn if most pixels, all but one class, or the value 0 are nodata."""
    share = counts.num_nodata / max(counts.total, 1)
    if asked is None and nodata is not None and share and (share >= MOST or len(counts.pixels) <= 1 or nodata == 0):
        logger.warning(
            f"{share:.1%} of the pixels of {path} have its nodata value ({nodata:g}) and are left out. If that is a "
            "class, use `nodata='none'`."
        )
