"""What a vector file holds: its layers, their fields and most frequent values, and shapes that are no use as labels."""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pyogrio
import shapely

from geopsp.vector.layer import Box, OgrLayer, ParquetLayer, VectorLayer, read_errors
from geopsp.vector.open import LAYER_SEPARATOR, open_any_layer
from geopsp.vector.verbatim_path import path_to_read

SAMPLE = 10_000
"""Features of a layer that are looked at."""


MAX_VALUES = 6
"""Values of a field that are listed."""


KINDS = {"b": "yes/no", "i": "whole number", "u": "whole number", "f": "number", "M": "date"}
"""Words for the types of fields, by numpy's kinds; other types are texts."""


@dataclass(frozen=True, slots=True)
class FieldSummary:
    """A field of a layer, of the features that were looked at."""

    name: str
    kind: str
    num_values: int
    """Number of different values; missing ones do not count."""

    frequent: dict[str, int]
    """The most frequent values with their numbers of features; "" stands for missing ones."""


@dataclass(frozen=True, slots=True)
class LayerSummary:
    """A layer of a vector file."""

    name: str
    """"" for a format that has one layer without a name."""

    num_features: int
    crs: str | None
    bounds: Box | None
    geometries: dict[str, int]
    """Numbers of features by kind of geometry, of those that were looked at."""

    problems: dict[str, int]
    """Numbers of features that have no geometry, an empty one, coordinates that are not finite, or an invalid one."""

    fields: tuple[FieldSummary, ...]
    frame: gpd.GeoDataFrame
    """The features that were looked at."""

    @property
    def is_sample(self) -> bool:
        """True if not all features were looked at."""
        return len(self.frame) < self.num_features


def summarize_layers(path: str | Path) -> list[LayerSummary]:
    """Describe all layers of a vector file that have geometries, or the one that `FILE|layername=LAYER` names.

    Raises:
        InputNotFoundError: if there is no such file or layer.
        LabelError: if it is no vector file, or damaged.
    """
    text = str(path)
    name = text.partition(LAYER_SEPARATOR)[2]
    first = open_any_layer(text)
    if name or isinstance(first, ParquetLayer):
        return [_summarize(first, name)]
    return [_summarize(open_any_layer(f"{text}{LAYER_SEPARATOR}{layer}"), layer) for layer in _layers(text)]


def _layers(path: str) -> Iterator[str]:
    with (
        read_errors(path),
        path_to_read(path) as opened,
        warnings.catch_warnings(action="ignore", category=UserWarning),
    ):
        found = pyogrio.list_layers(opened)
    yield from (str(name) for name, kind in found if kind is not None)


def _summarize(layer: VectorLayer, name: str) -> LayerSummary:
    count, frame = _sample(layer)
    shapes = frame.geometry.to_numpy()
    with read_errors(layer.source):
        bounds = layer.bounds()
    kinds = Counter(frame.geometry.dropna().geom_type)
    fields = [column for column in frame.columns if column != frame.active_geometry_name]
    return LayerSummary(
        name=name,
        num_features=count,
        crs=None if layer.crs is None else layer.crs.to_string() if layer.crs.to_authority() else layer.crs.name,
        bounds=bounds,
        geometries=dict(kinds.most_common()),
        problems=_problems(np.asarray(shapes, object)),
        fields=tuple(_summarize_field(str(column), frame[column]) for column in fields),
        frame=frame,
    )


def _sample(layer: VectorLayer) -> tuple[int, gpd.GeoDataFrame]:
    """Return the number of features, and the first `SAMPLE` of them."""
    if not isinstance(layer, ParquetLayer):
        frame = layer.read(most=SAMPLE)
        count = int(layer.info["features"]) if isinstance(layer, OgrLayer) else len(frame)
        return (len(frame) if len(frame) < SAMPLE else max(count, len(frame))), frame
    with read_errors(layer.source), pq.ParquetFile(layer.path) as file:
        count, columns = file.metadata.num_rows, [*layer.columns, layer.geometry]
        if count <= SAMPLE or layer.meta.get("encoding") != "WKB":
            return count, layer.read()[:SAMPLE]
        table = next(file.iter_batches(SAMPLE, columns=columns)).to_pandas()
        shapes = shapely.from_wkb(table.pop(layer.geometry).to_numpy(), on_invalid="ignore")
        return count, gpd.GeoDataFrame(table, geometry=shapes, crs=layer.crs)


def _problems(shapes: Any) -> dict[str, int]:
    missing = shapely.is_missing(shapes)
    empty = ~missing & shapely.is_empty(shapes)
    rest = shapes[~missing & ~empty]
    points, owner = shapely.get_coordinates(rest, return_index=True)
    infinite = np.zeros(len(rest), bool)
    infinite[owner[~np.isfinite(points).all(axis=1)]] = True
    invalid = ~shapely.is_valid(rest[~infinite])
    counts = {"without geometry": missing, "empty": empty, "not finite": infinite, "invalid": invalid}
    return {word: int(flags.sum()) for word, flags in counts.items() if flags.any()}


def _summarize_field(name: str, column: pd.Series) -> FieldSummary:
    texts = column.map(_as_text, na_action=None)
    counts = texts.value_counts()
    kind = KINDS.get(getattr(column.dtype, "kind", "O"), "text")
    frequent = {str(value): int(count) for value, count in counts.head(MAX_VALUES).items()}
    return FieldSummary(name, kind, int((counts.index != "").sum()), frequent)


def _as_text(value: Any) -> str:
    """Return a value as it is listed; "" if it is missing."""
    if value is None or (pd.api.types.is_scalar(value) and pd.isna(value)):
        return ""
    if isinstance(value, float):
        return f"{value:.6g}"
    return str(value)[:40]
