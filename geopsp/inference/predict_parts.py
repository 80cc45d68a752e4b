"""Parts of a map, made in this process."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing
from typing import Any

import rasterio
import torch

from geopsp.core.grid import Window
from geopsp.core.parallel import cpu_count
from geopsp.core.progress import Progress
from geopsp.inference.job import MapJob
from geopsp.inference.pipeline import Rows, TilePipeline
from geopsp.inference.predictor import TilePredictor
from geopsp.models.device import pick_device
from geopsp.models.saved_model import TrainedModel, load_model
from geopsp.raster.cog.part_file import PartWriter
from geopsp.raster.cog.part_grid import Part
from geopsp.raster.cog.raster_spec import RasterSpec

CACHE = 32 * 2**20
"""Bytes of blocks that GDAL keeps: each is read once."""


def mapper_for(
    job: MapJob, model: TrainedModel, device: torch.device, *, batch_size: int, threads: int
) -> TilePipeline:
    """What makes rows of the job's map on a device."""
    return _mapper(
        job, predictor_for(job, model, device, batch_size=batch_size, compiled=job.settings.compiled), threads
    )


def _mapper(job: MapJob, predictor: TilePredictor, threads: int) -> TilePipeline:
    return TilePipeline(job.scene, job.area(), job.tiles, job.legend, job.products, predictor, threads)


def predictor_for(
    job: MapJob, model: TrainedModel, device: torch.device, *, batch_size: int, compiled: bool
) -> TilePredictor:
    """The network as the job uses it."""
    return TilePredictor(
        model,
        device,
        batch_size=batch_size,
        bf16=job.bf16,
        test_time_augmentation=job.settings.test_time_augmentation,
        unwanted=job.excluded_channels,
        compiled=compiled,
    )


def predict_missing_parts(job: MapJob, missing: list[int], mapper: TilePipeline, progress: Progress | None) -> None:
    """The files of these parts, by ascending numbers, are there."""
    runs = job.parts.runs(missing)
    windows = [_around(run) for run in runs]
    total, before = sum(map(job.tiles.count, windows)), 0
    with ThreadPoolExecutor(cpu_count(), thread_name_prefix="geopsp-write") as pool:
        for run, window in zip(runs, windows, strict=True):
            _make_run(job, run, mapper, pool, _after(progress, before, total))
            before += job.tiles.count(window)


def _around(run: Sequence[Part]) -> Window:
    """All of a run of parts that lie below each other."""
    first, last = run[0].window, run[-1].window
    return Window(first.col, first.row, first.width, last.row_stop - first.row)


def _after(progress: Progress | None, before: int, total: int) -> Progress | None:
    """A progress that counts on."""
    return None if progress is None else lambda done, _, note="": progress(before + done, total, note)


def _make_run(
    job: MapJob, run: Sequence[Part], mapper: TilePipeline, pool: ThreadPoolExecutor | None, progress: Progress | None
) -> int:
    """The files of parts that follow each other down the map are there; gives the number of tiles."""
    window = _around(run)
    heights = [part.window.height for part in run]
    with closing(mapper.rows(window, progress)) as rows:
        pieces = regroup_rows(rows, heights)
        for part in run:
            with ExitStack() as stack:
                writers = {
                    product.name: stack.enter_context(_writer(job, product, part, pool)) for product in job.products
                }
                for piece in next(pieces):
                    for name, pixels in piece.items():
                        writers[name].append(pixels)
    return job.tiles.count(window)


def _writer(job: MapJob, product: RasterSpec, part: Part, pool: ThreadPoolExecutor | None) -> PartWriter:
    place = job.part_path(product, part.number)
    return PartWriter(
        place, part.window.width, part.window.height, product, block=job.parts.block, levels=job.parts.levels, pool=pool
    )


def regroup_rows(rows: Iterator[Rows], heights: Sequence[int]) -> Iterator[Iterator[Rows]]:
    """The same rows, so many at a time as each height says; each group is to be used up before the next."""
    kept: list[Rows] = []

    def group(height: int) -> Iterator[Rows]:
        while height:
            piece = kept.pop() if kept else next(rows)
            found = next(iter(piece.values())).shape[1]
            if found > height:
                kept.append({name: pixels[:, height:] for name, pixels in piece.items()})
                piece = {name: pixels[:, :height] for name, pixels in piece.items()}
            height -= min(found, height)
            yield piece

    return map(group, heights)


def predict_part(job: MapJob, number: int, *, device: str | None = None) -> int:
    """A part's files are there, made by one thread of this process; gives the number of tiles, 0 if they were there.

    The model is the one in the job's folder, or one like it that this process has.
    """
    if job.has(number):
        return 0
    with rasterio.Env(GDAL_CACHEMAX=CACHE):
        mapper = _mapper(job, _WORKER_MODEL.predictor(job, device), 1)
        return _make_run(job, [job.parts.part(number)], mapper, None, None)


class _Kept:
    """The model that this process used last: parts of many jobs, which mostly share it, come one after another."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._key: tuple[str, str | None] | None = None
        self._model: TrainedModel | None = None
        self._predictors: dict[tuple[Any, ...], TilePredictor] = {}
        """Of this model, by how jobs use it: they share the network."""

    def predictor(self, job: MapJob, device: str | None) -> TilePredictor:
        batch_size, asked = job.batch_size, job.settings
        use = batch_size, job.bf16, job.excluded_channels, asked.test_time_augmentation, asked.compiled
        with self._lock:
            where = pick_device(device)
            if self._model is None or self._key != (job.model, device):
                self._model = None  # room first
                self._predictors.clear()
                if where.type == "cpu":
                    torch.set_num_threads(1)  # for good: parts side by side are what uses this machine's cores
                self._model = load_model(job.model_folder)
                self._key = job.model, device
            if use not in self._predictors:
                self._predictors[use] = predictor_for(
                    job, self._model, where, batch_size=batch_size, compiled=asked.compiled
                )
            return self._predictors[use]


_WORKER_MODEL = _Kept()
