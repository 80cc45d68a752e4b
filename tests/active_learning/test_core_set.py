"""The greedy choice, beside a plain one in numpy; ranks, rarity."""

from __future__ import annotations

import numpy as np
import pytest
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.spatial.distance import cdist

from geopsp.active_learning.core_set import choose, nearest_distances, ranks, rarity


def everything(count):
    return lambda _: np.ones(count, bool)


def pick(worth, features, seen, number, **options):
    options = {"novelty_weight": 1.0, "weight_sum": 1.0, "still_allowed": everything(len(worth)), "seed": 0} | options
    return choose(worth, features, seen, number=number, **options)


def k_center(features, seen, number):
    """Greedy k-center, written down from the paper: always the point that is farthest from all centres."""
    centres, found = [tuple(row) for row in seen], []
    for _ in range(number):
        distances = [min(np.linalg.norm(row - np.array(c)) for c in centres) for row in features]
        found.append(int(np.argmax(distances)))
        centres.append(tuple(features[found[-1]]))
    return found


@settings(max_examples=examples(20))
@given(st.integers(0, 2**31), st.integers(1, 4), st.integers(1, 5))
def test_without_worth_it_is_the_greedy_core_set(seed, dimensions, num_seen):
    rng = np.random.default_rng(seed)
    features, seen = rng.normal(size=(30, dimensions)), rng.normal(size=(num_seen, dimensions))
    assert pick(np.zeros(30), features, seen, 6).positions.tolist() == k_center(features, seen, 6)


@settings(max_examples=examples(20))
@given(st.integers(0, 2**31))
def test_scores_are_the_documented_formula(seed):
    rng = np.random.default_rng(seed)
    features, seen, worth = rng.normal(size=(20, 3)), rng.normal(size=(4, 3)), rng.random(20)
    choice = pick(worth, features, seen, 5, novelty_weight=0.7, weight_sum=1.7)
    scale, centres = cdist(features, seen).min(axis=1).max(), seen
    left = set(range(20))
    for position, score, novelty in zip(choice.positions, choice.scores, choice.novelty, strict=True):
        expected = np.minimum(cdist(features, centres).min(axis=1) / scale, 1)
        totals = (worth + 0.7 * expected) / 1.7
        assert score == pytest.approx(max(totals[list(left)]), abs=1e-6)
        assert novelty == pytest.approx(expected[position], abs=1e-6)
        left.remove(int(position))
        centres = np.vstack([centres, features[position]])


def test_the_first_choice_is_by_worth_where_nothing_was_seen():
    features = np.array([[0.0], [1.0], [10.0], [10.5]])
    choice = pick(np.array([0.1, 0.9, 0.2, 0.3]), features, features[:0], 3, weight_sum=2.0)
    assert choice.positions.tolist() == [1, 3, 2]  # the scale is 9.5: 0.1 + 1 / 9.5 is less than 0.2 + 0.5 / 9.5
    assert choice.novelty[0] == 1


def test_features_of_no_length_do_not_count():
    choice = pick(np.array([0.1, 0.9, 0.2]), np.zeros((3, 0)), np.zeros((0, 0)), 3)
    assert choice.positions.tolist() == [1, 2, 0]


def test_equal_windows_are_chosen_by_the_seed_alone():
    def order(seed):
        return pick(np.zeros(40), np.zeros((40, 2)), np.zeros((1, 2)), 40, seed=seed).positions.tolist()

    assert order(1) == order(1)
    assert order(1) != order(2)
    assert sorted(order(1)) == list(range(40))


@settings(max_examples=examples(20))
@given(st.integers(0, 2**31), st.integers(0, 2100))
def test_distances_are_those_of_scipy(seed, count):
    rng = np.random.default_rng(seed)
    features, others = rng.normal(size=(5, 4)), rng.normal(size=(count, 4))
    expected = cdist(features, others).min(axis=1) if count else np.full(5, np.inf)
    np.testing.assert_allclose(nearest_distances(features, others), expected, atol=1e-6)


def test_ranks_are_from_0_to_1_with_means_for_equal_values():
    assert ranks(np.array([5.0, 1.0, 3.0, 3.0, 9.0])).tolist() == [0.75, 0, 0.375, 0.375, 1]
    assert ranks(np.array([2.0, 2.0])).tolist() == [0.5, 0.5]
    assert ranks(np.array([7.0])).tolist() == [0.5]


def test_rarity_is_the_mean_inverse_frequency():
    pixels = np.array([[90, 10, 0], [100, 0, 0], [0, 10, 0]])  # frequencies 190/210, 20/210, 0
    expected = [0.9 * 210 / 190 + 0.1 * 210 / 20, 210 / 190, 210 / 20]
    np.testing.assert_allclose(rarity(pixels), expected)
    assert rarity(np.zeros((2, 3), np.int64)).tolist() == [0, 0]
