"""What a chip is, and how one is cut: the pixels of a window, its labels, and whether it is worth keeping."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any, Literal, NamedTuple

import numpy as np
from affine import Affine
from numpy.typing import NDArray

from geopsp.errors import OptionError
from geopsp.grid import Grid
from geopsp.legend import BACKGROUND, IGNORE, Legend
from geopsp.scene import Patch

AreaRule = Literal["mask", "inside"]


@dataclass(frozen=True, slots=True)
class ChipSpec:
    """Which chips are cut. Sizes in pixels, shares from 0 to 1."""

    tile_size: int = 256
    stride: int | None = None
    rotation_angle: float = 0.0
    """Degrees from one turned copy of a chip to the next; 0: no copies."""

    min_labelled: float = 0.0
    min_valid: float = 0.0
    skip_empty: bool = False
    """True leaves out chips that show nothing but background."""

    aoi_rule: AreaRule = "mask"
    """"mask": what lies outside the area is unlabelled; "inside": chips that reach out of it are left out."""

    grid: bool = True
    """False leaves out the regular chips, so that only random ones stay."""

    random_chips: int = 0
    """Chips beside the grid, drawn so that each class comes up as often as any other."""

    seed: int = 42

    def __post_init__(self) -> None:
        self._check_types()
        if self.tile_size < 16:
            raise OptionError(f"tile_size is {self.tile_size}; needed at least 16 pixels.")
        if self.stride is not None and self.stride < 1:
            raise OptionError(f"stride is {self.stride}; needed at least 1 pixel.")
        for name in ("min_labelled", "min_valid"):
            if not 0 <= getattr(self, name) <= 1:
                raise OptionError(f"{name} is {getattr(self, name)}; needed a share from 0 to 1.")
        if not 0 <= self.rotation_angle < 360:
            raise OptionError(f"rotation_angle is {self.rotation_angle}; needed 0 to below 360 degrees.")
        if self.aoi_rule not in ("mask", "inside"):
            raise OptionError(f"aoi_rule is {self.aoi_rule!r}; needed 'mask' or 'inside'.")
        if self.random_chips < 0 or self.seed < 0:
            raise OptionError(f"random_chips is {self.random_chips}, seed {self.seed}; needed 0 or more.")
        if not self.grid and not self.random_chips:
            raise OptionError("Without the grid and without random chips there is nothing to cut. Ask for one of them.")

    def _check_types(self) -> None:
        for name in ("tile_size", "stride", "random_chips", "seed"):
            value = getattr(self, name)
            if not isinstance(value, int | None) or (value is None and name != "stride"):
                raise OptionError(f"{name} is {value!r}; needed a whole number.")
        for name in ("min_labelled", "min_valid", "rotation_angle"):
            if not isinstance(getattr(self, name), int | float):
                raise OptionError(f"{name} is {getattr(self, name)!r}; needed a number.")

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> ChipSpec:
        """Those of all options of cutting that say which chips are cut.

        Raises:
            OptionError: if one is out of range.
        """
        return cls(**{own.name: options[own.name] for own in fields(cls) if own.name in options})

    @property
    def step(self) -> int:
        return self.stride or self.tile_size

    @property
    def asks_for_labels(self) -> bool:
        """True if labels alone can rule a chip out."""
        return self.min_labelled > 0 or self.skip_empty or self.aoi_rule == "inside"

    @property
    def angles(self) -> tuple[float, ...]:
        """Of the turned copies, in degrees."""
        if not self.rotation_angle:
            return ()
        return tuple(float(a) for a in np.arange(self.rotation_angle, 360 - 1e-9, self.rotation_angle))


class Truth(NamedTuple):
    """What is known of the ground under a grid; all (rows, cols)."""

    codes: NDArray[np.uint8]
    """Class codes; IGNORE where nothing is known."""

    contested: NDArray[np.bool_]
    """True where polygons of several classes lie."""

    inside: NDArray[np.bool_] | None = None
    """True in the area of interest; None: there is none, and all is inside."""

    def part(self, place: Any) -> Truth:
        """Of some rows and columns."""
        inside = None if self.inside is None else self.inside[place]
        return Truth(self.codes[place], self.contested[place], inside)

    @property
    def all_inside(self) -> bool:
        return self.inside is None or share(self.inside) == 1


@dataclass(frozen=True, slots=True, eq=False)
class Chip:
    """One tile of an image with its labels."""

    patch: Patch
    codes: NDArray[np.uint8]
    """(rows, cols) class codes; IGNORE where nothing is known."""

    conflicts: int
    """Labelled pixels on which polygons of several classes lie."""

    inside: bool
    """True if it lies wholly in the area of interest."""


def chip_of(patch: Patch, truth: Truth) -> Chip:
    """Pixels with their labels: IGNORE where the image is invalid."""
    if share(patch.valid) == 1:
        return Chip(patch, truth.codes, int(np.count_nonzero(truth.contested)), truth.all_inside)
    codes = np.where(patch.valid, truth.codes, IGNORE).astype(np.uint8)
    return Chip(patch, codes, int(np.count_nonzero(truth.contested & patch.valid)), truth.all_inside)


def count_codes(codes: NDArray[np.uint8], legend: Legend) -> NDArray[np.int64]:
    """(256,) pixels by code, of which there are none but the legend's and IGNORE."""
    counts = np.zeros(256, np.int64)
    for code in (*legend.codes, IGNORE):
        counts[code] = np.count_nonzero(codes == code)
    return counts


def share(mask: NDArray[np.bool_]) -> float:
    """Of the pixels that are True."""
    return float(np.count_nonzero(mask) / mask.size)


def turned(grid: Grid, angle: float) -> Grid:
    """The grid turned counter-clockwise about its middle by degrees, in pixel space."""
    to_middle = Affine.translation(grid.width / 2, grid.height / 2)
    turn = to_middle @ Affine.rotation(angle) @ ~to_middle
    return Grid(grid.crs, grid.transform @ turn, grid.width, grid.height)


def turn_quarters(chip: Chip, quarters: int) -> Chip:
    """The chip turned by quarters of a circle, pixel for pixel."""
    if not quarters:
        return chip
    patch = Patch(
        np.ascontiguousarray(np.rot90(chip.patch.data, quarters, axes=(1, 2))),
        np.ascontiguousarray(np.rot90(chip.patch.valid, quarters)),
        turned(chip.patch.grid, 90 * quarters),
    )
    return Chip(patch, np.ascontiguousarray(np.rot90(chip.codes, quarters)), chip.conflicts, chip.inside)


def chip_windows(grid: Grid, spec: ChipSpec) -> tuple[range, range]:
    """First rows and columns of the tiles, from the grid's origin; the last may overhang.

    They cover the grid unless the stride skips.
    """

    def firsts(length: int) -> range:
        return range(0, max(length - spec.tile_size + min(spec.step, spec.tile_size), 1), spec.step)

    return firsts(grid.height), firsts(grid.width)


def judge(counts: NDArray[np.int64], legend: Legend, spec: ChipSpec, *, valid: float, inside: bool) -> str | None:
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
    if 1 - counts[IGNORE] / counts.sum() < spec.min_labelled:
        return "unlabelled"
    return "empty" if spec.skip_empty and is_empty(counts, legend) else None


def is_empty(counts: NDArray[np.int64], legend: Legend) -> bool:
    """True if there is no pixel of any class but background."""
    return not counts[[info.code for info in legend if info.name != BACKGROUND]].any()
