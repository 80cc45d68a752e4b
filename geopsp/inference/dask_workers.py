"""Parts of a map, made by the workers of a Dask cluster.

The job lies in its own folder, as a file that each worker reads once: a task is only a number, and a worker that does
not see the folder is found before it begins. Workers write parts into that folder too; only counts come back. A worker
that dies leaves at most an incomplete part behind, under another name, and Dask gives the part to the next worker.
"""

from __future__ import annotations

import asyncio
import hashlib
import logging
import os
import re
import secrets
import zlib
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import geopsp
from geopsp.core.addresses import address_of, shown
from geopsp.core.object_store import delete, read_start, stat, upload
from geopsp.core.paths import is_local
from geopsp.core.progress import Progress
from geopsp.errors import GeopspError, InputNotFoundError, OptionError, OutputError
from geopsp.inference.engines import engine_in
from geopsp.inference.job import MapJob
from geopsp.inference.job_store import DOWNLOADS, JobStore, on_this_machine, raster_addresses

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from distributed import Client, Future

MAX_IMAGES_IN_FLIGHT = 32
"""Images whose parts a cluster has at a time; each has its lock and its copy of the model."""


IDLE_SECONDS = 60.0
"""Seconds without a finished part after which a cluster without workers is reported."""


RETRIES = 1
"""How often a failed part is tried again: a read over the network may fail once."""


MAX_IMAGES_CHECKED = 100
"""Images that a worker looks for; more would take long where there are thousands."""


RESUME = "The parts made so far are kept, and the same command resumes from them."


