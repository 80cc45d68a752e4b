"""Write polygons as GeoParquet 1.1, one row group at a time, with a column of bounding boxes."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pyproj
import shapely
from numpy.typing import NDArray

GROUP_ROWS, GROUP_BYTES = 50_000, 2**28
"""Polygons in a row group, and bytes in memory at which a smaller one is written."""


BBOX_FIELDS = ("xmin", "ymin", "xmax", "ymax")


BBOX_TYPE = pa.struct([pa.field(name, pa.float64(), nullable=False) for name in BBOX_FIELDS])


DICTIONARY_COLUMNS = ["code", "name", "color"]
"""Columns of few values, which are stored with a dictionary."""


@dataclass(slots=True, eq=False)
class _Extent:
    """Bounds and direction of rings of the shapes so far."""

    bounds: NDArray[np.float64]
    """(4,) left, bottom, right, top."""

    counterclockwise: bool = True
    """True if all shells run counterclockwise, and all holes clockwise."""

    def add(self, shapes: NDArray[np.object_], boxes: NDArray[np.float64]) -> None:
        """Add shapes and their bounding boxes, (n, 4)."""
        self.bounds[:2] = np.minimum(self.bounds[:2], boxes[:, :2].min(axis=0))
        self.bounds[2:] = np.maximum(self.bounds[2:], boxes[:, 2:].max(axis=0))
        polygons: Any = shapely.get_parts(shapes)
        rings, owner = shapely.get_rings(polygons, return_index=True)
        shells = np.diff(owner, prepend=-1) > 0
        self.counterclockwise &= bool((shapely.is_ccw(rings) == shells).all())


def write_parquet(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path, *, crs: pyproj.CRS, kind: str
) -> None:
    """Write batches to a GeoParquet file, with the columns of the schema and `bbox`.

    Args:
        batches: With a column `geometry` of WKB.
        schema: Of the batches.
        path: The file.
        crs: Of the geometries.
        kind: "Polygon" or "MultiPolygon".
    """
    columns = pa.schema([*(field.remove_metadata() for field in schema), pa.field("bbox", BBOX_TYPE, nullable=False)])
    extent = _Extent(np.array([np.inf, np.inf, -np.inf, -np.inf]))
    dictionary = [name for name in DICTIONARY_COLUMNS if name in schema.names]
    options = {"compression": "zstd", "use_dictionary": dictionary}
    # without Arrow's copy of the schema: it is written first, and readers of it would miss metadata added at the end
    with path.open("wb") as file, pq.ParquetWriter(file, columns, **options, store_schema=False) as writer:
        for group in _groups(batches):
            with_boxes = [pa.record_batch([*batch.columns, _boxes(batch, extent)], schema=columns) for batch in group]
            writer.write_table(pa.Table.from_batches(with_boxes, columns), row_group_size=GROUP_ROWS)
        writer.add_key_value_metadata({"geo": json.dumps(_metadata(extent, crs, kind))})


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    """Yield the batches of each row group."""
    group: list[pa.RecordBatch] = []
    for batch in batches:
        group.append(batch)
        if sum(part.num_rows for part in group) >= GROUP_ROWS or sum(part.nbytes for part in group) >= GROUP_BYTES:
            yield group
            group = []
    if group:
        yield group


def _boxes(batch: pa.RecordBatch, extent: _Extent) -> pa.Array:
    """Return the bounding boxes of a batch, and add its shapes to the extent."""
    shapes: Any = shapely.from_wkb(batch.column("geometry").to_numpy(zero_copy_only=False))
    boxes: Any = shapely.bounds(shapes)
    if len(boxes):
        extent.add(shapes, boxes)
    return pa.StructArray.from_arrays(list(map(pa.array, boxes.T)), fields=list(BBOX_TYPE))


def _metadata(extent: _Extent, crs: pyproj.CRS, kind: str) -> dict[str, Any]:
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
