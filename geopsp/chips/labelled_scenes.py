"""Scenes with labels and an area of interest, the input of chips."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeAlias

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray

from geopsp.chips.chip import Chip, LabelPatch, make_chip, rotate90, rotate_grid
from geopsp.chips.options import CUTTING, ImageOptions, LabelOptions
from geopsp.core.argument_names import require_known
from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.options import from_names, option_fields, option_values
from geopsp.core.paths import local_file
from geopsp.core.stac import time_text
from geopsp.core.warnings_log import collect_warnings
from geopsp.errors import LabelError
from geopsp.labels.area import AreaOfInterest
from geopsp.labels.feature_index import FeaturesOnDisk
from geopsp.labels.mask_labels import MaskLabels, SceneMasks, read_masks
from geopsp.labels.polygon_labels import PolygonLabels
from geopsp.labels.raster_labels import RasterLabels
from geopsp.labels.read_labels import masks_of, name_of, raster_rules, read_labels
from geopsp.labels.vector_files import find_vector_files, read_vector_files
from geopsp.raster.acquisition import time_range
from geopsp.raster.find_images import Images, find_images
from geopsp.raster.open_scenes import open_scenes
from geopsp.raster.scene import Scene

logger = logging.getLogger(__name__)

MAX_NAMED = 5
"""Images that a warning names at most."""

Labels: TypeAlias = str | Path | gpd.GeoDataFrame | Sequence[str | Path]
"""A vector file or label raster, a GeoDataFrame, or a folder, glob or list of label rasters or of vector files."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelledScenes:
    """Scenes with their labels and an area of interest."""

    scenes: tuple[Scene, ...]
    labels: PolygonLabels | RasterLabels | MaskLabels
    area: AreaOfInterest | None = None

    code_map: tuple[Legend, NDArray[np.uint8]] | None = None
    """The legend of the chips, and (256,) its codes by those of the labels; None: the legend of the labels."""

    warnings: tuple[str, ...] = ()
    """What was warned of when images, labels and area of interest were opened."""

    @classmethod
    def open(cls, images: Images, labels: Labels, **options: Any) -> LabelledScenes:
        """Images and labels that meet; of all options of cutting, those that do not say which chips are cut are used.

        Several vector files are read as one. A folder, glob or list of label rasters, and a label raster without
        georeference, are masks: each belongs to the image of its name.

        Raises:
            InputNotFoundError, RasterError, GridError, BandError, LabelError, OptionError: as the input is.
        """
        require_known(options, option_fields(*CUTTING), "LabelledScenes.open()")
        label_options = option_values(from_names(LabelOptions, options))
        aoi = label_options.pop("aoi")
        image_options = option_values(from_names(ImageOptions, options))
        source: PolygonLabels | RasterLabels | MaskLabels
        with collect_warnings() as warnings:
            if (files := find_vector_files(labels)) is not None:
                labels = read_vector_files(files)
            if (masks := masks_of(labels)) is None:
                scenes = open_scenes(images, **image_options)
                source = read_labels(labels, **label_options)
            else:
                placing = (image_options["cell_size"], image_options["extent"], aoi)
                found, source = read_masks(
                    find_images(images, order=image_options["order"]),
                    masks,
                    raster_rules(labels, **label_options),
                    name_of(labels),
                    needs_georeference=not image_options["per_image"] or any(value is not None for value in placing),
                )
                scenes = open_scenes(found, **image_options)
            for text in (text for scene in scenes for text in scene.warnings):
                logger.warning(text)
            area = None if aoi is None else AreaOfInterest.read(aoi)
            for part in (source, area):
                if part is not None:
                    _warn_if_missed(part, scenes)
            for note in (*source.report()["notes"], *(area.layer.notes if area else ())):
                logger.warning(f"{note.rstrip('.')}.")
        return cls(tuple(scenes), source, area, warnings=tuple(warnings))

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

    def local_files(self) -> list[Path]:
        """Return the local files and folders that images, labels and area are read from."""
        scenes = [*self.scenes, *(labels.scene for labels in self._rasters())]
        names = [name for scene in scenes for source in scene.sources for name in (source.path, *source.files)]
        for part in (self.labels, self.area):
            path = getattr(getattr(part, "layer", None), "path", None)  # a GeoDataFrame has none
            names += [path] if path else []
        return [file for name in names if (file := local_file(name)) is not None]

    def files_read(self) -> tuple[list[str], list[str]]:
        """Return the paths of images, and of labels and area, that chips are read from; without polygons in memory."""
        images = [source.path for scene in self.scenes for source in scene.sources]
        rasters = [source.path for labels in self._rasters() for source in labels.scene.sources]
        return images, rasters + [part.layer.path for part in self._on_disk()]

    def fingerprint_of_files(self) -> list[str]:
        """Return what identifies the files of `files_read`."""
        parts = [*self.scenes, *(labels.scene for labels in self._rasters())]
        return [line for part in (*parts, *(part.layer for part in self._on_disk())) for line in part.fingerprint()]

    def _rasters(self) -> list[RasterLabels]:
        if isinstance(self.labels, MaskLabels):
            return list(self.labels.masks.values())
        return [self.labels] if isinstance(self.labels, RasterLabels) else []

    def _on_disk(self) -> list[Any]:
        """Return the labels and the area, if they are polygons that are read from a file by bounding box."""
        features = (getattr(part, "features", None) for part in (self.labels, self.area))
        return [each for each in features if isinstance(each, FeaturesOnDisk)]

    def times_entry(self) -> dict[str, dict[str, list[str]]]:
        """Return the earliest and the latest acquisition time of each scene for chips.json; {} if none is known."""
        ranges = {scene.name: time_range(layer.acquired for layer in scene.layers) for scene in self.scenes}
        known = {name: list(map(time_text, found)) for name, found in ranges.items() if found}
        return {"times": known} if known else {}

    def scene(self, name: str) -> Scene:
        """Return a scene by its name."""
        return next(scene for scene in self.scenes if scene.name == name)

    def read_labels(self, scene: Scene, grid: Grid) -> LabelPatch:
        """Burn the labels of a scene on a grid."""
        burned = _labels_of(self.labels, scene).burn(grid)
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
            return rotate90(make_chip(patch, self.read_labels(scene, patch.grid)), round(angle / 90) % 4)
        patch = scene.read_onto(rotate_grid(scene.grid.crop(window), angle))
        return make_chip(patch, self.read_labels(scene, patch.grid))


def _labels_of(
    labels: PolygonLabels | RasterLabels | MaskLabels, scene: Scene
) -> PolygonLabels | RasterLabels | SceneMasks:
    """Return the labels of a scene."""
    return labels.of_scene(scene) if isinstance(labels, MaskLabels) else labels


def _warn_if_missed(part: PolygonLabels | RasterLabels | MaskLabels | AreaOfInterest, scenes: Sequence[Scene]) -> None:
    """Warn of images that labels, or an area of interest, do not overlap.

    Raises:
        LabelError: if they overlap none; the error of the first.
    """
    errors: dict[str, LabelError] = {}
    for scene in scenes:
        try:
            (part if isinstance(part, AreaOfInterest) else _labels_of(part, scene)).require_overlap(scene.grid)
        except LabelError as error:
            errors[scene.name] = error
    if not errors:
        return
    first = next(iter(errors.values()))
    if len(errors) == len(scenes):
        raise first
    more = ", ..." * (len(errors) > MAX_NAMED)
    logger.warning(
        f"No labels on {len(errors)} of {len(scenes)} images ({', '.join(list(errors)[:MAX_NAMED])}{more}): {first}"
    )
