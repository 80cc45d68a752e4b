"""Batches of polygons as a file of any common format, which appears whole or not at all."""

from __future__ import annotations

import logging
import os
import re
import shutil
import sqlite3
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyogrio
import pyproj

from geopsp.core.legend import Legend
from geopsp.core.output import check_output, partial_path, resolve_link
from geopsp.errors import GeopspError, OptionError, OutputError
from geopsp.vector.geoparquet import write_parquet
from geopsp.vector.qgis_style import add_style
from geopsp.vector.verify import verify_complete

logger = logging.getLogger(__name__)

DRIVERS = {
    ".gpkg": "GPKG", ".parquet": "GeoParquet", ".fgb": "FlatGeobuf", ".geojson": "GeoJSON", ".json": "GeoJSON",
    ".shp": "ESRI Shapefile",
}  # fmt: skip
"""Vector formats by the ending of the file."""


OPTIONS = {
    "GPKG": {"DESCRIPTION": "Polygons of classes, made with geopsp"},
    "FlatGeobuf": {},
    "GeoJSON": {"RFC7946": "YES"},
    "ESRI Shapefile": {"2GB_LIMIT": "YES"},
}


HINTS = dict.fromkeys(OPTIONS, "Is the disk full?") | {
    "GeoJSON": "Is the disk full, or has a corner no longitude and latitude, as GeoJSON needs? Then write a GeoPackage."
}
"""What to look for where GDAL cannot write."""


WRITE_ROWS = 2_000
"""Polygons that are written at a time: other threads stand still meanwhile."""


SQLITE = {"OGR_SQLITE_PRAGMA": "page_size=16384,journal_mode=MEMORY"}
"""GDAL's options for a new GeoPackage: most polygons fit into a page; a file that fails is thrown away, not mended."""


MAX_GPKG_BYTES = 10**9 - 2**10
"""Bytes of the largest geometry that SQLite takes, but for the header."""


SHAPEFILE = 2**31 - 2**20
"""Bytes up to which all programs read a file of a shapefile."""


SHAPEFILE_NAMES = {"perimeter_m": "perimeter", "edge_unsure": "unsure"}
"""Names of columns of more than ten characters, as a shapefile has them."""


LOGS = ("-wal", "-shm", "-journal")
"""What SQLite puts beside a file, after its name; left over, it would spoil the next file of that name."""


SIDECARS = (".shx", ".dbf", ".prj", ".cpg", ".qix", ".sbn", ".sbx", ".shp.xml")
"""What belongs to a shapefile."""


RESERVED = re.compile("layer_styles$|gpkg|sqlite_|rtree_", re.IGNORECASE)
"""Names of tables that a GeoPackage keeps for itself."""


MULTI = b"\x01\x06\x00\x00\x00\x01\x00\x00\x00"
"""What makes the WKB of a polygon that of a multipolygon, written before it."""


def check_vector_output(out: str | Path, *, overwrite: bool = False) -> Path:
    """The path, where polygons may now be written.

    Raises:
        OptionError: if its ending is unknown, its name is one that a GeoPackage keeps for itself, or it is a link to a
            shapefile, or to what ends otherwise.
        OutputError: as `check_output`, or if a file exists that would belong to it and `overwrite` is False.
    """
    asked, out = Path(out), resolve_link(out)
    if asked != out and (asked.suffix.lower() != out.suffix.lower() or asked.suffix.lower() == ".shp"):
        raise OptionError(
            f"{asked} is a link to {out}; needed the place itself where that ends otherwise, or is a shapefile's, of "
            f"which each part would need a link. Name {out}, or another one."
        )
    if out.suffix.lower() not in DRIVERS:
        raise OptionError(f"{out} ends in {out.suffix or 'nothing'!r}; needed one of {', '.join(DRIVERS)}.")
    if DRIVERS[out.suffix.lower()] == "GPKG" and RESERVED.match(out.stem):
        raise OptionError(
            f"{out} would hold a layer named {out.stem}, and a GeoPackage keeps this name, like all that begin with "
            "gpkg, sqlite_ or rtree_, for tables of its own. Choose another name."
        )
    found = check_output(out, overwrite=overwrite)
    _require_free(out, overwrite=overwrite)
    return found


