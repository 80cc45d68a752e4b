"""Intervals of paired scores from resampled blocks, and McNemar's test for clusters: papers, scipy, simulation."""

import numpy as np
import pytest
from common import slow
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import stats

from geopsp.assessment.comparison.cluster_mcnemar import cluster_mcnemar, holm
from geopsp.core.class_scores import class_scores
from geopsp.core.legend import Legend
from geopsp.training.block_bootstrap import (
    PairedConfusions,
    difference_intervals,
    expanded_quantile,
    resampled_differences,
    score_differences,
    score_intervals,
    scores,
)
from geopsp.training.metrics import Confusion

PSYCHIATRY = (
    [0, 1, 1, 1, 0, 3, 3, 3, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 3, 1, 1, 2, 0, 0, 0, 0, 0, 0, 0],
    [4, 2, 3, 2, 1, 3, 0, 2, 2, 4, 2, 4, 3, 2, 1, 3, 1, 2, 0, 0, 0, 2, 1, 2, 2, 0, 0, 1, 1],
)
"""Discordant pairs of 29 psychiatrists. Source: Donner and Petryshen (1989)."""

GLANDS = (
    [0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
    [2, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 1, 0, 0, 0],
)
"""Discordant glands of 21 patients in PET and SPECT. Source: Obuchowski (1998)."""


@pytest.mark.parametrize(("pairs", "published"), [(PSYCHIATRY, 7.19), (GLANDS, 2.86)])
def test_the_statistic_is_that_of_the_papers(pairs, published):
    """As Durkalski et al. (2003) report it for Obuchowski's test."""
    statistic, p_value = cluster_mcnemar(*pairs)
    assert round(statistic, 2) == published
    assert p_value == pytest.approx(stats.chi2.sf(statistic, 1))


def test_clusters_of_one_pair_give_mcnemars_own_test_but_for_the_factor():
    rng = np.random.default_rng(0)
    b = rng.random(400) < 0.1
    c = ~b & (rng.random(400) < 0.1)
    statistic, _ = cluster_mcnemar(b, c)
    assert statistic == pytest.approx((b.sum() - c.sum()) ** 2 / (b.sum() + c.sum()) * 399 / 400)


def test_what_has_no_test_is_said():
    assert cluster_mcnemar([0, 3], [0, 3]) == (0, 1)
    assert np.isnan(cluster_mcnemar([5], [1])).all()


def test_holms_adjustment_is_that_of_the_definition():
    found = holm(np.array([0.01, np.nan, 0.04, 0.03]))
    np.testing.assert_allclose(found, [0.03, np.nan, 0.06, 0.06])


confusions = hnp.arrays(np.int64, (2, 5, 3, 4), elements=st.integers(0, 30))


@given(confusions)
def test_scores_are_those_of_an_evaluation(counts):
    """Where the labels have all classes and no prediction is of another."""
    counts = counts.copy()
    counts[..., 3] = 0
    counts[:, 0] += np.array([[1, 0, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0]])
    pooled = counts[0].sum(axis=0)
    expected = Confusion(Legend.from_names(dict(enumerate("abc"))), pooled[:, :3])
    found = scores(pooled.astype(float))
    np.testing.assert_allclose(found, [expected.mean_iou(), expected.accuracy(), *expected.iou()])


@given(hnp.arrays(np.int64, (3, 3), elements=st.integers(0, 30)))
def test_scores_of_classes_are_those_of_an_evaluation(counts):
    """Also of classes without labels or predictions."""
    expected = Confusion(Legend.from_names(dict(enumerate("abc"))), counts)
    table = expected.per_class()
    columns = [table[name] for name in ("iou", "precision", "recall")]
    found = class_scores(counts.astype(float))
    np.testing.assert_allclose(found, [expected.mean_iou(), expected.accuracy(), *np.concatenate(columns)])


def test_intervals_of_one_model_are_those_of_its_difference_to_a_perfect_one():
    """Its scores less 1; with equal blocks drawn."""
    pairs, _ = simulated(np.random.default_rng(4), 14, spread=0.7)
    counts = pairs.first[..., :-1]
    perfect = np.concatenate([counts.sum(axis=-1)[..., None] * np.eye(2), np.zeros((14, 2, 1))], axis=-1)
    options = {"resamples": 500, "confidence_level": 0.9}
    found = score_intervals(counts, **options, rng=np.random.default_rng(1))
    expected = difference_intervals(
        PairedConfusions(perfect, pairs.first), **options, interval="bca", rng=np.random.default_rng(1)
    )
    np.testing.assert_allclose(found[:4], expected + 1)
    assert (found[4:, 1] < found[4:, 0]).all()
    assert (found[4:, 0] < found[4:, 2]).all()


@given(confusions)
def test_the_same_model_has_no_difference(counts):
    pairs = PairedConfusions(counts[0].astype(float), counts[0].astype(float))
    found = difference_intervals(
        pairs, resamples=100, confidence_level=0.95, interval="bca", rng=np.random.default_rng(0)
    )
    assert (np.nan_to_num(found) == 0).all()


def test_a_class_without_labels_counts_for_neither_model():
    """Also if one of them predicts it."""
    first = np.array([[8.0, 2, 0], [0, 0, 0]])
    second = np.array([[8.0, 0, 2], [0, 0, 0]])
    assert scores(first)[0] == scores(second)[0] == 0.8
    assert np.isnan(scores(first)[3])


def test_one_block_has_no_interval():
    pairs = PairedConfusions(np.ones((1, 2, 3)), np.ones((1, 2, 3)))
    found = difference_intervals(
        pairs, resamples=100, confidence_level=0.95, interval="bca", rng=np.random.default_rng(0)
    )
    assert np.isnan(found[:, 1:]).all()
    assert found[0, 0] == 0


def simulated(rng, blocks, *, pixels=400, spread=1.5, gain=0.0, classes=2):
    """Confusion matrices, and pixels that one model alone has right, of models whose errors follow the block.

    Without `gain` both models are equally good, but in each block one of them may be much better.
    """
    ease, sides = rng.normal(1.5, 1, blocks), rng.normal(0, spread, (2, blocks))
    right = [rng.random((blocks, pixels)) < 1 / (1 + np.exp(-(ease + side + extra)))[:, None]
             for side, extra in zip(sides, (0, gain), strict=True)]  # fmt: skip
    labels = rng.integers(0, classes, (blocks, pixels))
    counts = np.zeros((2, blocks, classes, classes + 1))
    for model, correct in enumerate(right):
        predicted = np.where(correct, labels, (labels + 1) % classes)
        for block in range(blocks):
            np.add.at(counts[model, block], (labels[block], predicted[block]), 1)
    only = [(right[0] & ~right[1]).sum(axis=1), (right[1] & ~right[0]).sum(axis=1)]
    return PairedConfusions(*counts), only


@pytest.mark.parametrize("interval", ["bca", "percentile"])
def test_intervals_are_those_of_scipy(interval):
    """Of the mean IoU, with as many resamples that the rest is the noise of drawing; at the level for few blocks."""
    pairs, _ = simulated(np.random.default_rng(4), 14, spread=0.7, gain=0.4)

    def statistic(rows, axis):
        rows = np.moveaxis(rows.astype(int), axis, -1)
        return score_differences(pairs.first[rows].sum(axis=-3), pairs.second[rows].sum(axis=-3))[..., 0]

    expected = stats.bootstrap(
        (np.arange(14),), statistic, n_resamples=20_000,
        confidence_level=1 - 2 * stats.norm.sf(expanded_quantile(0.95, 14)),
        method={"bca": "BCa"}.get(interval, interval),
        random_state=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    found = difference_intervals(
        pairs, resamples=20_000, confidence_level=0.95, interval=interval, rng=np.random.default_rng(2)
    )
    width = expected.high - expected.low
    np.testing.assert_allclose(found[0, 1:], [expected.low, expected.high], atol=0.03 * width)
    assert found[0, 0] == score_differences(pairs.first.sum(axis=0), pairs.second.sum(axis=0))[0]


def test_memory_is_bounded_by_steps(monkeypatch):
    pairs, _ = simulated(np.random.default_rng(4), 9, pixels=50)
    whole = resampled_differences(pairs, 300, np.random.default_rng(0))
    monkeypatch.setattr("geopsp.training.block_bootstrap.CHUNK", 500)
    np.testing.assert_allclose(resampled_differences(pairs, 300, np.random.default_rng(0)), whole)


def test_levels_for_few_blocks_are_those_of_students_t():
    """As of a mean: half the width is t s / sqrt(n), of quantiles of resamples z s sqrt((n - 1) / n) / sqrt(n)."""
    for blocks in (5, 10, 40):
        z = expanded_quantile(0.95, blocks)
        assert z * np.sqrt((blocks - 1) / blocks) == pytest.approx(stats.t.ppf(0.975, blocks - 1), rel=1e-6)
    assert stats.norm.sf(expanded_quantile(0.95, 100_000)) == pytest.approx(0.025, rel=1e-3)


@given(st.integers(2, 6).flatmap(lambda n: hnp.arrays(np.int64, (n, 2, 2), elements=st.integers(0, 30))))
def test_very_few_blocks_have_wide_intervals(counts):
    """Two say next to nothing: the interval reaches from one to the other."""
    options = {"resamples": 200, "confidence_level": 0.95, "rng": np.random.default_rng(0)}
    value, low, high = score_intervals(counts.astype(float), **options).T
    known = ~np.isnan(value)
    assert (low[known] <= high[known]).all()
    assert (low[known] >= 0).all()
    assert (high[known] <= 1).all()
    if len(counts) == 2:
        each = class_scores(counts.astype(float))
        ends = known & ~np.isnan(each).any(axis=0)
        assert low[ends] == pytest.approx(np.minimum(each.min(axis=0), value)[ends])
        assert high[ends] == pytest.approx(np.maximum(each.max(axis=0), value)[ends])


@pytest.mark.parametrize("blocks", [12, slow(40)])
def test_equal_models_are_rarely_called_different(blocks):
    """Errors follow the block: about 5 % are called different, by pixels taken as independent most of them."""
    rng = np.random.default_rng(11)
    trials, by_blocks, by_clusters, by_pixels = 300, 0, 0, 0
    for _ in range(trials):
        pairs, (b, c) = simulated(rng, blocks, pixels=100)
        found = difference_intervals(pairs, resamples=400, confidence_level=0.95, interval="bca", rng=rng)
        by_blocks += not found[0, 1] <= 0 <= found[0, 2]
        by_clusters += cluster_mcnemar(b, c)[1] < 0.05
        by_pixels += stats.chi2.sf((b.sum() - c.sum()) ** 2 / (b.sum() + c.sum()), 1) < 0.05
    assert 0.02 <= by_blocks / trials <= 0.08
    assert 0.02 <= by_clusters / trials <= 0.08
    assert by_pixels / trials > 0.4


def test_a_better_model_is_found():
    pairs, (b, c) = simulated(np.random.default_rng(3), 40, spread=0.3, gain=0.5)
    found = difference_intervals(
        pairs, resamples=500, confidence_level=0.95, interval="bca", rng=np.random.default_rng(0)
    )
    assert found[0, 1] > 0
    assert cluster_mcnemar(b, c)[1] < 1e-4
