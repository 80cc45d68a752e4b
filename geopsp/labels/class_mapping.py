"""From the values of a field, or of a raster, to classes: renamed, merged, dropped, numbered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pandas as pd
import yaml
from numpy.typing import NDArray

from geopsp.core.legend import BACKGROUND, IGNORE_INDEX, Legend
from geopsp.errors import InputNotFoundError, LabelError, OptionError

Background = Literal["class", "ignore"]


Value = int | float | str
"""A class as found: a whole number as int, text without blanks around it."""


MAX_CLASSES = 254


OTHERS = "*"
"""The key of a mapping that stands for all values not named."""


SHOWN = 20
"""Values that an error lists."""


@dataclass(frozen=True, slots=True)
class ClassTarget:
    """What a value becomes."""

    name: str | None
    """None: its pixels are unlabelled."""

    code: int | None = None
    """None: numbered."""

    color: str | None = None


def mapping_identity(mapping: Mapping[Any, ClassTarget]) -> list[str]:
    """The entries as text, part of what identifies an export, spelled as in version 0.1, whose exports resume."""
    return [
        f"({value!r}, Target(name={target.name!r}, code={target.code!r}, color={target.color!r}))"
        for value, target in mapping.items()
    ]


@dataclass(frozen=True, slots=True, eq=False)
class ClassTable:
    """The classes, and what each value found becomes."""

    legend: Legend
    codes: Mapping[Value, int]
    """IGNORE for a value that is mapped to nothing."""

    notes: tuple[str, ...] = ()
    """What of the mapping is not there, in words."""

    def codes_of(self, values: pd.Series) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """(n,) codes, and (n,) True where the value is a class or is mapped to nothing; else it has none."""
        place, found = pd.factorize(values)
        numbers = [self.codes.get(value, -1) if value is not None else -1 for value in map(normalize_value, found)]
        table = np.array([*numbers, -1])[place]  # factorize gives -1 to missing values
        return np.where(table < 0, IGNORE_INDEX, table).astype(np.uint8), table >= 0


def normalize_value(value: Any) -> Value | None:
    """A value as the table knows it: whole numbers as int, text stripped; None where there is none."""
    if value is None or value is pd.NA or value is pd.NaT:
        return None
    if isinstance(value, bool | int | np.bool_ | np.integer):
        return int(value)
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return None
        return int(value) if float(value).is_integer() else float(value)
    return str(value).strip() or None


def value_name(value: Value) -> str:
    """The value as a name: 2 for 2.0."""
    return value if isinstance(value, str) else f"{value:.15g}"


def read_mapping(mapping: Mapping[Any, Any] | str | Path | None) -> dict[Value, ClassTarget] | None:
    """A mapping from values found to classes, from a dict or a YAML file; None if there is none.

    Raises:
        InputNotFoundError: if there is no such file.
        OptionError: if it is not a mapping, or a class in it cannot be understood.
    """
    if mapping is None:
        return None
    where = "class_mapping"
    if isinstance(mapping, str | Path):
        where = f"class_mapping {mapping}"
        mapping = _read_yaml(Path(mapping))
    if not isinstance(mapping, Mapping) or not mapping:
        raise OptionError(f"{where} holds {mapping!r}; needed values and their classes, e.g. {{'pond': 'water'}}.")
    entries = {}
    for key, target in mapping.items():
        value = normalize_value(key)
        if value is None:
            raise OptionError(f"{where} has the key {key!r}; needed a value of the class field, or '*'.")
        entries[value] = _target(target, f"{where}, {key!r}")
    return entries


def _read_yaml(path: Path) -> Any:
    if not path.exists():
        raise InputNotFoundError(f"No such file: {path}. Check the path of class_mapping.")
    try:
        return yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError, OSError) as error:
        raise OptionError(f"{path} cannot be read as YAML ({error}). Write lines such as  pond: water") from error


def _target(target: Any, where: str) -> ClassTarget:
    if target is None:
        return ClassTarget(None)
    if not isinstance(target, Mapping):
        name = normalize_value(target)
        if name is None or isinstance(target, list | tuple | set):
            raise OptionError(f"{where} has the class {target!r}; needed a name, nothing, or name, code and color.")
        return ClassTarget(_background_or(value_name(name)))
    unknown, name = set(target) - {"name", "code", "color"}, normalize_value(target.get("name"))
    if unknown or name is None:
        raise OptionError(f"{where} is {dict(target)!r}; needed a name, and perhaps code and color, nothing else.")
    code, color = target.get("code"), target.get("color")
    if code is not None and not (isinstance(code, int) and not isinstance(code, bool) and 0 <= code < IGNORE_INDEX):
        raise OptionError(f"{where} has the code {code!r}; needed a whole number from 0 to {IGNORE_INDEX - 1}.")
    if color is not None and not re.fullmatch(r"#[0-9a-fA-F]{6}", str(color)):
        raise OptionError(f"{where} has the colour {color!r}; needed red, green and blue as #rrggbb.")
    return ClassTarget(_background_or(value_name(name)), code, color.lower() if color else None)


def _background_or(name: str) -> str:
    return BACKGROUND if name.lower() == BACKGROUND else name


def class_table(
    found: Iterable[Value],
    source: str,
    *,
    background: Background,
    mapping: Mapping[Value, ClassTarget] | None = None,
    known: Legend | None = None,
) -> ClassTable:
    """Numbers within 0 to 254 that are not mapped stay codes; all else is numbered by name from 1; background is 0.

    Args:
        found: The values.
        source: The words that name where they were found.
        background: "class": there is a class 0, "background", in any case.
        mapping: What becomes of values.
        known: Names and colours of values that stay codes.

    Raises:
        LabelError: if no key of the mapping is found, nothing is left, or classes do not fit together.
    """
    values = _sorted(found)
    targets, notes = _targets(values, mapping or {}, source)
    kept = [value for value in values if value not in targets]
    fixed = _fixed_codes(targets.values(), source, background)
    names = _names_of(kept, known)
    if _are_codes(kept):
        fixed = _keep_codes(names, fixed, source)
    fixed = _keep_renamed_codes(targets, fixed)
    wanted = dict.fromkeys([*names.values(), *sorted({t.name for t in targets.values() if t.name is not None})])
    if not wanted:
        raise LabelError(f"class_mapping leaves no class of {source}: all values become unlabelled. Name one.")
    codes = _numbered(wanted, fixed, source)
    colors = {codes[info.name]: info.color for info in known or () if info.name in codes}
    colors |= {codes[t.name]: t.color for t in targets.values() if t.name is not None and t.color}
    legend = {code: name for name, code in codes.items()} | ({0: BACKGROUND} if background == "class" else {})
    table = {value: codes[name] for value, name in names.items()}
    table |= {v: IGNORE_INDEX if t.name is None else codes[t.name] for v, t in targets.items()}
    return ClassTable(Legend.from_names(legend, colors), table, notes)


def _sorted(found: Iterable[Value]) -> list[Value]:
    values = set(found)
    if any(isinstance(value, str) for value in values):
        return sorted(values, key=value_name)
    return sorted(values)


def _targets(
    values: list[Value], mapping: Mapping[Value, ClassTarget], source: str
) -> tuple[dict[Value, ClassTarget], tuple[str, ...]]:
    """What becomes of each value that the mapping names, and a note of names that are not there."""
    by_number = {_number(key): target for key, target in mapping.items() if key != OTHERS}
    targets = {v: t for v in values if (t := mapping.get(v) or by_number.get(_number(v)))}
    used = {_number(value) for value in values}
    unused = [value_name(key) for key in mapping if key != OTHERS and _number(key) not in used]
    if unused and not targets and OTHERS not in mapping:
        raise LabelError(
            f"{source} holds {_some(values)}, and nothing that class_mapping names: {', '.join(unused)}. "
            "Correct the names, or leave class_mapping out."
        )
    notes = (f"{source} does not hold {_some(unused)}, which class_mapping names",) if unused else ()
    if OTHERS in mapping:
        targets |= {value: mapping[OTHERS] for value in values if value not in targets}
    return targets, notes


def _some(values: Sequence[Value]) -> str:
    return ", ".join(map(value_name, values[:SHOWN])) + (f" and {len(values) - SHOWN} more" * (len(values) > SHOWN))


def _number(value: Value) -> Value:
    """A number for text that reads as one, so that '1' and 1 are the same key."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value):
        return normalize_value(float(value)) or 0
    return value


