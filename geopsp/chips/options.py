"""Options of cutting chips."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any, Literal, TypedDict

import geopandas as gpd
import numpy as np

from geopsp.errors import OptionError
from geopsp.labels.class_mapping import Background
from geopsp.labels.read_labels import read_labels
from geopsp.raster.open_scenes import open_scenes

AreaRule = Literal["mask", "inside"]


@dataclass(frozen=True, slots=True)
class ChipSpec:
    """Which chips are cut. Sizes in pixels, shares from 0 to 1."""

    tile_size: int = 256
    stride: int | None = None
    rotation_angle: float = 0.0
    """Degrees from one turned copy of a chip to the next; 0: no copies."""

    min_labelled: float = 0.0
    min_valid: float = 0.0
    skip_empty: bool = False
    """True leaves out chips that show nothing but background."""

    aoi_rule: AreaRule = "mask"
    """"mask": what lies outside the area is unlabelled; "inside": chips that reach out of it are left out."""

    grid: bool = True
    """False leaves out the regular chips, so that only random ones stay."""

    random_chips: int = 0
    """Chips beside the grid, drawn so that each class comes up as often as any other."""

    seed: int = 42

    def __post_init__(self) -> None:
        self._check_types()
        if self.tile_size < 16:
            raise OptionError(f"tile_size is {self.tile_size}; needed at least 16 pixels.")
        if self.stride is not None and self.stride < 1:
            raise OptionError(f"stride is {self.stride}; needed at least 1 pixel.")
        for name in ("min_labelled", "min_valid"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name} is {getattr(self, name)}; needed a share from 0 to 1.")
        if not 0 <= self.rotation_angle < 360:
            raise OptionError(f"rotation_angle is {self.rotation_angle}; needed 0 to below 360 degrees.")
        if self.aoi_rule not in ("mask", "inside"):
            raise OptionError(f"aoi_rule is {self.aoi_rule!r}; needed 'mask' or 'inside'.")
        if self.random_chips < 0 or self.seed < 0:
            raise OptionError(f"random_chips is {self.random_chips}, seed {self.seed}; needed 0 or more.")
        if not self.grid and not self.random_chips:
            raise OptionError("Without the grid and without random chips there is nothing to cut. Ask for one of them.")

    def _check_types(self) -> None:
        for name in ("tile_size", "stride", "random_chips", "seed"):
            value = getattr(self, name)
            if not isinstance(value, int | None) or (value is None and name != "stride"):
                raise OptionError(f"{name} is {value!r}; needed a whole number.")
        for name in ("min_labelled", "min_valid", "rotation_angle"):
            if not isinstance(getattr(self, name), int | float):
                raise OptionError(f"{name} is {getattr(self, name)!r}; needed a number.")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> ChipSpec:
        """Those of all options of cutting that say which chips are cut.

        Raises:
            OptionError: if one is out of range.
        """
        return cls(**{own.name: options[own.name] for own in fields(cls) if own.name in options})

    @property
    def step(self) -> int:
        return self.stride or self.tile_size

    @property
    def asks_for_labels(self) -> bool:
        """True if labels alone can rule a chip out."""
        return self.min_labelled > 0 or self.skip_empty or self.aoi_rule == "inside"

    @property
    def angles(self) -> tuple[float, ...]:
        """Of the turned copies, in degrees."""
        if not self.rotation_angle:
            return ()
        return tuple(float(a) for a in np.arange(self.rotation_angle, 360 - 1e-9, self.rotation_angle))


class ChipOptions(TypedDict, total=False):
    """Options of how chips are cut, from images and labels of all kinds; each may be left out."""

    background: Background
    """"class" (the default): outside of polygons is class 0, "background"; "ignore": it is unlabelled."""

    aoi: str | Path | gpd.GeoDataFrame | None
    """Polygons outside of which nothing is labelled."""

    aoi_rule: AreaRule
    """"mask" (the default): what lies outside the area is unlabelled; "inside": only chips wholly inside are cut."""

    all_touched: bool
    """True burns each pixel that a polygon touches; False those whose centre it covers."""

    where: str | None
    """A query on the attributes of the labels, as after WHERE in SQL: "kind = 'road' AND width > 3"."""

    class_mapping: Mapping[Any, Any] | str | Path | None
    """{class found: its name}, or a YAML file of it; the same name merges, None makes unlabelled, "*" is all others."""

    buffer: float
    """Metres by which lines and points are widened to polygons; 0: they are left out."""

    priority: Sequence[str] | None
    """Class names, the one on top first, for places where polygons overlap; otherwise the smaller is on top."""

    priority_field: str | None
    """A number of each polygon instead: larger ones lie on top."""

    bands: Sequence[str | int] | None
    """Names, or numbers from 1; None: all."""

    per_image: bool
    """True (the default): each image on its own pixel grid; False: all as one mosaic, on the grid of the first."""

    order: str
    """Which image lies on top: "given" (the default), "newest", "oldest", or a field; "-field": its largest first."""

    cell_size: float | None
    """Side of a pixel in CRS units, to which images are resampled; None: as they are."""

    extent: tuple[float, float, float, float] | None
    """Left, bottom, right and top, in the CRS of the images, beyond which nothing is cut; None: all."""

    min_labelled: float
    """Chips with a smaller labelled share are left out."""

    min_valid: float
    """Chips with a smaller share of valid pixels are left out; those without any always are."""

    skip_empty: bool
    """True leaves out chips that show nothing but background."""

    rotation_angle: float
    """Degrees from one turned copy of a chip to the next; 0: no copies."""

    grid: bool
    """False leaves out the regular chips, so that only random ones stay."""

    random_chips: int
    """Chips beside the grid, drawn so that each class comes up as often as any other."""


class ImageChipOptions(ChipOptions, total=False):
    """The same with what `export_training_data` takes by position."""

    class_field: str | None
    """The attribute that holds the class; None: all polygons are one class."""

    tile_size: int
    """Side of a chip in pixels; 256."""

    stride: int | None
    """Pixels from one chip to the next; None: `tile_size`, so that chips touch; more thins them out."""


SCENE_OPTIONS = ("bands", "per_image", "order", "cell_size", "extent")


LABEL_OPTIONS = (
    "class_field", "background", "all_touched", "priority", "priority_field", "where", "class_mapping", "buffer",
)  # fmt: skip


KNOWN_OPTIONS = {*SCENE_OPTIONS, *LABEL_OPTIONS, "aoi", *(option.name for option in fields(ChipSpec))}


@cache
def defaults() -> dict[str, Any]:
    """The options of images and labels, as they are where nothing is said."""
    given = {**signature(open_scenes).parameters, **signature(read_labels).parameters}
    return {name: given[name].default for name in (*SCENE_OPTIONS, *LABEL_OPTIONS)} | {"aoi": None}


def check_options(options: Mapping[str, Any]) -> None:
    """Raises OptionError if there is no such option of cutting."""
    unknown = sorted(set(options) - KNOWN_OPTIONS)
    if unknown:
        raise OptionError(f"No such option: {', '.join(unknown)}; there are {', '.join(sorted(KNOWN_OPTIONS))}.")
