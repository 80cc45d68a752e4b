"""Clients of Dask clusters: of a running one, or of processes on this machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from geopsp.core.free_memory import available_memory
from geopsp.core.main_guard import require_main_guard
from geopsp.core.parallel import cpu_count
from geopsp.core.text import format_error
from geopsp.errors import OptionError

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

TIMEOUT = 5.0
"""Seconds for a scheduler to answer."""


PROCESS_BYTES = 2 * 2**30
"""Bytes of memory for each process of this machine."""


KEEPS_NO_MEMORY = "distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_"
"""Dask's setting by which workers return memory to the system whenever an array is freed; None: they keep some.

The system then clears the same memory for the next array: tracing and compressing polygons took 1.5 times as long.
"""


@contextmanager
def connect(scheduler: str, *, gpus: int = 0) -> Iterator[Client]:
    """Connect to the Dask cluster at an address, or start one on this machine for the time of the block.

    Args:
        scheduler: "tcp://host:port", or "local": a process for each GPU, else for each core.
        gpus: GPUs of this machine that the workers could use.

    Raises:
        OptionError: if no scheduler answers.
    """
    from distributed import Client

    if scheduler == "local":
        require_main_guard('`scheduler="local"`')
        with _local_cluster(gpus) as cluster, Client(cluster, set_as_default=False) as client:
            yield client
    else:
        _require_answer(scheduler)
        with Client(scheduler, timeout=TIMEOUT, set_as_default=False) as client:
            yield client


def _local_cluster(gpus: int) -> LocalCluster:
    import dask
    from distributed import LocalCluster

    max_processes = available_memory() // PROCESS_BYTES
    with dask.config.set({KEEPS_NO_MEMORY: None}):
        return LocalCluster(
            n_workers=gpus or max(1, min(cpu_count(), max_processes)),
            threads_per_worker=1,
            memory_limit=None,
            dashboard_address="127.0.0.1:0",  # any free port: the usual one may be another cluster's
            silence_logs=logging.CRITICAL,
        )


def _require_answer(scheduler: str) -> None:
    """Check that a Dask scheduler answers.

    A client checks this too, but leaves threads and warnings behind if nothing answers.

    Raises:
        OptionError: if not.
    """
    try:
        with ThreadPoolExecutor(1) as pool:  # a notebook has a loop of its own in this thread
            pool.submit(asyncio.run, _ask_identity(scheduler)).result()
    except (OSError, ValueError, TypeError, ImportError, RuntimeError, MemoryError) as error:
        raise OptionError(
            f"No Dask scheduler answers at {scheduler!r} ({format_error(error)}). Give an address such as "
            'tcp://host:8786, or `scheduler="local"`; start a scheduler with "dask scheduler", and '
            'on each machine "dask worker ADDRESS".'
        ) from error


async def _ask_identity(scheduler: str) -> None:
    """Raise OSError if nothing answers in time, or if it is no scheduler."""
    from distributed.comm import connect as open_comm
    from distributed.security import Security

    async with asyncio.timeout(TIMEOUT):  # by itself it waits for ever on a server that accepts and stays silent
        comm = await open_comm(scheduler, timeout=TIMEOUT, **Security().get_connection_args("client"))
        try:
            await comm.write({"op": "identity", "reply": True})
            kind = (await comm.read())["type"]
        finally:
            comm.abort()
    if kind != "Scheduler":
        raise OSError(f"it is the address of a {kind}")


@contextmanager
def opened_client(client: Any, scheduler: str | None, *, gpus: int = 0) -> Iterator[Any]:
    """Yield the client that the options `client` and `scheduler` ask for; None for this process.

    Args:
        client: A Dask client, which stays open, or None.
        scheduler: As for `connect`, or None.
        gpus: As for `connect`.

    Raises:
        OptionError: as `connect`.
    """
    if scheduler is None:
        yield client
        return
    with connect(scheduler, gpus=gpus) as found:
        yield found


def num_threads(client: Client | None) -> int:
    """Return the threads of all workers at this moment: so many tasks run at once; 0 without a client."""
    return 0 if client is None else sum(client.nthreads().values())
