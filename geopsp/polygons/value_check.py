"""Whether the values of a class raster from elsewhere are classes, and what of it becomes no polygon."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path

from geopsp.core.legend import IGNORE_INDEX, ClassInfo, distinct_color
from geopsp.errors import RasterError

logger = logging.getLogger(__name__)

FOREGROUND = "foreground"
"""The class of the value 255 in masks of 0 and 255."""

MOST = 0.5
"""Share of the pixels from which on it is said that they become no polygons."""


def find_class_of_255(
    path: str | Path, counts: Mapping[int, int], nodata: int | None, asked: object
) -> ClassInfo | None:
    """Return the class of the value 255; None if it is nodata. What becomes no polygon is logged as a warning.

    Args:
        path: The raster.
        counts: Its pixels by value.
        nodata: The value that is no class.
        asked: What the user gave as nodata; None: nothing.

    Raises:
        RasterError: if there are values that are no class codes, or no value that is a class.
    """
    total = max(sum(counts.values()), 1)
    values = {value for value in counts if value != nodata}
    if wrong := sorted(value for value in values if not 0 <= value <= IGNORE_INDEX):
        listed = ", ".join(map(str, wrong[:9])) + ", ..." * (len(wrong) > 9)
        raise RasterError(
            f"{path} contains {listed}, but class codes are 0 to {IGNORE_INDEX - 1}. Reclassify it first, or name the "
            "value that is no class with `nodata`."
        )
    _warn_of_nodata(path, counts, nodata, total, asked)
    if IGNORE_INDEX not in values:
        return None
    share = f"{counts[IGNORE_INDEX] / total:.1%} of the pixels"
    is_mask = values <= {0, IGNORE_INDEX}
    if asked is None and not is_mask:
        logger.warning(
            f"{path} contains {IGNORE_INDEX} ({share}), which becomes no polygon. If it is a class, use "
            "`nodata='none'`."
        )
        return None
    code = next((code for code in range(1, IGNORE_INDEX) if code not in counts and code != nodata), None)
    if code is None:
        raise RasterError(f"{path} contains all values from 1 to 255, but at most 255 classes are possible.")
    name = FOREGROUND if is_mask else f"class {IGNORE_INDEX}"
    logger.warning(
        f"{path} contains {IGNORE_INDEX} ({share}): taken as the class {name!r} with the code {code}"
        + (f", because it is a mask of 0 and {IGNORE_INDEX}" if asked is None else "")
        + f". If it is none, use `nodata={IGNORE_INDEX}`."
    )
    return ClassInfo(code, name, distinct_color(code))


def _warn_of_nodata(path: str | Path, counts: Mapping[int, int], nodata: int | None, total: int, asked: object) -> None:
    """Warn if most pixels, or all but one class, have the nodata value of the file."""
    share = counts.get(nodata, 0) / total if nodata is not None else 0.0
    if asked is None and share and (share >= MOST or len(counts) <= 2):
        logger.warning(
            f"{share:.1%} of the pixels of {path} have its nodata value ({nodata}) and become no polygons. If that is "
            "a class, use `nodata='none'`."
        )