def _require_free(out: Path, *, overwrite: bool) -> None:
    """What belongs to a file is replaced or removed with it; lying there without it, it may be somebody's."""
    there = [path.name for path in _belonging(out) if os.path.lexists(path)]
    if there and not overwrite:
        raise OutputError(
            f"{out} would replace or remove what already exists beside it ({', '.join(there)}). Choose another name, "
            "or overwrite it (overwrite=True, --overwrite)."
        )


def write_vector(
    batches: Iterator[pa.RecordBatch],
    schema: pa.Schema,
    out: str | Path,
    *,
    crs: Any,
    legend: Legend,
    multi: bool = False,
    overwrite: bool = False,
) -> None:
    """The batches are a file of the format that the ending of `out` says, one written after the other.

    Args:
        batches: With a column `code`, and a column `geometry` of WKB (little-endian, x and y); made as they are
            written, and none is kept. What is raised there comes out as it is. Rings stay as they run
            (shells of south-up or mirrored rasters clockwise), but in GeoJSON and shapefiles, which have rules for it.
        schema: Of the batches.
        out: The file.
        crs: As pyproj takes it; GeoJSON is always in WGS 84.
        legend: Of all codes that may occur, for the style in a GeoPackage.
        multi: True if there may be multipolygons; then all are.
        overwrite: True if `out` may be replaced.

    Raises:
        OptionError: if the ending of `out` is unknown.
        OutputError: if `out` exists and `overwrite` is False, or cannot be written, or cannot hold so much.
    """
    plane, kind = pyproj.CRS.from_user_input(crs), "MultiPolygon" if multi else "Polygon"
    pieces = _pieces(batches, multi=multi)
    with _staged(Path(out), overwrite=overwrite) as place:
        if DRIVERS[place.suffix] == "GeoParquet":
            write_parquet(pieces, schema, place, crs=plane, kind=kind)
            return
        passed = _write_layer(pieces, schema, place, crs=plane, kind=kind)
        verify_complete(place, passed.rows, driver=DRIVERS[place.suffix])
        if DRIVERS[place.suffix] == "GPKG":
            add_style(place, Legend(tuple(info for info in legend if info.code in passed.codes)))


