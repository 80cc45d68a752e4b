"""Read training chips once: their band statistics, and whether there is something to learn from."""

from __future__ import annotations

import logging

import numpy as np
from numpy.typing import NDArray

from geopsp.chips.chip_set import ChipSet
from geopsp.core.bands import BandStats, merge_stats
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.text import format_count
from geopsp.data.dataset import ChipFiles, ChipReader
from geopsp.errors import ChipError

logger = logging.getLogger(__name__)

MAX_CODES_NAMED = 5
"""Codes that a message names at most."""


def chip_statistics(chips: ChipSet, rows: NDArray[np.intp], reader: ChipReader | None = None) -> BandStats:
    """Return the band statistics of the valid pixels of training chips; codes that are no class are a warning.

    Raises:
        ChipError: if no pixel is valid, or none has a class.
    """
    reader, side = reader or ChipFiles(chips), chips.tile_size
    tables, stats = chips.index["table"].to_numpy(), list[BandStats]()
    pixels = np.zeros((len(chips.tables), 256), np.int64)  # by code, of each folder
    for row in rows.tolist():
        chip = reader.read(row, 0, 0, side)
        stats.append(BandStats.from_array(chip.data, chip.valid))
        pixels[tables[row]] += np.bincount(chip.codes.ravel(), minlength=256)
    merged = merge_stats(stats, len(chips.bands))
    if not merged.count:
        raise ChipError(
            f"No pixel of {format_count(len(rows), 'training chip')} is valid: all are nodata, NaN or masked. Check "
            "the images and their nodata value, and export the chips again."
        )
    _check_codes(chips, pixels)
    return merged


def _check_codes(chips: ChipSet, pixels: NDArray[np.int64]) -> None:
    """Warn of codes that are no class. `pixels`: (folders, 256) by code.

    Raises:
        ChipError: if no code is a class.
    """
    known = np.stack(chips.tables) != IGNORE_INDEX
    others = np.where(known, 0, pixels).sum(axis=0)
    others[IGNORE_INDEX] = 0
    codes = np.flatnonzero(others).tolist()
    more = ", ..." * (len(codes) > MAX_CODES_NAMED)
    found = f"{', '.join(map(str, codes[:MAX_CODES_NAMED]))}{more} ({format_count(int(others.sum()), 'pixel')})"
    classes = f"the classes are {', '.join(f'{info.code} {info.name}' for info in chips.legend)}"
    if not pixels[known].sum():
        held = f"Their labels hold {found}, but {classes}." if codes else "All are unlabelled or invalid."
        raise ChipError(f"No pixel of the training chips has a class. {held} Check the labels, and export again.")
    if codes:
        logger.warning(f"The labels of the training chips hold {found}, but {classes}. These pixels are unlabelled.")
