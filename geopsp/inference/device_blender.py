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
from geopsp.inference.kernels_torch import TorchOps
from geopsp.inference.rolling_rows import BlendedRows, RollingRows
from geopsp.inference.tile_batch import Batch
from geopsp.inference.tile_ops import Array
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


class DeviceBlender(RollingRows):
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
        super().__init__(plan, window, ops)
        self._ops: TorchOps = ops
        self.sums = ops.zeros((classes, *self.shape))
        self.smallest = ops.zeros((classes, *self.shape)) + SCORE_ONE if needs_agreement else None
        self.image = ops.zeros((image_bands, *self.shape), "float32") if image_bands else None
        self._plan = plan

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
        placed = self._place(tile, valid)
        if placed is None:
            return
        target, source = placed
        weights = self._ops.weights(*self._plan.edges(tile.row, tile.col))
        found = scores[:, *source]
        self.sums[:, *target].addcmul_(found, weights[source])
        if self.smallest is not None:
            smallest = self.smallest[:, *target]
            torch.minimum(smallest, found, out=smallest)
        if self.image is not None and image is not None:
            self.image[:, *target] = image[:, *source]

    def _finished(self, count: int) -> Iterator[tuple[int, BlendedRows]]:
        step = max(1, PIECE_BYTES // (4 * len(self.sums) * self.window.width))
        for first in range(0, count, step):
            rows = slice(first, min(first + step, count))
            sums = self.sums[:, rows]
            agreement = None if self.smallest is None else self._ops.total(self.smallest[:, rows])
            image = None if self.image is None else self.image[:, rows]
            index = sums.argmax(dim=0).to(torch.uint8)  # of equal ones the first
            yield rows.stop - first, BlendedRows(index, self.valid[rows].copy(), sums, agreement, self._ops, image)

    def _stores(self) -> Iterable[tuple[Array, int]]:
        stores = (self.sums, 0), (self.smallest, SCORE_ONE), (self.image, 0)
        return [(store, empty) for store, empty in stores if store is not None]


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
