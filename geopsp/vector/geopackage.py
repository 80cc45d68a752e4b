"""GeoPackages of one layer and tables without geometry, written whole and read table by table."""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import geopandas as gpd
import pandas as pd
import pyarrow as pa
import pyogrio
import pyproj

from geopsp.core.addresses import ending_of
from geopsp.core.argument_names import did_you_mean
from geopsp.core.file_endings import require_ending
from geopsp.core.full_disk import full_disk_hint
from geopsp.core.output import atomic_files
from geopsp.core.paths import describe_bad_input
from geopsp.core.remote_input import input_path
from geopsp.core.text import format_error
from geopsp.errors import InputNotFoundError, LabelError, OutputError
from geopsp.vector.endless_query import require_views_end
from geopsp.vector.formats import format_of
from geopsp.vector.layer import EXACT_INTEGERS, read_errors
from geopsp.vector.qgis_style import add_qml
from geopsp.vector.verbatim_path import path_to_read, plain_folder, plain_name
from geopsp.vector.verify import verify_complete
from geopsp.vector.write import check_vector_output

ENDING = ".gpkg"


UNSYNCED = {"OGR_SQLITE_SYNCHRONOUS": "OFF"}
"""GDAL's option not to wait for the disk: a finished file is forced onto it as a whole."""


def check_package_output(out: str | Path, *, overwrite: bool = False) -> Path:
    """Check that a GeoPackage can be written to a file, and return the path with links resolved.

    Raises:
        OptionError: if its name has another ending.
        OutputError: as `check_vector_output`.
    """
    require_ending(out, ENDING)
    return check_vector_output(out, overwrite=overwrite)


def write_package(
    out: str | Path,
    layer: gpd.GeoDataFrame,
    name: str,
    *,
    schema: pa.Schema,
    tables: Mapping[str, pa.Table],
    description: str,
    qml: str = "",
    overwrite: bool = False,
) -> Path:
    """Write a layer and tables without geometry as a new GeoPackage, and return its path.

    Args:
        out: The file; it ends in .gpkg.
        layer: Features of one type of geometry, with a CRS.
        name: The name of the layer.
        schema: Types of the columns of the layer, without its geometry, in their order.
        tables: Tables without geometry, by name.
        description: Of the layer.
        qml: The layer's default style and form for QGIS; "": none.
        overwrite: True to replace `out`.

    Raises:
        OptionError: if `out` has another ending.
        OutputError: if it exists and `overwrite` is False, or cannot be written.
    """
    out = check_package_output(out, overwrite=overwrite)
    package = format_of(out)
    with new_package(out, overwrite=overwrite) as path:
        with _unsynced():
            _write_layer(path, layer, name, schema, description, dict(package.file_options))
            for table, rows in tables.items():
                pyogrio.write_arrow(rows, path, layer=table, driver=package.driver, append=True)
        verify_complete(path, len(layer), package.is_complete)
        if qml:
            add_qml(path, qml, name=name, description=description)
    return out


@contextmanager
def new_package(out: Path, *, overwrite: bool) -> Iterator[Path]:
    """Give the path of a new file to write, which appears as `out` whole, or after an error not at all.

    Raises:
        OutputError: if `out` exists and `overwrite` is False, or GDAL or SQLite cannot write the file.
    """
    package = format_of(out)
    with (
        atomic_files(out, overwrite=overwrite, companions=package.companions(out)) as partial,
        plain_folder(partial.parent) as folder,
    ):
        path = folder / plain_name(partial.name)
        try:
            yield path
        except (RuntimeError, ValueError, sqlite3.Error) as error:
            hint = full_disk_hint(error, path)
            raise OutputError(f"Cannot write {out.name}: {format_error(error)}.{hint}") from error
        if path.name != partial.name:
            path.replace(folder / partial.name)


@contextmanager
def _unsynced() -> Iterator[None]:
    """Set GDAL's option, which all threads share, for a while; not if the user set it."""
    if any(pyogrio.get_gdal_config_option(name) is not None for name in UNSYNCED):
        yield
        return
    pyogrio.set_gdal_config_options(UNSYNCED)
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options(dict.fromkeys(UNSYNCED))


def _write_layer(
    path: Path, layer: gpd.GeoDataFrame, name: str, schema: pa.Schema, description: str, file_options: dict[str, Any]
) -> None:
    """Write the layer as the first of a new file."""
    table = pa.Table.from_pandas(pd.DataFrame(layer[schema.names]), schema, preserve_index=False)
    shapes = pa.array(layer.geometry.to_wkb(), pa.binary())
    geometry = pa.field("geometry", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})
    kinds = set(layer.geom_type) or {"Point"}
    assert len(kinds) == 1, kinds
    pyogrio.write_arrow(
        table.append_column(geometry, shapes),
        path,
        layer=name,
        driver="GPKG",
        geometry_name="geometry",
        geometry_type=kinds.pop(),
        crs=pyproj.CRS.from_user_input(layer.crs).to_wkt(version="WKT2_2019"),
        dataset_options=file_options,
        layer_options={"DESCRIPTION": description},
    )


def read_package(path: str | Path, layers: Sequence[str], needed: str) -> dict[str, gpd.GeoDataFrame | pd.DataFrame]:
    """Read layers and tables of a GeoPackage by name; those without geometry as DataFrames.

    Args:
        path: The file.
        layers: Names of what is read.
        needed: What the file must be, for messages, e.g. "a sample of `draw_sample()`".

    Raises:
        InputNotFoundError: if there is no such file.
        LabelError: if it is no GeoPackage, one of the layers is missing, or the file is damaged.
    """
    text = str(input_path(path))
    if problem := describe_bad_input(text):
        raise LabelError(problem)
    if not Path(text).exists():
        raise InputNotFoundError(f"No such file: {path}. Check the path.")
    require_views_end(text)
    with path_to_read(text) as opened, warnings.catch_warnings(action="ignore", category=UserWarning):
        try:
            found = [str(name) for name in pyogrio.list_layers(opened)[:, 0]]
        except (pyogrio.errors.DataSourceError, RuntimeError) as error:
            raise LabelError(f"{path} is not {needed}: it cannot be read ({format_error(error)}).") from error
        if missing := [name for name in layers if name not in found]:
            raise LabelError(
                f"{path} is not {needed}: it has no layer or table {missing[0]!r} (it has {', '.join(found)})."
                f"{did_you_mean(missing[0], found)} Was it exported from one? Use the file as it was written."
            )
        return {name: _read_layer(opened, name, text) for name in layers}


def _read_layer(path: str, name: str, source: str) -> gpd.GeoDataFrame | pd.DataFrame:
    with read_errors(f"{source} (layer {name})"):
        options: dict[str, Any] = {"use_arrow": True, "arrow_to_pandas_kwargs": EXACT_INTEGERS}
        frame: gpd.GeoDataFrame | pd.DataFrame = pyogrio.read_dataframe(path, layer=name, **options)
    return frame


def has_tables(path: str | Path, names: Sequence[str]) -> bool:
    """Return True if a file is a GeoPackage that has all these layers or tables.

    Raises:
        InputNotFoundError: if it is at an address, and cannot be read.
    """
    if ending_of(path) != ENDING:
        return False
    file = input_path(path)
    if not file.is_file():
        return False
    try:
        with path_to_read(str(file)) as opened:
            return set(names) <= {str(name) for name in pyogrio.list_layers(opened)[:, 0]}
    except (pyogrio.errors.DataSourceError, RuntimeError):
        return False
