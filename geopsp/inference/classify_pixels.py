"""From images and a model to maps, and their polygons."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal, Protocol, overload

import geopandas as gpd
import torch

from geopsp.core.options import describes, from_names, require_path
from geopsp.core.progress import Progress, progress_bar
from geopsp.errors import GeopspError, LabelError, OptionError, RasterError
from geopsp.inference.dask_client import connect, threads_of
from geopsp.inference.dask_workers import MAX_IMAGES_IN_FLIGHT
from geopsp.inference.estimate import check_size, estimate_map, estimate_maps
from geopsp.inference.input_check import compare_with_training
from geopsp.inference.job import LazyAreaOfInterest, MapJob, plan_job
from geopsp.inference.options import MapOptions, MapSettings, ProbabilityType
from geopsp.inference.outputs import OutputPaths, check_names, check_places, image_names
from geopsp.inference.run_job import Finish, run_job, start_job
from geopsp.labels.area import AreaOfInterest
from geopsp.models.device import Precision, device_name, pick_device, resolve_precision
from geopsp.models.saved_model import TrainedModel, load_model
from geopsp.polygons.options import PolygonSettingsDict
from geopsp.polygons.raster_to_polygons import raster_to_polygons
from geopsp.raster.find_images import Images
from geopsp.raster.open_scenes import open_scenes
from geopsp.raster.scene import Scene
from geopsp.vector.write import check_vector_output

logger = logging.getLogger(__name__)

AHEAD = 2
"""Parts a thread of a cluster that the next images give to it, so that none waits for the end of an image."""


class Classifier(Protocol):
    """What is asked of a classifier: `PixelClassifier` has it."""

    model: TrainedModel
    device: str | None


@overload
def classify_pixels(
    images: Images, model: Classifier | str | Path, out: str | Path, *, per_image: Literal[False] = False,
    polygons: str | Path | None = None, polygon_options: PolygonSettingsDict | None = None,
    probabilities: str | Path | None = None, probability_type: ProbabilityType = "uint8",
    confidence: str | Path | None = None, disagreement: str | Path | None = None,
    bands: Sequence[str | int] | None = None, extent: Sequence[float] | None = None,
    aoi: str | Path | gpd.GeoDataFrame | None = None, cell_size: float | None = None, order: str = "given",
    tile_size: int | None = None, padding: int | None = None, batch_size: int | None = None,
    test_time_augmentation: bool = False, predict_background: bool = True, sieve: int = 0,
    precision: Precision = "auto", compiled: bool = False, device: str | None = None, client: Any = None,
    scheduler: str | None = None, overwrite: bool = False,
) -> Path: ...  # fmt: skip


@overload
def classify_pixels(
    images: Images, model: Classifier | str | Path, out: str | Path, *, per_image: Literal[True],
    polygons: str | Path | None = None, polygon_options: PolygonSettingsDict | None = None,
    probabilities: str | Path | None = None, probability_type: ProbabilityType = "uint8",
    confidence: str | Path | None = None, disagreement: str | Path | None = None,
    bands: Sequence[str | int] | None = None, extent: Sequence[float] | None = None,
    aoi: str | Path | gpd.GeoDataFrame | None = None, cell_size: float | None = None, order: str = "given",
    tile_size: int | None = None, padding: int | None = None, batch_size: int | None = None,
    test_time_augmentation: bool = False, predict_background: bool = True, sieve: int = 0,
    precision: Precision = "auto", compiled: bool = False, device: str | None = None, client: Any = None,
    scheduler: str | None = None, overwrite: bool = False,
) -> list[Path]: ...  # fmt: skip


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
    bands: Sequence[str | int] | None = None,
    extent: Sequence[float] | None = None,
    aoi: str | Path | gpd.GeoDataFrame | None = None,
    cell_size: float | None = None,
    order: str = "given",
    tile_size: int | None = None,
    padding: int | None = None,
    batch_size: int | None = None,
    test_time_augmentation: bool = False,
    predict_background: bool = True,
    sieve: int = 0,
    precision: Precision = "auto",
    compiled: bool = False,
    device: str | None = None,
    client: Any = None,
    scheduler: str | None = None,
    overwrite: bool = False,
) -> Path | list[Path]:
    """Classify one image, or several as one mosaic, and return the path of the map (or of each map).

    The map has the grid of the first image; it is nodata where no image is valid. An interrupted run resumes when it is
    called again.

    Args:
        images: A raster, a glob, a folder, a list ...; where they overlap, earlier ones are on top.
        model: A classifier, or the folder of a saved one.
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
    trained, device = _opened(model, options.device)
    trained.excluded_channels(background=options.predict_background)
    options.polygon_settings.selected_codes(trained.legend)
    targets = OutputPaths.from_options(out, options)
    area = None if aoi is None else LazyAreaOfInterest(aoi)
    scenes = _scenes(images, trained, area, options)
    targets_by_scene = [targets.for_image(name) for name in image_names(scenes)] if per_image else [targets]
    folder = Path(model) if isinstance(model, str | Path) else None
    check_places(targets_by_scene, scenes, aoi=aoi, model=folder)
    run = _Run(trained, options.settings, pick_device(device), device, area, options)
    return run.map_each(scenes, targets_by_scene) if per_image else run.one_map(scenes[0], targets)


