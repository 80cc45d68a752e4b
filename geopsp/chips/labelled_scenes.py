"""What chips are cut from: images, their labels, and the area within which these hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray

from geopsp.chips.chip import Chip, LabelPatch, make_chip, rotate90, rotate_grid
from geopsp.chips.options import CUTTING, ImageOptions, LabelOptions
from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.options import from_names, option_fields, option_values, require_known
from geopsp.errors import LabelError
from geopsp.labels.area import AreaOfInterest
from geopsp.labels.polygon_labels import PolygonLabels
from geopsp.labels.raster_labels import RasterLabels
from geopsp.labels.read_labels import read_labels
from geopsp.raster.find_images import Images
from geopsp.raster.open_scenes import open_scenes
from geopsp.raster.scene import Scene


@dataclass(frozen=True, slots=True, eq=False)
class LabelledScenes:
    """What chips are cut from: scenes, their labels, and the area within which these hold."""

    scenes: tuple[Scene, ...]
    labels: PolygonLabels | RasterLabels
    area: AreaOfInterest | None = None

    code_map: tuple[Legend, NDArray[np.uint8]] | None = None
    """Classes of the chips, and (256,) their codes by the labels' own; None: as the labels have them."""

    notes: tuple[str, ...] = ()
    """Which images the labels miss."""

    @classmethod
    def open(cls, images: Images, labels: str | Path | gpd.GeoDataFrame, **options: Any) -> LabelledScenes:
        """Images and labels that meet; of all options of cutting, those that do not say which chips are cut are used.

        Raises:
            InputNotFoundError, RasterError, GridError, BandError, LabelError, OptionError: as the input is.
        """
        require_known(options, option_fields(*CUTTING), "LabelledScenes.open()")
        label_options = option_values(from_names(LabelOptions, options))
        aoi = label_options.pop("aoi")
        scenes = open_scenes(images, **option_values(from_names(ImageOptions, options)))
        source = read_labels(labels, **label_options)
        area = None if aoi is None else AreaOfInterest.read(aoi)
        notes = [note for part in (source, area) if part is not None for note in _misses(part, scenes)]
        return cls(tuple(scenes), source, area, notes=tuple(notes))

    @property
    def legend(self) -> Legend:
        return self.code_map[0] if self.code_map else self.labels.legend

    def with_legend(self, legend: Legend) -> LabelledScenes:
        """The same in the codes of another legend, by name, to which the classes that it lacks are added."""
        own, wider = self.labels.legend, legend.extended_by(self.labels.legend)
        table = np.full(256, IGNORE_INDEX, np.uint8)
        table[own.codes] = [wider.code_of(name) for name in own.names]
        return replace(self, code_map=(wider, table))

    def in_own_codes(self, counts: Mapping[int, int]) -> dict[int, int]:
        """What is counted by the labels' codes, by those of the chips."""
        return {int(self.code_map[1][code]): n for code, n in counts.items()} if self.code_map else dict(counts)

    def scene(self, name: str) -> Scene:
        return next(scene for scene in self.scenes if scene.name == name)

    def read_labels(self, grid: Grid) -> LabelPatch:
        """The labels of a grid."""
        burned = self.labels.burn(grid)
        codes, contested = burned.codes, burned.conflict
        if self.code_map:
            codes = np.take(self.code_map[1], codes)
        if self.area is None:
            return LabelPatch(codes, contested)
        inside = self.area.inside(grid)
        return LabelPatch(np.where(inside, codes, IGNORE_INDEX).astype(np.uint8), contested & inside, inside)

    def read_chip(self, scene: Scene, window: Window, angle: float = 0.0) -> Chip:
        """The pixels of a window, turned about its middle, and their labels; IGNORE where the image is invalid."""
        if angle % 90 == 0:
            patch = scene.read(window)
            return rotate90(make_chip(patch, self.read_labels(patch.grid)), round(angle / 90) % 4)
        patch = scene.read_onto(rotate_grid(scene.grid.crop(window), angle))
        return make_chip(patch, self.read_labels(patch.grid))


def _misses(part: PolygonLabels | RasterLabels | AreaOfInterest, scenes: Sequence[Scene]) -> list[str]:
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
