"""What a file of polygons says of each: its class, its size on the ground, how sure the map is of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyproj
from numpy.typing import NDArray

from geopsp.core.grid import Grid
from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.polygons.borders.topology import RaggedPolygons, to_crs
from geopsp.polygons.features import Features
from geopsp.polygons.ground_metric import GroundMetric, lengths
from geopsp.polygons.wkb import wkb
from geopsp.polygons.zonal_stats import CONFIDENCE_SUM, EDGE, GROUND, NUM_CONFIDENT, NUM_UNSURE, PIXELS
from geopsp.raster.legend_io import read_legend

Floats = NDArray[np.float64]


GEOMETRY = pa.field("geometry", pa.binary(), metadata={"ARROW:extension:name": "geoarrow.wkb"})


@dataclass(frozen=True, slots=True, eq=False)
class AttributeTable:
    """The columns that all polygons of a run have."""

    grid: Grid
    """Of the map."""

    metric: GroundMetric
    """Of the grid."""

    legend: Legend
    """Of every code that may come."""

    has_confidence: bool = False
    """True if a raster tells how sure the map is."""

    moved: bool = False
    """True if corners were moved and it is told how far."""

    in_wgs84: bool = False
    """True if points are wanted in longitude and latitude (WGS 84), else in the CRS of the map."""

    @property
    def schema(self) -> pa.Schema:
        numbers = ["area_m2", "perimeter_m"]
        numbers += ["confidence", "edge_unsure"] if self.has_confidence else []
        numbers += ["moved_m"] if self.moved else []
        numbers += ["point_x", "point_y"]
        fields = [pa.field("code", pa.int16()), pa.field("name", pa.string()), pa.field("color", pa.string())]
        return pa.schema([*fields, *(pa.field(name, pa.float64()) for name in numbers), GEOMETRY])

    def batch(self, features: Features, *, moved: Floats | None = None) -> pa.RecordBatch:
        """One row a feature; null where nothing is known.

        Args:
            features: What was traced, or made of it.
            moved: (features,) metres by which corners were moved, where the table tells it.

        Raises:
            OutputError: if they are too large for one batch.
        """
        places = np.searchsorted(self.legend.codes, features.codes)
        columns = [
            pa.array(features.codes.astype(np.int16)),
            pa.array(self.legend.names).take(pa.array(places)),
            pa.array([info.color for info in self.legend]).take(pa.array(places)),
            *(pa.array(values, from_pandas=True) for values in self._numbers(features, moved)),
            wkb(features, self.grid.transform),
        ]
        return pa.record_batch(columns, schema=self.schema)

    def _numbers(self, features: Features, moved: Floats | None) -> Iterator[Floats]:
        """Columns in the order of the schema; NaN where nothing is known."""
        sums = features.sums.T
        yield pixels(features.outlines, features.parts) * _share(sums[GROUND], sums[PIXELS])
        yield self._perimeters(features)
        if self.has_confidence:
            yield _share(sums[CONFIDENCE_SUM], sums[NUM_CONFIDENT])
            yield _share(sums[NUM_UNSURE], sums[EDGE])
        if self.moved:
            assert moved is not None
            yield moved
        yield from self._points(features)

    def _perimeters(self, features: Features) -> Floats:
        """(features,) metres of all rings."""
        lines = features.outlines
        around = lengths(lines.xy, lines.rings, self.metric)
        found: Floats = np.add.reduceat(around, lines.polygons[features.parts[:-1]])
        return found

    def _points(self, features: Features) -> tuple[Floats, Floats]:
        """(x, y) of a point inside each."""
        x, y = to_crs(representative_points(features), self.grid.transform).T
        if not self.in_wgs84:
            return x, y
        to_degrees = pyproj.Transformer.from_crs(self.grid.crs, "EPSG:4326", always_xy=True)
        found: Any = to_degrees.transform(x, y)
        lon, lat = (np.where(np.isfinite(angle), angle, np.nan) for angle in found)
        return lon - 360 * np.round(lon / 360), lat  # as GeoJSON has it across the antimeridian


def pixels(outlines: RaggedPolygons, parts: NDArray[np.int64]) -> Floats:
    """(features,) areas in squared pixels.

    Args:
        outlines: Their polygons.
        parts: (features + 1,) where each begins among the polygons, and the end.
    """
    x, y = outlines.xy.T
    strips = (x[1:] + x[:-1]) * np.diff(y)
    strips[outlines.rings[1:-1] - 1] = 0  # from a ring to the next one
    found: Floats = np.abs(np.add.reduceat(strips, outlines.rings[outlines.polygons[parts[:-1]]])) / 2
    return found


def legend_for(raster: str | Path) -> Legend:
    """All codes from 0 to 254: named and coloured as the raster says, those that it does not know `class N`.

    Raises:
        InputNotFoundError, RasterError: if there is no such raster, or our tag in it is damaged.
    """
    told = {info.code: info for info in read_legend(raster) or ()}
    names = {code: told[code].name if code in told else f"class {code}" for code in range(IGNORE_INDEX)}
    return Legend.from_names(names, {code: info.color for code, info in told.items()})


def _share(part: Floats, whole: Floats) -> Floats:
    """What part it is; NaN of nothing."""
    return np.divide(part, whole, out=np.full_like(whole, np.nan), where=whole > 0)


def representative_points(features: Features) -> Floats:
    """(features, 2) columns and rows of a point inside each, off its outline: amid the widest part of a line across it.

    Source: JTS, InteriorPointArea.
    """
    outlines = features.outlines
    most = int(np.diff(outlines.rings[outlines.polygons]).max(initial=0))
    found = np.full((len(features), 2), np.nan)
    _across(outlines.xy, outlines.rings, outlines.polygons, features.parts, np.empty(most), found)
    return found


@jit
def _across(xy, rings, polygons, parts, crossings, found):  # type: ignore[no-untyped-def]
    """Fills in the points; of several polygons, that of the widest."""
    for feature in range(parts.size - 1):
        widest = 0.0
        for polygon in range(parts[feature], parts[feature + 1]):
            low, high = rings[polygons[polygon]], rings[polygons[polygon + 1]]
            y = _level(xy, low, high)
            count = _crossings(xy, rings, polygons[polygon], polygons[polygon + 1], y, crossings)
            if count > 2:
                crossings[:count].sort()
            for place in range(0, count - 1, 2):
                one, other = crossings[place], crossings[place + 1]
                if abs(other - one) > widest:
                    widest = abs(other - one)
                    found[feature, 0], found[feature, 1] = (one + other) / 2, y


@jit
def _level(xy, low, high):  # type: ignore[no-untyped-def]
    """A row amid the polygon on which no vertex lies."""
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


@jit
def _crossings(xy, rings, first, last, y, crossings):  # type: ignore[no-untyped-def]
    """How many edges cross a row; fills in where."""
    count = 0
    for ring in range(first, last):
        for at in range(rings[ring], rings[ring + 1] - 1):
            above, below = xy[at, 1], xy[at + 1, 1]
            if (above < y) != (below < y):
                crossings[count] = xy[at, 0] + (y - above) / (below - above) * (xy[at + 1, 0] - xy[at, 0])
                count += 1
    return count
