"""What chips are cut from: images, their labels, and the area within which these hold."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray

from geopsp.chips.chip import Chip, Truth, chip_of, turn_quarters, turned
from geopsp.chips.options import LABEL_OPTIONS, SCENE_OPTIONS, check_options
from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE, Legend
from geopsp.errors import LabelError
from geopsp.labels.area import Area
from geopsp.labels.polygon_labels import PolygonLabels
from geopsp.labels.raster_labels import RasterLabels
from geopsp.labels.read_labels import read_labels
from geopsp.raster.find_images import Images
from geopsp.raster.scene import Scene, open_scenes


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
