"""Options of maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from geopsp.cluster.options import check_client
from geopsp.core.argument_names import require_known
from geopsp.core.options import (
    DRY_RUN_HELP,
    check_fields,
    from_names,
    only_apply,
    option,
    option_fields,
    option_values,
)
from geopsp.errors import OptionError
from geopsp.models.crf import CRFOptions
from geopsp.polygons.options import PolygonSettings, PolygonSettingsDict
from geopsp.vector.formats import ENDINGS

if TYPE_CHECKING:
    import geopandas as gpd

ProbabilityType = Literal["uint8", "float16"]

EngineName = Literal["auto", "torch", "onnx"]

Unsure = Literal["class", "nodata"]

OTHER = "other"
"""Stands for the remaining classes in `min_confidence`."""

NetworkPrecision = Literal["fp32", "bf16", "fp16"]

Precision = Literal["auto", NetworkPrecision]

PRECISION_HELP = (
    "Precision of the network: auto is bf16 where the hardware has it, fp16 on GPUs that have only that, else fp32."
)


@dataclass(frozen=True, slots=True)
class MapSettings:
    """How a scene is classified.

    Raises:
        OptionError: if one is out of range.
    """

    tile_size: int | None = option(
        None,
        "Side of a tile, a multiple of 32. None: as in training, which is what pyramid pooling needs.",
        minimum=32,
        unit="pixels",
    )
    padding: int | None = option(
        None, "Margin by which tiles overlap. None: a quarter of a tile.", minimum=0, unit="pixels"
    )
    batch_size: int | None = option(None, "Tiles per batch. None: as many as fit into memory.", minimum=1, unit="tiles")
    test_time_augmentation: bool = option(
        False,
        "Average the predictions of 8 flips and rotations of each tile. Usually more accurate, 8 times slower.",
        flag="--tta --test-time-augmentation",
        shell_help="Test-time augmentation: average predictions over 8 flips and rotations. Usually more accurate, 8x "
        "slower.",
    )
    predict_background: bool = option(
        True,
        "False: never predict the class background; use the next most probable class.",
        flag="--no-background",
        shell_help="Never predict background; use the next most probable class.",
    )
    crf: bool | CRFOptions = option(
        False,
        "Move the borders of classes to edges of the image by a fully connected CRF on the blended probabilities: "
        "True, or its parameters, as `CRFOptions`. Confidence and probabilities are then those of the CRF.",
        shell_help="Move the borders of classes to edges of the image by a fully connected CRF. Any --crf-... "
        "option turns it on.",
    )
    sieve: int = option(
        0,
        "Merge regions (4-connected) of fewer pixels into their largest neighbour, as gdal_sieve does. 0: off.",
        minimum=0,
        unit="pixels",
        metavar="N",
    )
    precision: Precision = option(
        "auto",
        PRECISION_HELP,
        choices=get_args(Precision),
    )
    compiled: bool | None = option(
        None,
        "Compile the network first (torch.compile): takes minutes, but each tile is faster. None: only on a GPU, from "
        "20,000 tiles.",
        flag="--compile --compiled/--no-compile",
    )

    calibrated: bool = option(
        True,
        "Give confidence and probabilities as the model was calibrated, if it was; classes do not change. Those of a "
        "`crf` are never calibrated. False: those of the network itself.",
        flag="--no-calibrated",
        shell_help="Give the network's own confidence and probabilities, as if the model was not calibrated. "
        "Those of a `crf` are never calibrated.",
    )
    min_confidence: float | Mapping[str, float] | None = option(
        None,
        "Least confidence, 0 to 1, that a pixel needs to keep its class; others are `unsure`. One number, or one "
        "for each class by name: {'building': 0.7, 'other': 0.5}, where other stands for the remaining classes, "
        "unless a class has this name; classes that are not named need none. None: all pixels keep their class.",
        shell_help="Least confidence, 0 to 1, that a pixel needs to keep its class; see `unsure` for the others. One "
        "number, or one for each class, e.g. building=0.7,other=0.5, where other stands for the remaining classes, "
        "unless a class has this name; classes that are not named need none. Default: all pixels keep their class.",
        metavar="P|NAME=P,...",
    )
    unsure: Unsure = option(
        "class",
        "What pixels below `min_confidence` become: class is a class of their own, unsure, with the code after the "
        "highest of the model; nodata is nodata.",
        choices=get_args(Unsure),
    )

    def __post_init__(self) -> None:
        check_fields(self)
        self._check_confidence()
        if not isinstance(self.crf, bool | CRFOptions):
            raise OptionError(f"`crf` is {self.crf!r}, but must be True, False or a `CRFOptions`.")

    def _check_confidence(self) -> None:
        if self.min_confidence is not None:
            _require_confidence(self.min_confidence)
        elif self.unsure != "class":
            raise OptionError(
                f"{only_apply(['unsure'])} to pixels below a confidence. Add `min_confidence`, e.g. 0.6, or leave it "
                "out."
            )


@dataclass(frozen=True, slots=True)
class MapOptions(MapSettings):
    """All options of `classify_pixels`.

    Raises:
        OptionError: if one is out of range, or two contradict each other.
    """

    per_image: bool = option(
        False,
        "Make a map of each image, not one mosaic of all. `out` and the other outputs are then folders, the files have "
        "the names of the images, and a list of the maps is returned. Existing maps of the same call are kept, and so "
        "are their polygons; with `overwrite` these are made again.",
        shell_help="Make a map of each image, not one mosaic of all; --out and the other outputs are then folders.",
    )
    polygons: str | Path | None = option(
        None, f"Also write the map as polygons to this file ({ENDINGS}). None: no polygons."
    )
    polygon_options: PolygonSettingsDict | None = option(
        None,
        "How the polygons are made: a dict of options of `raster_to_polygons` from `connectivity` to `regularize`. "
        "None: their defaults.",
        flag="",
    )
    probabilities: str | Path | None = option(
        None, "Also write a GeoTIFF with the probability of each class, one band per class. None: not written."
    )
    probability_type: ProbabilityType = option(
        "uint8",
        "How probabilities p are stored: uint8 is round(254 p) with nodata 255, float16 is p with nodata NaN.",
        choices=get_args(ProbabilityType),
    )
    confidence: str | Path | None = option(
        None, "Also write a GeoTIFF with the probability of the predicted class. None: not written."
    )
    disagreement: str | Path | None = option(
        None, "Also write a GeoTIFF of how much overlapping tiles differ, 0 to 1. None: not written."
    )
    stac: bool = option(
        False,
        "Also write a STAC Item of the map, with all its files, beside it: NAME.stac.json.",
    )
    bands: Sequence[str | int] | None = option(
        None, "The bands of the images, in the model's order, by name or number from 1. None: by the model's names."
    )
    extent: Sequence[float] | None = option(
        None,
        "Left, bottom, right and top in the CRS of the first image; only this area is mapped. None: all.",
        unit="CRS units",
    )
    aoi: str | Path | gpd.GeoDataFrame | None = option(
        None,
        "Area of interest: polygons (FILE or FILE|layername=LAYER) outside of which the map is nodata. None: all.",
    )
    cell_size: float | None = option(
        None,
        "Resample the images to this pixel size. None: as they are.",
        above=0,
        unit="CRS units",
    )
    order: str = option(
        "given",
        "Which image is on top where images overlap: given (the first), newest, oldest, or the name of a field of "
        "their metadata; with a minus before it, the largest value is on top.",
    )
    allow_resolution_mismatch: bool = option(
        False, "Map images whose pixels are more than 4 times larger or smaller than those of the training, too."
    )
    device: str | None = option(
        None, 'Device as torch names it, e.g. "cpu" or "cuda:1". None: the first GPU, else the CPU.'
    )
    engine: EngineName = option(
        "auto",
        "What runs the network: torch (PyTorch) or onnx (ONNX Runtime, on the CPU; a saved model is exported for the "
        "map first). auto: onnx for an .onnx file, else torch.",
        choices=get_args(EngineName),
    )
    client: Any = option(None, "A Dask client; its workers make the map. None: this machine.", flag="")
    scheduler: str | None = option(
        None,
        "Make the map on a Dask cluster: the address of its scheduler (tcp://HOST:PORT), or local (one process per GPU "
        "or CPU core of this machine). None: in this process.",
    )
    overwrite: bool = option(False, "Replace outputs that exist.")
    dry_run: bool = option(False, DRY_RUN_HELP)

    def __post_init__(self) -> None:
        MapSettings.__post_init__(self)
        _require_bands(self.bands)
        check_client(self.client, self.scheduler)
        self._check_polygon_options()

    def _check_polygon_options(self) -> None:
        given: Any = {} if self.polygon_options is None else self.polygon_options
        if not isinstance(given, Mapping):
            raise OptionError(f"`polygon_options` is {given!r}, but must be a dict of options of raster_to_polygons.")
        require_known(given, option_fields(PolygonSettings), "`polygon_options`")
        if given and self.polygons is None:
            raise OptionError(f"{only_apply(given)} to polygon output. Add `polygons`, the file to write them to.")
        PolygonSettings(**given)

    @property
    def settings(self) -> MapSettings:
        """How the scene is classified, without files and devices."""
        return from_names(MapSettings, option_values(self))

    @property
    def polygon_settings(self) -> PolygonSettings:
        """How polygons are made."""
        return PolygonSettings(**(self.polygon_options or {}))


def _require_bands(bands: Any) -> None:
    """Raise OptionError unless `bands` is None or a list of different names or numbers."""
    if bands is None:
        return
    if not isinstance(bands, list | tuple) or not all(
        isinstance(band, str | int) and not isinstance(band, bool) for band in bands
    ):
        raise OptionError(f"`bands` is {bands!r}, but must be a list of names, or of numbers from 1.")
    named = [str(band).lower().removeprefix("band_") for band in bands]
    twice = [str(band) for band, name in zip(bands, named, strict=True) if named.count(name) > 1]
    if twice:
        raise OptionError(f"`bands` has {twice[0]} twice, but must name each of the model's bands once.")


def _require_confidence(given: Any) -> None:
    """Raise OptionError unless `min_confidence` is a number from 0 to 1, or such numbers by name."""
    values = given if isinstance(given, Mapping) and given else {None: given}
    for name, value in values.items():
        if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
            where = "" if name is None else f" for the class {name!r}"
            raise OptionError(
                f"`min_confidence` is {value!r}{where}, but must be a number from 0 to 1, for all classes or for each."
            )
