"""Row groups of a GeoParquet file, encoded and compressed wherever their polygons are made."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from geopsp.vector.parquet_footer import Footer, RowGroupEntry, read_footer

GROUP_ROWS = 50_000
"""Polygons in a row group."""


PACKED_BYTES = 2**22
"""Bytes in memory from which on a batch becomes a row group of its own; smaller ones become one together."""


BBOX_FIELDS = ("xmin", "ymin", "xmax", "ymax")


BBOX_TYPE = pa.struct([pa.field(name, pa.float64(), nullable=False) for name in BBOX_FIELDS])


DICTIONARY_COLUMNS = ["code", "name", "color"]
"""Columns of few values, which are stored with a dictionary."""


@dataclass(frozen=True, slots=True, eq=False)
class Extent:
    """Bounds and direction of rings of some shapes."""

    bounds: NDArray[np.float64]
    """(4,) left, bottom, right, top; infinite without a shape."""

    counterclockwise: bool = True
    """True if all shells run counterclockwise, and all holes clockwise."""

    @classmethod
    def empty(cls) -> Self:
        return cls(np.array([np.inf, np.inf, -np.inf, -np.inf]))

    def union(self, other: Extent) -> Extent:
        """Return the extent of both."""
        low, high = np.minimum(self.bounds[:2], other.bounds[:2]), np.maximum(self.bounds[2:], other.bounds[2:])
        return Extent(np.concatenate([low, high]), self.counterclockwise and other.counterclockwise)


@dataclass(frozen=True, slots=True, eq=False)
class RowGroups:
    """Some rows as the file will hold them."""

    columns: Any
    """A buffer of the encoded columns."""

    entries: tuple[RowGroupEntry, ...]
    """Of the footer, if the columns lay behind the first four bytes of a file."""

    num_rows: int
    codes: frozenset[int]
    """Values of the column `code`."""

    extent: Extent


def file_columns(schema: pa.Schema) -> pa.Schema:
    """Return the columns of a file, with `bbox`, for batches of a schema."""
    return pa.schema([*(field.remove_metadata() for field in schema), pa.field("bbox", BBOX_TYPE, nullable=False)])


def encode_rows(batches: Sequence[pa.RecordBatch], schema: pa.Schema) -> RowGroups:
    """Encode batches, with a column `geometry` of WKB, as one row group, or as several if there are many rows."""
    columns, extent = file_columns(schema), Extent.empty()
    with_boxes = []
    for batch in batches:
        boxes, extent_of_batch = _boxes(batch)
        extent = extent.union(extent_of_batch)
        with_boxes.append(pa.record_batch([*batch.columns, boxes], schema=columns))
    table = pa.Table.from_batches(with_boxes, columns)
    content = _encode(table)
    footer = read_footer(memoryview(content))
    codes = frozenset(pc.unique(table.column("code")).to_pylist())
    return RowGroups(content.slice(4, footer.start - 4), footer.row_groups, table.num_rows, codes, extent)


def footer_of(schema: pa.Schema) -> Footer:
    """Return the footer of a file without rows."""
    return read_footer(memoryview(_encode(file_columns(schema).empty_table())))


def pack_rows(batch: pa.RecordBatch, schema: pa.Schema) -> pa.RecordBatch | RowGroups:
    """Return a batch as a row group if it is large enough for one."""
    return encode_rows([batch], schema) if batch.nbytes >= PACKED_BYTES else batch


def _encode(table: pa.Table) -> Any:
    """Return a buffer with a file of the rows."""
    dictionary = [name for name in DICTIONARY_COLUMNS if name in table.schema.names]
    options = {"compression": "zstd", "use_dictionary": dictionary}
    content = pa.BufferOutputStream()
    # without Arrow's copy of the schema: readers of it would miss metadata that the file has beside it
    with pq.ParquetWriter(content, table.schema, **options, store_schema=False) as writer:
        if table.num_rows:
            writer.write_table(table, row_group_size=GROUP_ROWS)
    return content.getvalue()


def _boxes(batch: pa.RecordBatch) -> tuple[pa.Array, Extent]:
    """Return the bounding boxes of a batch, and the extent of its shapes."""
    from geopsp.vector.wkb_boxes import boxes_of_wkb  # compiles, which most vector files never need

    boxes, counterclockwise = boxes_of_wkb(batch.column("geometry"))
    column = pa.StructArray.from_arrays(list(map(pa.array, boxes.T)), fields=list(BBOX_TYPE))
    if not len(boxes):
        return column, Extent.empty()
    bounds = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
    return column, Extent(bounds, counterclockwise)
