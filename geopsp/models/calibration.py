"""Calibration: probabilities that say how often the predicted class is right. Nothing here needs torch.

A calibration changes probabilities, but never the class of a pixel. With the probabilities p of the network (in a map:
blended from overlapping tiles), a weight w and a bias b for each class,

    v_i = w_i log(p_i) + b_i,    q = softmax(v)

Temperature scaling is w_i = 1 / T and b_i = 0, which is softmax(logits / T); vector scaling fits both for each class.
Two rules make q well defined: p is at least `LEAST_PROBABILITY` (scores of maps are whole numbers, and the fit keeps to
the same floor), and v of all other classes is capped `CLASS_MARGIN` below that of the predicted class, so that vector
scaling cannot change it either.

Source: Guo et al., "On calibration of modern neural networks" (2017), sections 4.2 and 5.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.options import require_choice
from geopsp.errors import ModelError
from geopsp.models.calibration_methods import METHODS, Method

LEAST_PROBABILITY = 2.0**-18
"""Least probability of a class that is predicted at all: half a step of the scores of maps."""

CLASS_MARGIN = 1e-3
"""How far below that of the predicted class the v of other classes ends: odds of 1.001 to 1."""

LOW, HIGH = 0.2, 20.0
"""Range of the temperature, and of the inverse of the weights of vector scaling."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """How the probabilities of a model become calibrated ones, and what that is worth on the validation chips."""

    method: Method
    """"temperature" or "vector"."""

    temperature: float
    """T; of vector scaling, that of the temperature scaling it began with."""

    weights: tuple[float, ...] = ()
    """Vector scaling: the w of each class; (): 1 / T for all."""

    biases: tuple[float, ...] = ()
    """Vector scaling: the b of each class; (): 0 for all."""

    pixels: int = 0
    """Labelled pixels that it was fitted on."""

    chips: int = 0
    """Chips that they are from."""

    nll_before: float | None = None
    """Mean negative logarithm of the probability of the true class, without calibration. None: not known."""

    nll_after: float | None = None
    """The same with calibration: two-fold, see `folds`."""

    ece_before: float | None = None
    """Expected calibration error, 15 bins of equal width, without calibration."""

    ece_after: float | None = None
    """The same with calibration: two-fold."""

    folds: str = ""
    """How the chips were halved for the scores after calibration, each half scored by the fit on the other: "blocks" of
    ground, or "chips". "": scored on the chips of the fit, as there was one chip only, which is optimistic."""

    def __post_init__(self) -> None:
        require_choice("method", self.method, METHODS)
        numbers = (self.temperature, *self.weights, *self.biases)
        if not all(np.isfinite(numbers)) or min(self.temperature, *self.weights, np.inf) <= 0:
            raise ModelError(
                f"The calibration has temperature {self.temperature:g}, weights {list(self.weights)} and biases "
                f"{list(self.biases)}, but needs finite numbers, and temperature and weights above 0. Calibrate anew."
            )
        if len(self.weights) != len(self.biases):
            raise ModelError(
                f"The calibration has {len(self.weights)} weights and {len(self.biases)} biases, but needs as many of "
                "both. Calibrate anew."
            )

    def coefficients(self, classes: int) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Return w and b of each class, (classes,) float32."""
        if not self.weights:
            return np.full(classes, 1 / self.temperature, np.float32), np.zeros(classes, np.float32)
        return np.array(self.weights, np.float32), np.array(self.biases, np.float32)

    def apply(self, probabilities: NDArray[Any], *, excluded: Sequence[int] = ()) -> NDArray[np.float64]:
        """Return calibrated probabilities, (classes, ...).

        Args:
            probabilities: (classes, ...) that sum to 1 over the first axis.
            excluded: Channels that are never predicted; they stay 0.
        """
        weights, biases = (line.astype(float) for line in self.coefficients(len(probabilities)))
        return scaled_softmax(np.asarray(probabilities, float), weights, biases, excluded=excluded)

    @property
    def identity(self) -> dict[str, Any]:
        """What calibrated probabilities depend on, for the keys of maps."""
        return {"temperature": None if self.weights else self.temperature, "w": self.weights, "b": self.biases}

    @property
    def words(self) -> str:
        """The method in words, e.g. "temperature 1.40"."""
        return f"temperature {self.temperature:.2f}" if self.method == "temperature" else "vector scaling"

    @property
    def summary(self) -> str:
        """The method and what it is worth, in one line."""
        if self.ece_before is None or self.ece_after is None:
            return self.words
        how = {"blocks": "two-fold by blocks", "chips": "two-fold by chips"}.get(self.folds, "on the chips of the fit")
        return f"{self.words}; ECE {self.ece_before:.4f} before, {self.ece_after:.4f} after ({how})"

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "weights": list(self.weights), "biases": list(self.biases)}

    @classmethod
    def from_json(cls, entry: Mapping[str, Any] | None) -> Calibration | None:
        """Return the calibration of a manifest; None if it has none."""
        if entry is None:
            return None
        known = {each.name for each in fields(cls)}
        found = {name: value for name, value in entry.items() if name in known}
        pairs = {name: tuple(map(float, found.get(name, ()))) for name in ("weights", "biases")}
        return cls(**{**found, **pairs})


def scaled_softmax(
    probabilities: NDArray[np.float64],
    weights: NDArray[np.float64],
    biases: NDArray[np.float64],
    *,
    excluded: Sequence[int] = (),
) -> NDArray[np.float64]:
    """Return q of the formula above, (classes, ...), for weights and biases, (classes,)."""
    shape = (-1,) + (1,) * (probabilities.ndim - 1)
    values = np.log(np.maximum(probabilities, LEAST_PROBABILITY)) * weights.reshape(shape) + biases.reshape(shape)
    values[list(excluded)] = -np.inf
    predicted = probabilities == probabilities.max(axis=0)
    best = np.where(predicted, values, -np.inf).max(axis=0)
    values = np.exp(np.where(predicted, values, np.minimum(values, best - CLASS_MARGIN)) - best)
    found: NDArray[np.float64] = values / values.sum(axis=0)
    return found


def calibration_entry(calibration: Calibration | None) -> dict[str, Any]:
    """Return the entry of a manifest; {} without calibration, as in earlier versions."""
    return {} if calibration is None else {"calibration": calibration.to_json()}
