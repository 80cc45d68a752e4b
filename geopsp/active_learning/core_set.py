"""Greedy choice of windows that are worth most and unlike each other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import pandas as pd
from numpy.typing import NDArray

Floats = NDArray[np.floating]

BLOCK_ROWS = 1024
"""Features that are compared with all others at a time."""


def ranks(values: Floats) -> NDArray[np.float64]:
    """Return the ranks of (n,) values from 0 (the smallest) to 1; equal values have their mean rank."""
    if len(values) < 2 or np.ptp(values) == 0:
        return np.full(len(values), 0.5)
    found = np.asarray(pd.Series(values).rank(), np.float64)
    return (found - 1) / (len(values) - 1)


def rarity(class_pixels: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the mean inverse frequency of the classes in each window, (n,), of (n, classes) pixels.

    Frequencies are those in all windows: a window with only the classes of all ground in their shares has the number
    of classes that occur.
    """
    totals = class_pixels.sum(axis=0)
    inverse = np.divide(totals.sum(), totals, out=np.zeros(len(totals)), where=totals > 0)
    pixels = class_pixels.sum(axis=1)
    return np.asarray(class_pixels @ inverse / np.maximum(pixels, 1), np.float64)


def nearest_distances(features: Floats, others: Floats) -> NDArray[np.float64]:
    """Return the distance of each of (n, d) features to the nearest of (m, d) others; infinite if there are none."""
    nearest = np.full(len(features), np.inf)
    squares = np.einsum("ij,ij->i", features, features)
    for first in range(0, len(others), BLOCK_ROWS):
        block = others[first : first + BLOCK_ROWS]
        found = squares[:, None] - 2 * (features @ block.T) + np.einsum("ij,ij->i", block, block)
        np.minimum(nearest, found.min(axis=1), out=nearest)
    return np.asarray(np.sqrt(np.maximum(nearest, 0)), np.float64)


@dataclass(frozen=True, slots=True, eq=False)
class Choice:
    """The windows that were chosen, the best first."""

    positions: NDArray[np.intp]
    scores: NDArray[np.float64]
    """0 to 1, when each was chosen."""

    novelty: NDArray[np.float64]
    """0 to 1, when each was chosen."""


def choose(
    worth: NDArray[np.float64],
    features: Floats,
    seen: Floats,
    *,
    number: int,
    novelty_weight: float,
    weight_sum: float,
    still_allowed: Callable[[int], NDArray[np.bool_]],
    seed: int,
) -> Choice:
    """Choose windows one after the other, each with the largest score.

    score = (worth + novelty_weight * novelty) / weight_sum, where novelty is the distance in feature space to the
    nearest window that was seen or chosen, divided by the largest such distance at the start (without seen windows,
    after the first choice), and at most 1. With worth 0 this is the greedy k-center algorithm.

    Args:
        worth: (n,) weighted sum of the other measures.
        features: (n, d); d = 0 means no novelty.
        seen: (m, d) features of what is labelled.
        number: How many to choose at most.
        novelty_weight: Of the novelty.
        weight_sum: Of all weights.
        still_allowed: Takes the position of a window that was chosen; returns (n,) which may still be.
        seed: Decides between equal scores.

    Source: Sener and Savarese, "Active learning for convolutional neural networks: a core-set approach" (2018),
    algorithm 1.
    """
    uses_novelty = novelty_weight > 0 and features.shape[1] > 0
    count = len(worth)
    order = np.random.default_rng(seed).permutation(count)
    allowed = np.ones(count, bool)
    distances = nearest_distances(features, seen) if uses_novelty else np.zeros(count)
    scale = _scale(distances)
    chosen: list[tuple[int, float, float]] = []
    while len(chosen) < number and allowed.any():
        novelty = _novelty(distances, scale) if uses_novelty else np.zeros(count)
        scores = np.where(allowed, (worth + novelty_weight * novelty) / weight_sum, -np.inf)
        best = int(order[scores[order].argmax()])
        chosen.append((best, float(scores[best]), float(novelty[best])))
        allowed &= still_allowed(best)
        allowed[best] = False
        if uses_novelty:
            distances = np.minimum(distances, nearest_distances(features, features[[best]]))
            scale = _scale(distances) if scale is None else scale
    positions, scores_of, novelty_of = zip(*chosen, strict=True) if chosen else ((), (), ())
    return Choice(np.array(positions, np.intp), np.array(scores_of, float), np.array(novelty_of, float))


def _scale(distances: NDArray[np.float64]) -> float | None:
    """Return the largest distance; None as long as nothing was seen."""
    largest = float(distances.max(initial=0))
    return largest if np.isfinite(largest) else None


def _novelty(distances: NDArray[np.float64], scale: float | None) -> NDArray[np.float64]:
    """Return distances as 0 to 1; all are 1 as long as nothing was seen."""
    if scale is None:
        return np.ones(len(distances))
    return np.minimum(distances / scale, 1) if scale > 0 else np.zeros(len(distances))
