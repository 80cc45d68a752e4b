"""Clients of Dask clusters: of one that runs already, or of processes of this machine."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import psutil

from geopsp.core.parallel import cpu_count
from geopsp.errors import OptionError

if TYPE_CHECKING:
    from distributed import Client, LocalCluster

PATIENCE = 5.0
"""Seconds for a scheduler to answer."""


ROOM = 2 * 2**30
"""Bytes of memory for each process of this machine."""


@contextmanager
def connect(scheduler: str) -> Iterator[Client]:
    """A client of the Dask cluster at that address, or of one of this machine's that ends with the block.

    Args:
        scheduler: "tcp://host:port", or "local": a process for each GPU, else for each core.

    Raises:
        OptionError: if nothing answers there.
    """
    from distributed import Client

    if scheduler == "local":
        with _local_cluster() as cluster, Client(cluster, set_as_default=False) as client:
            yield client
    else:
        _require_answer(scheduler)
        with Client(scheduler, timeout=PATIENCE, set_as_default=False) as client:
            yield client


def _local_cluster() -> LocalCluster:
    import torch
    from distributed import LocalCluster

    room = psutil.virtual_memory().available // ROOM
    return LocalCluster(
        n_workers=torch.cuda.device_count() or max(1, min(cpu_count(), room)),
        threads_per_worker=1,
        memory_limit=None,
        dashboard_address="127.0.0.1:0",  # any free port: the usual one may be another cluster's
        silence_logs=logging.CRITICAL,
    )


def _require_answer(scheduler: str) -> None:
    """Nothing, if something that speaks Dask's language answers.

    A client asks this too, but leaves threads and warnings behind if nothing does.

    Raises:
        OptionError: if not.
    """
    try:
        with ThreadPoolExecutor(1) as pool:  # a notebook has a loop of its own in this thread
            pool.submit(asyncio.run, _greet(scheduler)).result()
    except (OSError, ValueError, TypeError, ImportError, RuntimeError, MemoryError) as error:
        raise OptionError(
            f"No Dask scheduler answers at {scheduler!r} ({error}); needed e.g. tcp://host:8786, or local. Start one "
            "with `dask scheduler`, and on each machine `dask worker ADDRESS`."
        ) from error


async def _greet(scheduler: str) -> None:
    """Raises OSError if nobody answers in time, or somebody else does."""
    from distributed.comm import connect as call
    from distributed.security import Security

    async with asyncio.timeout(PATIENCE):  # of its own accord a call waits for ever on who takes it and says nothing
        comm = await call(scheduler, timeout=PATIENCE, **Security().get_connection_args("client"))
        try:
            await comm.write({"op": "identity", "reply": True})
            kind = (await comm.read())["type"]
        finally:
            comm.abort()
    if kind != "Scheduler":
        raise OSError(f"it is a {kind}'s address")


def threads_of(client: Client | None) -> int:
    """Of all workers of this moment, by which parts are made at once."""
    return 0 if client is None else sum(client.nthreads().values())
