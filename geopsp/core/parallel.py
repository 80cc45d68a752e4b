"""CPU count, prefetching, and ordered results of a pool."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from typing import TypeVar

Item = TypeVar("Item")
Result = TypeVar("Result")


def cpu_count() -> int:
    """Return the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def prefetch(items: Iterator[Item]) -> Generator[Item]:
    """Yield the items, in order; a thread makes the next one while the caller uses one."""
    end = object()
    with ThreadPoolExecutor(1) as thread:
        future = thread.submit(next, items, end)
        while (item := future.result()) is not end:
            future = thread.submit(next, items, end)
            yield item  # type: ignore[misc]


def map_ordered(
    pool: Executor, work: Callable[[Item], Result], items: Iterable[Item], *, in_flight: int
) -> Generator[Result]:
    """Yield `work(item)` for each item, in order.

    At most `in_flight` items are submitted and not yet yielded. When the generator is closed or an item fails, work
    that has not begun is cancelled.
    """
    futures: deque[Future[Result]] = deque()
    try:
        for item in items:
            futures.append(pool.submit(work, item))
            if len(futures) >= in_flight:
                yield futures.popleft().result()
        while futures:
            yield futures.popleft().result()
    finally:
        for future in futures:
            future.cancel()
