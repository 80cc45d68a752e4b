"""Areas of interest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from geopsp.core.grid import Grid
from geopsp.labels.feature_index import FeaturesInMemory, FeaturesOnDisk, features_by_piece
from geopsp.labels.features import LabelRules, layer_crs, read_all_features, read_features, require_polygons
from geopsp.labels.overlap import require_overlap
from geopsp.labels.rasterize import rasterize_polygons
from geopsp.vector.layer import VectorLayer
from geopsp.vector.open import open_layer


@dataclass(frozen=True, slots=True, eq=False)
class AreaOfInterest:
    """An area of interest: outside of it, nothing is labelled."""

    features: FeaturesInMemory | FeaturesOnDisk
    layer: VectorLayer

    @classmethod
    def read(cls, aoi: str | Path | gpd.GeoDataFrame) -> AreaOfInterest:
        """The polygons of a layer; of a file with several, the one named `aoi`, else the first.

        Raises:
            InputNotFoundError, LabelError: as `open_layer`, or if there are no polygons.
        """
        layer = open_layer(aoi, layer_wanted="aoi")
        if layer.reads_by_bbox:
            return cls(FeaturesOnDisk(layer, LabelRules()), layer)
        found, missing = read_features(read_all_features(layer, []), LabelRules(), layer.source)
        require_polygons(found, missing, layer.source, buffer=1)
        return cls(FeaturesInMemory(found, layer_crs(layer)), layer)

    @property
    def source(self) -> str:
        return self.layer.source

    def inside(self, grid: Grid) -> NDArray[np.bool_]:
        """(rows, cols); True where a pixel's centre lies in the area."""
        mask = np.zeros((grid.height, grid.width), bool)
        for window, found in features_by_piece(self.features, grid):
            part = grid.crop(window)
            if shapely.covers(found.shapes, shapely.polygons(part.corners())).any():
                mask[window.slices(grid.full_window)] = True
                continue
            burned = rasterize_polygons(found.shapes, found.codes, part, fill=0, all_touched=False)
            mask[window.slices(grid.full_window)] = burned.codes > 0
        return mask

    def covers(self, grid: Grid) -> bool:
        """True if the centres of all pixels lie in the area."""
        return bool(self.inside(grid).all())

    def require_overlap(self, grid: Grid) -> None:
        """As `overlap.require_overlap`."""
        require_overlap(self.features, grid, self.source)

    def fingerprint(self) -> list[str]:
        return self.layer.fingerprint()
