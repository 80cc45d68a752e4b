"""What a map will cost in tiles, time, memory and disk space, before the first tile."""

from __future__ import annotations

import logging
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
from affine import Affine

from geopsp.core.grid import Grid, Window
from geopsp.core.text import format_duration
from geopsp.inference.disk_space import check_disk, format_bytes
from geopsp.inference.job import MapJob
from geopsp.inference.part_size import num_tiles_computed
from geopsp.inference.resources import ComputeCost
from geopsp.inference.tile_plan import TilePlan
from geopsp.raster.cog.part_grid import PartGrid
from geopsp.raster.scene import Scene

if TYPE_CHECKING:
    from geopsp.labels.area import AreaOfInterest

logger = logging.getLogger(__name__)

MIN_TIMED_TILES = 200
"""Smallest number of tiles for which time and memory are estimated."""


MAX_CHECKS = 10_000
"""Most tiles, times images, that are checked for being empty; a larger number is sampled."""


MIN_CHECKS = 200
"""Tiles that are checked even if there are many images."""


CELLS_PER_TILE, MAX_CELLS = 4, 2048
"""Cells along a tile, but not more along a map, by which tiles are compared with the area of interest."""


@dataclass(frozen=True, slots=True)
class TileCount:
    """The number of tiles of a map."""

    total: int
    empty: int
    """Without a valid pixel, so that they are skipped."""

    exact: bool
    """False if `empty` is an estimate."""

    @property
    def computed(self) -> int:
        return self.total - self.empty

    def __str__(self) -> str:
        tiles = f"{self.total:,} tile{'' if self.total == 1 else 's'}"
        about = "" if self.exact else "about "
        return f"{tiles} ({about}{self.empty:,} empty)" if self.empty else tiles


@dataclass(frozen=True, slots=True)
class MapCost:
    """What a map costs, or many together."""

    num_bytes: float
    """Of all rasters, at most."""

    seconds: float | None
    """None: not estimated."""


