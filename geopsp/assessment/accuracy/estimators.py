"""Design-based estimators of accuracy and area from a sample of pixels, with standard errors.

One engine serves all designs. Each sampled pixel stands for so many hectares, its `expansion`. A total is the sum of a
variable times these hectares, and a ratio is that of two totals. Their variance is that of the linearised variable,
between the sampled units of each stratum. Where strata are the classes of the map, these are the estimators of Olofsson
et al. (2014); where they are not, those of Stehman (2014); where units are clusters, those of Stehman (1997).

Within a stratum, pixels count by their area, and the known area of the stratum is divided among them. So hectares are
right where pixels differ in size, as in degrees and in Mercator; where they do not, this is the mean of the papers.

Source: Olofsson et al., "Good practices for estimating area and assessing accuracy of land change" (2014), Remote
Sensing of Environment 148, equations 4 to 11. Stehman, "Estimating area and map accuracy for stratified random sampling
when the strata are different from the map classes" (2014), International Journal of Remote Sensing 35. Stehman,
"Estimating standard errors of accuracy assessment statistics under cluster sampling" (1997), Remote Sensing of
Environment 60. Cochran, "Sampling Techniques" (1977), sections 5A.12, 6.10 and 9A.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from geopsp.core.student_t import student_quantile

Floats = NDArray[np.float64]

Indices = NDArray[np.intp]


@dataclass(frozen=True, slots=True, eq=False)
class Estimate:
    """Estimated values with their standard errors; NaN where they are unknown."""

    value: Floats
    """(k,)"""

    standard_error: Floats
    """(k,)"""

    degrees_of_freedom: float = np.inf
    """Of Student's t for the interval; infinity is the normal distribution."""

    def interval(self, confidence_level: float = 0.95, *, most: float = np.inf) -> tuple[Floats, Floats]:
        """Return the lower and upper ends of confidence intervals, (k,) each, cut off at 0 and at `most`."""
        half = student_quantile(0.5 + confidence_level / 2, self.degrees_of_freedom) * self.standard_error
        return np.clip(self.value - half, 0, most), np.clip(self.value + half, 0, most)


