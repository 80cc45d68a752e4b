"""Polygons as GeoParquet 1.1, group after group, with a column of bounding boxes."""

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

ROWS, BYTES = 50_000, 2**28
"""Polygons in a row group, and what may be held until there are so many."""


SIDES = ("xmin", "ymin", "xmax", "ymax")


BOX = pa.struct([pa.field(side, pa.float64(), nullable=False) for side in SIDES])


REPEATING = ["code", "name", "color"]
"""Columns of few values, which are worth a dictionary."""


@dataclass(slots=True, eq=False)
class _Extent:
    """What is known of the shapes so far."""

    bounds: NDArray[np.float64]
    """Left, bottom, right, top."""

    counterclockwise: bool = True
    """True while all shells ran so, and all holes the other way."""

    def add(self, shapes: NDArray[np.object_], boxes: NDArray[np.float64]) -> None:
        self.bounds[:2] = np.minimum(self.bounds[:2], boxes[:, :2].min(axis=0))
        self.bounds[2:] = np.maximum(self.bounds[2:], boxes[:, 2:].max(axis=0))
        polygons: Any = shapely.get_parts(shapes)
        rings, owner = shapely.get_rings(polygons, return_index=True)
        shells = np.diff(owner, prepend=-1) > 0
        self.counterclockwise &= bool((shapely.is_ccw(rings) == shells).all())


def write_parquet(
    batches: Iterator[pa.RecordBatch], schema: pa.Schema, path: Path, *, crs: pyproj.CRS, kind: str
) -> None:
    """The batches are a GeoParquet file, with columns as in the schema and `bbox`.

    Args:
        batches: With a column `geometry` of WKB.
        schema: Of the batches.
        path: The file to make.
        crs: Of the geometries.
        kind: "Polygon" or "MultiPolygon".
    """
    columns = pa.schema([*(field.remove_metadata() for field in schema), pa.field("bbox", BOX, nullable=False)])
    extent = _Extent(np.array([np.inf, np.inf, -np.inf, -np.inf]))
    repeating = [name for name in REPEATING if name in schema.names]
    options = {"compression": "zstd", "use_dictionary": repeating}
    # Arrow's copy of the schema is written first: readers that trust it would miss what is only known at the end
    with pq.ParquetWriter(path, columns, **options, store_schema=False) as writer:
        for group in _groups(batches):
            boxed = [pa.record_batch([*batch.columns, _boxes(batch, extent)], schema=columns) for batch in group]
            writer.write_table(pa.Table.from_batches(boxed, columns), row_group_size=ROWS)
        writer.add_key_value_metadata({"geo": json.dumps(_metadata(extent, crs, kind))})


def _groups(batches: Iterator[pa.RecordBatch]) -> Iterator[list[pa.RecordBatch]]:
    held: list[pa.RecordBatch] = []
    for batch in batches:
        held.append(batch)
        if sum(part.num_rows for part in held) >= ROWS or sum(part.nbytes for part in held) >= BYTES:
            yield held
            held = []
    if held:
        yield held


def _boxes(batch: pa.RecordBatch, extent: _Extent) -> pa.Array:
    shapes: Any = shapely.from_wkb(batch.column("geometry").to_numpy(zero_copy_only=False))
    boxes: Any = shapely.bounds(shapes)
    if len(boxes):
        extent.add(shapes, boxes)
    return pa.StructArray.from_arrays(list(map(pa.array, boxes.T)), fields=list(BOX))


def _metadata(extent: _Extent, crs: pyproj.CRS, kind: str) -> dict[str, Any]:
    """What a GeoParquet file says of itself.

    Source: https://geoparquet.org/releases/v1.1.0
    """
    about: dict[str, Any] = {"encoding": "WKB", "geometry_types": [kind], "crs": _projjson(crs)}
    about["covering"] = {"bbox": {side: ["bbox", side] for side in SIDES}}
    if np.isfinite(extent.bounds).all():
        about["bbox"] = extent.bounds.tolist()
        about |= {"orientation": "counterclockwise"} if extent.counterclockwise else {}
    return {"version": "1.1.0", "primary_column": "geometry", "columns": {"geometry": about}}


def _projjson(crs: pyproj.CRS) -> dict[str, Any]:
    """PROJJSON that older readers know too: members of datum ensembles came to have an `id` in PROJ 9."""
    found: dict[str, Any] = crs.to_json_dict()
    waiting: list[Any] = [found]
    while waiting:
        part = waiting.pop()
        for member in part.get("members", ()):
            member.pop("id", None)
        for value in part.values():
            inner = value if isinstance(value, list) else [value]  # a compound CRS has a list of its parts
            waiting += [each for each in inner if isinstance(each, dict)]
    return found
