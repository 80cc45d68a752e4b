"""Open many images as one scene each, or all as one mosaic."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from geopsp.core.pixel_values import PixelValues
from geopsp.errors import BandError, GridError, OptionError
from geopsp.raster.find_images import Images, find_images
from geopsp.raster.image_layer import names_indices
from geopsp.raster.layer_files import LayerFiles
from geopsp.raster.mosaic import note_left_out, place_layers, require_one_type
from geopsp.raster.pixel_rule import PixelRule
from geopsp.raster.scene import Scene
from geopsp.raster.warp import reproject_extent


def open_scenes(
    images: Images,
    *,
    bands: Sequence[str | int] | None = None,
    per_image: bool = True,
    cell_size: float | None = None,
    extent: Sequence[float] | None = None,
    order: str = "given",
    scaled: bool | None = None,
    like: PixelValues | None = None,
) -> list[Scene]:
    """Open one scene per image, each on its own grid, all with the bands and the data type of the first.

    Args:
        images: See `find_images`.
        bands: As in `Scene.open`.
        per_image: False opens one mosaic of all images.
        cell_size: As in `Scene.open`.
        extent: (left, bottom, right, top) in the CRS of the first image; images outside of it are left out.
        order: As in `Scene.open`.
        scaled: As in `Scene.open`; decided once for all images.
        like: What the values of a model's training pixels mean, instead of `scaled`.

    Raises:
        InputNotFoundError, RasterError, GridError, BandError, OptionError: if an image or option cannot be used.
    """
    found = find_images(images, order=order)
    options: dict[str, Any] = {"cell_size": cell_size, "expand_palette": not names_indices(bands)}
    if not per_image:
        return [Scene.from_images(found, bands=bands, extent=extent, order=order, scaled=scaled, like=like, **options)]
    first = Scene.from_images(found[:1], bands=bands, **options)
    scenes = [first, *(Scene.from_images([image], bands=first.bands, **options) for image in found[1:])]
    for scene in scenes[1:]:
        _require_alike(scene, first, by_name=bands is not None, sized=cell_size is not None)
    if extent is not None:
        scenes = _crop_scenes(scenes, extent)
    _decide_values(scenes, scaled, like)
    require_one_type([(scene.name, scene.dtype) for scene in scenes])
    counts: dict[str, int] = {}
    for scene in scenes:
        counts[scene.name] = counts.get(scene.name, 0) + 1
        scene.name += f" ({counts[scene.name]})" if counts[scene.name] > 1 else ""
    return scenes


def _decide_values(scenes: Sequence[Scene], scaled: bool | None, like: PixelValues | None) -> None:
    """Give all scenes values of one meaning."""
    rule = PixelRule.choose([layer for scene in scenes for layer in scene.layers], scaled=scaled, like=like)
    for scene in scenes:
        scene.layers = tuple(rule.apply_to(layer) for layer in scene.layers)
        scene.pixel_values = rule.pixel_values
    scenes[0].notes, scenes[0].warnings = (*scenes[0].notes, *rule.notes), rule.warnings


def _require_alike(scene: Scene, first: Scene, *, by_name: bool, sized: bool) -> None:
    if sized and scene.grid.unit != first.grid.unit:
        raise OptionError(
            f"`cell_size` is one number, but {scene.name} has the unit {scene.grid.unit} and {first.name} the unit "
            f"{first.grid.unit}. Warp the images to one CRS, or make one mosaic of them."
        )
    found, needed = len(scene.layers[0].all_bands), len(first.layers[0].all_bands)
    if found != needed and not by_name:
        raise BandError(
            f"{scene.name} and {first.name} differ in their number of bands ({found} and {needed}). Select the bands "
            "to use with `bands`."
        )


def _crop_scenes(scenes: Sequence[Scene], extent: Sequence[float]) -> list[Scene]:
    """Crop the scenes to an extent in the CRS of the first; those outside of it are left out."""
    kept: list[Scene] = []
    errors: dict[str, GridError] = {}
    for scene in scenes:
        try:
            box = extent if scene is scenes[0] else reproject_extent(extent, scenes[0].grid.crs, scene.grid)
            grid, layers = place_layers(scene.layers, scene.grid, box)
        except GridError as error:
            errors.setdefault(scene.name, error)
        else:
            kept.append(replace(scene, layers=layers, grid=grid, _files=LayerFiles()))
    if not kept:
        raise next(iter(errors.values()))
    kept[0].notes = (*kept[0].notes, *note_left_out(list(errors)))
    return kept
