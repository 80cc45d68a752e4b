"""Groups of chips that stay together in a split, and random layouts of them; checks of the options."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, get_args

import geopandas as gpd
import numpy as np
import shapely
from numpy.typing import NDArray

from geopsp.core.options import require_choice, require_int, require_number
from geopsp.errors import OptionError

SplitBy = Literal["blocks", "source", "folder", "areas", "random"]
"""What stays together: spatial blocks, source images, chip folders, the chips that touch areas; "random": nothing."""


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
    """Check the options of a split before chips are read.

    Raises:
        OptionError: if one is out of range, or would have no effect.
    """
    require_number("val_split_pct", share, above=0, below=1)
    require_int("seed", seed, minimum=0)
    require_choice("split", by, get_args(SplitBy))
    for name, value, kind in (("areas", areas, "areas"), ("folders", folders, "folder")):
        if (by == kind) != (value is not None):
            raise OptionError(f"by is {by!r} and {name} is {'not ' if value is None else ''}given; "
                              f"{name} and by={kind!r} need each other.")  # fmt: skip
    if block_size is not None:
        require_number("block_size", block_size, above=0, unit="CRS units")
        if by != "blocks":
            raise OptionError(f"`block_size` is {block_size:g}, but only applies to a split by blocks, not by {by}.")
    if gap is not None:
        require_number("gap", gap, minimum=0, unit="CRS units")
        if by == "random":
            raise OptionError(f"`gap` is {gap:g}, but does not apply to a random split. Leave it out.")
    _check_folds(folds, fold, by)


def _check_folds(folds: int | None, fold: int, by: SplitBy) -> None:
    require_int("fold", fold, minimum=0)
    if folds is None:
        if fold:
            raise OptionError(f"`fold` is {fold}, but needs `folds`, the number of folds.")
        return
    require_int("folds", folds, minimum=2)
    if by in {"areas", "folder"}:
        raise OptionError(f"`folds` is {folds}, but only applies to a split by blocks, source or random, not by {by}.")
    if fold >= folds:
        raise OptionError(f"`fold` is {fold}, but must be a whole number from 0 to {folds - 1} (`folds` is {folds}).")


def as_list(value: Any) -> list[Any]:
    """Return a list of what a user gives alone or as a list."""
    return [value] if isinstance(value, str | Path | gpd.GeoDataFrame) else list(value)


def spatial_blocks(
    shapes: NDArray[np.object_], share: float, size: float | None, rng: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    """Yield, without end, (chips,) numbers of the square blocks that hold each chip's centre; their origin is random.

    Args:
        shapes: Footprints.
        share: Share of the chips for validation.
        size: Side of a block in CRS units; None: such that 1 to 4 blocks hold the share.
        rng: Draws the size and the origin.
    """
    centres = shapely.get_coordinates(shapely.centroid(shapes))
    centres -= centres.min(axis=0)
    span = np.sqrt(shapely.area(shapes).mean())
    cells_per_chip = len(np.unique(_cell_numbers(centres / span))) / len(shapes)  # below 1 where chips overlap
    while True:
        chips_per_block = max(1.0, len(shapes) * share / rng.integers(1, 5))
        side = size or span * np.ceil(np.sqrt(chips_per_block * cells_per_chip))
        yield np.unique(_cell_numbers(centres / side + rng.random(2)), return_inverse=True)[1]


def _cell_numbers(points: NDArray[np.float64]) -> NDArray[np.int64]:
    """Return the number of the unit square in which each point lies; points are (n, 2), from 0 on."""
    cols, rows = np.floor(points).astype(np.int64).T
    cells: NDArray[np.int64] = cols * (rows.max() + 1) + rows
    return cells


def random_splits(
    groupings: Iterator[NDArray[np.intp]], pixels: NDArray[np.int64], share: float, rng: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    """Yield a layout for each grouping, (chips,): 1 for validation chips, else 0.

    Groups are drawn in random order until their size is nearest to the share. In every second layout, groups with rare
    classes come first.

    Args:
        groupings: (chips,) numbers of the groups that stay together.
        pixels: (chips, classes) labelled pixels.
        share: Share of the chips for validation.
        rng: Draws the order.
    """
    for number, group in enumerate(groupings):
        sizes = np.bincount(group)
        order = rng.permutation(len(sizes))
        if number % 2:
            order = _rare_first(order, group, pixels)
        cumulated = np.cumsum(sizes[order])[: max(len(order) - 1, 1)]
        count = int(np.argmin(np.abs(cumulated - len(group) * share))) + 1
        yield np.isin(group, order[:count]).astype(int)


def _rare_first(order: NDArray[np.intp], group: NDArray[np.intp], pixels: NDArray[np.int64]) -> NDArray[np.intp]:
    """Return the groups reordered: the first group of each class comes first, rarest class first."""
    has_class = np.column_stack([np.bincount(group, weights=part > 0)[order] > 0 for part in pixels.T])
    counts = has_class.sum(axis=0)
    firsts: list[int] = []
    for index in np.argsort(counts, kind="stable"):
        if counts[index] > 1 and not has_class[firsts, index].any():
            firsts.append(int(np.argmax(has_class[:, index])))
    return np.concatenate([order[firsts], np.delete(order, firsts)])


def random_folds(
    groupings: Iterator[NDArray[np.intp]], folds: int, rng: np.random.Generator
) -> Iterator[NDArray[np.intp]]:
    """Yield a layout for each grouping, (chips,): the fold of each chip.

    Groups go to the folds from first to last and back, roughly from large to small.
    """
    back_and_forth = np.concatenate([np.arange(folds), np.arange(folds)[::-1]])
    for group in groupings:
        sizes = np.bincount(group)
        fold_of_group = np.empty(len(sizes), int)
        fold_of_group[np.argsort(-sizes * rng.uniform(0.5, 1.5, len(sizes)))] = np.resize(back_and_forth, len(sizes))
        yield fold_of_group[group]
