"""What the machine has."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from itertools import islice
from typing import Any, TypeVar

from numpy.typing import NDArray

from geopsp.core.grid import Window


def side_by_side(
    read: Callable[[Window], NDArray[Any]], blocks: Iterable[Window], threads: int = 4
) -> Iterator[NDArray[Any]]:
    """What is read of each block, a few at a time."""
    blocks = iter(blocks)
    with ThreadPoolExecutor(threads) as pool:
        while some := list(islice(blocks, 4 * threads)):
            yield from pool.map(read, some)


def cores() -> int:
    """Processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


Item = TypeVar("Item")


def ahead(items: Iterator[Item]) -> Generator[Item, None, None]:
    """The items, of which a thread makes the next one while one is in use."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        coming = thread.submit(next, items, end)
        while (item := coming.result()) is not end:
            coming = thread.submit(next, items, end)
            yield item  # type: ignore[misc]


AHEAD = 4
"""Results for each thread that may wait to be taken."""


Given = TypeVar("Given")


Made = TypeVar("Made")


def in_order(pool: Executor, work: Callable[[Given], Made], given: Iterable[Given], *, threads: int) -> Generator[Made]:
    """What the work makes of each, one after the other; a few are made before they are taken.

    What nobody takes any more is not begun.
    """
    coming: deque[Future[Made]] = deque()
    try:
        for each in given:
            coming.append(pool.submit(work, each))
            if len(coming) > AHEAD * threads:
                yield coming.popleft().result()
        while coming:
            yield coming.popleft().result()
    finally:
        for future in coming:
            future.cancel()
