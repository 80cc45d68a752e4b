"""The warnings that hold for a chip set: those of its exports, and those on the balance of all its classes."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from geopsp.chips.chip_set import ChipSet, class_pixels
from geopsp.chips.class_balance import class_warnings, is_imbalance, warning_text

logger = logging.getLogger(__name__)


def chip_warnings(chips: ChipSet) -> list[str]:
    """Return the warnings of the exports, and those on class balance for all chips together."""
    counts = class_pixels(chips.index, chips.legend)
    texts = [text for report in chips.reports for text in lasting_warnings(report)]
    balance = class_warnings(chips.legend, counts.sum(axis=0), (counts > 0).sum(axis=0))
    return list(dict.fromkeys([*texts, *map(warning_text, balance)]))


def lasting_warnings(report: Mapping[str, Any]) -> list[str]:
    """Return the texts of the warnings of an export but those on class balance, which other chips may change.

    Among them are notes on labels, which were no warnings in earlier versions.
    """
    texts = [warning_text(warning) for warning in report.get("warnings", []) if not is_imbalance(warning)]
    notes = [f"{note.rstrip('.')}." for note in report["labels"].get("notes", [])]
    return list(dict.fromkeys([*texts, *notes]))


def log_chip_warnings(chips: ChipSet) -> None:
    """Log the warnings of a chip set."""
    for text in chip_warnings(chips):
        logger.warning(text)
