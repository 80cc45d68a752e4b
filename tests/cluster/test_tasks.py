"""Results come in order, few tasks are given out ahead, and errors say what to do."""

from __future__ import annotations

import logging
import threading
import time
from contextlib import closing
from types import SimpleNamespace

import pytest
from distributed import KilledWorker

from geopsp.cluster import tasks
from geopsp.cluster.tasks import TaskWords, failure_of, run_in_order
from geopsp.errors import OptionError, RasterError

WORDS = TaskWords(lambda number: f"part {number}", kind="part", remedy="lower `batch_size`", left="The rest is kept.")
BEGUN: list[int] = []
"""Items whose task has begun; the workers are threads of this process."""

LOCK = threading.Lock()


def square_of(item, offset=0):
    with LOCK:
        BEGUN.append(item)
    time.sleep(0.02 if item % 3 == 0 else 0)  # later ones are done first
    if item == 7:
        raise RasterError("the seventh is damaged")
    logging.getLogger("geopsp").warning("Pixels are missing.")
    return item**2 + offset


@pytest.fixture(autouse=True)
def nothing_begun():
    BEGUN.clear()


def test_results_come_in_order_and_warnings_once(dask_client, monkeypatch):
    told = []
    monkeypatch.setattr(tasks.logger, "warning", told.append)
    assert list(run_in_order(dask_client, square_of, range(6), 1, words=WORDS)) == [1, 2, 5, 10, 17, 26]
    assert told == ["Pixels are missing."]
    assert list(run_in_order(dask_client, square_of, [], words=WORDS)) == []


def test_few_tasks_are_given_out_ahead_and_the_rest_is_cancelled(dask_client):
    """Of endless items, which an unbounded window would never come to the end of."""
    with closing(run_in_order(dask_client, square_of, iter(lambda: len(BEGUN) % 3, -1), words=WORDS)) as results:
        assert next(results) == 0
    time.sleep(0.3)
    assert len(BEGUN) <= 1 + 2 * tasks.TASKS_PER_THREAD
    assert not any(dask_client.processing().values())


def test_the_error_of_a_task_is_its_own(dask_client, monkeypatch):
    monkeypatch.setattr(tasks, "RETRIES", 0)
    results = run_in_order(dask_client, square_of, range(5, 20), words=WORDS)
    assert [next(results), next(results)] == [25, 36]
    with pytest.raises(RasterError, match="seventh"):
        next(results)
    assert max(BEGUN) < 19


def test_a_result_that_was_lost_with_its_worker_is_waited_for(monkeypatch):
    monkeypatch.setattr(tasks, "LOST_SECONDS", 0.001)
    states = iter(["lost", "lost", "finished", "finished"])

    class Future:
        def add_done_callback(self, call):
            call(self)

        @property
        def status(self):
            return next(states)

        def result(self):
            return "made again", []

        def release(self):
            pass

    assert tasks._take(Future(), None, WORDS, set()) == "made again"


@pytest.mark.parametrize(
    ("remedy", "text"),
    [
        ("lower `batch_size`", "Give workers more memory, run fewer on a machine, or lower `batch_size`."),
        ("", "Give workers more memory, or run fewer on a machine."),
    ],
)
def test_a_task_that_kills_workers_is_named_with_what_helps(remedy, text):
    words = TaskWords(WORDS.describe, WORDS.kind, remedy, WORDS.left)
    killed = KilledWorker("key", None, 3)
    found = failure_of(SimpleNamespace(key=("name", 4), status="error", exception=lambda: killed), words)
    assert isinstance(found, OptionError)
    assert str(found) == (
        "4 workers died at part 4 or at a part that they had with it, most likely of too little memory. "
        f"{text} The rest is kept."
    )
