"""Classes of masks: a table of class names with the colour, or the value, that each has in mask files."""

from __future__ import annotations

import csv
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geopsp.core.documents import MAX_SETTINGS_BYTES, parse_json, read_bytes
from geopsp.core.legend import BACKGROUND, IGNORE_INDEX
from geopsp.core.remote_input import input_path
from geopsp.core.text import format_error
from geopsp.errors import InputNotFoundError, OptionError
from geopsp.labels.class_mapping import OTHERS, ClassTarget, Value, canonical_name

COLUMNS = {
    "name": ("name", "class", "class_name", "classname", "label", "label_name", "category"),
    "value": ("code", "value", "index", "id", "class_id", "pixel", "pixel_value", "class_value"),
    "color": ("color", "colour", "hex", "rgb"),
    "red": ("r", "red"),
    "green": ("g", "green"),
    "blue": ("b", "blue"),
}
"""Names that a column, or a key, may have; case and blanks do not count."""

NEEDED = (
    "Write one class per line under the header name,r,g,b (or name,color with #rrggbb, or name,code for masks of codes)"
)


@dataclass(frozen=True, slots=True)
class MaskClass:
    """A class of masks."""

    name: str
    color: int | None
    """0xRRGGBB."""

    value: int | None
    """Value in masks of one band, and the class code if it is one."""

    @property
    def hex(self) -> str | None:
        return None if self.color is None else f"#{self.color:06x}"


@dataclass(frozen=True, slots=True)
class MaskClasses:
    """The classes of masks, in the order of their table."""

    classes: tuple[MaskClass, ...]
    source: str

    def targets(self, mapping: Mapping[Value, ClassTarget], *, by_color: bool) -> dict[Value, ClassTarget]:
        """Return the class of each value or, with `by_color`, of each colour 0xRRGGBB.

        Classes without a code of their own are numbered from 1 in the order of the table; "background" is 0. `mapping`
        renames, merges or drops classes by name or value.
        """
        own = {c.name: c.value for c in self.classes if c.value is not None and 0 <= c.value < IGNORE_INDEX}
        taken = {*own.values()} | {0}
        free = (code for code in range(1, IGNORE_INDEX) if code not in taken)
        found: dict[Value, ClassTarget] = {}
        for entry in self.classes:
            key = entry.color if by_color else entry.value
            if key is None:
                continue
            default = mapping.get(OTHERS)
            target = mapping.get(entry.name) or (mapping.get(entry.value) if entry.value is not None else None)
            if target or default:
                found[key] = target or default or ClassTarget(None)
                continue
            if entry.name not in own:
                own[entry.name] = 0 if entry.name == BACKGROUND and 0 not in own.values() else next(free, IGNORE_INDEX)
            found[key] = ClassTarget(entry.name, own[entry.name], entry.hex)
        return found

    def identity(self) -> list[str]:
        """Return what the table says as text, for the key of an export."""
        return [repr((entry.name, entry.color, entry.value)) for entry in self.classes]


def read_mask_classes(table: Mapping[Any, Any] | str | Path | None) -> MaskClasses | None:
    """Read the classes of masks from a dict, or a CSV or JSON file; None if there are none.

    Raises:
        InputNotFoundError: if there is no such file.
        OptionError: if it cannot be read, or two classes have one colour or one value.
    """
    if table is None:
        return None
    if isinstance(table, str | Path):
        source = str(table)
        rows = _read_file(input_path(table))
    else:
        source, rows = "`mask_classes`", table
    classes = [_parse_class(row, source) for row in _rows(rows, source)]
    if not classes:
        raise OptionError(f"{source} has no class. {NEEDED}.")
    _require_distinct(classes, source)
    return MaskClasses(tuple(classes), source)


