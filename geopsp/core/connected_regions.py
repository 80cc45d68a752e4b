"""Label connected regions of a raster of class codes; union-find."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX


def label_regions(codes: NDArray[np.uint8], *, nodata: int = IGNORE_INDEX) -> tuple[NDArray[np.int32], int]:
    """Label 4-connected regions of equal codes: 1, 2, ... in the order of their first pixels.

    Args:
        codes: (rows, cols)
        nodata: Pixels of this code get the label 0. 256: none.

    Returns:
        (rows, cols) labels, and the number of regions.
    """
    labels, count = _label(np.ascontiguousarray(codes), nodata)
    return labels, int(count)


@jit()
def find(parent: Any, member: Any) -> Any:
    """Return the root of a member's set, and shorten the path to it."""
    while parent[member] != member:
        parent[member] = parent[parent[member]]
        member = parent[member]
    return member


@jit()
def union(parent: Any, one: Any, two: Any) -> Any:
    """Join the sets of two members; return the root, which is the smaller one of theirs."""
    one, two = find(parent, one), find(parent, two)
    if one < two:
        parent[two] = one
        return one
    parent[one] = two
    return two


@jit("i8[::1]", "i8[:, ::1]")
def unite_pairs(parent: Any, pairs: Any) -> None:
    """Join the sets of both members of each of (n, 2) pairs."""
    for pair in range(pairs.shape[0]):
        union(parent, pairs[pair, 0], pairs[pair, 1])


@jit()
def flatten(parent: Any) -> None:
    """Let each member point to the root of its set."""
    for member in range(parent.size):
        parent[member] = find(parent, member)


@jit("u1[:, ::1]", "i8")
def _label(codes: Any, nodata: Any) -> Any:
    labels, parent = _provisional_labels(codes, nodata)
    count = 0
    for label in range(1, parent.size):
        if parent[label] == label:
            count += 1
            parent[label] = count
        else:
            parent[label] = parent[parent[label]]  # of a smaller label, which is final by now
    for row in range(labels.shape[0]):
        for col in range(labels.shape[1]):
            labels[row, col] = parent[labels[row, col]]
    return labels, count


@jit()
def _provisional_labels(codes: Any, nodata: Any) -> Any:
    """Label each pixel like the one above or to the left; return the labels and a union-find of equal ones."""
    height, width = codes.shape
    labels = np.empty((height, width), np.int32)
    parent, count = np.zeros(codes.size + 1, np.int32), 0
    for row in range(height):
        for col in range(width):
            code = codes[row, col]
            left = col > 0 and codes[row, col - 1] == code
            up = row > 0 and codes[row - 1, col] == code
            if code == nodata:
                labels[row, col] = 0
            elif left:
                labels[row, col] = labels[row, col - 1]
                if up and codes[row - 1, col - 1] != code:  # otherwise both are joined already
                    labels[row, col] = union(parent, labels[row, col - 1], labels[row - 1, col])
            elif up:
                labels[row, col] = labels[row - 1, col]
            else:
                count += 1
                parent[count] = labels[row, col] = count
    return labels, parent[: count + 1]
