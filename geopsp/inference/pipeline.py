"""From a window of a scene to the finished rows of its map, top down, in bounded memory.

Rows of the scene are read ahead, each block once; tiles go through the network in batches, on the CPU each batch in a
thread of its own; they come back in order and are blended; rows that no later tile touches are given out.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from itertools import islice
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geopsp.core.grid import Window
from geopsp.core.legend import Legend
from geopsp.core.parallel import prefetch
from geopsp.core.progress import Progress
from geopsp.inference.blend import BlendBuffer, BlendedRows
from geopsp.inference.outputs import encode_output
from geopsp.inference.predictor import TilePredictor
from geopsp.inference.tile_plan import TilePlan, weights
from geopsp.inference.tile_scores import TileScores, score_tile
from geopsp.labels.area import AreaOfInterest
from geopsp.raster.cog.raster_spec import RasterSpec
from geopsp.raster.row_buffer import RowBuffer, read_parallel
from geopsp.raster.scene import Scene

READERS = 2


TALLEST = 1024
"""Rows that are read at a time at most, however a file is laid out."""


Rows = dict[str, NDArray[Any]]
"""(bands, rows, cols) of each product, by name; all of as many rows."""


class Tile(NamedTuple):
    """Pixels of one tile."""

    window: Window
    data: NDArray[Any]
    """(bands, s, s)"""

    valid: NDArray[np.bool_]
    """(s, s)"""


@dataclass(frozen=True, slots=True, eq=False)
class TilePipeline:
    """All that makes rows of a map."""

    scene: Scene
    area: AreaOfInterest | None
    """Outside of it there is no map."""

    tiles: TilePlan
    legend: Legend
    products: tuple[RasterSpec, ...]
    predictor: TilePredictor
    threads: int = 1
    """Batches at a time."""

    @torch.inference_mode()
    def rows(self, window: Window, progress: Progress | None = None) -> Generator[Rows, None, None]:
        """The rows of a window of the map, from the top.

        Raises:
            RasterError: if pixels cannot be read.
        """
        wants = {product.name for product in self.products}
        canvas = BlendBuffer(
            self.tiles,
            window,
            len(self.legend),
            self.predictor.device,
            shares=self._shares,
            disagreement="disagreement" in wants,
        )
        done, total = 0, self.tiles.count(window)
        with closing(self._computed(window)) as batches:
            for tiles, heard, done in batches:
                for tile, told in zip(tiles, heard, strict=True):
                    for count, finished in canvas.finish_rows(tile.window.row):
                        yield self._given(window, count, finished)
                    edges = self.tiles.edges(tile.window.row, tile.window.col)
                    canvas.add(tile.window, torch.from_numpy(tile.valid), told, _weights(*edges, self.predictor.device))
                if progress:
                    progress(done, total)
            for count, finished in canvas.finish_rows(window.row_stop):
                yield self._given(window, count, finished)
        if progress:
            progress(total, total)

    def _given(self, window: Window, count: int, finished: BlendedRows | None) -> Rows:
        """The finished rows as each product stores them."""
        if finished is None:
            return {product.name: product.blank(count, window.width) for product in self.products}
        valid = finished.valid.numpy()
        return {product.name: encode_output(product, finished, valid, self.legend) for product in self.products}

    def _computed(self, window: Window) -> Generator[tuple[list[Tile], list[TileScores], int], None, None]:
        """Batches in the order of their tiles, what the network says of them, and how many tiles are then done."""
        on_cpu = self.predictor.device.type == "cpu"
        waiting: deque[tuple[list[Tile], Future[list[TileScores]], int]] = deque()
        with (
            one_thread_each(on_cpu),
            ThreadPoolExecutor(self.threads, thread_name_prefix="geopsp-network") as pool,
            closing(self._batches(window)) as batches,
        ):
            try:
                for tiles, done in batches:
                    waiting.append((tiles, pool.submit(self._predict, tiles), done))
                    if len(waiting) > self.threads + 1:
                        first, heard, count = waiting.popleft()
                        yield first, heard.result(), count
                while waiting:
                    first, heard, count = waiting.popleft()
                    yield first, heard.result(), count
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    @property
    def _shares(self) -> bool:
        """True if a product needs more than the likeliest class."""
        return any(product.name != "classes" for product in self.products)

    @torch.inference_mode()
    def _predict(self, tiles: Sequence[Tile]) -> list[TileScores]:
        scores = self.predictor([tile.data for tile in tiles], [tile.valid for tile in tiles])
        edges = [self.tiles.edges(tile.window.row, tile.window.col) for tile in tiles]
        return [score_tile(its, edge, everywhere=self._shares) for its, edge in zip(scores, edges, strict=True)]

    def _batches(self, window: Window) -> Generator[tuple[list[Tile], int], None, None]:
        """Tiles with a valid pixel, so many at a time as the network takes, and how many tiles have gone by."""
        with closing(self._tiles(window)) as tiles:
            worth = ((tile, number) for number, tile in enumerate(tiles, 1) if tile is not None)
            while batch := list(islice(worth, self.predictor.batch_size)):
                yield [tile for tile, _ in batch], batch[-1][1]

    def _tiles(self, window: Window) -> Generator[Tile | None, None, None]:
        """The tiles that touch a window, in order; None for one without a valid pixel."""
        size = self.tiles.size
        with closing(prefetch(self._read(window))) as rows:
            for row, cols, data, valid in rows:
                for col in cols:
                    inside = slice(col - cols[0], col - cols[0] + size)
                    seen = valid[:, inside]
                    yield Tile(Window(col, row, size, size), data[..., inside], seen) if seen.any() else None

    def _read(self, window: Window) -> Iterator[tuple[int, list[int], NDArray[Any], NDArray[np.bool_]]]:
        """Of each row of tiles: the first row, the first columns, and pixels and validity over all of them."""
        with ThreadPoolExecutor(READERS, thread_name_prefix="geopsp-read") as pool:
            reel: RowBuffer | None = None
            for row, cols in self.tiles.tiles(window):
                if reel is None:
                    columns = range(cols[0], cols[-1] + self.tiles.size)
                    reel = self._reel(columns, pool)
                data, valid = reel.read(row, row + self.tiles.size)
                yield row, cols, data, valid

    def _reel(self, columns: range, pool: Executor) -> RowBuffer:
        def read(first: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
            part = Window(columns.start, first, len(columns), stop - first)
            data, valid = read_parallel(self.scene, part, pool)
            if self.area is not None and valid.any():
                valid &= self.area.inside(self.scene.grid.crop(part))
            return data, valid

        return RowBuffer(read, block=min(self.scene.block_shape[0], TALLEST))


@lru_cache(maxsize=32)
def _weights(down: bytes, across: bytes, device: torch.device) -> Tensor:
    return torch.from_numpy(weights(down, across)).to(device)


@contextmanager
def one_thread_each(on_cpu: bool) -> Iterator[None]:
    """On the CPU, each call of the network keeps to one thread, and several run side by side.

    This is as quick as one call on all threads, and what a tile gives does not depend on how many there are.
    """
    before = torch.get_num_threads()
    if on_cpu:
        torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)
