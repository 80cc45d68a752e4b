"""The work on every pixel of a tile as tensor operations, for GPUs."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Executor
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from geopsp.core.bands import Normalization
from geopsp.inference.batch_ring import BatchRing
from geopsp.inference.tile_plan import weights
from geopsp.models.calibration_torch import scaled_softmax
from geopsp.models.crf import CRFParameters
from geopsp.models.host_copy import HostCopy
from geopsp.models.mean_field_torch import mean_field

ALL_ROWS = 1 << 30


class TorchOps:
    """`TileOps` on any device, the CPU included, on tensors."""

    def __init__(self, device: torch.device, normalization: Normalization) -> None:
        self.device = device
        self._ring = BatchRing(device)
        self._weights: dict[tuple[bytes, bytes], Tensor] = {}
        self._tables: dict[tuple[str, bytes], Tensor] = {}
        mean, scale = normalization.mean, 1 / normalization.std
        self._mean, self._scale = (torch.from_numpy(line).view(-1, 1, 1).to(device) for line in (mean, scale))

    def load(
        self, data: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], size: int
    ) -> tuple[Tensor, Tensor]:
        """Bring a batch of tiles to the device and normalise it, as `Normalization` does in training.

        Args:
            data: (bands, s, s) pixels of any type for each tile.
            valid: (s, s) for each tile.
            size: Tiles of the batch; those that are missing are not valid.

        Returns:
            (size, bands, s, s) float32, channels last, 0 where invalid; (size, 1, s, s) float32, 1 where valid, else 0.
        """
        pixels, known = self._ring.send(data, valid, size)
        known = known[:, None]
        image = pixels.to(torch.float32, memory_format=torch.channels_last).sub_(self._mean).mul_(self._scale)
        return image.masked_fill_(~known, 0), known.to(torch.float32)

    def weights(self, down: bytes, across: bytes) -> Tensor:
        """Return the (s, s) int32 weights of a tile; see `tile_plan.weights`."""
        if (down, across) not in self._weights:
            self._weights[down, across] = self.from_numpy(weights(down, across))
        return self._weights[down, across]

    def argmax(self, values: Tensor, index: Tensor) -> None:
        """Write the channel of the largest value; see `TileOps`."""
        index.copy_(values.argmax(dim=0))

    def total(self, values: Tensor) -> Tensor:
        return values.sum(dim=0, dtype=torch.int32)

    def largest(self, values: Tensor) -> Tensor:
        return values.amax(dim=0, keepdim=True)

    def fractions(self, values: Tensor, one: int) -> Tensor:
        return values / one

    def calibrated(self, values: Tensor, one: int, weights: NDArray[np.float32], biases: NDArray[np.float32]) -> Tensor:
        """Return calibrated probabilities; see `TileOps`."""
        scales, offsets = (self._table(line).view(-1, 1, 1) for line in (weights, biases))
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

    def lookup(self, table: NDArray[np.uint8], index: Tensor) -> Tensor:
        return self._table(table)[index.int()]

    def where(self, condition: Tensor, value: int, others: Tensor) -> Tensor:
        return others.masked_fill(condition, value)

    def cast(self, values: Tensor, dtype: str) -> Tensor:
        return values.to(getattr(torch, dtype))

    def to_numpy(self, values: Tensor) -> NDArray[Any]:
        found: NDArray[Any] = values.cpu().numpy()
        return found

    def host_copy(self, values: Tensor) -> Callable[[], NDArray[Any]]:
        return HostCopy(values).wait

    def _table(self, table: NDArray[Any]) -> Tensor:
        """Return a short array on the device; sending it waits for the device, so it is kept."""
        key = table.dtype.name, table.tobytes()
        if key not in self._tables:
            self._tables[key] = self.from_numpy(table)
        return self._tables[key]

    def rows_at_once(self, bytes_per_row: int) -> int:
        """Return all rows: a GPU is slower with small pieces."""
        return ALL_ROWS
