"""Learning rates: found by the range test, given as one or two."""

from __future__ import annotations

import numpy as np
import pytest

from geopsp.errors import OptionError
from geopsp.training.lr_finder import DEFAULT_RATE, steepest_lr
from geopsp.training.options import FitOptions, parse_lr

TRIED = np.geomspace(1e-6, 1, 40).tolist()


def test_the_steepest_descent_is_found():
    losses = (1 / (1 + np.exp((np.log10(TRIED) + 3) * 4))).tolist()
    assert steepest_lr(TRIED, losses) == pytest.approx(1e-3, rel=0.5)


def test_noise_at_the_start_does_not_count():
    losses = [9.0, 5.0, 3.0, *(1 / (1 + np.exp((np.log10(TRIED[3:]) + 2) * 4)))]
    assert steepest_lr(TRIED, losses) == pytest.approx(1e-2, rel=0.5)


@pytest.mark.parametrize("losses", [[1.0, 2.0], np.linspace(1, 2, 40).tolist(), [float("nan")] * 40])
def test_without_a_slope_the_default_is_taken(losses):
    assert steepest_lr(TRIED[: len(losses)], losses) == DEFAULT_RATE


def test_what_comes_after_a_loss_that_is_not_finite_does_not_count():
    losses = (1 / (1 + np.exp((np.log10(TRIED) + 4) * 4))).tolist()
    losses[30:] = [float("nan")] * 10
    assert steepest_lr(TRIED, losses) == pytest.approx(1e-4, rel=0.5)


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
        {"clip": 0.0}, {"ema": 1.0},
    ],
)  # fmt: skip
def test_options_out_of_range(options):
    with pytest.raises(OptionError, match=next(iter(options))):
        FitOptions(**options)
