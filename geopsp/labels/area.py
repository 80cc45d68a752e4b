"""Areas of interest."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from geopsp.core.grid import Grid
from geopsp.labels.feature_index import FeatureFile, FeatureIndex, features_by_piece
from geopsp.labels.features import Rules, layer_crs, read_all_features, read_features, require_polygons
from geopsp.labels.overlap import require_overlap
from geopsp.labels.rasterize import burn_shapes
from geopsp.vector.layer import Layer
from geopsp.vector.open import open_layer


@dataclass(frozen=True, slots=True, eq=False)
class Area:
    """An area of interest: outside of it, nothing is labelled."""

    features: FeatureIndex | FeatureFile
    layer: Layer

    @classmethod
    def read(cls, aoi: str | Path | gpd.GeoDataFrame) -> Area:
        """The polygons of a layer; of a file with several, the one named `aoi`, else the first.

        Raises:
            InputNotFoundError, LabelError: as `open_layer`, or if there are no polygons.
        """
        layer = open_layer(aoi, layer_wanted="aoi")
        if layer.by_box:
            return cls(FeatureFile(layer, Rules()), layer)
        found, missing = read_features(read_all_features(layer, []), Rules(), layer.source)
        require_polygons(found, missing, layer.source, buffer=1)
        return cls(FeatureIndex(found, layer_crs(layer)), layer)

    @property
    def source(self) -> str:
        return self.layer.source

    def inside(self, grid: Grid) -> NDArray[np.bool_]:
        """(rows, cols); True where a pixel's centre lies in the area."""
        mask = np.zeros((grid.height, grid.width), bool)
        for window, found in features_by_piece(self.features, grid):
            part = grid.crop(window)
            if shapely.covers(found.shapes, shapely.polygons(part.corners())).any():
                mask[window.slices(grid.window)] = True
                continue
            burned = burn_shapes(found.shapes, found.codes, part, fill=0, all_touched=False)
            mask[window.slices(grid.window)] = burned.codes > 0
        return mask

    def covers(self, grid: Grid) -> bool:
        """True if the centres of all pixels lie in the area."""
        return bool(self.inside(grid).all())

    def require_overlap(self, grid: Grid) -> None:
        """As `overlap.require_overlap`."""
        require_overlap(self.features, grid, self.source)

    def stamp(self) -> list[str]:
        return self.layer.stamp()
