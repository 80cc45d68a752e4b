"""Find, open and read the vector layer that a user names."""

from __future__ import annotations

import json
import re
import warnings
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import geopandas as gpd
import pyarrow.parquet as pq
import pyogrio
import pyproj

from geopsp.core.addresses import ending_of, remote_address
from geopsp.core.argument_names import did_you_mean
from geopsp.core.paths import describe_bad_input, is_url_or_vsi
from geopsp.core.remote_input import find_folder, input_path
from geopsp.core.text import format_error
from geopsp.core.time_limit import limit_servers
from geopsp.errors import InputNotFoundError, LabelError, OptionError
from geopsp.vector.endless_query import require_query_ends, require_views_end
from geopsp.vector.layer import (
    FrameLayer,
    OgrLayer,
    ParquetLayer,
    VectorLayer,
    named_index_as_columns,
    read_errors,
)
from geopsp.vector.query import query_error
from geopsp.vector.verbatim_path import absolute, path_to_read

UNNAMED_INDEX = re.compile(r"__index_level_\d+__")
"""Columns of pandas's own."""


VECTOR_ENDINGS = {
    ".gpkg", ".shp", ".geojson", ".json", ".geojsonl", ".fgb", ".parquet", ".geoparquet", ".kml", ".kmz", ".gml",
    ".gdb", ".sqlite", ".tab", ".mif", ".dxf", ".gpx", ".csv",
}  # fmt: skip
"""Endings of files that are taken for vectors before rasters."""

LAYER_SEPARATOR = "|layername="
"""Stands between a file and one of its layers, as in QGIS."""


def open_layer(
    labels: str | Path | gpd.GeoDataFrame,
    *,
    where: str | None = None,
    field_wanted: str | None = None,
    layer_wanted: str | None = None,
) -> VectorLayer:
    """Open a GeoDataFrame, a file, or a layer of a file given as `file|layername=layer`.

    If a file has several layers and none is named, this opens `layer_wanted` if there is one, else the only layer with
    the field `field_wanted`, else the first layer of polygons, else the first one.

    Args:
        labels: What to open.
        where: SQL condition that features must meet.
        field_wanted: A field that the layer must have.
        layer_wanted: The name of the preferred layer.

    Raises:
        InputNotFoundError: if there is no such file or layer.
        LabelError: if it is not a vector file, has no CRS, or the query is wrong.
        OptionError: if `labels` is of another type, or the query is empty or several.
    """
    if not isinstance(labels, str | Path | gpd.GeoDataFrame):
        raise OptionError(
            f"The labels are of type {type(labels).__name__}, but must be a path, a URL or a GeoDataFrame. "
            "Combine several first, e.g. with pandas.concat."
        )
    if where is not None and not (isinstance(where, str) and where.strip()):
        raise OptionError(
            f"`where` is {where!r}, but must be a condition, e.g. \"kind = 'road'\", or None for all features."
        )
    if where is not None and ";" in re.sub(r"'[^']*'|\"[^\"]*\"", "", where):
        raise OptionError(f"`where` is {where!r}, but must be one condition: a ; can only stand in quotes.")
    layer: VectorLayer
    if isinstance(labels, gpd.GeoDataFrame):
        wanted = (field_wanted, *re.findall(r"\w+", where or ""))
        if any(name in labels.index.names for name in wanted if name is not None):
            labels = named_index_as_columns(labels)  # so that it is part of the fingerprint
        layer = FrameLayer(labels, where)
        if labels.active_geometry_name is None or labels.empty:
            raise _no_polygons(layer)
    else:
        layer = _open_file(str(labels), where, field_wanted, layer_wanted)
    _require_crs(layer)
    return layer


def _require_crs(layer: VectorLayer) -> None:
    needed = "Assign the correct one first."
    try:
        crs = layer.crs
        if crs is not None:  # one of damaged JSON may be understood, but not the text that PROJ makes of it
            for part in filter(None, (crs, crs.geodetic_crs)):
                pyproj.CRS.from_wkt(part.to_wkt())
    except pyproj.exceptions.ProjError as error:
        reason = format_error(error).partition("\n")[0][:200]
        raise LabelError(f"The CRS of {layer.source} cannot be understood ({reason}). {needed}") from error
    if crs is None:
        raise LabelError(f"{layer.source} has no CRS (coordinate reference system). {needed}")


def _no_polygons(layer: VectorLayer) -> LabelError:
    return LabelError(f"{layer.source} contains no polygons; at least one is needed.")


def read_vector(
    labels: str | Path | gpd.GeoDataFrame, *, field_wanted: str | None = None, layer_wanted: str | None = None
) -> tuple[gpd.GeoDataFrame, str]:
    """Read all features of a layer; return them with the name of the layer for messages.

    Raises:
        InputNotFoundError, LabelError: as `open_layer`, or if there are no features.
    """
    layer = open_layer(labels, field_wanted=field_wanted, layer_wanted=layer_wanted)
    frame = labels if isinstance(labels, gpd.GeoDataFrame) else layer.read()
    if not len(frame):
        raise _no_polygons(layer)
    return frame, layer.source


