"""How many batches may wait in the memory that a training process shares with those that load its chips."""

from __future__ import annotations

import logging
import shutil
from functools import cache
from pathlib import Path

from geopsp.core.text import format_count

logger = logging.getLogger(__name__)

SHARED_MEMORY = Path("/dev/shm")  # noqa: S108 (what Linux shares between processes lies there)

PREFETCH_BATCHES = 4
"""Batches that each process loads ahead at most."""


MAX_WAITING_BYTES = 2**31
"""Most bytes of all batches of a loader that wait."""


USABLE_FRACTION = 0.4
"""Of the free shared memory, for each of two loaders: those of training and of validation wait at the same time."""


def waiting_batches(workers: int, batch_bytes: int) -> tuple[int, int]:
    """Return the number of processes that load chips, and of batches that each loads ahead.

    Both are as many as shared memory holds: where it is full, a process that writes to it is killed (in a container it
    often has 64 MB). A warning says that there are fewer processes.

    Args:
        workers: Processes that are wanted.
        batch_bytes: Size of a batch.
    """
    if not workers:
        return 0, 0
    free = shutil.disk_usage(SHARED_MEMORY).free if SHARED_MEMORY.is_dir() else None
    room = MAX_WAITING_BYTES if free is None else min(MAX_WAITING_BYTES, int(USABLE_FRACTION * free))
    batches = room // max(batch_bytes, 1)
    if free is not None and batches < workers and batches * batch_bytes < MAX_WAITING_BYTES - batch_bytes:
        _warn(workers, batches, free, batch_bytes)
        workers = batches
    return workers, min(PREFETCH_BATCHES, max(1, batches // max(workers, 1)))


@cache
def _warn(workers: int, batches: int, free: int, batch_bytes: int) -> None:
    wanted = format_count(workers, "process", "processes")
    few = format_count(batches, "process", "processes") if batches else "the training process itself"
    logger.warning(
        f"{SHARED_MEMORY} has {free / 1e6:,.0f} MB free, and a batch takes {batch_bytes / 1e6:,.0f} MB there, so "
        f"{few} will load chips instead of {wanted}, which is slower. Give it more room (docker run --shm-size=8g), "
        "or lower `batch_size`."
    )
