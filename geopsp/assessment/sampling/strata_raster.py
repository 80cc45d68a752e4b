"""The pixels of a map by stratum: class, confidence bin and zone, read window by window."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.parallel import cpu_count
from geopsp.labels.area import AreaOfInterest
from geopsp.labels.polygon_labels import PolygonLabels
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.confidence import Confidence

NUM_KEYS = 2**16
"""Keys of pixels are numbers below this."""


OUTSIDE_AOI, OUTSIDE_ZONES = NUM_KEYS - 2, NUM_KEYS - 1
"""Keys of pixels outside of the area of interest, and outside of all zones; nodata is nodata there too."""


NUM_CODES = 256
"""Class codes of one part; part times this, plus the code, is the key. The last code is nodata."""


MAX_PARTS = NUM_KEYS // NUM_CODES - 1
"""Combinations of zones and confidence bins."""


STRIP_PIXELS = 2**22
"""Pixels of a strip that is read at once; more where the blocks of the file are higher."""


MAX_STRIP_PIXELS = 2**26
"""The most, even if blocks are then read several times."""


MAX_PIXELS = 2**28
"""Pixels that all threads hold at a time."""


CELL_PIXELS = 2**24
"""Pixels of a strip that are read at a time."""


@dataclass(frozen=True, slots=True, eq=False)
class StrataRaster:
    """A class raster whose pixels have keys, one for each class, confidence bin and zone. Threads may read it."""

    raster: ClassRaster

    block: tuple[int, int]
    """Height and width of the blocks of the file."""

    kept: NDArray[np.bool_]
    """(256,) True for the class codes that are drawn."""

    confidence: Confidence | None = None
    """If it divides classes."""

    limits: Sequence[float] = ()
    """Limits of the confidence bins."""

    zones: PolygonLabels | None = None

    aoi: AreaOfInterest | None = None

    @property
    def grid(self) -> Grid:
        return self.raster.grid

    @property
    def num_bins(self) -> int:
        """Number of confidence bins; the last is of pixels without confidence."""
        return len(self.limits) + 2 if self.limits else 1

    @property
    def num_zones(self) -> int:
        return 1 if self.zones is None else len(self.zones.legend)

    def split(self, key: int) -> tuple[int, int, int]:
        """Return class code, confidence bin and zone, the latter as index, of a key."""
        part, code = divmod(key, NUM_CODES)
        zone, interval = divmod(part, self.num_bins)
        return code, interval, zone

    def read(self, window: Window) -> NDArray[np.uint16]:
        """Return (rows, cols) keys of a window of the raster.

        Raises:
            RasterError: if the map or the confidence cannot be read.
        """
        step = _multiple(max(1, CELL_PIXELS // window.height), self.block[1])
        if step >= window.width:
            return self._read_cell(window)
        keys = np.empty((window.height, window.width), np.uint16)
        for col in range(window.col, window.col_stop, step):
            cell = Window(col, window.row, step, window.height).intersect(window)
            keys[cell.slices(window)] = self._read_cell(cell)
        return keys

    def _read_cell(self, window: Window) -> NDArray[np.uint16]:
        codes = self.raster.read(window)
        keys = codes.astype(np.uint16)
        if not self.divides:
            return keys
        grid = self.grid.crop(window)
        if self.confidence is not None and self.limits:
            values = self.confidence.read(window)
            intervals = np.digitize(values, np.array(self.limits, np.float32))
            keys += np.where(np.isnan(values), len(self.limits) + 1, intervals).astype(np.uint16) * np.uint16(NUM_CODES)
        if self.zones is not None:
            burned = self.zones.burn(grid).codes
            offsets = np.zeros(NUM_CODES, np.uint16)
            offsets[self.zones.legend.codes] = np.arange(self.num_zones) * self.num_bins * NUM_CODES
            keys += offsets[burned]
            keys[burned == IGNORE_INDEX] = OUTSIDE_ZONES
        if self.aoi is not None:
            keys[~self.aoi.inside(grid)] = OUTSIDE_AOI
        keys[codes == IGNORE_INDEX] = IGNORE_INDEX
        return keys

    @property
    def divides(self) -> bool:
        """True if more than the class decides on the key."""
        return bool(self.limits) or self.zones is not None or self.aoi is not None

    @property
    def is_drawn(self) -> NDArray[np.bool_]:
        """(NUM_KEYS,) True for the keys of pixels that can be drawn."""
        of_part = self.kept.copy()
        of_part[IGNORE_INDEX] = False
        drawn = np.tile(of_part, NUM_KEYS // NUM_CODES)
        drawn[[OUTSIDE_AOI, OUTSIDE_ZONES]] = False
        return drawn

    def strips(self, multiple: int = 1) -> list[Window]:
        """Return windows of whole rows that partition the grid.

        Args:
            multiple: Number by which the height of all strips but the last can be divided.
        """
        width, height = self.grid.width, self.grid.height
        rows = _multiple(max(1, STRIP_PIXELS // width), self.block[0])
        rows = _multiple(min(rows, max(1, MAX_STRIP_PIXELS // width)), multiple)
        return [Window(0, row, width, min(rows, height - row)) for row in range(0, height, rows)]


def num_threads(strips: Sequence[Window]) -> int:
    """Return how many threads read strips."""
    largest = max(strip.width * strip.height for strip in strips)
    return max(1, min(cpu_count(), len(strips), MAX_PIXELS // largest))


def _multiple(number: int, of: int) -> int:
    """Return the next multiple of `of` from `number` on."""
    return -(-number // of) * of
