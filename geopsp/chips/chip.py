"""Chips: pixels of a window with their labels, the reasons to skip one, rotation."""

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

SKIP_REASONS = ("invalid", "unlabelled", "empty", "outside")
"""What `skip_reason` may return."""


class LabelPatch(NamedTuple):
    """Labels on a grid; all arrays are (rows, cols)."""

    codes: NDArray[np.uint8]
    """Class codes; IGNORE_INDEX where unlabelled."""

    conflict: NDArray[np.bool_]
    """True where polygons of several classes overlap."""

    inside: NDArray[np.bool_] | None = None
    """True in the area of interest; None if there is no such area."""

    def crop(self, rows_cols: Any) -> LabelPatch:
        """Return the labels of some rows and columns, given as an index of arrays."""
        inside = None if self.inside is None else self.inside[rows_cols]
        return LabelPatch(self.codes[rows_cols], self.conflict[rows_cols], inside)

    @property
    def all_inside(self) -> bool:
        """True if all pixels lie in the area of interest."""
        return self.inside is None or fraction_true(self.inside) == 1


@dataclass(frozen=True, slots=True, eq=False)
class Chip:
    """A square of an image with its labels."""

    patch: RasterArray
    codes: NDArray[np.uint8]
    """(rows, cols) class codes; IGNORE_INDEX where unlabelled."""

    conflicts: int
    """Valid pixels on which polygons of several classes overlap."""

    inside: bool
    """True if all of it lies in the area of interest."""


def make_chip(patch: RasterArray, labels: LabelPatch) -> Chip:
    """Combine pixels with their labels, which become IGNORE_INDEX where the image is invalid."""
    if fraction_true(patch.valid) == 1:
        return Chip(patch, labels.codes, int(np.count_nonzero(labels.conflict)), labels.all_inside)
    codes = np.where(patch.valid, labels.codes, IGNORE_INDEX).astype(np.uint8)
    return Chip(patch, codes, int(np.count_nonzero(labels.conflict & patch.valid)), labels.all_inside)


def count_codes(codes: NDArray[np.uint8], legend: Legend) -> NDArray[np.int64]:
    """Count pixels by code, (256,). Codes other than the legend's and IGNORE_INDEX do not occur in `codes`."""
    counts = np.zeros(256, np.int64)
    for code in (*legend.codes, IGNORE_INDEX):
        counts[code] = np.count_nonzero(codes == code)
    return counts


def fraction_true(mask: NDArray[np.bool_]) -> float:
    """Return the fraction of pixels that are True."""
    return float(np.count_nonzero(mask) / mask.size)


def rotate_grid(grid: Grid, angle: float) -> Grid:
    """Rotate a grid counter-clockwise about its centre, by degrees in pixel space."""
    to_centre = Affine.translation(grid.width / 2, grid.height / 2)
    rotation = to_centre @ Affine.rotation(angle) @ ~to_centre
    return Grid(grid.crs, grid.transform @ rotation, grid.width, grid.height)


def rotate90(chip: Chip, quarters: int) -> Chip:
    """Rotate a chip counter-clockwise by quarter turns, without resampling."""
    if not quarters:
        return chip
    patch = RasterArray(
        np.ascontiguousarray(np.rot90(chip.patch.data, quarters, axes=(1, 2))),
        np.ascontiguousarray(np.rot90(chip.patch.valid, quarters)),
        rotate_grid(chip.patch.grid, 90 * quarters),
    )
    return Chip(patch, np.ascontiguousarray(np.rot90(chip.codes, quarters)), chip.conflicts, chip.inside)


def chip_windows(grid: Grid, spec: ChipSpec) -> tuple[range, range]:
    """Return the first rows and the first columns of all chips, from the grid's origin; the last may overhang.

    The chips cover the grid, unless the stride is larger than a chip.
    """

    def starts(length: int) -> range:
        return range(0, max(length - spec.tile_size + min(spec.step, spec.tile_size), 1), spec.step)

    return starts(grid.height), starts(grid.width)


def skip_reason(counts: NDArray[np.int64], legend: Legend, spec: ChipSpec, *, valid: float, inside: bool) -> str | None:
    """Return why a chip is skipped, one of `SKIP_REASONS`; None if it is kept.

    Args:
        counts: (256,) pixels by code.
        legend: The classes.
        spec: The options that decide.
        valid: Fraction of valid pixels.
        inside: True if all of the chip lies in the area of interest.
    """
    if not inside and spec.aoi_rule == "inside":
        return "outside"
    if valid == 0 or valid < spec.min_valid:
        return "invalid"
    if 1 - counts[IGNORE_INDEX] / counts.sum() < spec.min_labelled:
        return "unlabelled"
    return "empty" if spec.skip_empty and is_empty(counts, legend) else None


def is_empty(counts: NDArray[np.int64], legend: Legend) -> bool:
    """Return True if no pixel shows a class other than background."""
    return not counts[[info.code for info in legend if info.name != BACKGROUND]].any()
