"""Regions of a raster of codes: pixels of one code that share sides."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX


def label_regions(codes: NDArray[np.uint8], *, nothing: int = IGNORE_INDEX) -> tuple[NDArray[np.int32], int]:
    """(rows, cols) numbers of 4-connected regions, 1, 2, ... in the order of their first pixels, and how many.

    0 where the code is `nothing`; 256: nowhere.
    """
    labels, count = _label(np.ascontiguousarray(codes), nothing)
    return labels, int(count)


@jit
def find(parent: Any, one: Any) -> Any:
    """The first member of the set that holds this one."""
    while parent[one] != one:
        parent[one] = parent[parent[one]]
        one = parent[one]
    return one


@jit
def union(parent: Any, one: Any, two: Any) -> Any:
    """The first member of the set that now holds both."""
    one, two = find(parent, one), find(parent, two)
    if one < two:
        parent[two] = one
        return one
    parent[one] = two
    return two


@jit
def _label(codes: Any, nothing: Any) -> Any:
    labels, parent = _provisional(codes, nothing)
    regions = 0
    for one in range(1, parent.size):
        if parent[one] == one:
            regions += 1
            parent[one] = regions
        else:
            parent[one] = parent[parent[one]]  # a smaller one, which has its last number by now
    for row in range(labels.shape[0]):
        for col in range(labels.shape[1]):
            labels[row, col] = parent[labels[row, col]]
    return labels, regions


@jit
def _provisional(codes: Any, nothing: Any) -> Any:
    """Numbers by the pixels above and to the left, and which of them are one region."""
    height, width = codes.shape
    labels = np.empty((height, width), np.int32)
    parent, count = np.zeros(codes.size + 1, np.int32), 0
    for row in range(height):
        for col in range(width):
            code = codes[row, col]
            left = col > 0 and codes[row, col - 1] == code
            up = row > 0 and codes[row - 1, col] == code
            if code == nothing:
                labels[row, col] = 0
            elif left:
                labels[row, col] = labels[row, col - 1]
                if up and codes[row - 1, col - 1] != code:  # else both have met already
                    labels[row, col] = union(parent, labels[row, col - 1], labels[row - 1, col])
            elif up:
                labels[row, col] = labels[row - 1, col]
            else:
                count += 1
                parent[count] = labels[row, col] = count
    return labels, parent[: count + 1]
