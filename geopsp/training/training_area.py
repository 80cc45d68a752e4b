"""The ground and the time of the training chips, which a saved model tells."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pyproj
import shapely
from affine import Affine
from rasterio.crs import CRS
from shapely.geometry import shape

from geopsp.core.grid import Grid
from geopsp.core.pixel_size import ground_size
from geopsp.models.training_area import TRAINING_AREA, known_area
from geopsp.training.training_data import TrainingData
from geopsp.vector.antimeridian import WGS84
from geopsp.vector.footprint import geojson_fields, hull_in_wgs84


def training_area(data: TrainingData) -> dict[str, Any]:
    """Return number, hull, pixel size on the ground and time range of the training chips, as far as they are known.

    "geometry" and "bbox" are those of GeoJSON, "gsd" is in metres, "start" and "end" are times in UTC.
    """
    rows = data.chips.index.iloc[data.train_rows]
    area: dict[str, Any] = {"chips": len(rows)}
    footprints = np.asarray(rows.geometry[rows.geometry.notna()], object)
    if rows.crs is not None and footprints.size:
        area |= geojson_fields(hull_in_wgs84(footprints, pyproj.CRS.from_user_input(rows.crs)))
        area |= {"gsd": _ground_size(data, footprints, rows.crs)}
    ranges = [data.chips.times.get(source) for source in rows["source"].unique()]
    known = [found for found in ranges if found is not None]
    if known and len(known) == len(ranges):
        area |= {"start": min(start for start, _ in known), "end": max(end for _, end in known)}
    return area


def with_area(settings: Mapping[str, Any], data: TrainingData, history: Sequence[Any]) -> dict[str, Any]:
    """Return settings with the area of the data; of a model with a history, joined with that of before."""
    area = training_area(data)
    if history:
        area = _joined(known_area(settings), area)
    return {**settings, TRAINING_AREA: area}


def _joined(one: Mapping[str, Any], other: Mapping[str, Any]) -> dict[str, Any]:
    """Return the hull and the time range of two areas; what is not known of both is left out."""
    if one == other:
        return dict(other)
    found: dict[str, Any] = {}
    if "geometry" in one and "geometry" in other:
        shapes = np.array([shape(area["geometry"]) for area in (one, other)], object)
        found |= geojson_fields(hull_in_wgs84(shapes, WGS84)) | {"gsd": other["gsd"]}
    if "start" in one and "start" in other:
        found |= {"start": min(one["start"], other["start"]), "end": max(one["end"], other["end"])}
    return found


def _ground_size(data: TrainingData, footprints: Any, crs: Any) -> float:
    """Return the height of a pixel on the ground in metres, in the middle of the chips."""
    left, bottom, right, top = shapely.total_bounds(footprints)
    width, height = data.chips.cell_size
    transform = Affine(width, 0, (left + right) / 2, 0, -height, (bottom + top) / 2)
    return float(f"{ground_size(Grid(CRS.from_user_input(crs), transform, 1, 1))[1]:.6g}")
