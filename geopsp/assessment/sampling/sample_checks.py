"""Checks of the layers of a sample file, which people edit in QGIS."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
from numpy.typing import NDArray
from pydantic import BaseModel

from geopsp.core.argument_names import suggest_names
from geopsp.core.documents import DocumentError
from geopsp.core.grid import Grid
from geopsp.core.schema import require_fit
from geopsp.errors import LabelError

MAX_MOVE = 0.5
"""Pixels by which a point may lie off the centre of its pixel."""


MOST_NAMED = 8
"""Points that a message names."""


WHOLE, REAL = ("id", "map_code", "pixel_row", "pixel_col"), ("inclusion_probability", "pixel_area")
"""Fields of numbers that no point may lack."""


def require_columns(path: str | Path, layer: str, frame: pd.DataFrame, names: Sequence[str]) -> None:
    """Check that a layer has fields.

    Raises:
        LabelError: if one is missing; it names the fields that are there.
    """
    others = [str(name) for name in frame.columns if name not in {*names, "geometry"}]
    for name in names:
        if name not in frame.columns:
            near = suggest_names(name, others)
            hint = f" Was it renamed to {near[0]!r}?" if near else ""
            raise LabelError(
                f"{path} has no field {name!r} in its layer {layer}, which has {', '.join(map(str, frame.columns))}."
                f"{hint} Give it its name back."
            )


def table_rows(table: pd.DataFrame, schema: type[BaseModel]) -> list[dict[str, Any]]:
    """Return the rows of a table without geometry as dicts, checked; None where a cell is empty.

    Raises:
        DocumentError: if a row does not fit.
    """
    rows = []
    for record in table.to_dict("records"):
        row = {str(name): _plain(value) for name, value in record.items() if name in schema.model_fields}
        require_fit(row, schema)
        rows.append(row)
    if not rows:
        raise DocumentError("a table has no rows")
    return rows


def _plain(value: Any) -> Any:
    """Return a cell as Python's own value."""
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return None
    return value.item() if isinstance(value, np.generic) else value


def check_points(path: str | Path, points: gpd.GeoDataFrame, grid: Grid) -> gpd.GeoDataFrame:
    """Check the points of a sample, and return them with whole numbers as such, in the CRS of the map.

    Args:
        path: The file, for messages.
        points: With all fields.
        grid: Grid of the map.

    Raises:
        LabelError: if points were added, copied or moved, or lack what estimators need.
    """
    if points.empty:
        raise LabelError(f"{path} has no points: all were deleted. Draw the sample again.")
    points = points.copy()
    numbers = {name: pd.to_numeric(points[name], errors="coerce") for name in (*WHOLE, *REAL, "cluster", "confidence")}
    probability = numbers["inclusion_probability"]
    _refuse(
        path, points, ~((probability > 0) & (probability <= 1)),
        "no inclusion probability from 0 to 1: points that were added by hand have none, so that nothing can be "
        "estimated from them. Remove them",
    )  # fmt: skip
    for name in WHOLE:
        _refuse(path, points, numbers[name].isna() | (numbers[name] % 1 != 0), f"no whole number in {name}. Undo that")
        points[name] = numbers[name].astype(np.int64)
    for name in REAL:
        _refuse(path, points, ~np.isfinite(numbers[name].astype(float)), f"no number in {name}. Undo that")
        points[name] = numbers[name].astype(np.float64)
    for name in ("map_class", "stratum"):
        _refuse(path, points, ~points[name].map(lambda value: isinstance(value, str)), f"no {name}. Undo that")
    points["cluster"] = numbers["cluster"].astype("Int64")
    points["confidence"] = numbers["confidence"].astype(np.float64)
    _refuse(path, points, points["id"].duplicated(keep=False), "the same id. Remove the copies")
    place = points["pixel_row"] * grid.width + points["pixel_col"]
    _refuse(path, points, place.duplicated(keep=False), "the same pixel. Remove the copies")
    return _check_places(path, points, grid)


def _check_places(path: str | Path, points: gpd.GeoDataFrame, grid: Grid) -> gpd.GeoDataFrame:
    """Check that each point lies in its pixel."""
    rows, cols = points["pixel_row"], points["pixel_col"]
    outside = (rows < 0) | (rows >= grid.height) | (cols < 0) | (cols >= grid.width)
    _refuse(path, points, outside, "a pixel outside of the map. Undo that")
    crs = pyproj.CRS.from_wkt(grid.crs.to_wkt())
    if points.crs is not None and not crs.equals(points.crs, ignore_axis_order=True):
        points = points.to_crs(crs)
    wrong = points.geometry.isna() | (points.geom_type != "Point") | points.geometry.is_empty
    _refuse(path, points, wrong, "no place. Undo that")
    found = grid.to_pixel_coordinates(shapely.get_coordinates(points.geometry.to_numpy()))
    off = np.abs(found - np.column_stack([cols + 0.5, rows + 0.5])).max(axis=1) > MAX_MOVE + 1e-6
    _refuse(
        path, points, off,
        "a place outside of their pixel: they were moved, so that their label may belong to other ground. Move them "
        "back, or delete them",
    )  # fmt: skip
    return points


def _refuse(path: str | Path, points: gpd.GeoDataFrame, wrong: pd.Series | NDArray[np.bool_], what: str) -> None:
    """Raise an error that names the points that are wrong."""
    chosen = points["id"][np.asarray(wrong, bool)]
    if len(chosen):
        ids = ["without id" if pd.isna(number) else f"{number}" for number in chosen[:MOST_NAMED]]
        more = f" and {len(chosen) - MOST_NAMED:,} more" if len(chosen) > MOST_NAMED else ""
        raise LabelError(f"{path} has points with {what} (id {', '.join(ids)}{more}).")
