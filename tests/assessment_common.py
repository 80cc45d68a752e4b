"""Samples in memory and on disk."""

from __future__ import annotations

import geopandas as gpd
import numpy as np
import pandas as pd
import rasterio
from affine import Affine

from geopsp.assessment.sampling.sample_file import Sample, Stratum
from geopsp.core.grid import Grid
from geopsp.core.legend import ClassInfo

GRID = Grid(rasterio.CRS.from_epsg(32633), Affine(10, 0, 500_000, 0, -10, 4_800_000), 40, 30)
CLASSES = (ClassInfo(3, "water", "#0000ff"), ClassInfo(7, "forest", "#00ff00"), ClassInfo(1000, "7", "#ff0000"))


def example_sample(sizes=(4, 5, 2), pixels=(100, 700, 400), **changes) -> Sample:
    """A stratified sample of a map of three classes; each class has rows of its own."""
    strata = tuple(
        Stratum(info.name, info.name, info.code, None, number, number / 100, size)
        for info, number, size in zip(CLASSES, pixels, sizes, strict=True)
    )
    rows = []
    for at, (stratum, size) in enumerate(zip(strata, sizes, strict=True)):
        share = size / stratum.pixels
        rows += [(stratum.map_class, stratum.map_code, stratum.stratum, share, at, col) for col in range(size)]
    columns = ["map_class", "map_code", "stratum", "inclusion_probability", "pixel_row", "pixel_col"]
    frame = pd.DataFrame(rows, columns=columns).assign(
        reference=None, note=None, confidence=np.nan, pixel_area=100.0, cluster=pd.array([pd.NA] * len(rows), "Int64")
    )
    frame.insert(0, "id", np.arange(1, len(rows) + 1))
    x, y = 500_000 + 10 * (frame["pixel_col"] + 0.5), 4_800_000 - 10 * (frame["pixel_row"] + 0.5)
    points = gpd.GeoDataFrame(frame, geometry=gpd.points_from_xy(x, y), crs="EPSG:32633")
    cross = pd.DataFrame(
        {
            "stratum": [stratum.stratum for stratum in strata],
            "map_class": [stratum.map_class for stratum in strata],
            "pixels": pixels,
            "area_ha": [stratum.area_ha for stratum in strata],
        }
    )
    values = {
        "points": points, "strata": strata, "map_classes": cross, "design": "stratified", "seed": 5,
        "map_name": "map.tif", "grid": GRID, "classes": CLASSES, "options": {"size": sum(sizes)},
    } | changes  # fmt: skip
    return Sample(**values)
