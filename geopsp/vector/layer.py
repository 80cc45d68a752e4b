"""Vector layers of any format, read whole or by bounding box."""

from __future__ import annotations

import hashlib
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
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
from geopsp.core.text import format_error
from geopsp.errors import GeopspError, LabelError
from geopsp.vector.query import field_names, filter_sql
from geopsp.vector.verbatim_path import absolute, path_to_read

# Polygons need no M values. Permanently, as changing filters for a while is not thread-safe.
warnings.filterwarnings("ignore", message="Measured .M. geometry types")


READ_WHOLE_BYTES = 64 * 2**20
"""Size up to which a file is read whole and kept in memory."""


READ_WHOLE_UNINDEXED_BYTES = 16 * READ_WHOLE_BYTES
"""The same for a file without a spatial index, which each bounding box would read in full."""


MAX_EXACT_FLOAT = 2**53
"""From here on, a float does not hold every whole number."""


EXACT_INTEGERS = {"integer_object_nulls": True}
"""Arrow's option to keep whole numbers beside nulls, instead of making floats of them."""


Box = tuple[float, float, float, float]
"""(left, bottom, right, top)"""


class VectorLayer(Protocol):
    """Features that can be read whole or by bounding box."""

    @property
    def source(self) -> str:
        """Its name in messages."""

    @property
    def crs(self) -> pyproj.CRS | None: ...

    @property
    def fields(self) -> tuple[str, ...]: ...

    @property
    def reads_by_bbox(self) -> bool:
        """True if the layer is too large to be read whole."""

    @property
    def notes(self) -> tuple[str, ...]:
        """Messages about the layer for the user."""

    def read(
        self, columns: Sequence[str] | None = None, *, box: Box | None = None, most: int | None = None
    ) -> gpd.GeoDataFrame:
        """Read features, at most `most` of those that intersect the box; the index is their position, ascending."""

    def batches(self, column: str) -> Iterator[pd.Series]:
        """Yield the values of a column in batches."""

    def bounds(self) -> Box | None:
        """Return the bounds of all features, whatever the query; None if they are unknown."""

    def fingerprint(self) -> list[str]:
        """Return texts that identify the input."""


@dataclass(frozen=True, slots=True, eq=False)
class FrameLayer:
    """A layer that is a GeoDataFrame."""

    frame: gpd.GeoDataFrame
    where: str | None = None
    """SQL condition that features must meet."""

    source: str = "the GeoDataFrame"
    reads_by_bbox: bool = False
    notes: tuple[str, ...] = ()

    @property
    def crs(self) -> pyproj.CRS | None:
        return None if self.frame.crs is None else pyproj.CRS.from_user_input(self.frame.crs)

    @property
    def fields(self) -> tuple[str, ...]:
        return field_names(named_index_as_columns(self.frame))

    def read(
        self, columns: Sequence[str] | None = None, *, box: Box | None = None, most: int | None = None
    ) -> gpd.GeoDataFrame:
        frame = named_index_as_columns(self.frame).set_index(pd.RangeIndex(len(self.frame)))
        features = filter_sql(frame, self.where, self.source)
        return _near(features, box)[:most]

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
    """SQL condition that features must meet."""

    info: dict[str, Any]
    """As returned by `pyogrio.read_info`."""

    others: tuple[str, ...] = ()
    """Other layers of the file, if none was named."""

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
    def has_index(self) -> bool:
        """True if the layer has a spatial index."""
        return bool(self.info["capabilities"]["fast_spatial_filter"])

    @property
    def reads_by_bbox(self) -> bool:
        size = file_size(self.path)
        if size is None:
            return not 0 <= self.info["features"] < READ_WHOLE_BYTES // 256
        return size > (READ_WHOLE_BYTES if self.has_index else READ_WHOLE_UNINDEXED_BYTES)

    @property
    def notes(self) -> tuple[str, ...]:
        size = file_size(self.path)
        notes = (f"{self.source} is used; the file has other layers: {', '.join(self.others)}",) if self.others else ()
        if self.has_index or size is None or size <= READ_WHOLE_BYTES:
            return notes
        how = "each window reads all of it" if self.reads_by_bbox else "it is read into memory"
        return (*notes, f"{self.path} ({size / 2**20:,.0f} MB) has no spatial index, so {how}; a GeoPackage is faster")

    def read(
        self, columns: Sequence[str] | None = None, *, box: Box | None = None, most: int | None = None
    ) -> gpd.GeoDataFrame:
        selection: dict[str, Any] = {"layer": self.name, "where": self.where, "bbox": box, "max_features": most}
        selection |= {"columns": self._columns_to_read(columns), "fid_as_index": True}
        with read_errors(self.source), path_to_read(self.path) as path, np.errstate(invalid="ignore"):  # of NaN
            frame = pyogrio.read_dataframe(path, **selection, force_2d=True, on_invalid="fix")
            if rounded := self._rounded_fields(frame):
                exact = pyogrio.read_dataframe(
                    path, **selection, read_geometry=False, use_arrow=True, arrow_to_pandas_kwargs=EXACT_INTEGERS
                )
                frame[rounded] = exact[rounded]
        return frame.sort_index(kind="stable")

    def _rounded_fields(self, frame: gpd.GeoDataFrame) -> list[str]:
        """Return the fields of whole numbers that became rounded floats, as they have nulls."""
        types = dict(zip(self.fields, self.info["dtypes"], strict=True))
        floats = [name for name in frame if types.get(name) == "int64" and frame[name].dtype.kind == "f"]
        return [name for name in floats if (frame[name].abs() >= MAX_EXACT_FLOAT).any()]

    def batches(self, column: str) -> Iterator[pd.Series]:
        options = {
            "layer": self.name,
            "columns": self._columns_to_read([column]),
            "where": self.where,
            "read_geometry": False,
        }
        with (
            read_errors(self.source),
            path_to_read(self.path) as path,
            pyogrio.open_arrow(path, **options, use_pyarrow=True) as (_, reader),
        ):
            for batch in reader:
                yield batch.column(batch.schema.get_field_index(column)).to_pandas(**EXACT_INTEGERS)

    def _columns_to_read(self, columns: Sequence[str] | None) -> Sequence[str] | None:
        """Return None (all) if there is a query: for GDAL, a field that is not read is empty."""
        return None if self.where else columns

    def bounds(self) -> Box | None:
        with read_errors(self.source), path_to_read(self.path) as path:
            return _box(pyogrio.read_info(path, layer=self.name, force_total_bounds=True)["total_bounds"])

    def fingerprint(self) -> list[str]:
        return file_fingerprint(self.path, self.name)


