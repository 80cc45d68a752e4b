"""The keywords of `classify_pixels`: what may be asked of a map and of its polygons."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, TypedDict

import geopandas as gpd

from geopsp.errors import OptionError
from geopsp.maps.products import ProbabilityType
from geopsp.maps.settings import Precision
from geopsp.polygons.settings import PolygonOptions, PolygonSettings


class MapOptions(TypedDict, total=False):
    """What may be asked of a map, by keyword; each may be left out."""

    polygons: str | Path | None
    """Also a vector file of the map (.gpkg, .parquet, .fgb, .geojson, .shp)."""

    polygon_options: PolygonOptions
    """How they are made: options of `raster_to_polygons`, but its confidence, which is that of the map if asked for."""

    probabilities: str | Path | None
    """Also a GeoTIFF with one band a class."""

    probability_type: ProbabilityType
    """"uint8" (the default): round(254 p), nodata 255; "float16": p itself, nodata NaN."""

    confidence: str | Path | None
    """Also a GeoTIFF of the probability of the class that was chosen."""

    disagreement: str | Path | None
    """Also a GeoTIFF of how far overlapping tiles differ: the share of their probabilities that they do not share."""

    bands: Sequence[str | int] | None
    """The model's bands in the images, by name or number from 1; None: by the names that the model knows."""

    extent: Sequence[float] | None
    """Left, bottom, right and top, in the CRS of the first image, beyond which nothing is mapped; None: all."""

    aoi: str | Path | gpd.GeoDataFrame | None
    """Polygons outside of which the map holds nodata: FILE, FILE|layername=LAYER or a GeoDataFrame."""

    cell_size: float | None
    """Side of a pixel in CRS units, to which images are resampled; None: as they are."""

    order: str
    """Which image lies on top: "given" (the default), "newest", "oldest", or a field; "-field": its largest first."""

    tile_size: int | None
    """Side of a tile in pixels; None: as the model was trained, which is what pyramid pooling needs."""

    padding: int | None
    """Pixels by which tiles overlap; None: a quarter of a tile."""

    batch_size: int | None
    """Tiles at a time; None: what fits."""

    test_time_augmentation: bool
    """True shows each tile in its eight symmetries and takes the mean. Default: False."""

    predict_background: bool
    """False never predicts the class background, but what comes next. Default: True."""

    sieve: int
    """Regions of fewer pixels join their largest neighbour; 0 (the default): none."""

    precision: Precision
    """"fp32", "bf16", or "auto" (the default): bf16 where processor or GPU have it in hardware."""

    compiled: bool
    """True compiles the network first: minutes before, less time for each tile. Default: False."""

    device: str | None
    """As torch names it; None: the first GPU, else the CPU."""

    client: Any
    """A Dask client, on whose workers the map is made."""

    scheduler: str | None
    """The address of a Dask scheduler instead ("tcp://host:port"), or "local": a process for each GPU or core here."""

    overwrite: bool
    """True may replace outputs. Default: False."""


def check_options(options: Mapping[str, Any]) -> None:
    """Nothing, if all are known and none contradicts another.

    Raises:
        OptionError: if not.
    """
    unknown = sorted(set(options) - set(MapOptions.__annotations__))
    if unknown:
        known = ", ".join(sorted((*MapOptions.__annotations__, "per_image")))
        raise OptionError(f"No such option: {', '.join(unknown)}; there are {known}.")
    if options.get("client") is not None and options.get("scheduler") is not None:
        raise OptionError("client and scheduler are both given; needed one of them. Leave the other out.")


def check_polygons(options: MapOptions) -> PolygonSettings:
    """What is asked of the polygons.

    Raises:
        OptionError: if that cannot be, or there shall be none.
    """
    asked: Any = options.get("polygon_options", {})
    known = [field.name for field in fields(PolygonSettings)]
    if not isinstance(asked, Mapping) or set(asked) - set(known):
        raise OptionError(f"polygon_options is {asked!r}; needed a dict with any of {', '.join(known)}.")
    if asked and options.get("polygons") is None:
        raise OptionError(f"{', '.join(asked)}: these say how polygons are made. Name their file too (polygons).")
    return PolygonSettings(**asked)
