"""Finished rows of a window of the map, top down, in bounded memory.

Rows of the scene are read ahead, each block once. Tiles go through the network in batches, on the CPU each batch in a
thread of its own. They come back in order and are blended; rows that no later tile overlaps are yielded.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass, field
from functools import lru_cache, partial
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Window
from geopsp.core.legend import Legend
from geopsp.core.parallel import cpu_count, map_ordered, prefetch
from geopsp.core.progress import Progress
from geopsp.inference.blend import BlendBuffer
from geopsp.inference.class_buffer import ClassBuffer, classify_tile, holds_less_than_sums
from geopsp.inference.confidence import ConfidenceRules, MapRows
from geopsp.inference.crf_rows import refine_rows
from geopsp.inference.kernels_numba import NumbaOps
from geopsp.inference.outputs import encode_output, needs_agreement, needs_scores
from geopsp.inference.predictor import TilePredictor
from geopsp.inference.rolling_rows import BlendedRows
from geopsp.inference.tile_batch import Batch, Tile
from geopsp.inference.tile_ops import Array, Device
from geopsp.inference.tile_plan import TilePlan, weights
from geopsp.inference.tile_scores import score_tile
from geopsp.models.crf import CRFParameters
from geopsp.raster.cog.raster_spec import RasterSpec
from geopsp.raster.row_buffer import READ_SIZE, RowBuffer, read_parallel
from geopsp.raster.row_buffer import Rows as ReadRows
from geopsp.raster.scene import Scene

if TYPE_CHECKING:
    from geopsp.labels.area import AreaOfInterest

READERS, MAX_READERS = 2, 8
"""Threads that read: so many where the CPU computes, too, and at most where a device computes."""


SMALL_READ_SIZE = 512
"""Side in pixels of what one of many threads reads at a time."""


MAX_BLOCK_ROWS = 1024
"""Rows that are read at a time at most, even if the blocks of a file are taller."""


Rows = dict[str, NDArray[Any]]
"""(bands, rows, cols) of each raster, by name; all of as many rows."""


TileResult: TypeAlias = Any
"""TileScores for a BlendBuffer, TileClasses for a ClassBuffer."""


ScoredTile = tuple[TileResult, Array | None]

Computed = TypeVar("Computed")


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
        ahead = 1 if self._on_device else 0  # rows that are still on their way
        waiting: deque[Callable[[], Rows]] = deque()
        with closing(self._finished(window, progress)) as pieces:
            for count, finished in pieces:
                waiting.append(self._encoded(window, count, finished))
                if len(waiting) > ahead:
                    yield waiting.popleft()()
        for rows in waiting:
            yield rows()

    @property
    def _on_device(self) -> bool:
        """True if tensors of a device are blended, not arrays."""
        return not isinstance(self.predictor.ops, NumbaOps)

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
        """Yield the weighted means of the tiles; see `RollingRows.finish_rows`."""
        ops = self.predictor.ops
        if not isinstance(ops, NumbaOps):
            yield from self._blended_on_device(window, progress)
            return
        buffer = self._buffer(window, ops)
        total = self.tiles.count(window)
        with closing(self._computed(window, partial(self._predict, ops=ops))) as batches:
            for batch, scores in batches:
                for tile, (tile_scores, image) in zip(batch.tiles, scores, strict=True):
                    yield from buffer.finish_rows(tile.window.row)
                    tile_weights = _weights(*self._edges(tile))
                    buffer.add(tile.window, tile.valid, tile_scores, tile_weights, image)
                if progress:
                    progress(batch.done, total)
            yield from buffer.finish_rows(window.row_stop)
        if progress:
            progress(total, total)

    def _blended_on_device(
        self, window: Window, progress: Progress | None
    ) -> Generator[tuple[int, BlendedRows | None], None, None]:
        """Yield the same, of tensors."""
        from geopsp.inference.device_blender import DeviceBlender, ScoredBatch, blend_on_device

        predictor: Any = self.predictor
        needs_images, agreement = self.crf is not None, needs_agreement(self.rasters)
        bands = len(self.scene.bands) if needs_images else 0
        blender = DeviceBlender(
            self.tiles, window, len(self.legend), predictor.ops, needs_agreement=agreement, image_bands=bands
        )
        compute = partial(ScoredBatch, predictor, needs_images=needs_images)
        with closing(self._computed(window, compute)) as batches:
            yield from blend_on_device(blender, batches, self.tiles.count(window), progress)

    def _buffer(self, window: Window, ops: NumbaOps) -> BlendBuffer | ClassBuffer:
        classes = len(self.legend)
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

    def _encoded(self, window: Window, count: int, finished: BlendedRows | None) -> Callable[[], Rows]:
        """Return what gives finished rows as each raster stores them."""
        if finished is None:
            return lambda: {raster.name: raster.blank(count, window.width) for raster in self.rasters}
        rows = MapRows(finished, self.confidence)
        encoded = {raster.name: encode_output(raster, rows, self.legend) for raster in self.rasters}
        return lambda: {name: finish() for name, finish in encoded.items()}

    @property
    def _needs_scores(self) -> bool:
        return self.crf is not None or bool(self.confidence.limits) or needs_scores(self.rasters)

    @property
    def _defers_scores(self) -> bool:
        """True if scores are computed where tiles do not agree."""
        return not self._needs_scores and holds_less_than_sums(self.tiles)

    def _computed(
        self, window: Window, compute: Callable[[Batch], Computed]
    ) -> Generator[tuple[Batch, Computed], None, None]:
        """Yield the batches in the order of their tiles, with what is computed of each in the network's threads."""
        with (
            self.predictor.threads(self.threads) as pool,
            closing(self._batches(window)) as batches,
            closing(
                map_ordered(pool, lambda batch: (batch, compute(batch)), batches, in_flight=self.threads + 2)
            ) as computed,
        ):
            yield from computed

    def _predict(self, batch: Batch, ops: NumbaOps) -> list[ScoredTile]:
        """Return the scores of each tile, and its image for a CRF."""
        logits = self.predictor([tile.data for tile in batch.tiles], [tile.valid for tile in batch.tiles])
        return [
            (self._scores(tile, tile_logits, ops), self._image(tile, ops))
            for tile, tile_logits in zip(batch.tiles, logits, strict=True)
        ]

    def _scores(self, tile: Tile, logits: Array, ops: NumbaOps) -> TileResult:
        edges = self._edges(tile)
        if self._defers_scores:
            return classify_tile(logits, edges)
        return score_tile(logits, edges, ops, everywhere=self._needs_scores)

    def _image(self, tile: Tile, ops: NumbaOps) -> Array | None:
        """Return the normalised bands of a tile, (bands, s, s); None without a CRF."""
        if self.crf is None:
            return None
        side = tile.valid.shape[0]
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
        readers = num_readers(self.predictor.device)
        with ThreadPoolExecutor(readers, thread_name_prefix="geopsp-read") as pool:
            buffer: RowBuffer | None = None
            for row, cols in self.tiles.tiles(window):
                if buffer is None:
                    buffer = self._row_buffer(range(cols[0], cols[-1] + self.tiles.size), pool)
                yield row, cols, buffer.pieces(row, row + self.tiles.size)

    def _row_buffer(self, columns: range, pool: Executor) -> RowBuffer:
        side = READ_SIZE if self.predictor.device.type == "cpu" else SMALL_READ_SIZE

        def read(first: int, stop: int) -> tuple[NDArray[Any], NDArray[np.bool_]]:
            window = Window(columns.start, first, len(columns), stop - first)
            data, valid = read_parallel(self.scene, window, pool, side=side)
            if self.area is not None and valid.any():
                valid &= self.area.inside(self.scene.grid.crop(window))
            return data, valid

        return RowBuffer(read, block=min(self.scene.block_shape[0], MAX_BLOCK_ROWS))


def num_readers(device: Device) -> int:
    """Return the threads that read: where a device computes the CPU's cores have little else to do."""
    return READERS if device.type == "cpu" else max(READERS, min(MAX_READERS, cpu_count() - 2))


@lru_cache(maxsize=32)
def _weights(down: bytes, across: bytes) -> Array:
    return weights(down, across)
