"""The labelled pixels that a network learns from and is scored on: those of classes that it does not ignore."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geopsp.chips.chip_set import class_pixels
from geopsp.core.legend import Legend
from geopsp.errors import ChipError
from geopsp.models.loss_options import LossSpec
from geopsp.training.metrics import Confusion
from geopsp.training.training_data import TrainingData


def learned_pixels(data: TrainingData, losses: LossSpec, rows: NDArray[np.intp]) -> NDArray[np.int64]:
    """Count the labelled pixels of each class in some chips, (chips, classes); 0 for classes that are ignored."""
    counts = class_pixels(data.chips.index.iloc[rows], data.legend).copy()
    counts[:, losses.ignored(data.legend)] = 0
    return counts


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
