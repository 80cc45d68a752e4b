"""Accuracy of a map on all pixels that polygons or a raster label."""

from __future__ import annotations

import logging

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geopsp.assessment.accuracy.accuracy_tables import ESTIMATE_COLUMNS
from geopsp.assessment.accuracy.accuracy_text import hectares as format_hectares
from geopsp.assessment.accuracy.assess_options import AssessOptions
from geopsp.assessment.accuracy.assessed_points import OpenMap
from geopsp.assessment.accuracy.estimators import SampleDesign, estimate_accuracy, points_of_matrix
from geopsp.assessment.accuracy.map_accuracy import MapAccuracy
from geopsp.assessment.accuracy.map_pixels import compared_areas, positions
from geopsp.assessment.accuracy.point_accuracy import estimate_frames, without_errors
from geopsp.assessment.accuracy.reference_classes import match_classes
from geopsp.core.legend import DEFAULT_COLORS, IGNORE_INDEX, distinct_color
from geopsp.errors import LabelError
from geopsp.labels.class_mapping import read_mapping
from geopsp.labels.polygon_labels import PolygonLabels
from geopsp.labels.raster_labels import RasterLabels

logger = logging.getLogger(__name__)

METHOD = "All labelled pixels are compared: no sampling error, and nothing is said of the map where no label is"


def accuracy_of_labels(
    opened: OpenMap, labels: PolygonLabels | RasterLabels, reference_name: str, options: AssessOptions
) -> MapAccuracy:
    """Compare all pixels of a map that are labelled.

    Raises:
        LabelError: if labels and map do not overlap, or have no class in common.
    """
    labels.require_overlap(opened.raster.grid)
    pixels, hectares = compared_areas(
        opened.raster, lambda grid: labels.burn(grid).codes, opened.areas, opened.progress
    )
    _warn_of_nodata(pixels, hectares)
    pixels, hectares = pixels[:IGNORE_INDEX, :IGNORE_INDEX], hectares[:IGNORE_INDEX, :IGNORE_INDEX]
    if not pixels.any():
        raise LabelError(f"No pixel of the map is labelled by {reference_name}. Check that both show the same place.")
    rows, columns = np.flatnonzero(pixels.any(axis=1)), np.flatnonzero(pixels.any(axis=0))
    by_code, classes = opened.classes(rows)
    legend = {info.code: info.name for info in labels.legend}
    mapping = read_mapping(options.class_mapping) or {}
    meant = [target.name for target in mapping.values() if target.name]
    matched = match_classes([legend[code] for code in columns.tolist()], classes, reference_name, meant=meant)
    in_map = [by_code[code].name for code in rows.tolist()]
    in_reference = [matched[legend[code]] for code in columns.tolist()]
    found = {*in_map, *in_reference}
    names = [info.name for info in classes if info.name in found]
    names += sorted(found - set(names))
    counts, areas = np.zeros((len(names),) * 2, np.int64), np.zeros((len(names),) * 2)
    place = np.ix_(positions(in_map, names), positions(in_reference, names))
    np.add.at(counts, place, pixels[np.ix_(rows, columns)])
    np.add.at(areas, place, hectares[np.ix_(rows, columns)])
    mapped, reference = points_of_matrix(np.ones_like(counts))
    design = SampleDesign.of_points(np.zeros(mapped.shape, np.intp), [areas.sum()], weights=areas.ravel())
    estimates = without_errors(estimate_accuracy(design, mapped, reference, len(names)), areas=True)
    own = {info.name: info.color for info in classes}
    bare = pd.DataFrame(columns=list(ESTIMATE_COLUMNS), dtype=float)
    strata = pd.DataFrame(columns=["map_class", "zone", "pixels", "area_ha", "sample_size", "labelled", "agreement"])
    return MapAccuracy(
        map_name=opened.name,
        reference_name=reference_name,
        design="census",
        method=METHOD,
        confidence_level=options.confidence_level,
        colors={
            name: own.get(name) or DEFAULT_COLORS.get(name.lower()) or distinct_color(at)
            for at, name in enumerate(names)
        },
        num_points=int(counts.sum()),
        num_unlabelled=0,
        total_area=float(areas.sum()),
        strata=strata.rename_axis("stratum"),
        zones=bare.rename_axis("zone"),
        zone_areas=bare,
        **estimate_frames(
            estimates, counts, names, options.confidence_level, dict(zip(names, areas.sum(axis=1), strict=True))
        ),
    )


def _warn_of_nodata(pixels: NDArray[np.int64], hectares: NDArray[np.float64]) -> None:
    lost, area = pixels[IGNORE_INDEX, :IGNORE_INDEX].sum(), hectares[IGNORE_INDEX, :IGNORE_INDEX].sum()
    if lost:
        logger.warning(
            f"{lost:,} labelled pixels ({format_hectares(area)} ha) are nodata in the map, so they do not count."
        )
