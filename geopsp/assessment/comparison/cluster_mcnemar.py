"""McNemar's test where pairs come in clusters, as pixels come in blocks of ground."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import ArrayLike, NDArray


def cluster_mcnemar(only_first: ArrayLike, only_second: ArrayLike) -> tuple[float, float]:
    """Return the statistic and the p-value of the test that both of two classifiers are right equally often.

    Pixels of a cluster may depend on each other in any way, clusters may not. McNemar's own test takes all pairs as
    independent: with thousands of pixels of few fields it finds differences where there are none.

    The statistic is (K - 1) / K (sum d)^2 / sum d^2 with d = b - c in each of K clusters; it has a chi-squared
    distribution with one degree of freedom if there is no difference.

    Args:
        only_first: (clusters,) pairs of which only the first is right (b).
        only_second: (clusters,) pairs of which only the second is right (c).

    Returns:
        Statistic and p-value; 0 and 1 if no cluster has a difference, NaN and NaN with fewer than two clusters.

    Source: Obuchowski, "On the comparison of correlated proportions for clustered data" (1998), in the notation of
        Yang, Sun and Hardin, "A note on the tests for clustered matched-pair binary data" (2010).
    """
    differences = np.asarray(only_first, float) - np.asarray(only_second, float)
    count = len(differences)
    if count < 2:
        return float("nan"), float("nan")
    squares = float((differences**2).sum())
    if not squares:
        return 0.0, 1.0
    statistic = (count - 1) / count * float(differences.sum()) ** 2 / squares
    return statistic, math.erfc(math.sqrt(statistic / 2))


def holm(p_values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return p-values adjusted for the number of tests; NaN stays and does not count.

    Source: Holm, "A simple sequentially rejective multiple test procedure" (1979).
    """
    adjusted = np.full(len(p_values), np.nan)
    known = np.flatnonzero(~np.isnan(p_values))
    order = known[np.argsort(p_values[known], kind="stable")]
    factors = len(order) - np.arange(len(order))
    adjusted[order] = np.minimum(np.maximum.accumulate(p_values[order] * factors), 1)
    return adjusted
