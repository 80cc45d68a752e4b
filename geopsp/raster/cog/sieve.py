"""The sieve over part files: small regions of a finished class raster join their largest neighbour."""

from __future__ import annotations

from concurrent.futures import Executor
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from geopsp.core.disk_array import DiskArray
from geopsp.core.grid import Window
from geopsp.core.jit import compile_ahead
from geopsp.core.output import write_errors
from geopsp.raster.cog.overviews import is_blank
from geopsp.raster.cog.part_file import PartWriter
from geopsp.raster.cog.part_grid import PartGrid
from geopsp.raster.cog.part_mosaic import PartMosaic, PartPath
from geopsp.raster.cog.raster_spec import RasterSpec
from geopsp.raster.cog.sieve_regions import sieve_regions

CODE_SHIFT = np.uint8(1)
"""Added to all codes, so that the nodata value 255 becomes 0, which stands for unknown."""


def sieve(
    spec: RasterSpec,
    part_grid: PartGrid,
    source: PartPath,
    target: PartPath,
    size: int,
    *,
    pool: Executor | None = None,
) -> None:
    """Write the parts at `source` to `target`, with regions (4-connected) of fewer than `size` pixels merged.

    The result is that of GDAL's sieve on the whole raster. Nodata pixels stay nodata and absorb nothing. Needs disk
    space beside the parts: one byte per pixel and 21 per region. Memory grows with neither.

    Raises:
        OutputError: if a part is missing or damaged, or the disk is full.
    """
    compile_ahead(("geopsp.core.connected_regions", "geopsp.raster.cog.sieve_regions"))
    folder = target(0).parent
    with write_errors(folder), TemporaryDirectory(prefix=".sieve-", dir=folder) as scratch:
        codes = DiskArray(Path(scratch) / "codes", np.uint8, (part_grid.height, part_grid.width))
        row = 0
        for rows in PartMosaic(spec, part_grid, source).rows(0):
            if not is_blank(rows, spec):
                codes.array[row : row + rows.shape[1]] = rows[0] + CODE_SHIFT
                codes.release()
            row += rows.shape[1]
        sieve_regions(codes, size, Path(scratch))
        for number in range(len(part_grid)):
            _write_part(spec, part_grid, number, codes, target(number), pool)


def _write_part(
    spec: RasterSpec, part_grid: PartGrid, number: int, codes: DiskArray, path: Path, pool: Executor | None
) -> None:
    """Write one part of the shifted codes."""
    window = part_grid.part(number).window
    rows, cols = window.slices(Window(0, 0, part_grid.width, part_grid.height))
    part = codes.array[rows, cols]
    with PartWriter(
        path, window.width, window.height, spec, block=part_grid.block, levels=part_grid.levels, pool=pool
    ) as writer:
        for row in range(0, window.height, part_grid.block):
            writer.append(part[None, row : row + part_grid.block] - CODE_SHIFT)
            codes.release()
