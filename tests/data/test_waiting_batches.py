"""Batches that wait fit into the memory that processes share."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from geopsp.data import waiting_batches as module
from geopsp.data.waiting_batches import MAX_WAITING_BYTES, PREFETCH_BATCHES, USABLE_FRACTION, waiting_batches

MB = 2**20


@pytest.fixture
def shared(monkeypatch, tmp_path):
    """Sets the free bytes of shared memory; None: there is no such folder."""

    def free(size):
        module._warn.cache_clear()
        monkeypatch.setattr(module, "SHARED_MEMORY", tmp_path if size is not None else tmp_path / "none")
        monkeypatch.setattr(module.shutil, "disk_usage", lambda _: SimpleNamespace(free=size))

    return free


@pytest.mark.parametrize(
    ("free", "workers", "batch", "expected"),
    [
        (8000 * MB, 8, 3 * MB, (8, 4)),  # 8 x 256² x 3 as bytes
        (8000 * MB, 8, 100 * MB, (8, 2)),  # 2 GB wait at most
        (64 * MB, 8, 3 * MB, (8, 1)),  # a container
        (64 * MB, 8, 10 * MB, (2, 1)),
        (64 * MB, 8, 60 * MB, (0, 1)),
        (None, 8, 100 * MB, (8, 2)),
        (None, 8, 4000 * MB, (8, 1)),  # elsewhere a batch always fits
        (8000 * MB, 0, 3 * MB, (0, 0)),
    ],
)
def test_as_many_wait_as_fit(shared, capsys, free, workers, batch, expected):
    shared(free)
    assert waiting_batches(workers, batch) == expected
    count, ahead = expected
    if free and count:
        assert count * ahead * batch <= min(MAX_WAITING_BYTES, USABLE_FRACTION * free)
        assert ahead == PREFETCH_BATCHES or count * (ahead + 1) * batch > min(MAX_WAITING_BYTES, USABLE_FRACTION * free)
    said = capsys.readouterr().err
    assert ("--shm-size" in said) == (count < workers)


def test_it_is_said_once_with_all_numbers(shared, capsys):
    shared(64 * 10**6)
    for _ in range(2):
        waiting_batches(8, 12 * 10**6)
    said = capsys.readouterr().err
    assert (
        said.count(
            "has 64 MB free, and a batch takes 12 MB there, so 2 processes will load chips instead of 8 processes"
        )
        == 1
    )
