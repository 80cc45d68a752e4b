"""Write polygons as GeoParquet 1.1, one row group at a time, with a column of bounding boxes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj

from geopsp.vector.parquet_footer import MAGIC, write_footer
from geopsp.vector.row_groups import BBOX_FIELDS, GROUP_ROWS, Extent, RowGroups, encode_rows, footer_of

GROUP_BYTES = 2**28
"""Bytes of batches in memory at which they become a row group, however few rows they have."""


def write_parquet(
    batches: Iterator[pa.RecordBatch | RowGroups], schema: pa.Schema, path: Path, *, crs: pyproj.CRS, kind: str
) -> None:
    """Write batches to a GeoParquet file, with the columns of the schema and `bbox`.

    Args:
        batches: With a column `geometry` of WKB, or encoded already.
        schema: Of the batches.
        path: The file.
        crs: Of the geometries.
        kind: "Polygon" or "MultiPolygon".
    """
    extent, entries, num_rows = Extent.empty(), list[bytes](), 0
    with path.open("wb") as file:
        file.write(MAGIC)
        for group in _groups(batches, schema):
            shift = file.tell() - len(MAGIC)
            entries += [entry.at(shift) for entry in group.entries]
            file.write(group.columns)
            num_rows += group.num_rows
            extent = extent.union(group.extent)
        geo = json.dumps(_metadata(extent, crs, kind))
        file.write(write_footer(footer_of(schema), entries, num_rows, {"geo": geo}))


def _groups(batches: Iterator[pa.RecordBatch | RowGroups], schema: pa.Schema) -> Iterator[RowGroups]:
    """Yield row groups in order; batches that are none become one together."""
    pending: list[pa.RecordBatch] = []
    rows = size = 0
    for batch in batches:
        if isinstance(batch, RowGroups):
            if pending:
                yield encode_rows(pending, schema)
            yield batch
        else:
            pending += [batch] if batch.num_rows else []
            rows, size = rows + batch.num_rows, size + batch.nbytes
            if rows < GROUP_ROWS and size < GROUP_BYTES:
                continue
            yield encode_rows(pending, schema)
        pending, rows, size = [], 0, 0
    if pending:
        yield encode_rows(pending, schema)


def _metadata(extent: Extent, crs: pyproj.CRS, kind: str) -> dict[str, Any]:
    """Return the metadata of a GeoParquet file.

    Source: https://geoparquet.org/releases/v1.1.0
    """
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": [kind], "crs": _projjson(crs)}
    column["covering"] = {"bbox": {name: ["bbox", name] for name in BBOX_FIELDS}}
    if np.isfinite(extent.bounds).all():
        column["bbox"] = extent.bounds.tolist()
        column |= {"orientation": "counterclockwise"} if extent.counterclockwise else {}
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": column}}


def _projjson(crs: pyproj.CRS) -> dict[str, Any]:
    """Return PROJJSON that older readers accept: without the `id` that PROJ 9 gives to members of datum ensembles."""
    projjson: dict[str, Any] = crs.to_json_dict()
    pending: list[Any] = [projjson]
    while pending:
        node = pending.pop()
        for member in node.get("members", ()):
            member.pop("id", None)
        for value in node.values():
            inner = value if isinstance(value, list) else [value]  # a compound CRS has a list of components
            pending += [each for each in inner if isinstance(each, dict)]
    return projjson
