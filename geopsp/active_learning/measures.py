"""Uncertainty, disagreement and classes of windows, from the class probabilities of several views."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float32]


def pixel_entropy(probabilities: Floats) -> Floats:
    """Return the entropy at each pixel, (..., s, s), in nats, of (..., classes, s, s) probabilities."""
    logarithms = np.log(np.maximum(probabilities, np.finfo(np.float32).tiny))
    entropy: Floats = -(probabilities * logarithms).sum(axis=-3)
    return np.maximum(entropy, np.float32(0))


def pixel_margin(probabilities: Floats) -> Floats:
    """Return 1 less the difference of the two largest of (classes, s, s) probabilities at each pixel, (s, s)."""
    if len(probabilities) < 2:
        return np.zeros(probabilities.shape[1:], np.float32)
    second, first = np.partition(probabilities, -2, axis=0)[-2:]
    return np.asarray(1 - (first - second), np.float32)


@dataclass(frozen=True, slots=True)
class WindowMeasures:
    """What is measured in a window."""

    entropy: float
    """Mean entropy of the mean probabilities, divided by that of equal ones: 0 to 1."""

    margin: float
    """Mean of 1 less the margin of the two largest mean probabilities: 0 to 1."""

    disagreement: float
    """Mean mutual information of class and view, divided by the largest entropy: 0 to 1; 0 with one view."""

    class_pixels: NDArray[np.int64]
    """(classes,) valid pixels by predicted channel."""


class ViewSum:
    """Sums over the views of a window, in bounded memory."""

    def __init__(self, classes: int, size: int) -> None:
        self.probabilities = np.zeros((classes, size, size), np.float32)
        self._entropy = np.zeros((size, size), np.float32)
        self._count = np.zeros((size, size), np.float32)

    def add(self, probabilities: Floats, cols: slice = slice(None)) -> None:
        """Add a view of some columns of the window, (classes, s, columns)."""
        self.probabilities[..., cols] += probabilities
        self._entropy[:, cols] += pixel_entropy(probabilities)
        self._count[:, cols] += 1

    def mean(self) -> Floats:
        """Return the mean probabilities, (classes, s, s)."""
        return np.asarray(self.probabilities / np.maximum(self._count, 1), np.float32)

    def measures(self, valid: NDArray[np.bool_], num_possible: int) -> WindowMeasures:
        """Return what is measured at the valid pixels; there is at least one.

        Args:
            valid: (s, s).
            num_possible: Classes that the model may predict.

        Source: Settles, "Active learning" (2012), sections 2.3 (entropy, margin) and 3; Houlsby et al., "Bayesian
        active learning for classification and preference learning" (2011), equation 2 (mutual information).
        """
        mean = self.mean()
        largest = float(np.log(max(num_possible, 2)))
        entropy = pixel_entropy(mean)
        mutual = np.maximum(entropy - self._entropy / np.maximum(self._count, 1), 0)
        classes = np.bincount(mean.argmax(axis=0)[valid], minlength=len(mean)).astype(np.int64)
        return WindowMeasures(
            min(float(entropy[valid].mean(dtype=np.float64)) / largest, 1.0),
            float(pixel_margin(mean)[valid].mean(dtype=np.float64)),
            min(float(mutual[valid].mean(dtype=np.float64)) / largest, 1.0),
            classes,
        )
