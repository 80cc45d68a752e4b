"""Reference values, as classes of the map."""

from __future__ import annotations

import logging
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import pandas as pd

from geopsp.core.argument_names import did_you_mean_one, near_name
from geopsp.core.legend import BACKGROUND, ClassInfo
from geopsp.errors import LabelError
from geopsp.labels.class_mapping import NULL, OTHERS, ClassTarget, Value, normalize_value, value_name

logger = logging.getLogger(__name__)

MAX_LISTED = 10
"""Classes that a message lists."""


MISSPELLED = 0.8
"""Similarity of names from which a class of the reference is taken for a misspelled one of the map."""


def mapped_values(values: pd.Series, mapping: Mapping[Value, ClassTarget] | None) -> list[str | None]:
    """Return reference values as texts after the class mapping; None where unlabelled."""
    names: dict[Any, str | None] = {}
    found = []
    for value in (normalize_value(each) for each in values):
        if value not in names:
            target = (mapping or {}).get(NULL if value is None else value)
            if target is None and value is not None:
                target = (mapping or {}).get(OTHERS)
            names[value] = target.name if target else None if value is None else value_name(value)
        found.append(names[value])
    return found


def match_classes(
    names: Iterable[str], classes: Sequence[ClassInfo], source: str, *, meant: Iterable[str] = ()
) -> dict[str, str]:
    """Return the class of the map for each reference class: of the same name, else of that code.

    A reference class that the map lacks stays as it is, a class of the reference alone, with a warning.

    Args:
        names: Classes of the reference.
        classes: Classes of the map.
        source: The reference, for messages.
        meant: Names that the user wrote into the class mapping: they are no misspelled ones.

    Raises:
        LabelError: if no class is one of the map, or a name is like one of the map but not the same.
    """
    known = {info.name: info.name for info in classes}
    by_code = {str(info.code): info.name for info in classes}
    found, unknown = {}, []
    for name in dict.fromkeys(names):
        code = "0" if name == BACKGROUND else re.sub(r"^class (?=-?\d+$)", "", name)
        match = known.get(name) or by_code.get(code)
        found[name] = match or name
        if match is None:
            unknown.append(name)
    listed = ", ".join(list(known)[:MAX_LISTED]) + (", ..." if len(known) > MAX_LISTED else "")
    advice = f"The classes of the map are {listed}. Rename those of the reference with `class_mapping`."
    if unknown and len(unknown) == len(found):
        hint = did_you_mean_one(unknown, known)
        raise LabelError(
            f"No class of {source} ({', '.join(unknown[:MAX_LISTED])}) is a class of the map.{hint} {advice}"
        )
    for name in unknown:
        near = near_name(name, known, likeness=MISSPELLED)
        if near and name not in set(meant):
            raise LabelError(
                f"{source} has the class {name!r}, which the map does not have. Did you mean {near!r}? {advice}"
                " If it is a class of its own, map it to itself."
            )
    if unknown:
        logger.warning(
            f"The map does not have {_listed(unknown)} of {source}: it can only be missed there. If it has another "
            "name in the map, use `class_mapping`."
        )
    return found


def _listed(names: Sequence[str]) -> str:
    return ("the class " if len(names) == 1 else "the classes ") + ", ".join(map(repr, names[:MAX_LISTED]))
