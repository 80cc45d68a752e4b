"""Finished features as rows of a table."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geopsp.core.progress import Progress
from geopsp.polygons.attributes import AttributeTable
from geopsp.polygons.borders.regularize import regularize_outlines
from geopsp.polygons.borders.simplify import simplify_arcs
from geopsp.polygons.borders.trace_raster import CELL, trace_raster
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.confidence import Confidence
from geopsp.polygons.features import Features, concatenate, dissolve, take
from geopsp.polygons.ground_metric import lengths
from geopsp.polygons.options import PolygonSettings

GENERALIZED_CELL = 2048
"""Pixels on a side of a cell where arcs are simplified or smoothed: seams, where both cost more, are few."""


BATCH_FEATURES = 50_000
"""Features of a batch, where all are there at once."""


PIXELS = 2.0
"""How far regularized corners may move."""


Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Polygonizer:
    """One run: what is asked for, and of which raster."""

    settings: PolygonSettings
    table: AttributeTable

    def batches(
        self, codes: ClassRaster, confidence: Confidence | None, progress: Progress | None
    ) -> Generator[pa.RecordBatch]:
        """The rows of all polygons, as they are finished; all at the end where each needs to know of the others."""
        asked = self.settings
        trace = partial(
            trace_raster,
            codes,
            self.table.metric,
            connectivity=asked.connectivity,
            wanted=asked.selected_codes(self.table.legend),
            shape=partial(simplify_arcs, least=self._least()) if asked.simplify else None,
            least=self._least(),
            smooth=asked.smooth,
            confidence=confidence,
            cell=GENERALIZED_CELL if asked.simplify or asked.smooth else CELL,
            progress=progress,
        )
        if not asked.needs_all_features:
            yield from trace(finish=self.table.batch)
            return
        features, moved = self._together(concatenate(list(trace(finish=_as_it_is))))
        size = 1 if asked.dissolve else BATCH_FEATURES  # each may be large
        for first in range(0, len(features), size):
            some = np.arange(first, min(first + size, len(features)))
            yield self.table.batch(take(features, some), moved=None if moved is None else moved[some])

    def _least(self) -> float:
        """The area of the triangles that are simplified, in square pixels: the same in every direction."""
        return self.settings.simplify**2 / abs(self.table.grid.transform.determinant)

    def _together(self, features: Features) -> tuple[Features, Floats | None]:
        """Features regularized, then dissolved; and by how many metres the corners of each moved at most."""
        moved = None
        if self.settings.regularize and len(features):
            features, moved = self._regular(features)
        if self.settings.dissolve:
            features, starts = dissolve(features)
            moved = None if moved is None or not starts.size else np.maximum.reduceat(moved, starts)
        return features, moved

    def _regular(self, features: Features) -> tuple[Features, Floats]:
        lines = features.outlines
        sizes = self._pixels(lines.xy[lines.rings[lines.polygons[:-1]]])
        asked = self.settings.regularize
        tolerance = PIXELS * float(np.median(sizes.max(axis=1))) if asked is True else float(asked)
        lines, moved = regularize_outlines(lines, tolerance=tolerance, pixel=sizes)
        return replace(features, outlines=lines), np.maximum.reduceat(moved, features.parts[:-1])

    def _pixels(self, places: Floats) -> Floats:
        """(places, 2) width and height, in metres, of the pixels at columns and rows."""
        steps = np.array([[0, 0], [1, 0], [0, 0], [0, 1]])
        xy = (places[:, None] + steps).reshape(-1, 2)
        return lengths(xy, np.arange(0, len(xy) + 1, 2), self.table.metric).reshape(-1, 2)


def _as_it_is(features: Features) -> Features:
    return features
