"""How many pixels to draw for a target standard error, and how many of each stratum."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def stratified_sample_size(
    weights: ArrayLike, accuracies: ArrayLike, *, standard_error: float, population: float = math.inf
) -> int:
    """Return how many pixels give the overall accuracy this standard error, drawn from strata in proportion.

    Args:
        weights: (strata,) shares of the strata in the map; they sum to 1.
        accuracies: (strata,) expected user's accuracies, from 0 to 1.
        standard_error: Target standard error of the overall accuracy, from 0 to 1.
        population: Number of pixels in the map.

    Source: Olofsson et al. (2014), Remote Sensing of Environment 148, equation 13; Cochran (1977), equation 5.25.
    """
    share, accuracy = np.asarray(weights, np.float64), np.asarray(accuracies, np.float64)
    variance = accuracy * (1 - accuracy)
    spread = float((share * np.sqrt(variance)).sum())
    return _round_up(spread**2 / (standard_error**2 + float((share * variance).sum()) / population))


def simple_sample_size(accuracy: float, *, standard_error: float, population: float = math.inf) -> int:
    """Return how many pixels, or blocks, give the overall accuracy this standard error, drawn from all of the map.

    Args:
        accuracy: Expected overall accuracy, from 0 to 1.
        standard_error: Its target standard error, from 0 to 1.
        population: Number of pixels, or blocks, in the map, for the finite population correction.

    Source: Cochran (1977), equations 4.1 and 4.2.
    """
    of_many = accuracy * (1 - accuracy) / standard_error**2
    return _round_up(of_many / (1 + max(of_many - 1, 0) / population))


def _round_up(size: float) -> int:
    """Return the next whole number, from 2 on: one pixel has no variance. Rounding errors of floats do not count."""
    return max(2, math.ceil(round(size, 6)))


def allocate(size: int, weights: ArrayLike, low: ArrayLike, high: ArrayLike) -> NDArray[np.int64]:
    """Return (strata,) whole numbers that sum to `size`, in proportion to weights, within bounds.

    Strata whose share is below their lower bound get that, those above their upper bound get that, and the others share
    the rest in proportion. The largest remainders are rounded up; of equal ones, the first.

    Args:
        size: The sum; from `low.sum()` to `high.sum()`.
        weights: (strata,) positive.
        low: (strata,) lower bounds, whole numbers.
        high: (strata,) upper bounds, whole numbers.
    """
    weight = np.asarray(weights, np.float64)
    lowest, highest = np.asarray(low, np.int64), np.asarray(high, np.int64)
    assert lowest.sum() <= size <= highest.sum(), (size, lowest, highest)
    exact = np.clip(_factor(size, weight, lowest, highest) * weight, lowest, highest)
    whole = np.clip(np.floor(exact + 1e-9).astype(np.int64), lowest, highest)
    remainder = np.round(exact - whole, 9)
    while (missing := size - int(whole.sum())) != 0:  # more than one round only where floats are off by a pixel
        can_change = whole < highest if missing > 0 else whole > lowest
        ranked = np.lexsort((np.arange(len(weight)), -np.sign(missing) * remainder))
        chosen = ranked[can_change[ranked]][: abs(missing)]
        whole[chosen] += np.sign(missing)
        remainder[chosen] -= np.sign(missing)
    return whole


def _factor(size: int, weight: NDArray[np.float64], low: NDArray[np.int64], high: NDArray[np.int64]) -> float:
    """Return the factor by which weights, clipped to the bounds, sum to `size`.

    The sum is piecewise linear in the factor, so it is interpolated between the factors at which a bound is reached.
    """
    steps = np.unique(np.concatenate([low / weight, high / weight]))
    sums = np.array([np.clip(step * weight, low, high).sum() for step in steps])
    at = min(int(np.searchsorted(sums, size)), len(steps) - 1)
    if at == 0 or sums[at] <= sums[at - 1]:
        return float(steps[at])
    share = (size - sums[at - 1]) / (sums[at] - sums[at - 1])
    return float(steps[at - 1] + share * (steps[at] - steps[at - 1]))
