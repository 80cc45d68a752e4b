"""Open labels of any kind."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geopsp.core.legend import Legend
from geopsp.errors import LabelError, OptionError
from geopsp.labels.class_mapping import (
    Background,
    ClassTable,
    ClassTarget,
    Value,
    class_table,
    normalize_value,
    read_mapping,
)
from geopsp.labels.feature_index import FeaturesInMemory, FeaturesOnDisk
from geopsp.labels.features import LabelRules, layer_crs, read_all_features, read_features, require_polygons
from geopsp.labels.geometry import check_buffer
from geopsp.labels.polygon_labels import PolygonLabels
from geopsp.labels.raster_labels import RasterLabels, read_label_raster
from geopsp.vector.layer import VectorLayer
from geopsp.vector.open import open_layer

DISTINCT = 100_000
"""Values of a class field beyond which it is none."""


def read_labels(
    labels: str | Path | gpd.GeoDataFrame,
    *,
    class_field: str | None = None,
    background: Background = "class",
    all_touched: bool = False,
    priority: Sequence[str] | None = None,
    priority_field: str | None = None,
    where: str | None = None,
    class_mapping: Mapping[Any, Any] | str | Path | None = None,
    buffer: float = 0.0,
) -> PolygonLabels | RasterLabels:
    """Labels from a vector file, a GeoDataFrame or a raster of codes.

    Files of more than 64 MB are read by bounding box, as far as they have a spatial index.

    Args:
        labels: A vector file, `file|layername=layer`, a GeoDataFrame, or a label raster.
        class_field: The attribute that holds the class, names or numbers; None: all polygons are one class.
        background: "class": what no polygon covers is class 0, "background"; "ignore": it is unlabelled.
        all_touched: True burns each pixel that a polygon touches; False those whose centre it covers.
        priority: Class names, the one on top first. Where polygons overlap, what is not named lies below, smaller
            polygons above larger ones; None means that for all classes.
        priority_field: A numeric attribute whose larger values lie on top, among those that `priority` leaves equal.
        where: An SQL condition on attributes; only features that meet it are read. GeoPackage, SQLite, GeoParquet and
            GeoDataFrames take SQLite's words, other files those of OGR SQL.
        class_mapping: What becomes of each value found: a class name, None (its pixels are unlabelled), or a dict of
            name, code and color; "*" stands for all values not named, which else stay. A dict or a YAML file.
        buffer: Metres by which lines and points are widened to polygons; 0 leaves them out.

    Raises:
        InputNotFoundError: if there is no such file or layer.
        LabelError: if there are no polygons, no such field, or too many classes.
        OptionError: if an option is out of range, or does not go with such labels.
    """
    if background not in ("class", "ignore"):
        raise OptionError(f"background is {background!r}; needed 'class' or 'ignore'.")
    check_buffer(buffer)
    for option, value in (("class_field", class_field), ("priority_field", priority_field)):
        if not isinstance(value, str | None):
            raise OptionError(f"{option} is {value!r}; needed the name of one attribute.")
    mapping = read_mapping(class_mapping)
    if isinstance(labels, str | Path) and is_raster(labels):
        given = (class_field, priority, priority_field, where)
        if any(value is not None for value in given) or all_touched or buffer:
            raise OptionError(
                f"{labels} is a label raster; class_field, priority, priority_field, where, buffer and all_touched are "
                "for polygons. Leave them out."
            )
        return read_label_raster(labels, background, mapping)
    layer = open_layer(labels, where=where, field_wanted=class_field)
    for name in (class_field, priority_field):
        if name is not None and name not in layer.fields:
            raise LabelError(f"{layer.source} has no field {name!r}; it has {', '.join(layer.fields) or 'none'}.")
    return _read_polygons(layer, class_field, background, all_touched, priority, priority_field, mapping, buffer)


def is_raster(path: str | Path) -> bool:
    """True if the ending is that of a raster; in a URL, before what follows the question mark."""
    text = str(path)
    name = urlsplit(text).path if "://" in text else text
    return Path(name).suffix.lower() in {".tif", ".tiff", ".vrt", ".img", ".png", ".jp2", ".asc", ".bil", ".grd"}


def _read_polygons(
    layer: VectorLayer,
    class_field: str | None,
    background: Background,
    all_touched: bool,
    priority: Sequence[str] | None,
    priority_field: str | None,
    mapping: Mapping[Value, ClassTarget] | None,
    buffer: float,
) -> PolygonLabels:
    frame = (
        None
        if layer.reads_by_bbox
        else read_all_features(layer, [n for n in (class_field, priority_field) if n is not None])
    )
    batches = () if class_field is None else layer.batches(class_field) if frame is None else [frame[class_field]]
    table = _table(batches, class_field, layer.source, background, mapping)
    ranks, words = _ranks(table.legend, priority, priority_field)
    rules = LabelRules(class_field, table, ranks, priority_field, buffer)
    features: FeaturesInMemory | FeaturesOnDisk
    if frame is None:
        features, counts = FeaturesOnDisk(layer, rules), {}
    else:
        found, missing = read_features(frame, rules, layer.source)
        counts = require_polygons(found, missing, layer.source, buffer)
        features = FeaturesInMemory(found, layer_crs(layer))
    return PolygonLabels(
        table.legend, features, background, all_touched, layer, counts, words, mapping or {}, table.notes
    )


def _table(
    batches: Sequence[pd.Series] | Iterator[pd.Series],
    class_field: str | None,
    source: str,
    background: Background,
    mapping: Mapping[Value, ClassTarget] | None,
) -> ClassTable:
    """The classes among the values of a field, which come some at a time."""
    if class_field is None:
        if mapping is not None:
            raise OptionError("class_mapping needs the field whose values it maps. Pass class_field.")
        return ClassTable(
            Legend.from_names({0: "background", 1: "object"} if background == "class" else {1: "object"}), {}
        )
    found: set[Value] = set()
    for batch in batches:
        try:
            found |= {value for value in map(normalize_value, pd.unique(batch)) if value is not None}
        except TypeError as error:
            raise LabelError(
                f"The field {class_field!r} of {source} holds lists or the like ({error}); needed names or numbers."
            ) from error
        if len(found) > DISTINCT:
            raise LabelError(
                f"The field {class_field!r} of {source} holds more than {DISTINCT:,} values. Is it the right field?"
            )
    if not found:
        raise LabelError(f"The field {class_field!r} of {source} is empty; needed a class for each polygon.")
    return class_table(found, f"The field {class_field!r} of {source}", background=background, mapping=mapping)


def _ranks(legend: Legend, priority: Sequence[str] | None, priority_field: str | None) -> tuple[NDArray[np.intp], str]:
    """(256,) ranks of codes, and the rule in words."""
    ranks = np.zeros(256, np.intp)
    for height, name in enumerate(reversed(list(priority or ())), start=1):
        ranks[legend.code_of(name)] = height
    rules = [f"{', then '.join(priority)} on top"] if priority else []
    rules += [f"larger {priority_field} on top"] if priority_field else []
    rules.append("smaller polygons lie on top of larger ones")
    return ranks, "; else ".join(rules)
