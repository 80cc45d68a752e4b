"""Part sizes: rows fit into memory, and all threads of a cluster have work."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product

from geopsp.inference.outputs import needs_agreement
from geopsp.inference.tile_plan import TilePlan
from geopsp.models.crf import CRFParameters
from geopsp.raster.cog.part_grid import SIDE, PartGrid
from geopsp.raster.cog.raster_spec import RasterSpec
from geopsp.raster.scene import Scene

MIN_PART_WIDTH = 2048
"""Smallest width of a part, in pixels, if the map is wider."""


TALL_MAP, SHORT_PART = 4 * SIDE, 2048
"""Maps of up to TALL_MAP rows have parts of SHORT_PART rows: a kill costs less, and more machines have work."""


MAX_ROW_BYTES = 384e6
"""Bytes of all rows that are held at a time."""


MIN_STRIP_ROWS = 128
"""Smallest number of rows, without the halo around them, that a CRF works on."""


def part_width(
    scene: Scene,
    size: int,
    specs: Sequence[RasterSpec],
    classes: int,
    block: int,
    crf: CRFParameters | None = None,
) -> int:
    """Return the largest width of a part, MIN_PART_WIDTH times a power of two, whose rows fit into MAX_ROW_BYTES."""
    buffers = 2 if needs_agreement(specs) else 1
    blended = buffers * 4 * classes * size
    written = sum(len(spec.bands) * (1 if spec.dtype == "uint8" else 4) for spec in specs) * 3 * size
    read = (len(scene.bands) * scene.dtype.itemsize + 1) * 3 * (size + block)
    refined = 0
    if crf is not None:
        refined = 4 * len(scene.bands) * size + crf_row_bytes(crf, classes, len(scene.bands))
    width = SIDE
    while width > MIN_PART_WIDTH and width * (blended + written + read + refined) > MAX_ROW_BYTES:
        width //= 2
    return width


def part_height(scene: Scene) -> int:
    """Return the height of a part, in pixels."""
    return SIDE if scene.grid.height > TALL_MAP else SHORT_PART


def crf_row_bytes(crf: CRFParameters, classes: int, bands: int) -> int:
    """Return the bytes that a strip of the CRF takes at least for each pixel of its width."""
    return (MIN_STRIP_ROWS + 2 * crf.halo) * crf.bytes_per_pixel(classes, bands)


def split_for_threads(parts: PartGrid, tiles: TilePlan, threads: int, halo: int = 0) -> PartGrid:
    """Halve the sides of the parts as often as lets a number of threads finish first.

    A side keeps two blocks at least, so that a part holds an overview. Smaller parts keep more threads busy until the
    end, but more tiles touch two parts, and are computed for both. Compared is the longest time that threads can need
    if each takes the next part when it is done with one. `halo`: pixels around a part that are computed for it.

    Source: Graham, "Bounds on multiprocessing timing anomalies" (1969).
    """
    sides = product(_halved(parts.part_width, parts.block), _halved(parts.part_height, parts.block))
    grids = [replace(parts, part_width=width, part_height=height) for width, height in sides]
    return min(grids, key=lambda grid: _longest(grid, tiles, max(threads, 1), halo))


def _halved(side: int, block: int) -> Iterator[int]:
    yield side
    while side % (4 * block) == 0:
        side //= 2
        yield side


def _longest(parts: PartGrid, tiles: TilePlan, threads: int, halo: int) -> float:
    """Return the most tiles that are computed one after another until all threads are done."""
    down, across = _num_tiles(parts, tiles, halo)
    return (sum(down) * sum(across) + (threads - 1) * max(down) * max(across)) / threads


def num_tiles_computed(parts: PartGrid, tiles: TilePlan, halo: int = 0) -> int:
    """Return the number of tiles if each part is made by itself: a tile that touches several counts for each."""
    down, across = _num_tiles(parts, tiles, halo)
    return sum(down) * sum(across)


def _num_tiles(parts: PartGrid, tiles: TilePlan, halo: int) -> tuple[list[int], list[int]]:
    """Return how many tiles touch each part, down and across the map."""
    axes = (tiles.rows, parts.height, parts.part_height), (tiles.cols, parts.width, parts.part_width)
    down, across = (
        [
            bisect_left(firsts, min(start + side + halo, length)) - bisect_right(firsts, start - halo - tiles.size)
            for start in range(0, length, side)
        ]
        for firsts, length, side in axes
    )
    return down, across
