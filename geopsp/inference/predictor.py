"""The network as a map needs it: raw pixels of tiles in, logits out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geopsp.errors import OptionError
from geopsp.inference.tile_ops import TileOps, tile_ops
from geopsp.models.network import mask_channels
from geopsp.models.saved_model import TrainedModel

SYMMETRIES = tuple((turns, flip) for turns in range(4) for flip in (False, True))
"""Quarter turns, and whether a tile is mirrored first: all eight symmetries of a square."""


OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""Messages of torch where the CPU's memory is too small, or that of a device without an error class of its own."""


class TilePredictor:
    """Logits of the classes at each pixel of a tile; safe to call from several threads."""

    def __init__(
        self,
        model: TrainedModel,
        device: torch.device,
        *,
        batch_size: int = 1,
        bf16: bool = False,
        test_time_augmentation: bool = False,
        excluded_channels: Sequence[int] = (),
        compiled: bool = False,
        ops: TileOps | None = None,
    ) -> None:
        """Move the network to the device.

        Args:
            model: Its network is moved.
            device: Where it runs.
            batch_size: Tiles in a batch, which is filled up where tiles are missing: the last bits of a tile's result
                depend on the shape of its batch. Halved as often as memory runs out.
            bf16: True runs the network in bfloat16.
            test_time_augmentation: True takes the mean over the eight symmetries of a tile.
            excluded_channels: Channels that are never predicted.
            compiled: True compiles the network.
            ops: None: as suits the device.
        """
        self.device, self.batch_size, self.bf16 = device, batch_size, bf16
        self.ops = ops or tile_ops(device, model.normalization)
        self.augmented = test_time_augmentation
        self.excluded_channels = list(excluded_channels)
        network: nn.Module = model.network.to(device).to(memory_format=torch.channels_last).eval()
        self.network: Callable[[Tensor, Tensor], Tensor] = torch.compile(network) if compiled else network
        self._lock = threading.Lock()

    @torch.inference_mode()
    def __call__(self, data: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]]) -> Tensor:
        """Compute the logits of tiles, (n, classes, s, s); if augmented, those of the mean probabilities.

        Args:
            data: (bands, s, s) pixels of any type for each tile.
            valid: (s, s) for each tile.

        Raises:
            OptionError: if there is not enough memory for a single tile.
        """
        parts, start = [], 0
        while start < len(data):
            size = self.batch_size
            chosen = slice(start, start + size)
            try:
                parts.append(self._logits(data[chosen], valid[chosen], size))
            except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
                self._halve_batch(size, error)
                continue
            start += size
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _halve_batch(self, size: int, error: Exception) -> None:
        """Take fewer tiles at a time from now on; raise the error if it is not about memory."""
        is_known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not is_known and not any(words in str(error).lower() for words in OUT_OF_MEMORY):
            raise error
        if size == 1:
            raise OptionError(
                f"The memory of {self.device} is too small for a single tile. Use a `device` with more memory, or a "
                "smaller `tile_size`, which suits the model less."
            ) from error
        with self._lock:
            self.batch_size = min(self.batch_size, size // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _logits(self, data: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], size: int) -> Tensor:
        image, mask = self._batch(data, valid, size)
        if not self.augmented:
            return self._forward(image, mask)[: len(data)]
        total = torch.zeros((), device=self.device)
        for turns, flip in SYMMETRIES:
            logits = self._forward(_transformed(image, turns, flip=flip), _transformed(mask, turns, flip=flip))
            total = total + _transformed_back(logits.softmax(dim=1), turns, flip=flip)
        return total[: len(data)].log()

    def _forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """Run the network; return (n, classes, s, s) logits, float32."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.network(image.contiguous(memory_format=torch.channels_last), mask)
        return mask_channels(logits.float(), self.excluded_channels)

    def _batch(
        self, data: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], size: int
    ) -> tuple[Tensor, Tensor]:
        """Return normalised pixels, (size, bands, s, s), and their valid mask, (size, 1, s, s), on the device."""
        bands, side = data[0].shape[0], data[0].shape[-1]
        shape = (size, bands, side, side)
        image = torch.empty(shape, device=self.device, memory_format=torch.channels_last)
        mask = torch.zeros(size, 1, side, side, device=self.device)
        image[len(data) :] = 0
        for number, (pixels, tile_valid) in enumerate(zip(data, valid, strict=True)):
            self.ops.normalise(pixels, tile_valid, image[number], mask[number, 0])
        return image, mask


def _transformed(image: Tensor, turns: int, *, flip: bool) -> Tensor:
    """Mirror (..., s, s) if asked, then rotate it by quarter turns."""
    return torch.rot90(image.flip(-1) if flip else image, turns, (-2, -1)) if turns or flip else image


def _transformed_back(image: Tensor, turns: int, *, flip: bool) -> Tensor:
    image = torch.rot90(image, -turns, (-2, -1)) if turns else image
    return image.flip(-1) if flip else image
