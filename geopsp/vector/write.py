"""Write batches of polygons to a file of any common format, which appears complete or not at all."""

from __future__ import annotations

import logging
import sqlite3
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeAlias

import pyarrow as pa
import pyarrow.compute as pc
import pyogrio
import pyproj
import shapely

from geopsp.core.addresses import local_path
from geopsp.core.full_disk import full_disk_hint
from geopsp.core.legend import ClassInfo
from geopsp.core.output import atomic_files, check_output, resolve_link, write_errors
from geopsp.core.text import format_error
from geopsp.errors import OptionError, OutputError
from geopsp.vector.antimeridian import WGS84, decimals, to_wgs84
from geopsp.vector.formats import GEOPARQUET, VectorFormat, format_of
from geopsp.vector.geoparquet import write_parquet
from geopsp.vector.qgis_style import add_style
from geopsp.vector.row_groups import RowGroups, pack_rows
from geopsp.vector.verbatim_path import plain_folder, plain_name
from geopsp.vector.verify import verify_complete

logger = logging.getLogger(__name__)

Rows: TypeAlias = pa.RecordBatch | RowGroups
"""Polygons on their way to a file; encoded already, if that can be done elsewhere."""


Pack: TypeAlias = Callable[[pa.RecordBatch], Rows]

WRITE_ROWS = 2_000
"""Polygons that are written at a time; other threads wait meanwhile."""


SQLITE_OPTIONS = {"OGR_SQLITE_PRAGMA": "page_size=16384,journal_mode=MEMORY"}
"""GDAL's options for a new GeoPackage: most polygons fit into a page; a file that fails is deleted, not repaired."""


INDEX_OPTIONS = {"OGR_GPKG_MAX_RAM_USAGE_RTREE": str(2**29)}
"""GDAL's options for spatial indices of GeoPackages, which it reads once: bytes that one takes, as its default is a
tenth of the machine's memory. 25 million polygons fit; beyond it the index is made on the disk, in twice the time."""


MULTIPOLYGON_HEADER = b"\x01\x06\x00\x00\x00\x01\x00\x00\x00"
"""Put before the WKB of a polygon, it makes a multipolygon of it."""


def check_vector_output(out: str | Path, *, overwrite: bool = False) -> Path:
    """Check that polygons can be written to a file, and return the path with links resolved.

    Raises:
        OptionError: if its ending is unknown, its name is reserved, or it is a link to a shapefile or to a file with
            another ending.
        OutputError: as `check_output`, or if a file that would belong to it exists and `overwrite` is False.
    """
    asked, out = local_path(out), resolve_link(out)
    vector_format = format_of(asked)
    is_link = asked != out
    if is_link and (asked.suffix.lower() != out.suffix.lower() or vector_format.companion_endings):
        raise OptionError(
            f"{asked} is a link to {out}. A link must have the ending of its target, and cannot stand for a format of "
            f"several files, such as a shapefile. Use {out}, or another name."
        )
    layer = vector_format.layer_name(out)
    if vector_format.reserved_names and vector_format.reserved_names.match(layer):
        raise OptionError(
            f"{out} would hold a layer named {layer}, which a {vector_format.name} reserves for tables of its "
            "own. Choose another name."
        )
    out = check_output(out, overwrite=overwrite, companions=vector_format.companions(out))
    with write_errors(out), plain_folder(out.parent):
        return out


def packing(out: str | Path, schema: pa.Schema, *, multi: bool = False) -> Pack:
    """Return a function that does for a batch what `write_vector` can leave to other threads and machines.

    Large batches of a GeoParquet file are encoded and compressed. Arguments as of `write_vector`, which takes what the
    function returns in place of the batch.
    """
    if format_of(out).driver != GEOPARQUET:
        return as_they_are
    return partial(_pack, schema=schema, multi=multi)


def as_they_are(batch: pa.RecordBatch) -> pa.RecordBatch:
    """Return the batch."""
    return batch


def _pack(batch: pa.RecordBatch, *, schema: pa.Schema, multi: bool) -> Rows:
    return pack_rows(_to_multipolygons(batch) if multi and batch.num_rows else batch, schema)


