"""Batches of tiles on their way to a GPU: copied once, into pinned memory, and sent while the last one is computed.

A few buffers are used in turn, so that one is filled while others are still sent. Pixels travel in the image's own
type, with their valid mask behind them: one transfer a batch, on a stream of its own.
"""

from __future__ import annotations

import math
import threading
from collections.abc import Sequence
from itertools import cycle
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

SLOTS = 3
"""Buffers of a ring: one that is filled, one that is sent, one whose batch is computed."""


SENT_TYPES = {"uint8", "int8", "int16", "uint16", "int32", "float16", "float32"}
"""Types of pixels that torch takes on all devices; others are sent as float32."""


class BatchRing:
    """Sends batches of tiles to a device; safe to call from several threads."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        if device.type == "cuda":
            stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
            slots: Sequence[_Slot] = [_PinnedSlot(device, stream) for _ in range(SLOTS)]
        else:
            slots = [_Slot(device) for _ in range(SLOTS)]
        self._slots = cycle(slots)
        self._lock = threading.Lock()

    def send(
        self, data: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], size: int
    ) -> tuple[Tensor, Tensor]:
        """Return pixels, (size, bands, s, s), and their valid mask, (size, s, s) bool, on the device.

        Args:
            data: (bands, s, s) of each tile.
            valid: (s, s) of each tile.
            size: Tiles of the batch; those that are missing are not valid, and their pixels are any.
        """
        dtype = data[0].dtype if data[0].dtype.name in SENT_TYPES else np.dtype(np.float32)
        shape, mask_shape = (size, *data[0].shape), (size, *valid[0].shape)
        num_bytes = math.prod(shape) * dtype.itemsize
        with self._lock:
            slot = next(self._slots)
            buffer = slot.empty(num_bytes + math.prod(mask_shape))
            pixels = buffer[:num_bytes].view(dtype).reshape(shape)
            mask = buffer[num_bytes:].view(np.bool_).reshape(mask_shape)
            with np.errstate(over="ignore", invalid="ignore"):  # nodata may not fit float32
                for number, (tile, tile_valid) in enumerate(zip(data, valid, strict=True)):
                    np.copyto(pixels[number], tile, casting="unsafe")
                    mask[number] = tile_valid
            mask[len(data) :] = False
            sent = slot.send(len(buffer))
        torch_dtype: torch.dtype = getattr(torch, dtype.name)
        return sent[:num_bytes].view(torch_dtype).view(shape), sent[num_bytes:].view(torch.bool).view(mask_shape)


class _Slot:
    """A buffer in the main memory, for devices that take it as it is."""

    def __init__(self, device: torch.device) -> None:
        self.device, self._bytes = device, self._allocate(0)

    def _allocate(self, num_bytes: int) -> Tensor:
        return torch.empty(num_bytes, dtype=torch.uint8)

    def empty(self, num_bytes: int) -> NDArray[np.uint8]:
        """Return the buffer as bytes that may be overwritten."""
        if len(self._bytes) < num_bytes:
            self._bytes = self._allocate(num_bytes)
        found: NDArray[np.uint8] = self._bytes[:num_bytes].numpy()
        return found

    def send(self, num_bytes: int) -> Tensor:
        """Return the bytes on the device."""
        return self._bytes[:num_bytes].to(self.device, copy=True)


class _PinnedSlot(_Slot):
    """A buffer that a GPU reads by itself, while it computes."""

    def __init__(self, device: torch.device, stream: torch.cuda.Stream) -> None:
        super().__init__(device)
        self._stream, self._sent = stream, torch.cuda.Event()  # type: ignore[no-untyped-call]

    def _allocate(self, num_bytes: int) -> Tensor:
        return torch.empty(num_bytes, dtype=torch.uint8, pin_memory=True)

    def empty(self, num_bytes: int) -> NDArray[np.uint8]:
        """Wait until the last batch of this buffer has been read; see `_Slot`."""
        self._sent.synchronize()
        return super().empty(num_bytes)

    def send(self, num_bytes: int) -> Tensor:
        """Return the bytes on the device, where they are before what this thread computes next."""
        computing = torch.cuda.current_stream(self.device)
        with torch.cuda.stream(self._stream):
            sent = self._bytes[:num_bytes].to(self.device, non_blocking=True)
            self._sent.record(self._stream)
        computing.wait_event(self._sent)
        sent.record_stream(computing)
        return sent
