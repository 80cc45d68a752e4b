"""What a chip is, and how one is cut: the pixels of a window, its labels, and whether it is worth keeping."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geopsp.chips.options import ChipSpec
from geopsp.core.grid import Grid
from geopsp.core.legend import BACKGROUND, IGNORE_INDEX, Legend
from geopsp.raster.scene import RasterArray


class LabelPatch(NamedTuple):
    """What is known of the ground under a grid; all (rows, cols)."""

    codes: NDArray[np.uint8]
    """Class codes; IGNORE where nothing is known."""

    contested: NDArray[np.bool_]
    """True where polygons of several classes lie."""

    inside: NDArray[np.bool_] | None = None
    """True in the area of interest; None: there is none, and all is inside."""

    def part(self, place: Any) -> LabelPatch:
        """Of some rows and columns."""
        inside = None if self.inside is None else self.inside[place]
        return LabelPatch(self.codes[place], self.contested[place], inside)

    @property
    def all_inside(self) -> bool:
        return self.inside is None or fraction_true(self.inside) == 1


@dataclass(frozen=True, slots=True, eq=False)
class Chip:
    """One tile of an image with its labels."""

    patch: RasterArray
    codes: NDArray[np.uint8]
    """(rows, cols) class codes; IGNORE where nothing is known."""

    conflicts: int
    """Labelled pixels on which polygons of several classes lie."""

    inside: bool
    """True if it lies wholly in the area of interest."""


def make_chip(patch: RasterArray, truth: LabelPatch) -> Chip:
    """Pixels with their labels: IGNORE where the image is invalid."""
    if fraction_true(patch.valid) == 1:
        return Chip(patch, truth.codes, int(np.count_nonzero(truth.contested)), truth.all_inside)
    codes = np.where(patch.valid, truth.codes, IGNORE_INDEX).astype(np.uint8)
    return Chip(patch, codes, int(np.count_nonzero(truth.contested & patch.valid)), truth.all_inside)


def count_codes(codes: NDArray[np.uint8], legend: Legend) -> NDArray[np.int64]:
    """(256,) pixels by code, of which there are none but the legend's and IGNORE."""
    counts = np.zeros(256, np.int64)
    for code in (*legend.codes, IGNORE_INDEX):
        counts[code] = np.count_nonzero(codes == code)
    return counts


def fraction_true(mask: NDArray[np.bool_]) -> float:
    """Of the pixels that are True."""
    return float(np.count_nonzero(mask) / mask.size)


def rotate_grid(grid: Grid, angle: float) -> Grid:
    """The grid turned counter-clockwise about its middle by degrees, in pixel space."""
    to_middle = Affine.translation(grid.width / 2, grid.height / 2)
    turn = to_middle @ Affine.rotation(angle) @ ~to_middle
    return Grid(grid.crs, grid.transform @ turn, grid.width, grid.height)


def rotate90(chip: Chip, quarters: int) -> Chip:
    """The chip turned by quarters of a circle, pixel for pixel."""
    if not quarters:
        return chip
    patch = RasterArray(
        np.ascontiguousarray(np.rot90(chip.patch.data, quarters, axes=(1, 2))),
        np.ascontiguousarray(np.rot90(chip.patch.valid, quarters)),
        rotate_grid(chip.patch.grid, 90 * quarters),
    )
    return Chip(patch, np.ascontiguousarray(np.rot90(chip.codes, quarters)), chip.conflicts, chip.inside)


def chip_windows(grid: Grid, spec: ChipSpec) -> tuple[range, range]:
    """First rows and columns of the tiles, from the grid's origin; the last may overhang.

    They cover the grid unless the stride skips.
    """

    def firsts(length: int) -> range:
        return range(0, max(length - spec.tile_size + min(spec.step, spec.tile_size), 1), spec.step)

    return firsts(grid.height), firsts(grid.width)


def skip_reason(counts: NDArray[np.int64], legend: Legend, spec: ChipSpec, *, valid: float, inside: bool) -> str | None:
    """Why a chip is left out: "outside", "invalid", "unlabelled" or "empty"; None: it is kept.

    Args:
        counts: (256,) pixels by code.
        legend: Classes.
        spec: What a chip needs.
        valid: Share of the pixels that are valid.
        inside: True if it lies wholly in the area of interest.
    """
    if not inside and spec.aoi_rule == "inside":
        return "outside"
    if valid == 0 or valid < spec.min_valid:
        return "invalid"
    if 1 - counts[IGNORE_INDEX] / counts.sum() < spec.min_labelled:
        return "unlabelled"
    return "empty" if spec.skip_empty and is_empty(counts, legend) else None


def is_empty(counts: NDArray[np.int64], legend: Legend) -> bool:
    """True if there is no pixel of any class but background."""
    return not counts[[info.code for info in legend if info.name != BACKGROUND]].any()
