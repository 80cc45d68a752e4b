"""Labels in several vector files, such as one for each image."""

from __future__ import annotations

import glob
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd

from geopsp.core.documents import is_regular
from geopsp.core.text import format_count
from geopsp.errors import LabelError
from geopsp.raster.open import RASTER_ENDINGS
from geopsp.vector.open import LAYER_SEPARATOR, VECTOR_ENDINGS, open_layer

logger = logging.getLogger(__name__)


def find_vector_files(labels: Any) -> list[str] | None:
    """Return the files of a list, a folder or a glob of several vector files; None if `labels` is anything else."""
    if isinstance(labels, list | tuple):
        names = [str(item) for item in labels if isinstance(item, str | Path)]
        return names if len(names) == len(labels) and all(map(_is_vector, names)) and names else None
    if not isinstance(labels, str | Path) or LAYER_SEPARATOR in str(labels) or is_regular(labels):
        return None
    path = Path(labels)
    if os.path.isdir(path):  # noqa: PTH112 (False for a name that is too long)
        found = sorted(str(file) for file in path.iterdir() if file.suffix.lower() not in {".json", ".csv"})
        if _is_vector(path.name) or any(Path(name).suffix.lower() in RASTER_ENDINGS for name in found):
            return None  # a geodatabase, or masks
    else:
        found = sorted(glob.glob(str(labels), recursive=True))  # noqa: PTH207 (patterns may be absolute)
    files = [name for name in found if _is_vector(name) and not Path(name).name.startswith(".")]
    return files if len(files) > 1 else None


def read_vector_files(files: Sequence[str]) -> gpd.GeoDataFrame:
    """Return the features of all files in the CRS of the first one; files without features are left out.

    Raises:
        InputNotFoundError, LabelError: if a file cannot be read, or has no CRS, or if there are no features.
    """
    frames: list[gpd.GeoDataFrame] = []
    for file in files:
        layer = open_layer(file)
        if not len(frame := layer.read()):
            continue
        if frame.crs is None:
            raise LabelError(f"{layer.source} has no CRS, so it cannot be combined with others. Assign one.")
        frame = frame.rename_geometry("geometry") if frame.geometry.name != "geometry" else frame
        frames.append(frame if not frames else frame.to_crs(frames[0].crs))
    if not frames:
        raise LabelError(f"{format_count(len(files), 'vector file')} ({files[0]} ...) have no features.")
    combined = gpd.GeoDataFrame(pd.concat(frames, ignore_index=True), geometry="geometry", crs=frames[0].crs)
    read, left_out = format_count(len(frames), "vector file"), len(files) - len(frames)
    empty = f"; {format_count(left_out, 'file')} without any" if left_out else ""
    logger.info(f"Read {format_count(len(combined), 'feature')} of {read}{empty}.")
    return combined


def _is_vector(name: str) -> bool:
    return Path(name.partition(LAYER_SEPARATOR)[0]).suffix.lower() in VECTOR_ENDINGS
