"""Finished rows of a window of the map, top down, in bounded memory.

Rows of the scene are read ahead, each block once. Tiles go through the network in batches, on the CPU each batch in a
thread of its own. They come back in order and are blended; rows that no later tile overlaps are yielded.
"""

from __future__ import annotations

from collections.abc import Generator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeAlias

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Window
from geopsp.core.legend import Legend
from geopsp.core.parallel import map_ordered, prefetch
from geopsp.core.progress import Progress
from geopsp.inference.blend import BlendBuffer, BlendedRows
from geopsp.inference.class_buffer import ClassBuffer, classify_tile, holds_less_than_sums
from geopsp.inference.confidence import ConfidenceRules, MapRows
from geopsp.inference.crf_rows import refine_rows
from geopsp.inference.kernels_numba import NumbaOps
from geopsp.inference.outputs import encode_output, needs_agreement, needs_scores
from geopsp.inference.predictor import TilePredictor
from geopsp.inference.tile_ops import Array, TileOps
from geopsp.inference.tile_plan import TilePlan, weights
from geopsp.inference.tile_scores import score_tile
from geopsp.models.crf import CRFParameters
from geopsp.raster.cog.raster_spec import RasterSpec
from geopsp.raster.row_buffer import RowBuffer, read_parallel
from geopsp.raster.row_buffer import Rows as ReadRows
from geopsp.raster.scene import Scene

if TYPE_CHECKING:
    from geopsp.labels.area import AreaOfInterest

READERS = 2
"""Threads that read."""


MAX_BLOCK_ROWS = 1024
"""Rows that are read at a time at most, even if the blocks of a file are taller."""


Rows = dict[str, NDArray[Any]]
"""(bands, rows, cols) of each raster, by name; all of as many rows."""


class Tile(NamedTuple):
    """Pixels of one tile."""

    window: Window
    data: NDArray[Any]
    """(bands, s, s)"""

    valid: NDArray[np.bool_]
    """(s, s)"""


class Batch(NamedTuple):
    """Tiles that go through the network together."""

    tiles: list[Tile]
    done: int
    """Tiles of the window up to the last of this batch, those without a valid pixel included."""


TileResult: TypeAlias = Any
"""TileScores for a BlendBuffer, TileClasses for a ClassBuffer."""


ScoredTile = tuple[TileResult, Array | None]