def local_folder(name: str | Path) -> Path | None:
    """Return the path of a folder, of one at an address its local copy; None of a file, a layer or a geodatabase.

    Raises:
        InputNotFoundError: if a store cannot be read.
    """
    text, ending = str(name), ending_of(name)
    if LAYER_SEPARATOR in text or ending == ".gdb":
        return None
    if remote_address(text) is not None:
        return None if ending in VECTOR_ENDINGS else find_folder(text)
    return Path(name) if Path(name).is_dir() else None


def is_vector_vrt(path: str | Path) -> bool:
    """Return True if a local file is a virtual layer (an OGR VRT), which ends in .vrt as a virtual raster does."""
    try:
        with Path(path).open("rb") as file:
            return b"<OGRVRTDataSource" in file.read(4096)
    except OSError:
        return False


def _open_file(text: str, where: str | None, field_wanted: str | None, layer_wanted: str | None) -> VectorLayer:
    path, _, name = text.partition(LAYER_SEPARATOR)
    if path.lower().startswith("file://"):
        path = url2pathname(urlsplit(path).path)
    if problem := describe_bad_input(path):
        raise LabelError(problem)
    if not is_url_or_vsi(path) and not Path(path).exists():
        raise InputNotFoundError(f"No such file: {path}. Check the path.")
    if ending_of(path) in {".parquet", ".geoparquet"}:
        return _open_parquet(str(input_path(path)), where)
    limit_servers()
    require_views_end(path)
    with read_errors(path), path_to_read(path) as opened:
        name, others = _choose_layer(path, opened, name, field_wanted, layer_wanted)
        with read_errors(f"{path} (layer {name})"), warnings.catch_warnings(action="ignore", category=UserWarning):
            layer = OgrLayer(path, name, where, pyogrio.read_info(opened, layer=name), others)
    if where is not None:
        _check_query(layer, where)
    return layer


def _open_parquet(path: str, where: str | None) -> ParquetLayer:
    with read_errors(path):
        schema = pq.read_schema(absolute(path))
        text = (schema.metadata or {}).get(b"geo")
        if text is None:
            raise ValueError("it is not GeoParquet, as it has no geometry column")
        geo = json.loads(text)
        meta, geometry = geo["columns"][geo["primary_column"]], str(geo["primary_column"])
        box_columns = {path[0] for path in meta.get("covering", {}).get("bbox", {}).values()}
        others = {*geo["columns"], *box_columns}
    fields = tuple(name for name in schema.names if name not in others and not UNNAMED_INDEX.fullmatch(name))
    return ParquetLayer(path, where, meta, geometry, fields)


def _choose_layer(
    path: str, opened: str, layer: str, field_wanted: str | None, layer_wanted: str | None
) -> tuple[str, tuple[str, ...]]:
    """Return the layer to open, and the other layers if none was named; `opened` is the path for GDAL."""
    try:
        with warnings.catch_warnings(action="ignore"):  # of M values, which are not used; of servers
            kinds = {str(name): str(kind) for name, kind in pyogrio.list_layers(opened) if kind is not None}
    except pyogrio.errors.DataSourceError as error:
        raise LabelError(
            f"Cannot read {path} as a vector file: {format_error(error)}. Use e.g. a GeoPackage."
        ) from error
    layers = list(kinds)
    if not layers:
        raise LabelError(f"{path} has no layer with geometries. Use a file with polygons.")
    if layer:
        if layer not in layers:
            raise InputNotFoundError(
                f"{path} has no layer {layer!r}.{did_you_mean(layer, layers)} Its layers are {', '.join(layers)}."
            )
        return layer, ()
    if layer_wanted in layers:
        return str(layer_wanted), ()
    if field_wanted is not None:
        having = [name for name in layers if field_wanted in pyogrio.read_info(opened, layer=name)["fields"]]
        if len(having) > 1:
            raise LabelError(
                f"{path} has the field {field_wanted!r} in several layers: {', '.join(having)}. "
                f"Name one of them, e.g. {path}{LAYER_SEPARATOR}{having[0]}"
            )
        return (having or layers)[0], ()
    name = next((name for name in layers if "Polygon" in kinds[name] or "Surface" in kinds[name]), layers[0])
    return name, tuple(other for other in layers if other != name)


def _check_query(layer: OgrLayer, where: str) -> None:
    require_query_ends(layer.path, layer.name, where)
    try:
        with path_to_read(layer.path) as path:
            pyogrio.read_dataframe(path, layer=layer.name, where=where, max_features=1)
    except (RuntimeError, ValueError) as error:
        raise query_error(where, layer.source, layer.fields, error) from error


def open_any_layer(path: str | Path) -> VectorLayer:
    """Open a file, or a layer of it, as `open_layer` does, also one without a CRS.

    Raises:
        InputNotFoundError, LabelError: as `open_layer`.
    """
    return _open_file(str(path), None, None, None)
