"""Features of a layer with their classes, in burning order, found near a grid: from memory or from a file."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
from numpy.typing import NDArray

from geopsp.core.legend import IGNORE_INDEX
from geopsp.errors import LabelError
from geopsp.labels.class_mapping import ClassTable
from geopsp.labels.geometry import valid_polygons
from geopsp.vector.layer import VectorLayer

POLYGON, NOT_POLYGON, WITHOUT_CLASS = 0, 1, 2
"""Kinds of features; only polygons are burned."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelRules:
    """How features become polygons with a code each."""

    class_field: str | None = None
    """None: all are class 1."""

    table: ClassTable | None = None
    ranks: NDArray[np.intp] = field(default_factory=lambda: np.zeros(256, np.intp))
    """(256,) of each code; the higher lies on top."""

    priority_field: str | None = None
    buffer: float = 0.0
    """Metres around lines and points."""

    @property
    def columns(self) -> list[str]:
        """The fields that are read."""
        return [name for name in dict.fromkeys((self.class_field, self.priority_field)) if name is not None]


@dataclass(frozen=True, slots=True, eq=False)
class LabelFeatures:
    """What has a place, from the bottom to the top."""

    shapes: NDArray[np.object_]
    codes: NDArray[np.uint8]
    """(n,) class codes; IGNORE for what is mapped to nothing."""

    kinds: NDArray[np.uint8]
    """(n,) POLYGON, NOT_POLYGON or WITHOUT_CLASS."""

    repaired: NDArray[np.bool_]
    keys: NDArray[np.float64]
    """(n, 4) by which they are ordered: rank of the class, priority field, size (smaller on top), place in the file."""

    def __len__(self) -> int:
        return len(self.shapes)

    def take(self, rows: NDArray[Any]) -> LabelFeatures:
        return LabelFeatures(
            self.shapes[rows], self.codes[rows], self.kinds[rows], self.repaired[rows], self.keys[rows]
        )

    def polygons(self) -> LabelFeatures:
        """Those that are burned."""
        return self if not self.kinds.any() else self.take(self.kinds == POLYGON)

    def in_order(self) -> LabelFeatures:
        return self.take(np.lexsort(self.keys.T[::-1]))


def joined(parts: Sequence[LabelFeatures]) -> LabelFeatures:
    """One part after the other."""
    names = ("shapes", "codes", "kinds", "repaired", "keys")
    return LabelFeatures(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


def read_features(frame: gpd.GeoDataFrame, rules: LabelRules, source: str) -> tuple[LabelFeatures, dict[str, int]]:
    """Features in burning order, and how many are null or empty; these have no place."""
    shapes = frame.geometry.to_numpy()
    null = shapely.is_missing(shapes)
    empty = shapely.is_empty(shapes) & ~null
    frame = frame[~(null | empty)]
    shapes, repaired, areal = valid_polygons(
        frame.geometry.to_numpy(), crs=pyproj.CRS.from_user_input(frame.crs), buffer=rules.buffer
    )
    codes, known = _codes(frame, rules)
    kinds = np.where(areal, np.where(known, POLYGON, WITHOUT_CLASS), NOT_POLYGON).astype(np.uint8)
    keys = [rules.ranks[codes], _heights(frame, rules, source), -shapely.area(shapes), frame.index.to_numpy(float)]
    features = LabelFeatures(shapes, codes, kinds, repaired, np.column_stack(keys)).in_order()
    return features, {"null": int(null.sum()), "empty": int(empty.sum())}


def _codes(frame: gpd.GeoDataFrame, rules: LabelRules) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    if rules.class_field is None or rules.table is None:
        return np.ones(len(frame), np.uint8), np.ones(len(frame), bool)
    return rules.table.codes_of(frame[rules.class_field])


def _heights(frame: gpd.GeoDataFrame, rules: LabelRules, source: str) -> NDArray[np.float64]:
    """The priority field; what has none lies below."""
    if rules.priority_field is None:
        return np.zeros(len(frame))
    try:
        found = pd.to_numeric(frame[rules.priority_field]).to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise LabelError(f"The field {rules.priority_field!r} of {source} holds no numbers ({error}).") from error
    return np.asarray(np.where(np.isnan(found), -np.inf, found))


def count_features(own: LabelFeatures) -> dict[str, Any]:
    """How many features there are of each kind."""
    polygon = own.kinds == POLYGON
    dropped = polygon & (own.codes == IGNORE_INDEX)
    codes, numbers = np.unique(own.codes[polygon & ~dropped], return_counts=True)
    return {
        "polygons": dict(zip(codes.tolist(), numbers.tolist(), strict=True)),
        "repaired": int((own.repaired & (own.kinds != NOT_POLYGON)).sum()),
        "not_polygons": int((own.kinds == NOT_POLYGON).sum()),
        "without_class": int((own.kinds == WITHOUT_CLASS).sum()),
        "dropped": int(dropped.sum()),
    }


def layer_crs(layer: VectorLayer) -> Any:
    """The CRS, which each opened layer has."""
    assert layer.crs is not None, "open_layer refuses layers without a CRS"
    return layer.crs


def read_all_features(layer: VectorLayer, columns: Sequence[str]) -> gpd.GeoDataFrame:
    """Read all features of a layer, with these columns.

    Raises:
        LabelError: if it has none.
    """
    frame = layer.read(columns)
    if not isinstance(frame, gpd.GeoDataFrame) or not len(frame):
        raise LabelError(f"{layer.source} holds no polygons, or none that the query chooses; needed at least one.")
    return frame


def require_polygons(found: LabelFeatures, missing: Mapping[str, int], source: str, buffer: float) -> dict[str, int]:
    """What was found.

    Raises:
        LabelError: if there is no polygon.
    """
    counts = {
        "polygons": int((found.kinds != NOT_POLYGON).sum()),
        "repaired": int(found.repaired.sum()),
        **missing,
        "not_polygons": int((found.kinds == NOT_POLYGON).sum()),
        "without_class": int((found.kinds == WITHOUT_CLASS).sum()),
        "dropped": int(((found.kinds == POLYGON) & (found.codes == IGNORE_INDEX)).sum()),
    }
    if not counts["polygons"]:
        words = ", ".join(f"{n} {name}" for name, n in counts.items() if n) or "nothing"
        hint = " Lines and points become polygons with buffer, in metres." if not buffer else ""
        raise LabelError(f"{source} holds no polygons ({words}); needed at least one.{hint}")
    return counts
