"""Accuracies and areas from points."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geopsp.assessment.accuracy.accuracy_tables import ESTIMATE_COLUMNS
from geopsp.assessment.accuracy.accuracy_text import hectares as format_hectares
from geopsp.assessment.accuracy.assessed_points import AssessedPoints
from geopsp.assessment.accuracy.estimators import (
    AccuracyEstimates,
    Estimate,
    SampleDesign,
    estimate_accuracy,
    group_sums,
)
from geopsp.assessment.accuracy.map_accuracy import MapAccuracy
from geopsp.assessment.accuracy.map_pixels import is_known, positions
from geopsp.core.legend import DEFAULT_COLORS, distinct_color
from geopsp.core.text import format_count
from geopsp.errors import LabelError

logger = logging.getLogger(__name__)

MAX_LISTED = 5
"""Strata or classes that a message lists."""


def accuracy_of_points(
    points: AssessedPoints, map_name: str, reference_name: str, *, confidence_level: float, merge_strata: bool
) -> MapAccuracy:
    """Estimate accuracies and areas from points, and say what is unknown.

    Raises:
        LabelError: if no labelled point lies in the map.
    """
    counted = is_known(points.reference)
    _warn_of_unlabelled(points, counted)
    if not (counted & is_known(points.mapped)).any():
        raise LabelError("No point with a reference label has a class in the map, so nothing can be compared.")
    names = _class_names(points, counted)
    colors = class_colors(names, points)
    design = _design(points, counted)
    class_areas = _class_areas(points, names)
    if points.design != "unknown":
        _warn_of_few(points, design, merged=merge_strata)
    if merge_strata:
        design, class_areas = design.merge_single_units(_groups(points.strata)), None
    mapped, reference = positions(points.mapped[counted], names), positions(points.reference[counted], names)
    found = estimate_accuracy(design, mapped, reference, len(names), map_areas=class_areas)
    if points.design == "unknown":
        found = without_errors(found)
    else:
        _warn_of_classes(points, names, mapped, reference, found)
    inside = mapped >= 0
    matrix = np.bincount(mapped[inside] * len(names) + reference[inside], minlength=len(names) ** 2)
    zones, zone_areas = _zones(points, design, mapped, reference, names, confidence_level)
    return MapAccuracy(
        map_name=map_name,
        reference_name=reference_name,
        design=points.design,
        method=points.method,
        confidence_level=confidence_level,
        colors=colors,
        num_points=int(inside.sum()),
        num_unlabelled=int((~counted).sum()),
        total_area=float("nan") if points.design == "unknown" else float(found.area_matrix.sum()),
        strata=_strata(points, counted),
        zones=zones,
        zone_areas=zone_areas,
        **estimate_frames(found, matrix, names, confidence_level, points.mapped_areas),
    )


def estimate_frames(
    found: AccuracyEstimates, matrix: NDArray[Any], names: Sequence[str], level: float, mapped_areas: Any
) -> dict[str, Any]:
    """Return the tables of a `MapAccuracy` that all kinds of reference have."""
    rows, size = pd.Index(names, name="class"), len(names)
    cells: dict[str, Any] = {"index": pd.Index(names, name="map"), "columns": pd.Index(names, name="reference")}
    total = found.area_matrix.sum()
    return {
        "error_matrix": pd.DataFrame(matrix.reshape(size, size), **cells),
        "area_shares": pd.DataFrame(found.area_matrix / (total or 1), **cells),
        "overall": _frame(found.overall, level, most=1).iloc[0].rename("overall accuracy"),
        "users": _frame(found.users, level, most=1).set_axis(rows),
        "producers": _frame(found.producers, level, most=1).set_axis(rows),
        "f1": _frame(found.f1, level, most=1).set_axis(rows),
        "areas": _frame(found.areas, level).set_axis(rows).assign(
            mapped=[float(mapped_areas.get(name, 0.0 if mapped_areas else np.nan)) for name in names]
        ),
    }  # fmt: skip


def _frame(found: Estimate, level: float, *, most: float = np.inf) -> pd.DataFrame:
    values = (found.value, found.standard_error, *found.interval(level, most=most))
    return pd.DataFrame(dict(zip(ESTIMATE_COLUMNS, values, strict=True)))


def without_errors(found: AccuracyEstimates, *, areas: bool = False) -> AccuracyEstimates:
    """Return estimates without standard errors, and unless `areas` without areas."""

    def bare(part: Estimate, *, known: bool = True) -> Estimate:
        unknown = np.full(part.value.shape, np.nan)
        return Estimate(part.value if known else unknown, unknown)

    return replace(
        found,
        overall=bare(found.overall),
        users=bare(found.users),
        producers=bare(found.producers),
        f1=bare(found.f1),
        areas=bare(found.areas, known=areas),
        area_matrix=found.area_matrix if areas else np.full(found.area_matrix.shape, np.nan),
    )


def class_colors(names: Sequence[str], points: AssessedPoints) -> dict[str, str]:
    """Return the colour of each class: that of the map, else a conventional or a distinct one."""
    own = {info.name: info.color for info in points.classes}
    return {
        name: own.get(name) or DEFAULT_COLORS.get(name.lower()) or distinct_color(at) for at, name in enumerate(names)
    }


def _class_names(points: AssessedPoints, counted: NDArray[np.bool_]) -> list[str]:
    """Return the classes that the map or the reference has, those of the map first."""
    found = {*points.mapped_areas, *points.mapped, *points.reference[counted]} - {None}
    own = [info.name for info in points.classes if info.name in found]
    return [*own, *sorted(found - set(own))]


def _design(points: AssessedPoints, counted: NDArray[np.bool_]) -> SampleDesign:
    """Return the design of the points that are labelled: those without a label are missing at random in a stratum."""
    is_known = points.design != "unknown"
    strata = points.strata
    return SampleDesign.of_points(
        points.stratum[counted],
        strata["area_ha"].to_numpy(float) if is_known else [1.0],
        pixels=strata["pixels"].to_numpy(float),
        weights=points.pixel_area[counted],
        clusters=None if points.clusters is None else points.clusters[counted],
        num_clusters=None if points.num_clusters is None else np.full(len(strata), float(points.num_clusters)),
    )


def _class_areas(points: AssessedPoints, names: Sequence[str]) -> NDArray[np.float64] | None:
    """Return (strata, classes) hectares of the map's classes in each stratum; None if they are unknown."""
    table = points.class_strata
    if table is None:
        return None
    found = np.zeros((len(points.strata), len(names)))
    place = positions(table["stratum"], points.strata["stratum"].tolist()), positions(table["map_class"], names)
    np.add.at(found, place, table["area_ha"].to_numpy(float))
    return found


