"""What a map will cost: tiles, time, memory and disk, told before the first tile."""

from __future__ import annotations

import time
from bisect import bisect_left, bisect_right
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import torch
from affine import Affine

from geopsp.core.grid import Grid, Window
from geopsp.errors import GridError
from geopsp.inference.disk_space import check_disk, format_bytes
from geopsp.inference.job import MapJob
from geopsp.inference.part_size import MAX_ROW_BYTES, num_tiles_computed
from geopsp.inference.pipeline import one_thread_each
from geopsp.inference.predict_parts import predictor_for
from geopsp.inference.tile_plan import TilePlan
from geopsp.labels.area import AreaOfInterest
from geopsp.models.memory import forward_bytes, free_memory, inference_batch_size, weight_bytes
from geopsp.models.saved_model import TrainedModel
from geopsp.raster.cog.part_grid import PartGrid
from geopsp.raster.scene import Scene

MANY = 200
"""Tiles from which on a map is worth an estimate of time and memory."""


LOOKED_AT = 10_000
"""Tiles, times images, that are asked at most whether they are empty; of more, a share is."""


LEAST = 200
"""Tiles that are asked anyway."""


FINENESS, CELLS = 4, 2048
"""Cells across a tile, but not more across a map, by which it is told whether a tile lies in the area of interest."""


WIDEST = 10_000_000
"""Pixels along a side from which on a map is taken for a mistake: all of the Earth at 4 m."""


@dataclass(frozen=True, slots=True)
class TileCount:
    """How many tiles a map is made of."""

    total: int
    empty: int
    """Known to have no valid pixel, so that they are skipped."""

    exact: bool
    """False if `empty` is an estimate."""

    @property
    def computed(self) -> int:
        return self.total - self.empty

    def __str__(self) -> str:
        words = f"{self.total:,} tile{'s' if self.total > 1 else ''}"
        about = "" if self.exact else "about "
        return f"{words}, {about}{self.empty:,} of them known to be empty" if self.empty else words


def check_size(scene: Scene) -> None:
    """Nothing, if a scene can be mapped at all.

    Raises:
        GridError: if it is absurdly large.
    """
    grid = scene.grid
    if max(grid.width, grid.height) > WIDEST:
        raise GridError(
            f"{scene.name} has {grid.width:,} x {grid.height:,} pixels of {grid.cell_size[0]:g} ({grid.unit}); needed "
            f"{WIDEST:,} along a side at most. Give a larger cell_size (--cell-size), or an extent (--extent)."
        )


