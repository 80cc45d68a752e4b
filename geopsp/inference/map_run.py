"""One call of `classify_pixels`: one map or a map of each image, what it costs and resumes, and its polygons."""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Generator, Iterable, Sequence
from contextlib import AbstractContextManager, ExitStack, closing, nullcontext
from functools import partial
from pathlib import Path
from typing import Any

from geopsp.core.jit import compile_ahead
from geopsp.core.progress import Progress, progress_bar
from geopsp.errors import GeopspError, RasterError
from geopsp.inference.dask_client import connect, num_threads
from geopsp.inference.dask_workers import MAX_IMAGES_IN_FLIGHT
from geopsp.inference.engines import MapModel, engine_of
from geopsp.inference.estimate import MapCost, estimate_map, estimate_maps
from geopsp.inference.input_check import compare_with_training
from geopsp.inference.job import MapJob
from geopsp.inference.map_item import check_item, item_path, write_map_item
from geopsp.inference.map_plan import MapPlan
from geopsp.inference.options import MapOptions
from geopsp.inference.output_paths import OutputPaths
from geopsp.inference.plan_job import plan_job
from geopsp.inference.predict_parts import measure_cost
from geopsp.inference.resources import ComputeCost, Resources
from geopsp.inference.run_job import Finish, run_job, start_job
from geopsp.inference.tile_ops import COMPILED
from geopsp.labels.lazy_area import LazyAreaOfInterest
from geopsp.models.mean_field import COMPILED as COMPILED_FOR_CRF
from geopsp.raster.scene import Scene

logger = logging.getLogger(__name__)

PARTS_AHEAD = 2
"""Parts of the next images for each thread of a cluster, so that none waits for the end of an image."""


