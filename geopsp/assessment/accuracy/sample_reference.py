"""Points of a sample of `draw_sample`, with the classes of the map that is assessed."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import numpy as np
import pyproj
import shapely

from geopsp.assessment.accuracy.accuracy_text import hectares
from geopsp.assessment.accuracy.assessed_points import (
    AssessedPoints,
    OpenMap,
    class_strata_of,
    reference_classes,
    require_field,
    warn_of_nothing,
)
from geopsp.assessment.accuracy.map_pixels import (
    pixels_at,
    positions,
)
from geopsp.assessment.sampling.sample_file import Sample
from geopsp.errors import LabelError
from geopsp.labels.class_mapping import ClassTarget, Value

logger = logging.getLogger(__name__)

AREA_TOLERANCE = 1e-3
"""Relative difference up to which two maps are said to cover the same ground."""


def points_of_sample(
    sample: Sample, source: str, opened: OpenMap, field: str | None, mapping: Mapping[Value, ClassTarget] | None
) -> AssessedPoints:
    """Return the points of a sample of `draw_sample`, with the classes of a map, which may be another one.

    Args:
        sample: The sample.
        source: Its name in messages.
        opened: The map that is assessed.
        field: The field with the reference class; None: reference.
        mapping: Of reference values to classes.

    Raises:
        LabelError: if there is no such field, or it holds no classes of the map.
    """
    frame = sample.points
    require_field(frame.columns, field or "reference", source)
    same_grid = opened.raster.grid.window_of(sample.grid) == opened.raster.grid.full_window
    pixels = frame[["pixel_row", "pixel_col"]].to_numpy(np.int64)
    if not same_grid:
        crs = pyproj.CRS.from_wkt(sample.grid.crs.to_wkt())
        pixels = pixels_at(shapely.get_coordinates(frame.geometry.to_numpy()), crs, opened.raster.grid)
    mapped = opened.classes_at(pixels)
    other = mapped != frame["map_class"].to_numpy(object)
    is_own = same_grid and not other.any()
    strata = sample.strata_frame()
    cross = sample.map_classes
    if is_own:
        sizes, classes = cross.groupby("map_class", sort=False)["area_ha"].sum(), sample.classes
    else:
        _warn_of_other_map(sample, source, opened, int(other.sum()), same_grid=same_grid)
        table, classes = opened.areas_by_class()
        sizes = table.set_index("map_class")["area_ha"]
        _warn_of_other_area(float(sizes.sum()), float(strata["area_ha"].sum()))
    if sample.design == "simple":  # strata afterwards: the classes of the map that was sampled
        strata = class_strata_of(cross, frame["map_class"])
        stratum = frame["map_class"]
        cross = cross.assign(stratum=cross["map_class"])
    else:
        stratum = frame["stratum"]
    if missing := sorted(set(stratum) - set(strata["stratum"])):
        raise LabelError(f"{source} has points of {missing[0]!r}, which its tables lack. Draw the sample again.")
    is_cluster = sample.design == "cluster"
    warn_of_nothing(mapped, "nodata or outside")
    return AssessedPoints(
        design=sample.design,
        method=_method(sample, is_own=is_own),
        mapped=mapped,
        reference=reference_classes(frame[field or "reference"], classes, source, mapping),
        stratum=positions(stratum, strata["stratum"].tolist()),
        strata=strata,
        pixel_area=frame["pixel_area"].to_numpy(float),
        clusters=frame["cluster"].to_numpy(np.int64) if is_cluster else None,
        num_clusters=sample.clusters,
        mapped_areas=dict(zip(sizes.index, sizes.tolist(), strict=True)),
        class_strata=cross if is_own and not is_cluster else None,
        classes=classes,
    )


def _method(sample: Sample, *, is_own: bool) -> str:
    if sample.design == "cluster":
        return (
            f"Cluster sample of {sample.map_name}: blocks of {sample.cluster_size} x {sample.cluster_size} pixels; "
            "ratio estimators with the variance between blocks (Stehman 1997)"
        )
    if sample.design == "simple":
        return f"Simple random sample of {sample.map_name}, post-stratified by its classes (Olofsson et al. 2014)"
    follows = is_own and all(stratum.map_class for stratum in sample.strata)
    of = "Olofsson et al. 2014" if follows else "strata are not the classes of the map: Stehman 2014"
    return f"Stratified random sample of {sample.map_name} ({of})"


def _warn_of_other_map(sample: Sample, source: str, opened: OpenMap, number: int, *, same_grid: bool) -> None:
    where = f"has another class than the sample says at {number:,} of {len(sample):,} points"
    if not same_grid:
        where = f"lies on another grid than {sample.map_name}"
    logger.warning(
        f"{opened.name} is not the map that {source} was drawn from, or was changed since: it {where}. It is assessed "
        "by ratio estimators, which allow for that. If it should be the same map, look for the right file."
    )


def _warn_of_other_area(found: float, sampled: float) -> None:
    if abs(found / max(sampled, 1e-12) - 1) > AREA_TOLERANCE:
        logger.warning(
            f"The map covers {hectares(found)} ha, but the sample stands for {hectares(sampled)} ha: mapped areas "
            "are those of all of the map, estimated areas those of the part that was sampled."
        )
