"""Sizes of pixels on the ground, compared across CRSs and units."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyproj
from pyproj.database import get_units_map

from geopsp.core.crs import metre_axes, metres_per_degree
from geopsp.core.grid import Grid
from geopsp.errors import GridError

SIZE_RATIO = 1.25
"""Largest ratio of two pixel sizes that count as equal."""

MAX_SIZE_RATIO = 4.0
"""Largest ratio of a pixel size to that of the training, up to which a model is used without being told to."""


@dataclass(frozen=True, slots=True)
class PixelSize:
    """The height of a pixel."""

    height: float
    """In `unit`."""

    unit: str
    crs: Any
    """The CRS (as pyproj takes it), of whose globe degrees are; None if there is none."""

    metres: float | None = None
    """The height on the ground, if it is known better than by the unit."""

    @classmethod
    def of_grid(cls, grid: Grid) -> PixelSize:
        unit = "degree" if grid.crs.is_geographic else grid.crs.linear_units
        return cls(grid.cell_size[1], unit, grid.crs, ground_size(grid)[1])

    @property
    def ground(self) -> float | None:
        """The height on the ground in metres; None if the unit is unknown."""
        unit = metres_of(self.unit, self.crs)
        return self.metres if self.metres is not None else None if unit is None else self.height * unit

    def ratio_to(self, trained: float, unit: str) -> float | None:
        """Return how many times larger it is than that of the training; None if the units cannot be compared."""
        if trained <= 0:
            return None
        if unit == self.unit:
            return self.height / trained
        metres, ground = metres_of(unit, self.crs), self.ground
        return None if metres is None or ground is None else ground / (trained * metres)

    def compared_with(self, trained: float, unit: str) -> str:
        """Return both sizes in words, e.g. "10 m, but the model was trained at 2 m (5x finer)"."""
        ratio = self.ratio_to(trained, unit)
        assert ratio is not None
        size, ground = format_size(self.height, self.unit), self.ground
        if unit != self.unit and ground is not None and (words := format_size(ground, "metre")) != size:
            size += f" ({words} on the ground)"
        times, finer = format_number(max(ratio, 1 / ratio)), "finer" if ratio > 1 else "coarser"
        return f"{size}, but the model was trained at {format_size(trained, unit)} ({times}x {finer})"


def require_similar_size(size: PixelSize, trained: float, unit: str, where: str) -> None:
    """Check that pixels are at most MAX_SIZE_RATIO times larger or smaller than those of the training.

    Args:
        size: Of the pixels.
        trained: The height of the training's, in `unit`.
        unit: A unit of length, or "degree".
        where: Whose pixels they are, for the message.

    Raises:
        GridError: if they are not.
    """
    ratio = size.ratio_to(trained, unit)
    if ratio is None or (ratio * (1 + 1e-6) >= 1 / MAX_SIZE_RATIO and ratio <= MAX_SIZE_RATIO * (1 + 1e-6)):
        return
    smaller = "smaller" if ratio > 1 else "larger"
    raise GridError(
        f"The pixel size of {where} is {size.compared_with(trained, unit)}: objects appear that much {smaller} than in "
        f"training, and the result would be meaningless. Resample to about the size of the training with "
        f"`cell_size={size.height / ratio:.4g}`, train a model for this resolution, or go on all the same with "
        "`allow_resolution_mismatch=True`."
    )


def format_size(value: float, unit: str) -> str:
    """Write a size with its unit, metres as m."""
    short = {"metre": "m", "meter": "m", "degree": "degrees"}.get(unit.lower(), unit)
    return f"{format_number(value)} {short}"


def format_number(value: float) -> str:
    """Write a number with three digits, without an exponent where it is large."""
    return f"{value:.3g}" if value < 1000 else f"{value:,.0f}"


def ground_size(grid: Grid) -> tuple[float, float]:
    """Return the width and height on the ground, in metres, of a pixel in the middle of a grid.

    By the CRS's unit alone where the middle has no place on the globe.
    """
    t, middle = grid.transform, grid.corners().mean(axis=0)
    axes = metre_axes(middle[None], pyproj.CRS.from_user_input(grid.crs))[0]
    sides = np.linalg.solve(axes, np.array([[t.a, t.b], [t.d, t.e]]))
    return float(np.hypot(*sides[:, 0])), float(np.hypot(*sides[:, 1]))


def metres_of(unit: str, crs: Any) -> float | None:
    """Return the metres in a unit; of degrees along a meridian of the CRS's globe; None if the unit is unknown."""
    if unit == "degree":
        return None if crs is None else metres_per_degree(pyproj.CRS.from_user_input(crs))
    return _metres_by_unit().get(unit.lower())


@cache
def _metres_by_unit() -> dict[str, float]:
    """Return metres by the names that EPSG and ESRI give to units of length."""
    found = {name.lower(): unit.conv_factor for name, unit in get_units_map(category="linear").items()}
    return found | {"meter": 1.0, "foot_us": 1200 / 3937, "us survey foot": 1200 / 3937}
