"""Areas of interest."""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from geopsp.core.grid import Grid
from geopsp.labels.feature_index import FeaturesInMemory, FeaturesOnDisk, polygons_by_block
from geopsp.labels.features import LabelRules, layer_crs, read_all_features, read_features, require_polygons
from geopsp.labels.overlap import require_overlap
from geopsp.labels.rasterize import rasterize_polygons
from geopsp.vector.layer import VectorLayer
from geopsp.vector.open import open_layer

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True, eq=False)
class AreaOfInterest:
    """Polygons outside of which nothing is labelled or classified."""

    features: FeaturesInMemory | FeaturesOnDisk
    layer: VectorLayer

    @classmethod
    def read(cls, aoi: str | Path | gpd.GeoDataFrame) -> AreaOfInterest:
        """Read the polygons of a layer. Of a file with several layers, the one named "aoi" is read, else the first.

        Raises:
            InputNotFoundError, LabelError: as `open_layer`, or if there are no polygons.
        """
        layer = open_layer(aoi, layer_wanted="aoi")
        if layer.reads_by_bbox:
            return cls(FeaturesOnDisk(layer, LabelRules()), layer)
        features, left_out = read_features(read_all_features(layer, []), LabelRules(), layer.source)
        require_polygons(features, left_out, layer.source, buffer=1)
        for note in left_out.notes(layer.source):
            logger.warning("%s.", note)
        return cls(FeaturesInMemory(features, layer_crs(layer)), layer)

    @property
    def source(self) -> str:
        return self.layer.source

    def inside(self, grid: Grid) -> NDArray[np.bool_]:
        """Return a mask of the grid, (rows, cols): True where a pixel's centre lies in the area."""
        mask = np.zeros((grid.height, grid.width), bool)
        for window, features in polygons_by_block(self.features, grid):
            block = grid.crop(window)
            if shapely.covers(features.shapes, shapely.polygons(block.corners())).any():
                mask[window.slices(grid.full_window)] = True
                continue
            burned = rasterize_polygons(features.shapes, features.codes, block, fill=0, all_touched=False)
            mask[window.slices(grid.full_window)] = burned.codes > 0
        return mask

    def require_overlap(self, grid: Grid) -> None:
        """Check that the area overlaps the grid; see `overlap.require_overlap`."""
        require_overlap(self.features, grid, self.source)

    def fingerprint(self) -> list[str]:
        """Return what identifies the layer."""
        return self.layer.fingerprint()
