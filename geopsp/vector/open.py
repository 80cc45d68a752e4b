"""The layer that labels, an area or folds name: found, opened and read."""

from __future__ import annotations

import json
import warnings
from pathlib import Path
from urllib.parse import urlsplit
from urllib.request import url2pathname

import geopandas as gpd
import pyarrow.parquet as pq
import pyogrio

from geopsp.core.paths import remote
from geopsp.errors import InputNotFoundError, LabelError, OptionError
from geopsp.vector.layer import FrameLayer, OgrLayer, ParquetLayer, VectorLayer, query_error, read_errors

LAYER = "|layername="
"""Between a file and one of its layers, as QGIS writes it."""


def open_layer(
    labels: str | Path | gpd.GeoDataFrame,
    *,
    where: str | None = None,
    field_wanted: str | None = None,
    layer_wanted: str | None = None,
) -> VectorLayer:
    """The layer that the labels name: a GeoDataFrame, a file, or `file|layername=layer`.

    Of several layers, the only one with the field wanted is taken, or the one named `layer_wanted`, or the first,
    of polygons if there is one; the others are noted.

    Raises:
        InputNotFoundError: if there is no such file or layer.
        LabelError: if it is not a vector file, has no CRS, or the query is wrong.
        OptionError: if it names nothing, or the query is empty.
    """
    if not isinstance(labels, str | Path | gpd.GeoDataFrame):
        raise OptionError(
            f"Labels are given as {type(labels).__name__}; needed a path, a URL or a GeoDataFrame. "
            "Put several together first, e.g. with geopandas and pandas.concat."
        )
    if where is not None and not (isinstance(where, str) and where.strip()):
        raise OptionError(f"where is {where!r}; needed a condition, e.g. \"kind = 'road'\", or None for all features.")
    layer = FrameLayer(labels, where) if isinstance(labels, gpd.GeoDataFrame) else None
    if layer is not None and (layer.frame.active_geometry_name is None or layer.frame.empty):
        raise LabelError(f"{layer.source} holds no polygons; needed at least one.")
    opened = layer or _open_file(str(labels), where, field_wanted, layer_wanted)
    if opened.crs is None:
        raise LabelError(
            f"{opened.source} has no CRS (coordinate reference system); needed one. Assign the right one first."
        )
    return opened


def read_vector(
    labels: str | Path | gpd.GeoDataFrame, *, field_wanted: str | None = None, layer_wanted: str | None = None
) -> tuple[gpd.GeoDataFrame, str]:
    """All features of a layer and the words that name it.

    Raises:
        InputNotFoundError, LabelError: as `open_layer`, or if there are no features.
    """
    layer = open_layer(labels, field_wanted=field_wanted, layer_wanted=layer_wanted)
    frame = labels if isinstance(labels, gpd.GeoDataFrame) else layer.read()
    if not len(frame):
        raise LabelError(f"{layer.source} holds no polygons; needed at least one.")
    return frame, layer.source


def _open_file(text: str, where: str | None, field_wanted: str | None, layer_wanted: str | None) -> VectorLayer:
    path, _, name = text.partition(LAYER)
    if path.lower().startswith("file://"):
        path = url2pathname(urlsplit(path).path)
    if not remote(path) and not Path(path).exists():
        raise InputNotFoundError(f"No such file: {path}. Check the path.")
    if Path(path).suffix.lower() in {".parquet", ".geoparquet"}:
        return _open_parquet(path, where)
    name, others = _choose_layer(path, name, field_wanted, layer_wanted)
    with read_errors(f"{path} (layer {name})"), warnings.catch_warnings(action="ignore", category=UserWarning):
        layer = OgrLayer(path, name, where, pyogrio.read_info(path, layer=name), others)
    if where is not None:
        _check_query(layer, where)
    return layer


def _open_parquet(path: str, where: str | None) -> ParquetLayer:
    with read_errors(path):
        schema = pq.read_schema(path)
        text = (schema.metadata or {}).get(b"geo")
        if text is None:
            raise ValueError("it is no GeoParquet: it says nothing of a geometry column")
        geo = json.loads(text)
    meta, geometry = geo["columns"][geo["primary_column"]], str(geo["primary_column"])
    boxes = {part[0] for part in meta.get("covering", {}).get("bbox", {}).values()}
    fields = tuple(name for name in schema.names if name not in {*geo["columns"], *boxes})
    return ParquetLayer(path, where, meta, geometry, fields)


def _choose_layer(
    path: str, layer: str, field_wanted: str | None, layer_wanted: str | None
) -> tuple[str, tuple[str, ...]]:
    """A layer, and the others that might as well have been meant."""
    try:
        with warnings.catch_warnings(action="ignore", category=UserWarning):  # measures go: only the area counts
            kinds = {str(name): str(kind) for name, kind in pyogrio.list_layers(path) if kind is not None}
    except pyogrio.errors.DataSourceError as error:
        raise LabelError(f"{path} cannot be read as vector data ({error}); needed e.g. a GeoPackage.") from error
    layers = list(kinds)
    if not layers:
        raise LabelError(f"{path} holds no layer with geometries; needed polygons.")
    if layer:
        if layer not in layers:
            raise InputNotFoundError(f"{path} has no layer {layer!r}; it has {', '.join(layers)}.")
        return layer, ()
    if layer_wanted in layers:
        return str(layer_wanted), ()
    if field_wanted is not None:
        having = [name for name in layers if field_wanted in pyogrio.read_info(path, layer=name)["fields"]]
        if len(having) > 1:
            raise LabelError(
                f"{path} has the field {field_wanted!r} in several layers: {', '.join(having)}. "
                f"Name one: {path}{LAYER}{having[0]}"
            )
        return (having or layers)[0], ()
    chosen = next((name for name in layers if "Polygon" in kinds[name] or "Surface" in kinds[name]), layers[0])
    return chosen, tuple(name for name in layers if name != chosen)


def _check_query(layer: OgrLayer, where: str) -> None:
    try:
        pyogrio.read_dataframe(layer.path, layer=layer.name, where=where, max_features=1)
    except (RuntimeError, ValueError) as error:
        raise query_error(where, layer.source, layer.fields, error) from error
