"""Sets of points, compared by their exact coordinates."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit

Floats = NDArray[np.float64]


def is_among(points: Floats, others: Floats) -> NDArray[np.bool_]:
    """Return (n,) True for those of (n, 2) points that are also in (m, 2) other points."""
    return indices_among(points, others) >= 0


def indices_among(points: Floats, others: Floats) -> NDArray[np.int64]:
    """Return (n,) the index of each of (n, 2) points in (m, 2) other points, the last of equal ones; -1: in none."""
    result: NDArray[np.int64] = _indices_among(_bits(points), _bits(others))
    return result


def _bits(points: Floats) -> NDArray[np.int64]:
    """Return the coordinates as integers that are equal where they are; -0.0 becomes 0.0."""
    return (np.ascontiguousarray(points, np.float64) + 0.0).view(np.int64)


@jit("i8[:, ::1]", "i8[:, ::1]")
def _indices_among(points: Any, others: Any) -> Any:
    slots = _slots(len(others))
    for at in range(len(others)):
        slots[_slot(others[at, 0], others[at, 1], others, slots)] = at
    found = np.empty(len(points), np.int64)
    for at in range(len(points)):
        found[at] = slots[_slot(points[at, 0], points[at, 1], others, slots)]
    return found


@jit()
def _slots(count: Any) -> Any:
    """Return an empty hash table for so many points; its size is a power of two."""
    size = 8
    while size < 2 * count:
        size *= 2
    return np.full(size, -1, np.int64)


@jit()
def _slot(x: Any, y: Any, points: Any, slots: Any) -> Any:
    """Return the slot that holds the index of this point, or the free one for it."""
    mixed = x * 0x1E3779B97F4A7C15 + y * 0x42B2AE3D27D4EB4F
    mixed = (mixed ^ (mixed >> 32)) * 0x1E3779B97F4A7C15  # the last bits of short fractions are 0
    slot = (mixed >> 32) & (slots.size - 1)
    while slots[slot] >= 0 and (points[slots[slot], 0] != x or points[slots[slot], 1] != y):
        slot = (slot + 1) & (slots.size - 1)
    return slot
