"""Bootstrap intervals of scores, and of the difference of two models' scores; whole blocks of ground are resampled."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
from numpy.typing import NDArray

from geopsp.core.class_scores import class_scores
from geopsp.core.student_t import student_quantile

Floats = NDArray[np.float64]

CHUNK = 2**24
"""Counts of resampled confusion matrices that are held at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class PairedConfusions:
    """Confusion matrices of two models on the same pixels, by block."""

    first: Floats
    """(blocks, classes, classes + 1) pixels by labelled class and predicted class, the last of which is no class."""

    second: Floats
    """The same of the other model."""

    def __len__(self) -> int:
        return len(self.first)


def scores(confusion: Floats) -> Floats:
    """Return (..., 2 + classes) mean IoU, accuracy and the IoU of each class that is labelled, as `class_scores`.

    Args:
        confusion: (..., classes, classes + 1) pixels by labelled class and predicted class, the last of which is none.
    """
    return class_scores(confusion, labelled_only=True)[..., : 2 + confusion.shape[-2]]


def score_differences(first: Floats, second: Floats) -> Floats:
    """Return the scores of the second model less those of the first."""
    return scores(second) - scores(first)


Statistic = Callable[[Floats], Floats]
"""(n, blocks) how often each block counts -> (n, scores)."""


def resampled(statistic: Statistic, blocks: int, size: int, resamples: int, rng: np.random.Generator) -> Floats:
    """Return (resamples, scores), each of as many blocks drawn with replacement.

    Args:
        statistic: Returns the scores of the pooled counts of blocks.
        blocks: Number of blocks.
        size: Counts of a block, by which memory is bounded.
        resamples: Number of resamples.
        rng: Draws the blocks.
    """
    found, step = [], max(1, CHUNK // max(size, blocks))
    for start in range(0, resamples, step):
        count = min(step, resamples - start)
        found.append(statistic(rng.multinomial(blocks, np.full(blocks, 1 / blocks), count).astype(float)))
    return np.concatenate(found)


def _left_out(statistic: Statistic, blocks: int, size: int) -> Floats:
    """Return (blocks, scores) of all blocks but one."""
    step = max(1, CHUNK // max(size, blocks))
    parts = (np.arange(start, min(start + step, blocks)) for start in range(0, blocks, step))
    return np.concatenate([statistic((part[:, None] != np.arange(blocks)).astype(float)) for part in parts])


def bootstrap_intervals(
    statistic: Statistic, blocks: int, size: int, *, resamples: int, confidence_level: float, interval: str,
    rng: np.random.Generator,
) -> Floats:  # fmt: skip
    """Return (scores, 3): the scores of all blocks, and the lower and upper end of their intervals.

    Args:
        statistic: Returns the scores of the pooled counts of blocks.
        blocks: Number of blocks.
        size: Counts of a block, by which memory is bounded.
        resamples: Number of bootstrap resamples.
        confidence_level: Of the intervals.
        interval: "bca" or "percentile".
        rng: Draws the blocks.

    Returns:
        NaN where a score is not defined; with fewer than two blocks all intervals are NaN.

    Source: Efron, "Better bootstrap confidence intervals" (1987); Efron and Tibshirani, "An introduction to the
        bootstrap" (1993), section 14.3; expanded as in `expanded_quantile`. Blocks: Kunsch (1989); for maps Roberts et
        al. (2017).
    """
    observed = statistic(np.ones((1, blocks)))[0]
    result = np.full((len(observed), 3), np.nan)
    result[:, 0] = observed
    if blocks < 2:
        return result
    drawn = resampled(statistic, blocks, size, resamples, rng)
    left_out = _left_out(statistic, blocks, size)
    quantile = expanded_quantile(confidence_level, blocks)
    for number, value in enumerate(observed):
        values = drawn[:, number][~np.isnan(drawn[:, number])]
        if np.isnan(value) or not values.size:
            continue
        quantiles = [-quantile, quantile]
        if interval == "bca":
            quantiles = _bca_quantiles(values, value, left_out[:, number], quantiles)
        result[number, 1:] = np.quantile(values, [NormalDist().cdf(each) for each in quantiles])
    return result


def difference_intervals(
    pairs: PairedConfusions, *, resamples: int, confidence_level: float, interval: str, rng: np.random.Generator
) -> Floats:
    """Return (2 + classes, 3) differences of scores, and their intervals, as `bootstrap_intervals`."""
    return bootstrap_intervals(
        _differences(pairs), len(pairs), pairs.first[0].size, resamples=resamples, confidence_level=confidence_level,
        interval=interval, rng=rng,
    )  # fmt: skip


def resampled_differences(pairs: PairedConfusions, resamples: int, rng: np.random.Generator) -> Floats:
    """Return (resamples, 2 + classes) differences of scores, each of as many blocks drawn with replacement."""
    return resampled(_differences(pairs), len(pairs), pairs.first[0].size, resamples, rng)


def _differences(pairs: PairedConfusions) -> Statistic:
    first, second = _pooled(pairs.first), _pooled(pairs.second)
    return lambda weights: score_differences(first(weights), second(weights))


def _pooled(counts: Floats) -> Statistic:
    """Return what sums the counts of blocks, (blocks, ...), for rows of weights."""
    flat = counts.reshape(len(counts), -1)
    return lambda weights: (weights @ flat).reshape(len(weights), *counts.shape[1:])


def score_intervals(confusions: Floats, *, resamples: int, confidence_level: float, rng: np.random.Generator) -> Floats:
    """Return (2 + 3 classes, 3) scores as `class_scores` has them, and their intervals (BCa).

    Args:
        confusions: (blocks, classes, classes) pixels by labelled and predicted class.
        resamples: Number of bootstrap resamples.
        confidence_level: Of the intervals.
        rng: Draws the blocks.
    """
    pooled = _pooled(confusions)
    return bootstrap_intervals(
        lambda weights: class_scores(pooled(weights)), len(confusions), confusions[0].size, resamples=resamples,
        confidence_level=confidence_level, interval="bca", rng=rng,
    )  # fmt: skip


def expanded_quantile(confidence_level: float, blocks: int) -> float:
    """Return the normal quantile of the upper end of an interval of so few blocks.

    Resamples vary less than samples do, by sqrt((n - 1) / n), and few blocks tell their own spread badly. Student's t
    with n - 1 degrees of freedom makes up for both, as it does for means; with many blocks nothing changes.

    Source: Hesterberg, "What teachers should know about the bootstrap" (2015): expanded percentiles.
    """
    return math.sqrt(blocks / (blocks - 1)) * student_quantile(0.5 + confidence_level / 2, blocks - 1)


def _bca_quantiles(values: Floats, observed: float, left_out: Floats, quantiles: list[float]) -> list[float]:
    """Return normal quantiles, corrected for bias and skewness; unchanged where the correction is not defined.

    Args:
        values: Of the resamples.
        observed: Of all blocks.
        left_out: Of all blocks but one; NaN where that is not defined.
        quantiles: Of the ends of an interval without correction.
    """
    below = float(((values < observed).mean() + (values <= observed).mean()) / 2)
    left_out = left_out[~np.isnan(left_out)]
    deviations = left_out.mean() - left_out if left_out.size else np.zeros(1)
    spread = float((deviations**2).sum())
    if not 0 < below < 1 or not spread:
        return quantiles
    bias = NormalDist().inv_cdf(below)
    acceleration = float((deviations**3).sum()) / (6 * spread**1.5)
    return [bias + (bias + each) / (1 - acceleration * (bias + each)) for each in quantiles]
