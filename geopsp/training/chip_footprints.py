"""Where chips lie on the ground: their outlines, of many chips a sample."""

from __future__ import annotations

import numpy as np
import shapely
from numpy.typing import NDArray

from geopsp.chips.chip_set import ChipSet
from geopsp.models.training_record import MAX_FOOTPRINTS, Footprints

DIGITS = 9
"""Significant digits of coordinates: centimetres in metres, less in degrees."""

SEED = 0

NONE = np.zeros(0, np.intp)


def chip_footprints(
    chips: ChipSet, *, train: NDArray[np.intp] = NONE, valid: NDArray[np.intp] = NONE,
    dropped: NDArray[np.intp] = NONE,
) -> Footprints | None:  # fmt: skip
    """Return the outlines of chips by part of a split; None without georeference.

    Args:
        chips: The chips.
        train: Rows of the training chips.
        valid: Rows of the chips that are scored.
        dropped: Rows of those left out between them.
    """
    if chips.index.crs is None:
        return None
    total = len(train) + len(valid) + len(dropped)
    parts = {"train": train, "valid": valid, "dropped": dropped}
    if total > MAX_FOOTPRINTS:
        rng = np.random.default_rng(SEED)
        parts = {name: _sample(rows, MAX_FOOTPRINTS * len(rows) // total, rng) for name, rows in parts.items()}
    outlines = {name: _corners(chips, rows) for name, rows in parts.items()}
    shown = sum(map(len, outlines.values()))
    if not shown:
        return None
    return Footprints(crs=chips.index.crs.to_string(), shown=shown, total=total, **outlines)


def _sample(rows: NDArray[np.intp], count: int, rng: np.random.Generator) -> NDArray[np.intp]:
    return np.sort(rng.choice(rows, count, replace=False))


def _corners(chips: ChipSet, rows: NDArray[np.intp]) -> list[list[float]]:
    """Return x and y of the four corners of each chip that has a footprint."""
    shapes = chips.index.geometry.to_numpy()[rows]
    shapes = shapes[~(shapely.is_missing(shapes) | shapely.is_empty(shapes))]
    found = []
    for shape in shapes:
        ring = shapely.get_coordinates(shapely.get_exterior_ring(shape) if shape.geom_type == "Polygon" else shape)
        if len(ring) != 5:  # a chip that was reprojected, or cut
            ring = shapely.get_coordinates(shapely.minimum_rotated_rectangle(shape))
        if len(ring) == 5:
            found.append([float(f"{value:.{DIGITS}g}") for value in ring[:4].ravel()])
    return found
