"""All parts of a raster, read as one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.raster.cog.overviews import is_blank
from geopsp.raster.cog.part_file import PartReader
from geopsp.raster.cog.part_grid import PartGrid
from geopsp.raster.cog.raster_spec import RasterSpec

PartPath = Callable[[int], Path]
"""Path of a part, by its number."""


class PartMosaic:
    """Blocks and rows of a whole raster, from the top down; only one row of parts is open at a time."""

    def __init__(self, spec: RasterSpec, part_grid: PartGrid, part_path: PartPath) -> None:
        self.spec, self.part_grid, self._part_path = spec, part_grid, part_path

    def block_sizes(self, level: int) -> NDArray[np.uint64]:
        """Return (bands, rows, cols) sizes of the compressed blocks of a level in bytes; 0 for a block of nodata.

        Raises:
            OutputError: if a part is missing or damaged; also raised by the methods below.
        """
        rows = []
        for row in range(self.part_grid.shape[0]):
            with ExitStack() as stack:
                rows.append(np.concatenate([p.block_sizes(level) for p in self._open_row(row, stack)], axis=2))
        return np.concatenate(rows, axis=1)

    def blocks(self, level: int) -> Iterator[bytes]:
        """Yield the compressed blocks of a level that are not all nodata, band by band, row by row."""
        for band in range(len(self.spec.bands)):
            for parts, row in self._block_rows(level):
                for part in parts:
                    for col in np.flatnonzero(part.block_sizes(level)[band, row]):
                        yield part.block_bytes(level, band, row, int(col))

    def rows(self, level: int) -> Iterator[NDArray[Any]]:
        """Yield the (bands, n, width) pixels of each row of blocks."""
        for parts, row in self._block_rows(level):
            pixels = [part.rows(level, row) for part in parts]
            if all(is_blank(each, self.spec) for each in pixels):
                yield self.spec.blank(pixels[0].shape[1], sum(each.shape[2] for each in pixels))
            else:
                yield np.concatenate(pixels, axis=2)

    def _block_rows(self, level: int) -> Iterator[tuple[list[PartReader], int]]:
        """Yield each row of blocks: the parts it lies in, side by side, and its number there."""
        for part_row in range(self.part_grid.shape[0]):
            with ExitStack() as stack:
                parts = self._open_row(part_row, stack)
                for row in range(parts[0].block_sizes(level).shape[1]):
                    yield parts, row

    def _open_row(self, row: int, stack: ExitStack) -> list[PartReader]:
        """Open the parts of one row of parts."""
        rows, cols = self.part_grid.shape
        return [stack.enter_context(self._reader(col * rows + row)) for col in range(cols)]

    def _reader(self, number: int) -> PartReader:
        window, part_grid = self.part_grid.part(number).window, self.part_grid
        path = self._part_path(number)
        return PartReader(path, window.width, window.height, self.spec, block=part_grid.block, levels=part_grid.levels)
