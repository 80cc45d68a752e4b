"""The classes of a map, by the codes that a class raster is read with."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from geopsp.assessment.sampling.sample_plan import distinct
from geopsp.core.legend import DEFAULT_COLORS, ClassInfo, distinct_color
from geopsp.raster.legend_io import read_class_table


def map_classes(
    path: str | Path, values: NDArray[np.int64] | None, found: NDArray[np.int64]
) -> tuple[dict[int, ClassInfo], tuple[ClassInfo, ...]]:
    """Return the classes that a map has by code, and all classes of its class table, with the codes of the file.

    A class without a name has its code as name. Of several classes of one name, each has its code behind it.

    Args:
        path: The map.
        values: The values for which codes stand, see `ClassRaster.values`.
        found: The codes that pixels have.

    Raises:
        InputNotFoundError, RasterError: if there is no such raster, or its class table is damaged.
    """
    names, colors = read_class_table(path)
    in_file = {code: int(code if values is None else values[code]) for code in found.tolist()}
    named = {value: name for value, name in names.items() if name != f"class {value}"}
    codes = sorted({*in_file.values(), *named})
    unique = distinct([named.get(value, str(value)) for value in codes], codes)
    infos = {
        value: ClassInfo(value, name, colors.get(value) or DEFAULT_COLORS.get(name.lower()) or distinct_color(position))
        for position, (value, name) in enumerate(zip(codes, unique, strict=True))
    }
    return {code: infos[value] for code, value in in_file.items()}, tuple(infos.values())