def write_vector(
    batches: Iterator[Rows],
    schema: pa.Schema,
    out: str | Path,
    *,
    crs: Any,
    legend: Iterable[ClassInfo],
    multi: bool = False,
    resolution: float = 1.0,
    overwrite: bool = False,
) -> set[int]:
    """Write batches of polygons, one after the other, in the format that the ending of `out` says.

    Args:
        batches: With a column `code`, and a column `geometry` of WKB (little-endian, x and y); perhaps packed, see
            `packing`. They are consumed while writing, and their errors are raised unchanged. Rings keep their
            direction (shells of south-up or mirrored rasters are clockwise), but for GeoJSON and shapefiles, which have
            rules for it.
        schema: Of the batches.
        out: The file.
        crs: As pyproj takes it; GeoJSON is always in WGS 84.
        legend: Classes for the style in a GeoPackage.
        multi: True to write all polygons as multipolygons.
        resolution: Side of the smallest squares that polygons are made of, in metres, which decides on decimals.
        overwrite: True to replace `out`.

    Returns:
        The codes that were written.

    Raises:
        OptionError: if the ending of `out` is unknown.
        OutputError: if `out` exists and `overwrite` is False, cannot be written, or cannot hold that much.
    """
    out = check_vector_output(out, overwrite=overwrite)
    vector_format = format_of(out)
    crs, kind = pyproj.CRS.from_user_input(crs), "MultiPolygon" if multi else "Polygon"
    slices = _slices(batches, multi=multi)
    with atomic_files(out, overwrite=overwrite, companions=vector_format.companions(out)) as partial:
        if vector_format.driver == GEOPARQUET:
            written = _WriteCount()
            write_parquet(written.watch(slices), schema, partial, crs=crs, kind=kind)
            return written.codes
        with plain_folder(partial.parent) as folder:
            path = folder / plain_name(partial.name)
            written = _write_layer(
                slices,
                schema,
                path,
                vector_format,
                layer=vector_format.layer_name(out),
                crs=crs,
                kind=kind,
                resolution=resolution,
            )
            verify_complete(path, written.rows, vector_format.is_complete)
            if vector_format.driver == "GPKG":
                _add_style(path, [info for info in legend if info.code in written.codes])
        for file in partial.parent.iterdir():
            file.replace(file.with_name(partial.stem + file.name.removeprefix(path.stem)))
    return written.codes


def _add_style(path: Path, legend: Iterable[ClassInfo]) -> None:
    """Add the style of the classes that were written."""
    try:
        add_style(path, legend)
    except sqlite3.Error as error:
        hint = full_disk_hint(error, path)
        raise OutputError(f"Cannot write {path.name}: {format_error(error)}.{hint}") from error


@dataclass(slots=True, eq=False)
class _WriteCount:
    """Rows and codes of the batches that GDAL consumed."""

    rows: int = 0
    codes: set[int] = field(default_factory=set)
    error: BaseException | None = None
    """Error of the batches, of which GDAL would keep only the message."""

    while_opening: ExitStack = field(default_factory=ExitStack)
    """Closed when GDAL asks for the first batch, which it does once its file is open."""

    def watch(self, batches: Iterator[Rows]) -> Iterator[Rows]:
        """Yield the batches and count them."""
        self.while_opening.close()
        try:
            for batch in batches:
                self.rows += batch.num_rows
                self.codes.update(
                    batch.codes if isinstance(batch, RowGroups) else pc.unique(batch.column("code")).to_pylist()
                )
                yield batch
        except (Exception, KeyboardInterrupt) as error:
            self.error = error
            raise


def _slices(batches: Iterator[Rows], *, multi: bool) -> Iterator[Rows]:
    """Yield the same rows, at most `WRITE_ROWS` at a time if they are not packed; as multipolygons if `multi`."""
    for batch in batches:
        if isinstance(batch, RowGroups):
            yield batch
            continue
        for first in range(0, batch.num_rows, WRITE_ROWS):
            rows = batch.slice(first, WRITE_ROWS)
            yield _to_multipolygons(rows) if multi else rows


def _to_multipolygons(batch: pa.RecordBatch) -> pa.RecordBatch:
    position = batch.schema.get_field_index("geometry")
    shapes = batch.column(position)
    is_multi = pc.starts_with(shapes, MULTIPOLYGON_HEADER[:2])
    if pc.all(is_multi).as_py():
        return batch  # without a copy, as they may be large
    header, separator = (pa.scalar(value, shapes.type) for value in (MULTIPOLYGON_HEADER, b""))
    promoted = pc.binary_join_element_wise(header, shapes, separator)
    shapes = pc.if_else(is_multi, shapes, promoted)
    return batch.set_column(position, batch.schema.field(position), shapes)


