"""Right-angled features: all are collected, in files if there are many, before the first is known."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from geopsp.core.disk_array import ScratchArrays
from geopsp.polygons.borders.conflicts import MovedOutlines
from geopsp.polygons.borders.regularize import regularize_outlines
from geopsp.polygons.borders.topology import PolygonStore, RaggedPolygons
from geopsp.polygons.features import Features, FeatureStore
from geopsp.polygons.ground_metric import GroundMetric, lengths

BLOCK = 10_000
"""Features that are made right-angled at a time, of one batch."""


MAX_MOVE = 2.0
"""Default limit, in pixels, of the distance by which corners move."""


DIGIT = 16
"""Bits of numbers by which they are counted."""


Floats = NDArray[np.float64]


def regular_features(
    batches: Iterator[Features], option: float | bool, metric: GroundMetric, arrays: ScratchArrays
) -> Iterator[tuple[Features, Floats]]:
    """Yield all features with right angles, some at a time, and how far corners of each moved at most, in metres.

    Args:
        batches: Traced features, near each other in each batch.
        option: How far corners move at most, in metres; True: two pixels of median size.
        metric: Pixel sizes.
        arrays: Makes the files.

    Raises:
        OSError: if the disk is full.
    """
    store, blocks = FeatureStore(arrays), [0]
    for batch in batches:
        first, stop = len(store), len(store) + len(batch)
        store.append(batch)
        blocks += [*range(first + BLOCK, stop, BLOCK), stop] if stop > first else []
    features = store.finish()
    polygon_blocks = list(pairwise(features.parts[blocks].tolist()))
    if not polygon_blocks:
        return
    outlines = _regularize(features.outlines, polygon_blocks, option, metric, arrays)
    outlines.restore_conflicts()
    for start, stop, (first, last) in zip(blocks, blocks[1:], polygon_blocks, strict=False):
        parts = features.parts[start : stop + 1] - first
        yield (
            Features(outlines.part(first, last), parts, features.codes[start:stop], features.sums[start:stop]),
            np.maximum.reduceat(outlines.moved[first:last], parts[:-1]),
        )
        arrays.release()


def _regularize(
    outlines: RaggedPolygons,
    blocks: list[tuple[int, int]],
    option: float | bool,
    metric: GroundMetric,
    arrays: ScratchArrays,
) -> MovedOutlines:
    """Return right-angled outlines, which may be in conflict with each other."""
    sides = arrays.zeros(np.float64, len(outlines))
    for start, stop in blocks:
        sides[start:stop] = _pixel_sizes(outlines.part(start, stop), metric).max(axis=1)
        arrays.release()
    tolerance = MAX_MOVE * median(sides, arrays) if option is True else float(option)
    largest = max(float(sides[start:stop].max()) for start, stop in blocks)
    new, moved = PolygonStore(arrays), arrays.zeros(np.float64, len(outlines))
    for start, stop in blocks:
        part = outlines.part(start, stop)
        regular, moved[start:stop] = regularize_outlines(
            part, tolerance=tolerance, pixel=_pixel_sizes(part, metric), largest_pixel=largest
        )
        new.append(regular)
        arrays.release()
    return MovedOutlines(outlines, new.finish(), moved, blocks, arrays)


def _pixel_sizes(outlines: RaggedPolygons, metric: GroundMetric) -> Floats:
    """Return (polygons, 2) widths and heights, in metres, of the pixels at the first corners."""
    corners = np.array([[0, 0], [1, 0], [0, 0], [0, 1]])
    firsts = outlines.xy[outlines.rings[outlines.polygons[:-1]]]
    lines = (firsts[:, None] + corners).reshape(-1, 2)
    return lengths(lines, np.arange(0, len(lines) + 1, 2), metric).reshape(-1, 2)


def median(values: Floats, arrays: ScratchArrays) -> float:
    """Return the median of positive numbers, which may be in a file; NaN if one is NaN."""
    count = values.size
    if any(np.isnan(values[start:stop]).any() for start, stop in arrays.chunks(count)):
        return np.nan
    return (_nth(values, (count - 1) // 2, arrays) + _nth(values, count // 2, arrays)) / 2


def _nth(values: Floats, number: int, arrays: ScratchArrays) -> float:
    """Return the positive number at this position in ascending order, which is also that of their bits as integers."""
    bits, prefix = values.view(np.int64), 0
    for shift in range(64 - DIGIT, -1, -DIGIT):
        counts = np.zeros(2**DIGIT, np.int64)
        for start, stop in arrays.chunks(values.size):
            digits = bits[start:stop] >> shift
            counts += np.bincount(digits[digits >> DIGIT == prefix] & (2**DIGIT - 1), minlength=2**DIGIT)
        digit = int(np.searchsorted(np.cumsum(counts), number, side="right"))
        number -= int(counts[:digit].sum())
        prefix = prefix << DIGIT | digit
    return float(np.int64(prefix).view(np.float64))
