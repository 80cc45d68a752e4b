"""Labels from polygons, burned to class codes on any grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.text import format_count
from geopsp.labels.class_mapping import ClassTarget, Value, mapping_identity
from geopsp.labels.class_table import Background
from geopsp.labels.feature_index import FeaturesInMemory, FeaturesOnDisk, polygons_by_block
from geopsp.labels.features import count_features
from geopsp.labels.overlap import require_overlap
from geopsp.labels.rasterize import RasterizedLabels, rasterize_polygons
from geopsp.vector.layer import VectorLayer


@dataclass(frozen=True, slots=True, eq=False)
class PolygonLabels:
    """Polygons, each of one class."""

    legend: Legend
    features: FeaturesInMemory | FeaturesOnDisk
    background: Background
    all_touched: bool
    layer: VectorLayer
    counts: dict[str, int]
    """Features of each kind, as `require_polygons` returns them; {} for large files, which are not read whole."""

    priority: str
    """The order in which overlapping polygons are drawn, in words."""

    mapping: Mapping[Value, ClassTarget] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @property
    def source(self) -> str:
        return self.layer.source

    def burn(self, grid: Grid) -> RasterizedLabels:
        """Burn the polygons that contain a pixel's centre or, with `all_touched`, that touch the pixel.

        Overlapping windows of one grid get the same codes.
        """
        fill = 0 if self.background == "class" else IGNORE_INDEX
        size = (grid.height, grid.width)
        burned = RasterizedLabels(np.full(size, fill, np.uint8), np.zeros(size, bool))
        for window, features in polygons_by_block(self.features, grid):
            block = rasterize_polygons(
                features.shapes, features.codes, grid.crop(window), fill=fill, all_touched=self.all_touched
            )
            rows_cols = window.slices(grid.full_window)
            burned.codes[rows_cols], burned.conflict[rows_cols] = block.codes, block.conflict
        return burned

    def count(self, grid: Grid, window: Window) -> dict[str, Any]:
        """Count the features that a window owns: windows that partition the grid count each once."""
        return count_features(self.features.owned_by(grid, window))

    def report(self) -> dict[str, Any]:
        """Return what chips.json says of the labels: their source, counts, drawing order and notes."""
        notes = [*self.layer.notes, *self.notes]
        if isinstance(self.features, FeaturesInMemory) and (lost := self.features.num_unprojectable):
            notes.append(
                f"{format_count(lost, 'polygon')} of {self.source} cannot be projected into the CRS of the image: "
                "left out"
            )
        return {"source": self.source, **self.counts, "priority": self.priority, "notes": notes}

    def require_overlap(self, grid: Grid) -> None:
        """Check that the polygons overlap the grid; see `overlap.require_overlap`."""
        require_overlap(self.features, grid, self.source)

    def fingerprint(self) -> list[str]:
        """Return what identifies the layer and the class mapping."""
        return [*self.layer.fingerprint(), *mapping_identity(self.mapping)]