@dataclass(frozen=True, slots=True, eq=False)
class SampleDesign:
    """Which units were drawn of which population.

    Strata without points are not estimated: totals are those of the other strata.
    """

    strata: Indices
    """(n,) position of each point's stratum."""

    areas: Floats
    """(strata,) area of the population, in any unit; estimated totals have the same."""

    pixels: Floats
    """(strata,) pixels of the population, for the finite population correction; infinity makes none."""

    weights: Floats
    """(n,) weight of a point within its stratum, in any unit: the area of its pixel."""

    clusters: NDArray[Any] | None = None
    """(n,) cluster of each point, where clusters were drawn; None: the points themselves were."""

    num_clusters: Floats | None = None
    """(strata,) clusters of the population; None: no finite population correction. Only with `clusters`."""

    units: Indices = field(init=False, repr=False)
    """(n,) drawn unit of each point: its cluster within its stratum, or the point itself."""

    unit_strata: Indices = field(init=False, repr=False)
    """(units,) stratum of each drawn unit."""

    def __post_init__(self) -> None:
        units, strata = np.arange(len(self.strata)), self.strata
        if self.clusters is not None:
            names, clusters = np.unique(self.clusters, return_inverse=True)
            pairs, units = np.unique(self.strata * len(names) + clusters, return_inverse=True)
            strata = pairs // max(len(names), 1)
        object.__setattr__(self, "units", units)
        object.__setattr__(self, "unit_strata", strata)

    @classmethod
    def of_points(
        cls,
        strata: ArrayLike,
        areas: ArrayLike,
        *,
        pixels: ArrayLike | None = None,
        weights: ArrayLike | None = None,
        clusters: ArrayLike | None = None,
        num_clusters: ArrayLike | None = None,
    ) -> SampleDesign:
        """Make a design of arrays or lists.

        Args:
            strata: (n,) position of each point's stratum.
            areas: (strata,) area of the population.
            pixels: (strata,) pixels of the population; None: infinitely many.
            weights: (n,) areas of the points' pixels; None: all the same.
            clusters: (n,) clusters of the points; None: no clusters.
            num_clusters: (strata,) clusters of the population; None: infinitely many.
        """
        positions, sizes = np.asarray(strata, np.intp), np.asarray(areas, float)
        return cls(
            positions,
            sizes,
            np.full(sizes.shape, np.inf) if pixels is None else np.asarray(pixels, float),
            np.ones(positions.shape) if weights is None else np.asarray(weights, float),
            None if clusters is None else np.asarray(clusters),
            None if num_clusters is None else np.asarray(num_clusters, float),
        )

    @property
    def expansion(self) -> Floats:
        """(n,) area that each point stands for; in a stratum with points they sum to its area."""
        shares: Floats = self.weights / self._sums(self.weights)[self.strata]
        return self.areas[self.strata] * shares

    @property
    def num_points(self) -> Indices:
        """(strata,) points."""
        return np.bincount(self.strata, minlength=len(self.areas))

    @property
    def num_units(self) -> Indices:
        """(strata,) drawn units: clusters, or points."""
        return np.bincount(self.unit_strata, minlength=len(self.areas))

    @property
    def population(self) -> Floats:
        """(strata,) units that could have been drawn; infinity where that is unknown."""
        if self.clusters is None:
            return self.pixels
        return np.full(self.areas.shape, np.inf) if self.num_clusters is None else self.num_clusters

    @property
    def degrees_of_freedom(self) -> float:
        """Clusters less strata; infinity where points were drawn."""
        units = self.num_units
        return np.inf if self.clusters is None else float(max(units.sum() - np.count_nonzero(units), 1))

    @property
    def total_area(self) -> float:
        """Area of the strata that have points."""
        return float(self.areas[self.num_points > 0].sum())

    def has_unknown_variance(self) -> NDArray[np.bool_]:
        """Return (strata,) True where a single unit was drawn of several: its variance cannot be estimated."""
        return np.asarray((self.num_units == 1) & (self.population > 1))

    def total(self, variable: Floats, *, depends: NDArray[np.bool_] | None = None) -> Estimate:
        """Estimate the total of a variable over the population, in units of area.

        Args:
            variable: (n, k) value per unit of area at each point, e.g. 1 where the reference is a class.
            depends: (strata, k) False where the variable is known to be constant in a stratum, whose variance is
                then 0 even with a single point; None: it is nowhere.

        Source: Stehman (2014), equations 2 and 25; with the areas of pixels as weights, Cochran (1977), section 6.10.
        """
        totals: Floats = self.expansion @ variable
        return Estimate(totals, self._standard_error(self._influence(variable), depends), self.degrees_of_freedom)

    def ratio(self, numerator: Floats, denominator: Floats, *, depends: NDArray[np.bool_] | None = None) -> Estimate:
        """Estimate the ratio of two totals; NaN where the denominator is 0.

        Args:
            numerator: (n, k) as `variable` in `total`.
            denominator: (n, k) as `variable` in `total`.
            depends: (strata, k) False where both are known to be 0 in a stratum; None: nowhere.

        Source: Stehman (2014), equations 23, 27 and 28; for clusters, Stehman (1997) and Cochran (1977), section 9A.
        """
        expansion = self.expansion
        above, below = expansion @ numerator, expansion @ denominator
        ratios = np.divide(above, below, out=np.full(above.shape, np.nan), where=below > 0)
        influence = self._influence(numerator - ratios * denominator) / np.where(below > 0, below, np.nan)
        return Estimate(ratios, self._standard_error(influence, depends), self.degrees_of_freedom)

    def merge_single_units(self, groups: ArrayLike | None = None) -> SampleDesign:
        """Return a design in which each stratum with a single unit, or with none, is merged with another one.

        The merged strata are one for the variance, which is then estimated too large rather than too small; estimates
        stay the same, but for a stratum without points, which gets those of its partner. The partner is the smallest
        other stratum with points, of the same group if there is one.

        Args:
            groups: (strata,) e.g. mapped classes; None: no groups.

        Source: Cochran (1977), section 5A.12 ("collapsed strata").
        """
        kinds = np.zeros(len(self.areas), np.intp) if groups is None else np.asarray(groups)
        parent = np.arange(len(self.areas))
        size = len(parent)
        while True:
            units, areas = group_sums(parent, self.num_units, size), group_sums(parent, self.areas, size)
            single = (units <= 1) & (group_sums(parent, self.population, size) > units) & (areas > 0)
            one = int(np.argmax(single))
            others = np.setdiff1d(np.flatnonzero(units > 0), one)
            if not single.any() or not len(others):
                break
            same = others[kinds[others] == kinds[one]]
            others = same if len(same) else others
            parent[parent == one] = others[np.argmin(areas[others])]
        pixels, known = group_sums(parent, self.pixels, size), self.num_clusters
        known = None if known is None else group_sums(parent, known, size)
        return SampleDesign(parent[self.strata], areas, pixels, self.expansion, self.clusters, known)

    def _influence(self, variable: Floats) -> Floats:
        """Return (n, k) the linearised variable: by how much each point moves the total; its sum in a stratum is 0."""
        weights = np.where(self.num_points, self._sums(self.weights), 1.0)
        means = self._sums(self.weights[:, None] * variable) / weights[:, None]
        influence: Floats = self.expansion[:, None] * (variable - means[self.strata])
        return influence

    def _standard_error(self, influence: Floats, depends: NDArray[np.bool_] | None) -> Floats:
        """Return (k,) from (n, k): the variance between the units of each stratum, without replacement."""
        strata = self.unit_strata
        sums = influence if self.clusters is None else group_sums(self.units, influence, len(strata))
        squares = group_sums(strata, sums**2, len(self.areas))
        number, population = self.num_units, self.population
        correction = np.where(np.isinf(population), 1, 1 - np.minimum(number / np.maximum(population, 1), 1))
        with np.errstate(divide="ignore", invalid="ignore"):
            factor = np.where(number > 1, correction * number / (number - 1), 0.0)
        variance = factor[:, None] * squares
        variance[self.has_unknown_variance()] = np.nan
        if depends is not None:
            variance[~depends] = 0
        found: Floats = np.sqrt(variance.sum(axis=0))
        return found

    def _sums(self, values: Floats) -> Floats:
        """Return sums over the points of each stratum, (strata, ...)."""
        return group_sums(self.strata, values, len(self.areas))


