"""Counts of labelled pixels by block of ground and by chip, as tiles of chips are scored."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from geopsp.core.class_scores import class_scores
from geopsp.core.legend import IGNORE_INDEX

MAX_COUNTS = 2**24
"""Counts of all blocks together; with more classes and chips, blocks share them."""


@dataclass(frozen=True, slots=True)
class ChipScore:
    """How well a chip is predicted."""

    row: int
    """Of the chip in the index."""

    pixels: int
    """Labelled ones."""

    classes: int
    """In its labels."""

    miou: float
    """Over the classes of labels and prediction."""

    accuracy: float


class ChipCounts:
    """Confusion matrices by block, and a score for each chip. The tiles of a chip come one after the other."""

    def __init__(self, blocks: NDArray[np.intp], rows: NDArray[np.intp], classes: int) -> None:
        """Count nothing yet.

        Args:
            blocks: (chips,) the block of each chip.
            rows: (chips,) their rows in the index.
            classes: Number of classes.
        """
        most = max(64, MAX_COUNTS // classes**2)
        self._blocks = dict(zip(rows.tolist(), (blocks % most).tolist(), strict=True))
        self.confusions = np.zeros((min(int(blocks.max()) + 1, most), classes, classes), np.int64)
        self.scores: list[ChipScore] = []
        self._row: int | None = None
        self._chip = np.zeros((classes, classes), np.int64)

    def add(self, rows: Tensor, labels: Tensor, predicted: Tensor) -> None:
        """Count a batch of tiles.

        Args:
            rows: (n,) the chip of each tile.
            labels: (n, h, w) channel indices; IGNORE_INDEX where unlabelled.
            predicted: (n, h, w) channel indices.
        """
        classes = len(self._chip)
        for row, label, found in zip(rows.tolist(), labels.cpu().numpy(), predicted.cpu().numpy(), strict=True):
            if row != self._row:
                self._finish_chip()
                self._row = row
            known = label != IGNORE_INDEX
            pairs = label[known].astype(np.int64) * classes + found[known]
            self._chip += np.bincount(pairs, minlength=classes**2).reshape(classes, classes)

    def finish(self) -> None:
        """Count the last chip."""
        self._finish_chip()
        self._row = None

    @property
    def used(self) -> NDArray[np.int64]:
        """(blocks, classes, classes) of the blocks with labelled pixels."""
        return self.confusions[self.confusions.any(axis=(1, 2))]

    def _finish_chip(self) -> None:
        if self._row is None:
            return
        self.confusions[self._blocks[self._row]] += self._chip
        if pixels := int(self._chip.sum()):
            miou, accuracy = class_scores(self._chip.astype(float))[:2].tolist()
            present = int(self._chip.any(axis=1).sum())
            self.scores.append(ChipScore(self._row, pixels, present, miou, accuracy))
        self._chip[:] = 0


def worst_and_best(scores: list[ChipScore], *, worst: int, best: int) -> tuple[list[ChipScore], list[ChipScore]]:
    """Return the chips of the lowest and of the highest mean IoU, each once.

    Chips with less than half as many labelled pixels as the middle one are left out, and of the best those with one
    class, if there are others: a chip of one class alone says little.
    """
    least = float(np.median([score.pixels for score in scores])) / 2 if scores else 0.0
    large = sorted((score for score in scores if score.pixels >= least), key=lambda score: (score.miou, score.row))
    low = large[:worst]
    rest = large[len(low) :]
    mixed = [score for score in rest if score.classes > 1] or rest
    return low, mixed[::-1][:best]
