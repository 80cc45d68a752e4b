"""Reference values that people typed or chose, as class names."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import pandas as pd

from geopsp.core.argument_names import near_name
from geopsp.core.legend import ClassInfo
from geopsp.errors import LabelError
from geopsp.labels.class_mapping import OTHERS, Value, value_name

MOST_NAMED = 5
"""Wrong values that a message names."""


def as_class_names(
    values: pd.Series, classes: Sequence[ClassInfo], source: str, *, mapped: Iterable[Value] = ()
) -> pd.Series:
    """Return the names of classes; None where nothing is entered.

    A value is the name of a class, or its code where no class has that name. Spaces around it do not count.

    Args:
        values: Texts or numbers.
        classes: The classes that there are.
        source: Where the values are from, for messages.
        mapped: Values that a class mapping renames: they stay as they are there, with * all that are no classes.

    Raises:
        LabelError: if there are other values; it names them, and the classes that may be meant.
    """
    by_code = {str(info.code): info.name for info in reversed(classes)}
    names = {info.name.strip(): info.name for info in classes}
    known: dict[str, Value] = by_code | names | {value_name(value): value for value in mapped}
    texts = [_as_text(value) for value in values]
    others = dict.fromkeys(text for text in texts if text and text not in known)
    if OTHERS in known:
        known, others = {text: text for text in others} | known, {}
    wrong = {text: texts.count(text) for text in others}
    if wrong:
        parts = [_describe(text, count, list(names)) for text, count in list(wrong.items())[:MOST_NAMED]]
        more = f" and {len(wrong) - MOST_NAMED} more" if len(wrong) > MOST_NAMED else ""
        raise LabelError(
            f"{source} has values that are no classes: {', '.join(parts)}{more}. The classes are "
            f"{', '.join(info.name for info in classes)}; leave the field empty where the class cannot be told."
        )
    return pd.Series([known[text] if text else None for text in texts], values.index, object)


def _as_text(value: Any) -> str:
    """Return a value as text without spaces around it, whole numbers without a point; "" for none."""
    if value is None or (not isinstance(value, str) and pd.isna(value)):
        return ""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    return str(value).strip()


def _describe(text: str, count: int, names: Sequence[str]) -> str:
    near = near_name(text, names)
    hint = f", did you mean {near!r}?" if near else ""
    return f"{text!r} ({count:,}{hint})"
