"""Labelled features: geometry, class code and drawing order."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
import shapely
from numpy.typing import NDArray

from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.text import format_count, format_error
from geopsp.errors import LabelError
from geopsp.labels.class_table import ClassTable
from geopsp.vector.geometry import finite, valid_polygons
from geopsp.vector.layer import VectorLayer

POLYGON, NOT_POLYGON, WITHOUT_CLASS = 0, 1, 2
"""Kinds of features; points and lines are not burned, polygons without a class make pixels unlabelled."""


MAX_LISTED = 5
"""Features that a message lists."""


KINDS_FOUND = {
    "repaired": "repaired",
    "null": "without geometry",
    "empty": "empty",
    "not_finite": "with infinite or NaN coordinates",
    "not_polygons": "points or lines",
    "without_class": "without a class",
    "dropped": "unlabelled by the class mapping",
}
"""The words of messages for the keys of counts."""


@dataclass(frozen=True, slots=True, eq=False)
class LabelRules:
    """How features of a layer become polygons with a class code and a drawing order."""

    class_field: str | None = None
    """None: all features have code 1."""

    table: ClassTable | None = None
    ranks: NDArray[np.intp] = field(default_factory=lambda: np.zeros(256, np.intp))
    """(256,) rank of each code; higher ranks lie on top."""

    priority_field: str | None = None
    buffer: float = 0.0
    """Metres by which lines and points are widened."""

    @property
    def columns(self) -> list[str]:
        """The fields to read."""
        return [name for name in dict.fromkeys((self.class_field, self.priority_field)) if name is not None]


@dataclass(frozen=True, slots=True, eq=False)
class LabelFeatures:
    """Features with a geometry, the lowest first."""

    shapes: NDArray[np.object_]
    codes: NDArray[np.uint8]
    """(n,) class codes; IGNORE_INDEX without a class, or where the class mapping makes a value unlabelled."""

    kinds: NDArray[np.uint8]
    """(n,) POLYGON, NOT_POLYGON or WITHOUT_CLASS."""

    repaired: NDArray[np.bool_]
    keys: NDArray[np.float64]
    """(n, 4) sort keys: rank of the class, priority field, minus the area (smaller on top), position in the file."""

    def __len__(self) -> int:
        return len(self.shapes)

    def take(self, rows: NDArray[Any]) -> LabelFeatures:
        return LabelFeatures(
            self.shapes[rows], self.codes[rows], self.kinds[rows], self.repaired[rows], self.keys[rows]
        )

    def polygons(self) -> LabelFeatures:
        """Return the features that are burned."""
        burned = self.kinds != NOT_POLYGON
        return self if burned.all() else self.take(burned)

    def in_order(self) -> LabelFeatures:
        """Return the features sorted by `keys`."""
        return self.take(np.lexsort(self.keys.T[::-1]))


def concatenate(parts: Sequence[LabelFeatures]) -> LabelFeatures:
    """Concatenate features, in the order given."""
    names = ("shapes", "codes", "kinds", "repaired", "keys")
    return LabelFeatures(*(np.concatenate([getattr(part, name) for part in parts]) for name in names))


@dataclass(frozen=True, slots=True)
class LeftOut:
    """Rows that cannot be features."""

    null: int
    empty: int
    endless: tuple[int, ...]
    """Numbers of the features with a vertex that is infinite or NaN."""

    def counts(self) -> dict[str, int]:
        """Return how many there are of each kind."""
        endless = {"not_finite": len(self.endless)} if self.endless else {}
        return {"null": self.null, "empty": self.empty, **endless}

    def notes(self, source: str, *, told: Collection[int] = ()) -> tuple[str, ...]:
        """Return a note of features that should be repaired, but for those that the user was told of."""
        new = [number for number in self.endless if number not in told]
        if not new:
            return ()
        listed = ", ".join(map(str, new[:MAX_LISTED])) + ", ..." * (len(new) > MAX_LISTED)
        count = format_count(len(new), "feature")
        return (f"{count} of {source} with infinite or NaN coordinates left out: feature {listed}",)


def read_features(frame: gpd.GeoDataFrame, rules: LabelRules, source: str) -> tuple[LabelFeatures, LeftOut]:
    """Return the features of a table in drawing order, and the rows that were left out."""
    shapes = frame.geometry.to_numpy()
    null = shapely.is_missing(shapes)
    empty = shapely.is_empty(shapes) & ~null
    endless = ~finite(shapes)
    left_out = LeftOut(int(null.sum()), int(empty.sum()), tuple(map(int, frame.index[endless])))
    frame = frame[~(null | empty | endless)]
    shapes, repaired, areal = valid_polygons(
        frame.geometry.to_numpy(), crs=pyproj.CRS.from_user_input(frame.crs), buffer=rules.buffer
    )
    codes, known = _codes(frame, rules)
    kinds = np.where(areal, np.where(known, POLYGON, WITHOUT_CLASS), NOT_POLYGON).astype(np.uint8)
    keys = [
        rules.ranks[codes],
        _priority_values(frame, rules, source),
        -shapely.area(shapes),
        frame.index.to_numpy(float),
    ]
    features = LabelFeatures(shapes, codes, kinds, repaired, np.column_stack(keys)).in_order()
    return features, left_out


def _codes(frame: gpd.GeoDataFrame, rules: LabelRules) -> tuple[NDArray[np.uint8], NDArray[np.bool_]]:
    """Return (n,) class codes, and (n,) True where a feature has a class."""
    if rules.class_field is None or rules.table is None:
        return np.ones(len(frame), np.uint8), np.ones(len(frame), bool)
    return rules.table.codes_of(frame[rules.class_field])


def _priority_values(frame: gpd.GeoDataFrame, rules: LabelRules, source: str) -> NDArray[np.float64]:
    """Return the values of the priority field; -inf where there is none, so that such features lie below."""
    if rules.priority_field is None:
        return np.zeros(len(frame))
    try:
        values = pd.to_numeric(frame[rules.priority_field]).to_numpy(dtype=float, na_value=np.nan)
    except (TypeError, ValueError) as error:
        raise LabelError(
            f"The field {rules.priority_field!r} of {source} does not contain numbers ({format_error(error)}). "
            "Choose a numeric field as `priority_field`."
        ) from error
    return np.asarray(np.where(np.isnan(values), -np.inf, values))


def count_features(features: LabelFeatures) -> dict[str, Any]:
    """Count features: polygons by class code, repaired, not polygons, without a class, dropped by the mapping."""
    polygon = features.kinds == POLYGON
    dropped = polygon & (features.codes == IGNORE_INDEX)
    codes, numbers = np.unique(features.codes[polygon & ~dropped], return_counts=True)
    return {
        "polygons": dict(zip(codes.tolist(), numbers.tolist(), strict=True)),
        "repaired": int((features.repaired & (features.kinds != NOT_POLYGON)).sum()),
        "not_polygons": int((features.kinds == NOT_POLYGON).sum()),
        "without_class": int((features.kinds == WITHOUT_CLASS).sum()),
        "dropped": int(dropped.sum()),
    }


def layer_crs(layer: VectorLayer) -> Any:
    """Return the CRS of a layer that `open_layer` opened."""
    assert layer.crs is not None, "open_layer refuses layers without a CRS"
    return layer.crs


def read_all_features(layer: VectorLayer, columns: Sequence[str]) -> gpd.GeoDataFrame:
    """Read all features of a layer, with some of its fields.

    Raises:
        LabelError: if there are none.
    """
    frame = layer.read(columns)
    if not isinstance(frame, gpd.GeoDataFrame) or not len(frame):
        raise LabelError(f"{layer.source} contains no features, or none that `where` selects. Choose other ones.")
    return frame


def require_polygons(features: LabelFeatures, left_out: LeftOut, source: str, buffer: float) -> dict[str, int]:
    """Count the features of each kind, and check that there is a polygon.

    Args:
        features: All features that have a geometry.
        left_out: The other rows.
        source: The name of the layer, for the message.
        buffer: Metres by which lines and points were widened.

    Raises:
        LabelError: if there is no polygon.
    """
    counts = {
        "polygons": int((features.kinds != NOT_POLYGON).sum()),
        "repaired": int(features.repaired.sum()),
        **left_out.counts(),
        "not_polygons": int((features.kinds == NOT_POLYGON).sum()),
        "without_class": int((features.kinds == WITHOUT_CLASS).sum()),
        "dropped": int(((features.kinds == POLYGON) & (features.codes == IGNORE_INDEX)).sum()),
    }
    if not counts["polygons"]:
        found = ", ".join(f"{words}: {counts[key]:,}" for key, words in KINDS_FOUND.items() if counts.get(key))
        advice = "Choose a layer with polygons."
        if counts["not_polygons"] and not buffer:
            advice = "Pass `buffer` to widen points and lines to polygons, in metres."
        raise LabelError(f"{source} contains no polygons ({found or 'nothing'}). {advice}")
    if counts["without_class"] == counts["polygons"]:
        raise LabelError(
            f"{source} contains {format_count(counts['polygons'], 'polygon')}, but none has a class. Choose another "
            "`class_field`, or map null with `class_mapping`."
        )
    return counts
