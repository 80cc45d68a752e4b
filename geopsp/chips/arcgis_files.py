"""The text files of a folder of "Classified Tiles", as ArcGIS or anybody else may have written them."""

from __future__ import annotations

import json
import os
import re
from pathlib import Path
from typing import Any

from geopsp.chips.arcgis_write import MAP_FILE
from geopsp.core.documents import DocumentError, parse_json, read_bytes
from geopsp.core.schema import Schema, Text, require_fit
from geopsp.errors import ChipError

LINE_WITH_BLANKS = re.compile(r"\s*(?P<image>.+?)\s+(?P<label>labels/.+?)(?:\s+[-+.\d]+)*\s*$")
"""A line of map.txt whose file names may contain blanks; numbers may follow."""


class ImagePropertiesEntry(Schema):
    """Properties of the images that chips were cut from."""

    BandNames: list[Any] | None = None


class ArcgisEntries(Schema):
    """Entries of both JSON files that are read whatever they say; others are read where they are needed."""

    MetaDataMode: Text | None = None
    ImageSpaceUsed: Text | None = None
    InputRastersProps: ImagePropertiesEntry | None = None
    NumTiles: float | Text | None = None
    NumTilesAsDouble: float | Text | None = None


def read_map(folder: Path) -> list[tuple[str, str]]:
    """Return the paths of images and labels, relative to the folder.

    Raises:
        ChipError: if a line or a file is missing, or lies outside.
    """
    lines = _read_text(folder / MAP_FILE).replace("\\", "/").splitlines()
    pairs = []
    for number, line in enumerate(lines, start=1):
        columns = line.split()
        if len(columns) > 1 and not (folder / columns[1]).is_file() and (match := LINE_WITH_BLANKS.match(line)):
            columns = [match["image"], match["label"]]
        if len(columns) == 1:
            raise ChipError(
                f"Line {number} of {folder / MAP_FILE} names only one file, {line[:200]!r}, but must name image and "
                "label. Export the folder again."
            )
        if columns:
            pairs.append((_inside(folder, columns[0]), _inside(folder, columns[1])))
    missing = [path for pair in pairs for path in pair if not (folder / path).is_file()]
    if not pairs:
        raise ChipError(f"{folder / MAP_FILE} names no chips. Export or copy the folder again.")
    if missing:
        raise ChipError(
            f"{folder} is incomplete: {len(missing):,} of the {2 * len(pairs):,} files in {MAP_FILE} are missing, the "
            f"first is {missing[0]}. Export or copy it again."
        )
    return pairs


def _inside(folder: Path, name: str) -> str:
    """Return a path of map.txt, relative to the folder."""
    path = os.path.normpath(name)
    if os.path.isabs(path) or os.pardir in Path(path).parts or "\0" in path:  # noqa: PTH117
        raise ChipError(
            f"{folder / MAP_FILE} names the file {name[:200]!r} outside of the folder. Export or copy the folder again."
        )
    return path


def _read_text(path: Path) -> str:
    """Read UTF-8, 16 or 32, with or without byte-order mark; else Latin-1, which older tools write."""
    try:
        content = read_bytes(path)
    except DocumentError as error:
        raise ChipError(f"{path} is damaged: {error}. Export or copy it again.") from error
    except OSError as error:
        raise ChipError(f"{path.parent} has no {path.name}, which ArcGIS writes. Export or copy it again.") from error
    try:
        return content.decode(json.detect_encoding(content))
    except UnicodeDecodeError:
        return content.decode("latin-1")


def read_json(path: Path) -> dict[str, Any]:
    """Read one of the JSON files of a folder.

    Raises:
        ChipError: if it is missing or damaged.
    """
    try:
        content = parse_json(_read_text(path), allow_nan=True)
        require_fit(content, ArcgisEntries)
    except DocumentError as error:
        raise ChipError(f"{path} is damaged: {error}. Export or copy it again.") from error
    found: dict[str, Any] = content
    return found
