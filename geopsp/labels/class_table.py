"""From the values of a field, or of a raster, to classes with names and codes."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import count
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geopsp.core.argument_names import did_you_mean_one
from geopsp.core.legend import BACKGROUND, IGNORE_INDEX, Legend
from geopsp.errors import LabelError
from geopsp.labels.class_mapping import NULL, OTHERS, ClassTarget, Value, canonical_name, normalize_value, value_name
from geopsp.labels.look_alikes import case_notes

Background = Literal["class", "ignore"]


MAX_CLASSES = 254


MAX_LISTED = 20
"""Values that a message lists."""


@dataclass(frozen=True, slots=True, eq=False)
class ClassTable:
    """The classes, and the class code of each value."""

    legend: Legend
    codes: Mapping[Value, int]
    """IGNORE_INDEX for values that the mapping makes unlabelled."""

    notes: tuple[str, ...] = ()
    """Values of the mapping that were not found, and classes that look alike, in words."""

    null_code: int = -1
    """Code of missing values; -1: they have no class."""

    def codes_of(self, values: pd.Series) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
        """Return (n,) codes, and (n,) True where a value is in the table; the code of others is IGNORE_INDEX."""
        positions, distinct = pd.factorize(values)
        found = map(normalize_value, distinct)
        numbers = [self.null_code if value is None else self.codes.get(value, -1) for value in found]
        codes = np.array([*numbers, self.null_code])[positions]  # factorize gives -1 to missing values
        return np.where(codes < 0, IGNORE_INDEX, codes).astype(np.uint8), codes >= 0


def class_table(
    found: Iterable[Value],
    source: str,
    *,
    background: Background,
    mapping: Mapping[Value, ClassTarget] | None = None,
    known: Legend | None = None,
    nulls: bool = False,
) -> ClassTable:
    """Make the class table of values.

    Whole numbers from 0 to 254 that are not mapped keep their value as code, if all values left are such numbers. Other
    classes are numbered from 1, in the order of their names. Background is 0.

    Args:
        found: The values.
        source: The words that name where they were found.
        background: "class": there is always a class 0, "background".
        mapping: The classes that values are mapped to.
        known: Names and colours of values that keep their code.
        nulls: True if values are missing.

    Raises:
        LabelError: if no key of the mapping is found, no class is left, or two classes claim one code.
    """
    maps_nulls = nulls and NULL in (mapping or {})
    values = _sorted([*found, *([NULL] if maps_nulls else [])])
    targets, notes = _targets(values, mapping or {}, source)
    kept = [value for value in values if value not in targets]
    fixed = _fixed_codes(targets.values(), background)
    names = _names_of(kept, known)
    if _are_codes(kept):
        fixed = _keep_codes(names, fixed, source)
    fixed = _keep_renamed_codes(targets, fixed)
    classes = dict.fromkeys([*names.values(), *sorted({t.name for t in targets.values() if t.name is not None})])
    if not classes:
        raise LabelError(f"{source} is left without a class: `class_mapping` makes all values unlabelled. Map one.")
    codes = _assign_codes(classes, fixed, source)
    colors = {codes[info.name]: info.color for info in known or () if info.name in codes}
    colors |= {codes[t.name]: t.color for t in targets.values() if t.name is not None and t.color}
    legend = {code: name for name, code in codes.items()} | ({0: BACKGROUND} if background == "class" else {})
    table = {value: codes[name] for value, name in names.items()}
    table |= {v: IGNORE_INDEX if t.name is None else codes[t.name] for v, t in targets.items()}
    notes += case_notes(codes, source)
    return ClassTable(Legend.from_names(legend, colors), table, notes, table[NULL] if maps_nulls else -1)


def _sorted(found: Iterable[Value]) -> list[Value]:
    values = set(found)
    if any(isinstance(value, str) for value in values):
        return sorted(values, key=value_name)
    return sorted(values)


def _targets(
    values: list[Value], mapping: Mapping[Value, ClassTarget], source: str
) -> tuple[dict[Value, ClassTarget], tuple[str, ...]]:
    """Return the target of each value that is mapped, and a note of keys that are not among the values."""
    by_number = {_as_number(key): target for key, target in mapping.items() if key != OTHERS}
    targets = {v: t for v in values if (t := mapping.get(v) or by_number.get(_as_number(v)))}
    used = {_as_number(value) for value in values}
    unused = [value_name(key) for key in mapping if key != OTHERS and _as_number(key) not in used]
    hint = did_you_mean_one(unused, map(value_name, values))
    if unused and not targets and OTHERS not in mapping:
        raise LabelError(
            f"{source} has the values {_listed(values)}, but `class_mapping` maps other values only: "
            f"{', '.join(unused)}.{hint} Correct its keys, or leave it out."
        )
    note = f"{source} does not contain {_listed(unused)}, but `class_mapping` does{hint and f'.{hint}'}"
    if OTHERS in mapping:
        targets |= {value: mapping[OTHERS] for value in values if value not in targets}
    return targets, (note,) if unused else ()


def _listed(values: Sequence[Value]) -> str:
    more = f" and {len(values) - MAX_LISTED} more" if len(values) > MAX_LISTED else ""
    return ", ".join(map(value_name, values[:MAX_LISTED])) + more


def _as_number(value: Value) -> Value:
    """Return a number for a text that reads as one, so that '1' and 1 are the same key."""
    if isinstance(value, str) and re.fullmatch(r"[+-]?\d+", value):
        return int(value)
    if isinstance(value, str) and re.fullmatch(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?", value):
        return normalize_value(float(value)) or 0
    return value


def _names_of(kept: list[Value], known: Legend | None) -> dict[Value, str]:
    """Return the class name of each value that is not mapped."""
    if not _are_codes(kept):
        return {value: canonical_name(value_name(value)) for value in kept}
    own = {info.code: info.name for info in known or ()}
    return {v: own.get(int(v)) or (f"class {v}" if v else BACKGROUND) for v in kept}


def _are_codes(values: list[Value]) -> bool:
    return all(isinstance(value, int) and 0 <= value < IGNORE_INDEX for value in values)


def _fixed_codes(targets: Iterable[ClassTarget], background: Background) -> dict[str, int]:
    """Return the codes that the mapping fixes, by class name.

    Raises:
        LabelError: if a class has two codes, or two classes have one.
    """
    fixed = {BACKGROUND: 0} if background == "class" else {}
    owners = {code: name for name, code in fixed.items()}
    for target in targets:
        if target.name is None or target.code is None:
            continue
        if fixed.setdefault(target.name, target.code) != target.code:
            raise LabelError(
                f"`class_mapping` gives {target.name!r} the codes {fixed[target.name]} and {target.code}, but a class "
                "has one code."
            )
        if owners.setdefault(target.code, target.name) != target.name:
            raise LabelError(
                f"`class_mapping` gives the code {target.code} to {owners[target.code]!r} and to {target.name!r}, but "
                "each class needs its own."
            )
    return fixed


def _keep_codes(names: Mapping[Value, str], fixed: dict[str, int], source: str) -> dict[str, int]:
    """Add the codes of values that are not mapped.

    Raises:
        LabelError: if the mapping gives such a code to another class.
    """
    owners = {code: name for name, code in fixed.items()}
    for value, name in names.items():
        code = fixed.get(name, int(value))
        if owners.get(code, name) != name:
            raise LabelError(
                f"{source} uses the code {code} for {name!r}, but `class_mapping` gives it to {owners[code]!r}. "
                f"Map {value} too."
            )
        fixed, owners = {**fixed, name: code}, {**owners, code: name}
    return fixed


def _keep_renamed_codes(targets: Mapping[Value, ClassTarget], fixed: dict[str, int]) -> dict[str, int]:
    """Add the codes of values that are renamed and not merged, where these codes are free."""
    names = [target.name for target in targets.values()]
    for value, target in targets.items():
        renamed = target.name is not None and names.count(target.name) == 1
        if renamed and _are_codes([value]) and target.name not in fixed and value not in fixed.values():
            fixed = {**fixed, str(target.name): int(value)}
    return fixed


def _assign_codes(names: Iterable[str], fixed: Mapping[str, int], source: str) -> dict[str, int]:
    """Return the code of each class: the fixed one, else the next free one from 1.

    Raises:
        LabelError: if there are more classes than codes.
    """
    fixed = {BACKGROUND: 0, **fixed} if 0 not in fixed.values() else fixed
    taken = set(fixed.values())
    free = (code for code in count(1) if code not in taken)
    codes = {name: fixed[name] if name in fixed else next(free) for name in names}
    if max(codes.values()) >= IGNORE_INDEX:
        raise LabelError(
            f"{source} has {len(codes)} classes, but at most {MAX_CLASSES} are possible. Is it the right field?"
        )
    return codes
