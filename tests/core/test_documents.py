"""Documents of strangers: right, or one clear line within a second."""

from __future__ import annotations

import json
import math
import os
import time

import pytest
from common import SOON
from hypothesis import given
from hypothesis import strategies as st

from geopsp.core.documents import (
    MAX_DEPTH,
    MAX_VALUES,
    DocumentError,
    is_regular,
    open_regular,
    parse_json,
    read_bytes,
    read_json,
    read_json_lines,
    read_yaml,
)

VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(VALUES)
def test_all_that_json_can_say_is_read(value):
    assert parse_json(json.dumps(value)) == value
    assert parse_json(b"\xef\xbb\xbf" + json.dumps(value, ensure_ascii=False).encode(errors="surrogatepass")) == value


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("", "not JSON"),
        ("{", "not JSON"),
        (b"\xff\xfe", "not JSON"),
        ("9" * 5000, "not JSON"),
        ("[NaN]", "the number NaN"),
        ('{"a": -Infinity}', "the number -Infinity"),
        ("[[1e999]]", "too large"),
        ('{"a": {"b": 1, "c": 2, "b": 3}}', "the key 'b' twice"),
        ("[" * (MAX_DEPTH + 2) + "]" * (MAX_DEPTH + 2), "levels deep"),
        ("[" * 100_000, "levels deep"),
        ('{"a":' * 100_000, "levels deep"),
        ("[" + "0," * (MAX_VALUES + 1) + "0]", "more than"),
    ],
)
def test_other_json_is_refused_soon(text, says):
    start = time.monotonic()
    with pytest.raises(DocumentError, match=says):
        parse_json(text)
    assert time.monotonic() - start < SOON


def test_nan_is_a_number_where_it_is_allowed():
    assert math.isnan(parse_json("[NaN]", allow_nan=True)[0])
    assert parse_json("[1e999, -Infinity]", allow_nan=True) == [math.inf, -math.inf]
    assert parse_json("[" * MAX_DEPTH + "]" * MAX_DEPTH)


def test_a_large_file_is_refused_unread(tmp_path):
    path = tmp_path / "big.json"
    with path.open("wb") as file:
        file.truncate(200 * 2**20)
    start = time.monotonic()
    for read in (read_bytes, read_json, read_yaml):
        with pytest.raises(DocumentError, match="it has 210 MB, but may have"):
            read(path)
    assert time.monotonic() - start < SOON
    path.write_bytes(b"[1]")
    assert read_bytes(path, max_bytes=3) == b"[1]"
    with pytest.raises(DocumentError):
        read_bytes(path, max_bytes=2)


@pytest.mark.skipif(os.name != "posix", reason="has no pipes and devices among files")
def test_only_regular_files_are_opened(tmp_path):
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "file").write_bytes(b"[1]")
    (tmp_path / "link").symlink_to(tmp_path / "file")
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    for path in (tmp_path / "pipe", "/dev/zero", tmp_path):
        assert not is_regular(path)
        for read in (open_regular, read_json, read_yaml, lambda path: list(read_json_lines(path))):
            with pytest.raises(DocumentError, match=r"no regular file|a folder"):
                read(path)
    assert is_regular(tmp_path / "link")
    assert read_json(tmp_path / "link") == [1]
    for path in (tmp_path / "circle", tmp_path / "none", tmp_path / ("a" * 300)):
        assert not is_regular(path)
        with pytest.raises(OSError, match=r"No such|Too many|too long"):
            read_json(path)


def test_json_lines_end_at_the_first_that_is_damaged(tmp_path):
    path = tmp_path / "lines"
    for tail in (b"", b'{"a": ', b"[" * 1000 + b"\n[2]\n", b"\xff\n[2]\n", b"[3"):
        path.write_bytes(b'{"a": 1}\n[NaN]\n' + tail)
        first, second = read_json_lines(path)
        assert first == {"a": 1}
        assert math.isnan(second[0])
    path.write_bytes(b"[1]\n[2222]\n[3]\n")
    assert list(read_json_lines(path, max_line=5)) == [[1]]


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: [", "not YAML"),
        ("a: &x [1]\nb: *x", "alias"),
        ("a: 1\nb: 2\na: 3", "the key 'a' twice"),
        ("a: {b: 1, b: 2}", "the key 'b' twice"),
        ("a: 1\n---\nb: 2", "single document"),
        ("a: !!python/object/apply:os.getcwd []", "constructor"),
        ("a: 2001-99-99", "month"),
        ("[" * 100_000, "levels deep"),
        ("- " * 100_000, "levels deep"),
        ("? " * 100_000, "levels deep"),
    ],
)
def test_yaml_is_data_of_limited_depth(text, says, tmp_path):
    path = tmp_path / "a.yml"
    path.write_text(text)
    start = time.monotonic()
    with pytest.raises(DocumentError, match=says):
        read_yaml(path)
    assert time.monotonic() - start < SOON
    path.write_text("pond: water\n3: {name: wöod, code: 7}\nno:\n", encoding="utf-8")
    assert read_yaml(path) == {"pond": "water", 3: {"name": "wöod", "code": 7}, False: None}
