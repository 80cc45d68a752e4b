"""Learning rates: found by the range test, given as one or two."""

from __future__ import annotations

import numpy as np
import pytest
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from geopsp.errors import OptionError
from geopsp.training.lr_finder import DEFAULT_RATE, SUGGESTED, valley_lr
from geopsp.training.options import FitOptions, parse_lr

TRIED = np.geomspace(1e-6, 1, 40).tolist()


def fall(low, high, noise=0.0, seed=0):
    """Losses that fall evenly between two rates, and are flat before and rise behind."""
    rates, ripple = np.log10(TRIED), noise * np.random.default_rng(seed).standard_normal(len(TRIED))
    down = np.clip((rates - np.log10(low)) / (np.log10(high) - np.log10(low)), 0, 1)
    return (1 - 0.5 * down + 2 * np.clip(rates - np.log10(high), 0, None) + ripple).tolist()


def test_the_middle_of_the_valley_is_found():
    assert valley_lr(TRIED, fall(1e-4, 1e-2)) == pytest.approx(1e-3, rel=0.5)


@given(seed=st.integers(0, 999), noise=st.floats(0, 0.03))
@settings(max_examples=examples(30), deadline=None)
def test_noise_moves_the_valley_little(seed, noise):
    assert 10**-3.7 < valley_lr(TRIED, fall(1e-4, 1e-2, noise, seed)) < 10**-2.3


@given(losses=st.lists(st.floats(0, 9), min_size=12, max_size=40))
@settings(max_examples=examples(60), deadline=None)
def test_the_longest_fall_is_that_of_all_subsequences(losses):
    """Compared with the quadratic way: the longest fall that ends at each step, from those before it."""
    first, longest = min(10, len(losses) // 4), {}
    for i in range(first, len(losses)):
        longest[i] = 1 + max((longest[j] for j in range(first, i) if losses[j] > losses[i]), default=0)
    length = max(longest.values())
    end = min(i for i in longest if longest[i] == length)
    expected = TRIED[end - length // 2] if length >= 3 else DEFAULT_RATE
    assert valley_lr(TRIED[: len(losses)], losses) == pytest.approx(float(np.clip(expected, *SUGGESTED)))


def test_a_suggestion_is_never_wild():
    """Half of the tests of a short search gave rates above 0.01, one 0.7."""
    assert valley_lr(TRIED, fall(1e-2, 0.9)) == SUGGESTED[1]
    assert valley_lr(TRIED, np.linspace(2, 1, 40).tolist()) <= SUGGESTED[1]
    assert valley_lr(TRIED, fall(1e-5, 1e-4)) == SUGGESTED[0]


@pytest.mark.parametrize("losses", [[1.0, 2.0], np.linspace(1, 2, 40).tolist(), [float("nan")] * 40])
def test_without_a_fall_the_default_is_taken(losses):
    assert valley_lr(TRIED[: len(losses)], losses) == DEFAULT_RATE


def test_what_comes_after_a_loss_that_is_not_finite_does_not_count():
    losses = fall(1e-5, 1e-3)
    losses[28:] = [float("nan")] * 12
    assert valley_lr(TRIED, losses) == pytest.approx(1e-4, rel=0.6)


def test_a_rate_is_one_or_two():
    assert parse_lr(0.1) == (0.1, 0.1)
    assert parse_lr(slice(1e-5, 1e-3)) == parse_lr((1e-5, 1e-3)) == (1e-5, 1e-3)
    assert parse_lr(slice(1e-3)) == (1e-4, 1e-3)
    assert parse_lr(np.float32(0.5)) == (0.5, 0.5)
    for wrong in ("fast", (1, 2, 3), slice(None), None, True):
        with pytest.raises(OptionError, match="slice"):
            parse_lr(wrong)


@pytest.mark.parametrize(
    "options",
    [
        {"epochs": 0}, {"lr": (0.0, 0.0)}, {"lr": (1e-3, float("nan"))}, {"monitor": "taste"}, {"accumulate": 0},
        {"epochs": 2.5}, {"clip": None},
        {"clip": 0.0}, {"ema": 1.0}, {"minutes": 0.0}, {"minutes": 1.0, "epochs": 3}, {"precision": "float16"},
    ],
)  # fmt: skip
def test_options_out_of_range(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        FitOptions(**options)