def _write_layer(
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    path: Path,
    vector_format: VectorFormat,
    *,
    layer: str,
    crs: pyproj.CRS,
    kind: str,
    resolution: float,
) -> _WriteCount:
    """Write by GDAL, and return what was written."""
    written = _WriteCount()
    schema, batches = _fit(schema, batches, path, vector_format, crs)
    layer_options = dict(vector_format.layer_options)
    if vector_format.is_wgs84:
        crs, layer_options["COORDINATE_PRECISION"] = WGS84, str(decimals(resolution))
    try:
        with written.while_opening:
            if vector_format.driver == "GPKG":
                _set_sqlite_options(written.while_opening)
            pyogrio.write_arrow(
                pa.RecordBatchReader.from_batches(schema, written.watch(batches)),
                path,
                layer=layer,
                driver=vector_format.driver,
                geometry_name="geometry",
                geometry_type=kind,
                crs=crs.to_wkt(version="WKT2_2019"),
                encoding=vector_format.encoding,
                dataset_options=dict(vector_format.file_options),
                layer_options=layer_options,
            )
    except (RuntimeError, ValueError) as error:
        hint = full_disk_hint(error, path) or vector_format.hint
        raise written.error or OutputError(f"Cannot write {path.name}: {format_error(error)}.{hint}") from error
    return written


def _set_sqlite_options(while_opening: ExitStack) -> None:
    """Set GDAL's options, which all threads share, some until the stack is closed; not if the user set them."""
    if all(pyogrio.get_gdal_config_option(name) is None for name in INDEX_OPTIONS):
        pyogrio.set_gdal_config_options(INDEX_OPTIONS)
    if all(pyogrio.get_gdal_config_option(name) is None for name in SQLITE_OPTIONS):
        while_opening.callback(pyogrio.set_gdal_config_options, dict.fromkeys(SQLITE_OPTIONS))
        pyogrio.set_gdal_config_options(SQLITE_OPTIONS)


def _fit(
    schema: pa.Schema, batches: Iterator[pa.RecordBatch], path: Path, vector_format: VectorFormat, crs: pyproj.CRS
) -> tuple[pa.Schema, Iterator[pa.RecordBatch]]:
    """Rename columns as the format needs it, and check the format's limits while the batches are consumed.

    Raises:
        OutputError: if the format cannot hold the CRS.
    """
    if vector_format.is_wgs84:
        _require_wgs84(crs, vector_format)
        batches = (_in_wgs84(batch, crs) for batch in batches)
    if vector_format.max_geometry_bytes is not None:
        batches = _check_geometry_bytes(batches, vector_format, vector_format.max_geometry_bytes)
    if vector_format.max_bytes is not None:
        batches = _check_bytes(batches, path, vector_format, vector_format.max_bytes)
    if vector_format.note:
        logger.info(vector_format.note)
    names = [vector_format.column_names.get(name, name) for name in schema.names]
    if names == schema.names:
        return schema, batches
    renamed = [f"{new} for {name}" for name, new in zip(schema.names, names, strict=True) if name != new]
    logger.info(f"Column names are shortened: {', '.join(renamed)}.")
    schema = pa.schema([column.with_name(name) for column, name in zip(schema, names, strict=True)])
    return schema, (batch.rename_columns(names) for batch in batches)


def _require_wgs84(crs: pyproj.CRS, vector_format: VectorFormat) -> None:
    try:
        pyproj.Transformer.from_crs(crs, "EPSG:4326")
    except pyproj.exceptions.ProjError as error:
        raise OutputError(
            f"Cannot transform {crs.name} to WGS 84, which a {vector_format.name} needs: {format_error(error)}. "
            "Write a GeoPackage."
        ) from error


def _in_wgs84(batch: pa.RecordBatch, crs: pyproj.CRS) -> pa.RecordBatch:
    """Return the rows with polygons in WGS 84, cut at the antimeridian."""
    position = batch.schema.get_field_index("geometry")
    shapes = to_wgs84(shapely.from_wkb(batch.column(position).to_numpy(zero_copy_only=False)), crs)
    column = pa.array(shapely.to_wkb(shapes, byte_order=1), batch.column(position).type)
    return batch.set_column(position, batch.schema.field(position), column)


def _check_geometry_bytes(
    batches: Iterator[pa.RecordBatch], vector_format: VectorFormat, most: int
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        longest = pc.max(pc.binary_length(batch.column("geometry"))).as_py()
        if longest > most:
            raise OutputError(
                f"A polygon takes {longest / 2**20:,.0f} MB, but a {vector_format.name} holds at most "
                f"{most / 2**20:,.0f} MB for one. "
                "Simplify the polygons with `simplify`, or write GeoParquet or FlatGeobuf."
            )
        yield batch


def _check_bytes(
    batches: Iterator[pa.RecordBatch], path: Path, vector_format: VectorFormat, most: int
) -> Iterator[pa.RecordBatch]:
    for batch in batches:
        size = max((file.stat().st_size for file in path.parent.iterdir()), default=0) + batch.nbytes
        if size > most:
            raise OutputError(
                f"The polygons take more than {most / 2**20:,.0f} MB, the size limit of a {vector_format.name}. "
                "Write a GeoPackage or GeoParquet."
            )
        yield batch
