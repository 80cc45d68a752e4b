"""The weighted mean of overlapping tiles on a GPU, a batch at a time: scores of a batch in, finished rows out.

It is the same mean as that of `blend`, of the same whole numbers, so that a map has the same classes. But there a tile
has scores only where it overlaps others, as this saves the CPU time; here all pixels have them, as what counts is the
number of operations that are started. Nothing here waits for the device.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geopsp.core.grid import Window
from geopsp.core.progress import Progress
from geopsp.errors import ModelError
from geopsp.inference.blend import BlendedRows
from geopsp.inference.kernels_torch import TorchOps
from geopsp.inference.tile_batch import Batch
from geopsp.inference.tile_plan import SCORE_ONE, TilePlan
from geopsp.inference.tile_scores import NOT_FINITE
from geopsp.inference.torch_predictor import TorchPredictor
from geopsp.models.host_copy import HostCopy

PIECE_BYTES = 2**28
"""Bytes of the sums of rows that are finished at a time."""


class ScoredBatch:
    """The scores of a batch of tiles, on the device; whether they are usable is known later."""

    def __init__(self, predictor: TorchPredictor, batch: Batch, *, needs_images: bool) -> None:
        """Start all that the device has to do.

        Args:
            predictor: Whose `ops` are of the device.
            batch: The tiles.
            needs_images: True keeps the normalised bands.
        """
        self._predictor, self._batch = predictor, batch
        data, valid = [tile.data for tile in batch.tiles], [tile.valid for tile in batch.tiles]
        self._scores, self._usable = _score(predictor.logits(data, valid))
        ops: TorchOps = predictor.ops  # type: ignore[assignment]
        self.images = ops.load(data, valid, len(data))[0] if needs_images else None
        """(n, bands, s, s) float32."""

    def scores(self) -> Tensor:
        """Return (n, classes, s, s) int32 scores as soon as the device has them; see `TileScores`.

        Raises:
            ModelError: if logits are NaN or infinite; where float16 is too small for them float32 is tried first.
        """
        if self._usable.wait():
            return self._scores
        if self._predictor.precision == "fp16":
            exact = self._predictor.in_float32()
            return ScoredBatch(exact, self._batch, needs_images=False).scores()
        raise ModelError(NOT_FINITE)


@torch.inference_mode()
def _score(logits: Tensor) -> tuple[Tensor, HostCopy]:
    """Return scores of (n, classes, s, s) float32 logits, and () bool, whether all of them are usable.

    They are not if one is NaN or +inf, or if all of a pixel are -inf.
    """
    best = logits.amax(dim=1, keepdim=True)
    usable = HostCopy(torch.isfinite(best).all())
    return logits.softmax(dim=1).mul_(SCORE_ONE - 1).add_(0.5).to(torch.int32).add_(logits == best), usable


class DeviceBlender:
    """Weighted class scores of the rows that later tiles may still overlap, on a device."""

    def __init__(
        self,
        plan: TilePlan,
        window: Window,
        classes: int,
        ops: TorchOps,
        *,
        needs_agreement: bool,
        image_bands: int = 0,
    ) -> None:
        """Make an empty buffer.

        Args:
            plan: The tiles of the map.
            window: The part of the map whose rows are blended.
            classes: Number of classes.
            ops: Of the device that the scores are on.
            needs_agreement: True also keeps how far tiles agree.
            image_bands: Bands of the image that are kept beside the scores; 0: none.
        """
        self.window, self.row, self.filled_stop = window, window.row, window.row
        self.rows = min(plan.size, window.height)
        shape = (self.rows, window.width)
        self.sums = ops.zeros((classes, *shape))
        self.smallest = ops.zeros((classes, *shape)) + SCORE_ONE if needs_agreement else None
        self.image = ops.zeros((image_bands, *shape), "float32") if image_bands else None
        self.valid = np.zeros(shape, bool)
        self._plan, self._ops = plan, ops

    def add(
        self,
        tiles: Sequence[Window],
        valid: Sequence[NDArray[np.bool_]],
        scores: Tensor,
        images: Tensor | None = None,
    ) -> Iterator[tuple[int, BlendedRows | None]]:
        """Add the tiles of a batch, and yield the rows that are finished before each of them; see `finish_rows`.

        Args:
            tiles: Their windows of the map, in order.
            valid: (s, s) of each.
            scores: (n, classes, s, s) int32.
            images: (n, bands, s, s) float32, if the buffer keeps them.
        """
        for number, tile in enumerate(tiles):
            yield from self.finish_rows(tile.row)
            self._add(tile, valid[number], scores[number], None if images is None else images[number])

    def _add(self, tile: Window, valid: NDArray[np.bool_], scores: Tensor, image: Tensor | None) -> None:
        buffer = Window(self.window.col, self.row, self.window.width, self.rows)
        part = tile.intersect(buffer)
        if part.is_empty:
            return
        target, source = part.slices(buffer), part.slices(tile)
        self.valid[target] = valid[source]
        self.filled_stop = max(self.filled_stop, part.row_stop)
        weights = self._ops.weights(*self._plan.edges(tile.row, tile.col))
        found = scores[:, *source]
        self.sums[:, *target].addcmul_(found, weights[source])
        if self.smallest is not None:
            smallest = self.smallest[:, *target]
            torch.minimum(smallest, found, out=smallest)
        if self.image is not None and image is not None:
            self.image[:, *target] = image[:, *source]

    def finish_rows(self, row: int) -> Iterator[tuple[int, BlendedRows | None]]:
        """Yield the finished rows above `row` and drop them from the buffer.

        Each item is a number of rows and their content, None where no tile was added. Start what is computed of it
        before the next one: it is a view of the buffer.
        """
        while (count := min(row - self.row, self.rows)) > 0:
            if self.filled_stop <= self.row:
                yield count, None
            else:
                step = max(1, PIECE_BYTES // (4 * len(self.sums) * self.window.width))
                for first in range(0, count, step):
                    rows = slice(first, min(first + step, count))
                    yield rows.stop - first, self._finished(rows)
                self._drop(count)
            self.row += count

    def _finished(self, rows: slice) -> BlendedRows:
        sums = self.sums[:, rows]
        agreement = None if self.smallest is None else self._ops.total(self.smallest[:, rows])
        image = None if self.image is None else self.image[:, rows]
        index = sums.argmax(dim=0).to(torch.uint8)  # of equal ones the first
        return BlendedRows(index, self.valid[rows].copy(), sums, agreement, self._ops, image)

    def _drop(self, count: int) -> None:
        """Move the rows below the first `count` up, and empty those that come into the buffer."""
        keep = self.rows - count
        for store, empty in ((self.sums, 0), (self.smallest, SCORE_ONE), (self.image, 0)):
            if store is not None:
                kept = store[:, count:]
                store[:, :keep] = kept.clone() if keep > count else kept
                store[:, keep:] = empty
        self.valid[:keep], self.valid[keep:] = self.valid[count:].copy(), False


def blend_on_device(
    blender: DeviceBlender, batches: Iterable[tuple[Batch, ScoredBatch]], total: int, progress: Progress | None
) -> Iterator[tuple[int, BlendedRows | None]]:
    """Yield the finished rows of the blender's window; while a batch is blended, the device computes the next one.

    Args:
        blender: Empty.
        batches: In the order of their tiles.
        total: Tiles of the window.
        progress: Called with the tiles that are done, and all.
    """
    for batch, scored in batches:
        windows, valid = [tile.window for tile in batch.tiles], [tile.valid for tile in batch.tiles]
        yield from blender.add(windows, valid, scored.scores(), scored.images)
        if progress:
            progress(batch.done, total)
    yield from blender.finish_rows(blender.window.row_stop)
    if progress:
        progress(total, total)
