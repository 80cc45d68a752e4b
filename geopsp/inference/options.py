"""What a user may ask of a prediction."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, TypedDict

import geopandas as gpd

from geopsp.errors import OptionError
from geopsp.inference.outputs import ProbabilityType
from geopsp.models.device import Precision
from geopsp.polygons.options import PolygonOptions, PolygonSettings

BOOLS = ("per_image", "overwrite")


WORDS = ("order", "device", "scheduler")


FILES = ("out", "polygons", "probabilities", "confidence", "disagreement")


@dataclass(frozen=True, slots=True)
class MapSettings:
    """How a scene is mapped; each default stands here."""

    tile_size: int | None = None
    """Side of a tile in pixels; None: as the model was trained, which is what pyramid pooling needs."""

    padding: int | None = None
    """Pixels by which tiles overlap; None: a quarter of a tile."""

    batch_size: int | None = None
    """Tiles at a time; None: what fits."""

    test_time_augmentation: bool = False
    """True shows each tile in its eight symmetries and takes the mean."""

    predict_background: bool = True
    """False never predicts the class background, but what comes next."""

    sieve: int = 0
    """Regions (4-connected) of fewer pixels join their largest neighbour, as gdal_sieve does it; 0: none."""

    precision: Precision = "auto"
    """"bf16", "fp32", or "auto": bf16 where the processor or GPU has it in hardware."""

    compiled: bool = False
    """True compiles the network first (torch.compile): minutes before, less time for each tile."""

    def __post_init__(self) -> None:
        for name, least in (("tile_size", 32), ("padding", 0), ("batch_size", 1), ("sieve", 0)):
            value = getattr(self, name)
            if value is None and name != "sieve":
                continue
            if isinstance(value, bool) or not (isinstance(value, int) and value >= least):
                raise OptionError(f"{name} is {value!r}; needed a whole number from {least}.")
        for name in ("test_time_augmentation", "predict_background", "compiled"):
            _require_bool(name, getattr(self, name))
        if self.precision not in ("auto", "fp32", "bf16"):
            raise OptionError(f"precision is {self.precision!r}; needed auto, fp32 or bf16.")


def check_types(options: Mapping[str, Any]) -> None:
    """Nothing, if all options are of their types; those of `MapSettings` are not looked at.

    Raises:
        OptionError: if one is not.
    """
    for name, value in options.items():
        if name in BOOLS:
            _require_bool(name, value)
        elif name in FILES:
            _require_file(name, value)
        elif name in WORDS and (value is not None or name == "order") and not (isinstance(value, str) and value):
            raise OptionError(f"{name} is {value!r}; needed a text.")
    if isinstance(options.get("aoi"), str) and not options["aoi"]:
        raise OptionError("aoi is '', which names nothing; needed a file, or None.")
    if isinstance(options.get("cell_size"), bool):
        raise OptionError(f"cell_size is {options['cell_size']!r}; needed a number.")
    _require_bands(options.get("bands"))
    client = options.get("client")
    if client is not None and not all(callable(getattr(client, name, None)) for name in ("map", "nthreads")):
        raise OptionError(f"client is {client!r}; needed a Dask client. An address goes to scheduler.")


def _require_bool(name: str, value: Any) -> None:
    if not isinstance(value, bool):
        raise OptionError(f"{name} is {value!r}; needed True or False.")


def _require_file(name: str, value: Any) -> None:
    """Raises OptionError unless it names a file or folder, or is None where it may be."""
    if value is None and name != "out":
        return
    if not isinstance(value, str | Path):
        raise OptionError(f"{name} is {value!r}; needed the path of a file.")
    if not str(value):
        raise OptionError(f"{name} is {value!r}, which names nothing; needed the path of a file.")


def _require_bands(bands: Any) -> None:
    if bands is None:
        return
    if not isinstance(bands, list | tuple) or not all(
        isinstance(b, str | int) and not isinstance(b, bool) for b in bands
    ):
        raise OptionError(f"bands is {bands!r}; needed a list of names or of numbers from 1.")
    named = [str(band).lower().removeprefix("band_") for band in bands]
    twice = [str(band) for band, name in zip(bands, named, strict=True) if named.count(name) > 1]
    if twice:
        raise OptionError(
            f"bands holds {twice[0]} more than once; needed each of the model's bands. Name the other one."
        )


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
