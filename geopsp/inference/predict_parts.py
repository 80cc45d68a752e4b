"""Parts of a map, made in this process."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, nullcontext
from typing import Any

import numpy as np
import rasterio

from geopsp.core.grid import Window
from geopsp.core.parallel import cpu_count
from geopsp.core.progress import Progress
from geopsp.inference.engines import Engine, MapModel, engine_of, load_for_worker
from geopsp.inference.job import MapJob
from geopsp.inference.job_store import JobStore, PartUploads
from geopsp.inference.pipeline import Rows, TilePipeline
from geopsp.inference.predictor import TilePredictor
from geopsp.inference.resources import ComputeCost, Resources
from geopsp.inference.tile_ops import tile_ops
from geopsp.raster.cog.part_file import PartWriter
from geopsp.raster.cog.part_grid import Part
from geopsp.raster.cog.raster_spec import RasterSpec

MAX_TIMED_SIDE = 256
"""Largest side of the square that the CRF is timed on, in pixels."""


GDAL_CACHE_BYTES = 32 * 2**20
"""Bytes of blocks that GDAL keeps; little, as each block is read once."""


def _pipeline(job: MapJob, predictor: TilePredictor, threads: int) -> TilePipeline:
    return TilePipeline(
        job.scene, job.area(), job.tiles, job.legend, job.rasters, predictor, threads, job.crf, job.confidence
    )


def tile_seconds(job: MapJob, model: MapModel, resources: Resources) -> float:
    """Measure the seconds that a tile takes in the network, as it is used for the map, but not compiled."""
    batch_size, threads, size = resources.batch_size, resources.threads, job.tiles.size
    predictor = engine_of(model).predictor(job, model, resources.device, batch_size=batch_size, compiled=False)
    data = [np.zeros((len(model.bands), size, size), job.scene.dtype)] * batch_size

    def compute(_: int) -> None:
        predictor(data, [np.ones((size, size), bool)] * batch_size).sum().item()  # waits for the device

    with predictor.threads(threads) as pool:
        list(pool.map(compute, range(threads)))
        start = time.perf_counter()
        list(pool.map(compute, range(threads)))
        return (time.perf_counter() - start) / (threads * batch_size)


def crf_tile_seconds(job: MapJob, model: MapModel, resources: Resources) -> float:
    """Measure the seconds that the CRF takes for as many pixels as a tile adds to the map; 0 without a CRF."""
    if job.crf is None:
        return 0.0
    side = min(job.tiles.size, MAX_TIMED_SIDE)
    size, classes, ops = (side, side), len(model.legend), tile_ops(resources.device, model.normalization)
    uniform = ops.fractions(ops.zeros((classes, *size)) + 1, classes)
    image, valid = ops.zeros((len(model.bands), *size), "float32"), np.ones(size, bool)
    start = time.perf_counter()
    found = ops.mean_field(uniform, image, valid, job.crf, excluded=(), core=slice(0, side), pool=None)
    found.sum().item()  # waits for the device
    seconds = (time.perf_counter() - start) / (resources.threads if resources.device.type == "cpu" else 1)
    return seconds * ((job.tiles.size - job.tiles.overlap) / side) ** 2


def measure_cost(job: MapJob, model: MapModel, resources: Resources) -> ComputeCost:
    """Measure the time of a few tiles, and estimate the memory of the map."""
    seconds = tile_seconds(job, model, resources) + crf_tile_seconds(job, model, resources)
    return ComputeCost(seconds, resources.needed_bytes(job, model), engine_of(model).free_memory(resources.device))


def predict_missing_parts(
    job: MapJob, missing: list[int], model: MapModel, resources: Resources, progress: Progress | None
) -> None:
    """Write the files of these parts, whose numbers ascend."""
    device, batch_size = resources.device, resources.batch_size
    predictor = engine_of(model).predictor(job, model, device, batch_size=batch_size, compiled=job.compiled)
    pipeline = _pipeline(job, predictor, resources.threads)
    runs = job.parts.runs(missing)
    windows = [_window_of(run) for run in runs]
    store, total, before = JobStore(job), sum(map(job.num_tiles, windows)), 0
    with _writers() as pool:
        for run, window in zip(runs, windows, strict=True):
            _predict_run(job, store, run, pipeline, pool, _continued(progress, before, total))
            before += job.num_tiles(window)


def _writers() -> ThreadPoolExecutor:
    """Return threads that compress blocks."""
    return ThreadPoolExecutor(cpu_count(), thread_name_prefix="geopsp-write")


def _window_of(run: Sequence[Part]) -> Window:
    """Return the window of parts that lie below each other."""
    first, last = run[0].window, run[-1].window
    return Window(first.col, first.row, first.width, last.row_stop - first.row)


def _continued(progress: Progress | None, before: int, total: int) -> Progress | None:
    """Return a progress callback that counts on from `before`."""
    return None if progress is None else lambda done, _, note="": progress(before + done, total, note)


def _predict_run(
    job: MapJob,
    store: JobStore,
    run: Sequence[Part],
    pipeline: TilePipeline,
    pool: ThreadPoolExecutor | None,
    progress: Progress | None,
) -> int:
    """Write the files of parts that follow each other down the map; return the number of tiles."""
    window = _window_of(run)
    heights = [part.window.height for part in run]
    with closing(pipeline.rows(window, progress)) as rows:
        groups, uploads = regroup_rows(rows, heights), PartUploads(store, pool)
        for part in run:
            with ExitStack() as stack:
                writers = {raster.name: stack.enter_context(_writer(job, raster, part, pool)) for raster in job.rasters}
                for pixels_by_name in next(groups):
                    for name, pixels in pixels_by_name.items():
                        writers[name].append(pixels)
            uploads.add(part.number)
        uploads.wait()
    return job.num_tiles(window)


def _writer(job: MapJob, raster: RasterSpec, part: Part, pool: ThreadPoolExecutor | None) -> PartWriter:
    path = job.part_path(raster, part.number)
    return PartWriter(
        path, part.window.width, part.window.height, raster, block=job.parts.block, levels=job.parts.levels, pool=pool
    )


def regroup_rows(rows: Iterator[Rows], heights: Sequence[int]) -> Iterator[Iterator[Rows]]:
    """Group rows by heights: one iterator for each height, to be used up before the next."""
    kept: list[Rows] = []

    def group(height: int) -> Iterator[Rows]:
        while height:
            some = kept.pop() if kept else next(rows)
            count = next(iter(some.values())).shape[1]
            if count > height:
                kept.append({name: pixels[:, height:] for name, pixels in some.items()})
                some = {name: pixels[:, :height] for name, pixels in some.items()}
            height -= min(count, height)
            yield some

    return map(group, heights)


def predict_part(job: MapJob, number: int, *, device: str | None = None) -> int:
    """Write a part's files; return the number of tiles, 0 if the files were there.

    On the CPU one thread of this process does it all. The model is the one in the job's folder, or the same one if
    this process has it already.
    """
    store = JobStore(job)
    if job.has(number) or store.has(number):
        return 0
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
        predictor = _WORKER_MODEL.predictor(job, device)
        pipeline = _pipeline(job, predictor, 1)
        with nullcontext() if predictor.device.type == "cpu" else _writers() as pool:
            num_tiles = _predict_run(job, store, [job.parts.part(number)], pipeline, pool, None)
    store.remove_local_part(number)
    return num_tiles


class _WorkerModel:
    """The model that this process used last: parts of many jobs, which mostly share it, come one after another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: tuple[str, str | None] | None = None
        self._loaded: tuple[Engine, MapModel] | None = None
        self._predictors: dict[tuple[Any, ...], TilePredictor] = {}
        """Of this model, by the options of the jobs: they share the network."""

    def predictor(self, job: MapJob, device: str | None) -> TilePredictor:
        batch_size, settings = job.batch_size, job.settings
        options = batch_size, job.precision, job.excluded_channels, settings.test_time_augmentation, job.compiled
        with self._lock:
            if self._loaded is None or self._key != (job.model, device):
                self._loaded = None  # free its memory first
                self._predictors.clear()
                self._loaded = engine, _ = load_for_worker(job.model_folder)
                engine.set_up_worker(engine.pick_device(device))
                self._key = job.model, device
            if options not in self._predictors:
                engine, model = self._loaded
                self._predictors[options] = engine.predictor(
                    job, model, engine.pick_device(device), batch_size=batch_size, compiled=job.compiled
                )
            return self._predictors[options]


_WORKER_MODEL = _WorkerModel()
