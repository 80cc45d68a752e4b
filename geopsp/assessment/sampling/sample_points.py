"""The points of a sample: drawn pixels as rows, in an order that tells nothing of the map."""

from __future__ import annotations

from collections.abc import Mapping

import geopandas as gpd
import numpy as np
import pandas as pd
import pyproj
from numpy.typing import NDArray

from geopsp.assessment.sampling.pixel_counts import PixelAreas
from geopsp.assessment.sampling.pixel_draw import DrawnPixels
from geopsp.assessment.sampling.sample_plan import SamplePlan
from geopsp.assessment.sampling.strata_raster import StrataRaster
from geopsp.core.grid import Grid, Window
from geopsp.core.legend import ClassInfo
from geopsp.polygons.confidence import Confidence

ORDER_STREAM = 2**20
"""Tells the random order apart from the draws of strata."""


READ_SIZE = 512
"""Side of the windows in which confidences of points are read."""


def sample_points(
    raster: StrataRaster,
    drawn: DrawnPixels,
    plan: SamplePlan,
    classes: Mapping[int, ClassInfo],
    probability: NDArray[np.float64],
    areas: PixelAreas,
    confidence: Confidence | None,
    seed: int,
) -> gpd.GeoDataFrame:
    """Return drawn pixels as points in a random order; pixels of a block stay together.

    Args:
        raster: The map.
        drawn: The pixels.
        plan: The strata.
        classes: The classes by the codes of `raster`.
        probability: (strata,) inclusion probability of the pixels of each stratum.
        areas: Areas of pixels.
        confidence: Read at each point.
        seed: Of the sample.
    """
    infos = [classes[raster.split(key)[0]] for key in drawn.keys.tolist()]
    stratum = plan.of_key[drawn.keys].astype(np.int64)
    none = np.full(len(drawn), None, object)
    frame = pd.DataFrame(
        {
            "reference": none,
            "note": none,
            "map_class": pd.Series([info.name for info in infos], dtype=object),
            "map_code": np.array([info.code for info in infos], np.int64),
            "confidence": _read_confidence(confidence, drawn),
            "stratum": pd.Series([plan.strata[at].stratum for at in stratum.tolist()], dtype=object),
            "inclusion_probability": probability[stratum],
            "cluster": pd.array([pd.NA] * len(drawn) if drawn.clusters is None else drawn.clusters, "Int64"),
            "pixel_row": drawn.rows,
            "pixel_col": drawn.cols,
            "pixel_area": areas.at(drawn.rows, drawn.cols),
        }
    )
    frame = frame.iloc[_order(drawn, seed)].reset_index(drop=True)
    frame.insert(0, "id", np.arange(1, len(frame) + 1))
    return gpd.GeoDataFrame(
        frame, geometry=_centres(frame, raster.grid), crs=pyproj.CRS.from_wkt(raster.grid.crs.to_wkt())
    )


def _centres(frame: pd.DataFrame, grid: Grid) -> gpd.array.GeometryArray:
    cols, rows, t = frame["pixel_col"] + 0.5, frame["pixel_row"] + 0.5, grid.transform
    return gpd.points_from_xy(t.c + t.a * cols + t.b * rows, t.f + t.d * cols + t.e * rows)


def _order(drawn: DrawnPixels, seed: int) -> NDArray[np.int64]:
    """Return a random order of pixels; of clusters, the clusters in random order and the pixels of each too."""
    rng = np.random.default_rng([seed, ORDER_STREAM])
    order = rng.permutation(len(drawn))
    if drawn.clusters is None:
        return order
    place = rng.permutation(int(drawn.clusters.max(initial=0)) + 1)
    return order[np.argsort(place[drawn.clusters[order]], kind="stable")]


def _read_confidence(confidence: Confidence | None, drawn: DrawnPixels) -> NDArray[np.float64]:
    """Return (n,) confidences, NaN where unknown; of points in one part of the map, with one read."""
    values = np.full(len(drawn), np.nan)
    if confidence is None:
        return values
    places = pd.DataFrame({"row": drawn.rows, "col": drawn.cols})
    for _, group in places.groupby([places["row"] // READ_SIZE, places["col"] // READ_SIZE]):
        top, left = int(group["row"].min()), int(group["col"].min())
        height, width = int(group["row"].max()) - top + 1, int(group["col"].max()) - left + 1
        pixels = confidence.read(Window(left, top, width, height))
        values[group.index] = pixels[group["row"] - top, group["col"] - left]
    return values
