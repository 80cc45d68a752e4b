"""The network in PyTorch: normalise, batch, augment."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geopsp.inference.predictor import SYMMETRIES, TilePredictor
from geopsp.inference.tile_ops import Array, TileOps, tile_ops
from geopsp.models.network import mask_channels
from geopsp.models.saved_model import TrainedModel

OUT_OF_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""Messages of torch where the CPU's memory is too small, or that of a device without an error class of its own."""


class TorchPredictor(TilePredictor):
    """Logits of a network of PyTorch."""

    device: torch.device

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
            batch_size: Tiles in a batch.
            bf16: True runs the network in bfloat16.
            test_time_augmentation: True takes the mean over the eight symmetries of a tile.
            excluded_channels: Channels that are never predicted.
            compiled: True compiles the network.
            ops: None: as suits the device.
        """
        ops = ops or tile_ops(device, model.normalization)
        super().__init__(device, ops, batch_size=batch_size, excluded_channels=excluded_channels)
        self.bf16, self.augmented = bf16, test_time_augmentation
        network: nn.Module = model.network.to(device).to(memory_format=torch.channels_last).eval()
        self.network: Callable[[Tensor, Tensor], Tensor] = torch.compile(network) if compiled else network

    @torch.inference_mode()
    def _logits(self, data: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], size: int) -> Array:
        image, mask = self._batch(data, valid, size)
        if not self.augmented:
            return self.ops.from_tensor(self._forward(image, mask)[: len(data)])
        total = torch.zeros((), device=self.device)
        for turns, flip in SYMMETRIES:
            logits = self._forward(_transformed(image, turns, flip=flip), _transformed(mask, turns, flip=flip))
            total = total + _transformed_back(logits.softmax(dim=1), turns, flip=flip)
        return self.ops.from_tensor(total[: len(data)].log())

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
        mask = torch.empty(size, 1, side, side, device=self.device)
        image[len(data) :], mask[len(data) :] = 0, 0
        for number, (pixels, tile_valid) in enumerate(zip(data, valid, strict=True)):
            shown, known = (self.ops.from_tensor(tensor) for tensor in (image[number], mask[number, 0]))
            self.ops.normalise(pixels, tile_valid, shown, known)
        return image, mask

    def _is_out_of_memory(self, error: Exception) -> bool:
        is_known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        return is_known or any(words in str(error).lower() for words in OUT_OF_MEMORY)

    def _free_memory(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    @contextmanager
    def one_thread_each(self) -> Iterator[None]:
        """On the CPU, run each call in one thread; see `TilePredictor`."""
        before = torch.get_num_threads()
        if self.device.type == "cpu":
            torch.set_num_threads(1)
        try:
            yield
        finally:
            torch.set_num_threads(before)


def _transformed(image: Tensor, turns: int, *, flip: bool) -> Tensor:
    """Mirror (..., s, s) if asked, then rotate it by quarter turns."""
    return torch.rot90(image.flip(-1) if flip else image, turns, (-2, -1)) if turns or flip else image


def _transformed_back(image: Tensor, turns: int, *, flip: bool) -> Tensor:
    image = torch.rot90(image, -turns, (-2, -1)) if turns else image
    return image.flip(-1) if flip else image