class MapRun:
    """The model and the options of one call."""

    def __init__(
        self,
        model: MapModel,
        options: MapOptions,
        *,
        device: str | None,
        aoi: LazyAreaOfInterest | None,
        folder: Path | None = None,
    ) -> None:
        """Take the model and the options.

        Args:
            model: The model.
            options: All options.
            device: As torch names it; None: the first GPU, else the CPU; on a cluster of each worker.
            aoi: The area of interest.
            folder: Where the model was read from; None: it was not.
        """
        self.folder = folder
        self.model, self.options, self.settings = model, options, options.settings
        self.engine, self.aoi = engine_of(model), aoi
        self.device, self.own_device = device, self.engine.pick_device(device)
        self._resources: Resources | None = None

    @property
    def overwrite(self) -> bool:
        return self.options.overwrite

    def one_map(self, scene: Scene, paths: OutputPaths) -> Path:
        """Make the map of a scene."""
        job = self._job(scene, paths)
        self._check(job, paths)
        if not job.done or job.only_folder_left or _is_complete(paths):
            with self._client() as client:
                job = job.with_parts(num_threads(client))
                self._compile(client)
                self._log_job(job, client, timed=True)
                with progress_bar("Mapping") as progress:
                    self._run_job(job, client, progress)
        self._follow(job, paths)
        return paths.out

    def plan(self, scenes: Sequence[Scene], all_paths: Sequence[OutputPaths]) -> MapPlan:
        """Return what maps would be made of which images, and what they would cost, but write nothing."""
        jobs = [self._job(scene, paths) for scene, paths in zip(scenes, all_paths, strict=True)]
        for job, paths in zip(jobs, all_paths, strict=True):
            self._check(job, paths)
        self._compile(self.options.client)
        jobs = [job.with_parts(num_threads(self.options.client)) for job in jobs]
        costs = self._costs_of_all if len(jobs) > 1 else self._costs
        outputs = tuple(each for paths in all_paths for each in paths.all_paths)
        return MapPlan.collect(outputs, costs(jobs, self.options.client, timed=True))

    def map_each(self, scenes: Sequence[Scene], all_paths: Sequence[OutputPaths]) -> list[Path]:
        """Make a map of each scene; those that exist from the same call are kept.

        Raises:
            RasterError: if images cannot be read, after the others are mapped.
        """
        jobs = [self._job(scene, paths) for scene, paths in zip(scenes, all_paths, strict=True)]
        finished = [job.done and _is_complete(paths) for job, paths in zip(jobs, all_paths, strict=True)]
        if any(finished):
            logger.info(f"{sum(finished)} of {len(jobs)} images are mapped already by the same call; {self._kept()}.")
        kept = [is_finished and not self._retraces for is_finished in finished]
        left = [(job, paths) for job, paths, is_kept in zip(jobs, all_paths, kept, strict=True) if not is_kept]
        for job, paths in left:
            self._check(job, paths)
        for job in jobs:
            if job.only_folder_left:
                self._run_job(job, None, None)
        damaged: list[RasterError] = []
        with self._client() as client, closing(self._in_order(left, client)) as images:
            for job, paths, started, finish in images:
                try:
                    with started, progress_bar("Mapping") as progress:
                        finish(progress)
                    self._follow(job, paths)
                except RasterError as error:
                    logger.warning(f"{job.scene.name} is not mapped: {error}")
                    damaged.append(error)
                except GeopspError as error:
                    mapped = f"{sum(each.done for each in jobs)} of {len(jobs)} images are mapped"
                    raise type(error)(f"{job.scene.name}: {error} {mapped}; the same call resumes.") from error
        if damaged:
            raise RasterError(f"{len(damaged)} of {len(jobs)} images could not be mapped. The first: {damaged[0]}")
        return [paths.out for paths in all_paths]

    def _in_order(
        self, left: Sequence[tuple[MapJob, OutputPaths]], client: Any
    ) -> Generator[tuple[MapJob, OutputPaths, ExitStack, Finish]]:
        """Yield one image after the other, to be finished; meanwhile workers of a cluster have parts of the next."""
        threads, waiting = num_threads(client), deque[tuple[MapJob, OutputPaths, ExitStack, Finish]]()
        unmapped = {job.out for job, _ in left if not job.done}  # the others lack only polygons
        threads_per_image = -(-threads // max(1, min(len(unmapped), MAX_IMAGES_IN_FLIGHT)))
        images = [(job.with_parts(threads_per_image), paths) for job, paths in left]
        self._log_cost_of_all([job for job, _ in images if job.out in unmapped], client)
        with ExitStack() as stack:
            for job, paths in images:
                started = stack.enter_context(ExitStack())
                waiting.append((job, paths, started, self._start(job, client, started, timed=len(unmapped) == 1)))
                ahead = sum(len(each.parts) for each, *_ in list(waiting)[1:] if each.out in unmapped)
                if client is None or ahead >= PARTS_AHEAD * threads or len(waiting) == MAX_IMAGES_IN_FLIGHT:
                    yield waiting.popleft()
            yield from waiting

    def _start(self, job: MapJob, client: Any, started: ExitStack, *, timed: bool) -> Finish:
        """Return what finishes the map; an error at the start is raised there, so that other images go first."""
        try:
            if job.done:
                return lambda _: None
            self._compile(client)
            self._log_job(job, client, timed=timed)
            if client is None:
                return lambda progress: self._run_job(job, None, progress)
            return started.enter_context(
                start_job(
                    job,
                    self.model,
                    device=self.device,
                    resources=self.resources(job),
                    client=client,
                    overwrite=self.overwrite,
                )
            )
        except GeopspError as error:
            return partial(_fail, error)

    @property
    def _retraces(self) -> bool:
        """True if existing polygons are made again, as their options may differ now."""
        return self.overwrite and self.options.polygons is not None

    def _kept(self) -> str:
        """Return what is kept of images that are mapped, in words."""
        if self._retraces:
            return "the maps are kept, and polygons are made again"
        if self.options.polygon_options:
            return "they are kept, and their polygons as they are: `overwrite=True` makes these again"
        return "they are kept"

    def _job(self, scene: Scene, paths: OutputPaths) -> MapJob:
        rasters = paths.raster_specs(self.model.legend)
        return plan_job(scene, self.model, rasters, self.settings, device=self.own_device, aoi=self.aoi)

    def resources(self, job: MapJob) -> Resources:
        """Return what this process computes with; found with the first job, as all have the same options."""
        if self._resources is None:
            self._resources = Resources.for_job(job, self.model, self.own_device)
        return self._resources

    def _check(self, job: MapJob, paths: OutputPaths) -> None:
        """Check that outputs may be written.

        Raises:
            OutputError: if one exists and may not be replaced.
            OptionError: if the polygons' file name has an unknown ending.
        """
        lacks_file = job.done and not _is_complete(paths)  # it is made of the map that is there
        if paths.polygons is not None and not (lacks_file and _has_polygons(paths)):
            from geopsp.vector.write import check_vector_output  # loads pyarrow

            check_vector_output(paths.polygons, overwrite=self.overwrite)
        if not lacks_file:
            job.check(overwrite=self.overwrite)
        if paths.stac:
            check_item(paths.out, overwrite=self.overwrite)

    def _client(self) -> AbstractContextManager[Any]:
        options = self.options
        return (
            nullcontext(options.client)
            if options.scheduler is None
            else connect(options.scheduler, gpus=self.engine.num_gpus())
        )

    def _run_job(self, job: MapJob, client: Any, progress: Progress | None) -> None:
        run_job(
            job,
            self.model,
            device=self.device,
            resources=self.resources(job),
            client=client,
            overwrite=self.overwrite,
            progress=progress,
        )

    def _compile(self, client: Any) -> None:
        """Compile what a map on this CPU needs, before anything is timed."""
        if client is None and self.own_device.type == "cpu":
            compile_ahead((*COMPILED, *COMPILED_FOR_CRF) if self.settings.crf else COMPILED)

    def _log_job(self, job: MapJob, client: Any, *, timed: bool) -> None:
        """Say what is mapped where, how it differs from the training, and what it costs."""
        where = self.engine.device_name(self.own_device) if client is None else "a Dask cluster"
        grid, images = job.scene.grid, len(job.scene.layers)
        size = f"{grid.width:,} x {grid.height:,} pixels"
        what = f"{job.scene.name} ({size})" if images == 1 else f"{images} images (a mosaic of {size})"
        logger.info(f"Classifying {what} on {where}.")
        _log(self._costs([job], client, timed=timed))

    def _costs(self, jobs: Sequence[MapJob], client: Any, *, timed: bool) -> Generator[str, None, MapCost]:
        """Yield how a scene differs from the training, and what its map costs."""
        (job,) = jobs
        for note in job.scene.notes:
            yield f"{note.rstrip('.')}."
        for warning in compare_with_training(job.scene, self.model, tile_size=self.settings.tile_size):
            logger.warning(warning)
        here = client is None
        measure = partial(self._measure, job) if here and timed else None
        cost = estimate_map(job, on_this_machine=here, measure=measure, min_tiles=self._min_timed_tiles)
        return (yield from cost)

    def _log_cost_of_all(self, jobs: Sequence[MapJob], client: Any) -> None:
        """Say what many maps cost together."""
        if len(jobs) > 1:
            _log(self._costs_of_all(jobs, client, timed=True))

    def _costs_of_all(self, jobs: Sequence[MapJob], client: Any, *, timed: bool) -> Generator[str, None, MapCost]:
        """Yield what many maps cost together."""
        here = client is None
        at_once = 1 if here else MAX_IMAGES_IN_FLIGHT
        measure = partial(self._measure, jobs[0]) if here and timed else None
        return (yield from estimate_maps(jobs, at_once=at_once, measure=measure, min_tiles=self._min_timed_tiles))

    @property
    def _min_timed_tiles(self) -> int | None:
        return 1 if self.options.dry_run else None

    def _measure(self, job: MapJob) -> ComputeCost:
        return measure_cost(job, self.model, self.resources(job))

    def _follow(self, job: MapJob, paths: OutputPaths) -> None:
        """Make the polygons of a map, and then its STAC Item."""
        if paths.polygons is not None and (self.overwrite or not _has_polygons(paths)):
            from geopsp.polygons.raster_to_polygons import raster_to_polygons  # loads geopandas

            raster_to_polygons(
                paths.out,
                paths.polygons,
                confidence=paths.extra.get("confidence"),
                overwrite=self.overwrite,
                **(self.options.polygon_options or {}),
            )
        if paths.stac:
            write_map_item(job, paths.polygons, self.folder, overwrite=self.overwrite)


def _log(notes: Iterable[str]) -> None:
    for note in notes:
        logger.info(note)


def _fail(error: GeopspError, _: Progress | None) -> None:
    raise error


def _is_complete(paths: OutputPaths) -> bool:
    """Return whether all that is made of a map exists and is not older."""
    return _has_polygons(paths) and (not paths.stac or _is_newer(item_path(paths.out), paths.polygons or paths.out))


def _has_polygons(paths: OutputPaths) -> bool:
    """Return whether the polygons exist and are not older than the map; True if none are asked for."""
    if paths.polygons is None:
        return True
    return _is_newer(paths.polygons, paths.out)


def _is_newer(path: Path, other: Path) -> bool:
    """Return whether a file exists and is not older than another."""
    return path.exists() and path.stat().st_mtime_ns >= other.stat().st_mtime_ns
