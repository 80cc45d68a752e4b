"""Polygons or a label raster, burned to class codes on any grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.labels.class_mapping import Background, ClassTarget, Value, mapping_identity
from geopsp.labels.feature_index import FeaturesInMemory, FeaturesOnDisk, features_by_piece
from geopsp.labels.features import count_features
from geopsp.labels.overlap import require_overlap
from geopsp.labels.rasterize import RasterizedLabels, rasterize_polygons
from geopsp.vector.layer import VectorLayer


@dataclass(frozen=True, slots=True, eq=False)
class PolygonLabels:
    """Polygons with a class each."""

    legend: Legend
    features: FeaturesInMemory | FeaturesOnDisk
    background: Background
    all_touched: bool
    layer: VectorLayer
    counts: dict[str, int]
    """What reading found: polygons, repaired, null, empty, not_polygons, without_class; nothing of large files."""

    priority: str
    """Which polygon lies on top, in words."""

    mapping: Mapping[Value, ClassTarget] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        return self.layer.source

    def burn(self, grid: Grid) -> RasterizedLabels:
        """Codes where a pixel's centre lies in a polygon (with `all_touched`, where the polygon touches the pixel).

        Windows of one lattice agree bit for bit where they overlap.
        """
        fill = 0 if self.background == "class" else IGNORE_INDEX
        size = (grid.height, grid.width)
        burned = RasterizedLabels(np.full(size, fill, np.uint8), np.zeros(size, bool))
        for window, found in features_by_piece(self.features, grid):
            place = window.slices(grid.full_window)
            part = rasterize_polygons(
                found.shapes, found.codes, grid.crop(window), fill=fill, all_touched=self.all_touched
            )
            burned.codes[place], burned.conflict[place] = part.codes, part.conflict
        return burned

    def count(self, grid: Grid, window: Window) -> dict[str, Any]:
        """Polygons by code, and what else was found, of which the window is the owner among windows of the grid."""
        return count_features(self.features.owned_by(grid, window))

    def report(self) -> dict[str, Any]:
        notes = [*self.layer.notes, *self.notes]
        if isinstance(self.features, FeaturesInMemory) and (lost := self.features.num_unprojectable):
            notes.append(f"{lost} polygons of {self.source} have no place in the CRS of the image and are left out")
        return {"source": self.source, **self.counts, "priority": self.priority, "notes": notes}

    def require_overlap(self, grid: Grid) -> None:
        """As `overlap.require_overlap`."""
        require_overlap(self.features, grid, self.source)

    def fingerprint(self) -> list[str]:
        """What tells the file and the mapping from others."""
        return [*self.layer.fingerprint(), *mapping_identity(self.mapping)]
