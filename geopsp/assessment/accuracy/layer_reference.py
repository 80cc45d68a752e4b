"""Points that are no sample of `draw_sample`, with the classes of the map that is assessed."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
from numpy.typing import NDArray

from geopsp.assessment.accuracy.accuracy_tables import Design
from geopsp.assessment.accuracy.assessed_points import (
    AssessedPoints,
    OpenMap,
    class_strata_of,
    reference_classes,
    require_field,
    warn_of_nothing,
)
from geopsp.assessment.accuracy.map_pixels import (
    SQUARE_METRES_PER_HECTARE,
    codes_at,
    is_known,
    pixels_at,
    positions,
)
from geopsp.core.text import format_count
from geopsp.errors import LabelError
from geopsp.labels.class_mapping import ClassTarget, Value

logger = logging.getLogger(__name__)


def points_of_layer(
    frame: gpd.GeoDataFrame,
    source: str,
    opened: OpenMap,
    field: str,
    mapping: Mapping[Value, ClassTarget] | None,
    *,
    simple: bool,
) -> AssessedPoints:
    """Return points that are no sample of `draw_sample`.

    Args:
        frame: Points with a CRS.
        source: Their name in messages.
        opened: The map that is assessed.
        field: The field with the reference class.
        mapping: Of reference values to classes.
        simple: True if they are a simple random sample of the map.

    Raises:
        LabelError: if all lie outside of the map, or the field holds no classes of the map.
    """
    require_field(frame.columns, field, source)
    pixels = pixels_at(
        shapely.get_coordinates(frame.geometry.to_numpy()), pyproj.CRS.from_user_input(frame.crs), opened.raster.grid
    )
    if (pixels < 0).all():
        raise LabelError(f"All points of {source} lie outside of the map. Check that both have the right CRS.")
    _warn_of_outside(int((pixels[:, 0] < 0).sum()), len(pixels))
    frame, pixels = frame[pixels[:, 0] >= 0], pixels[pixels[:, 0] >= 0]
    frame, pixels = _once(frame, pixels, field)
    mapped = opened.classes_at(pixels)
    warn_of_nothing(mapped, "nodata")
    known = is_known(mapped)
    frame, pixels, mapped = frame[known], pixels[known], mapped[known]
    if simple:
        table, classes = opened.areas_by_class()
        strata = class_strata_of(table, mapped.tolist())
        method = "Points taken as a simple random sample, post-stratified by the map's classes (Olofsson et al. 2014)"
        design: Design = "simple"
    else:
        codes = codes_at(opened.raster, pixels)
        _, classes = opened.classes(np.unique(codes).astype(np.int64))
        table = pd.DataFrame({"map_class": ["all"], "pixels": [np.inf], "area_ha": [np.nan]})
        strata = class_strata_of(table, ["all"] * len(frame))
        design, method = (
            "unknown",
            "Points of an unknown design: shares of these points, perhaps not of the map",
        )
    reference = reference_classes(frame[field], classes, source, mapping)
    if not simple:
        logger.warning(
            "How the points were chosen is not known, so nothing can be said of the map between them: the accuracies "
            "are shares of these points, without intervals and areas. Draw them with `draw_sample()`, or use "
            "`design='simple'` if each pixel had the same chance."
        )
    return AssessedPoints(
        design=design,
        method=method,
        mapped=mapped,
        reference=reference,
        stratum=positions(mapped, strata["stratum"].tolist()) if simple else np.zeros(len(frame), np.intp),
        strata=strata,
        pixel_area=opened.areas.at(pixels[:, 0], pixels[:, 1]) / SQUARE_METRES_PER_HECTARE
        if simple
        else np.ones(len(frame)),
        mapped_areas=dict(zip(table["map_class"], table["area_ha"].tolist(), strict=True)) if simple else {},
        class_strata=table.assign(stratum=table["map_class"]) if simple else None,
        classes=classes,
    )


def _warn_of_outside(number: int, total: int) -> None:
    if number:
        verb = "lies" if number == 1 else "lie"
        logger.warning(f"{format_count(number, 'point')} of {total:,} {verb} outside of the map, so they do not count.")


def _once(frame: gpd.GeoDataFrame, pixels: NDArray[np.int64], field: str) -> tuple[Any, NDArray[np.int64]]:
    """Return the points without those in the pixel of another one; of several the first labelled one stays."""
    places = pd.DataFrame(pixels, columns=["row", "col"]).assign(empty=frame[field].isna().to_numpy())
    order = places.sort_values("empty", kind="stable").index
    repeated = places.loc[order, ["row", "col"]].duplicated().reindex(places.index).to_numpy()
    if number := int(repeated.sum()):
        verb = "lies" if number == 1 else "lie"
        values = places.assign(value=frame[field].astype(str).to_numpy())[~places["empty"]]
        kinds = values.drop_duplicates(["row", "col", "value"])
        mixed = int((kinds.groupby(["row", "col"]).size() > 1).sum())
        differ = f" In {format_count(mixed, 'pixel')} they have different classes." if mixed else ""
        logger.warning(
            f"{format_count(number, 'point')} of {len(frame):,} {verb} in the pixel of another point, so the "
            f"first of each pixel counts.{differ}"
        )
    return frame[~repeated], pixels[~repeated]
