"""Parts made here or on many machines, put together, and published."""

from __future__ import annotations

import errno
import logging
import shutil
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import rasterio

from geopsp.core.output import output_lock, partial_path, resolve_link
from geopsp.core.parallel import cpu_count
from geopsp.core.progress import Progress
from geopsp.errors import OutputError
from geopsp.inference.dask_workers import parts_on_cluster
from geopsp.inference.job import MapJob
from geopsp.inference.predict_parts import CACHE, mapper_for, predict_missing_parts
from geopsp.models.device import pick_device
from geopsp.models.memory import inference_batch_size
from geopsp.models.saved_model import TrainedModel, save_model
from geopsp.raster.cog.assemble import assemble
from geopsp.raster.cog.part_mosaic import PartPath
from geopsp.raster.cog.raster_spec import RasterSpec
from geopsp.raster.cog.sieve import sieve
from geopsp.raster.legend_io import write_class_files

logger = logging.getLogger(__name__)


def run_job(
    job: MapJob,
    model: TrainedModel,
    *,
    device: str | None = None,
    client: Any = None,
    overwrite: bool = False,
    progress: Progress | None = None,
) -> None:
    """The job's rasters are at their places, whole.

    Args:
        job: From `plan_job`.
        model: The same that the job was planned with.
        device: As torch names it; None: the first GPU, else the CPU. On many machines, of each of them.
        client: A Dask client, whose workers make the parts; None: this process does.
        overwrite: True may replace outputs.
        progress: Told of tiles done, or on many machines of parts.

    Raises:
        OptionError: if memory is too small, or the workers cannot be used.
        RasterError: if pixels cannot be read.
        OutputError: if an output exists or cannot be written; what is done of it stays for the same call to go on.
    """
    with start_job(job, model, device=device, client=client, overwrite=overwrite) as finish:
        finish(progress)


Finish = Callable[[Progress | None], None]
"""Waits for what was begun, and ends it."""


@contextmanager
def start_job(
    job: MapJob, model: TrainedModel, *, device: str | None = None, client: Any = None, overwrite: bool = False
) -> Iterator[Finish]:
    """The client's workers make the job's parts; what it gives puts the rasters at their places, when all are there.

    Without a client all is made then. Args and errors are those of `make_map`.
    """
    job.check(overwrite=overwrite)
    with output_lock(job.out):
        if job.only_folder_left:
            job.clear()
            yield lambda _: None
            return
        job.check(overwrite=overwrite)  # again, as another run may have ended meanwhile
        job = job.with_parts()
        with _begun(job, model, device=device, client=client) as collect:
            yield partial(_finish, job, collect, restyle=overwrite)


def _finish(job: MapJob, collect: Finish, progress: Progress | None, *, restyle: bool) -> None:
    """The rasters are at their places, and nothing else is left."""
    with rasterio.Env(GDAL_CACHEMAX=CACHE):
        if not job.publishing:
            collect(progress)
            job.require_same_inputs()
            _put_together(job)
        _publish(job, restyle=restyle)
    job.clear()


@contextmanager
def _begun(job: MapJob, model: TrainedModel, *, device: str | None, client: Any) -> Iterator[Finish]:
    """The job's folder is there; what it gives waits for all parts, or makes them."""
    if job.publishing:
        yield lambda _: None
        return
    where = pick_device(device)
    fitting, threads = inference_batch_size(
        model.network,
        bands=len(model.bands),
        classes=len(model.legend),
        size=job.tiles.size,
        device=where,
        batch_size=job.settings.batch_size,
        bf16=job.bf16,
    )
    try:
        batch_size = job.begin(fitting)
        missing = job.missing()
        if len(missing) < len(job.parts):
            there = len(job.parts) - len(missing)
            logger.info(f"Going on where it was broken off: {there} of {len(job.parts)} parts are there.")
        if not missing:
            yield lambda _: None
        elif client is None:
            yield lambda progress: predict_missing_parts(
                job, missing, mapper_for(job, model, where, batch_size=batch_size, threads=threads), progress
            )
        else:
            save_model(model, job.model_folder, overwrite=True)
            with parts_on_cluster(job, missing, client, device=device) as collect:
                yield collect
    finally:
        job.remove_if_empty()


def _put_together(job: MapJob) -> None:
    """All products wait, whole, for their places."""
    with ThreadPoolExecutor(cpu_count()) as pool:
        for product in job.products:
            path: PartPath = partial(job.part_path, product)
            if product.legend is not None and job.settings.sieve:
                logger.info(f"Sieving: regions of fewer than {job.settings.sieve} pixels join their largest neighbour")
                sieve(product, job.parts, path, job.sieved_path, job.settings.sieve, pool=pool)
                path = job.sieved_path
            assemble(
                product,
                job.scene.grid,
                job.parts,
                path,
                job.staged_path(product),
                tags=job.tags,
                pool=pool,
            )
    job.publish()


def _publish(job: MapJob, *, restyle: bool) -> None:
    """What waits is moved to its place, the classes last; `restyle`: True may replace a style that lies there."""
    for product in reversed(job.products):
        staged = job.staged_path(product)
        if not staged.exists():  # a run that was broken off here moved it
            continue
        place = resolve_link(product.path)
        _write_sidecars(product, place, restyle=restyle)
        if product.path != place:  # programs look beside the name that they are given
            try:
                _write_sidecars(product, product.path, restyle=restyle)
            except (OutputError, OSError) as error:  # no reason to lose the map
                logger.info(f"nothing could be changed beside {product.path}, which is a link to {place}: {error}")
        _move(staged, place)


def _write_sidecars(product: RasterSpec, name: Path, *, restyle: bool) -> None:
    """Names and colours lie beside the name, or if it has none, nothing of what was there before."""
    if product.legend is not None:
        write_class_files(name, product.legend, overwrite_style=restyle)
    elif (old := name.with_name(name.name + ".aux.xml")).exists():  # a read-only disk refuses to remove even nothing
        old.unlink()


def _move(source: Path, target: Path) -> None:
    """The file has its name, whole, also on another disk."""
    try:
        source.replace(target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        near = partial_path(target)
        shutil.copyfile(source, near)
        near.replace(target)
        source.unlink()
