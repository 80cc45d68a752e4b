"""The validation chips that are scored after each epoch: a sample, so that validation takes little of the time."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from geopsp.chips.chip_set import class_pixels
from geopsp.core.text import format_count
from geopsp.data.dataset import TiledChipDataset

logger = logging.getLogger(__name__)

VALIDATION_SHARE = 0.05
"""Most time of an epoch that its validation takes."""


TILE_COST = 1 / 3
"""Time of a validation tile over that of a training chip, until it is measured: there is no backward pass."""


MIN_TILES = 64
"""Fewest tiles of a sample: with fewer the score of an epoch would be chance."""


SEED = 0


def sample_rows(pixels: NDArray[np.int64], size: int) -> NDArray[np.intp]:
    """Draw some chips, and for each class that none of them holds add the chip that holds most of it.

    Args:
        pixels: (chips, classes) labelled pixels.
        size: Chips to draw; always the same ones.

    Returns:
        The positions of the chips, in order.
    """
    rng = np.random.default_rng(SEED)
    drawn = rng.permutation(len(pixels))[:size]
    found = pixels[drawn].sum(axis=0)
    missing = np.flatnonzero((found == 0) & (pixels.sum(axis=0) > 0))
    return np.union1d(drawn, pixels[:, missing].argmax(axis=0)).astype(np.intp)


def epoch_sample(dataset: TiledChipDataset, num_train: int) -> TiledChipDataset:
    """Return the validation chips, or a fixed part of them that takes about `VALIDATION_SHARE` of the time of an epoch.

    Args:
        dataset: All validation chips.
        num_train: Chips that an epoch trains on.
    """
    sample = sample_tiles(dataset, max(MIN_TILES, int(VALIDATION_SHARE * num_train / TILE_COST)))
    if sample is not dataset:
        logger.info(
            f"Each epoch is scored on {len(sample.rows)} of {format_count(len(dataset.rows), 'validation chip')}, and "
            "the saved model on all."
        )
    return sample


def sample_tiles(dataset: TiledChipDataset, num_tiles: int) -> TiledChipDataset:
    """Return a fixed part of the chips that has about so many tiles, and all classes; all if there are fewer."""
    size = -(-num_tiles // len(dataset.starts) ** 2)
    if size >= len(dataset.rows):
        return dataset
    chips = dataset.chips
    rows = dataset.rows[sample_rows(class_pixels(chips.index.iloc[dataset.rows], chips.legend), size)]
    return TiledChipDataset(chips, rows, dataset.normalization, size=dataset.size, reader=dataset.reader)
