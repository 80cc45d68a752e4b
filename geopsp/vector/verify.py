"""Checks that a vector file is complete after GDAL closed it: GDAL reports no error if the disk is full then.

Each check takes the path and the number of rows written, and returns False if the file is cut off.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

from geopsp.core.full_disk import full_disk_hint
from geopsp.core.text import format_error
from geopsp.errors import OutputError

IsComplete = Callable[[Path, int], bool]


SHAPE_HEADER_BYTES = 100
"""Size of the header of .shp and .shx files."""


def verify_complete(path: Path, rows: int, is_complete: IsComplete) -> None:
    """Check that a closed file holds all rows.

    Raises:
        OutputError: if something is missing.
    """
    try:
        complete = is_complete(path, rows)
    except (sqlite3.Error, RuntimeError) as error:
        hint = full_disk_hint(error, path)
        raise OutputError(f"Cannot write {path.name}: {format_error(error)}.{hint}") from error
    if not complete:
        raise OutputError(f"{path.name} was cut off at its end.{full_disk_hint(path=path)}")


def last_feature_is_readable(path: Path, rows: int) -> bool:
    """True if the last feature can be read; works for most formats."""
    import pyogrio

    return not rows or len(pyogrio.read_dataframe(path, skip_features=rows - 1, columns=[])) == 1


def spatial_index_is_complete(path: Path, rows: int) -> bool:
    """True if the spatial index of a GeoPackage, which is written last, has all rows."""
    with closing(sqlite3.connect(path)) as base:
        ((table, column),) = base.execute("SELECT table_name, column_name FROM gpkg_geometry_columns")
        index = f"rtree_{table}_{column}_rowid".replace('"', '""')
        count: int = base.execute(f'SELECT count(*) FROM "{index}"').fetchone()[0]  # noqa: S608
    return count == rows


def json_is_closed(path: Path, _: int) -> bool:
    """True if a GeoJSON file ends in a closing brace."""
    with path.open("rb") as file:
        file.seek(-2, 2)
        return file.read() == b"}\n"


def shapefile_has_all_bytes(path: Path, rows: int) -> bool:
    """True if the three main files of a shapefile are as long as their headers say, and no other file is empty."""
    shapes, index = path, path.with_suffix(".shx")
    for part in (shapes, index):
        with part.open("rb") as file:
            if int.from_bytes(file.read(28)[24:], "big") * 2 != part.stat().st_size:  # stored in words of two bytes
                return False
    sizes = {part: part.stat().st_size for part in path.parent.iterdir()}
    has_shapes = sizes[shapes] > SHAPE_HEADER_BYTES
    if not all(sizes.values()) or sizes[index] != SHAPE_HEADER_BYTES + 8 * rows or has_shapes != (rows > 0):
        return False
    with path.with_suffix(".dbf").open("rb") as file:
        header = file.read(12)
        count, start, length = (int.from_bytes(header[i:j], "little") for i, j in ((4, 8), (8, 10), (10, 12)))
        return count == rows and os.fstat(file.fileno()).st_size >= start + count * length
