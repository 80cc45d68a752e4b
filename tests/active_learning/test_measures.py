"""Entropy, margin and mutual information, by hand and beside scipy."""

from __future__ import annotations

import numpy as np
import pytest
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import entropy

from geopsp.active_learning.measures import ViewSum, pixel_entropy, pixel_margin


def probabilities(seed, classes=4, size=6, sharp=2.0):
    logits = sharp * np.random.default_rng(seed).normal(size=(classes, size, size))
    return (np.exp(logits) / np.exp(logits).sum(axis=0)).astype(np.float32)


def measured(*views, valid=None, possible=None):
    total = ViewSum(len(views[0]), views[0].shape[-1])
    for view in views:
        total.add(view)
    valid = np.ones(views[0].shape[1:], bool) if valid is None else valid
    return total.measures(valid, possible or len(views[0]))


@settings(max_examples=examples(20))
@given(st.integers(0, 10_000), st.integers(1, 7))
def test_entropy_is_scipys(seed, classes):
    found = probabilities(seed, classes)
    np.testing.assert_allclose(pixel_entropy(found), entropy(found, axis=0), atol=1e-5)


@settings(max_examples=examples(20))
@given(st.integers(0, 10_000), st.integers(2, 7))
def test_the_margin_is_that_of_sorted_probabilities(seed, classes):
    found = probabilities(seed, classes)
    ordered = np.sort(found, axis=0)
    np.testing.assert_allclose(pixel_margin(found), 1 - (ordered[-1] - ordered[-2]), atol=1e-6)


@settings(max_examples=examples(20))
@given(st.integers(0, 10_000), st.integers(2, 5))
def test_disagreement_is_the_mutual_information(seed, views):
    found = np.stack([probabilities(seed + number) for number in range(views)])
    expected = entropy(found.mean(axis=0), axis=0) - entropy(found, axis=1).mean(axis=0)
    assert measured(*found).disagreement == pytest.approx(expected.mean() / np.log(4), abs=1e-5)


def test_equal_views_do_not_disagree_and_opposite_ones_do():
    one, other = np.zeros((2, 4, 4), np.float32), np.zeros((2, 4, 4), np.float32)
    one[0] = other[1] = 1
    assert measured(one, one).disagreement == 0
    assert measured(one, other).disagreement == pytest.approx(1)
    assert measured(one).entropy == 0
    assert measured(one, other).entropy == pytest.approx(1)
    assert measured(one, other).margin == pytest.approx(1)


def test_pixels_that_are_not_valid_do_not_count():
    sure, unsure = np.zeros((2, 4, 4), np.float32), np.full((2, 4, 4), 0.5, np.float32)
    sure[1] = 1
    mixed, valid = sure.copy(), np.zeros((4, 4), bool)
    mixed[:, :, 2:], valid[:, 2:] = unsure[:, :, 2:], True
    found = measured(mixed, valid=valid)
    assert found.entropy == pytest.approx(1)
    assert found.class_pixels.tolist() == [8, 0]
    found = measured(mixed, valid=~valid)
    assert (found.entropy, found.class_pixels.tolist()) == (0, [0, 8])


def test_a_view_of_a_part_counts_there():
    one, other = np.zeros((2, 4, 4), np.float32), np.zeros((2, 4, 4), np.float32)
    one[0] = other[1] = 1
    total = ViewSum(2, 4)
    total.add(one)
    total.add(other[..., :2], slice(2, 4))
    found = total.measures(np.ones((4, 4), bool), 2)
    assert found.disagreement == pytest.approx(0.5)
    np.testing.assert_allclose(total.mean()[0], [[1, 1, 0.5, 0.5]] * 4)


def test_one_possible_class_is_certain():
    assert measured(np.ones((1, 3, 3), np.float32)).entropy == 0
    assert measured(np.ones((1, 3, 3), np.float32)).margin == 0