def _groups(strata: pd.DataFrame) -> NDArray[np.intp]:
    """Return which strata are merged rather than others: those of one zone, without zones those of one class."""
    key = "zone" if strata["zone"].notna().any() else "map_class"
    return np.asarray(pd.factorize(strata[key])[0], np.intp)


def _strata(points: AssessedPoints, counted: NDArray[np.bool_]) -> pd.DataFrame:
    """Return what was found in each stratum."""
    size = len(points.strata)
    used = counted & is_known(points.mapped)
    right = points.mapped[used] == points.reference[used]
    weights, stratum = points.pixel_area[used], points.stratum[used]
    total = group_sums(stratum, weights, size)
    agreement = np.divide(group_sums(stratum, weights * right, size), total, out=np.full(size, np.nan), where=total > 0)
    labelled = np.bincount(points.stratum[counted], minlength=size)
    return points.strata.set_index("stratum").assign(labelled=labelled, agreement=agreement)


def _zones(
    points: AssessedPoints, design: SampleDesign, mapped: NDArray[np.intp], reference: NDArray[np.intp],
    names: Sequence[str], level: float,
) -> tuple[pd.DataFrame, pd.DataFrame]:  # fmt: skip
    """Return overall accuracy and areas of each zone, from its strata alone."""
    zones = points.strata["zone"]
    overall, areas = [], []
    known = list(dict.fromkeys(zones.dropna()))
    for zone in known:
        inside = (zones == zone).to_numpy()
        chosen = inside[design.strata]
        if not chosen.any():
            continue
        part = replace(
            design,
            strata=design.strata[chosen],
            areas=np.where(inside, design.areas, 0.0),
            weights=design.weights[chosen],
        )
        found = estimate_accuracy(part, mapped[chosen], reference[chosen], len(names))
        overall.append(
            _frame(found.overall, level, most=1).assign(zone=zone, area_ha=part.total_area, labelled=int(chosen.sum()))
        )
        areas.append(_frame(found.areas, level).assign(zone=zone, **{"class": list(names)}))
    if not overall:
        empty = pd.DataFrame(columns=["area_ha", "labelled", *ESTIMATE_COLUMNS], dtype=float)
        return empty.rename_axis("zone"), pd.DataFrame(columns=["zone", "class", *ESTIMATE_COLUMNS])
    table = pd.concat(overall).set_index("zone")[["area_ha", "labelled", *ESTIMATE_COLUMNS]]
    return table, pd.concat(areas, ignore_index=True)[["zone", "class", *ESTIMATE_COLUMNS]]