def _names_of(kept: list[Value], known: Legend | None) -> dict[Value, str]:
    """The name of each value that is not mapped."""
    if not _are_codes(kept):
        return {value: _background_or(value_name(value)) for value in kept}
    own = {info.code: info.name for info in known or ()}
    return {v: own.get(int(v)) or (f"class {v}" if v else BACKGROUND) for v in kept}


def _are_codes(values: list[Value]) -> bool:
    return all(isinstance(value, int) and 0 <= value < IGNORE_INDEX for value in values)


def _fixed_codes(targets: Iterable[ClassTarget], source: str, background: Background) -> dict[str, int]:
    """Codes by name that the mapping fixes; one name has one code and one code one name."""
    fixed = {BACKGROUND: 0} if background == "class" else {}
    owners = {code: name for name, code in fixed.items()}
    for target in targets:
        if target.name is None or target.code is None:
            continue
        if fixed.setdefault(target.name, target.code) != target.code:
            raise LabelError(
                f"class_mapping gives {target.name!r} of {source} the codes {fixed[target.name]} and {target.code}; "
                "needed one."
            )
        if owners.setdefault(target.code, target.name) != target.name:
            raise LabelError(
                f"class_mapping gives the code {target.code} to {owners[target.code]!r} and {target.name!r}; "
                "each class needs its own."
            )
    return fixed


def _keep_codes(names: Mapping[Value, str], fixed: dict[str, int], source: str) -> dict[str, int]:
    """With the codes of values that stay what they are."""
    owners = {code: name for name, code in fixed.items()}
    for value, name in names.items():
        code = fixed.get(name, int(value))
        if owners.get(code, name) != name:
            raise LabelError(
                f"The code {code} is {name!r} in {source}, but {owners[code]!r} by class_mapping. Map {value} too."
            )
        fixed, owners = {**fixed, name: code}, {**owners, code: name}
    return fixed


def _keep_renamed_codes(targets: Mapping[Value, ClassTarget], fixed: dict[str, int]) -> dict[str, int]:
    """With the codes of values that are merely renamed, where these are free."""
    names = [target.name for target in targets.values()]
    for value, target in targets.items():
        alone = target.name is not None and names.count(target.name) == 1
        if alone and _are_codes([value]) and target.name not in fixed and value not in fixed.values():
            fixed = {**fixed, str(target.name): int(value)}
    return fixed


def _numbered(wanted: Iterable[str], fixed: Mapping[str, int], source: str) -> dict[str, int]:
    """A code for each name: the fixed one, else the next that is free from 1 on."""
    fixed = {BACKGROUND: 0, **fixed} if 0 not in fixed.values() else fixed
    taken = set(fixed.values())
    free = (code for code in count(1) if code not in taken)
    codes = {name: fixed[name] if name in fixed else next(free) for name in wanted}
    if max(codes.values()) >= IGNORE_INDEX:
        raise LabelError(f"{source} holds {len(codes)} classes; at most {MAX_CLASSES} fit. Is it the right field?")
    return codes
