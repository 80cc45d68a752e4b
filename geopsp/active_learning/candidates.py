"""Candidate windows: where they lie in the images, and which ground is labelled already."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray

from geopsp.chips.chip import chip_windows
from geopsp.chips.chip_set import ChipSet
from geopsp.chips.options import ChipSpec
from geopsp.core.grid import Grid, Window
from geopsp.labels.area import AreaOfInterest
from geopsp.raster.scene import Scene
from geopsp.vector.open import local_folder

logger = logging.getLogger(__name__)

MAX_CHUNK_BYTES = 64e6
"""Bytes of the probabilities of the windows that are scored at a time."""

MAX_CHUNK_WINDOWS = 16


class Chunk(NamedTuple):
    """Some windows of a row, which are read and scored together."""

    row: int
    columns: range
    """Their first columns."""


@dataclass(frozen=True, slots=True)
class WindowGrid:
    """The windows of a scene, on the grid on which chips are cut."""

    size: int
    rows: range
    columns: range
    chunk_windows: int

    @classmethod
    def of(cls, grid: Grid, *, size: int, stride: int | None, classes: int) -> WindowGrid:
        """Lay windows over a grid of pixels; the last of a row or column may overhang, as chips do."""
        rows, columns = chip_windows(grid, ChipSpec(tile_size=size, stride=stride))
        most = int(MAX_CHUNK_BYTES // (4 * classes * size**2))
        return cls(size, rows, columns, min(max(most, 1), MAX_CHUNK_WINDOWS))

    def __len__(self) -> int:
        return len(self.rows) * len(self.columns)

    def chunks(self, row: int) -> Iterator[Chunk]:
        """Yield the windows of a row."""
        for first in range(0, len(self.columns), self.chunk_windows):
            yield Chunk(row, self.columns[first : first + self.chunk_windows])


@dataclass(frozen=True, slots=True, eq=False)
class LabelledGround:
    """What is labelled already: ground, and for a chip folder its chips."""

    area: AreaOfInterest | None
    """None where chips have no georeference."""

    chips: ChipSet | None = None

    @classmethod
    def open(cls, labelled: str | Path | gpd.GeoDataFrame) -> LabelledGround:
        """Open a chip folder, of which the chips with labels count, or polygons.

        Raises:
            InputNotFoundError, LabelError, ChipError: if it cannot be read.
        """
        folder = local_folder(labelled) if isinstance(labelled, str | Path) else None
        if folder is None:
            return cls(AreaOfInterest.read(labelled))
        chips = ChipSet.open(labelled)
        index = chips.index[chips.index["labelled"] > 0]
        placed = index[index.geometry.notna()]
        if len(index) and (not len(placed) or placed.crs is None):
            logger.warning(
                f"The chips in {labelled} have no georeference, so windows on the same ground are not left out."
            )
            return cls(None, chips)
        if not len(placed):
            return cls(None)
        return cls(AreaOfInterest.read(gpd.GeoDataFrame(geometry=placed.geometry, crs=placed.crs)), chips)

    def fingerprint(self) -> list[str]:
        """Return what identifies it."""
        found = [] if self.area is None else self.area.fingerprint()
        return found + ([] if self.chips is None else [str(folder.absolute()) for folder in self.chips.folders])

    def fraction(self, grid: Grid) -> float:
        """Return the fraction of the pixels of a grid that is labelled."""
        return 0.0 if self.area is None else float(self.area.inside(grid).mean())


class Pixels(NamedTuple):
    """Pixels of a part of a scene."""

    window: Window
    data: NDArray[np.generic]
    """(bands, rows, cols)"""

    valid: NDArray[np.bool_]
    """(rows, cols)"""

    def crop(self, window: Window) -> tuple[NDArray[np.generic], NDArray[np.bool_]]:
        """Return the pixels and the valid mask of a window inside."""
        rows, cols = window.slices(self.window)
        return self.data[:, rows, cols], self.valid[rows, cols]


def read_pixels(scene: Scene, window: Window, area: AreaOfInterest | None) -> Pixels:
    """Read a window, which may extend beyond the scene; pixels outside of the area are not valid.

    Raises:
        RasterError: if pixels cannot be read.
    """
    raster = scene.read(window)
    valid = raster.valid
    if area is not None and valid.any():
        valid = valid & area.inside(raster.grid)
    return Pixels(window, raster.data, valid)
