"""The rate over a run, and the time that it takes."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from geopsp.training.schedule import EMA_MAX_DECAY, END, START, WARMUP, TimeBudget, ema_decay, rate_factor


def test_it_rises_evenly_and_falls_along_a_cosine():
    assert rate_factor(0.0) == pytest.approx(START)
    assert rate_factor(WARMUP / 2) == pytest.approx((1 + START) / 2)
    assert rate_factor(WARMUP) == pytest.approx(1)
    assert rate_factor((1 + WARMUP) / 2) == pytest.approx((1 + END) / 2)
    assert rate_factor(1.0) == pytest.approx(END)
    assert rate_factor(1.2) == pytest.approx(END)


@given(progress=st.floats(0, 1), step=st.floats(1e-6, 1e-3))
def test_it_has_no_jumps(progress, step):
    assert abs(rate_factor(progress + step) - rate_factor(progress)) <= 10.1 * step
    assert 0 < rate_factor(progress) <= 1


def test_the_average_looks_back_over_a_part_of_the_run():
    assert ema_decay(5) == 0
    assert ema_decay(100) == pytest.approx(0.9)
    assert ema_decay(10**6) == EMA_MAX_DECAY


class Clock:
    now = 100.0

    def __call__(self):
        return self.now


@pytest.mark.parametrize(("pace", "validation", "epoch"), [(1.0, 2.0, 10), (0.3, 4.0, 7), (7.0, 10.0, 1000)])
@pytest.mark.parametrize("slower", [1.0, 3.0])
def test_a_run_ends_in_time_with_the_rate_down(pace, validation, epoch, slower):
    """Simulated; in its second half each step takes longer. Validations are part of the budget."""
    clock = Clock()
    budget = TimeBudget(300.0, clock)
    rates, steps = [], 0
    while not budget.is_over:
        seconds = pace * (slower if budget.elapsed > 150 else 1)
        rates.append(rate_factor(budget.progress))
        clock.now += seconds
        steps += 1
        budget.now, budget.step, budget.validation = budget.elapsed, seconds, validation
        if steps % epoch == 0 and not budget.is_over:
            clock.now += validation
            budget.now = budget.elapsed
    clock.now += validation
    assert budget.elapsed == pytest.approx(300, rel=0.05)
    assert rates[-1] < 0.03
    assert np.diff(rates).max() < 0.7, "warmed up"
    assert max(rates) > 0.9


def test_an_interrupted_run_has_the_rest_of_its_time():
    clock = Clock()
    budget = TimeBudget(60.0, clock)
    budget.resume(45.0)
    clock.now += 5
    assert budget.elapsed == 50
