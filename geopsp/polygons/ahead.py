"""Work that threads do ahead, in the order in which it is asked for."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterable
from concurrent.futures import Executor, Future
from typing import TypeVar

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
