"""The work on every pixel of a tile as tensor operations, for GPUs."""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geopsp.core.bands import Normalization
from geopsp.inference.tile_plan import SCORE_ONE, RowsCols
from geopsp.models.calibration_torch import scaled_softmax
from geopsp.models.crf import CRFParameters
from geopsp.models.mean_field_torch import mean_field

TORCH_DTYPES = {"uint8", "int8", "int16", "uint16", "int32", "float32"}
"""Types of pixels that torch takes on all devices."""


ALL_ROWS = 1 << 30


class TorchOps:
    """`TileOps` on any device, the CPU included, on tensors."""

    def __init__(self, device: torch.device, normalization: Normalization) -> None:
        self.device = device
        mean, scale = normalization.mean, 1 / normalization.std
        self._mean, self._scale = (torch.from_numpy(line).view(-1, 1, 1).to(device) for line in (mean, scale))

    def normalise(self, pixels: NDArray[Any], valid: NDArray[np.bool_], image: Tensor, mask: Tensor) -> None:
        """Normalise the pixels of a tile; see `TileOps`."""
        all_valid = bool(valid.all())
        known = pixels if all_valid else np.where(valid, pixels, 0)  # nodata may not fit float32
        if known.dtype.name not in TORCH_DTYPES:
            known = known.astype(np.float32)
        mask[:] = 1 if all_valid else self._sent(valid)
        image[:] = self._sent(known).to(torch.float32, copy=True).sub_(self._mean).mul_(self._scale)
        if not all_valid:
            image.mul_(mask)

    def image(self, bands: int, size: int) -> Tensor:
        return torch.empty(1, bands, size, size, device=self.device, memory_format=torch.channels_last)[0]

    def _sent(self, array: NDArray[Any]) -> Tensor:
        """Copy an array to the device."""
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)

    def score(
        self, logits: Tensor, interior: RowsCols, overlaps: Sequence[RowsCols]
    ) -> tuple[Tensor, list[Tensor], bool]:
        """Return classes, scores, and whether the logits are usable; see `TileOps`."""
        best = logits.amax(dim=0)
        index = torch.empty(best[interior].shape, dtype=torch.uint8, device=logits.device)
        self.argmax(logits[:, *interior], index)
        scores = [_scores(logits[:, *area], best[area]) for area in overlaps]
        return index, scores, bool(torch.isfinite(best).all())

    def add_weighted(self, sums: Tensor, target: RowsCols, scores: Tensor, weights: Tensor, source: RowsCols) -> None:
        """Add scores times weights to the sums; see `TileOps`."""
        sums[:, *target].addcmul_(scores, weights[source])

    def argmax(self, values: Tensor, index: Tensor, area: RowsCols | None = None) -> None:
        """Write the channel of the largest value; see `TileOps`."""
        if area is not None:
            values, index = values[:, *area], index[area]
        if not index.numel():
            return
        top = values.amax(dim=0)
        before = torch.ones_like(index)
        index.zero_()
        for channel in values[:-1]:  # counting those before it takes a quarter of the time of max(dim=0)
            before &= channel != top
            index += before

    def lower(self, values: Tensor, others: Tensor) -> None:
        torch.minimum(values, others, out=values)

    def total(self, values: Tensor) -> Tensor:
        return values.sum(dim=0, dtype=torch.int32)

    def largest(self, values: Tensor) -> Tensor:
        return values.amax(dim=0, keepdim=True)

    def fractions(self, values: Tensor, one: int) -> Tensor:
        return values / one

    def calibrated(self, values: Tensor, one: int, weights: NDArray[np.float32], biases: NDArray[np.float32]) -> Tensor:
        """Return calibrated probabilities; see `TileOps`."""
        scales, offsets = (torch.from_numpy(line).view(-1, 1, 1).to(self.device) for line in (weights, biases))
        predicted = values == values.amax(dim=0)  # exact, unlike fractions
        return scaled_softmax(values / one, scales, offsets, dim=0, predicted=predicted)

    def confidence(self, values: Tensor, one: int, weights: NDArray[np.float32], biases: NDArray[np.float32]) -> Tensor:
        """Return the largest calibrated probability; see `TileOps`."""
        return self.calibrated(values, one, weights, biases).amax(dim=0, keepdim=True)

    def whole_numbers(self, fractions: Tensor, one: int) -> Tensor:
        return fractions.mul(one).to(torch.int32)

    def mean_field(
        self,
        probabilities: Tensor,
        image: Tensor,
        valid: NDArray[np.bool_],
        crf: CRFParameters,
        *,
        excluded: Sequence[int],
        core: slice,
        pool: Executor | None,
    ) -> Tensor:
        """Return the probabilities of a CRF; see `models.mean_field`."""
        known = self.from_numpy(valid)
        return mean_field(probabilities, image, known, crf, excluded=excluded, core=core, pool=pool)

    def zeros(self, shape: Sequence[int], dtype: str = "int32") -> Tensor:
        return torch.zeros(tuple(shape), dtype=getattr(torch, dtype), device=self.device)

    def copy(self, values: Tensor) -> Tensor:
        return values.clone()

    def concatenate(self, arrays: Sequence[Tensor]) -> Tensor:
        return torch.cat(list(arrays))

    def from_numpy(self, array: NDArray[Any]) -> Tensor:
        return torch.from_numpy(array).to(self.device)

    def from_tensor(self, tensor: Tensor) -> Tensor:
        return tensor

    def to_numpy(self, values: Tensor, dtype: str) -> NDArray[Any]:
        smaller = values.to(torch.uint8) if dtype == "uint8" else values  # before it is sent
        found: NDArray[Any] = smaller.cpu().numpy()
        return found.astype(dtype, copy=False)

    def rows_at_once(self, bytes_per_row: int) -> int:
        """Return all rows: a GPU is slower with small pieces."""
        return ALL_ROWS


def _scores(logits: Tensor, best: Tensor) -> Tensor:
    """Return the (classes, rows, cols) int32 scores of logits whose largest, (rows, cols), is `best`."""
    return logits.softmax(dim=0).mul_(SCORE_ONE - 1).add_(0.5).to(torch.int32).add_(logits == best)
