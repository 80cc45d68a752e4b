"""Classes that are too rare, or too common, to learn from."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.legend import BACKGROUND, Legend

RARE = 0.001
"""Share of the labelled pixels below which a class is rare."""


FEW = 5
"""Chips below which a class is in too few of them to be trained on and validated."""


MOST = 0.95
"""Share of the labelled pixels above which a class drowns the others."""


TELLING = (" has no pixel, so ", " only; needed at least ", " of the labelled pixels")
"""What every text of `imbalance` holds one of."""


def is_imbalance(text: str) -> bool:
    """True for what `imbalance` found, maybe in fewer chips than there are now."""
    return any(words in text for words in TELLING)


def class_warnings(
    legend: Legend, pixels: Sequence[int] | NDArray[Any], chips_with: Sequence[int] | NDArray[Any]
) -> list[str]:
    """What is out of balance, and what to do about it.

    Args:
        legend: The classes.
        pixels: (classes,) labelled pixels.
        chips_with: (classes,) chips that hold a pixel of it.
    """
    counts, chips = np.asarray(pixels, np.int64), np.asarray(chips_with, np.int64)
    shares = counts / max(counts.sum(), 1)
    found = []
    for name, count, share, within in zip(legend.names, counts, shares, chips, strict=True):
        if not count:
            if name != BACKGROUND:  # where polygons cover all there is none, and none is missed
                found.append(f"{name} has no pixel, so it cannot be learned: label some, or drop it (class_mapping).")
        elif within < FEW:
            found.append(
                f"{name} is in {within} {'chip' if within == 1 else 'chips'} only; needed at least {FEW} for both "
                "parts of a split. Export more chips of it (random_chips, a smaller stride), or label more."
            )
        elif share < RARE:
            found.append(
                f"{name} is {share:.3%} of the labelled pixels: train with balanced_sampling=True, or export more "
                "chips of it (random_chips)."
            )
        elif share > MOST:
            found.append(
                f"{name} is {share:.1%} of the labelled pixels, so a model that finds nothing else scores well: train "
                "with balanced_sampling=True, or skip chips without other classes (skip_empty)."
            )
    return found