@dataclass(frozen=True, slots=True, eq=False)
class TilePipeline:
    """Everything that is needed to make rows of a map."""

    scene: Scene
    area: AreaOfInterest | None
    """Outside of it the map is nodata."""

    tiles: TilePlan
    legend: Legend
    rasters: tuple[RasterSpec, ...]
    predictor: TilePredictor
    threads: int = 1
    """Batches that are computed at a time."""

    crf: CRFParameters | None = None
    confidence: ConfidenceRules = field(default_factory=ConfidenceRules)

    def rows(self, window: Window, progress: Progress | None = None) -> Generator[Rows, None, None]:
        """Yield the rows of a window of the map, from the top.

        Raises:
            RasterError: if pixels cannot be read.
        """
        with closing(self._finished(window, progress)) as pieces:
            for count, finished in pieces:
                yield self._encoded(window, count, finished)

    def _finished(
        self, window: Window, progress: Progress | None
    ) -> Generator[tuple[int, BlendedRows | None], None, None]:
        """Yield numbers of rows and their content, None where no tile has a valid pixel."""
        if self.crf is None:
            yield from self._blended(window, progress)
            return
        wider = window.pad(self.crf.halo).intersect(self.scene.grid.window)
        with closing(self._blended(wider, progress)) as blended:
            yield from refine_rows(
                blended,
                wider,
                window,
                self.crf,
                ops=self.predictor.ops,
                excluded=self.predictor.excluded_channels,
                threads=self.threads,
            )

    def _blended(
        self, window: Window, progress: Progress | None
    ) -> Generator[tuple[int, BlendedRows | None], None, None]:
        """Yield the weighted means of the tiles; see `BlendBuffer.finish_rows`."""
        buffer = self._buffer(window)
        total = self.tiles.count(window)
        with closing(self._scored(window)) as batches:
            for batch, scores in batches:
                for tile, (tile_scores, image) in zip(batch.tiles, scores, strict=True):
                    yield from buffer.finish_rows(tile.window.row)
                    tile_weights = _weights(*self._edges(tile), self.predictor.ops)
                    buffer.add(tile.window, tile.valid, tile_scores, tile_weights, image)
                if progress:
                    progress(batch.done, total)
            yield from buffer.finish_rows(window.row_stop)
        if progress:
            progress(total, total)

    def _buffer(self, window: Window) -> BlendBuffer | ClassBuffer:
        classes, ops = len(self.legend), self.predictor.ops
        if self._defers_scores:
            return ClassBuffer(self.tiles, window, classes, ops)
        return BlendBuffer(
            self.tiles,
            window,
            classes,
            ops,
            needs_scores=self._needs_scores,
            needs_agreement=needs_agreement(self.rasters),
            image_bands=0 if self.crf is None else len(self.scene.bands),
        )

    def _encoded(self, window: Window, count: int, finished: BlendedRows | None) -> Rows:
        """Return finished rows as each raster stores them."""
        if finished is None:
            return {raster.name: raster.blank(count, window.width) for raster in self.rasters}
        rows = MapRows(finished, self.confidence)
        return {raster.name: encode_output(raster, rows, self.legend) for raster in self.rasters}

    @property
    def _needs_scores(self) -> bool:
        return self.crf is not None or bool(self.confidence.limits) or needs_scores(self.rasters)

    @property
    def _defers_scores(self) -> bool:
        """True if scores are computed where tiles do not agree."""
        return isinstance(self.predictor.ops, NumbaOps) and not self._needs_scores and holds_less_than_sums(self.tiles)

    def _scored(self, window: Window) -> Generator[tuple[Batch, list[ScoredTile]], None, None]:
        """Yield the batches in the order of their tiles, with the scores of each tile, and its image for a CRF."""
        with (
            self.predictor.one_thread_each(),
            ThreadPoolExecutor(self.threads, thread_name_prefix="geopsp-network") as pool,
            closing(self._batches(window)) as batches,
            closing(map_ordered(pool, self._predict, batches, in_flight=self.threads + 2)) as scored,
        ):
            yield from scored

    def _predict(self, batch: Batch) -> tuple[Batch, list[ScoredTile]]:
        logits = self.predictor([tile.data for tile in batch.tiles], [tile.valid for tile in batch.tiles])
        return batch, [
            (self._scores(tile, tile_logits), self._image(tile))
            for tile, tile_logits in zip(batch.tiles, logits, strict=True)
        ]

    def _scores(self, tile: Tile, logits: Array) -> TileResult:
        edges = self._edges(tile)
        if self._defers_scores:
            return classify_tile(logits, edges)
        return score_tile(logits, edges, self.predictor.ops, everywhere=self._needs_scores)

    def _image(self, tile: Tile) -> Array | None:
        """Return the normalised bands of a tile, (bands, s, s), on the device; None without a CRF."""
        if self.crf is None:
            return None
        ops, side = self.predictor.ops, tile.valid.shape[0]
        image = ops.image(len(tile.data), side)
        ops.normalise(tile.data, tile.valid, image, ops.zeros((side, side), "float32"))
        return image

    def _edges(self, tile: Tile) -> tuple[bytes, bytes]:
        return self.tiles.edges(tile.window.row, tile.window.col)

    def _batches(self, window: Window) -> Generator[Batch, None, None]:
        """Yield the tiles with a valid pixel, as many at a time as the network takes."""
        with closing(self._tiles(window)) as tiles:
            numbered = ((tile, number) for number, tile in enumerate(tiles, 1) if tile is not None)
            while found := list(islice(numbered, self.predictor.batch_size)):
                yield Batch([tile for tile, _ in found], found[-1][1])

    def _tiles(self, window: Window) -> Generator[Tile | None, None, None]:
        """Yield the tiles that touch a window, in order; None for one without a valid pixel."""
        size = self.tiles.size
        with closing(prefetch(self._read(window))) as rows:
            for row, cols, pieces in rows:
                for col in cols:
                    columns = slice(col - cols[0], col - cols[0] + size)
                    valid = np.concatenate([piece_valid[:, columns] for _, piece_valid in pieces])
                    if valid.any():
                        data = np.concatenate([piece_data[..., columns] for piece_data, _ in pieces], axis=-2)
                        yield Tile(Window(col, row, size, size), data, valid)
                    else:
                        yield None

    def _read(self, window: Window) -> Iterator[tuple[int, list[int], list[ReadRows]]]:
        """Yield for each row of tiles its first row, their first columns, and pixels and valid mask of all of them.

        The rows of pixels and mask may be in several pieces below each other.
        """
        with ThreadPoolExecutor(READERS, thread_name_prefix="geopsp-read") as pool:
            buffer: RowBuffer | None = None
            for row, cols in self.tiles.tiles(window):
                if buffer is None:
                    buffer = self._row_buffer(range(cols[0], cols[-1] + self.tiles.size), pool)
                yield row, cols, buffer.pieces(row, row + self.tiles.size)

    def _row_buffer(self, columns: range, pool: Executor) -> RowBuffer:
        def read(first: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
            window = Window(columns.start, first, len(columns), stop - first)
            data, valid = read_parallel(self.scene, window, pool)
            if self.area is not None and valid.any():
                valid &= self.area.inside(self.scene.grid.crop(window))
            return data, valid

        return RowBuffer(read, block=min(self.scene.block_shape[0], MAX_BLOCK_ROWS))


@lru_cache(maxsize=32)
def _weights(down: bytes, across: bytes, ops: TileOps) -> Array:
    return ops.from_numpy(weights(down, across))
