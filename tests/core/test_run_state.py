"""What a run resumes from is there in full or counts as not there."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from geopsp.core import output
from geopsp.core.run_state import key_of, read_state, write_state


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_what_was_written_is_read(tmp_path):
    state = {"key": "abc", "parts": [1, 2.5, None], "name": "straße"}
    for indent in (None, 1):
        write_state(tmp_path / "job.json", state, indent=indent)
        assert read_state(tmp_path / "job.json") == state
    assert names(tmp_path) == ["job.json"]


def test_a_missing_file_is_no_state(tmp_path):
    assert read_state(tmp_path / "job.json") == {}
    assert read_state(tmp_path) == {}


@pytest.mark.parametrize("content", [b"", b"\xff\xfe", b"[1, 2]", b'"text"', b"null", b"3"])
def test_what_is_no_state_counts_as_none(content, tmp_path):
    (tmp_path / "job.json").write_bytes(content)
    assert read_state(tmp_path / "job.json") == {}


def test_a_file_torn_anywhere_counts_as_none(tmp_path):
    content = json.dumps({"key": "abc", "name": "straße", "parts": [1, {"a": 2}]}, ensure_ascii=False).encode()
    for size in range(len(content)):
        (tmp_path / "job.json").write_bytes(content[:size])
        assert read_state(tmp_path / "job.json") == {}


def test_a_failed_write_leaves_the_old_state(tmp_path, monkeypatch):
    path = tmp_path / "job.json"
    write_state(path, {"key": "old"})
    with pytest.raises(TypeError):
        write_state(path, {"key": object()})
    assert read_state(path) == {"key": "old"}

    def full(_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(output, "sync_file", full)
    with pytest.raises(OSError, match="No space"):
        write_state(path, {"key": "new"})
    assert read_state(path) == {"key": "old"}
    monkeypatch.undo()
    write_state(path, {"key": "new"})
    assert read_state(path) == {"key": "new"}
    assert names(tmp_path) == ["job.json"], "what was left over is gone"


def test_keys_depend_on_what_is_said_and_on_nothing_else():
    key = key_of(["map", {"a": 1, "b": [2, 3]}])
    assert key == key_of(["map", {"b": (2, 3), "a": 1}]), "not on the order of names"
    assert len(key) == 64
    others = [["map", {"a": 1, "b": [3, 2]}], ["map", {"a": "1", "b": [2, 3]}], ["maps", {"a": 1, "b": [2, 3]}], []]
    assert len({key, *map(key_of, others)}) == 5
    assert key_of(Path("a")) == key_of("a"), "things without JSON are taken as text"
