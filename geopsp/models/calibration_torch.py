"""Calibrated probabilities on tensors of any device, and in exported graphs; see `calibration`."""

from __future__ import annotations

import torch
from torch import Tensor

from geopsp.models.calibration import CLASS_MARGIN, LEAST_PROBABILITY


def scaled_softmax(
    probabilities: Tensor, weights: Tensor, biases: Tensor, *, dim: int, predicted: Tensor | None = None
) -> Tensor:
    """Return calibrated probabilities.

    Args:
        probabilities: The classes along `dim`.
        weights: Of the classes, of a shape that broadcasts.
        biases: The same; -inf for classes that are never predicted.
        dim: The axis of the classes.
        predicted: True for the predicted class, or for several of the same probability. None: the likeliest.
    """
    values = probabilities.clamp(min=LEAST_PROBABILITY).log() * weights + biases
    predicted = probabilities == probabilities.amax(dim=dim, keepdim=True) if predicted is None else predicted
    best = torch.where(predicted, values, -torch.inf).amax(dim=dim, keepdim=True)
    return torch.where(predicted, values, torch.minimum(values, best - CLASS_MARGIN)).softmax(dim=dim)
