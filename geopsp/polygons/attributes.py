"""The attribute table: class, size, confidence and a point of each polygon."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
from numpy.typing import NDArray

from geopsp.core.grid import Grid
from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX, ClassInfo, Legend
from geopsp.polygons.borders.topology import to_crs
from geopsp.polygons.features import Features
from geopsp.polygons.ground_metric import GroundMetric, lengths
from geopsp.polygons.wkb import encode_wkb
from geopsp.polygons.zonal_stats import (
    AREA,
    CONFIDENCE_SUM,
    NUM_CONFIDENT,
    NUM_EDGE,
    NUM_PIXELS,
    NUM_SECOND,
    NUM_UNSURE,
    SECOND_SUM,
)
from geopsp.raster.legend_io import read_class_table

Floats = NDArray[np.float64]


GEOMETRY = pa.field("geometry", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})


@dataclass(frozen=True, slots=True, eq=False)
class Measures:
    """What the columns tell of features."""

    codes: NDArray[np.uint8]
    """(features,)"""

    sums: Floats
    """(features, NUM_SUMS) zonal sums."""

    pixels: Floats
    """(features,) areas in square pixels."""

    perimeters: Floats
    """(features,) lengths of all rings in metres."""

    points: Floats
    """(features, 2) columns and rows of a point inside."""

    widths: Floats
    """(features,) lengths, in pixels, of the parts inside of horizontal lines with these points in the middle."""

    moved: Floats | None
    """(features,) largest distance in metres by which corners were moved; None: outlines are not regularized."""

    def joined(self, other: Measures) -> Measures:
        """Return the measures of the features together with those of the other one, each with its counterpart."""
        moved = None if self.moved is None or other.moved is None else np.maximum(self.moved, other.moved)
        is_wider = other.widths > self.widths
        return Measures(
            self.codes,
            self.sums + other.sums,
            self.pixels + other.pixels,
            self.perimeters + other.perimeters,
            np.where(is_wider[:, None], other.points, self.points),
            np.maximum(self.widths, other.widths),
            moved,
        )

    def take(self, indices: NDArray[np.intp]) -> Measures:
        """Return the measures of some features."""
        moved = None if self.moved is None else self.moved[indices]
        return Measures(
            self.codes[indices],
            self.sums[indices],
            self.pixels[indices],
            self.perimeters[indices],
            self.points[indices],
            self.widths[indices],
            moved,
        )


@dataclass(frozen=True, slots=True, eq=False)
class AttributeTable:
    """The columns of all polygons of a run."""

    grid: Grid
    """Grid of the map."""

    metric: GroundMetric
    """Pixel sizes of the grid."""

    legend: Legend
    """Must have every code of the map."""

    values: NDArray[np.int64] | None = None
    """Values of the file for which the codes stand, see `ClassRaster.values`."""

    has_confidence: bool = False
    """True if there is a confidence raster."""

    has_second: bool = False
    """True if there are two, as of the two maps of a change; the column of the second is `confidence_2`."""

    has_moved: bool = False
    """True if outlines are regularized."""

    in_wgs84: bool = False
    """True for points in longitude and latitude (WGS 84), False for points in the CRS of the map."""

    @property
    def schema(self) -> pa.Schema:
        numbers = ["area_m2", "perimeter_m"]
        numbers += ["confidence", "edge_unsure"] if self.has_confidence else []
        numbers += ["confidence_2"] if self.has_second else []
        numbers += ["moved_m"] if self.has_moved else []
        numbers += ["point_x", "point_y"]
        fields = [pa.field("code", self._code_type), pa.field("name", pa.string()), pa.field("color", pa.string())]
        return pa.schema([*fields, *(pa.field(name, pa.float64()) for name in numbers), GEOMETRY])

    @property
    def _code_type(self) -> pa.DataType:
        if self.values is None:
            return pa.int16()
        return pa.int32() if np.abs(self.values).max() < 2**31 else pa.int64()

    def to_batch(self, features: Features, *, moved: Floats | None = None) -> pa.RecordBatch:
        """Return one row per feature; unknown values are null.

        Args:
            features: Traced, dissolved or regularized features.
            moved: (features,) distances in metres by which corners were moved, if `has_moved`.

        Raises:
            OutputError: if the geometries are too large for one batch.
        """
        return self.rows(self.measure(features, moved=moved), encode_wkb(features, self.grid.transform))

    def measure(self, features: Features, *, moved: Floats | None = None) -> Measures:
        """Return what the columns tell of features; arguments as of `to_batch`."""
        outlines = features.outlines
        of_rings = lengths(outlines.xy, outlines.rings, self.metric)
        points, widths = _widest_lines(features)
        return Measures(
            features.codes,
            features.sums,
            areas_in_pixels(features),
            np.add.reduceat(of_rings, outlines.polygons[features.parts[:-1]]),
            points,
            widths,
            moved,
        )

    def rows(self, measures: Measures, geometries: Any) -> pa.RecordBatch:
        """Return one row per feature, with its geometry in a (features,) array of WKB."""
        codes, classes = measures.codes, pa.array(np.searchsorted(self.legend.codes, measures.codes))
        columns = [
            pa.array(codes if self.values is None else self.values[codes], self._code_type),
            pa.array(self.legend.names).take(classes),
            pa.array([info.color for info in self.legend]).take(classes),
            *(pa.array(values, from_pandas=True) for values in self._numbers(measures)),
            geometries,
        ]
        return pa.record_batch(columns, schema=self.schema)

    def _numbers(self, measures: Measures) -> Iterator[Floats]:
        """Yield the columns of numbers in the order of the schema; unknown values are NaN."""
        sums = measures.sums.T
        yield measures.pixels * _ratio(sums[AREA], sums[NUM_PIXELS])
        yield measures.perimeters
        if self.has_confidence:
            yield _ratio(sums[CONFIDENCE_SUM], sums[NUM_CONFIDENT])
            yield _ratio(sums[NUM_UNSURE], sums[NUM_EDGE])
        if self.has_second:
            yield _ratio(sums[SECOND_SUM], sums[NUM_SECOND])
        if self.has_moved:
            assert measures.moved is not None
            yield measures.moved
        yield from self._in_crs(measures.points)

    def _in_crs(self, points: Floats) -> tuple[Floats, Floats]:
        """Return (x, y) of points in columns and rows."""
        x, y = to_crs(points, self.grid.transform).T
        if not self.in_wgs84:
            return x, y
        to_wgs84 = pyproj.Transformer.from_crs(self.grid.crs, "EPSG:4326", always_xy=True)
        angles: Any = to_wgs84.transform(x, y)
        lon, lat = (np.where(np.isfinite(angle), angle, np.nan) for angle in angles)
        return lon - 360 * np.round(lon / 360), lat  # GeoJSON needs longitudes from -180 to 180


def areas_in_pixels(features: Features) -> Floats:
    """Return (features,) areas in square pixels."""
    outlines = features.outlines
    x, y = outlines.xy.T
    strips = (x[1:] + x[:-1]) * np.diff(y)
    strips[outlines.rings[1:-1] - 1] = 0  # between the end of a ring and the start of the next
    areas: Floats = np.abs(np.add.reduceat(strips, outlines.rings[outlines.polygons[features.parts[:-1]]])) / 2
    return areas


def legend_for(raster: str | Path, values: NDArray[np.int64] | None = None) -> Legend:
    """Return a legend of all codes from 0 to 254; those that the raster's class table lacks are named `class N`.

    Args:
        raster: A class raster.
        values: The values of the file for which the codes stand, see `ClassRaster.values`.

    Raises:
        InputNotFoundError, RasterError: if there is no such raster, or its classes tag is damaged.
    """
    names, colors = read_class_table(raster)
    found = range(IGNORE_INDEX) if values is None else values.tolist()
    return Legend.from_names(
        {code: names.get(value, f"class {value}") for code, value in enumerate(found)},
        {code: colors[value] for code, value in enumerate(found) if value in colors},
    )


def file_classes(legend: Legend, values: NDArray[np.int64] | None = None) -> list[ClassInfo]:
    """Return the classes with the codes that the file has."""
    return list(legend) if values is None else [replace(info, code=int(values[info.code])) for info in legend]


def _ratio(part: Floats, whole: Floats) -> Floats:
    """Return part / whole; NaN where `whole` is 0."""
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)


def representative_points(features: Features) -> Floats:
    """Return (features, 2) columns and rows of a point inside each feature, not on its outline.

    It is the middle of the longest part inside the feature of a horizontal line through the middle of its polygon.

    Source: JTS, InteriorPointArea.
    """
    return _widest_lines(features)[0]


def _widest_lines(features: Features) -> tuple[Floats, Floats]:
    """Return the representative points, and (features,) lengths of the parts of lines in whose middle they are."""
    outlines = features.outlines
    most_rings = int(np.diff(outlines.rings[outlines.polygons]).max(initial=0))
    points, widths = np.full((len(features), 2), np.nan), np.zeros(len(features))
    _write_points(outlines.xy, outlines.rings, outlines.polygons, features.parts, np.empty(most_rings), points, widths)
    return points, widths


@jit("f8[:, ::1]", "i8[::1]", "i8[::1]", "i8[::1]", "f8[::1]", "f8[:, ::1]", "f8[::1]")
def _write_points(xy, rings, polygons, parts, crossings, points, widths):  # type: ignore[no-untyped-def]
    """Write points and lengths; of several polygons, the one with the longest line inside counts."""
    for feature in range(parts.size - 1):
        for polygon in range(parts[feature], parts[feature + 1]):
            low, high = rings[polygons[polygon]], rings[polygons[polygon + 1]]
            y = _line_without_vertices(xy, low, high)
            count = _cross(xy, rings, polygons[polygon], polygons[polygon + 1], y, crossings)
            if count > 2:
                crossings[:count].sort()
            for at in range(0, count - 1, 2):
                one, other = crossings[at], crossings[at + 1]
                if abs(other - one) > widths[feature]:
                    widths[feature] = abs(other - one)
                    points[feature, 0], points[feature, 1] = (one + other) / 2, y


@jit()
def _line_without_vertices(xy, low, high):  # type: ignore[no-untyped-def]
    """Return the y of a horizontal line near the middle of a polygon that goes through no vertex."""
    top, bottom = np.inf, -np.inf
    for at in range(low, high):
        top, bottom = min(top, xy[at, 1]), max(bottom, xy[at, 1])
    middle = (top + bottom) / 2
    for at in range(low, high):
        if xy[at, 1] <= middle:
            top = max(top, xy[at, 1])
        else:
            bottom = min(bottom, xy[at, 1])
    return (top + bottom) / 2


@jit()
def _cross(xy, rings, first, last, y, crossings):  # type: ignore[no-untyped-def]
    """Write the x where edges cross a horizontal line to `crossings`; return how many they are."""
    count = 0
    for ring in range(first, last):
        for at in range(rings[ring], rings[ring + 1] - 1):
            above, below = xy[at, 1], xy[at + 1, 1]
            if (above < y) != (below < y):
                crossings[count] = xy[at, 0] + (y - above) / (below - above) * (xy[at + 1, 0] - xy[at, 0])
                count += 1
    return count
