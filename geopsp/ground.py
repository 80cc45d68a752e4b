"""What chips are cut from: images, their labels, and the area within which these hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from functools import cache
from inspect import signature
from pathlib import Path
from typing import Any, TypedDict

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray

from geopsp.cutting import AreaRule, Chip, ChipSpec, Truth, chip_of, turn_quarters, turned
from geopsp.errors import LabelError, OptionError
from geopsp.grid import Grid, Window
from geopsp.labels import Area, Background, PolygonLabels, RasterLabels, read_labels
from geopsp.legend import IGNORE, Legend
from geopsp.scene import Images, Scene, open_scenes


class Cutting(TypedDict, total=False):
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


class ImageCutting(Cutting, total=False):
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


@dataclass(frozen=True, slots=True, eq=False)
class Ground:
    """What chips are cut from: scenes, their labels, and the area within which these hold."""

    scenes: tuple[Scene, ...]
    labels: PolygonLabels | RasterLabels
    area: Area | None = None

    renamed: tuple[Legend, NDArray[np.uint8]] | None = None
    """Classes of the chips, and (256,) their codes by the labels' own; None: as the labels have them."""

    notes: tuple[str, ...] = ()
    """Which images the labels miss."""

    @classmethod
    def open(cls, images: Images, labels: str | Path | gpd.GeoDataFrame, **options: Any) -> Ground:
        """Images and labels that meet; of all options of cutting, those that do not say which chips are cut are used.

        Raises:
            InputNotFoundError, RasterError, GridError, BandError, LabelError, OptionError: as the input is.
        """
        check_options(options)
        scenes = open_scenes(images, **{name: options[name] for name in SCENE_OPTIONS if name in options})
        source = read_labels(labels, **{name: options[name] for name in LABEL_OPTIONS if name in options})
        area = Area.read(options["aoi"]) if options.get("aoi") is not None else None
        notes = [note for part in (source, area) if part is not None for note in _misses(part, scenes)]
        return cls(tuple(scenes), source, area, notes=tuple(notes))

    @property
    def legend(self) -> Legend:
        return self.renamed[0] if self.renamed else self.labels.legend

    def under(self, legend: Legend) -> Ground:
        """The same in the codes of another legend, by name, to which the classes that it lacks are added."""
        own, wider = self.labels.legend, legend.extended(self.labels.legend)
        table = np.full(256, IGNORE, np.uint8)
        table[own.codes] = [wider.code_of(name) for name in own.names]
        return replace(self, renamed=(wider, table))

    def in_own_codes(self, counts: Mapping[int, int]) -> dict[int, int]:
        """What is counted by the labels' codes, by those of the chips."""
        return {int(self.renamed[1][code]): n for code, n in counts.items()} if self.renamed else dict(counts)

    def scene(self, name: str) -> Scene:
        return next(scene for scene in self.scenes if scene.name == name)

    def burn(self, grid: Grid) -> Truth:
        """The labels of a grid."""
        burned = self.labels.burn(grid)
        codes, contested = burned.codes, burned.contested
        if self.renamed:
            codes = np.take(self.renamed[1], codes)
        if self.area is None:
            return Truth(codes, contested)
        inside = self.area.inside(grid)
        return Truth(np.where(inside, codes, IGNORE).astype(np.uint8), contested & inside, inside)

    def cut(self, scene: Scene, window: Window, angle: float = 0.0) -> Chip:
        """The pixels of a window, turned about its middle, and their labels; IGNORE where the image is invalid."""
        if angle % 90 == 0:
            patch = scene.read(window)
            return turn_quarters(chip_of(patch, self.burn(patch.grid)), round(angle / 90) % 4)
        patch = scene.read_onto(turned(scene.grid.crop(window), angle))
        return chip_of(patch, self.burn(patch.grid))


def _misses(part: PolygonLabels | RasterLabels | Area, scenes: Sequence[Scene]) -> list[str]:
    """What to say of the images that labels or area do not meet.

    Raises:
        LabelError: if they meet none; that of the first.
    """
    errors: list[LabelError] = []
    notes = []
    for scene in scenes:
        try:
            part.require_overlap(scene.grid)
        except LabelError as error:
            errors.append(error)
            notes.append(f"{scene.name} shows nothing of what is labelled: {error}")
    if len(errors) == len(scenes):
        raise errors[0]
    return notes
