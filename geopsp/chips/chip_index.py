"""The index of a chip folder: its columns and their types."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
from shapely import get_coordinates

TEXTS = ("chip", "label", "source")

NUMBERS = ("col", "row", "angle", "valid", "labelled")


def require_index(index: gpd.GeoDataFrame) -> None:
    """Check that the index of chips has all columns, with values of their types, and footprints of finite coordinates.

    Raises:
        ValueError: if not.
    """
    for name in (*TEXTS, *NUMBERS):
        if name not in index:
            raise ValueError(f"the column {name} is missing")
    for name in TEXTS:
        if not index[name].map(lambda value: isinstance(value, str) and "\0" not in value and value != "").all():
            raise ValueError(f"the column {name} must hold text in every row")
    for name in (*NUMBERS, *(column for column in index.columns if str(column).startswith("pixels_"))):
        if not pd.api.types.is_numeric_dtype(index[name]) or not np.isfinite(index[name].to_numpy(float)).all():
            raise ValueError(f"the column {name} must hold finite numbers")
        if str(name).startswith("pixels_") and (index[name] < 0).any():
            raise ValueError(f"the column {name} holds negative counts")
    if not np.isfinite(get_coordinates(index.geometry.to_numpy())).all():
        raise ValueError("footprints must have finite coordinates")