@contextmanager
def parts_on_cluster(
    job: MapJob, numbers: Sequence[int], client: Client, *, packages: Sequence[str], device: str | None = None
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
    with _job_file(job, device) as job_file:
        _check_workers(client, job_file, packages)
        name = f"geopsp-part-{secrets.token_hex(16)}"
        keys = [(name, number) for number in numbers]
        futures = client.map(_predict_part, numbers, job_file=job_file, key=keys, retries=RETRIES)
        try:
            yield lambda progress: _collect(job, futures, client, progress)
        except BaseException:
            with suppress(OSError, CancelledError, RuntimeError):  # the scheduler may be gone
                client.cancel(futures)
            raise


def _collect(job: MapJob, futures: Sequence[Future[int]], client: Client, progress: Progress | None) -> None:
    """Wait for all parts; raise the error of the first that failed."""
    ready: SimpleQueue[Future[int]] = SimpleQueue()
    for future in futures:
        future.add_done_callback(ready.put)
    store = JobStore(job)
    with ThreadPoolExecutor(DOWNLOADS) as pool:
        downloads = []
        for done in range(1, len(futures) + 1):
            future = _next(ready, client)
            if future.status != "finished":
                raise _failure(job, future) from None
            downloads.append(pool.submit(store.fetch_part, future.key[1]))
            future.release()
            if progress:
                progress(done, len(futures))
        for download in downloads:
            download.result()


def _next(ready: SimpleQueue[Future[int]], client: Client) -> Future[int]:
    """Wait for the next part that is done; report if there are no workers meanwhile."""
    while True:
        try:
            return ready.get(timeout=IDLE_SECONDS)
        except Empty:
            if not client.nthreads():
                logger.warning('The Dask cluster has no workers. Waiting for one: start it with "dask worker ADDRESS".')


def _failure(job: MapJob, future: Future[int]) -> BaseException:
    """Return why a part was not made."""
    from distributed import KilledWorker

    number = future.key[1]
    if future.status != "error":
        return OptionError(f"The Dask scheduler is gone, or cancelled part {number}. Restart the cluster. {RESUME}")
    error: BaseException = future.exception()
    if isinstance(error, KilledWorker):
        window = job.parts.part(number).window
        return OptionError(
            f"{error.allowed_failures + 1} workers died at part {number} ({window.width} x {window.height} pixels at "
            f"column {window.col}, row {window.row}) or at a part that they had with it, most likely of too little "
            f"memory. Give workers more memory, run fewer on a machine, or lower `batch_size`. {RESUME}"
        )
    return error


@dataclass(frozen=True, slots=True)
class JobFile:
    """The file with the job, for a worker to read."""

    path: Path
    address: str | None
    """In the store, for jobs whose map goes there."""

    digest: str
    """SHA-256 of the file: a worker opens nothing else."""

    version: str
    """Version of the client's geopsp."""

    device: str | None


@contextmanager
def _job_file(job: MapJob, device: str | None) -> Iterator[JobFile]:
    """Write the job into its folder for the time of the block."""
    import cloudpickle

    content = zlib.compress(cloudpickle.dumps((job, raster_addresses(job))))
    path = job.folder.absolute() / f"order-{secrets.token_hex(8)}"
    address = address_of(path)
    try:
        path.write_bytes(content)
        if address is not None:
            upload(path, address)
        yield JobFile(path, address, hashlib.sha256(content).hexdigest(), geopsp.__version__, device)
    finally:
        path.unlink(missing_ok=True)
        if address is not None:
            delete([address])


@lru_cache(maxsize=MAX_IMAGES_IN_FLIGHT)
def _read_job(job_file: JobFile) -> MapJob:
    """Run on a worker: read the job, and check that its folder and images are there.

    Raises:
        OptionError, OutputError, InputNotFoundError: if not.
    """
    if job_file.version != geopsp.__version__:
        raise _other_version(_worker_name(), geopsp.__version__, job_file.version)
    try:
        content = job_file.path.read_bytes() if job_file.address is None else _download(job_file.address)
    except OSError:
        content = b""
    if hashlib.sha256(content).hexdigest() != job_file.digest:
        raise OutputError(
            f"{_worker_name()} does not see {shown(job_file.path.parent)}, the folder of the map's parts. Write the "
            "map to a folder that all machines share under the same path, or to an object store (s3://...)."
        )
    import cloudpickle

    job: MapJob = on_this_machine(*cloudpickle.loads(zlib.decompress(content)))
    JobStore(job).fetch_model()
    paths = list(dict.fromkeys(str(source.path) for source in job.scene.sources if is_local(source.path)))
    for path in paths[:: -(-len(paths) // MAX_IMAGES_CHECKED) or 1]:
        if not Path(path).exists():
            raise InputNotFoundError(
                f"{_worker_name()} does not see the image {path}. Use images on a disk that all machines share under "
                "the same full path, or URLs."
            )
    job.require_same_inputs()
    return job


def _predict_part(number: int, *, job_file: JobFile) -> int:
    """Run on a worker: write a part's files; return the number of tiles.

    Raises:
        OutputError: if the job's file is gone: the folder may be another job's by now.
    """
    from geopsp.inference.predict_parts import predict_part

    job = _read_job(job_file)
    if not _is_there(job_file):
        raise OutputError(f"Part {number} was cancelled: {job_file.path} is gone. Repeat the same command.")
    return predict_part(job, number, device=job_file.device or own_device(engine_in(job.model_folder).num_gpus()))


def _download(address: str) -> bytes:
    """Run on a worker: return the content of the job's file."""
    file = stat(address)
    return b"" if file is None else read_start(address, file.size)


def _is_there(job_file: JobFile) -> bool:
    """Run on a worker: return whether the job's file is still there."""
    return job_file.path.exists() if job_file.address is None else stat(job_file.address) is not None


def _check_workers(client: Client, job_file: JobFile, packages: Sequence[str]) -> None:
    """Check that all workers of this moment can make parts; later ones are checked when they begin.

    Raises:
        OptionError, OutputError, InputNotFoundError: if one cannot.
    """
    _require_versions(client, packages)
    for error in client.run(_worker_problem, job_file, on_error="ignore").values():
        if error is not None:
            raise error


async def _worker_problem(job_file: JobFile) -> GeopspError | None:
    """Run on a worker: return the error that keeps it from making parts, or None."""
    try:  # in a thread: imports take seconds, in which the worker must answer others
        await asyncio.to_thread(_read_job, job_file)
    except GeopspError as error:
        return error
    return None


def _require_versions(client: Client, packages: Sequence[str]) -> None:
    """Check that all workers have this version of geopsp; warn if other packages differ.

    Raises:
        OptionError: if one has another version of geopsp, or none.
    """
    found = client.get_versions(packages=["geopsp", *packages])
    ours = found["client"]["packages"]
    for address, versions in sorted(found["workers"].items()):
        theirs = versions["packages"]
        if theirs["geopsp"] != ours["geopsp"]:
            raise _other_version(f"The worker {address}", theirs["geopsp"], ours["geopsp"])
        others = [f"{name} {theirs[name]} instead of {ours[name]}" for name in packages if theirs[name] != ours[name]]
        if others:
            logger.warning(
                f"The worker {address} has {', '.join(others)}: pixels whose classes are almost equally likely may get "
                "another class than here."
            )


def _other_version(who: str, theirs: str | None, ours: str | None) -> OptionError:
    found = f"geopsp {theirs}" if theirs else "no geopsp"
    return OptionError(f"{who} has {found}, but this process has {ours}. Install geopsp {ours} there.")


def _worker_name() -> str:
    """Run on a worker: return its name for messages."""
    from distributed import get_worker

    return f"The worker {get_worker().address}"


def own_device(count: int) -> str | None:
    """Run on a worker: return the GPU that is its own, by the number in its name; None leaves the choice to the engine.

    Workers are named 0, 1, ... or NAME-0, NAME-1, ... where a cluster or `dask worker` starts several. Where
    CUDA_VISIBLE_DEVICES is set, each worker sees only its own GPU.

    Args:
        count: GPUs of this machine that the engine could use.
    """
    from distributed import get_worker

    number = re.fullmatch(r"(?:.*-)?(\d+)", str(get_worker().name))
    if count < 2 or "CUDA_VISIBLE_DEVICES" in os.environ or number is None:
        return None
    return f"cuda:{int(number[1]) % count}"