def _opened(model: Classifier | str | Path, device: str | None) -> tuple[TrainedModel, str | None]:
    if isinstance(model, str | Path):
        if not str(model):
            raise OptionError(f"The model is {model!r}; needed a classifier, or the folder that one was saved to.")
        return load_model(model), device
    if not isinstance(getattr(model, "model", None), TrainedModel):
        raise OptionError(f"The model is {model!r}; needed a classifier, or the folder that one was saved to.")
    return model.model, device or model.device


def _scenes(images: Images, model: TrainedModel, aoi: LazyAreaOfInterest | None, options: MapOptions) -> list[Scene]:
    """What to map, with the model's bands; images that the area of interest misses are left out."""
    bands = options.bands
    if bands is not None and len(bands) != len(model.bands):
        found = "1 band is" if len(bands) == 1 else f"{len(bands)} bands are"
        raise OptionError(f"{found} given, but the model needs {', '.join(model.bands)}, in this order.")
    scenes = open_scenes(
        images,
        bands=model.bands if bands is None else bands,
        per_image=options.per_image,
        cell_size=options.cell_size,
        extent=options.extent,
        order=options.order,
    )
    for scene in scenes:
        check_size(scene)
    return scenes if aoi is None else _met(scenes, aoi.area())


def _met(scenes: Sequence[Scene], area: AreaOfInterest) -> list[Scene]:
    """The scenes that the area touches.

    Raises:
        LabelError: if it touches none.
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
        logger.info(f"{name} lies outside of {area.source} and is left out.")
    return [scene for scene in scenes if scene.name not in errors]


@dataclass(frozen=True, slots=True, eq=False)
class _Run:
    """One call: the model, and what was asked for."""

    model: TrainedModel
    settings: MapSettings
    where: torch.device
    device: str | None
    aoi: LazyAreaOfInterest | None
    options: MapOptions

    @property
    def overwrite(self) -> bool:
        return self.options.overwrite

    def one_map(self, scene: Scene, targets: OutputPaths) -> Path:
        """The scene's map is there."""
        job = self._job(scene, targets)
        self._check(job, targets)
        if not job.done or job.only_folder_left or _traced(targets):
            with self._client() as client:
                job = job.with_parts(threads_of(client))
                self._tell(job, client, estimate_map(job, self.model, self.where, area=job.area(), here=client is None))
                with progress_bar("Mapping") as progress:
                    self._make(job, client, progress)
        self._trace(targets)
        return targets.out

    def map_each(self, scenes: Sequence[Scene], order: Sequence[OutputPaths]) -> list[Path]:
        """A map of each scene is there; those that are there from the same call stay.

        Raises:
            RasterError: if images cannot be read, when the others are mapped.
        """
        jobs = [self._job(scene, targets) for scene, targets in zip(scenes, order, strict=True)]
        there = [job.done and _traced(its) for job, its in zip(jobs, order, strict=True)]
        if any(there):
            logger.info(
                f"{sum(there)} of {len(jobs)} images are mapped already, from the same call; {self._what_stays()}."
            )
        stay = [whole and not self._retraced for whole in there]
        left = [(job, its) for job, its, stays in zip(jobs, order, stay, strict=True) if not stays]
        for job, targets in left:
            self._check(job, targets)
        for job in jobs:
            if job.only_folder_left:
                self._make(job, None, None)
        damaged: list[RasterError] = []
        with self._client() as client, closing(self._in_order(left, client)) as turns:
            for job, targets, begun, finish in turns:
                try:
                    with begun, progress_bar("Mapping") as progress:
                        finish(progress)
                    self._trace(targets)
                except RasterError as error:
                    logger.info(f"{job.scene.name} is not mapped: {error}")
                    damaged.append(error)
                except GeopspError as error:
                    mapped = f"{sum(each.done for each in jobs)} of {len(jobs)} images are mapped"
                    raise type(error)(f"{job.scene.name}: {error} {mapped}; the same call goes on.") from error
        if damaged:
            raise RasterError(f"{len(damaged)} of {len(jobs)} images could not be mapped; the first: {damaged[0]}")
        return [targets.out for targets in order]

    def _in_order(
        self, left: Sequence[tuple[MapJob, OutputPaths]], client: Any
    ) -> Generator[tuple[MapJob, OutputPaths, ExitStack, Finish]]:
        """One image after the other, to be finished; workers of a cluster have parts of the next ones meanwhile."""
        threads, waiting = threads_of(client), deque[tuple[MapJob, OutputPaths, ExitStack, Finish]]()
        undone = {job.out for job, _ in left if not job.done}  # of others, polygons are missing
        share = -(-threads // max(1, min(len(undone), MAX_IMAGES_IN_FLIGHT)))
        order = [(job.with_parts(share), targets) for job, targets in left]
        self._tell_all([job for job, _ in order if job.out in undone], here=client is None)
        with ExitStack() as stack:
            for job, targets in order:
                begun = stack.enter_context(ExitStack())
                waiting.append((job, targets, begun, self._begin(job, client, begun, single=len(undone) == 1)))
                ahead = sum(len(each.parts) for each, *_ in list(waiting)[1:] if each.out in undone)
                if client is None or ahead >= AHEAD * threads or len(waiting) == MAX_IMAGES_IN_FLIGHT:
                    yield waiting.popleft()
            yield from waiting

    def _begin(self, job: MapJob, client: Any, begun: ExitStack, *, single: bool) -> Finish:
        """What ends the map, or tells why it could not be begun: when its turn comes, so that others go on."""
        try:
            if job.done:
                return lambda _: None
            here = client is None
            costs = estimate_map(job, self.model, self.where, area=job.area(), here=here, timed=single)
            self._tell(job, client, costs)
            if here:
                return lambda progress: self._make(job, None, progress)
            return begun.enter_context(
                start_job(job, self.model, device=self.device, client=client, overwrite=self.overwrite)
            )
        except GeopspError as error:
            return partial(_fail, error)

    @property
    def _retraced(self) -> bool:
        """True if polygons are made anew though they are there, as other options may be asked of them now."""
        return self.overwrite and self.options.polygons is not None

    def _what_stays(self) -> str:
        """Of images that are mapped, and traced if asked for."""
        if self._retraced:
            return "the maps stay, polygons are made anew"
        if self.options.polygon_options:
            return "they stay, and so do their polygons, as they are: overwrite (--overwrite) makes these anew"
        return "they stay"

    def _job(self, scene: Scene, targets: OutputPaths) -> MapJob:
        bf16 = resolve_precision(self.settings.precision, self.where) == "bf16"
        products = targets.products(self.model.legend)
        return plan_job(scene, self.model, products, self.settings, bf16=bf16, aoi=self.aoi)

    def _check(self, job: MapJob, targets: OutputPaths) -> None:
        """Raises OutputError if an output exists and may not be replaced, OptionError if polygons cannot be such."""
        if targets.polygons is not None:
            check_vector_output(targets.polygons, overwrite=self.overwrite)
        if not job.done or _traced(targets):
            job.check(overwrite=self.overwrite)

    def _client(self) -> AbstractContextManager[Any]:
        options = self.options
        return nullcontext(options.client) if options.scheduler is None else connect(options.scheduler)

    def _make(self, job: MapJob, client: Any, progress: Progress | None) -> None:
        run_job(job, self.model, device=self.device, client=client, overwrite=self.overwrite, progress=progress)

    def _tell(self, job: MapJob, client: Any, costs: Iterator[str]) -> None:
        """What is mapped where, what differs from the training, and what it costs is said."""
        where = device_name(self.where) if client is None else "the workers of a Dask cluster"
        grid = job.scene.grid
        logger.info(f"Mapping {job.scene.name}, {grid.width} x {grid.height} pixels, on {where}")
        for note in (
            *job.scene.notes,
            *compare_with_training(job.scene, self.model, tile_size=self.settings.tile_size),
        ):
            logger.info(f"{note}.")
        for note in costs:
            logger.info(f"{note}.")

    def _tell_all(self, jobs: Sequence[MapJob], *, here: bool) -> None:
        """What many maps cost together is said."""
        if len(jobs) > 1:
            at_once = 1 if here else MAX_IMAGES_IN_FLIGHT
            for note in estimate_maps(jobs, self.model, self.where, here=here, at_once=at_once):
                logger.info(f"{note}.")

    def _trace(self, targets: OutputPaths) -> None:
        if targets.polygons is not None:
            options = self.options.polygon_options or {}
            raster_to_polygons(
                targets.out, targets.polygons, confidence=targets.confidence, overwrite=self.overwrite, **options
            )


def _fail(error: GeopspError, _: Progress | None) -> None:
    raise error


def _traced(targets: OutputPaths) -> bool:
    """True if no polygons are asked for, or these are there and not older than the map that is there."""
    if targets.polygons is None:
        return True
    return targets.polygons.exists() and targets.polygons.stat().st_mtime_ns >= targets.out.stat().st_mtime_ns
