"""Parts of a map made by many machines, over Dask.

What the workers are told lies in the job's folder, as a file that each reads once: so a task is but a number, and a
worker that does not see the folder is found out before it begins. Workers write parts into that folder too; nothing
but counts comes back. A worker that dies leaves at most half a part behind, under another name, and Dask gives the
part to the next.
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
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING

import geopsp
from geopsp.core.paths import is_local
from geopsp.core.progress import Progress
from geopsp.errors import GeopspError, InputNotFoundError, OptionError, OutputError
from geopsp.inference.job import MapJob

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from distributed import Client, Future

MAX_IMAGES_IN_FLIGHT = 32
"""Images whose parts the workers of a cluster have at most, each with its lock and its copy of the model."""


IDLE_SECONDS = 60.0
"""Seconds without a finished part after which we look whether there are workers at all."""


RETRIES = 1
"""A part that failed is tried once more: a read over the network may fail once."""


SAMPLE = 100
"""Images that a worker looks for; more would take long where there are thousands."""


EXACT = ("torch", "numpy", "rasterio", "deflate", "timm", "segmentation-models-pytorch")
"""Packages of whose version the last bit of a map may depend."""


GO_ON = "The parts made so far stay: the same command goes on from them."


@contextmanager
def parts_on_cluster(
    job: MapJob, numbers: Sequence[int], client: Client, *, device: str | None = None
) -> Iterator[Callable[[Progress | None], None]]:
    """The client's workers have these parts to make; what it gives waits until all files are in the job's folder.

    If the block fails, they are taken back.

    Args:
        job: One that has begun, with the model in its folder.
        numbers: Of parts.
        client: Of a Dask cluster; workers that join later help too.
        device: As torch names it; None: each worker's own.

    Raises:
        OptionError: if workers have another geopsp, if a part kills one worker after the other, or if the scheduler
            is gone.
        OutputError, InputNotFoundError: if a worker does not see the job's folder or the images.
        GeopspError: as the first part that fails.
    """
    with _order(job, device) as order:
        _check_workers(client, order)
        name = f"geopsp-part-{secrets.token_hex(16)}"
        futures = client.map(_make, numbers, order=order, key=[(name, number) for number in numbers], retries=RETRIES)
        try:
            yield lambda progress: _collect(job, futures, client, progress)
        except BaseException:
            with suppress(OSError, CancelledError, RuntimeError):  # a scheduler that is gone needs no telling
                client.cancel(futures)
            raise


def _collect(job: MapJob, futures: Sequence[Future[int]], client: Client, progress: Progress | None) -> None:
    """All are finished; the first that failed raises its error."""
    ready: SimpleQueue[Future[int]] = SimpleQueue()
    for future in futures:
        future.add_done_callback(ready.put)
    for done in range(1, len(futures) + 1):
        future = _next(ready, client)
        if future.status != "finished":
            raise _failure(job, future) from None
        future.release()
        if progress:
            progress(done, len(futures))


def _next(ready: SimpleQueue[Future[int]], client: Client) -> Future[int]:
    """The next part that is done; in a long silence, a word if there is nobody to wait for."""
    while True:
        try:
            return ready.get(timeout=IDLE_SECONDS)
        except Empty:
            if not client.nthreads():
                logger.info("There is no worker left. Waiting for one: `dask worker ADDRESS`")


def _failure(job: MapJob, future: Future[int]) -> BaseException:
    """Why a part was not made, in our words where we have some."""
    from distributed import KilledWorker

    number = future.key[1]
    if future.status != "error":
        return OptionError(f"The Dask scheduler is gone, or cancelled part {number}. {GO_ON} Start the cluster anew.")
    error: BaseException = future.exception()
    if isinstance(error, KilledWorker):
        window = job.parts.part(number).window
        return OptionError(
            f"Part {number}, {window.width} x {window.height} pixels at column {window.col}, row {window.row}, or one "
            f"that was given out with it, had {error.allowed_failures + 1} workers, and each died, most likely of too "
            f"little memory. Give workers more, run fewer on a machine, or lower batch_size (--batch-size). {GO_ON}"
        )
    return error


@dataclass(frozen=True, slots=True)
class JobFile:
    """Where the job is written down, for a worker to read."""

    path: Path
    digest: str
    """SHA-256 of the file: nothing else is opened, and only who sees the client's own file has it."""

    version: str
    """Of the client's geopsp."""

    device: str | None


