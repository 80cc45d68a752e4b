"""Which chips go to one side together, and which side that is: what may be asked, and layouts to choose from."""

from __future__ import annotations

from collections.abc import Iterator
from numbers import Integral, Real
from pathlib import Path
from typing import Any, Literal, get_args

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from geopsp.errors import OptionError

SplitBy = Literal["blocks", "source", "folder", "areas", "random"]
"""What goes to one side as a whole: squares of ground, images, chip folders, what polygons touch; or single chips."""


def check_split(
    *,
    share: float,
    seed: int,
    by: SplitBy,
    block_size: float | None = None,
    gap: float | None = None,
    areas: object = None,
    folders: object = None,
    folds: int | None = None,
    fold: int = 0,
) -> None:
    """Raises OptionError if an option of a split is out of range or would do nothing; chips are not needed for that."""
    _require_numbers({"val_split_pct": share, "block_size": block_size, "gap": gap}, Real, "a number")
    _require_numbers({"seed": seed, "folds": folds, "fold": fold}, Integral, "a whole number")
    if not 0 < share < 1:
        raise OptionError(f"val_split_pct is {share}; needed a share above 0 and below 1.")
    if seed < 0:
        raise OptionError(f"seed is {seed}; needed 0 or more.")
    if by not in get_args(SplitBy):
        raise OptionError(f"Chips cannot be split by {by!r}; needed one of {', '.join(get_args(SplitBy))}.")
    for name, value, kind in (("areas", areas, "areas"), ("folders", folders, "folder")):
        if (by == kind) != (value is not None):
            raise OptionError(f"by is {by!r} and {name} is {'not ' if value is None else ''}given; "
                              f"{name} and by={kind!r} need each other.")  # fmt: skip
    if block_size is not None and (by != "blocks" or not 0 < block_size < np.inf):
        raise OptionError(
            f"block_size is {block_size} in a split by {by!r}; needed a length in CRS units, and a split by blocks."
        )
    if gap is not None and (by == "random" or not 0 <= gap < np.inf):
        raise OptionError(
            f"gap is {gap} in a split by {by!r}; needed a distance in CRS units from 0, and not a random split."
        )
    if folds is not None and (folds < 2 or by in {"areas", "folder"}):
        raise OptionError(
            f"folds is {folds} in a split by {by!r}; needed at least 2, and a split by blocks, source or random."
        )
    if not 0 <= fold < (folds or 1):
        raise OptionError(f"fold is {fold} of {folds or 'none'}; needed 0 to one less than folds.")


def _require_numbers(options: dict[str, Any], kind: type[Real | Integral], needed: str) -> None:
    for name, value in options.items():
        if value is None and name in {"block_size", "gap", "folds"}:
            continue
        if isinstance(value, bool) or not isinstance(value, kind):
            raise OptionError(f"{name} is {value!r}; needed {needed}.")


def as_list(named: Any) -> list[Any]:
    """What a user names once or as a list, as a list."""
    return [named] if isinstance(named, str | Path | gpd.GeoDataFrame) else list(named)


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


def random_splits(
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


def random_folds(
    groupings: Iterator[NDArray[np.intp]], folds: int, rng: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    """(chips,) fold of each chip: groups are dealt to and fro, larger ones rather first."""
    there_and_back = np.concatenate([np.arange(folds), np.arange(folds)[::-1]])
    for group in groupings:
        sizes = np.bincount(group)
        dealt = np.empty(len(sizes), int)
        dealt[np.argsort(-sizes * rng.uniform(0.5, 1.5, len(sizes)))] = np.resize(there_and_back, len(sizes))
        yield dealt[group]