def _read_file(path: Path) -> Any:
    try:
        content = read_bytes(path, max_bytes=MAX_SETTINGS_BYTES)
        if path.suffix.lower() == ".json":
            return parse_json(content)
        text = content.decode("utf-8-sig")
        lines = [line for line in text.splitlines() if line.strip()]
        separator = max(",;\t", key=(lines[0] if lines else "").count)
        return list(csv.DictReader(lines, delimiter=separator, skipinitialspace=True))
    except FileNotFoundError:
        raise InputNotFoundError(f"No such file: {path}. Check the path of `mask_classes`.") from None
    except (ValueError, OSError, csv.Error) as error:
        raise OptionError(f"Cannot read {path} as CSV or JSON: {format_error(error)}. {NEEDED}.") from error


def _rows(table: Any, source: str) -> list[dict[str, Any]]:
    """Return one dict per class, of a list of dicts or of {name: color}, {color: name} or {code: name}."""
    if isinstance(table, Mapping):
        return [_row_of_entry(key, value) for key, value in table.items()]
    if isinstance(table, Sequence) and all(isinstance(row, Mapping) for row in table):
        return [dict(row) for row in table]
    raise OptionError(f"{source} holds a {type(table).__name__}, but must map class names to colours. {NEEDED}.")


def _row_of_entry(key: Any, value: Any) -> dict[str, Any]:
    if isinstance(value, Mapping):
        return {"name": key, **value}
    if _parse_color(key) is not None and isinstance(value, str):
        return {"name": value, "color": key}
    if _parse_whole(key) is not None and isinstance(value, str):
        return {"name": value, "value": key}
    kind = "value" if _parse_whole(value) is not None else "color"
    return {"name": key, kind: value}


def _parse_class(row: Mapping[Any, Any], source: str) -> MaskClass:
    fields = {str(key).strip().lower(): value for key, value in row.items() if value is not None and value != ""}
    given = {kind: next((fields[name] for name in names if name in fields), None) for kind, names in COLUMNS.items()}
    parts = [given[kind] for kind in ("red", "green", "blue")]
    color = _parse_color(parts if all(part is not None for part in parts) else given["color"])
    value = _parse_whole(given["value"])
    name = str(given["name"]).strip() if given["name"] is not None else ""
    shown = ", ".join(f"{key}={value}" for key, value in list(fields.items())[:8])[:200]
    has_color = any(given[kind] is not None for kind in ("color", "red", "green", "blue"))
    if (has_color and color is None) or (given["value"] is not None and value is None):
        raise OptionError(f"{source} has the line {shown!r}, whose color or code cannot be read. {NEEDED}.")
    if not name or (color is None and value is None):
        raise OptionError(f"{source} has the line {shown!r}, but a class needs a name, and a color or code. {NEEDED}.")
    return MaskClass(canonical_name(name), color, value)


def _parse_color(value: Any) -> int | None:
    """Return 0xRRGGBB of "#rrggbb", "255,0,0", "255 0 0" or three numbers; None if it is no colour."""
    if isinstance(value, str):
        if match := re.fullmatch(r"\s*(?:#|0x)([0-9a-fA-F]{6})\s*", value):
            return int(match[1], 16)
        value = re.findall(r"\d+", value) if re.fullmatch(r"[\s\d,;()\[\]]+", value) else None
    if not isinstance(value, Iterable):
        return None
    levels = [_parse_whole(part) for part in value]
    if len(levels) != 3 or any(level is None or not 0 <= level <= 255 for level in levels):
        return None
    red, green, blue = (level or 0 for level in levels)
    return red << 16 | green << 8 | blue


def _parse_whole(value: Any) -> int | None:
    if isinstance(value, bool):
        return None
    try:
        number = float(value)
    except (TypeError, ValueError):
        return None
    return int(number) if number.is_integer() else None


def _require_distinct(classes: Sequence[MaskClass], source: str) -> None:
    for words, keys in (("colour", [c.hex for c in classes]), ("code", [c.value for c in classes])):
        owners: dict[Any, str] = {}
        for key, entry in zip(keys, classes, strict=True):
            if key is not None and owners.setdefault(key, entry.name) != entry.name:
                raise OptionError(
                    f"{source} gives the {words} {key} to {owners[key]!r} and to {entry.name!r}, but it can stand for "
                    "one class only."
                )
