"""The parts of a map seen as one."""

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
"""The file of a part, by its number."""


class PartMosaic:
    """Blocks and rows of the whole map, from the top down; no more than a row of parts is open at a time."""

    def __init__(self, product: RasterSpec, part_grid: PartGrid, part_path: PartPath) -> None:
        """Where the parts of the grid lie."""
        self.product, self.part_grid, self._part_path = product, part_grid, part_path

    def block_sizes(self, level: int) -> NDArray[np.uint64]:
        """(bands, rows, cols) bytes of each block of a level; 0 where nothing is known.

        Raises:
            OutputError: if a part is missing or damaged; so do the methods below.
        """
        lines = []
        for row in range(self.part_grid.shape[0]):
            with ExitStack() as stack:
                lines.append(np.concatenate([p.block_sizes(level) for p in self._open(row, stack)], axis=2))
        return np.concatenate(lines, axis=1)

    def blocks(self, level: int) -> Iterator[bytes]:
        """The deflated blocks of a level that are not of nothing, row by row of each band."""
        for band in range(len(self.product.bands)):
            for parts, line in self._lines(level):
                for part in parts:
                    for col in np.flatnonzero(part.block_sizes(level)[band, line]):
                        yield part.block_bytes(level, band, line, int(col))

    def rows(self, level: int) -> Iterator[NDArray[Any]]:
        """(bands, n, width) pixels of each row of blocks."""
        for parts, line in self._lines(level):
            pieces = [part.rows(level, line) for part in parts]
            if all(is_blank(piece, self.product) for piece in pieces):
                yield self.product.blank(pieces[0].shape[1], sum(piece.shape[2] for piece in pieces))
            else:
                yield np.concatenate(pieces, axis=2)

    def _lines(self, level: int) -> Iterator[tuple[list[PartReader], int]]:
        """Rows of blocks: the parts that they lie in, and their number there."""
        for row in range(self.part_grid.shape[0]):
            with ExitStack() as stack:
                parts = self._open(row, stack)
                for line in range(parts[0].block_sizes(level).shape[1]):
                    yield parts, line

    def _open(self, row: int, stack: ExitStack) -> list[PartReader]:
        """The parts side by side."""
        rows, cols = self.part_grid.shape
        return [stack.enter_context(self._reader(col * rows + row)) for col in range(cols)]

    def _reader(self, number: int) -> PartReader:
        window, part_grid = self.part_grid.part(number).window, self.part_grid
        path = self._part_path(number)
        return PartReader(
            path, window.width, window.height, self.product, block=part_grid.block, levels=part_grid.levels
        )
