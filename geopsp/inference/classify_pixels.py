"""Classify images with a model: maps, and their polygons."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, Protocol, overload

from geopsp.core.options import describes, from_names, require_path
from geopsp.core.output import checks_only
from geopsp.core.pixel_size import PixelSize, require_similar_size
from geopsp.core.text import format_count
from geopsp.errors import GridError, LabelError, OptionError
from geopsp.inference.confidence import confidence_rules
from geopsp.inference.engines import MapModel, opened_model
from geopsp.inference.map_plan import MapPlan
from geopsp.inference.map_run import MapRun
from geopsp.inference.options import EngineName, MapOptions, Precision, ProbabilityType, Unsure
from geopsp.inference.output_paths import OutputPaths, check_names, check_paths, image_names
from geopsp.labels.lazy_area import LazyAreaOfInterest
from geopsp.models.crf import CRFOptions, crf_parameters
from geopsp.models.hub_model import local_model
from geopsp.polygons.options import PolygonSettingsDict
from geopsp.raster.class_map import ClassMap
from geopsp.raster.find_images import Images
from geopsp.raster.geotiff import require_geotiff_crs
from geopsp.raster.open_scenes import open_scenes
from geopsp.raster.scene import Scene

if TYPE_CHECKING:
    import geopandas as gpd

    from geopsp.labels.area import AreaOfInterest
    from geopsp.models.saved_model import TrainedModel

logger = logging.getLogger(__name__)

MAX_SIDE = 10_000_000
"""Largest side of a map in pixels: all of the Earth at 4 m. More is taken for a mistake."""


class Classifier(Protocol):
    """A classifier, such as `PixelClassifier`."""

    model: TrainedModel
    device: str | None


@overload
def classify_pixels(
    images: Images, model: Classifier | str | Path, out: str | Path, *, per_image: Literal[False] = False,
    polygons: str | Path | None = None, polygon_options: PolygonSettingsDict | None = None,
    probabilities: str | Path | None = None, probability_type: ProbabilityType = "uint8",
    confidence: str | Path | None = None, disagreement: str | Path | None = None, stac: bool = False,
    bands: Sequence[str | int] | None = None, extent: Sequence[float] | None = None,
    aoi: str | Path | gpd.GeoDataFrame | None = None, cell_size: float | None = None, order: str = "given",
    allow_resolution_mismatch: bool = False, tile_size: int | None = None, padding: int | None = None,
    batch_size: int | None = None, test_time_augmentation: bool = False, predict_background: bool = True,
    crf: bool | CRFOptions = False, sieve: int = 0, calibrated: bool = True,
    min_confidence: float | Mapping[str, float] | None = None, unsure: Unsure = "class",
    precision: Precision = "auto", compiled: bool | None = None, device: str | None = None, engine: EngineName = "auto",
    client: Any = None,
    scheduler: str | None = None, overwrite: bool = False, dry_run: bool = False,
) -> ClassMap: ...  # fmt: skip


@overload
def classify_pixels(
    images: Images, model: Classifier | str | Path, out: str | Path, *, per_image: Literal[True],
    polygons: str | Path | None = None, polygon_options: PolygonSettingsDict | None = None,
    probabilities: str | Path | None = None, probability_type: ProbabilityType = "uint8",
    confidence: str | Path | None = None, disagreement: str | Path | None = None, stac: bool = False,
    bands: Sequence[str | int] | None = None, extent: Sequence[float] | None = None,
    aoi: str | Path | gpd.GeoDataFrame | None = None, cell_size: float | None = None, order: str = "given",
    allow_resolution_mismatch: bool = False, tile_size: int | None = None, padding: int | None = None,
    batch_size: int | None = None, test_time_augmentation: bool = False, predict_background: bool = True,
    crf: bool | CRFOptions = False, sieve: int = 0, calibrated: bool = True,
    min_confidence: float | Mapping[str, float] | None = None, unsure: Unsure = "class",
    precision: Precision = "auto", compiled: bool | None = None, device: str | None = None, engine: EngineName = "auto",
    client: Any = None,
    scheduler: str | None = None, overwrite: bool = False, dry_run: bool = False,
) -> list[ClassMap]: ...  # fmt: skip


@describes(MapOptions)
def classify_pixels(
    images: Images,
    model: Classifier | str | Path,
    out: str | Path,
    *,
    per_image: bool = False,
    polygons: str | Path | None = None,
    polygon_options: PolygonSettingsDict | None = None,
    probabilities: str | Path | None = None,
    probability_type: ProbabilityType = "uint8",
    confidence: str | Path | None = None,
    disagreement: str | Path | None = None,
    stac: bool = False,
    bands: Sequence[str | int] | None = None,
    extent: Sequence[float] | None = None,
    aoi: str | Path | gpd.GeoDataFrame | None = None,
    cell_size: float | None = None,
    order: str = "given",
    allow_resolution_mismatch: bool = False,
    tile_size: int | None = None,
    padding: int | None = None,
    batch_size: int | None = None,
    test_time_augmentation: bool = False,
    predict_background: bool = True,
    crf: bool | CRFOptions = False,
    sieve: int = 0,
    calibrated: bool = True,
    min_confidence: float | Mapping[str, float] | None = None,
    unsure: Unsure = "class",
    precision: Precision = "auto",
    compiled: bool | None = None,
    device: str | None = None,
    engine: EngineName = "auto",
    client: Any = None,
    scheduler: str | None = None,
    overwrite: bool = False,
    dry_run: bool = False,
) -> ClassMap | list[ClassMap]:
    """Classify one image, or several as one mosaic, and return the path of the map (or of each map).

    A notebook shows the path as its map; `geopsp.show_map` and `geopsp.explore` take it.

    The map has the grid of the first image; it is nodata where no image is valid. An interrupted run resumes when it is
    called again.

    Args:
        images: A raster, a glob, a folder, a list ...; where they overlap, earlier ones are on top.
        model: A classifier, the folder of a saved one, its name on the Hugging Face Hub (hf://OWNER/NAME), or an ONNX
            file that geopsp exported, which needs no PyTorch.
        out: The GeoTIFF (COG) to write.
        {options}

    Raises:
        InputNotFoundError, RasterError, GridError, BandError, LabelError: as the input is.
        PackageError, ModelError: if the model is damaged, or cannot take such tiles.
        OptionError: if an option is out of range, or the model has no background that could be left out.
        OutputError: if an output exists and `overwrite` is False, or cannot be written.
    """
    options = from_names(MapOptions, locals())
    require_path("out", out)
    check_names(out, options)
    if isinstance(model, str | Path) and str(model):
        model = local_model(model)
    named, device = named_model(model, options.device)
    dry = checks_only() if options.dry_run else nullcontext()
    with dry, opened_model(named, options.engine, options.tile_size) as trained:
        run, scenes, paths = _prepare(images, trained, out, options, device=device, given=model)
        if options.dry_run:
            run.plan(scenes, paths).log()
            found = [each.out for each in paths]
        else:
            found = run.map_each(scenes, paths) if per_image else [run.one_map(scenes[0], paths[0])]
    maps = [ClassMap(path) for path in found]
    return maps if per_image else maps[0]


def plan_maps(images: Images, model: str | Path, out: str | Path, options: MapOptions) -> MapPlan:
    """Return what `classify_pixels` would write and cost, but write nothing.

    Raises:
        GeopspError: as `classify_pixels`.
    """
    require_path("out", out)
    check_names(out, options)
    local = local_model(model)
    with checks_only(), opened_model(Path(local), options.engine, options.tile_size) as trained:
        run, scenes, paths = _prepare(images, trained, out, options, device=options.device, given=local)
        return run.plan(scenes, paths)


def _prepare(
    images: Images, trained: MapModel, out: str | Path, options: MapOptions, *, device: str | None, given: Any
) -> tuple[MapRun, list[Scene], list[OutputPaths]]:
    """Check options, images and outputs; return the run, and the scene and the outputs of each map."""
    trained.excluded_channels(background=options.predict_background)
    confidence = confidence_rules(options.settings, trained)
    crf_parameters(options.crf, trained.settings)
    options.polygon_settings.selected_codes(confidence.map_legend(trained.legend))
    paths = OutputPaths.from_options(out, options)
    area = None if options.aoi is None else LazyAreaOfInterest(options.aoi)
    scenes = open_model_scenes(images, trained, area, options)
    all_paths = [paths.for_image(name) for name in image_names(scenes)] if options.per_image else [paths]
    folder = Path(given) if isinstance(given, str | Path) else None
    check_paths(all_paths, scenes, aoi=options.aoi, model=folder)
    return MapRun(trained, options, device=device, aoi=area, folder=folder), scenes, all_paths


def named_model(model: Any, device: str | None) -> tuple[MapModel | str | Path, str | None]:
    """Return a model, or the path of one, and the device to use.

    Raises:
        OptionError: if it is neither.
    """
    if isinstance(model, str | Path) and str(model):
        return Path(model), device
    trained: Any = getattr(model, "model", None)
    if not hasattr(trained, "network"):
        raise OptionError(
            f"The model is {model!r}; needed a classifier, the folder that one was saved to, or an ONNX file."
        )
    return trained, device or model.device


def open_model_scenes(
    images: Images, model: MapModel, aoi: LazyAreaOfInterest | None, options: MapOptions
) -> list[Scene]:
    """Open the images with the model's bands; those that the area of interest does not overlap are left out.

    Raises:
        InputNotFoundError, RasterError, GridError, BandError, LabelError, OptionError: as the input is.
    """
    bands = options.bands
    if bands is not None and len(bands) != len(model.bands):
        found = format_count(len(bands), "band is", "bands are")
        raise OptionError(f"{found} given, but the model needs {', '.join(model.bands)}, in this order.")
    scenes = open_scenes(
        images,
        bands=model.bands if bands is None else bands,
        per_image=options.per_image,
        cell_size=options.cell_size,
        extent=options.extent,
        order=options.order,
        like=model.pixel_values,
    )
    for scene in scenes:
        check_size(scene)
        require_geotiff_crs(scene.grid, scene.name)
        if not options.allow_resolution_mismatch:
            require_similar_size(PixelSize.of_grid(scene.grid), model.cell_size[1], model.units, scene.name)
    return scenes if aoi is None else _overlapping(scenes, aoi.area())


def check_size(scene: Scene) -> None:
    """Check that a scene is not too large to map.

    Raises:
        GridError: if it is.
    """
    grid = scene.grid
    if max(grid.width, grid.height) > MAX_SIDE:
        raise GridError(
            f"{scene.name} has {grid.width:,} x {grid.height:,} pixels of {grid.cell_size[0]:g} ({grid.unit}), but at "
            f"most {MAX_SIDE:,} along a side can be mapped. Use a larger `cell_size`, or an `extent`."
        )


def _overlapping(scenes: Sequence[Scene], area: AreaOfInterest) -> list[Scene]:
    """Return the scenes that the area overlaps.

    Raises:
        LabelError: if it overlaps none.
    """
    errors: dict[str, LabelError] = {}
    for scene in scenes:
        try:
            area.require_overlap(scene.grid)
        except LabelError as error:
            errors[scene.name] = error
    if len(errors) == len(scenes):
        raise next(iter(errors.values()))
    for name in errors:
        logger.info(f"{name} is skipped: it lies outside {area.source}.")
    return [scene for scene in scenes if scene.name not in errors]
