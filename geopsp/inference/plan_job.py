"""The plan of a map: its tiles, its parts, and the key of all that its pixels depend on."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, replace
from typing import Any

from geopsp.core.run_state import key_of
from geopsp.errors import OptionError
from geopsp.inference.confidence import ConfidenceRules, confidence_rules
from geopsp.inference.engines import MapModel, engine_of
from geopsp.inference.job import VERSION, MapJob, fingerprints
from geopsp.inference.options import MapSettings
from geopsp.inference.outputs import needs_calibration
from geopsp.inference.part_size import part_height, part_width
from geopsp.inference.tile_ops import Device
from geopsp.inference.tile_plan import TilePlan
from geopsp.labels.lazy_area import LazyAreaOfInterest
from geopsp.models.crf import crf_parameters
from geopsp.models.onnx_file import OnnxModel
from geopsp.models.spec import check_tile_size
from geopsp.raster.cog.part_grid import BLOCK, PartGrid
from geopsp.raster.cog.raster_spec import RasterSpec
from geopsp.raster.image_layer import layers_identity
from geopsp.raster.scene import Scene

PRECISION_IN_KEYS: dict[str, bool | str] = {"fp32": False, "bf16": True, "fp16": "fp16"}
"""What stands for a precision in keys: at first there were two."""


def plan_job(
    scene: Scene,
    model: MapModel,
    rasters: Sequence[RasterSpec],
    settings: MapSettings,
    *,
    device: Device | None = None,
    aoi: LazyAreaOfInterest | None = None,
    part_side: int | None = None,
    block: int = BLOCK,
) -> MapJob:
    """Plan a map; nothing is written.

    Args:
        scene: The images, with bands in the model's order.
        model: Gives its fingerprint, classes and tile size.
        rasters: The class raster first.
        settings: As the user gave them.
        device: Where the network will run, which decides precision and compilation if the settings do not; None: the
            network runs in float32, and is compiled only if the settings say so.
        aoi: Polygons outside of which the map is nodata.
        part_side: Side of a part in pixels, a multiple of `block`; None: as suits the scene.
        block: Side of the blocks of the rasters, in pixels.

    Raises:
        OptionError, ModelError: if a setting is out of range, or the engine cannot do it.
        OptionError: if the background shall not be predicted and there is none.
        LabelError, GridError: if the area cannot be read or does not overlap the scene.
    """
    size = settings.tile_size or model.tile_size
    check_tile_size(size)
    _require_own_size(size, model)
    padding = size // 4 if settings.padding is None else settings.padding
    crf = crf_parameters(settings.crf, model.settings)
    width = part_side or part_width(scene, size, rasters, len(model.legend), block, crf)
    height = part_side or part_height(scene)
    tiles = TilePlan(scene.grid.width, scene.grid.height, size, padding)
    parts = PartGrid(scene.grid.width, scene.grid.height, width, height, block)
    excluded = model.excluded_channels(background=settings.predict_background)
    if aoi is not None:
        aoi.area().require_overlap(scene.grid)
    fingerprint, inputs = model.fingerprint(), fingerprints(scene, aoi)
    engine = engine_of(model)
    precision = "fp32" if device is None else engine.precision(settings, device)
    compiled = bool(settings.compiled) if device is None else engine.compiles(settings, device, len(tiles))
    model_parts: list[Any] = [inputs, PRECISION_IN_KEYS[precision], excluded, fingerprint, model.legend.to_json()]
    model_parts += [crf.to_json()] if crf else []
    model_parts += engine.identity
    confidence = confidence_rules(settings, model, excluded)
    model_parts += confidence.identity(needs_probabilities=needs_calibration(rasters))
    key = _key(scene, [size, padding, block], rasters, replace(settings, compiled=compiled), model_parts)
    words = f"{model.composition}; tiles of {size}; bands {', '.join(model.bands)}; sha256 {fingerprint}"
    made = tuple(_as_made(raster, confidence) for raster in rasters)
    return MapJob(
        scene, tiles, parts, model.legend, made, settings, precision, compiled, excluded, aoi, key, words, inputs, crf,
        confidence,
    )  # fmt: skip


def _as_made(raster: RasterSpec, confidence: ConfidenceRules) -> RasterSpec:
    """Return a raster with its absolute path, and of one of classes with that of unsure pixels."""
    legend = None if raster.legend is None else confidence.map_legend(raster.legend)
    return replace(raster, path=raster.path.absolute(), legend=legend)


def _require_own_size(size: int, model: MapModel) -> None:
    """Check that an ONNX file takes tiles of a size.

    Raises:
        OptionError: if it takes others only.
    """
    if isinstance(model, OnnxModel) and size != model.tile_size:
        raise OptionError(
            f"`tile_size` is {size}, but {model.path} takes tiles of {model.tile_size} pixels only. Leave the option "
            f"out, or export the model with `tile_size={size}`."
        )


def _key(
    scene: Scene, tiling: list[int], rasters: Sequence[RasterSpec], settings: MapSettings, more: Sequence[Any]
) -> str:
    """Return the SHA-256 of all that the pixels depend on, but the number of tiles in a batch."""
    grid = scene.grid
    pixels = [grid.crs.to_wkt(), *grid.transform[:6], grid.width, grid.height]
    others = ("batch_size", "precision", "crf", "calibrated", "min_confidence", "unsure")  # what counts of them: `more`
    asked = {name: value for name, value in asdict(settings).items() if name not in others}
    outputs = [[raster.name, raster.dtype, len(raster.bands)] for raster in rasters]
    images = [layers_identity(scene.layers), scene.bands, pixels, scene.resampling.name]
    return key_of([VERSION, images, tiling, asked, outputs, *more])
