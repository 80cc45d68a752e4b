"""Text files in a folder that ArcGIS exported: the list of chips, and JSON."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from geopsp.chips.arcgis_write import MAP_FILE
from geopsp.core.text import format_error
from geopsp.errors import ChipError

LINE_WITH_BLANKS = re.compile(r"\s*(?P<image>.+?)\s+(?P<label>labels/.+?)(?:\s+[-+.\d]+)*\s*$")
"""A line of map.txt whose file names may contain blanks; numbers may follow."""


def read_map(folder: Path) -> list[tuple[str, str]]:
    """Return the paths of images and labels, relative to the folder.

    Raises:
        ChipError: if a line names one file only, or files that do not exist or lie elsewhere.
    """
    try:
        lines = _read_text(folder / MAP_FILE).replace("\\", "/").splitlines()
    except OSError as error:
        raise ChipError(f"Cannot read {folder / MAP_FILE}: {format_error(error)}. Export or copy it again.") from error
    pairs = []
    for number, line in enumerate(lines, start=1):
        columns = line.split()
        if len(columns) > 1 and not _is_file(folder, columns[1]) and (match := LINE_WITH_BLANKS.match(line)):
            columns = [match["image"], match["label"]]
        if len(columns) == 1:
            raise ChipError(
                f"Line {number} of {folder / MAP_FILE} names only one file, {line[:100]!r}, but must name image and "
                "label. Export the folder again."
            )
        if columns:
            pairs.append((os.path.normpath(columns[0]), os.path.normpath(columns[1])))
    missing = [path for pair in pairs for path in pair if not _is_file(folder, path)]
    if not pairs:
        raise ChipError(f"{folder / MAP_FILE} names no chips. Export or copy the folder again.")
    if missing:
        raise ChipError(
            f"{folder} is incomplete: {len(missing):,} of the {2 * len(pairs):,} files in {MAP_FILE} are missing, the "
            f"first is {missing[0][:100]!r}. Export or copy it again."
        )
    return pairs


def _is_file(folder: Path, path: str) -> bool:
    """Return True for a file inside the folder."""
    try:
        return not path.startswith(("/", "..")) and (folder / path).is_file()
    except (OSError, ValueError):
        return False


def _read_text(path: Path) -> str:
    """Read UTF-8, 16 or 32, with or without byte-order mark; else Latin-1, which older tools write."""
    content = path.read_bytes()
    try:
        return content.decode(json.detect_encoding(content))
    except UnicodeDecodeError:
        return content.decode("latin-1")


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON file that ArcGIS wrote.

    Raises:
        ChipError: if it is missing or damaged.
    """
    try:
        content = json.loads(_read_text(path))
    except OSError as error:
        raise ChipError(f"{path.parent} has no {path.name}, which ArcGIS writes. Export or copy it again.") from error
    except (ValueError, RecursionError) as error:
        raise ChipError(
            f"{path} is damaged: it is not JSON ({format_error(error)}). Export or copy it again."
        ) from error
    if not isinstance(content, dict):
        raise ChipError(f"{path} is damaged: it is a JSON {type(content).__name__}. Export or copy it again.")
    return content
