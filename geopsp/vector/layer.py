"""Vector layers of any format, read whole or by bounding box."""

from __future__ import annotations

import hashlib
import sqlite3
import warnings
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyogrio
import pyproj
import shapely

from geopsp.core.paths import file_fingerprint, file_size
from geopsp.errors import GeopspError, LabelError

# Only areas count. For good, as a filter that is set for a while is not safe among threads.
warnings.filterwarnings("ignore", message="Measured .M. geometry types")


READ_WHOLE_BYTES = 64 * 2**20
"""Bytes up to which a file is read whole and kept."""


READ_WHOLE_UNINDEXED_BYTES = 16 * READ_WHOLE_BYTES
"""Bytes up to which a file without a spatial index is read whole, as each bounding box would read all of it."""


Box = tuple[float, float, float, float]
"""(left, bottom, right, top)"""


class VectorLayer(Protocol):
    """Features that can be read whole or by bounding box."""

    @property
    def source(self) -> str:
        """The words that name it."""

    @property
    def crs(self) -> pyproj.CRS | None: ...

    @property
    def fields(self) -> tuple[str, ...]: ...

    @property
    def reads_by_bbox(self) -> bool:
        """True if it is too large to be read whole."""

    @property
    def notes(self) -> tuple[str, ...]: ...

    def read(
        self, columns: Sequence[str] | None = None, *, box: Box | None = None, most: int | None = None
    ) -> gpd.GeoDataFrame:
        """Features, those that meet the box, `most` of them; the index says their place in the file, ascending."""

    def batches(self, column: str) -> Iterator[pd.Series]:
        """The column's values, some at a time."""

    def bounds(self) -> Box | None:
        """Of all features, also those that no query wants; None if it is not known."""

    def fingerprint(self) -> list[str]:
        """What tells this input from others."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameLayer:
    """A GeoDataFrame."""

    frame: gpd.GeoDataFrame
    where: str | None = None
    source: str = "the GeoDataFrame"
    reads_by_bbox: bool = False
    notes: tuple[str, ...] = ()

    @property
    def crs(self) -> pyproj.CRS | None:
        return None if self.frame.crs is None else pyproj.CRS.from_user_input(self.frame.crs)

    @property
    def fields(self) -> tuple[str, ...]:
        return _fields(self.frame)

    def read(
        self, columns: Sequence[str] | None = None, *, box: Box | None = None, most: int | None = None
    ) -> gpd.GeoDataFrame:
        frame = self.frame.set_index(pd.RangeIndex(len(self.frame)))
        chosen = filter_sql(frame, self.where, self.source)
        return (chosen if box is None else chosen.cx[box[0] : box[2], box[1] : box[3]])[:most]

    def batches(self, column: str) -> Iterator[pd.Series]:
        yield self.read()[column]

    def bounds(self) -> Box | None:
        return _box(self.frame.total_bounds)

    def fingerprint(self) -> list[str]:
        digest = hashlib.sha256(str(self.frame.crs).encode())
        for shape in shapely.to_wkb(self.frame.geometry.to_numpy()):
            digest.update(shape or b"-")
        table = self.frame.drop(columns=self.frame.geometry.name)
        digest.update(table.to_csv(index=False).encode())
        return [f"GeoDataFrame {digest.hexdigest()}"]


@dataclass(frozen=True, slots=True, eq=False)
class OgrLayer:
    """A layer of a file that GDAL reads."""

    path: str
    name: str
    where: str | None
    info: dict[str, Any]
    """As `pyogrio.read_info` tells it."""

    others: tuple[str, ...] = ()
    """Layers of the file that might as well have been meant."""

    @property
    def source(self) -> str:
        return f"{self.path} (layer {self.name})"

    @property
    def crs(self) -> pyproj.CRS | None:
        return pyproj.CRS.from_user_input(self.info["crs"]) if self.info["crs"] else None

    @property
    def fields(self) -> tuple[str, ...]:
        return tuple(map(str, self.info["fields"]))

    @property
    def indexed(self) -> bool:
        return bool(self.info["capabilities"]["fast_spatial_filter"])

    @property
    def reads_by_bbox(self) -> bool:
        size = file_size(self.path)
        if size is None:
            return not 0 <= self.info["features"] < READ_WHOLE_BYTES // 256
        return size > (READ_WHOLE_BYTES if self.indexed else READ_WHOLE_UNINDEXED_BYTES)

    @property
    def notes(self) -> tuple[str, ...]:
        size = file_size(self.path)
        notes = (f"{self.path} holds other layers too: {', '.join(self.others)}",) if self.others else ()
        if self.indexed or size is None or size <= READ_WHOLE_BYTES:
            return notes
        how = "each window reads all of it" if self.reads_by_bbox else "it is read whole"
        return (*notes, f"{self.path} ({size / 2**20:,.0f} MB) has no spatial index, so {how}; a GeoPackage is quicker")

    def read(
        self, columns: Sequence[str] | None = None, *, box: Box | None = None, most: int | None = None
    ) -> gpd.GeoDataFrame:
        with read_errors(self.source):
            frame = pyogrio.read_dataframe(
                self.path,
                layer=self.name,
                columns=self._read_for(columns),
                where=self.where,
                bbox=box,
                max_features=most,
                force_2d=True,
                fid_as_index=True,
            )
        return frame.sort_index(kind="stable")

    def batches(self, column: str) -> Iterator[pd.Series]:
        options = {"layer": self.name, "columns": self._read_for([column]), "where": self.where, "read_geometry": False}
        with read_errors(self.source), pyogrio.open_arrow(self.path, **options, use_pyarrow=True) as (_, reader):
            for batch in reader:
                yield batch.column(batch.schema.get_field_index(column)).to_pandas()

    def _read_for(self, columns: Sequence[str] | None) -> Sequence[str] | None:
        """None, all of them, where there is a query: GDAL takes a field that is not read for empty."""
        return None if self.where else columns

    def bounds(self) -> Box | None:
        with read_errors(self.source):
            return _box(pyogrio.read_info(self.path, layer=self.name, force_total_bounds=True)["total_bounds"])

    def fingerprint(self) -> list[str]:
        return file_fingerprint(self.path, self.name)


@dataclass(frozen=True, slots=True, eq=False)
class ParquetLayer:
    """A GeoParquet file; by bounding box where it has a column of boxes."""

    path: str
    where: str | None
    meta: dict[str, Any]
    """What the file says of its geometry column."""

    geometry: str
    columns: tuple[str, ...]

    @property
    def source(self) -> str:
        return self.path

    @property
    def crs(self) -> pyproj.CRS | None:
        found = self.meta.get("crs", "OGC:CRS84")
        return None if found is None else pyproj.CRS.from_user_input(found)

    @property
    def fields(self) -> tuple[str, ...]:
        return self.columns

    @property
    def indexed(self) -> bool:
        return "bbox" in self.meta.get("covering", {})

    @property
    def reads_by_bbox(self) -> bool:
        return self.indexed and Path(self.path).stat().st_size > READ_WHOLE_BYTES

    @property
    def notes(self) -> tuple[str, ...]:
        size = Path(self.path).stat().st_size
        if self.indexed or size <= READ_WHOLE_BYTES:
            return ()
        return (f"{self.path} ({size / 2**20:,.0f} MB) has no column of bounding boxes, so it is read whole",)

    def read(
        self, columns: Sequence[str] | None = None, *, box: Box | None = None, most: int | None = None
    ) -> gpd.GeoDataFrame:
        wanted = [*(self.columns if columns is None or self.where else columns), self.geometry]
        with read_errors(self.source):
            frame = gpd.read_parquet(self.path, columns=wanted, bbox=box)
        frame = frame.set_geometry(self.geometry).set_index(pd.RangeIndex(len(frame)))
        return filter_sql(frame, self.where, self.source)[:most]

    def batches(self, column: str) -> Iterator[pd.Series]:
        with read_errors(self.source), pq.ParquetFile(self.path) as file:
            for batch in file.iter_batches(columns=list(self.columns) if self.where else [column]):
                yield filter_sql(batch.to_pandas(), self.where, self.source)[column]

    def bounds(self) -> Box | None:
        found = self.meta.get("bbox")
        return _box(np.array(found)[[0, 1, len(found) // 2, len(found) // 2 + 1]]) if found else None

    def fingerprint(self) -> list[str]:
        return file_fingerprint(self.path, "")


def filter_sql(frame: pd.DataFrame, where: str | None, source: str) -> Any:
    """The rows that an SQL WHERE chooses.

    Raises:
        LabelError: if the query is wrong; names the fields.
    """
    if where is None:
        return frame
    table = pd.DataFrame(frame[[name for name in _fields(frame) if _plain(frame[name])]]).reset_index(drop=True)
    with closing(sqlite3.connect(":memory:")) as base:
        try:
            table.to_sql("labels", base, index_label="_row")
            rows = [row for (row,) in base.execute(f"SELECT _row FROM labels WHERE {where} ORDER BY _row")]  # noqa: S608
        except (sqlite3.Error, pd.errors.DatabaseError) as error:
            raise query_error(where, source, _fields(frame), error) from error
    return frame.iloc[rows]


def _plain(column: pd.Series) -> bool:
    """True if SQL knows what the column holds, as against lists or geometries."""
    inferred = pd.api.types.infer_dtype(column.dropna(), skipna=True)
    return column.dtype not in (object, "geometry") or inferred in {"string", "integer", "floating", "boolean", "empty"}


def query_error(where: str, source: str, fields: Sequence[str], error: Exception) -> LabelError:
    """What to say of a query that fails."""
    return LabelError(
        f"The query {where!r} does not fit {source} ({error}). It has the fields {', '.join(fields) or 'none'}; "
        "write it as SQL, e.g. \"height > 3 AND kind = 'barn'\"."
    )


@contextmanager
def read_errors(source: str) -> Iterator[None]:
    """Errors of the libraries become ours."""
    try:
        yield
    except GeopspError:
        raise
    except (RuntimeError, ValueError, OSError, KeyError, shapely.errors.ShapelyError) as error:
        raise LabelError(f"{source} cannot be read as polygons ({error}). Repair or export it again.") from error


def _fields(frame: pd.DataFrame) -> tuple[str, ...]:
    geometry = frame.active_geometry_name if isinstance(frame, gpd.GeoDataFrame) else None
    return tuple(str(name) for name in frame.columns if name != geometry)


def _box(bounds: Any) -> Box | None:
    if bounds is None or not np.isfinite(bounds).all():
        return None
    left, bottom, right, top = map(float, bounds)
    return left, bottom, right, top
