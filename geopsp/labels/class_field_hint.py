"""A warning where labels seem to have a class field that nobody named."""

from __future__ import annotations

import logging
from collections.abc import Sequence

import geopandas as gpd
import pandas as pd

from geopsp.core.text import format_count
from geopsp.labels.class_mapping import Value, normalize_value, value_name
from geopsp.labels.class_table import MAX_CLASSES

logger = logging.getLogger(__name__)

CLASS_WORDS = ("class", "klass", "label", "type", "kind", "categor", "landuse", "landcover", "land_", "species", "code")
"""Words in the names of fields that are likely to hold classes."""


MAX_FIELDS = 20
"""Fields that are looked at."""


MAX_EXAMPLES = 5
"""Values of a field, and fields, that the warning lists."""


def candidate_fields(fields: Sequence[str]) -> list[str]:
    """Return the fields to look at, those with a likely name first."""
    return sorted(fields, key=lambda name: not _has_class_word(name))[:MAX_FIELDS]


def warn_of_class_fields(source: str, fields: Sequence[str], frame: gpd.GeoDataFrame | None) -> None:
    """Log a warning if a field looks like the class of each polygon.

    Args:
        source: The name of the layer.
        fields: The fields to look at.
        frame: The features with these fields; None if they are not read, then the names of fields decide.
    """
    if frame is None:
        found = [name for name in fields if _has_class_word(name)]
        polygons = "features"
    else:
        values = {name: _class_values(frame[name], likely=_has_class_word(name)) for name in fields if name in frame}
        found = [_describe(name, values[name]) for name in values if values[name]]
        polygons = format_count(len(frame), "feature")
    if found:
        chosen = found[0].partition(" (")[0]
        logger.warning(
            "No `class_field` is given, so all %s of %s become one class, 'object'. "
            "These fields look like classes: %s. Pass e.g. `class_field=%r`.",
            polygons, source, ", ".join(found[:MAX_EXAMPLES]), chosen,
        )  # fmt: skip


def _has_class_word(name: str) -> bool:
    return any(word in name.lower() for word in CLASS_WORDS)


def _class_values(column: pd.Series, *, likely: bool) -> list[Value]:
    """Return the distinct values of a column if they look like classes, else [].

    Classes are texts or whole numbers, at least 2 and at most 254. In a field without a likely name they also repeat:
    there are at most half as many as features.
    """
    try:
        values = {value for value in map(normalize_value, pd.unique(column)) if value is not None}
    except TypeError:  # lists and the like
        return []
    most = MAX_CLASSES if likely else min(MAX_CLASSES, len(column) // 2)
    if not 2 <= len(values) <= most or any(isinstance(value, float) for value in values):
        return []
    texts = any(isinstance(value, str) for value in values)
    return sorted(values, key=value_name) if texts else sorted(values)


def _describe(name: str, values: Sequence[Value]) -> str:
    examples = ", ".join(map(value_name, values[:MAX_EXAMPLES])) + ", ..." * (len(values) > MAX_EXAMPLES)
    return f"{name} ({len(values)} values: {examples})"


def likely_class_field(fields: Sequence[str], frame: gpd.GeoDataFrame) -> str | None:
    """Return the field that looks most like the class of each feature; None if none does.

    Args:
        fields: All fields.
        frame: Features with these fields.
    """
    for name in candidate_fields(fields):
        if name in frame and _class_values(frame[name], likely=_has_class_word(name)):
            return name
    return None
