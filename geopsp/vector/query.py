"""SQL conditions on the fields of a table."""

from __future__ import annotations

import re
import sqlite3
from collections.abc import Sequence
from contextlib import closing
from typing import Any

import geopandas as gpd
import pandas as pd

from geopsp.core.argument_names import did_you_mean
from geopsp.core.text import format_error
from geopsp.errors import LabelError
from geopsp.vector.endless_query import interrupted_when_late

SQL_WORDS = {
    "and", "as", "between", "case", "cast", "collate", "else", "end", "escape", "exists", "false", "glob", "ilike",
    "in", "integer", "is", "like", "not", "null", "or", "real", "text", "then", "true", "when",
}  # fmt: skip
"""Words of a condition that are no fields."""


def filter_sql(frame: pd.DataFrame, where: str | None, source: str) -> Any:
    """Return the rows that meet an SQL condition.

    Raises:
        LabelError: if the query is wrong.
    """
    if where is None:
        return frame
    table = pd.DataFrame(frame[[name for name in field_names(frame) if _is_plain(frame[name])]]).reset_index(drop=True)
    with closing(sqlite3.connect(":memory:")) as base:
        try:
            table.to_sql("labels", base, index_label="_row")
            with interrupted_when_late(base, f"The query {where!r} of {source}"):
                rows = [row for (row,) in base.execute(f"SELECT _row FROM labels WHERE {where} ORDER BY _row")]  # noqa: S608
        except (sqlite3.Error, pd.errors.DatabaseError) as error:
            raise query_error(where, source, field_names(frame), error) from error
    return frame.iloc[rows]


def _is_plain(column: pd.Series) -> bool:
    """True if SQL has a type for the column, unlike lists or geometries."""
    inferred = pd.api.types.infer_dtype(column.dropna(), skipna=True)
    return column.dtype not in (object, "geometry") or inferred in {"string", "integer", "floating", "boolean", "empty"}


def query_error(where: str, source: str, fields: Sequence[str], error: Exception) -> LabelError:
    """Return the error for a query that fails; it names a field that does not exist."""
    names = re.findall(r'"([^"]+)"|\b([A-Za-z_]\w*)\b(?!\s*\()', re.sub(r"'[^']*'", "", where))
    known = {*(name.lower() for name in fields), *SQL_WORDS}
    for name in (quoted or plain for quoted, plain in names):
        if name.lower() not in known:
            return LabelError(
                f"Invalid `where`: {source} has no field {name!r}.{did_you_mean(name, fields)} Fields: "
                f"{', '.join(fields) or 'none'}."
            )
    return LabelError(
        f"The query {where!r} does not work for {source}: {format_error(error)}. "
        f"Fields: {', '.join(fields) or 'none'}. Write it as an SQL condition, e.g. \"height > 3 AND kind = 'barn'\"."
    )


def field_names(frame: pd.DataFrame) -> tuple[str, ...]:
    """Return the columns but the geometry."""
    geometry = frame.active_geometry_name if isinstance(frame, gpd.GeoDataFrame) else None
    return tuple(str(name) for name in frame.columns if name != geometry)