@contextmanager
def _order(job: MapJob, device: str | None) -> Iterator[JobFile]:
    """An order that lies in the job's folder as long as the block lasts."""
    import cloudpickle

    text = zlib.compress(cloudpickle.dumps(job))
    path = job.folder.absolute() / f"order-{secrets.token_hex(8)}"
    try:
        path.write_bytes(text)
        yield JobFile(path, hashlib.sha256(text).hexdigest(), geopsp.__version__, device)
    finally:
        path.unlink(missing_ok=True)


@lru_cache(maxsize=MAX_IMAGES_IN_FLIGHT)
def _opened(order: JobFile) -> MapJob:
    """The job that was ordered, on a worker that sees its folder and its images.

    Raises:
        OptionError, OutputError, InputNotFoundError: on one that does not.
    """
    if order.version != geopsp.__version__:
        raise _other_version(_here(), geopsp.__version__, order.version)
    try:
        text = order.path.read_bytes()
    except OSError:
        text = b""
    if hashlib.sha256(text).hexdigest() != order.digest:
        raise OutputError(
            f"{_here()} does not see {order.path.parent}, where parts of the map are put together; needed a folder "
            "that all machines share, under the same path. Choose an output there."
        )
    import cloudpickle

    job: MapJob = cloudpickle.loads(zlib.decompress(text))
    paths = list(dict.fromkeys(str(source.path) for source in job.scene.sources if is_local(source.path)))
    for path in paths[:: -(-len(paths) // SAMPLE) or 1]:
        if not Path(path).exists():
            raise InputNotFoundError(
                f"{_here()} does not see the image {path}; needed images on a disk that all machines share, under "
                "the same full path, or URLs."
            )
    job.require_same_inputs()
    return job


def _make(number: int, *, order: JobFile) -> int:
    """On a worker: the part's files are there; gives the number of tiles.

    Raises:
        OutputError: if the order was withdrawn: the folder may be another job's by now.
    """
    from geopsp.inference.predict_parts import predict_part

    job = _opened(order)
    if not order.path.exists():
        raise OutputError(f"Part {number} is not wanted any more: {order.path} is gone. Give the same command again.")
    return predict_part(job, number, device=order.device or own_device())


def _check_workers(client: Client, order: JobFile) -> None:
    """Nothing, if all workers of this moment can do the work; those to come are asked as they begin.

    Raises:
        OptionError, OutputError, InputNotFoundError: if one cannot.
    """
    _require_versions(client)
    for error in client.run(_worker_problem, order, on_error="ignore").values():
        if error is not None:
            raise error


async def _worker_problem(order: JobFile) -> GeopspError | None:
    """On a worker: what keeps it from the work."""
    try:  # in a thread: imports take seconds, in which the worker is to answer others
        await asyncio.to_thread(_opened, order)
    except GeopspError as error:
        return error
    return None


def _require_versions(client: Client) -> None:
    """Nothing, if all workers have this geopsp; a word where they have another of what it counts with.

    Raises:
        OptionError: if one has another geopsp, or none.
    """
    found = client.get_versions(packages=["geopsp", *EXACT])
    ours = found["client"]["packages"]
    for address, about in sorted(found["workers"].items()):
        theirs = about["packages"]
        if theirs["geopsp"] != ours["geopsp"]:
            raise _other_version(f"The worker {address}", theirs["geopsp"], ours["geopsp"])
        others = [f"{name} {theirs[name]} for {ours[name]}" for name in EXACT if theirs[name] != ours[name]]
        if others:
            logger.info(f"The worker {address} has {', '.join(others)}: near-ties of its parts may fall the other way.")


def _other_version(who: str, theirs: str | None, ours: str | None) -> OptionError:
    return OptionError(
        f"{who} has {f'geopsp {theirs}' if theirs else 'no geopsp'}; needed {ours}, as here. Install it."
    )


def _here() -> str:
    """This worker, as a person would find it."""
    from distributed import get_worker

    return f"The worker {get_worker().address}"


def own_device() -> str | None:
    """On a worker: its share of the machine's GPUs, by the number in its name; None leaves the choice to torch.

    Workers are named 0, 1, ... or NAME-0, NAME-1, ... where a cluster or `dask worker` starts several. Where
    CUDA_VISIBLE_DEVICES is set, each worker is told already what is its own.
    """
    import torch
    from distributed import get_worker

    count = torch.cuda.device_count()
    number = re.fullmatch(r"(?:.*-)?(\d+)", str(get_worker().name))
    if count < 2 or "CUDA_VISIBLE_DEVICES" in os.environ or number is None:
        return None
    return f"cuda:{int(number[1]) % count}"