def count_tiles(
    scene: Scene, tiles: TilePlan, parts: PartGrid, area: AreaOfInterest | None = None, *, looks: int = LOOKED_AT
) -> TileCount:
    """The tiles of all columns of parts; tiles that touch two columns are computed for both.

    Of a large map only some tiles are looked at, evenly spread, and the rest is taken to be like them. `looks`: so many
    at most, times images.
    """
    firsts = [col for number in range(parts.shape[1]) for col in _columns(tiles, parts, number)]
    total = len(tiles.rows) * len(firsts)
    chosen = _spread(total, max(min(LEAST, looks), looks // len(scene.layers)))
    outside = _outside(area, scene.grid, tiles.size)
    empty = 0
    for number in chosen:
        row, col = divmod(number, len(firsts))
        window = Window(firsts[col], tiles.rows[row], tiles.size, tiles.size)
        empty += outside(window) or scene.known_empty(window)
    return TileCount(total, round(empty * total / len(chosen)), exact=area is None and len(chosen) == total)


def _columns(tiles: TilePlan, parts: PartGrid, number: int) -> list[int]:
    """First columns of the tiles that touch a column of parts."""
    window = parts.part(number * parts.shape[0]).window
    cols = tiles.cols
    return list(cols[bisect_right(cols, window.col - tiles.size) : bisect_left(cols, window.col_stop)])


def _outside(area: AreaOfInterest | None, grid: Grid, size: int) -> Callable[[Window], bool]:
    """Whether a tile lies outside of the area, by cells of a part of its side."""
    if area is None:
        return lambda _: False
    cell = max(size // FINENESS, max(grid.width, grid.height) // CELLS, 1)
    cells = Window(0, 0, -(-grid.width // cell), -(-grid.height // cell))
    coarse = Grid(grid.crs, grid.transform * Affine.scale(cell), cells.width, cells.height)
    inside = area.inside(coarse)

    def outside(window: Window) -> bool:
        col, row = window.col // cell, window.row // cell
        part = Window(col, row, -(-window.col_stop // cell) - col, -(-window.row_stop // cell) - row)
        return not inside[part.intersect(cells).slices(cells)].any()

    return outside


def _spread(total: int, most: int) -> Sequence[int]:
    """Numbers below `total`: all, or so many that follow no regular step, which could be that of the rows."""
    if total <= most:
        return range(total)
    shares = (np.arange(most) * 0.6180339887498949) % 1
    return np.unique((shares * total).astype(int)).tolist()  # type: ignore[no-any-return]


def striped(scene: Scene, parts: PartGrid) -> Iterator[str]:
    """Whether files keep whole rows together, of which each part reads all to use some."""
    times = parts.shape[1]
    stripes = [source for source in scene.sources if source.block[1] >= source.grid.width > parts.part_width]
    if times > 1 and stripes:
        yield (
            f"{stripes[0].path} keeps whole rows together, which are read {times} times, as the map is made in so many "
            f"columns. Tiled (gdal_translate -of COG), reading would cost {times} times less"
        )


def estimate_map(
    job: MapJob,
    model: TrainedModel,
    device: torch.device,
    *,
    area: AreaOfInterest | None,
    here: bool,
    timed: bool = True,
) -> Iterator[str]:
    """What a map will cost, in words.

    Args:
        job: What is to be made.
        model: With which network.
        device: Where it computes.
        area: The job's area of interest, opened.
        here: False if other machines make it, whose time and memory nobody can tell.
        timed: False if time and memory were told already.

    Raises:
        OutputError: if the disks are too small.
    """
    tiles = count_tiles(job.scene, job.tiles, job.parts, area)
    parts = f", in {len(job.parts)} parts" if len(job.parts) > 1 else ""
    yield f"{tiles}, of {job.tiles.size} x {job.tiles.size} pixels{parts}"
    if not here and len(job.parts) > 1:
        more = num_tiles_computed(job.parts, job.tiles) / len(job.tiles) - 1
        yield f"parts are made apart: tiles that touch several are computed for each, {more:.0%} more than there are"
    yield from check_disk([(job.products, job.parts)], filled=tiles.computed / tiles.total, held=[job.folder])
    yield from striped(job.scene, job.parts)
    if here and timed and tiles.computed >= MANY:
        yield from _time_and_memory(job, model, device, tiles.computed)


def estimate_maps(
    jobs: Sequence[MapJob], model: TrainedModel, device: torch.device, *, here: bool, at_once: int = 1
) -> Iterator[str]:
    """What the maps of many images will cost together, in words; else as `forecast`.

    `at_once`: Maps that are made at a time.
    """
    looks = max(1, LOOKED_AT // len(jobs))
    each = [count_tiles(job.scene, job.tiles, job.parts, job.area(), looks=looks) for job in jobs]
    total, empty = sum(tiles.total for tiles in each), sum(tiles.empty for tiles in each)
    tiles = TileCount(total, empty, exact=all(tiles.exact for tiles in each))
    yield f"{len(jobs)} images: {tiles} in all"
    maps = [(job.products, job.parts) for job in jobs]
    held = [job.folder for job in jobs]
    yield from check_disk(maps, filled=tiles.computed / total, held=held, at_once=at_once)
    if here and tiles.computed >= MANY:
        yield from _time_and_memory(jobs[0], model, device, tiles.computed)


def _time_and_memory(job: MapJob, model: TrainedModel, device: torch.device, tiles: int) -> Iterator[str]:
    """As a try of a few tiles tells."""
    bands, classes, size = len(model.bands), len(model.legend), job.tiles.size
    batch, threads = inference_batch_size(
        model.network, bands=bands, classes=classes, size=size, device=device, batch_size=job.settings.batch_size,
        bf16=job.bf16,
    )  # fmt: skip
    seconds = tiles * tile_seconds(job, model, device, batch=batch, threads=threads)
    one = forward_bytes(model.network, batch, bands=bands, size=size, device=device, bf16=job.bf16)
    need, left = threads * one + weight_bytes(model.network) + MAX_ROW_BYTES, free_memory(device)
    memory = f"{format_bytes(need)} of memory on this machine, which has {format_bytes(left)} free"
    yield f"about {format_duration(seconds)} and {memory}"
    if need > left:
        yield "memory is short. Lower batch_size (--batch-size), or close other programs"


def tile_seconds(job: MapJob, model: TrainedModel, device: torch.device, *, batch: int, threads: int) -> float:
    """Seconds that a tile takes in the network, as it is used for the map, but not compiled."""
    predictor = predictor_for(job, model, device, batch_size=batch, compiled=False)
    size = job.tiles.size
    data = [np.zeros((len(model.bands), size, size), job.scene.dtype)] * batch

    def compute(_: int) -> None:
        predictor(data, [np.ones((size, size), bool)] * batch).sum().item()  # a device is waited for

    with one_thread_each(device.type == "cpu"), ThreadPoolExecutor(threads) as pool:
        list(pool.map(compute, range(threads)))
        start = time.perf_counter()
        list(pool.map(compute, range(threads)))
        return (time.perf_counter() - start) / (threads * batch)


def format_duration(seconds: float) -> str:
    """As a person would say it: "40 s", "7 min", "3 h 20 min", "2 days 3 h"."""
    if seconds < 100:
        return f"{max(seconds, 1):.0f} s"
    minutes = round(seconds / 60)
    if minutes < 100:
        return f"{minutes} min"
    hours, minutes = divmod(minutes, 60)
    if hours < 48:
        return f"{hours} h {minutes} min"
    days, hours = divmod(hours, 24)
    return f"{days} days {hours} h"
