"""Tasks of a Dask cluster: given out a few at a time, and their results taken in order."""

from __future__ import annotations

import logging
import secrets
import time
from collections import deque
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from itertools import islice
from queue import Empty, SimpleQueue
from typing import TYPE_CHECKING, Any, TypeVar

from geopsp.cluster.client import num_threads
from geopsp.core.text import format_error
from geopsp.core.warnings_log import collect_warnings
from geopsp.errors import OptionError

if TYPE_CHECKING:
    from distributed import Client, Future

logger = logging.getLogger(__name__)

Item = TypeVar("Item")
Result = TypeVar("Result")

IDLE_SECONDS = 60.0
"""Seconds without a finished task after which a cluster without workers is reported."""


LOST_SECONDS = 0.1
"""Seconds between two looks at a task that is made again, as its worker died with the result."""


RETRIES = 1
"""How often a failed task is tried again: a read over the network may fail once."""


TASKS_PER_THREAD = 4
"""Tasks for each thread of the cluster that are begun, wait, or are done but not yet taken."""


@dataclass(frozen=True, slots=True)
class TaskWords:
    """What messages say of tasks."""

    describe: Callable[[int], str]
    """Returns what the task of a number makes, e.g. "part 3 (512 x 512 pixels at column 0, row 512)"."""

    kind: str
    """What each task makes, e.g. "part"."""

    remedy: str
    """What helps if workers lack memory, beside more memory and fewer workers on a machine; "" for nothing."""

    left: str
    """What is left after an error, as a sentence."""


def run_in_order(
    client: Client, work: Callable[..., Result], items: Iterable[Item], *args: Any, words: TaskWords
) -> Generator[Result]:
    """Yield `work(item, *args)` of each item, made by the workers, in the order of the items.

    Results wait on the workers until they are taken, and only some tasks are given out ahead, so that the memory of
    this process does not grow. When the generator is closed or a task fails, the others are cancelled. Warnings of
    the workers are logged here, each once.

    Args:
        client: Of a Dask cluster; workers that join later help too.
        work: A function that workers can import.
        items: Small values.
        *args: Small values, or futures of the client.
        words: For messages.

    Raises:
        OptionError: if a task kills one worker after the other, or the scheduler is gone.
        GeopspError: of the first task that fails.
    """
    name, numbered, futures, told = f"geopsp-{secrets.token_hex(16)}", enumerate(items), deque[Any](), set[str]()
    most, until_asked = 0, 0
    try:
        while True:
            with _scheduler_errors(words):
                if until_asked <= 0:
                    most = until_asked = max(2, TASKS_PER_THREAD * num_threads(client))
                until_asked -= 1
                for number, item in islice(numbered, max(0, most - len(futures))):
                    futures.append(client.submit(_work, work, item, *args, key=(name, number), retries=RETRIES))
            if not futures:
                return
            yield _take(futures.popleft(), client, words, told)
    finally:
        cancel(client, futures)


@contextmanager
def _scheduler_errors(words: TaskWords) -> Iterator[None]:
    """Turn an error of the connection to the scheduler into one that says what to do."""
    try:
        yield
    except (OSError, RuntimeError) as error:
        raise OptionError(
            f"The Dask scheduler is gone ({format_error(error)}). Restart the cluster. {words.left}"
        ) from error


def _work(work: Callable[..., Result], item: Any, *args: Any) -> tuple[Result, list[str]]:
    """Run on a worker: return the result and the warnings."""
    with collect_warnings() as warnings:
        return work(item, *args), warnings


def _take(future: Future, client: Client, words: TaskWords, told: set[str]) -> Any:
    """Wait for a task, and return its result; log the warnings that are not yet told."""
    from distributed import KilledWorker

    _wait_for(future, client)
    if future.status == "finished":
        with suppress(KilledWorker, CancelledError):  # lost with its worker, and not made again
            result, warnings = future.result()
            future.release()
            for text in warnings:
                if text not in told:
                    told.add(text)
                    logger.warning(text)
            return result
    raise failure_of(future, words) from None


def _wait_for(future: Future, client: Client) -> None:
    """Wait until a task is done; one whose worker died with the result is made again."""
    last = time.monotonic()
    while True:
        ready: SimpleQueue[Future] = SimpleQueue()
        future.add_done_callback(ready.put)
        next_done(ready, client)
        if future.status != "lost":
            return
        time.sleep(LOST_SECONDS)
        if time.monotonic() - last > IDLE_SECONDS:
            last = time.monotonic()
            _warn_without_workers(client)


def next_done(ready: SimpleQueue[Future], client: Client) -> Future:
    """Wait for the next task that is done; report if there are no workers meanwhile."""
    while True:
        try:
            return ready.get(timeout=IDLE_SECONDS)
        except Empty:
            _warn_without_workers(client)


def _warn_without_workers(client: Client) -> None:
    if not client.nthreads():
        logger.warning('The Dask cluster has no workers. Waiting for one: start it with "dask worker ADDRESS".')


def failure_of(future: Future, words: TaskWords) -> BaseException:
    """Return why a task has no result."""
    from distributed import KilledWorker

    what = words.describe(future.key[1])
    if future.status != "error":
        return OptionError(f"The Dask scheduler is gone, or cancelled {what}. Restart the cluster. {words.left}")
    error: BaseException = future.exception()
    if isinstance(error, KilledWorker):
        remedies = ["Give workers more memory", "run fewer on a machine", *filter(None, [words.remedy])]
        return OptionError(
            f"{error.allowed_failures + 1} workers died at {what} or at a {words.kind} that they had with it, most "
            f"likely of too little memory. {', '.join(remedies[:-1])}, or {remedies[-1]}. {words.left}"
        )
    return error


def cancel(client: Client, futures: Iterable[Future]) -> None:
    """Cancel tasks whose results nobody takes."""
    with suppress(OSError, CancelledError, RuntimeError):  # the scheduler may be gone
        client.cancel(list(futures))
