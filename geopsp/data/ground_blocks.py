"""Chips grouped into blocks of ground, the units that are independent of each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyproj
import shapely
from numpy.typing import NDArray

from geopsp.chips.chip_set import ChipSet
from geopsp.core.crs import metre_axes, metres_per_degree
from geopsp.core.text import format_count, format_length
from geopsp.data.split_areas import shrink

CHIPS_PER_SIDE = 4
"""Chips along the side of a block."""

UNPLACED = "`block_size` is {:g}, but the chips have no georeference: they are grouped by source image."

MAX_SPAN = 2.0
"""Largest extent of overlapping chips that stay in one block, in sides of a block."""


@dataclass(frozen=True, slots=True, eq=False)
class GroundBlocks:
    """The block of each chip."""

    numbers: NDArray[np.intp]
    """(chips,) from 0 on."""

    block_size: float | None
    """Side of a block in metres; None if chips are grouped by source image only."""

    warning: str = ""
    """Why they are less independent, or other, than was asked."""

    def __len__(self) -> int:
        return int(self.numbers.max()) + 1

    @property
    def words(self) -> str:
        """What the blocks are."""
        if self.block_size is None:
            return "source images"
        return f"blocks of ground of {format_length(self.block_size, 'metre')}"


def ground_blocks(chips: ChipSet, rows: NDArray[np.intp], block_size: float | None) -> GroundBlocks:
    """Group chips by square blocks of ground; those without georeference by their source image.

    Chips that overlap come into one block, unless together they are larger than two blocks: then each goes to the block
    of its own centre, and `warning` says how many overlap chips of other blocks.

    Args:
        chips: The chips.
        rows: Which of them.
        block_size: Side of a block in metres; None: four chips.
    """
    index = chips.index.iloc[rows]
    shapes = index.geometry.to_numpy()
    placed = np.flatnonzero(~(shapely.is_missing(shapes) | shapely.is_empty(shapes)))
    if index.crs is None or not placed.size:
        numbers = np.unique(index["source"].to_numpy(), return_inverse=True)[1]
        return GroundBlocks(numbers, None, "" if block_size is None else UNPLACED.format(block_size))
    names = ("source " + index["source"].astype(str)).to_numpy(object)
    centres, side = _in_metres(shapes[placed], pyproj.CRS.from_user_input(index.crs))
    size = block_size if block_size is not None else CHIPS_PER_SIDE * side
    names[placed], warning = _block_names(shapes[placed], centres, size, side)
    return GroundBlocks(np.unique(names.astype(str), return_inverse=True)[1], float(size), warning)


def _in_metres(shapes: NDArray[np.object_], crs: pyproj.CRS) -> tuple[NDArray[np.float64], float]:
    """Return (chips, 2) centres in metres, and the side of a chip; in degrees by the sinusoidal projection."""
    centres = shapely.get_coordinates(shapely.centroid(shapes))
    middle = np.median(centres, axis=0)
    axes = metre_axes(middle[None], crs)[0]
    side = float(np.sqrt(np.median(shapely.area(shapes)) / abs(np.linalg.det(axes))))
    if not crs.is_geographic:
        return np.linalg.solve(axes, (centres - middle).T).T, side
    metres = (centres - middle) * metres_per_degree(crs)
    metres[:, 0] *= np.cos(np.radians(np.clip(centres[:, 1], -90, 90)))
    return metres, side


def _block_names(
    shapes: NDArray[np.object_], centres: NDArray[np.float64], size: float, side: float
) -> tuple[NDArray[np.object_], str]:
    """Return (chips,) the column and row of each chip's block, as text, and a warning of chips that others overlap."""
    shrunk = shrink(shapes)
    one, other = shapely.STRtree(shrunk).query(shrunk, predicate="intersects")
    group = _connected(len(shapes), one, other)
    low, high = (np.full((group.max() + 1, 2), value) for value in (np.inf, -np.inf))
    np.minimum.at(low, group, centres)
    np.maximum.at(high, group, centres)
    together = ((high - low).max(axis=1) + side <= MAX_SPAN * size)[group]
    places = np.where(together[:, None], ((low + high) / 2)[group], centres)
    cells = np.floor((places - (centres.min(axis=0) - side / 2)) / size).astype(np.int64)
    cut = (cells[one] != cells[other]).any(axis=1)
    warning = ""
    if cut.any():
        count = format_count(len(np.unique(one[cut])), "chip overlaps", "chips overlap")
        warning = (
            f"{count} chips of another block, as overlapping chips go on over more ground than two blocks "
            f"of {format_length(size, 'metre')}: intervals are somewhat too narrow. Use a larger `block_size`, or "
            "export chips without overlap."
        )
    return np.array([f"{col} {row}" for col, row in cells.tolist()], object), warning


def _connected(count: int, one: NDArray[np.intp], other: NDArray[np.intp]) -> NDArray[np.intp]:
    """Return (count,) the number of the component that each node of a graph belongs to, given both ends of its links.

    Links are given in both directions.
    """
    labels = np.arange(count)
    while True:
        lowest = labels.copy()
        np.minimum.at(lowest, one, labels[other])
        lowest = lowest[lowest]
        if np.array_equal(lowest, labels):
            return np.unique(labels, return_inverse=True)[1]
        labels = lowest