def _warn_of_unlabelled(points: AssessedPoints, counted: NDArray[np.bool_]) -> None:
    missing = pd.Series(points.strata["stratum"].to_numpy()[points.stratum[~counted]]).value_counts()
    if len(missing):
        where = ", ".join(f"{name!r}: {number:,}" for name, number in missing[:MAX_LISTED].items())
        more = f", and {len(missing) - MAX_LISTED} more strata" if len(missing) > MAX_LISTED else ""
        by_stratum = f" ({where}{more})" if len(points.strata) > 1 else ""
        number = int(missing.sum())
        verb = "does" if number == 1 else "do"
        assumed = " The estimates take them for points like the others of their stratum; label them if they were "
        assumed += "left out because they are difficult."
        logger.warning(
            f"{format_count(number, 'point')} of {len(counted):,} without a reference label {verb} not count"
            f"{by_stratum}.{'' if points.design == 'unknown' else assumed}"
        )


def _warn_of_few(points: AssessedPoints, design: SampleDesign, *, merged: bool) -> None:
    """Say which strata have too few points for an error, or none."""
    names, hectares = points.strata["stratum"].to_numpy(object), design.areas
    empty = (design.num_points == 0) & (hectares > 0)
    single = design.has_unknown_variance()
    share = hectares / max(hectares.sum(), 1e-12)
    if empty.any() and not merged:
        logger.warning(
            f"No labelled point lies in {_listed(names[empty])} ({format_hectares(hectares[empty].sum())} ha, "
            f"{share[empty].sum():.2%} of the area): the estimates are those of the rest. Label points there, or use "
            "`merge_strata=True`."
        )
    if single.any() and not merged:
        logger.warning(
            f"A single labelled {'point' if design.clusters is None else 'cluster'} lies in {_listed(names[single])} "
            f"({share[single].sum():.2%} of the area): its variance is unknown, and so are the standard errors that "
            "depend on it. Label more points there, or use `merge_strata=True`."
        )
    if (empty | single).any() and merged:
        logger.warning(
            f"Strata with a single labelled point or none were merged with others: {_listed(names[empty | single])}."
        )


def _warn_of_classes(
    points: AssessedPoints, names: Sequence[str], mapped: NDArray[np.intp], reference: NDArray[np.intp],
    found: AccuracyEstimates,
) -> None:  # fmt: skip
    """Say which classes the points lack, and where all points agree."""
    classes = np.array(names, object)
    in_map = np.array([points.mapped_areas.get(name, 0.0) > 0 for name in names])
    numbers = np.arange(len(names))
    unseen = in_map & ~np.isin(numbers, mapped)
    if unseen.any():
        logger.warning(
            f"The map has {_listed(classes[unseen])}, but no labelled point lies there: the user's accuracy is unknown."
        )
    absent = ~np.isin(numbers, reference[mapped >= 0])
    if absent.any():
        logger.warning(
            f"No point has the reference class {_listed(classes[absent])}: the estimated area is 0, and its interval "
            "tells nothing; the producer's accuracy is unknown."
        )
    sure = (found.users.standard_error < 1e-12) & np.isin(numbers, mapped)
    if sure.any():
        logger.warning(
            f"All points mapped as {_listed(classes[sure])} are right, or all wrong: an interval without width does "
            "not mean that there is no error. If all n points are right, an accuracy down to 1 - 3 / n is possible."
        )


def _listed(names: Sequence[str] | NDArray[np.object_]) -> str:
    more = f" and {len(names) - MAX_LISTED} more" if len(names) > MAX_LISTED else ""
    return ", ".join(map(str, names[:MAX_LISTED])) + more
