"""How large the parts of a map are: so that rows fit into memory, and so that all threads of a cluster have work."""

from __future__ import annotations

from bisect import bisect_left, bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import replace
from itertools import product as pairs

from geopsp.inference.tile_plan import TilePlan
from geopsp.raster.cog.part_grid import SIDE, PartGrid
from geopsp.raster.cog.raster_spec import RasterSpec
from geopsp.raster.scene import Scene

MIN_PART_WIDTH = 2048
"""Pixels that a part is wide at least, if a map is."""


TALL_MAP, SHORT_PART = 4 * SIDE, 2048
"""Maps up to so tall have parts of SHORT rows: a kill then costs less, and more machines have work."""


MAX_ROW_BYTES = 384e6
"""Bytes that the rows in hand may take."""


def part_width(scene: Scene, size: int, products: Sequence[RasterSpec], classes: int, block: int) -> int:
    """Columns of a part such that the rows in hand fit the budget: a power of two times NARROWEST, up to SIDE."""
    names = {product.name for product in products}
    canvas = 4 * classes * (2 if "disagreement" in names else 1) * size
    outgoing = sum(len(product.bands) * (1 if product.dtype == "uint8" else 4) for product in products) * 3 * size
    incoming = (len(scene.bands) * scene.dtype.itemsize + 1) * 3 * (size + block)
    width = SIDE
    while width > MIN_PART_WIDTH and width * (canvas + outgoing + incoming) > MAX_ROW_BYTES:
        width //= 2
    return width


def part_height(scene: Scene) -> int:
    """Rows of a part."""
    return SIDE if scene.grid.height > TALL_MAP else SHORT_PART


def split_for_threads(parts: PartGrid, tiles: TilePlan, threads: int) -> PartGrid:
    """The grid in parts of the sides, halved some times, with which so many threads are done first.

    A part is never less than two blocks along a side, so that it holds an overview. Smaller parts keep more threads
    busy until the end, but more tiles touch two parts, and are computed for both. What is compared is the time that
    threads take at most that take the next part when they are done with one.

    Source: Graham, "Bounds on multiprocessing timing anomalies" (1969).
    """
    sides = pairs(_halved(parts.part_width, parts.block), _halved(parts.part_height, parts.block))
    grids = [replace(parts, part_width=width, part_height=height) for width, height in sides]
    return min(grids, key=lambda each: _longest(each, tiles, max(threads, 1)))


def _halved(side: int, block: int) -> Iterator[int]:
    yield side
    while side % (4 * block) == 0:
        side //= 2
        yield side


def _longest(parts: PartGrid, tiles: TilePlan, threads: int) -> float:
    """Tiles that the last thread has computed when all are done, at most."""
    down, across = _touching(parts, tiles)
    return (sum(down) * sum(across) + (threads - 1) * max(down) * max(across)) / threads


def num_tiles_computed(parts: PartGrid, tiles: TilePlan) -> int:
    """Tiles that are computed if each part is made by itself: those that touch several, for each."""
    down, across = _touching(parts, tiles)
    return sum(down) * sum(across)


def _touching(parts: PartGrid, tiles: TilePlan) -> tuple[list[int], list[int]]:
    """How many tiles touch each part, down and across the map."""
    axes = (tiles.rows, parts.height, parts.part_height), (tiles.cols, parts.width, parts.part_width)
    down, across = (
        [
            bisect_left(firsts, min(start + side, length)) - bisect_right(firsts, start - tiles.size)
            for start in range(0, length, side)
        ]
        for firsts, length, side in axes
    )
    return down, across
