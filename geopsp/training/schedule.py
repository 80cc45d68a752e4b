"""The learning rate over a run, by steps or by time, and the time that a run may take."""

from __future__ import annotations

import math
import time
from collections.abc import Callable

WARMUP = 0.1
"""Fraction of the run in which the rate rises."""


START, END = 0.04, 0.01
"""The first and the last rate, as fractions of the highest one."""


EMA_MAX_DECAY = 0.999


EMA_STEPS = 10
"""The moving average looks back over this part of a run: its decay is 1 - EMA_STEPS / steps."""


def rate_factor(progress: float) -> float:
    """Return the rate as a fraction of the highest one, from the fraction of the run that is over.

    It rises evenly, then falls along half a cosine.

    Source: Loshchilov and Hutter, "SGDR" (2017), without restarts; warm-up: Goyal et al., "Accurate, Large Minibatch
    SGD" (2017), section 2.2.
    """
    if progress < WARMUP:
        return START + (1 - START) * max(progress, 0.0) / WARMUP
    fallen = (min(progress, 1.0) - WARMUP) / (1 - WARMUP)
    return END + (1 - END) * (1 + math.cos(math.pi * fallen)) / 2


def ema_decay(steps: float) -> float:
    """Return the decay of the moving average of the weights for a run of so many steps.

    Source: Morales-Brotons et al., "Exponential Moving Average of Weights in Deep Learning" (2024), section 4.
    """
    return min(EMA_MAX_DECAY, max(0.0, 1 - EMA_STEPS / max(steps, 1.0)))


class TimeBudget:
    """The time of a run in seconds: how much of it is over, and whether a further step fits.

    The last validation is part of the budget.
    """

    def __init__(self, seconds: float, clock: Callable[[], float] = time.monotonic) -> None:
        """Start the clock."""
        self.seconds, self.clock, self.begin = seconds, clock, clock()
        self.now = self.step = self.validation = 0.0
        """When the last step ended, and how long a step and a validation take."""

    @property
    def elapsed(self) -> float:
        """Time so far, with that of the run that was resumed."""
        return self.clock() - self.begin

    def resume(self, elapsed: float) -> None:
        """Add the time that the run took before it was interrupted."""
        self.begin -= elapsed

    @property
    def progress(self) -> float:
        """The fraction of the training steps that is over, 0 to 1, in time."""
        return min(1.0, self.now / max(self.seconds - self.validation - self.step, 1e-9))

    @property
    def is_over(self) -> bool:
        """True if another step and the last validation would end too late."""
        return self.now + self.step / 2 + self.validation >= self.seconds
