"""Which chips go to one side together, and which side that is: layouts to choose a split from."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import shapely
from numpy.typing import NDArray


def blocks_of(
    shapes: NDArray[np.object_], share: float, size: float | None, rng: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    """(chips,) the square of ground in which each chip's centre lies; without end, placed anew each time.

    Args:
        shapes: Footprints.
        share: What validation shall hold.
        size: Side of a square in CRS units; None: so that 1 to 4 of them hold the share.
        rng: Places the squares.
    """
    centres = shapely.get_coordinates(shapely.centroid(shapes))
    centres -= centres.min(axis=0)
    span = np.sqrt(shapely.area(shapes).mean())
    ground_a_chip = len(np.unique(_cells(centres / span))) / len(shapes)  # below 1 where chips overlap
    while True:
        chips_a_block = max(1.0, len(shapes) * share / rng.integers(1, 5))
        side = size or span * np.ceil(np.sqrt(chips_a_block * ground_a_chip))
        yield np.unique(_cells(centres / side + rng.random(2)), return_inverse=True)[1]


def _cells(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """One number for each unit square, of (points, 2) coordinates from 0."""
    cols, rows = np.floor(points).astype(np.int64).T
    cells: NDArray[np.int64] = cols * (rows.max() + 1) + rows
    return cells


def drawings(
    groupings: Iterator[NDArray[np.intp]], pixels: NDArray[np.int64], share: float, rng: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    """(chips,) 1 where a chip validates: groups in random order, up to where the share is best met.

    In every other layout groups with rare classes come first.
    """
    for number, group in enumerate(groupings):
        sizes = np.bincount(group)
        order = rng.permutation(len(sizes))
        if number % 2:
            order = _rare_first(order, group, pixels)
        held = np.cumsum(sizes[order])[: max(len(order) - 1, 1)]
        taken = int(np.argmin(np.abs(held - len(group) * share))) + 1
        yield np.isin(group, order[:taken]).astype(int)


def _rare_first(order: NDArray[np.intp], group: NDArray[np.intp], pixels: NDArray[np.int64]) -> NDArray[np.intp]:
    """The same groups, a random one of each class first, the rarest classes before others."""
    classes = np.column_stack([np.bincount(group, weights=part > 0)[order] > 0 for part in pixels.T])
    counts = classes.sum(axis=0)
    firsts: list[int] = []
    for rare in np.argsort(counts, kind="stable"):
        if counts[rare] > 1 and not classes[firsts, rare].any():
            firsts.append(int(np.argmax(classes[:, rare])))
    return np.concatenate([order[firsts], np.delete(order, firsts)])


def dealings(groupings: Iterator[NDArray[np.intp]], folds: int, rng: np.random.Generator) -> Iterator[NDArray[np.intp]]:
    """(chips,) fold of each chip: groups are dealt to and fro, larger ones rather first."""
    there_and_back = np.concatenate([np.arange(folds), np.arange(folds)[::-1]])
    for group in groupings:
        sizes = np.bincount(group)
        dealt = np.empty(len(sizes), int)
        dealt[np.argsort(-sizes * rng.uniform(0.5, 1.5, len(sizes)))] = np.resize(there_and_back, len(sizes))
        yield dealt[group]
