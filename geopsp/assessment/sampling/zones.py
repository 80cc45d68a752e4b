"""Zones of a map: polygons with a name each."""

from __future__ import annotations

from pathlib import Path

import geopandas as gpd
import pandas as pd

from geopsp.assessment.sampling.strata_raster import MAX_PARTS
from geopsp.core.argument_names import did_you_mean
from geopsp.core.grid import Grid
from geopsp.errors import LabelError, OptionError
from geopsp.labels.polygon_labels import PolygonLabels
from geopsp.labels.read_labels import is_raster, read_labels
from geopsp.vector.open import read_vector

COLUMN = "zone"


def read_zones(
    zones: str | Path | gpd.GeoDataFrame, zone_field: str | None, grid: Grid, *, num_bins: int
) -> PolygonLabels:
    """Read the zones of a map.

    Args:
        zones: A layer of polygons.
        zone_field: The field with the names of the zones; None: each polygon is a zone.
        grid: Grid of the map.
        num_bins: Number of confidence bins into which each zone is divided.

    Raises:
        InputNotFoundError, LabelError: if there is no such layer or field, or no polygon lies on the map.
        OptionError: if `zones` is a raster, or there are too many zones.
    """
    if isinstance(zones, str | Path) and is_raster(zones):
        raise OptionError(f"`zones` is {zones}, a raster, but must be a file of polygons. Polygonize it first.")
    frame, source = read_vector(zones)
    if zone_field is None:
        names = pd.Series([f"zone {number}" for number in range(1, len(frame) + 1)], frame.index)
    elif zone_field in frame.columns and zone_field != frame.active_geometry_name:
        values = frame[zone_field]
        names = values.map(_as_text, na_action="ignore").astype(object)
        names = names.where(values.notna(), None)
    else:
        fields = [str(name) for name in frame.columns if name != frame.active_geometry_name]
        hint = did_you_mean(zone_field, fields)
        raise LabelError(f"{source} has no field {zone_field!r}. Fields: {', '.join(fields) or 'none'}.{hint}")
    number = names.nunique()
    if number * num_bins > MAX_PARTS - 1:
        bins = f" times {num_bins} confidence bins" if num_bins > 1 else ""
        raise OptionError(
            f"{source} has {number:,} zones{bins}, but {MAX_PARTS - 1} are the most. Name zones that several polygons "
            "share with `zone_field`, or use fewer."
        )
    layer = gpd.GeoDataFrame({COLUMN: names}, geometry=frame.geometry, crs=frame.crs)
    labels = read_labels(layer, class_field=COLUMN, background="ignore")
    assert isinstance(labels, PolygonLabels)
    labels.require_overlap(grid)
    return labels


def _as_text(value: object) -> str:
    """Return a name; of a whole number stored as a float, without a point."""
    return str(int(value)) if isinstance(value, float) and value.is_integer() else str(value)
