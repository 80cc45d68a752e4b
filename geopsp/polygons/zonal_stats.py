"""What is counted of the pixels of regions."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Window
from geopsp.core.jit import jit
from geopsp.polygons.ground_metric import GroundMetric, cumulative_area, pixel_area

SUMS = 6
"""Columns of what is counted."""


PIXELS, GROUND, CONFIDENCE_SUM, NUM_CONFIDENT, EDGE, NUM_UNSURE = range(SUMS)
"""Pixels; m2 on the ellipsoid; the sum of their confidence; pixels that have one; of these, those with a side on the
outline; of these, those under 0.5."""


HALF = 0.5


def zonal_sums(
    labels: NDArray[np.int32],
    count: int,
    codes: NDArray[np.uint8],
    shares: NDArray[np.float32] | None,
    metric: GroundMetric,
    window: Window,
) -> NDArray[np.float64]:
    """(count, SUMS) of regions 1 to `count`; all are additive, so that regions of several windows add up.

    Args:
        labels: (h, w) regions; 0 is nothing.
        count: Regions.
        codes: (h + 2, w + 2) of the window and the pixels around; 255 beyond the raster, whose frame is an outline.
        shares: (h, w) confidence, NaN where unknown; None leaves all columns from SURE on at 0.
        metric: Of the raster.
        window: Where in it these pixels lie.
    """
    found = np.zeros((count + 1, SUMS))
    _count(labels, metric, window.col, window.row, found)
    if shares is not None:
        _judge(labels, codes, shares, found)
    return found[1:]


@jit
def _count(labels, metric, left, top, found):  # type: ignore[no-untyped-def]
    """Adds up pixels and ground, run by run."""
    height, width = labels.shape
    before = np.empty(width + 1)
    for row in range(height):
        cumulative_area(metric, left, top + row, before)
        known = not np.isnan(before[width])
        start, label = 0, labels[row, 0]
        for col in range(1, width + 1):
            if col < width and labels[row, col] == label:
                continue
            if label:
                found[label, PIXELS] += col - start
                if known:
                    found[label, GROUND] += before[col] - before[start]
                else:
                    for each in range(left + start, left + col):
                        found[label, GROUND] += pixel_area(metric, each + 0.5, top + row + 0.5)
            if col < width:
                start, label = col, labels[row, col]


@jit
def _judge(labels, codes, shares, found):  # type: ignore[no-untyped-def]
    """Adds up confidence, and whether pixels lie on an outline."""
    height, width = labels.shape
    for row in range(height):
        above, here, below = codes[row], codes[row + 1], codes[row + 2]
        for col in range(width):
            label, share = labels[row, col], shares[row, col]
            if label and share == share:  # noqa: PLR0124 (NaN is not itself)
                code = here[col + 1]
                same = (
                    (above[col + 1] == code) & (below[col + 1] == code) & (here[col] == code) & (here[col + 2] == code)
                )
                found[label, NUM_CONFIDENT] += 1
                found[label, CONFIDENCE_SUM] += share
                found[label, EDGE] += not same
                found[label, NUM_UNSURE] += (not same) & (share < HALF)
