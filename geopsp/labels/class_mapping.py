"""What the user says of values and classes: values as they are compared, and mappings that rename, merge and drop."""

from __future__ import annotations

import datetime as dt
import re
from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from reprlib import repr as short
from typing import Any

import numpy as np
import pandas as pd

from geopsp.core.documents import DocumentError, read_yaml
from geopsp.core.legend import BACKGROUND, IGNORE_INDEX
from geopsp.core.remote_input import input_path
from geopsp.core.text import format_error
from geopsp.errors import InputNotFoundError, OptionError
from geopsp.labels.look_alikes import canonical_text, time_text

Value = int | float | str
"""A class as found: a whole number as int, a text without blanks around it."""


MAX_EXACT = 2.0**64
"""Whole floats from here on stay floats."""


OTHERS = "*"
"""The key of a mapping that stands for all values that it does not name, but not for missing ones."""


NULL = "null"
"""The key of a mapping that stands for missing values; None is the same."""


@dataclass(frozen=True, slots=True)
class ClassTarget:
    """The class that a value is mapped to."""

    name: str | None
    """None: the value's pixels are unlabelled."""

    code: int | None = None
    """None: the next free code."""

    color: str | None = None


def mapping_identity(mapping: Mapping[Any, ClassTarget]) -> list[str]:
    """Return the entries as texts, which are part of an export's key, spelled as in version 0.1 to keep its keys."""
    return [
        f"({value!r}, Target(name={target.name!r}, code={target.code!r}, color={target.color!r}))"
        for value, target in mapping.items()
    ]


def normalize_value(value: Any) -> Value | None:
    """Return a value as class tables hold it; None for a missing value.

    Whole numbers become int, dates texts such as "2024-05-31", texts as in `canonical_text`.
    """
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, np.datetime64 | np.timedelta64 | dt.datetime | dt.timedelta):
        value = time_text(value)
    if isinstance(value, bool | int | np.bool_ | np.integer):
        return int(value)
    if isinstance(value, float | np.floating | Decimal):
        number = float(value)
        if np.isnan(number):
            return None
        is_exact = np.isfinite(number) and (isinstance(value, Decimal) or abs(number) < MAX_EXACT)
        return int(value) if is_exact and value == int(value) else number
    return canonical_text(str(value)) or None


def value_name(value: Value) -> str:
    """Return a value as text, "2" for 2.0."""
    return f"{value:.15g}" if isinstance(value, float) else str(value)


def read_mapping(mapping: Mapping[Any, Any] | str | Path | None) -> dict[Value, ClassTarget] | None:
    """Read a mapping from values to classes from a dict or a YAML file; None if there is none.

    Raises:
        InputNotFoundError: if there is no such file.
        OptionError: if it is not a mapping, or a class in it cannot be understood.
    """
    if mapping is None:
        return None
    source = "`class_mapping`"
    if isinstance(mapping, str | Path):
        source = f"The class mapping {mapping}"
        mapping = _read_yaml(input_path(mapping))
    if not isinstance(mapping, Mapping) or not mapping:
        raise OptionError(f"{source} is {short(mapping)}, but must map values to classes, e.g. {{'pond': 'water'}}.")
    entries = {}
    for key, target in mapping.items():
        value = NULL if key is None else normalize_value(key)
        if value is None:
            raise OptionError(
                f"{source} has the key {short(key)}, but keys must be values of the class field, null for features "
                "without one, or '*' for all others."
            )
        entries[value] = _parse_target(target, f"{source} maps {key!r} to")
    return entries


def _read_yaml(path: Path) -> Any:
    try:
        return read_yaml(path)
    except FileNotFoundError:
        raise InputNotFoundError(f"No such file: {path}. Check the path of `class_mapping`.") from None
    except (DocumentError, OSError) as error:
        raise OptionError(
            f"Cannot read {path} as YAML: {format_error(error)}. Write lines such as  pond: water"
        ) from error


def _parse_target(target: Any, maps: str) -> ClassTarget:
    """Parse one entry; `maps` begins the messages, e.g. "`class_mapping` maps 'pond' to"."""
    if target is None:
        return ClassTarget(None)
    if not isinstance(target, Mapping):
        name = normalize_value(target)
        if name is None or isinstance(target, list | tuple | set):
            raise OptionError(f"{maps} {short(target)}, but a class is a name, null, or a dict of name, code, color.")
        return ClassTarget(canonical_name(value_name(name)))
    unknown, name = set(target) - {"name", "code", "color"}, normalize_value(target.get("name"))
    if unknown or name is None:
        raise OptionError(f"{maps} {short(dict(target))}, but a class has a name and, at most, a code and a color.")
    code, color = target.get("code"), target.get("color")
    if code is not None and not (isinstance(code, int) and not isinstance(code, bool) and 0 <= code < IGNORE_INDEX):
        raise OptionError(f"{maps} the code {short(code)}, but codes are whole numbers from 0 to {IGNORE_INDEX - 1}.")
    if color is not None and not re.fullmatch(r"#[0-9a-fA-F]{6}", str(color)):
        raise OptionError(f"{maps} the color {short(color)}, but colors are written as #rrggbb.")
    return ClassTarget(canonical_name(value_name(name)), code, color.lower() if color else None)


def canonical_name(name: str) -> str:
    """Return "background" for "Background" and the like; other names stay."""
    return BACKGROUND if name.lower() == BACKGROUND else name