def group_sums(groups: Indices, values: NDArray[Any], size: int) -> Floats:
    """Return sums of values, (n,) or (n, k), by group, (size,) or (size, k)."""
    columns = values.reshape(len(groups), -1).T
    sums = np.stack([np.bincount(groups, column, size) for column in columns], axis=1).astype(np.float64)
    return sums.reshape(size, *values.shape[1:])


@dataclass(frozen=True, slots=True, eq=False)
class AccuracyEstimates:
    """What a sample tells of a map; classes are positions."""

    area_matrix: Floats
    """(classes, classes) estimated area; row: class in the map, column: class in the reference."""

    overall: Estimate
    """(1,) share of the area that is mapped correctly."""

    users: Estimate
    """(classes,) share of the area mapped as a class that is of that class; NaN for classes that are not mapped."""

    producers: Estimate
    """(classes,) share of the area of a class that is mapped as such; NaN for classes that the reference lacks."""

    f1: Estimate
    """(classes,) harmonic mean of both."""

    areas: Estimate
    """(classes,) area of each class in the reference."""


def estimate_accuracy(
    design: SampleDesign,
    mapped: ArrayLike,
    reference: ArrayLike,
    num_classes: int,
    *,
    map_areas: Floats | None = None,
) -> AccuracyEstimates:
    """Estimate accuracies and areas of a map.

    A point without a class in the map lies outside of what is estimated: accuracies and areas are then those of the
    mapped part of the population.

    Args:
        design: Of the sample.
        mapped: (n,) class of each point in the map; -1: none.
        reference: (n,) class of each point in the reference.
        num_classes: Classes are 0 to `num_classes` - 1.
        map_areas: (strata, classes) area of the map's classes in each stratum: a class's user's accuracy does not
            depend on strata without it. None: taken from the points.

    Source: Stehman (2014), equations 12 to 28; where strata are the classes of the map, these are equations 4 to 11 of
        Olofsson et al. (2014).
    """
    rows, columns = np.asarray(mapped, np.intp), np.asarray(reference, np.intp)
    inside = rows >= 0
    classes = np.arange(num_classes)
    in_map = (rows[:, None] == classes).astype(float)
    in_reference = ((columns[:, None] == classes) & inside[:, None]).astype(float)
    correct = in_map * in_reference
    if map_areas is None:
        map_areas = group_sums(design.strata, in_map, len(design.areas))
    pairs = group_sums((rows * num_classes + columns)[inside], design.expansion[inside], num_classes**2)
    right, all_inside = correct.sum(axis=1, keepdims=True), inside[:, None].astype(float)
    return AccuracyEstimates(
        area_matrix=pairs.reshape(num_classes, num_classes),
        overall=design.ratio(right, all_inside),
        users=design.ratio(correct, in_map, depends=map_areas > 0),
        producers=design.ratio(correct, in_reference),
        f1=design.ratio(2 * correct, in_map + in_reference),
        areas=design.total(in_reference),
    )


def points_of_matrix(counts: ArrayLike) -> tuple[Indices, Indices]:
    """Return the mapped class and the reference class of each point of an error matrix, (n,) each.

    Args:
        counts: (rows, columns) points; row: class in the map, or stratum.
    """
    table = np.asarray(counts, np.intp)
    rows, columns = np.indices(table.shape)
    return np.repeat(rows.ravel(), table.ravel()), np.repeat(columns.ravel(), table.ravel())
