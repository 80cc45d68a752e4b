"""Quantiles of Student's t, for intervals."""

from __future__ import annotations

import math
from functools import lru_cache
from statistics import NormalDist

import numpy as np


@lru_cache(maxsize=64)
def student_quantile(probability: float, degrees_of_freedom: float) -> float:
    """Return the quantile of Student's t, for probabilities from 0.5 on; infinite degrees are the normal distribution.

    With t = sqrt(degrees) tan(angle), the density is a power of the cosine, which is integrated up to the angle.
    """
    if math.isinf(degrees_of_freedom):
        return NormalDist().inv_cdf(probability)
    half = degrees_of_freedom / 2
    scale = math.exp(math.lgamma(half + 0.5) - math.lgamma(half)) / math.sqrt(math.pi)
    nodes, weights = np.polynomial.legendre.leggauss(200)
    low, high = 0.0, min(math.pi / 2, 40 / math.sqrt(degrees_of_freedom))  # no nodes where the density is 0
    for _ in range(60):
        angle = (low + high) / 2
        density = np.cos((nodes + 1) * angle / 2) ** (degrees_of_freedom - 1)
        below = 0.5 + scale * angle / 2 * float(weights @ density) < probability
        low, high = (angle, high) if below else (low, angle)
    return math.sqrt(degrees_of_freedom) * math.tan(low)
