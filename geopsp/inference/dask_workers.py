"""Parts of a map, made by the workers of a Dask cluster.

The job lies in its own folder, as a file that each worker reads once: a task is only a number, and a worker that does
not see the folder is found before it begins. Workers write parts into that folder too; only counts come back. A worker
that dies leaves at most an incomplete part behind, under another name, and Dask gives the part to the next worker.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import lru_cache, partial
from queue import SimpleQueue
from typing import Any

from geopsp.cluster.order import Order, order_file
from geopsp.cluster.tasks import RETRIES, TaskWords, cancel, failure_of, next_done
from geopsp.cluster.workers import check_workers, require_visible, worker_number
from geopsp.core.progress import Progress
from geopsp.errors import OutputError
from geopsp.inference.engines import engine_in
from geopsp.inference.job import MapJob
from geopsp.inference.job_store import DOWNLOADS, JobStore, on_this_machine, raster_addresses

MAX_IMAGES_IN_FLIGHT = 32
"""Images whose parts a cluster has at a time; each has its lock and its copy of the model."""


CONSEQUENCE = "pixels whose classes are almost equally likely may get another class than here"
"""Of another version of a package."""


@contextmanager
def parts_on_cluster(
    job: MapJob, numbers: Sequence[int], client: Any, *, packages: Sequence[str], device: str | None = None
) -> Iterator[Callable[[Progress | None], None]]:
    """Give parts to the client's workers; yield a function that waits until all files are in the job's folder.

    If the block fails, the parts are cancelled.

    Args:
        job: It has begun, with the model in its folder.
        numbers: Of the parts.
        client: Of a Dask cluster; workers that join later help too.
        packages: Those on whose version the last bit of a map may depend.
        device: As torch names it; None: each worker's own.

    Raises:
        OptionError: if workers have another version of geopsp, if a part kills one worker after the other, or if the
            scheduler is gone.
        OutputError, InputNotFoundError: if a worker does not see the job's folder or the images.
        GeopspError: of the first part that fails.
    """
    path = job.folder.absolute() / f"order-{secrets.token_hex(8)}"
    with order_file((job, raster_addresses(job)), path) as order:
        check_workers(client, _read_job, order, packages=packages, consequence=CONSEQUENCE)
        name = f"geopsp-part-{secrets.token_hex(16)}"
        keys = [(name, number) for number in numbers]
        futures = client.map(_predict_part, numbers, order=order, device=device, key=keys, retries=RETRIES)
        try:
            yield lambda progress: _collect(job, futures, client, progress)
        except BaseException:
            cancel(client, futures)
            raise


def _collect(job: MapJob, futures: Sequence[Any], client: Any, progress: Progress | None) -> None:
    """Wait for all parts; raise the error of the first that failed."""
    ready: SimpleQueue[Any] = SimpleQueue()
    for future in futures:
        future.add_done_callback(ready.put)
    store = JobStore(job)
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        downloads = []
        for done in range(1, len(futures) + 1):
            future = next_done(ready, client)
            if future.status not in {"finished", "lost"}:  # lost is the count alone, with a worker that died since
                raise failure_of(future, _words(job)) from None
            downloads.append(pool.submit(store.fetch_part, future.key[1]))
            future.release()
            if progress:
                progress(done, len(futures))
        for download in downloads:
            download.result()


def _words(job: MapJob) -> TaskWords:
    return TaskWords(
        describe=partial(_describe, job),
        kind="part",
        remedy="lower `batch_size`",
        left="The parts made so far are kept, and the same command resumes from them.",
    )


def _describe(job: MapJob, number: int) -> str:
    window = job.parts.part(number).window
    return f"part {number} ({window.width} x {window.height} pixels at column {window.col}, row {window.row})"


@lru_cache(maxsize=MAX_IMAGES_IN_FLIGHT)
def _read_job(order: Order) -> MapJob:
    """Run on a worker: read the job, and check that its folder and images are there.

    Raises:
        OptionError, OutputError, InputNotFoundError: if not.
    """
    job: MapJob = on_this_machine(*order.open("map"))
    JobStore(job).fetch_model()
    require_visible("image", [source.path for source in job.scene.sources])
    job.require_same_inputs()
    return job


def _predict_part(number: int, *, order: Order, device: str | None = None) -> int:
    """Run on a worker: write a part's files; return the number of tiles.

    Raises:
        OutputError: if the job's file is gone: the folder may be another job's by now.
    """
    from geopsp.inference.predict_parts import predict_part

    job = _read_job(order)
    if order.is_withdrawn:
        raise OutputError(f"Part {number} was cancelled: {order.path} is gone. Repeat the same command.")
    return predict_part(job, number, device=device or own_device(engine_in(job.model_folder).num_gpus()))


def own_device(count: int) -> str | None:
    """Run on a worker: return the GPU that is its own, by the number in its name; None leaves the choice to the engine.

    Where CUDA_VISIBLE_DEVICES is set, each worker sees only its own GPU.

    Args:
        count: GPUs of this machine that the engine could use.
    """
    number = worker_number()
    if count < 2 or "CUDA_VISIBLE_DEVICES" in os.environ or number is None:
        return None
    return f"cuda:{number % count}"
