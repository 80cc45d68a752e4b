"""Whether a vector file that GDAL closed is whole."""

from __future__ import annotations

import os
import sqlite3
from contextlib import closing
from pathlib import Path

import pyogrio

from geopsp.errors import OutputError

HEAD = 100
"""Bytes of the head of both files of shapes."""


def verify_complete(place: Path, rows: int, *, driver: str) -> None:
    """A file that GDAL closed holds all rows: GDAL says nothing if the disk is full then.

    Raises:
        OutputError: if something is missing.
    """
    checks = {"GPKG": _indexed, "FlatGeobuf": _last_is_there, "GeoJSON": _closed, "ESRI Shapefile": _of_said_length}
    try:
        whole = checks[driver](place, rows)
    except (sqlite3.Error, RuntimeError) as error:
        raise OutputError(f"{place.name} cannot be written ({error}). Is the disk full?") from error
    if not whole:
        raise OutputError(f"{place.name} was cut off at its end. Is the disk full?")


def _indexed(place: Path, rows: int) -> bool:
    """The spatial index comes last, and has all rows."""
    with closing(sqlite3.connect(place)) as base:
        ((table, column),) = base.execute("SELECT table_name, column_name FROM gpkg_geometry_columns")
        index = f"rtree_{table}_{column}_rowid".replace('"', '""')
        found: int = base.execute(f'SELECT count(*) FROM "{index}"').fetchone()[0]  # noqa: S608
    return found == rows


def _last_is_there(place: Path, rows: int) -> bool:
    return not rows or len(pyogrio.read_dataframe(place, skip_features=rows - 1, columns=[])) == 1


def _closed(place: Path, _: int) -> bool:
    with place.open("rb") as file:
        file.seek(-2, 2)
        return file.read() == b"}\n"


def _of_said_length(place: Path, rows: int) -> bool:
    """Both files of shapes tell their length in words of two bytes, the table that of its head and of a row."""
    shapes, index = place, place.with_suffix(".shx")
    for part in (shapes, index):
        with part.open("rb") as file:
            if int.from_bytes(file.read(28)[24:], "big") * 2 != part.stat().st_size:
                return False
    sizes = {part: part.stat().st_size for part in place.parent.iterdir()}
    if not all(sizes.values()) or sizes[index] != HEAD + 8 * rows or (sizes[shapes] > HEAD) != (rows > 0):
        return False
    with place.with_suffix(".dbf").open("rb") as file:
        head = file.read(12)
        count, start, length = (int.from_bytes(head[i:j], "little") for i, j in ((4, 8), (8, 10), (10, 12)))
        return count == rows and os.fstat(file.fileno()).st_size >= start + count * length
