"""The labelled pixels that a network learns from and is scored on: those of classes that it does not ignore."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geopsp.chips.chip_set import class_pixels
from geopsp.core.legend import Legend
from geopsp.data.loader import ChipLoaders, chip_weights
from geopsp.errors import ChipError
from geopsp.models.class_bias import set_class_bias
from geopsp.models.loss_options import LossSpec
from geopsp.models.losses import class_weights
from geopsp.models.network import SegmentationNetwork
from geopsp.training.metrics import Confusion
from geopsp.training.training_data import TrainingData


def learned_pixels(data: TrainingData, losses: LossSpec, rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Count the labelled pixels of each class in some chips, (chips, classes); 0 for classes that are ignored."""
    counts = class_pixels(data.chips.index.iloc[rows], data.legend).copy()
    counts[:, losses.ignored(data.legend)] = 0
    return counts


def loss_weight(data: TrainingData, losses: LossSpec) -> Tensor | None:
    """Return the (classes,) weights of the loss for the training chips; None: all classes count the same."""
    if not losses.balancing:
        return None
    return class_weights(torch.from_numpy(learned_pixels(data, losses, data.train_rows).sum(axis=0)), losses.balancing)


def start_from_shares(network: SegmentationNetwork, data: TrainingData, losses: LossSpec) -> None:
    """Set the bias of a network's new last layers to the shares of the classes, as the loss weights them."""
    pixels = torch.from_numpy(learned_pixels(data, losses, data.train_rows).sum(axis=0))
    weight = loss_weight(data, losses)
    set_class_bias(network, pixels if weight is None else pixels * weight)


def learning_loaders(data: TrainingData, losses: LossSpec, seed: int) -> ChipLoaders:
    """Return the loaders of the data; classes that the loss ignores do not raise a chip's sampling weight.

    Raises:
        ChipError: if there is nothing to train on, or nothing to validate on.
    """
    require_learned_pixels(data, losses)
    loaders = replace(data.loaders, seed=seed)
    if loaders.weights is None:
        return loaders
    return replace(loaders, weights=chip_weights(learned_pixels(data, losses, data.train_rows)))


def require_learned_pixels(data: TrainingData, losses: LossSpec) -> None:
    """Check that there is something to train on, and something to validate on.

    Raises:
        ChipError: if a part holds no pixel of a class that is learned.
    """
    for part, rows in (("training", data.train_rows), ("validation", data.valid_rows)):
        if not learned_pixels(data, losses, rows).sum():
            raise ChipError(f"No pixel of the {part} chips counts: {_reason(losses, data.legend)}")


def require_scores(scores: Confusion, losses: LossSpec) -> Confusion:
    """Return the scores.

    Raises:
        ChipError: if they count no pixel.
    """
    if not scores.counts.sum():
        raise ChipError(f"There is nothing to score: {_reason(losses, scores.legend)}")
    return scores


def _reason(losses: LossSpec, legend: Legend) -> str:
    ignored = [legend.names[channel] for channel in losses.ignored(legend)]
    if not ignored:
        return "all are unlabelled. Choose other chips, or label more."
    return (
        f"all are unlabelled or of the ignored classes ({', '.join(ignored)}). Ignore fewer (`ignore_classes`), or "
        "choose other chips."
    )
