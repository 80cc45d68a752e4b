"""Turn traced features into rows of the attribute table, dissolved and regularized if asked for."""

from __future__ import annotations

from collections.abc import Generator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geopsp.core.grid import Window
from geopsp.core.paths import is_local
from geopsp.core.progress import Progress
from geopsp.polygons.attributes import AttributeTable
from geopsp.polygons.borders.regularize import regularize_outlines
from geopsp.polygons.borders.trace_raster import TRACE_CELL, trace_raster
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.confidence import Confidence
from geopsp.polygons.dask_cells import trace_on_cluster
from geopsp.polygons.features import Features, concatenate, dissolve, take
from geopsp.polygons.ground_metric import lengths, square_pixels
from geopsp.polygons.options import PolygonSettings

GENERALIZED_CELL = 2048
"""Width and height of a cell, in pixels, if arcs are simplified or smoothed. Large, as both cost more at seams."""


BATCH_FEATURES = 50_000
"""Features per batch, if all features are needed before the first batch."""


MAX_MOVE = 2.0
"""Default limit, in pixels, of the distance by which regularized corners move."""


Floats = NDArray[np.float64]

COMPILED = (
    "ground_metric", "zonal_stats", "attributes", "wkb", "borders.trace_arcs", "borders.trace_cell", "borders.rings",
    "borders.topology", "borders.stitch", "borders.seam_nodes",
)  # fmt: skip
"""Modules with compiled functions that every run needs."""


def compiled_modules(settings: PolygonSettings) -> list[str]:
    """Return the modules with the compiled functions that a run with these settings needs, in the order of need."""
    needed = {
        "regions.region_graph": settings.min_area or settings.fill_holes,
        "regions.fill_holes": settings.fill_holes,
        "regions.merge_small": settings.min_area,
        **dict.fromkeys(COMPILED, True),
        "borders.point_set": settings.simplify or settings.smooth,
        "borders.simplify": settings.simplify,
        "borders.seam_simplify": settings.simplify,
        "borders.smooth": settings.smooth,
        "borders.seam_smoothing": settings.smooth,
        "borders.regularize": settings.regularize,
    }
    return ["geopsp.core.connected_regions", *(f"geopsp.polygons.{name}" for name, wanted in needed.items() if wanted)]


@dataclass(frozen=True, slots=True, eq=False)
class Polygonizer:
    """The options of a run, and the attribute table of its raster."""

    settings: PolygonSettings
    table: AttributeTable

    def batches(
        self, raster: ClassRaster, confidence: Confidence | None, progress: Progress | None, *, client: Any = None
    ) -> Generator[pa.RecordBatch]:
        """Yield the rows of all polygons: as they are finished, or at the end if dissolved or regularized.

        Args:
            raster: Class codes.
            confidence: On the same grid.
            progress: Called after each cell.
            client: A Dask client, whose workers trace the cells; None: this process does.
        """
        settings = self.settings
        generalized = settings.simplify or settings.smooth
        on_cluster = None
        if client is not None:
            files = _files(raster, confidence)
            on_cluster = partial(trace_on_cluster, client=client, files=files, close=raster.close)
        trace = partial(
            trace_raster,
            raster,
            self.table.metric,
            connectivity=settings.connectivity,
            selected=settings.selected_codes(self.table.legend, self.table.values),
            min_triangle=self._min_triangle if settings.simplify else None,
            smooth=settings.smooth,
            confidence=confidence,
            cell_size=GENERALIZED_CELL if generalized else TRACE_CELL,
            map_cells=on_cluster,
            progress=progress,
        )
        if not settings.needs_all_features:
            yield from trace(finish=self.table.to_batch)
            return
        features, moved = self._combine(concatenate(list(trace(finish=_unchanged))))
        size = 1 if settings.dissolve else BATCH_FEATURES  # dissolved features may be large
        for first in range(0, len(features), size):
            indices = np.arange(first, min(first + size, len(features)))
            yield self.table.to_batch(take(features, indices), moved=None if moved is None else moved[indices])

    def _min_triangle(self, window: Window) -> float:
        """Return the area below which triangles are simplified, in square pixels, which suits every direction."""
        return square_pixels(self.settings.simplify**2, self.table.metric, self.table.grid, window)

    def _combine(self, features: Features) -> tuple[Features, Floats | None]:
        """Regularize, then dissolve; also return the largest distance in metres that corners of each feature moved."""
        moved = None
        if self.settings.regularize and len(features):
            features, moved = self._regularize(features)
        if self.settings.dissolve:
            features, starts = dissolve(features)
            moved = None if moved is None or not starts.size else np.maximum.reduceat(moved, starts)
        return features, moved

    def _regularize(self, features: Features) -> tuple[Features, Floats]:
        outlines = features.outlines
        pixels = self._pixel_sizes(outlines.xy[outlines.rings[outlines.polygons[:-1]]])
        option = self.settings.regularize
        tolerance = MAX_MOVE * float(np.median(pixels.max(axis=1))) if option is True else float(option)
        outlines, moved = regularize_outlines(outlines, tolerance=tolerance, pixel=pixels)
        return replace(features, outlines=outlines), np.maximum.reduceat(moved, features.parts[:-1])

    def _pixel_sizes(self, xy: Floats) -> Floats:
        """Return (n, 2) widths and heights, in metres, of the pixels at (n, 2) columns and rows."""
        corners = np.array([[0, 0], [1, 0], [0, 0], [0, 1]])
        lines = (xy[:, None] + corners).reshape(-1, 2)
        return lengths(lines, np.arange(0, len(lines) + 1, 2), self.table.metric).reshape(-1, 2)


def _files(raster: ClassRaster, confidence: Confidence | None) -> list[str]:
    """Return the full paths of the rasters that are read."""
    sources = [] if confidence is None else [source.path for source in confidence.scene.sources]
    return [str(Path(path).absolute()) if is_local(path) else str(path) for path in (raster.path, *sources)]


def _unchanged(features: Features) -> Features:
    return features
