"""Options of chips: which images and labels are read, and which chips are cut from them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from geopsp.cluster.options import check_client
from geopsp.core.options import check_fields, check_nodata, option, option_fields
from geopsp.errors import OptionError

if TYPE_CHECKING:
    import geopandas as gpd

AreaRule = Literal["mask", "inside"]


Background = Literal["class", "ignore"]


ChipFormat = Literal["tif", "png", "jpg"]


@dataclass(frozen=True, slots=True)
class LabelOptions:
    """How labels are read: the options of `read_labels`, and the area of interest."""

    class_field: str | None = option(
        None, "The attribute of the polygons that holds the class, names or numbers. None: all are one class."
    )
    background: Background = option(
        "class",
        'Pixels outside of all polygons: class is a class of their own, "background" with code 0; ignore leaves them '
        "unlabelled.",
        choices=get_args(Background),
    )
    all_touched: bool = option(
        False, "Label every pixel that a polygon touches, not only those whose centre it covers."
    )
    priority: Sequence[str] | None = option(
        None,
        "Class names, the one on top first, for places where polygons overlap. None: smaller polygons are on top.",
    )
    priority_field: str | None = option(
        None, "A numeric attribute; where polygons overlap, the larger value is on top. None: smaller polygons are."
    )
    where: str | None = option(
        None, "Read only labels that meet this SQL condition, e.g. kind = 'road' AND width > 3. None: all."
    )
    class_mapping: Mapping[Any, Any] | str | Path | None = option(
        None,
        "A dict, or a YAML file of one, that renames or merges classes and sets codes and colours, e.g. "
        '{3: {"name": "water", "color": "#2b6cb0"}}; equal names merge, None makes unlabelled, "*" is all other '
        "values. None: classes stay as they are.",
        shell_help="YAML file that renames or merges classes and sets codes and colours, e.g. "
        "`3: {name: water, color: '#2b6cb0'}`; equal names merge, null makes unlabelled, '*' is all other values.",
    )
    buffer: float = option(
        0.0,
        "Distance by which lines and points are widened to polygons. 0: they are left out.",
        minimum=0,
        unit="metres",
    )
    label_nodata: int | str | None = option(
        None,
        "The value of unlabelled pixels in label rasters; none: no value is, so that all are classes, also 0 and 255. "
        "None: the nodata value of each file, and 255.",
        metavar="VALUE",
    )
    mask_classes: Mapping[Any, Any] | str | Path | None = option(
        None,
        "The classes of masks: a CSV file with the header name,r,g,b (or name,color or name,code), a JSON file, or a "
        'dict such as {"water": "#2b6cb0"}. Other colours are unlabelled. None: the values of label rasters are class '
        "codes.",
        shell_help="The classes of masks: a CSV file with the header name,r,g,b (or name,color or name,code), or a "
        "JSON file. Other colours are unlabelled. Default: the values of label rasters are class codes.",
    )
    aoi: str | Path | gpd.GeoDataFrame | None = option(
        None,
        "Area of interest: polygons (FILE or FILE|layername=LAYER) outside of which nothing is labelled. None: all.",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        check_nodata("label_nodata", self.label_nodata)


@dataclass(frozen=True, slots=True)
class ImageOptions:
    """How images are read: the options of `open_scenes`."""

    bands: Sequence[str | int] | None = option(None, "The bands to use, by name or number from 1. None: all.")
    per_image: bool = option(
        True,
        "Use each image on its own pixel grid. False: all images as one mosaic on the grid of the first.",
        flag="--mosaic",
        shell_help="Use all images as one mosaic on the grid of the first. Default: each on its own grid.",
    )
    order: str = option(
        "given",
        "Which image is on top where images overlap: given (the first), newest, oldest, or the name of a field of "
        "their metadata; with a minus before it, the largest value is on top.",
    )
    cell_size: float | None = option(
        None, "Resample the images to this pixel size. None: as they are.", above=0, unit="CRS units"
    )
    extent: Sequence[float] | None = option(
        None,
        "Left, bottom, right and top in the CRS of the first image; only this area is used. None: all.",
        unit="CRS units",
    )
    scaled: bool | None = option(
        None,
        "Physical values, raw * scale + offset of each band, as float32; False: values as files store them. None: as "
        "files store them, but physical where files differ in scale or offset.",
        flag="--scaled/--no-scaled",
    )

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class ChipSpec:
    """Which chips are cut.

    Raises:
        OptionError: if an option is out of range, or no chip could be cut.
    """

    tile_size: int = option(256, "Side of a chip.", minimum=16, unit="pixels", flag="--size")
    stride: int | None = option(
        None,
        "Distance from one chip to the next. None: the size of a chip, so that chips touch.",
        minimum=1,
        unit="pixels",
    )
    rotation_angle: float = option(
        0.0,
        "Also cut rotated copies of each chip, this many degrees apart. 0: no copies.",
        minimum=0,
        below=360,
        unit="degrees",
    )
    min_labelled: float = option(
        0.0, "Leave out chips with a smaller fraction of labelled pixels.", minimum=0, maximum=1
    )
    min_valid: float = option(
        0.0,
        "Leave out chips with a smaller fraction of valid pixels; chips without any are always left out.",
        minimum=0,
        maximum=1,
    )
    skip_empty: bool = option(False, "Leave out chips that contain only background.")
    aoi_rule: AreaRule = option(
        "mask",
        "What happens at the edge of the area of interest: mask makes pixels outside unlabelled; inside leaves out "
        "chips that are not completely inside.",
        choices=get_args(AreaRule),
    )
    grid: bool = option(
        True,
        "Cut chips on a regular grid. False: only random chips.",
        flag="--no-grid",
        shell_help="Cut only random chips, none on the regular grid.",
    )
    random_chips: int = option(
        0,
        "Cut this many random chips, too, centred so that all classes come up equally often.",
        minimum=0,
        unit="chips",
    )
    seed: int = option(42, "Random seed for `random_chips`.", minimum=0)

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.grid and not self.random_chips:
            raise OptionError(
                "There is nothing to cut without the grid and without random chips. Leave out `grid=False`, or give "
                "`random_chips`."
            )

    @property
    def step(self) -> int:
        """Pixels from one chip to the next."""
        return self.stride or self.tile_size

    @property
    def asks_for_labels(self) -> bool:
        """True if labels alone can rule a chip out."""
        return self.min_labelled > 0 or self.skip_empty or self.aoi_rule == "inside"

    @property
    def angles(self) -> tuple[float, ...]:
        """Angles of the rotated copies, in degrees."""
        step = float(self.rotation_angle)
        return tuple(step + n * step for n in range(math.ceil((360 - 1e-9 - step) / step))) if step else ()


@dataclass(frozen=True, slots=True)
class ExportOptions:
    """How chips are written."""

    chip_format: ChipFormat = option(
        "tif",
        "File format of the images: tif, or png or jpg where pixel type and number of bands allow. Labels are always "
        "lossless.",
        choices=get_args(ChipFormat),
        flag="--format",
    )
    append: bool = option(False, "Add to an existing chip folder; its chips stay as they are.")
    overwrite: bool = option(False, "Replace outputs that exist.")
    workers: int | None = option(None, "Threads. None: one per CPU core.", minimum=1, unit="threads")
    client: Any = option(None, "A Dask client; its workers cut the chips. None: this machine.", flag="")
    scheduler: str | None = option(
        None,
        "Cut the chips on a Dask cluster: the address of its scheduler (tcp://HOST:PORT), or local (one process per "
        "CPU core of this machine). None: in this process.",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        check_client(self.client, self.scheduler)
        if self.workers is not None and (self.client is not None or self.scheduler is not None):
            raise OptionError(
                "`workers` are threads of this process, but a Dask cluster cuts the chips. Leave out `workers`, or "
                "`client` and `scheduler`."
            )
        if self.append and self.overwrite:
            raise OptionError("`append` and `overwrite` exclude each other. Choose one.")


CUTTING = (LabelOptions, ImageOptions, ChipSpec)
"""The options that decide which chips are cut."""


NOT_IN_OLD_KEYS = {"label_nodata", "mask_classes", "scaled"}
"""Options that the keys of older exports do not have: they are in a key only if they are given."""


def defaults() -> dict[str, Any]:
    """Return the defaults of all options of labels and images that are in the key of every export."""
    found = option_fields(LabelOptions, ImageOptions)
    return {name: entry.default for name, entry in found.items() if name not in NOT_IN_OLD_KEYS}


def changed_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options of cutting that are not at their default."""
    found = {}
    for name, entry in option_fields(*CUTTING).items():
        value, default = options[name], entry.default
        if value is not None and (type(value) is not type(default) or value != default):
            found[name] = value
    return found
