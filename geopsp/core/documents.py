"""Read JSON, JSON Lines and YAML that may come from anybody: regular files of limited size, depth and count."""

from __future__ import annotations

import hashlib
import json
import math
import os
import stat
from collections.abc import Iterator
from io import BufferedReader
from pathlib import Path
from typing import Any, NoReturn

import yaml

from geopsp.core.text import format_error

MAX_BYTES = 64 * 2**20
"""Size of a document."""

MAX_SETTINGS_BYTES = 2**20
"""Size of a document that people write by hand, or of the state of a run."""

MAX_DEPTH = 64
"""Lists and dicts inside each other."""

MAX_VALUES = 2_000_000
"""Values of a document, which may take a hundred times the memory of its text."""


class DocumentError(ValueError):
    """What is wrong with a document, in words."""


def open_regular(path: str | Path) -> BufferedReader:
    """Open a file to read its bytes; never wait for a pipe or a device.

    Raises:
        OSError: if it cannot be opened.
        DocumentError: if it is no regular file.
    """
    descriptor = os.open(path, os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0))
    mode = os.fstat(descriptor).st_mode
    if not stat.S_ISREG(mode):
        os.close(descriptor)
        raise DocumentError(f"it is {'a folder' if stat.S_ISDIR(mode) else 'no regular file'}, but must be a file")
    return os.fdopen(descriptor, "rb")


def file_checksum(path: str | Path) -> str:
    """Return the SHA-256 of a regular file, in hexadecimal digits.

    Raises:
        OSError, DocumentError: if it cannot be read.
    """
    with open_regular(path) as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def is_regular(path: str | Path) -> bool:
    """True for an existing file, or a link to one, that is no folder, pipe or device."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116 (False for a name that is too long)
    except (OSError, ValueError):
        return False


def read_bytes(path: str | Path, *, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a file of limited size.

    Raises:
        OSError, DocumentError: as `open_regular`; or if the file is larger.
    """
    with open_regular(path) as file:
        size = os.fstat(file.fileno()).st_size
        content = file.read(max_bytes + 1) if size <= max_bytes else b""
    if size > max_bytes or len(content) > max_bytes:
        raise DocumentError(f"it has {max(size, len(content)) / 1e6:,.0f} MB, but may have {max_bytes / 1e6:,.0f} MB")
    return content


def read_json(path: str | Path, *, max_bytes: int = MAX_BYTES, allow_nan: bool = False) -> Any:
    """Read a JSON file in UTF-8.

    Args:
        path: The file.
        max_bytes: Its largest size.
        allow_nan: True if NaN and Infinity are numbers.

    Raises:
        OSError, DocumentError: as `read_bytes` and `parse_json`.
    """
    return parse_json(read_bytes(path, max_bytes=max_bytes), allow_nan=allow_nan)


def parse_json(text: str | bytes, *, allow_nan: bool = False) -> Any:
    """Parse JSON; bytes are UTF-8, with or without byte-order mark.

    Raises:
        DocumentError: if it is no JSON, is too deep or too long, has a key twice, or a number that is not finite.
    """
    comma = b"," if isinstance(text, bytes) else ","
    if text.count(comma) > MAX_VALUES:  # type: ignore[arg-type]
        raise DocumentError(f"it holds more than {MAX_VALUES:,} values")
    try:
        content = json.loads(
            text.decode("utf-8-sig") if isinstance(text, bytes) else text,
            object_pairs_hook=_unique_keys,
            parse_constant=None if allow_nan else _refuse_constant,
        )
    except RecursionError:
        raise _too_deep() from None
    except DocumentError:
        raise
    except ValueError as error:
        raise DocumentError(f"it is not JSON: {error}") from error
    _check_values(content, finite=not allow_nan)
    return content


def read_json_lines(path: Path, *, max_line: int = MAX_BYTES) -> Iterator[Any]:
    """Yield the content of the lines of a JSON Lines file up to the first that is torn or damaged.

    Raises:
        OSError, DocumentError: as `open_regular`.
    """
    with open_regular(path) as file:
        while line := file.readline(max_line):
            try:
                yield parse_json(line, allow_nan=True)
            except DocumentError:
                return


def read_yaml(path: Path, *, max_bytes: int = MAX_SETTINGS_BYTES) -> Any:
    """Read a YAML file in UTF-8.

    Raises:
        OSError, DocumentError: as `read_bytes`; or if it is no YAML, is too deep, refers to its own parts or has a key
            twice.
    """
    text = read_bytes(path, max_bytes=max_bytes)
    try:
        _check_events(yaml.parse(text, Loader=_YamlLoader))
        return yaml.load(text, Loader=_YamlLoader)  # noqa: S506 (a safe loader)
    except DocumentError:
        raise
    except RecursionError:
        raise _too_deep() from None
    except (yaml.YAMLError, ValueError) as error:
        raise DocumentError(f"it is not YAML: {format_error(error)}") from error


def yaml_lines(path: Path) -> dict[str, int]:
    """Return the line of each key of the mapping in a YAML file that `read_yaml` has read, from 1 on.

    Raises:
        OSError, DocumentError: as `read_bytes`.
    """
    node = yaml.compose(read_bytes(path, max_bytes=MAX_SETTINGS_BYTES), Loader=_YamlLoader)
    assert isinstance(node, yaml.MappingNode)
    return {str(key.value): key.start_mark.line + 1 for key, _ in node.value}


def _check_events(events: Iterator[yaml.Event]) -> None:
    """Check the depth of YAML before it is built, and that no part stands for another, which multiplies sizes."""
    depth = 0
    for event in events:
        if isinstance(event, yaml.AliasEvent):
            raise DocumentError(f"it has the alias *{event.anchor}, which is not supported")
        depth += isinstance(event, yaml.CollectionStartEvent) - isinstance(event, yaml.CollectionEndEvent)
        if depth > MAX_DEPTH:
            raise _too_deep()


class _YamlLoader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
    """Loads plain values, and refuses keys that stand twice in one mapping."""

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [key.value for key, _ in node.value if isinstance(key, yaml.ScalarNode)]
        if len(set(keys)) < len(keys):
            raise DocumentError(f"it has the key {_first_twice(keys)!r} twice")
        mapping: dict[Any, Any] = super().construct_mapping(node, deep)
        return mapping


def _unique_keys(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise DocumentError(f"it has the key {_first_twice([key for key, _ in pairs])!r} twice")
    return found


def _first_twice(keys: list[Any]) -> Any:
    seen: set[Any] = set()
    return next((key for key in keys if key in seen or seen.add(key)), None)  # type: ignore[func-returns-value]


def _refuse_constant(name: str) -> NoReturn:
    raise DocumentError(f"it has the number {name}, but numbers must be finite")


def _too_deep() -> DocumentError:
    return DocumentError(f"its lists and dicts lie more than {MAX_DEPTH} levels deep")


def _check_values(content: Any, *, finite: bool) -> None:
    """Check the depth of parsed JSON, and that numbers are finite: 1e999 is infinite."""
    level: list[Any] = [content]
    for _ in range(MAX_DEPTH + 1):
        inner: list[Any] = []
        for value in level:
            if isinstance(value, dict):
                inner.extend(value.values())
            elif isinstance(value, list):
                inner.extend(value)
            elif finite and isinstance(value, float) and not math.isfinite(value):
                raise DocumentError("it has a number that is too large, but numbers must be finite")
        if not inner:
            return
        level = inner
    raise _too_deep()
