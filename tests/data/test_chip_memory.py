"""Chips that are kept in memory are those of the files, decoded once."""

from __future__ import annotations

import multiprocessing
import pickle

import numpy as np
import pytest

from geopsp import prepare_data
from geopsp.core import free_memory
from geopsp.core.free_memory import available_memory
from geopsp.data import chip_memory
from geopsp.data.chip_memory import ChipMemory, keep_in_memory
from geopsp.data.dataset import ChipFiles


@pytest.fixture
def files(small_world):
    return ChipFiles(prepare_data(small_world["chips"], workers=0).chips)


@pytest.fixture
def reads(monkeypatch):
    """The chips that are read from files."""
    found, inner = [], ChipFiles.read

    def read(self, row, *window):
        found.append(row)
        return inner(self, row, *window)

    monkeypatch.setattr(ChipFiles, "read", read)
    return found


def same(one, other):
    return all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(one, other, strict=True))


def test_windows_are_those_of_the_files_and_each_chip_is_read_once(files, reads):
    kept = keep_in_memory(files)
    assert isinstance(kept, ChipMemory)
    windows = [(row, top, left, 16) for row in (0, 5, 142) for top, left in ((0, 0), (3, 16), (16, 7))]
    found = [kept.read(*window) for window in windows]
    assert reads == [0, 5, 142]
    assert all(same(chip, files.read(*window)) for chip, window in zip(found, windows, strict=True))


def test_forked_processes_share_it_and_others_read_the_files(files, reads):
    kept = ChipMemory(files)
    process = multiprocessing.get_context("fork").Process(target=kept.read, args=(7, 0, 0, 32))
    process.start()
    process.join()
    assert process.exitcode == 0
    chip = kept.read(7, 0, 0, 32)
    assert reads == [], "another process had read it"
    sent = pickle.loads(pickle.dumps(kept))
    assert isinstance(sent, ChipFiles)
    assert same(chip, sent.read(7, 0, 0, 32))


def test_chips_are_kept_while_memory_is_free(files, reads, monkeypatch):
    kept = ChipMemory(files)
    monkeypatch.setattr(chip_memory, "available_memory", lambda: kept._reserve - 1)
    first, again = (kept.read(3, 1, 2, 16) for _ in range(2))
    assert reads == [3, 3]
    assert same(first, again)


def test_sets_that_do_not_fit_are_read_from_files(files, monkeypatch):
    monkeypatch.setattr(chip_memory, "available_memory", lambda: 1_000_000)
    assert keep_in_memory(files) is files


def test_a_container_has_less_than_its_machine(tmp_path, monkeypatch):
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    monkeypatch.setattr(free_memory, "CGROUPS", ((limit, used),))
    whole = available_memory()
    for text, expected in (("5000000", 4_000_000), ("500", 0)):
        limit.write_text(text)
        used.write_text("1000000")
        assert available_memory() == expected < whole
    limit.write_text("max")
    assert available_memory() > 5_000_000


@pytest.mark.parametrize("name", ["inactive_file", "total_inactive_file"])
def test_what_a_container_keeps_of_files_is_available(name, monkeypatch, tmp_path):
    limit, used = tmp_path / "memory.max", tmp_path / "memory.current"
    monkeypatch.setattr(free_memory, "CGROUPS", ((limit, used),))
    limit.write_text("9000\n")
    used.write_text("8000\n")
    (tmp_path / "memory.stat").write_text(f"anon 1000\n{name} 6500\n")
    assert available_memory() == 7500