@dataclass(frozen=True, slots=True, eq=False)
class ParquetLayer:
    """A GeoParquet file, which is read by bounding box if it has a column of them."""

    path: str
    where: str | None
    """SQL condition that features must meet."""

    meta: dict[str, Any]
    """Metadata of the geometry column."""

    geometry: str
    """Name of the geometry column."""

    columns: tuple[str, ...]
    """Names of the other columns."""

    @property
    def source(self) -> str:
        return self.path

    @property
    def crs(self) -> pyproj.CRS | None:
        crs = self.meta.get("crs", "OGC:CRS84")
        return None if crs is None else pyproj.CRS.from_user_input(crs)

    @property
    def fields(self) -> tuple[str, ...]:
        return self.columns

    @property
    def has_index(self) -> bool:
        """True if the file has a column of bounding boxes."""
        return "bbox" in self.meta.get("covering", {})

    @property
    def reads_by_bbox(self) -> bool:
        return self.has_index and Path(self.path).stat().st_size > READ_WHOLE_BYTES

    @property
    def notes(self) -> tuple[str, ...]:
        size = Path(self.path).stat().st_size
        if self.has_index or size <= READ_WHOLE_BYTES:
            return ()
        return (f"{self.path} ({size / 2**20:,.0f} MB) has no column of bounding boxes, so it is read into memory",)

    def read(
        self, columns: Sequence[str] | None = None, *, box: Box | None = None, most: int | None = None
    ) -> gpd.GeoDataFrame:
        columns = self.columns if columns is None or self.where else columns
        with read_errors(self.source), np.errstate(invalid="ignore"):  # of NaN
            try:
                names = [*columns, self.geometry]
                bbox = box if self.has_index else None
                frame = gpd.read_parquet(absolute(self.path), columns=names, bbox=bbox, to_pandas_kwargs=EXACT_INTEGERS)
            except shapely.errors.ShapelyError:
                frame = self._read_invalid(columns)
        frame = named_index_as_columns(frame).set_geometry(self.geometry).set_index(pd.RangeIndex(len(frame)))
        return _near(filter_sql(frame, self.where, self.source), None if self.has_index else box)[:most]

    def _read_invalid(self, columns: Sequence[str]) -> gpd.GeoDataFrame:
        """Read a file with geometries that shapely refuses: None in place of those that it cannot even close."""
        frame = pq.read_table(absolute(self.path), columns=[*columns, self.geometry]).to_pandas(
            ignore_metadata=True, **EXACT_INTEGERS
        )
        shapes = shapely.from_wkb(frame[self.geometry].to_numpy(), on_invalid="fix")
        return gpd.GeoDataFrame(frame, geometry=gpd.GeoSeries(shapes, name=self.geometry, crs=self.crs))

    def batches(self, column: str) -> Iterator[pd.Series]:
        with read_errors(self.source), pq.ParquetFile(absolute(self.path)) as file:
            for batch in file.iter_batches(columns=list(self.columns) if self.where else [column]):
                table = batch.to_pandas(ignore_metadata=True, **EXACT_INTEGERS)
                yield filter_sql(table, self.where, self.source)[column]

    def bounds(self) -> Box | None:
        bbox = self.meta.get("bbox")  # of 4 numbers, or of 6 with z
        return _box(np.array(bbox)[[0, 1, len(bbox) // 2, len(bbox) // 2 + 1]]) if bbox else None

    def fingerprint(self) -> list[str]:
        return file_fingerprint(self.path, "")


@contextmanager
def read_errors(source: str) -> Iterator[None]:
    """Turn errors of the libraries into a `LabelError`."""
    try:
        yield
    except GeopspError:
        raise
    except (
        RuntimeError,
        ValueError,
        OSError,
        KeyError,
        TypeError,
        AttributeError,
        shapely.errors.ShapelyError,
    ) as error:
        raise LabelError(
            f"Cannot read polygons from {source}: {format_error(error)}. Repair the file, or export it again."
        ) from error


def named_index_as_columns(frame: gpd.GeoDataFrame) -> gpd.GeoDataFrame:
    """Return a table whose index, if it has a name of its own as after `dissolve`, is a column too."""
    names = [name for name in frame.index.names if name is not None and name not in frame.columns]
    return frame.reset_index(names) if names else frame


def _near(features: gpd.GeoDataFrame, box: Box | None) -> gpd.GeoDataFrame:
    """Return the features that intersect a box; all if it is None."""
    return features if box is None else features.cx[box[0] : box[2], box[1] : box[3]]


def _box(bounds: Any) -> Box | None:
    if bounds is None or not np.isfinite(bounds).all():
        return None
    left, bottom, right, top = map(float, bounds)
    return left, bottom, right, top
