"""Zonal statistics: sums over the pixels of each region."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Window
from geopsp.core.jit import jit
from geopsp.polygons.ground_metric import GroundMetric, cumulative_area, example_metric, pixel_area

NUM_SUMS = 8
"""Number of columns."""


NUM_PIXELS, AREA, CONFIDENCE_SUM, NUM_CONFIDENT, NUM_EDGE, NUM_UNSURE, SECOND_SUM, NUM_SECOND = range(NUM_SUMS)
"""Columns: number of pixels; area in m2 on the ellipsoid; sum of the confidence; number of pixels with a confidence;
of these, those with a side on the outline; of these, those with a confidence below 0.5; sum of a second confidence;
number of pixels with one."""


HALF = 0.5


def zonal_sums(
    labels: NDArray[np.int32],
    count: int,
    codes: NDArray[np.uint8],
    confidence: NDArray[np.float32] | None,
    metric: GroundMetric,
    window: Window,
) -> NDArray[np.float64]:
    """Return (count, NUM_SUMS) sums of the regions 1 to `count`; sums of several windows can be added.

    Args:
        labels: (h, w) regions; 0 is nodata.
        count: Number of regions.
        codes: (h + 2, w + 2) codes of the window and one pixel around it; 255 outside of the raster, so its frame is
            an outline.
        confidence: (h, w), or (2, h, w) of two confidences, NaN where unknown. None: columns from CONFIDENCE_SUM on are
            0.
        metric: Pixel sizes of the raster.
        window: Position of these pixels in the raster.
    """
    sums = np.zeros((count + 1, NUM_SUMS))
    _add_pixels(labels, metric, window.col, window.row, sums)
    if confidence is not None:
        first, *second = confidence.reshape(-1, *labels.shape)
        _add_confidence(labels, codes, first, sums)
        for values in second:
            known = ~np.isnan(values)
            sums[:, SECOND_SUM] += np.bincount(labels[known], values[known], count + 1)
            sums[:, NUM_SECOND] += np.bincount(labels[known], minlength=count + 1)
        sums[0, SECOND_SUM:] = 0
    return sums[1:]


@jit("i4[:, ::1]", example_metric, "i8", "i8", "f8[:, ::1]")
def _add_pixels(labels, metric, left, top, sums):  # type: ignore[no-untyped-def]
    """Add numbers of pixels and areas, run by run."""
    height, width = labels.shape
    areas = np.empty(width + 1)
    for row in range(height):
        cumulative_area(metric, left, top + row, areas)
        known = not np.isnan(areas[width])
        start, label = 0, labels[row, 0]
        for col in range(1, width + 1):
            if col < width and labels[row, col] == label:
                continue
            if label:
                sums[label, NUM_PIXELS] += col - start
                if known:
                    sums[label, AREA] += areas[col] - areas[start]
                else:
                    for each in range(left + start, left + col):
                        sums[label, AREA] += pixel_area(metric, each + 0.5, top + row + 0.5)
            if col < width:
                start, label = col, labels[row, col]


@jit("i4[:, ::1]", "u1[:, ::1]", "f4[:, ::1]", "f8[:, ::1]")
def _add_confidence(labels, codes, confidence, sums):  # type: ignore[no-untyped-def]
    """Add confidences, and whether pixels lie on an outline."""
    height, width = labels.shape
    for row in range(height):
        above, here, below = codes[row], codes[row + 1], codes[row + 2]
        for col in range(width):
            label, value = labels[row, col], confidence[row, col]
            if label and value == value:  # noqa: PLR0124 (false for NaN)
                code = here[col + 1]
                inside = (
                    (above[col + 1] == code) & (below[col + 1] == code) & (here[col] == code) & (here[col + 2] == code)
                )
                sums[label, NUM_CONFIDENT] += 1
                sums[label, CONFIDENCE_SUM] += value
                sums[label, NUM_EDGE] += not inside
                sums[label, NUM_UNSURE] += (not inside) & (value < HALF)