@dataclass(slots=True, eq=False)
class _WriteCount:
    """What went by on its way into a file."""

    rows: int = 0
    codes: set[int] = field(default_factory=set)
    error: BaseException | None = None
    """What ended it, of which GDAL would keep nothing but words."""
    opening: ExitStack = field(default_factory=ExitStack)
    """Closed when GDAL asks for the first, which it does when its file is open."""

    def along(self, batches: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
        self.opening.close()
        try:
            for batch in batches:
                self.rows += batch.num_rows
                self.codes.update(pc.unique(batch.column("code")).to_pylist())
                yield batch
        except (Exception, KeyboardInterrupt) as error:
            self.error = error
            raise


def _pieces(batches: Iterator[pa.RecordBatch], *, multi: bool) -> Iterator[pa.RecordBatch]:
    """The same rows, few at a time; all of them multipolygons if there may be some."""
    for batch in batches:
        for first in range(0, batch.num_rows, WRITE_ROWS):
            piece = batch.slice(first, WRITE_ROWS)
            yield _promoted(piece) if multi else piece


def _promoted(batch: pa.RecordBatch) -> pa.RecordBatch:
    place = batch.schema.get_field_index("geometry")
    shapes = batch.column(place)
    before, nothing = (pa.scalar(value, shapes.type) for value in (MULTI, b""))
    promoted = pc.binary_join_element_wise(before, shapes, nothing)
    chosen = pc.if_else(pc.starts_with(shapes, MULTI[:2]), shapes, promoted)
    return batch.set_column(place, batch.schema.field(place), chosen)


def _write_layer(
    pieces: Iterator[pa.RecordBatch], schema: pa.Schema, place: Path, *, crs: pyproj.CRS, kind: str
) -> _WriteCount:
    """Writes by GDAL, and tells what was written."""
    driver, passed = DRIVERS[place.suffix], _WriteCount()
    if driver == "GeoJSON":
        _require_earth(crs)
    elif driver == "GPKG":
        pieces = _within_blobs(pieces)
    elif driver == "ESRI Shapefile":
        schema, pieces = _shortened(schema), _within_shapefile(pieces, place)
    try:
        with passed.opening:
            if driver == "GPKG":
                _fast_sqlite(passed.opening)
            pyogrio.write_arrow(
                pa.RecordBatchReader.from_batches(schema, passed.along(pieces)),
                place,
                layer=place.stem,
                driver=driver,
                geometry_name="geometry",
                geometry_type=kind,
                crs=crs.to_wkt(version="WKT2_2019"),
                encoding="UTF-8" if driver == "ESRI Shapefile" else None,
                layer_options=OPTIONS[driver],
            )
    except (RuntimeError, ValueError) as error:
        raise passed.error or OutputError(f"{place.name} cannot be written ({error}). {HINTS[driver]}") from error
    return passed


def _fast_sqlite(opening: ExitStack) -> None:
    """GDAL opens databases of all threads with SQLITE, unless the user set that option, until the stack is closed."""
    if all(pyogrio.get_gdal_config_option(name) is None for name in SQLITE):
        opening.callback(pyogrio.set_gdal_config_options, dict.fromkeys(SQLITE))
        pyogrio.set_gdal_config_options(SQLITE)


def _require_earth(crs: pyproj.CRS) -> None:
    try:
        pyproj.Transformer.from_crs(crs, "EPSG:4326")
    except pyproj.exceptions.ProjError as error:
        raise OutputError(
            f"{crs.name} cannot be turned into WGS 84 ({error}), in which GeoJSON always is. Write a GeoPackage."
        ) from error


def _within_blobs(pieces: Iterator[pa.RecordBatch]) -> Iterator[pa.RecordBatch]:
    for piece in pieces:
        longest = pc.max(pc.binary_length(piece.column("geometry"))).as_py()
        if longest > MAX_GPKG_BYTES:
            raise OutputError(
                f"A polygon takes {longest / 2**20:,.0f} MB; a GeoPackage holds "
                f"{MAX_GPKG_BYTES / 2**20:,.0f} MB at most. "
                "Simplify it (simplify=, --simplify), or write GeoParquet or FlatGeobuf."
            )
        yield piece


def _shortened(schema: pa.Schema) -> pa.Schema:
    """The schema under the names that a shapefile has; a note says what else it cannot hold."""
    renamed = [f"{SHAPEFILE_NAMES[name]} for {name}" for name in schema.names if name in SHAPEFILE_NAMES]
    logger.info(
        f"Note: a shapefile has short names of columns ({', '.join(renamed) or 'all fit'}), numbers of 15 digits, "
        "names of classes of up to 254 bytes, and files of up to 2 GB. A GeoPackage has no such limits."
    )
    return pa.schema([column.with_name(SHAPEFILE_NAMES.get(column.name, column.name)) for column in schema])


def _within_shapefile(pieces: Iterator[pa.RecordBatch], place: Path) -> Iterator[pa.RecordBatch]:
    for piece in pieces:
        size = max((part.stat().st_size for part in place.parent.iterdir()), default=0) + piece.nbytes
        if size > SHAPEFILE:
            raise OutputError(
                f"The polygons take more than the {SHAPEFILE / 2**20:,.0f} MB that a file of a shapefile holds. "
                "Write a GeoPackage or GeoParquet."
            )
        yield piece.rename_columns([SHAPEFILE_NAMES.get(name, name) for name in piece.schema.names])


@contextmanager
def _staged(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """A place in a folder of its own beside `out`; the files of that folder go there when the block ends well."""
    out = check_vector_output(out, overwrite=overwrite)
    folder = partial_path(out)
    place = folder / f"{out.stem}{out.suffix.lower()}"
    try:
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        yield place
        _publish(place, out)
    except GeopspError:
        raise
    except (OSError, sqlite3.Error) as error:
        raise OutputError(f"{out} cannot be written ({error}). Is the disk full, or the place read-only?") from error
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _publish(place: Path, out: Path) -> None:
    """What belongs to an older file goes first, the file that makes it one comes last."""
    parts = [part for part in place.parent.iterdir() if part != place]
    if parts:
        out.unlink(missing_ok=True)
    for old in _belonging(out):
        old.unlink(missing_ok=True)
    for part in parts:
        part.replace(out.with_name(part.name))
    place.replace(out)


def _belonging(out: Path) -> list[Path]:
    driver = DRIVERS[out.suffix.lower()]
    logs = [out.with_name(out.name + end) for end in LOGS if driver == "GPKG"]
    return logs + [out.with_suffix(end) for end in SIDECARS if driver == "ESRI Shapefile"]