def count_tiles(
    scene: Scene,
    tiles: TilePlan,
    parts: PartGrid,
    area: AreaOfInterest | None = None,
    *,
    max_checks: int = MAX_CHECKS,
    halo: int = 0,
) -> TileCount:
    """Count the tiles of all columns of parts; tiles that touch two columns count for both.

    Of a large map only some tiles, evenly spread, are checked for being empty. `max_checks`: their number at most,
    times images. `halo`: pixels beside a column that are computed for it.
    """
    firsts = [col for number in range(parts.shape[1]) for col in _columns(tiles, parts, number, halo)]
    total = len(tiles.rows) * len(firsts)
    checked = _spread(total, max(min(MIN_CHECKS, max_checks), max_checks // len(scene.layers)))
    is_outside = _outside(area, scene.grid, tiles.size)
    empty = 0
    for number in checked:
        row, col = divmod(number, len(firsts))
        window = Window(firsts[col], tiles.rows[row], tiles.size, tiles.size)
        empty += is_outside(window) or scene.known_empty(window)
    return TileCount(total, round(empty * total / len(checked)), exact=area is None and len(checked) == total)


def _columns(tiles: TilePlan, parts: PartGrid, number: int, halo: int) -> list[int]:
    """Return the first columns of the tiles that touch a column of parts."""
    window = parts.part(number * parts.shape[0]).window.pad(halo)
    cols = tiles.cols
    return list(cols[bisect_right(cols, window.col - tiles.size) : bisect_left(cols, window.col_stop)])


def _outside(area: AreaOfInterest | None, grid: Grid, size: int) -> Callable[[Window], bool]:
    """Return a function that tells whether a tile lies outside the area, from cells of a part of its side."""
    if area is None:
        return lambda _: False
    cell = max(size // CELLS_PER_TILE, max(grid.width, grid.height) // MAX_CELLS, 1)
    cells = Window(0, 0, -(-grid.width // cell), -(-grid.height // cell))
    coarse = Grid(grid.crs, grid.transform * Affine.scale(cell), cells.width, cells.height)
    inside = area.inside(coarse)

    def is_outside(window: Window) -> bool:
        col, row = window.col // cell, window.row // cell
        part = Window(col, row, -(-window.col_stop // cell) - col, -(-window.row_stop // cell) - row)
        return not inside[part.intersect(cells).slices(cells)].any()

    return is_outside


def _spread(total: int, most: int) -> Sequence[int]:
    """Return all numbers below `total`, or `most` of them in irregular steps, which no row length can match."""
    if total <= most:
        return range(total)
    fractions = (np.arange(most) * 0.6180339887498949) % 1
    return np.unique((fractions * total).astype(int)).tolist()  # type: ignore[no-any-return]


def striped(scene: Scene, parts: PartGrid) -> Iterator[str]:
    """Yield a note if files store whole rows together, so that each column of parts reads all of them."""
    times = parts.shape[1]
    stripes = [source for source in scene.sources if source.block[1] >= source.grid.width > parts.part_width]
    if times > 1 and stripes:
        yield (
            f"{stripes[0].path} stores whole rows together, so it is read {times} times, once for each column of "
            "parts. A tiled copy (gdal_translate -of COG) is read only once."
        )


def estimate_map(
    job: MapJob,
    *,
    on_this_machine: bool,
    measure: Callable[[], ComputeCost] | None = None,
    min_tiles: int | None = None,
) -> Generator[str, None, MapCost]:
    """Yield what a map will cost, in words, and return it.

    Args:
        job: The map.
        on_this_machine: False if the workers of a cluster make it.
        measure: Measures time and memory, which takes a moment; None: they are not estimated.
        min_tiles: Of fewer tiles they are not estimated either; None: `MIN_TIMED_TILES`.

    Raises:
        OutputError: if a disk is too small.
    """
    tiles = count_tiles(job.scene, job.tiles, job.parts, job.area(), halo=job.halo)
    parts = f", in {len(job.parts)} parts" if len(job.parts) > 1 else ""
    yield f"{tiles} of {job.tiles.size} x {job.tiles.size} pixels{parts}."
    if not on_this_machine and len(job.parts) > 1:
        more = num_tiles_computed(job.parts, job.tiles, job.halo) / len(job.tiles) - 1
        yield f"Workers compute tiles that touch several parts once for each part: {more:.0%} more tiles."
    num_bytes = yield from check_disk(
        [(job.rasters, job.parts)], filled=tiles.computed / tiles.total, job_folders=[job.folder]
    )
    yield from striped(job.scene, job.parts)
    return MapCost(num_bytes, (yield from _time_and_memory(tiles, measure, min_tiles)))


def estimate_maps(
    jobs: Sequence[MapJob],
    *,
    at_once: int = 1,
    measure: Callable[[], ComputeCost] | None = None,
    min_tiles: int | None = None,
) -> Generator[str, None, MapCost]:
    """Yield what the maps of many images will cost together, in words, and return it; see `estimate_map`.

    `at_once`: Maps that are made at a time.
    """
    max_checks = max(1, MAX_CHECKS // len(jobs))
    counts = [
        count_tiles(job.scene, job.tiles, job.parts, job.area(), max_checks=max_checks, halo=job.halo) for job in jobs
    ]
    total, empty = sum(tiles.total for tiles in counts), sum(tiles.empty for tiles in counts)
    tiles = TileCount(total, empty, exact=all(tiles.exact for tiles in counts))
    yield f"{len(jobs)} images: {tiles} in all."
    maps, folders = [(job.rasters, job.parts) for job in jobs], [job.folder for job in jobs]
    num_bytes = yield from check_disk(maps, filled=tiles.computed / total, job_folders=folders, at_once=at_once)
    return MapCost(num_bytes, (yield from _time_and_memory(tiles, measure, min_tiles)))


def _time_and_memory(
    tiles: TileCount, measure: Callable[[], ComputeCost] | None, min_tiles: int | None
) -> Generator[str, None, float | None]:
    """Yield time and memory, if there are many tiles, and return the seconds; warn if memory is short."""
    if measure is None or tiles.computed < (MIN_TIMED_TILES if min_tiles is None else min_tiles):
        return None
    cost = measure()
    seconds = tiles.computed * cost.tile_seconds
    need, free = format_bytes(cost.needed_bytes), format_bytes(cost.free_bytes)
    yield f"Estimated: {format_duration(seconds)}, {need} of memory ({free} free)."
    if cost.needed_bytes > cost.free_bytes:
        logger.warning(
            f"Memory may run out: about {need} are needed, but {free} are free. Lower `batch_size`, or close other "
            "programs."
        )
    return seconds
