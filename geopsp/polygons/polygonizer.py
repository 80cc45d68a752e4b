"""Turn traced features into rows of the attribute table, dissolved and regularized if asked for."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from contextlib import closing
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pyarrow as pa

from geopsp.core.disk_array import ScratchArrays
from geopsp.core.grid import Window
from geopsp.core.paths import is_local
from geopsp.core.progress import Progress
from geopsp.polygons.attributes import AttributeTable
from geopsp.polygons.borders.trace_raster import TRACE_CELL, trace_raster
from geopsp.polygons.class_features import ClassFeatures, class_parts
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.confidence import Confidence
from geopsp.polygons.dask_cells import trace_on_cluster
from geopsp.polygons.features import Features
from geopsp.polygons.ground_metric import square_pixels
from geopsp.polygons.options import PolygonSettings
from geopsp.polygons.regular_features import regular_features
from geopsp.polygons.wkb import MAX_BYTES
from geopsp.vector.write import Pack, Rows, as_they_are

GENERALIZED_CELL = 2048
"""Width and height of a cell, in pixels, if arcs are simplified or smoothed. Large, as both cost more at seams."""


IN_MEMORY = 2**22
"""Bytes of a table or of the polygons of a class that stay in memory; more go to a file."""


COMPILED = (
    "ground_metric", "zonal_stats", "attributes", "wkb", "borders.trace_arcs", "borders.trace_cell", "borders.rings",
    "borders.topology", "borders.stitch", "borders.seam_nodes",
)  # fmt: skip
"""Modules with compiled functions that every run needs."""


def compiled_modules(settings: PolygonSettings) -> list[str]:
    """Return the modules with the compiled functions that a run with these settings needs, in the order of need."""
    needed = {
        "regions.cell_graph": settings.min_area or settings.fill_holes,
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
    modules = [f"geopsp.polygons.{name}" for name, wanted in needed.items() if wanted]
    return ["geopsp.core.connected_regions", *modules, "geopsp.vector.wkb_boxes"]


@dataclass(frozen=True, slots=True, eq=False)
class Polygonizer:
    """The options of a run, and the attribute table of its raster."""

    settings: PolygonSettings
    table: AttributeTable

    folder: Path
    """For temporary files if polygons are dissolved or regularized; they vanish at the end."""

    max_geometry_bytes: int = MAX_BYTES
    """Of one feature; dissolved ones may come near."""

    pack: Pack = as_they_are
    """Prepares rows for the file, where their cell is traced."""

    def batches(
        self, raster: ClassRaster, confidence: Confidence | None, progress: Progress | None, *, client: Any = None
    ) -> Generator[Rows]:
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
        if settings.regularize:
            features = trace(finish=_unchanged)
            with closing(features):
                yield from self._regular(features)
        elif settings.dissolve:
            classes = self._class_features()
            with closing(trace(finish=partial(class_parts, self.table))) as found:
                for parts in found:
                    classes.add(parts)
            yield from classes.batches()
        else:
            yield from trace(finish=partial(_packed_rows, self.table, self.pack))

    def _regular(self, features: Iterator[Features]) -> Iterator[pa.RecordBatch]:
        """Yield the rows of right-angled features, dissolved if asked for."""
        regular = regular_features(features, self.settings.regularize, self.table.metric, self._arrays)
        if not self.settings.dissolve:
            yield from (self.table.to_batch(batch, moved=moved) for batch, moved in regular)
            return
        classes = self._class_features()
        for batch, moved in regular:
            classes.add(class_parts(self.table, batch, moved))
        yield from classes.batches()

    def _class_features(self) -> ClassFeatures:
        return ClassFeatures(self.table, self._arrays, self.max_geometry_bytes)

    @property
    def _arrays(self) -> ScratchArrays:
        return ScratchArrays(self.folder, in_memory=IN_MEMORY)

    def _min_triangle(self, window: Window) -> float:
        """Return the area below which triangles are simplified, in square pixels, which suits every direction."""
        return square_pixels(self.settings.simplify**2, self.table.metric, self.table.grid, window)


def _files(raster: ClassRaster, confidence: Confidence | None) -> list[str]:
    """Return the full paths of the rasters that are read."""
    sources = [] if confidence is None else [source.path for source in confidence.scene.sources]
    return [str(Path(path).absolute()) if is_local(path) else str(path) for path in (raster.path, *sources)]


def _packed_rows(table: AttributeTable, pack: Pack, features: Features) -> Rows:
    return pack(table.to_batch(features))


def _unchanged(features: Features) -> Features:
    return features
