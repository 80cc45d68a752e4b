"""Scenes with labels and an area of interest, the input of chips."""

from __future__ import annotations

import logging
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

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class LabelledScenes:
    """Scenes with their labels and an area of interest."""

    scenes: tuple[Scene, ...]
    labels: PolygonLabels | RasterLabels
    area: AreaOfInterest | None = None

    code_map: tuple[Legend, NDArray[np.uint8]] | None = None
    """The legend of the chips, and (256,) its codes by those of the labels; None: the legend of the labels."""

    notes: tuple[str, ...] = ()
    """Images that the labels do not overlap, in words."""

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
        for text in (text for scene in scenes for text in scene.warnings):
            logger.warning(text)
        source = read_labels(labels, **label_options)
        area = None if aoi is None else AreaOfInterest.read(aoi)
        notes = [note for part in (source, area) if part is not None for note in _note_missed(part, scenes)]
        return cls(tuple(scenes), source, area, notes=tuple(notes))

    @property
    def legend(self) -> Legend:
        return self.code_map[0] if self.code_map else self.labels.legend

    def with_legend(self, legend: Legend) -> LabelledScenes:
        """Return the same with the codes of another legend, matched by name and extended by the classes it lacks."""
        own, extended = self.labels.legend, legend.extended_by(self.labels.legend)
        table = np.full(256, IGNORE_INDEX, np.uint8)
        table[own.codes] = [extended.code_of(name) for name in own.names]
        return replace(self, code_map=(extended, table))

    def to_chip_codes(self, counts: Mapping[int, int]) -> dict[int, int]:
        """Return counts by the codes of the labels as counts by the codes of the chips."""
        return {int(self.code_map[1][code]): n for code, n in counts.items()} if self.code_map else dict(counts)

    def scene(self, name: str) -> Scene:
        """Return a scene by its name."""
        return next(scene for scene in self.scenes if scene.name == name)

    def read_labels(self, grid: Grid) -> LabelPatch:
        """Burn the labels of a grid."""
        burned = self.labels.burn(grid)
        codes, conflict = burned.codes, burned.conflict
        if self.code_map:
            codes = np.take(self.code_map[1], codes)
        if self.area is None:
            return LabelPatch(codes, conflict)
        inside = self.area.inside(grid)
        return LabelPatch(np.where(inside, codes, IGNORE_INDEX).astype(np.uint8), conflict & inside, inside)

    def read_chip(self, scene: Scene, window: Window, angle: float = 0.0) -> Chip:
        """Read the pixels and burn the labels of a window, rotated counter-clockwise about its centre by degrees."""
        if angle % 90 == 0:
            patch = scene.read(window)
            return rotate90(make_chip(patch, self.read_labels(patch.grid)), round(angle / 90) % 4)
        patch = scene.read_onto(rotate_grid(scene.grid.crop(window), angle))
        return make_chip(patch, self.read_labels(patch.grid))


def _note_missed(part: PolygonLabels | RasterLabels | AreaOfInterest, scenes: Sequence[Scene]) -> list[str]:
    """Return notes of the images that labels, or an area of interest, do not overlap.

    Raises:
        LabelError: if they overlap none; the error of the first.
    """
    errors: list[LabelError] = []
    notes = []
    for scene in scenes:
        try:
            part.require_overlap(scene.grid)
        except LabelError as error:
            errors.append(error)
            notes.append(f"{scene.name} is not labelled: {error}")
    if len(errors) == len(scenes):
        raise errors[0]
    return notes
