"""The range of losses in a chart, which one that ran away does not flatten."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

OUTLIER = 10
"""Times the median from which a loss is beyond the chart."""


def loss_range(losses: Iterable[float]) -> tuple[float, float]:
    """Return the lowest and the highest loss to show: those beyond 10 times the median are left out, and no number."""
    values = np.array([*losses], float)
    values = values[np.isfinite(values)]
    if not values.size:
        return 0.0, 1.0
    usual = values[values <= OUTLIER * np.median(values)] if np.median(values) > 0 else values
    low, high = float(usual.min()), float(usual.max())
    return low, high if high > low else low + 1.0
