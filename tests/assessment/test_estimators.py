"""Estimators against the papers' worked examples, against their equations, and against drawn samples."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.stats
from hypothesis import given
from hypothesis import strategies as st

from geopsp.assessment.accuracy.estimators import SampleDesign, estimate_accuracy, points_of_matrix
from geopsp.core.student_t import student_quantile

COUNTS = np.array([[66, 0, 5, 4], [0, 55, 8, 12], [1, 0, 153, 11], [2, 1, 9, 313]])
PIXELS = np.array([200_000, 150_000, 3_200_000, 6_450_000])
"""Olofsson et al. (2014), table 8 and page 53: deforestation, forest gain, stable forest, stable non-forest."""


def olofsson_2014():
    mapped, reference = points_of_matrix(COUNTS)
    return estimate_accuracy(SampleDesign.of_points(mapped, PIXELS * 0.09, pixels=PIXELS), mapped, reference, 4)


def test_the_example_of_olofsson_2014():
    found = olofsson_2014()
    assert np.round(found.users.value, 2).tolist() == [0.88, 0.73, 0.93, 0.96]
    assert np.round(1.96 * found.users.standard_error, 2).tolist() == [0.07, 0.10, 0.04, 0.02]
    assert np.round(found.producers.value, 2).tolist() == [0.75, 0.85, 0.93, 0.96]
    # the paper prints 0.23 and 0.01 for the second and the fourth; its equation 7 gives these, as in R's mapaccuracy
    assert np.round(1.96 * found.producers.standard_error, 2).tolist() == [0.21, 0.25, 0.03, 0.02]
    assert np.round(found.overall.value, 2) == 0.95
    assert np.round(1.96 * found.overall.standard_error, 2) == 0.02
    assert np.round(found.areas.value).tolist() == [21_158, 11_686, 285_770, 581_386]
    assert np.allclose(1.96 * found.areas.standard_error, [6_158, 3_756, 15_510, 16_282], atol=1)
    assert np.round(found.area_matrix / found.area_matrix.sum(), 4)[0].tolist() == [0.0176, 0, 0.0013, 0.0011]


STRATA = np.repeat(np.arange(4), 10)
MAPPED = np.array(["ABCD".index(name) for name in "AAAAAAABBBABBBBBBBBBBBCCCCCCBBDDDDDDDDDD"])
REFERENCE = np.array(["ABCD".index(name) for name in "AAAAACBABCABBBBBAABBCCCCCDDBBADDDDDDDCCB"])
SIZES = np.array([40_000.0, 30_000, 20_000, 10_000])
"""Stehman (2014), table 2."""


def test_the_example_of_stehman_2014():
    found = estimate_accuracy(SampleDesign.of_points(STRATA, SIZES, pixels=SIZES), MAPPED, REFERENCE, 4)
    total = SIZES.sum()
    assert np.round(found.areas.value[[0, 2]] / total, 2).tolist() == [0.35, 0.20]
    assert np.round(found.areas.standard_error[[0, 2]] / total, 3).tolist() == [0.082, 0.064]
    assert [*np.round(found.overall.value, 2), *np.round(found.overall.standard_error, 3)] == [0.63, 0.085]
    assert [np.round(found.users.value[1], 3), np.round(found.users.standard_error[1], 3)] == [0.574, 0.125]
    assert np.round(found.area_matrix[1, 2] / total, 2) == 0.08
    assert np.round(found.producers.value[1], 3) == 0.794
    # R's mapaccuracy has 0.1165479; the paper's own table gives it too, but its text takes a variance of 0.1 for 0
    assert found.producers.standard_error[1] == pytest.approx(0.1165479, abs=1e-7)
    in_d = np.var(REFERENCE[STRATA == 3] == 1, ddof=1)
    left_out = (0.27 / 0.34) ** 2 * SIZES[3] ** 2 * (1 - 10 / SIZES[3]) * in_d / 10 / 34_000**2
    assert np.round(np.sqrt(found.producers.standard_error[1] ** 2 - left_out), 3) == 0.114


matrices = st.integers(2, 5).flatmap(
    lambda size: st.tuples(
        st.lists(st.lists(st.integers(0, 30), min_size=size, max_size=size), min_size=size, max_size=size),
        st.lists(st.floats(1, 1e6), min_size=size, max_size=size),
    )
)


@given(matrices)
def test_with_the_map_s_classes_as_strata_these_are_the_equations_of_olofsson_2014(drawn):
    counts, areas = np.array(drawn[0], float), np.array(drawn[1])
    counts += 2 * np.eye(len(counts))
    mapped, reference = points_of_matrix(counts)
    found = estimate_accuracy(SampleDesign.of_points(mapped, areas), mapped, reference, len(areas))
    share, number = areas / areas.sum(), counts.sum(axis=1)
    cells = share[:, None] * counts / number[:, None]  # equation 4
    users, of_class = np.diag(cells) / cells.sum(axis=1), cells.sum(axis=0)
    producers = np.diag(cells) / of_class
    spread = counts / number[:, None] * (1 - counts / number[:, None]) / (number - 1)[:, None]
    assert np.allclose(found.area_matrix, cells * areas.sum())
    assert np.allclose(found.overall.value, np.trace(cells))
    assert np.allclose(found.overall.standard_error**2, share**2 @ np.diag(spread))  # equation 5
    assert np.allclose(found.users.standard_error**2, np.diag(spread))  # equation 6
    others = areas**2 @ spread - areas**2 * np.diag(spread)
    variance = (areas**2 * (1 - producers) ** 2 * np.diag(spread) + producers**2 * others) / (
        of_class * areas.sum()
    ) ** 2  # equation 7
    assert np.allclose(found.producers.standard_error**2, variance)
    assert np.allclose(found.areas.value, of_class * areas.sum())  # equation 9
    assert np.allclose(found.areas.standard_error, areas.sum() * np.sqrt(share**2 @ spread))  # equations 10, 11
    assert np.allclose(found.f1.value, 2 * users * producers / (users + producers))


@given(st.integers(0, 2**32 - 1))
def test_one_stratum_of_points_is_the_variance_of_a_mean(seed):
    rng = np.random.default_rng(seed)
    values = rng.normal(size=(30, 2))
    found = SampleDesign.of_points(np.zeros(30, int), [1.0], pixels=[100]).total(values)
    assert np.allclose(found.standard_error, np.sqrt(0.7 * values.var(axis=0, ddof=1) / 30))


@pytest.mark.parametrize("degrees", [1, 2, 3, 11, 59, 1000, 50_000])
@pytest.mark.parametrize("probability", [0.75, 0.95, 0.975, 0.9995])
def test_quantiles_of_student_s_t(degrees, probability):
    assert student_quantile(probability, degrees) == pytest.approx(scipy.stats.t(degrees).ppf(probability), rel=1e-8)


def test_clusters_of_equal_size_are_the_variance_of_their_means():
    values = np.random.default_rng(1).normal(5, size=(12, 5))
    design = SampleDesign.of_points(np.zeros(60, int), [1.0], clusters=np.repeat(np.arange(12), 5), num_clusters=[48])
    found = design.total(values.reshape(-1, 1))
    assert found.standard_error == pytest.approx(np.sqrt(0.75 * values.mean(axis=1).var(ddof=1) / 12))
    lower, upper = found.interval()
    assert (upper - found.value) / found.standard_error == pytest.approx(2.20099, abs=1e-5)  # t, 11 degrees of freedom
    assert (upper - lower) / found.standard_error == pytest.approx(2 * 2.20099, abs=2e-5)
    assert found.interval(most=5)[1] == 5


def test_a_stratum_with_a_single_point_has_no_variance():
    strata, mapped = [0, 0, 0, 1, 2, 2], [0, 0, 0, 1, 2, 2]
    reference = [0, 0, 2, 1, 2, 0]
    design = SampleDesign.of_points(strata, [100.0, 10, 50], pixels=[1000, 100, 500])
    found = estimate_accuracy(design, mapped, reference, 3)
    assert np.isnan([*found.overall.standard_error, *found.areas.standard_error]).all()
    assert np.isnan(found.users.standard_error).tolist() == [False, True, False]
    assert found.users.standard_error[0] == pytest.approx(np.sqrt((2 / 9) / 2 * (1 - 3 / 1000)))


def test_a_stratum_whose_only_pixel_was_drawn_has_no_error():
    design = SampleDesign.of_points([0, 0, 1], [100.0, 1], pixels=[100, 1])
    assert not design.has_unknown_variance().any()
    assert np.isfinite(design.total(np.array([[0.0], [1], [1]])).standard_error).all()


def test_merging_keeps_the_estimates_and_makes_the_error_known():
    design = SampleDesign.of_points([0, 0, 0, 1, 2, 2, 2], [100.0, 10, 50], pixels=[1000, 100, 500])
    merged = design.merge_single_units(groups=[0, 0, 1])
    variable = np.array([[0.0], [1], [1], [0], [1], [0], [1]])
    assert merged.total(variable).value == pytest.approx(design.total(variable).value)
    assert (merged.total(variable).standard_error > 0).all()
    assert merged.strata.tolist() == [0, 0, 0, 0, 2, 2, 2]
    assert design.merge_single_units().strata.tolist() == [0, 0, 0, 2, 2, 2, 2]  # the smallest


def test_a_stratum_without_points_is_left_out_or_merged():
    design = SampleDesign.of_points([0, 0, 2, 2], [100.0, 10, 50], pixels=[1000, 100, 500])
    ones = np.ones((4, 1))
    assert design.total(ones).value == pytest.approx(150) == design.total_area
    assert design.merge_single_units().total(ones).value == pytest.approx(160)


def test_points_outside_of_the_map_are_no_part_of_the_estimate():
    design = SampleDesign.of_points(np.zeros(8, int), [80.0], pixels=[8000])
    found = estimate_accuracy(design, [0, 0, 0, 1, 1, -1, -1, -1], [0, 0, 1, 1, 1, 0, 1, 1], 2)
    assert found.area_matrix.sum() == pytest.approx(50)
    assert found.overall.value == pytest.approx(0.8)
    assert found.areas.value.sum() == pytest.approx(50)
    assert (found.areas.standard_error > 0).all()


# Drawn samples: intervals of 95 % cover the truth in 93 to 97 % of 2,000; of fewer, in a range as likely by chance.

MANY, FEW = (2000, 0.02), (300, 0.04)


@pytest.fixture(params=[FEW, pytest.param(MANY, marks=pytest.mark.slow)], ids=["few", "many"])
def repeats(request):
    return request.param


class Population:
    """Pixels with a class in the map and one in the truth, which the map has partly wrong."""

    def __init__(self, shape=(200, 200), seed=1, right=0.6, shares=(0.4, 0.3, 0.3)):
        rng = np.random.default_rng(seed)
        patches = rng.choice(3, p=shares, size=(-(-shape[0] // 4), -(-shape[1] // 4)))
        self.truth = np.kron(patches, np.ones((4, 4), int))[: shape[0], : shape[1]].ravel()
        wrong = rng.random(self.truth.size) > right
        self.map = np.where(wrong, rng.choice(3, size=self.truth.size), self.truth)
        self.area = np.ones(self.truth.size)

    def values(self):
        """Overall, user's and producer's accuracy, and areas."""
        matrix = np.bincount(self.map * 3 + self.truth, self.area, 9).reshape(3, 3)
        right = np.diag(matrix)
        parts = [[right.sum() / matrix.sum()], right / matrix.sum(1), right / matrix.sum(0), matrix.sum(0)]
        return np.concatenate(parts)


def estimates(design, mapped, reference):
    found = estimate_accuracy(design, mapped, reference, 3)
    parts = found.overall, found.users, found.producers, found.areas
    ends = [part.interval() for part in parts]
    return (
        np.concatenate([part.value for part in parts]),
        np.concatenate([lower for lower, _ in ends]),
        np.concatenate([upper for _, upper in ends]),
    )


def coverage(population, draw, number):
    """Share of samples whose intervals cover the truth, and mean of their estimates over the truth."""
    rng, truth = np.random.default_rng(7), population.values()
    found = np.array([estimates(*draw(rng)) for _ in range(number)])
    assert np.isfinite(found).all()
    return ((found[:, 1] <= truth) & (truth <= found[:, 2])).mean(axis=0), found[:, 0].mean(axis=0) / truth


def require_cover(population, draw, repeats):
    number, tolerance = repeats
    covered, ratio = coverage(population, draw, number)
    assert (np.abs(covered - 0.95) < tolerance).all(), covered
    assert np.allclose(ratio, 1, atol=0.01), ratio


def stratified_draw(population, strata, sizes):
    members = [np.flatnonzero(strata == number) for number in range(len(sizes))]
    areas = [population.area[each].sum() for each in members]
    which = np.repeat(np.arange(len(sizes)), sizes)

    def draw(rng):
        chosen = [
            pixels[rng.choice(len(pixels), size, replace=False)] for pixels, size in zip(members, sizes, strict=True)
        ]
        points = np.concatenate(chosen)
        design = SampleDesign.of_points(
            which, areas, pixels=[len(each) for each in members], weights=population.area[points]
        )
        return design, population.map[points], population.truth[points]

    return draw


def test_stratified_by_the_classes_of_the_map(repeats):
    population = Population()
    require_cover(population, stratified_draw(population, population.map, [200, 200, 200]), repeats)


def test_strata_that_are_not_the_classes_of_the_map(repeats):
    population = Population()
    rng = np.random.default_rng(3)
    strata = np.where(rng.random(population.map.size) < 0.3, rng.integers(0, 3, population.map.size), population.map)
    require_cover(population, stratified_draw(population, strata, [240, 180, 180]), repeats)


def test_simple_random_with_the_classes_of_the_map_as_strata_afterwards(repeats):
    population = Population()
    areas = np.bincount(population.map)

    def draw(rng):
        points = rng.choice(population.map.size, 600, replace=False)
        mapped = population.map[points]
        return SampleDesign.of_points(mapped, areas, pixels=areas), mapped, population.truth[points]

    require_cover(population, draw, repeats)


def test_clusters(repeats):
    """Blocks of 3 x 3 pixels; as if points had been drawn, intervals would cover far too seldom."""
    population = Population((210, 210))
    number = np.arange(210 * 210)
    block = (number // 210 // 3) * 70 + number % 210 // 3
    members = np.argsort(block, kind="stable").reshape(-1, 9)

    def draw(rng, *, known=True):
        chosen = members[rng.choice(len(members), 100, replace=False)].ravel()
        clusters = {"clusters": block[chosen], "num_clusters": [len(members)]} if known else {}
        design = SampleDesign.of_points(np.zeros(len(chosen), int), [210.0 * 210], **clusters)
        return design, population.map[chosen], population.truth[chosen]

    require_cover(population, draw, repeats)
    assert (coverage(population, lambda rng: draw(rng, known=False), 100)[0][-3:] < 0.85).all()


def test_hectares_where_pixels_differ_in_size(repeats):
    """40 degrees of latitude: a class of the north is overestimated if pixels are counted."""
    population = Population()
    row = np.arange(40_000) // 200
    rng = np.random.default_rng(5)
    population.area = np.cos(np.radians(25 + 40 * row / 200))
    north = (rng.random(40_000) < row / 200 * 0.6) & (population.truth == 0)
    population.truth[north] = 2
    population.map = np.where(rng.random(40_000) < 0.4, rng.choice(3, size=40_000), population.truth)
    draw = stratified_draw(population, population.map, [200, 200, 200])
    require_cover(population, draw, repeats)

    def one_stratum(rng, *, weighted):
        points = rng.choice(40_000, 400, replace=False)
        weights = population.area[points] if weighted else None
        design = SampleDesign.of_points(np.zeros(400, int), [population.area.sum()], weights=weights)
        return design, population.map[points], population.truth[points]

    ratio = coverage(population, lambda rng: one_stratum(rng, weighted=True), 200)[1][-3:]
    assert np.allclose(ratio, 1, atol=0.012)
    assert coverage(population, lambda rng: one_stratum(rng, weighted=False), 200)[1][-1] > 1.015
