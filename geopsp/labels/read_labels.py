"""Open labels of any kind: vector files, GeoDataFrames or label rasters."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import geopandas as gpd
import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geopsp.core.argument_names import did_you_mean
from geopsp.core.legend import BACKGROUND, Legend
from geopsp.core.options import check_nodata, require_choice, require_number
from geopsp.core.paths import is_local, is_subdataset
from geopsp.core.text import format_count, format_error
from geopsp.errors import LabelError, OptionError
from geopsp.labels.class_field_hint import candidate_fields, warn_of_class_fields
from geopsp.labels.class_mapping import NULL, ClassTarget, Value, normalize_value, read_mapping
from geopsp.labels.class_table import Background, ClassTable, class_table
from geopsp.labels.feature_index import FeaturesInMemory, FeaturesOnDisk
from geopsp.labels.features import LabelRules, layer_crs, read_all_features, read_features, require_polygons
from geopsp.labels.label_classes import RasterRules
from geopsp.labels.look_alikes import canonical_text, spelling_notes
from geopsp.labels.mask_classes import read_mask_classes
from geopsp.labels.match_masks import find_masks
from geopsp.labels.polygon_labels import PolygonLabels
from geopsp.labels.raster_labels import RasterLabels, read_label_raster
from geopsp.raster.info import read_info
from geopsp.vector.layer import VectorLayer
from geopsp.vector.open import LAYER_SEPARATOR, is_vector_vrt, open_layer

RASTER_ENDINGS = {
    ".tif", ".tiff", ".vrt", ".img", ".png", ".jpg", ".jpeg", ".jp2", ".asc", ".bil", ".grd", ".nc", ".h5", ".hdf"
}  # fmt: skip


MAX_DISTINCT_VALUES = 100_000
"""A field with more values is no class field."""


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
    label_nodata: int | str | None = None,
    mask_classes: Mapping[Any, Any] | str | Path | None = None,
) -> PolygonLabels | RasterLabels:
    """Open labels: a vector file, a GeoDataFrame or a label raster.

    Vector files of more than 64 MB that have a spatial index are read by bounding box.

    Args:
        labels: A vector file, `file|layername=layer`, a GeoDataFrame, or a label raster.
        class_field: The field that holds the class, names or numbers. None: all polygons are one class.
        background: "class": pixels outside of all polygons are class 0, "background". "ignore": they are unlabelled.
        all_touched: True burns all pixels that a polygon touches; False those whose centre it contains.
        priority: Class names, the topmost first, for places where polygons overlap. Other classes lie below, smaller
            polygons on top of larger ones. None: smaller polygons lie on top, whatever their class.
        priority_field: A numeric field; polygons with larger values lie on top, among those of equal `priority`.
        where: An SQL condition on the fields; only features that meet it are read. GeoPackage, SQLite, GeoParquet and
            GeoDataFrames use SQLite's dialect, other files OGR SQL.
        class_mapping: What each value becomes: a class name, None (unlabelled), or a dict of name, code and color. "*"
            stands for all other values, which otherwise stay as they are; None or "null" for missing values, which
            otherwise are unlabelled. A dict or a YAML file.
        buffer: Metres by which lines and points are widened to polygons; 0 leaves them out.
        label_nodata: The value of unlabelled pixels in a label raster; "none": none; None: its own nodata value.
        mask_classes: Names of the colours or values of a label raster: a dict, or a CSV or JSON file.

    Raises:
        InputNotFoundError: if there is no such file or layer.
        LabelError: if there are no polygons, no such field, or too many classes.
        OptionError: if an option is out of range, or does not apply to such labels.
    """
    options = dict(locals())
    if isinstance(labels, str | Path) and is_raster(labels):
        return read_label_raster(labels, raster_rules(**options))
    _check_options(background, buffer, class_field, priority_field)
    if label_nodata is not None or mask_classes is not None:
        raise OptionError(f"`label_nodata` and `mask_classes` apply to label rasters, but {_shown(labels)} is none.")
    layer = open_layer(labels, where=where, field_wanted=class_field)
    for name in (class_field, priority_field):
        if name is not None and name not in layer.fields:
            raise LabelError(
                f"{layer.source} has no field {name!r}.{did_you_mean(name, layer.fields)} Fields: "
                f"{', '.join(layer.fields) or 'none'}."
            )
    mapping = read_mapping(class_mapping)
    return _read_polygons(layer, class_field, background, all_touched, priority, priority_field, mapping, buffer)


def _check_options(background: Any, buffer: Any, class_field: Any, priority_field: Any) -> None:
    require_choice("background", background, ("class", "ignore"))
    require_number("buffer", buffer, minimum=0)
    for option, value in (("class_field", class_field), ("priority_field", priority_field)):
        if not isinstance(value, str | None):
            raise OptionError(f"`{option}` is {value!r}, but must be the name of one field.")


def raster_rules(
    labels: Any, *, class_field: str | None = None, background: Background = "class", all_touched: bool = False,
    priority: Sequence[str] | None = None, priority_field: str | None = None, where: str | None = None,
    class_mapping: Mapping[Any, Any] | str | Path | None = None, buffer: float = 0.0,
    label_nodata: int | str | None = None, mask_classes: Mapping[Any, Any] | str | Path | None = None,
) -> RasterRules:  # fmt: skip
    """Return the options of label rasters; all are as in `read_labels`.

    Raises:
        InputNotFoundError: if a file that an option names does not exist.
        OptionError: if an option is out of range, or applies to polygons only.
    """
    _check_options(background, buffer, class_field, priority_field)
    if any(value is not None for value in (class_field, priority, priority_field, where)) or all_touched or buffer:
        raise OptionError(
            f"{_shown(labels)} is a label raster, but `class_field`, `priority`, `priority_field`, `where`, `buffer` "
            "and `all_touched` apply to polygons only. Leave them out."
        )
    nodata = check_nodata("label_nodata", label_nodata)
    return RasterRules(background, read_mapping(class_mapping) or {}, nodata, read_mask_classes(mask_classes))


def masks_of(labels: Any) -> list[str] | None:
    """Return the files of labels that are masks, each of one image; None if the labels are of another kind.

    These are folders, globs and lists of label rasters, and a label raster without georeference.
    """
    if isinstance(labels, str) and LAYER_SEPARATOR in labels:
        return None
    found = find_masks(labels)
    if found is None and isinstance(labels, str | Path) and is_raster(labels) and is_local(labels):
        grid = read_info(labels, needs_crs=False).grid
        return [str(labels)] if not grid.crs or grid.transform.is_identity else None
    return found


def name_of(labels: Any) -> str:
    """Return the name of labels in messages."""
    if isinstance(labels, list | tuple):
        return f"{labels[0]} and {len(labels) - 1} more" if len(labels) > 1 else str(labels[0])
    return str(labels)


def _shown(labels: Any) -> str:
    return name_of(labels) if isinstance(labels, str | Path | list | tuple) else "the GeoDataFrame"


def is_raster(path: str | Path) -> bool:
    """Return True if a path or URL, without its query, ends like a raster, or for the name of one inside a file.

    A .vrt of vectors is none.
    """
    if is_subdataset(path):
        return True
    text = str(path)
    if LAYER_SEPARATOR in text:
        return False
    name = urlsplit(text).path if "://" in text else text
    ending = Path(name).suffix.lower()
    return ending in RASTER_ENDINGS and not (ending == ".vrt" and is_vector_vrt(path))


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
    candidates = candidate_fields(layer.fields) if class_field is None else []
    columns = [name for name in (class_field, priority_field) if name is not None]
    frame = None if layer.reads_by_bbox else _read_frame(layer, columns, candidates)
    batches = () if class_field is None else layer.batches(class_field) if frame is None else [frame[class_field]]
    table = _class_table(batches, class_field, layer.source, background, mapping)
    ranks, order = _priority_ranks(table.legend, priority, priority_field)
    rules = LabelRules(class_field, table, ranks, priority_field, buffer)
    features: FeaturesInMemory | FeaturesOnDisk
    if frame is None:
        features, counts, notes = FeaturesOnDisk(layer, rules), {}, table.notes
    else:
        in_memory, left_out = read_features(frame, rules, layer.source)
        counts = require_polygons(in_memory, left_out, layer.source, buffer)
        notes = (*table.notes, *left_out.notes(layer.source))
        features = FeaturesInMemory(in_memory, layer_crs(layer))
    warn_of_class_fields(layer.source, candidates, frame)
    return PolygonLabels(table.legend, features, background, all_touched, layer, counts, order, mapping or {}, notes)


def _read_frame(layer: VectorLayer, columns: Sequence[str], candidates: Sequence[str]) -> gpd.GeoDataFrame:
    """Read all features with some columns and, unless that fails, those that may hold classes."""
    try:
        return read_all_features(layer, list(dict.fromkeys([*columns, *candidates])))
    except LabelError:
        if not candidates:
            raise
        return read_all_features(layer, columns)


def _class_table(
    batches: Iterable[pd.Series],
    class_field: str | None,
    source: str,
    background: Background,
    mapping: Mapping[Value, ClassTarget] | None,
) -> ClassTable:
    """Make the class table of a field, whose values come in batches; without a field, of the one class "object"."""
    if class_field is None:
        if mapping is not None:
            raise OptionError("`class_mapping` needs the field whose values it maps. Pass `class_field` too.")
        names = {0: BACKGROUND, 1: "object"} if background == "class" else {1: "object"}
        return ClassTable(Legend.from_names(names), {})
    name = f"The field {class_field!r} of {source}"
    found, num_nulls = _distinct_values(batches, name)
    values = {value for value in map(normalize_value, found) if value is not None}
    if not values and NULL not in (mapping or {}):
        raise LabelError(f"{name} is empty. Choose a field with the class of each polygon.")
    table = class_table(values, name, background=background, mapping=mapping, nulls=num_nulls > 0)
    notes = [*table.notes, *spelling_notes((value for value in found if isinstance(value, str)), name)]
    if num_nulls and table.null_code < 0:
        features = format_count(num_nulls, "feature")
        advice = "map null with `class_mapping` to give them one"
        notes.append(f"{name} is empty for {features}: without a class, so unlabelled; {advice}")
    return replace(table, notes=tuple(notes))


def _distinct_values(batches: Iterable[pd.Series], name: str) -> tuple[set[Any], int]:
    """Return the distinct values of a field, and how many are missing.

    Raises:
        LabelError: if there are too many, or they cannot be compared.
    """
    found: set[Any] = set()
    num_nulls = 0
    for batch in batches:
        try:
            distinct = set(pd.unique(batch))
        except TypeError as error:
            raise LabelError(
                f"{name} contains lists or the like ({format_error(error)}), but needs names or numbers."
            ) from error
        missing = [value for value in distinct if normalize_value(value) is None]
        num_nulls += int((batch.isna() | batch.isin(missing)).sum()) if missing else 0
        found |= distinct.difference(missing)
        if len(found) > MAX_DISTINCT_VALUES:
            raise LabelError(f"{name} has more than {MAX_DISTINCT_VALUES:,} different values. Is it the right field?")
    return found, num_nulls


def _priority_ranks(
    legend: Legend, priority: Sequence[str] | None, priority_field: str | None
) -> tuple[NDArray[np.intp], str]:
    """Return (256,) ranks of codes, higher on top, and the drawing order in words."""
    ranks = np.zeros(256, np.intp)
    for rank, name in enumerate(reversed(list(priority or ())), start=1):
        ranks[legend.code_of(canonical_text(str(name)))] = rank
    rules = [f"{', then '.join(priority)} on top"] if priority else []
    rules += [f"larger {priority_field} on top"] if priority_field else []
    rules.append("smaller polygons lie on top of larger ones")
    return ranks, "; else ".join(rules)
