"""Labels from one mask per image."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import shapely

from geopsp.core.crs import transform_bounds
from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.parallel import cpu_count
from geopsp.core.text import format_count
from geopsp.errors import LabelError
from geopsp.labels.label_classes import RasterRules
from geopsp.labels.label_file import LabelFile
from geopsp.labels.match_masks import MaskPair, match_masks
from geopsp.labels.raster_labels import RasterLabels, read_classes
from geopsp.labels.rasterize import RasterizedLabels
from geopsp.raster.info import RasterInfo, read_info
from geopsp.raster.scene import Scene
from geopsp.raster.source_image import SourceImage

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class MaskLabels:
    """One label raster per image, all with the same classes."""

    masks: Mapping[str, RasterLabels]
    """By the first file of their image."""

    legend: Legend
    source: str
    notes: tuple[str, ...] = ()

    def of_scene(self, scene: Scene) -> SceneMasks:
        """Return the labels of the images of a scene, in the order of its layers."""
        files = (next(source.path for source in layer.sources if source.path in self.masks) for layer in scene.layers)
        return SceneMasks(tuple(self.masks[file] for file in files))

    def count(self, grid: Grid, window: Window) -> dict[str, Any]:
        """Return {}, as there are no polygons; see `PolygonLabels.count`."""
        return {}

    def report(self) -> dict[str, Any]:
        """Return what chips.json says of the labels: their source, number and notes."""
        return {"source": self.source, "masks": len(self.masks), "notes": list(self.notes)}

    def fingerprint(self) -> list[str]:
        """Return what identifies the files, where they lie, their classes and the class mapping."""
        return [
            line for file, mask in self.masks.items() for line in (file, repr(mask.scene.grid), *mask.fingerprint())
        ]


@dataclass(frozen=True, slots=True, eq=False)
class SceneMasks:
    """The masks of a scene's images, the topmost first."""

    masks: tuple[RasterLabels, ...]

    def burn(self, grid: Grid) -> RasterizedLabels:
        """Return the codes of the first mask that labels a pixel; see `RasterLabels.burn`."""
        if len(self.masks) == 1:
            return self.masks[0].burn(grid)
        codes = np.full((grid.height, grid.width), IGNORE_INDEX, np.uint8)
        for mask in self.masks:
            unlabelled = codes == IGNORE_INDEX
            if not unlabelled.any():
                break
            if _may_meet(mask.scene.grid, grid):
                np.copyto(codes, mask.burn(grid).codes, where=unlabelled)
        return RasterizedLabels(codes, np.zeros(codes.shape, bool))

    def require_overlap(self, grid: Grid) -> None:
        """Check that a mask overlaps the grid.

        Raises:
            LabelError: if none does.
        """
        if grid.crs is None:  # the mask is as large as the image
            return
        errors = []
        for mask in self.masks:
            try:
                mask.require_overlap(grid)
            except LabelError as error:
                errors.append(error)
            else:
                return
        raise errors[0]


def _may_meet(one: Grid, other: Grid) -> bool:
    """Return False if the bounds of two grids do not meet."""
    if one.crs == other.crs:
        bounds = one.bounds()
    elif (projected := transform_bounds(one.bounds(), one.crs.to_wkt(), other.crs.to_wkt())) is None:
        return True
    else:
        bounds = projected
    return bool(shapely.box(*bounds).intersects(shapely.box(*other.bounds())))


def read_masks(
    images: Sequence[SourceImage],
    files: Sequence[str],
    rules: RasterRules,
    source: str,
    *,
    needs_georeference: bool = False,
) -> tuple[list[SourceImage], MaskLabels]:
    """Match masks to images by name, and open them; return the images that have one, and the labels.

    A mask without georeference lies where its image lies, if it is as large.

    Args:
        images: As `find_images` returns them.
        files: The masks.
        rules: The options of labels.
        source: The name of the masks in messages.
        needs_georeference: True refuses images without georeference, e.g. for a mosaic.

    Raises:
        LabelError: if no mask matches, one without georeference differs in size from its image, or as `read_classes`.
        GridError: if an image has no georeference and needs one.
    """
    pairs = match_masks(images, files, source)
    with ThreadPoolExecutor(cpu_count()) as pool:
        placed = list(pool.map(lambda pair: _place(pair, rules, needs_georeference=needs_georeference), pairs))
    opened, classes = read_classes([file for _, file, _ in placed], rules, source)
    masks: dict[str, RasterLabels] = {}
    found = []
    for pair, (plain, _, _), file in zip(pairs, placed, opened, strict=True):
        labels = RasterLabels(file, classes.table, file.path, (), rules)
        masks |= dict.fromkeys(pair.image.files, labels)
        found.append(replace(pair.image, needs_georeference=not plain))
    notes = [*classes.notes, *classes.warnings, *_placement_notes(pairs, placed)]
    return found, MaskLabels(masks, classes.table.legend, source, tuple(notes))


def _place(pair: MaskPair, rules: RasterRules, *, needs_georeference: bool) -> tuple[bool, LabelFile, bool]:
    """Open the mask of an image.

    Returns:
        True if the image has no georeference; the mask; True if it takes the georeference of its image.
    """
    infos = [read_info(file, needs_crs=needs_georeference) for file in pair.image.files]
    plain = not all(_is_georeferenced(info) for info in infos)
    mask = read_info(pair.mask, needs_crs=False)
    same = next((info for info in infos if _size(info) == _size(mask)), None)
    if not plain and _is_georeferenced(mask):
        return False, LabelFile.open(pair.mask, nodata=rules.nodata), False
    if same is None or (plain and len({_size(info) for info in infos}) > 1):
        (width, height), (image_width, image_height) = _size(mask), _size(infos[0])
        who = "the image has no georeference" if plain else "it has no georeference"
        raise LabelError(
            f"The mask {pair.mask} has {width} x {height} pixels, but its image {pair.image.name} has {image_width} x "
            f"{image_height}, and {who}. Make both of one size, or georeference them."
        )
    grid = same.grid.without_georeference if plain else same.grid
    return plain, LabelFile.open(pair.mask, nodata=rules.nodata, grid=grid), True


def _is_georeferenced(info: RasterInfo) -> bool:
    return bool(info.grid.crs) and not info.grid.transform.is_identity


def _size(info: RasterInfo) -> tuple[int, int]:
    return info.grid.width, info.grid.height


def _placement_notes(pairs: Sequence[MaskPair], placed: Sequence[tuple[bool, LabelFile, bool]]) -> list[str]:
    """Say, and return, which masks take the georeference of their image, and which images have none."""
    plain = [pair.image.name for pair, (is_plain, _, _) in zip(pairs, placed, strict=True) if is_plain]
    by_image = sum(takes and not is_plain for is_plain, _, takes in placed)
    notes = []
    if by_image:
        notes.append(
            f"{format_count(by_image, 'mask')} without georeference, placed where the image of the same size lies"
        )
        logger.info(f"{notes[-1]}.")
    if plain:
        more = f" and {len(plain) - 1:,} more" if len(plain) > 1 else ""
        notes.append(
            f"{plain[0]}{more} have no georeference: each image stands for itself, and its pixel size is unknown. The "
            "chips have no place on the ground; split them by image (`split='source'`)"
        )
        logger.warning(f"{notes[-1]}.")
    return notes
