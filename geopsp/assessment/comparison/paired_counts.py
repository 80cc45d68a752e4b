"""Two models on the same chips: confusion matrices, and pixels that only one of them has right, by block of ground."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from geopsp.assessment.joint_classes import JointClasses
from geopsp.core.legend import IGNORE_INDEX
from geopsp.training.block_bootstrap import PairedConfusions, scores

if TYPE_CHECKING:
    from geopsp.training.chip_predictions import ChipPrediction

CHIP_COLUMNS = ("chip", "block", "pixels", "accuracy_a", "accuracy_b", "miou_a", "miou_b", "miou_difference")


@dataclass(slots=True, eq=False)
class PairedCounts:
    """What is counted of all chips."""

    classes: JointClasses
    """Of the chips, the first model and the second model, in this order."""

    confusions: tuple[NDArray[np.int64], NDArray[np.int64]]
    """For each model (blocks, classes, classes + 1) pixels by label and prediction, the last of which is no class."""

    only_one: NDArray[np.int64]
    """(blocks, classes + 1, 2) pixels that only the first model, only the second has right: as of each class or not of
    it; the last row is of all classes."""

    rows: list[tuple[object, ...]] = field(default_factory=list)
    """One row per chip, see `CHIP_COLUMNS`."""

    @classmethod
    def empty(cls, classes: JointClasses, blocks: int) -> PairedCounts:
        """Return counts of no chip."""
        count = len(classes)
        first, second = (np.zeros((blocks, count, count + 1), np.int64) for _ in range(2))
        return cls(classes, (first, second), np.zeros((blocks, count + 1, 2), np.int64))

    def add(self, name: str, block: int, labels: NDArray[np.uint8], predicted: Sequence[NDArray[np.uint8]]) -> None:
        """Count the labelled pixels of a chip.

        Args:
            name: The chip.
            block: Its block.
            labels: (h, w) joint classes; IGNORE_INDEX where unlabelled.
            predicted: Of each model, (h, w) joint classes; IGNORE_INDEX for no class.
        """
        known = labels != IGNORE_INDEX
        count = len(self.classes)
        if not known.any():
            return
        label, one, other = (np.minimum(each[known], count).astype(np.int64) for each in (labels, *predicted))
        found = [confusion(label, each, count) for each in (one, other)]
        for total, each in zip(self.confusions, found, strict=True):
            total[block] += each
        self.only_one[block] += only_one_right(label, one, other, count)
        self.rows.append((name, block, len(label), *_chip_scores(*found)))

    @property
    def chips(self) -> pd.DataFrame:
        """Scores of both models by chip; mean IoU is over the classes that its labels have."""
        return pd.DataFrame(self.rows, columns=list(CHIP_COLUMNS))

    def pairs(self) -> PairedConfusions:
        """Return the confusion matrices of the blocks with labelled pixels."""
        used = self.used_blocks
        first, second = (each[used].astype(float) for each in self.confusions)
        return PairedConfusions(first, second)

    @property
    def used_blocks(self) -> NDArray[np.intp]:
        """The blocks with labelled pixels."""
        return np.flatnonzero(self.confusions[0].any(axis=(1, 2)))


def confusion(labels: NDArray[np.int64], predicted: NDArray[np.int64], count: int) -> NDArray[np.int64]:
    """Return (classes, classes + 1) pixels by label and prediction; `count`, the number of classes, is no class."""
    found = np.bincount(labels * (count + 1) + predicted, minlength=count * (count + 1))
    return found.reshape(count, count + 1)


def only_one_right(
    labels: NDArray[np.int64], one: NDArray[np.int64], other: NDArray[np.int64], count: int
) -> NDArray[np.int64]:
    """Return (classes + 1, 2) pixels that only the first, only the second of two predictions has right.

    For a class, a prediction is right where it says whether the pixel is of this class. The last row is of all classes.
    """
    differ = one != other
    labels, one, other = labels[differ], one[differ], other[differ]
    first, second = one == labels, other == labels

    def per_class(predicted: NDArray[np.int64], chosen: NDArray[np.bool_]) -> NDArray[np.int64]:
        return np.bincount(predicted[chosen], minlength=count + 1)[:count]

    found = np.zeros((count + 1, 2), np.int64)
    found[:count, 0] = per_class(one, first) + per_class(other, ~second)
    found[:count, 1] = per_class(other, second) + per_class(one, ~first)
    found[count] = first.sum(), second.sum()
    return found


def _chip_scores(first: NDArray[np.int64], second: NDArray[np.int64]) -> tuple[float, ...]:
    """Return accuracy and mean IoU of both models, and the difference of the latter."""
    (miou_a, accuracy_a), (miou_b, accuracy_b) = (scores(each.astype(float))[:2].tolist() for each in (first, second))
    return accuracy_a, accuracy_b, miou_a, miou_b, miou_b - miou_a


def count_pairs(
    classes: JointClasses,
    names: Sequence[str],
    blocks: NDArray[np.intp],
    ignored: NDArray[np.bool_],
    predictions: Iterable[tuple[ChipPrediction, ChipPrediction]],
) -> PairedCounts:
    """Count the pixels of all chips.

    Args:
        classes: Of chips, first and second model.
        names: Of the chips.
        blocks: (chips,) numbers.
        ignored: (256,) True for joint classes whose labels do not count.
        predictions: Of both models, chip by chip in the order of the names.
    """
    counts = PairedCounts.empty(classes, int(blocks.max()) + 1)
    of_chips, *of_models = classes.tables
    for name, block, pair in zip(names, blocks.tolist(), predictions, strict=True):
        labels = of_chips[pair[0].labels]
        labels = np.where(ignored[labels], np.uint8(IGNORE_INDEX), labels)
        counts.add(name, block, labels, [table[each.predicted] for table, each in zip(of_models, pair, strict=True)])
    return counts
