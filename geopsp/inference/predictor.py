"""The network as a map needs it: raw pixels of tiles in, scores of the classes out."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geopsp.errors import OptionError
from geopsp.inference import kernels
from geopsp.models.network import mask_channels
from geopsp.models.saved_model import TrainedModel

SYMMETRIES = tuple((turns, flip) for turns in range(4) for flip in (False, True))
"""Quarter turns, and whether a tile is mirrored first: all eight ways to lay a square onto itself."""


TORCH_DTYPES = {"uint8", "int8", "int16", "uint16", "int32", "float32"}
"""Types of pixels that torch takes on all devices."""


NO_MEMORY = ("can't allocate memory", "not enough memory", "out of memory")
"""What torch says if the CPU's memory is too small, or a device's that has no error class of its own."""


class TilePredictor:
    """Scores of the classes at each pixel of a tile; safe to call from several threads."""

    def __init__(
        self,
        model: TrainedModel,
        device: torch.device,
        *,
        batch_size: int = 1,
        bf16: bool = False,
        test_time_augmentation: bool = False,
        unwanted: Sequence[int] = (),
        compiled: bool = False,
    ) -> None:
        """The network lies on the device.

        Args:
            model: Its network is moved.
            device: Where it runs.
            batch_size: Tiles at a time, always so many: what is missing is filled up, for a tile's result depends on
                the shape of the batch, in its last bits. Halved as often as memory runs out.
            bf16: True runs it in bfloat16.
            test_time_augmentation: True takes the mean over the eight symmetries of a tile.
            unwanted: Channels that are never predicted.
            compiled: True compiles the network.
        """
        self.device, self.batch_size, self.bf16 = device, batch_size, bf16
        self.augmented = test_time_augmentation
        self.unwanted = list(unwanted)
        network: nn.Module = model.network.to(device).to(memory_format=torch.channels_last).eval()
        self.network: Callable[[Tensor, Tensor], Tensor] = torch.compile(network) if compiled else network
        normalization = model.normalization
        self._mean, self._scale = normalization.mean, 1 / normalization.std
        self.mean, self.scale = (torch.from_numpy(line).view(-1, 1, 1).to(device) for line in (self._mean, self._scale))
        self._lock = threading.Lock()

    @torch.inference_mode()
    def __call__(self, data: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]]) -> Tensor:
        """Tiles, (bands, s, s) pixels of any type and (s, s) validity each -> (n, classes, s, s) logits.

        If augmented, they are those of the mean probabilities.

        Raises:
            OptionError: if there is not memory enough for a single tile.
        """
        parts, start = [], 0
        while start < len(data):
            size = self.batch_size
            chosen = slice(start, start + size)
            try:
                parts.append(self._scores(data[chosen], valid[chosen], size))
            except (torch.OutOfMemoryError, RuntimeError, MemoryError) as error:
                self._halve(size, error)
                continue
            start += size
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def _halve(self, size: int, error: Exception) -> None:
        """Fewer tiles are shown at a time from now on."""
        known = isinstance(error, torch.OutOfMemoryError | MemoryError)
        if not known and not any(words in str(error).lower() for words in NO_MEMORY):
            raise error
        if size == 1:
            raise OptionError(
                f"The memory of {self.device} is too small for a single tile. Use a device with more (device=, "
                "--device), or a smaller tile_size (--tile-size), which suits the model less."
            ) from error
        with self._lock:
            self.batch_size = min(self.batch_size, size // 2)
        if self.device.type == "cuda":
            torch.cuda.empty_cache()

    def _scores(self, data: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], size: int) -> Tensor:
        image, mask = self._loaded(data, valid, size)
        if not self.augmented:
            return self._forward(image, mask)[: len(data)]
        total = torch.zeros((), device=self.device)
        for turns, flip in SYMMETRIES:
            logits = self._forward(_turned(image, turns, flip=flip), _turned(mask, turns, flip=flip))
            total = total + _turned_back(logits.softmax(dim=1), turns, flip=flip)
        return total[: len(data)].log()

    def _forward(self, image: Tensor, mask: Tensor) -> Tensor:
        """(n, classes, s, s) logits, float32."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            logits = self.network(image.contiguous(memory_format=torch.channels_last), mask)
        return mask_channels(logits.float(), self.unwanted)

    def _loaded(
        self, data: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], size: int
    ) -> tuple[Tensor, Tensor]:
        """(size, bands, s, s) normalised on the device, as `Normalization` does it, and (size, 1, s, s) validity."""
        bands, side = data[0].shape[0], data[0].shape[-1]
        shape = (size, bands, side, side)
        image = torch.empty(shape, device=self.device, memory_format=torch.channels_last)
        mask = torch.zeros(size, 1, side, side, device=self.device)
        image[len(data) :] = 0
        put = self._compiled if kernels.use_numba(self.device.type) else self._by_torch
        for number, (pixels, seen) in enumerate(zip(data, valid, strict=True)):
            put(pixels, seen, image[number], mask[number, 0])
        return image, mask

    def _compiled(self, pixels: NDArray[Any], seen: NDArray[np.bool_], image: Tensor, mask: Tensor) -> None:
        known = np.ascontiguousarray(pixels, np.float32 if pixels.dtype == np.float16 else None)
        arrays = known, np.ascontiguousarray(seen), self._mean, self._scale
        kernels.normalise(*arrays, image.permute(1, 2, 0).numpy(), mask.numpy())

    def _by_torch(self, pixels: NDArray[Any], seen: NDArray[np.bool_], image: Tensor, mask: Tensor) -> None:
        whole = bool(seen.all())
        known = pixels if whole else np.where(seen, pixels, 0)  # nodata may not fit float32
        if known.dtype.name not in TORCH_DTYPES:
            known = known.astype(np.float32)
        mask[:] = 1 if whole else self._sent(seen)
        image[:] = self._sent(known).to(torch.float32, copy=True).sub_(self.mean).mul_(self.scale)
        if not whole:
            image.mul_(mask)

    def _sent(self, array: NDArray[Any]) -> Tensor:
        tensor = torch.from_numpy(np.ascontiguousarray(array))
        if self.device.type != "cuda":
            return tensor.to(self.device)
        return tensor.pin_memory().to(self.device, non_blocking=True)


def _turned(image: Tensor, turns: int, *, flip: bool) -> Tensor:
    """(..., s, s) mirrored, if so, then turned by quarters."""
    return torch.rot90(image.flip(-1) if flip else image, turns, (-2, -1)) if turns or flip else image


def _turned_back(image: Tensor, turns: int, *, flip: bool) -> Tensor:
    image = torch.rot90(image, -turns, (-2, -1)) if turns else image
    return image.flip(-1) if flip else image
