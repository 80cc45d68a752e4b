"""The numbers of an assessment, as tables."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import pandas as pd

Design = Literal["stratified", "simple", "cluster", "unknown", "census"]

ESTIMATE_COLUMNS = ("estimate", "standard_error", "lower", "upper")


@dataclass(frozen=True, slots=True, eq=False, kw_only=True)
class AccuracyTables:
    """All tables of an assessment.

    Frames of estimates have the columns estimate, standard_error, lower and upper; NaN is unknown. Accuracies are
    fractions of area, areas hectares on the ellipsoid. Intervals are cut off at 0, and those of accuracies at 1.
    """

    map_name: str
    reference_name: str

    design: Design
    """stratified, simple or cluster: points by a probability design; unknown: points of which no design is known;
    census: all pixels that polygons or a raster label."""

    method: str
    """How accuracies and areas were estimated, in words."""

    confidence_level: float

    colors: Mapping[str, str]
    """Colour of each class, #rrggbb; all classes of the map, then those of the reference alone."""

    num_points: int
    """Points that count: labelled, and with a class in the map; of a census, pixels."""

    num_unlabelled: int
    """Points without a reference label, which do not count."""

    total_area: float
    """Hectares that the estimates stand for; NaN if the design is unknown."""

    error_matrix: pd.DataFrame
    """Points, or pixels; row: class in the map, column: class in the reference."""

    area_shares: pd.DataFrame
    """Estimated shares of the area, in the same cells; NaN if the design is unknown."""

    overall: pd.Series
    """Share of the area that is mapped correctly."""

    users: pd.DataFrame
    """User's accuracy of each class: of what is mapped as the class, the share that is of it."""

    producers: pd.DataFrame
    """Producer's accuracy of each class: of what is of the class, the share that is mapped as such."""

    f1: pd.DataFrame
    """Harmonic mean of both."""

    areas: pd.DataFrame
    """Estimated hectares of each class, and the column `mapped`: hectares of the class in the map."""

    strata: pd.DataFrame
    """By stratum: map_class, zone, pixels, area_ha, sample_size, labelled (points), agreement (share of them)."""

    zones: pd.DataFrame
    """By zone: area_ha, labelled, overall accuracy (estimate, standard_error, lower, upper); empty without zones."""

    zone_areas: pd.DataFrame
    """By zone and class (columns): hectares as estimate, standard_error, lower, upper; empty without zones."""

    warnings: tuple[str, ...] = ()
    """What may surprise."""

    @property
    def classes(self) -> list[str]:
        """Names of the classes."""
        return list(self.colors)
