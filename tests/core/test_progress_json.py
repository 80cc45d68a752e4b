"""A program that starts geopsp reads its progress as lines of JSON."""

from __future__ import annotations

import json
import logging

import pytest

from geopsp.core.progress import progress_bar


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("GEOPSP_PROGRESS", "json")


def lines(capsys):
    return [json.loads(line) for line in capsys.readouterr().err.splitlines()]


def test_a_line_for_each_per_cent(capsys):
    with progress_bar('Mapping "a"\n', unit="tiles") as progress:
        for done in range(1, 1001):
            progress(done, 1000, "50 s left" if done == 1000 else "")
    found = lines(capsys)
    assert [line["progress"] for line in found] == [percent / 100 for percent in range(101)]
    assert {tuple(line) for line in found} == {("progress", "title", "note")}
    assert {line["title"] for line in found} == {'Mapping "a"\\n'}
    assert (found[0]["note"], found[-1]["note"]) == ("", "50 s left")


def test_each_line_begins_so_that_it_is_told_from_messages(capsys):
    with progress_bar("Mapping") as progress:
        progress(1, 2)
    assert capsys.readouterr().err == (
        '{"progress": 0.0, "title": "Mapping", "note": ""}\n{"progress": 0.5, "title": "Mapping", "note": ""}\n'
    )


def test_a_total_that_is_not_known_is_no_error(capsys):
    with progress_bar("Mapping") as progress:
        progress(0, 0)
    assert [line["progress"] for line in lines(capsys)] == [0]


def test_other_ranks_and_quiet_commands_write_nothing(capsys, monkeypatch):
    library = logging.getLogger("geopsp")
    library.setLevel(logging.WARNING)
    try:
        with progress_bar("Mapping") as progress:
            progress(1, 1)
    finally:
        library.setLevel(logging.INFO)
    monkeypatch.setenv("RANK", "1")
    with progress_bar("Mapping") as progress:
        progress(1, 1)
    assert capsys.readouterr().err == ""
