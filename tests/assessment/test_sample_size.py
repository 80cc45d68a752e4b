"""Sizes of samples are those of the literature; allocations sum to them, within bounds and in proportion."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.optimize import brentq

from geopsp.assessment.sampling.sample_size import allocate, simple_sample_size, stratified_sample_size

OLOFSSON = {"weights": [0.02, 0.015, 0.32, 0.645], "accuracies": [0.7, 0.6, 0.9, 0.95]}
"""Olofsson et al. (2014), section 5: deforestation, forest gain, stable forest, stable non-forest."""


def test_the_example_of_olofsson():
    assert stratified_sample_size(**OLOFSSON, standard_error=0.01) == 641
    assert stratified_sample_size(**OLOFSSON, standard_error=0.01, population=10_000_000) == 641


def test_a_small_population_needs_fewer():
    """By the definition: the variance of the stratified estimator with Neyman's allocation meets the target."""
    weights, accuracies = map(np.array, OLOFSSON.values())
    population = 2_000
    size = stratified_sample_size(**OLOFSSON, standard_error=0.01, population=population)
    deviations = np.sqrt(accuracies * (1 - accuracies))

    def variance(number):  # Cochran (1977), equation 5.27
        return (weights * deviations).sum() ** 2 / number - (weights * deviations**2).sum() / population

    assert size < 641
    assert variance(size) <= 0.01**2 < variance(size - 1)


@given(st.floats(0.01, 0.99), st.floats(0.005, 0.2), st.integers(10, 10**9))
def test_a_simple_sample_has_the_standard_error_that_was_asked(accuracy, target, population):
    size = simple_sample_size(accuracy, standard_error=target, population=population)

    def standard_error(number):  # Cochran (1977), section 3.3, with S^2 = N p q / (N - 1)
        return np.sqrt(accuracy * (1 - accuracy) / number * (population - number) / (population - 1))

    assert size <= max(population, 2)
    if 2 < size < population:
        assert standard_error(size) <= target * (1 + 1e-4)
        assert standard_error(size - 1) >= target * (1 - 3e-1) if size < 20 else target * (1 - 0.1)


def test_a_simple_sample_of_many_pixels():
    assert simple_sample_size(0.5, standard_error=0.05) == 100
    assert simple_sample_size(0.85, standard_error=0.01) == 1275
    assert simple_sample_size(1.0, standard_error=0.01) == 2


@st.composite
def allocations(draw):
    """Draw a size, weights and bounds between which it lies."""
    number = draw(st.integers(1, 12))
    high = draw(st.lists(st.integers(1, 10_000), min_size=number, max_size=number))
    low = [draw(st.integers(0, min(50, most))) for most in high]
    weights = draw(st.lists(st.floats(1e-6, 1), min_size=number, max_size=number))
    return draw(st.integers(sum(low), sum(high))), weights, low, high


@given(allocations())
def test_an_allocation_sums_to_the_size_within_bounds(case):
    size, weights, low, high = case
    found = allocate(size, weights, low, high)
    assert found.sum() == size
    assert (found >= low).all()
    assert (found <= high).all()


@given(allocations())
def test_an_allocation_is_in_proportion_where_no_bound_is_in_the_way(case):
    """Each is less than one from the share that a root finder gives."""
    size, weights, low, high = case
    weights, low, high = np.array(weights), np.array(low), np.array(high)
    top = (high / weights).max()
    exact = high if size == high.sum() else None
    if exact is None:
        factor = brentq(lambda value: np.clip(value * weights, low, high).sum() - size, 0, top, xtol=1e-13 * top)
        exact = np.clip(factor * weights, low, high)
    assert (np.abs(allocate(size, weights, low, high) - exact) < 1 + 1e-3).all()


@pytest.mark.parametrize(
    ("size", "weights", "low", "high", "expected"),
    [
        (641, OLOFSSON["weights"], [2] * 4, [10**6] * 4, [13, 10, 205, 413]),  # proportional, as in the paper
        (640, [1] * 4, [2] * 4, [10**6] * 4, [160] * 4),
        (641, OLOFSSON["weights"], [50, 50, 50, 50], [10**6] * 4, [50, 50, 179, 362]),
        (7, [1, 1, 1], [0] * 3, [9] * 3, [3, 2, 2]),
        (100, [0.5, 0.5], [2, 2], [10, 10**6], [10, 90]),
        (10, [0.1, 0.9], [5, 5], [10, 10], [5, 5]),
    ],
)
def test_allocations_by_hand(size, weights, low, high, expected):
    assert allocate(size, weights, low, high).tolist() == expected
