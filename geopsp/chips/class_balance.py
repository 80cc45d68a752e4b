"""Warnings of classes that are too rare, or too common, to be learned."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from geopsp.core.legend import BACKGROUND, Legend
from geopsp.core.text import format_count

RARE = 0.001
"""A class is rare below this fraction of the labelled pixels."""


MIN_CHIPS = 5
"""A class in fewer chips cannot be both trained on and validated."""


DOMINANT = 0.95
"""A class dominates above this fraction of the labelled pixels."""


IMBALANCE = "imbalance"


WORDS_OF_VERSION_0_1 = (" has no pixel, so ", " only; needed at least ", " of the labelled pixels")
"""Each warning of imbalance that version 0.1 wrote to chips.json, as a mere text, contains one of these."""


class ChipWarning(TypedDict):
    """A warning in the report of an export, in chips.json."""

    kind: str
    """"imbalance", or "input" for what is wrong with a folder of ArcGIS, or was assumed of the images."""

    text: str


def warning_text(warning: Mapping[str, Any] | str) -> str:
    """Return the text of a warning in a report; in reports of version 0.1 it is all there is."""
    return warning if isinstance(warning, str) else str(warning["text"])


def is_imbalance(warning: Mapping[str, Any] | str) -> bool:
    """Return True for a warning of `class_warnings`, which may not hold any more when chips were added."""
    if isinstance(warning, str):
        return any(words in warning for words in WORDS_OF_VERSION_0_1)
    return bool(warning["kind"] == IMBALANCE)


def class_warnings(
    legend: Legend, pixels: Sequence[int] | NDArray[Any], chips_with: Sequence[int] | NDArray[Any]
) -> list[ChipWarning]:
    """Warn of classes that are missing, rare or dominant, and say what to do.

    Args:
        legend: The classes.
        pixels: (classes,) labelled pixels.
        chips_with: (classes,) chips that contain a pixel of the class.
    """
    counts, chips = np.asarray(pixels, np.int64), np.asarray(chips_with, np.int64)
    fractions = counts / max(counts.sum(), 1)
    texts = [
        text
        for name, count, fraction, within in zip(legend.names, counts, fractions, chips, strict=True)
        if (text := _class_warning(name, int(count), float(fraction), int(within)))
    ]
    return [{"kind": IMBALANCE, "text": text} for text in texts]


def _class_warning(name: str, count: int, fraction: float, chips: int) -> str:
    """Return the warning of one class, or ""."""
    if not count:
        if name == BACKGROUND:  # polygons may cover everything
            return ""
        return f"No pixel is labelled {name!r}, so it cannot be learned. Label some, or drop it with `class_mapping`."
    if chips < MIN_CHIPS:
        return (
            f"Class {name!r} occurs in only {format_count(chips, 'chip')}; at least {MIN_CHIPS} are needed so that "
            "both training and validation contain it. Add chips (`random_chips`, smaller `stride`) or label more."
        )
    if fraction < RARE:
        return (
            f"Only {fraction:.3%} of labelled pixels are {name!r}. Use `balanced_sampling=True` when training, or add "
            "chips of it (`random_chips`)."
        )
    if fraction > DOMINANT:
        skip = ", or `skip_empty=True` when cutting chips" if name == BACKGROUND else ""
        return (
            f"{fraction:.1%} of labelled pixels are {name}, so a model that predicts only {name} would still score "
            f"{fraction:.0%} accuracy. Use `balanced_sampling=True` when training{skip}."
        )
    return ""
