"""One job from its first part to the published rasters: make the parts, here or on a cluster, and assemble them."""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import rasterio

from geopsp.core.addresses import address_of
from geopsp.core.legend import Legend
from geopsp.core.lock import output_lock
from geopsp.core.output import atomic_output, publish_folder, resolve_link
from geopsp.core.parallel import cpu_count
from geopsp.core.progress import Progress
from geopsp.core.remote_output import upload_to
from geopsp.core.sync import sync_file, sync_folder
from geopsp.core.text import format_count
from geopsp.errors import OutputError
from geopsp.inference.dask_workers import parts_on_cluster
from geopsp.inference.engines import MapModel, engine_of
from geopsp.inference.job import MapJob
from geopsp.inference.job_store import JobStore
from geopsp.inference.map_item import remove_item
from geopsp.inference.outputs import OUTPUTS
from geopsp.inference.predict_parts import GDAL_CACHE_BYTES, predict_missing_parts
from geopsp.inference.resources import Resources
from geopsp.raster.cog.assemble import assemble
from geopsp.raster.cog.part_mosaic import PartPath
from geopsp.raster.cog.raster_spec import RasterSpec
from geopsp.raster.cog.sieve import sieve
from geopsp.raster.legend_io import sidecar_path, write_class_files
from geopsp.raster.zarr_store import ZARR_FOLDER, is_zarr, write_zarr

logger = logging.getLogger(__name__)


def run_job(
    job: MapJob,
    model: MapModel,
    *,
    device: str | None = None,
    resources: Resources | None = None,
    client: Any = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """Make the job's rasters.

    Args:
        job: From `plan_job`.
        model: The same that the job was planned with.
        device: As torch names it; None: the first GPU, else the CPU; on a cluster of each worker.
        resources: What this process computes with, if that is known already.
        client: A Dask client, whose workers make the parts; None: this process does.
        overwrite: True may replace outputs.
        progress: Called with tiles done, or on a cluster with parts.

    Raises:
        OptionError: if there is not enough memory, or the workers cannot be used.
        RasterError: if pixels cannot be read.
        OutputError: if an output exists or cannot be written; finished parts stay, and the same call resumes.
    """
    with start_job(job, model, device=device, resources=resources, client=client, overwrite=overwrite) as finish:
        finish(progress)


Finish = Callable[[Progress | None], None]
"""Waits until the work that was started is done."""


@contextmanager
def start_job(
    job: MapJob,
    model: MapModel,
    *,
    device: str | None = None,
    resources: Resources | None = None,
    client: Any = None,
    overwrite: bool = False,
) -> Iterator[Finish]:
    """Give the job's parts to the client's workers; yield a function that waits for them and makes the rasters.

    Without a client that function makes the parts, too. Args and errors are those of `run_job`.
    """
    job.check(overwrite=overwrite)
    with output_lock(job.out):
        store = JobStore(job)
        if job.only_folder_left:
            job.clear()
            store.clear()
            yield lambda _: None
            return
        job.check(overwrite=overwrite)  # again, as another run may have ended meanwhile
        job = job.with_parts()
        store = JobStore(job)  # its folder has the size of the parts in its name
        with _started(job, store, model, device=device, resources=resources, client=client) as make_parts:
            yield partial(_finish, job, store, make_parts)


def _finish(job: MapJob, store: JobStore, make_parts: Finish, progress: Progress | None) -> None:
    """Wait for the parts, make the rasters and delete the job's folder."""
    with rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE_BYTES):
        if not job.publishing:
            make_parts(progress)
            job.require_same_inputs()
            _assemble(job)
        _publish(job)
    job.clear()
    store.clear()


@contextmanager
def _started(
    job: MapJob, store: JobStore, model: MapModel, *, device: str | None, resources: Resources | None, client: Any
) -> Iterator[Finish]:
    """Make the job's folder; yield a function that makes the parts, or waits for them."""
    if job.publishing:
        yield lambda _: None
        return
    resources = resources or Resources.for_job(job, model, engine_of(model).pick_device(device))
    try:
        store.fetch()
        resources = replace(resources, batch_size=job.begin(resources.batch_size))
        store.begin()
        missing = job.missing()
        if len(missing) < len(job.parts):
            logger.info(f"Resuming: {len(job.parts) - len(missing)} of {len(job.parts)} parts are done.")
        if not missing:
            yield lambda _: None
        elif client is None:
            yield partial(predict_missing_parts, job, missing, model, resources)
        else:
            engine = engine_of(model)
            engine.save(model, job.model_folder)
            store.upload_model()
            with parts_on_cluster(job, missing, client, device=device, packages=engine.packages) as collect:
                yield collect
    finally:
        job.remove_if_empty()
        store.remove_if_empty()


def _assemble(job: MapJob) -> None:
    """Make all rasters of the parts, complete, in the job's folder."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        for raster in job.rasters:
            path: PartPath = partial(job.part_path, raster)
            if raster.legend is not None and job.settings.sieve:
                size = format_count(job.settings.sieve, "pixel")
                logger.info(f"Sieving: regions of fewer than {size} join their largest neighbour.")
                sieve(raster, job.parts, path, job.sieved_path, job.settings.sieve, pool=pool)
                path = job.sieved_path
            staged = job.staged_path(raster)
            if is_zarr(staged):
                write_zarr(raster, job.scene.grid, job.parts, path, staged, tags=job.tags)
            else:
                assemble(raster, job.scene.grid, job.parts, path, staged, tags=job.tags, pool=pool)
    job.publish()


def _publish(job: MapJob) -> None:
    """Move the rasters to their places, the classes last; a STAC Item of an earlier map goes first."""
    remove_item(job.out)
    for raster in reversed(job.rasters):
        staged = job.staged_path(raster)
        if not staged.exists():  # moved by a run that was interrupted here
            continue
        target = resolve_link(raster.path)
        if is_zarr(target):
            publish_folder(staged, target, ZARR_FOLDER)
            continue
        _write_sidecars(raster, target, job.legend)
        if raster.path != target:  # programs look for sidecars beside the link
            try:
                _write_sidecars(raster, raster.path, job.legend)
            except (OutputError, OSError) as error:  # no reason to lose the map
                logger.warning(
                    f"The colours of {raster.path}, a link to {target}, may be missing or out of date: {error}"
                )
        _move(staged, target)


def _write_sidecars(raster: RasterSpec, path: Path, legend: Legend) -> None:
    """Write class names, colours and style beside a raster; if it has no classes, remove those of an earlier one.

    `legend` has the classes of the model, in the order of the bands of probabilities.
    """
    if raster.legend is not None:
        write_class_files(path, raster.legend)
        return
    if (old := sidecar_path(path)).exists():  # a read-only disk refuses to remove even nothing
        old.unlink()
    OUTPUTS[raster.name].write_style(path, legend)


def _move(source: Path, target: Path) -> None:
    """Move a file so that it appears complete, also on another disk."""
    if address_of(target):  # it stays in the folder of the job until it is uploaded
        upload_to(source, target)
        return
    try:
        sync_file(source)
        source.replace(target)
        sync_folder(target.parent)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        with atomic_output(target, overwrite=True) as partial_copy:
            shutil.copyfile(source, partial_copy)
        source.unlink()
