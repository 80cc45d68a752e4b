"""What is said of the labels of a chip set: the warnings of its exports and on class balance, and what was left out."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from geopsp.chips.chip_set import ChipSet, class_pixels
from geopsp.chips.class_balance import class_warnings, is_imbalance, warning_text
from geopsp.core.text import format_count

logger = logging.getLogger(__name__)

LABEL_COUNTS = {
    "repaired": "repaired", "null": "without geometry", "empty": "empty", "not_polygons": "not polygons",
    "without_class": "without a class", "dropped": "dropped", "not_finite": "with infinite or NaN coordinates",
}  # fmt: skip
"""Words for the counts of labels in a report."""


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


def describe_labels(report: Mapping[str, Any]) -> str:
    """Return the source of the labels of an export, how many polygons or masks it has, and what was left out."""
    labels = report["labels"]
    polygons = labels.get("polygons") or sum(report.get("polygons", {}).values())
    counts = [format_count(polygons, "polygon")] if polygons else []
    counts += [format_count(labels["masks"], "mask")] if labels.get("masks") else []
    counts += [f"{labels[key]:,} {words}" for key, words in LABEL_COUNTS.items() if labels.get(key)]
    return f"{labels['source']}" + (f": {', '.join(counts)}" if counts else "")
