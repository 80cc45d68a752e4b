"""A network as a map needs it: raw pixels of tiles in, logits out, whatever computes it."""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from collections.abc import Sequence
from concurrent.futures import Executor
from contextlib import AbstractContextManager
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.errors import OptionError
from geopsp.inference.tile_ops import Array, Device, TileOps

SYMMETRIES = tuple((turns, flip) for turns in range(4) for flip in (False, True))
"""Quarter turns, and whether a tile is mirrored first: all eight symmetries of a square."""


class TilePredictor(ABC):
    """Logits of the classes at each pixel of a tile; safe to call from several threads."""

    def __init__(self, device: Device, ops: TileOps, *, batch_size: int, excluded_channels: Sequence[int]) -> None:
        """Keep the options.

        Args:
            device: Where the network runs.
            ops: What works on its logits.
            batch_size: Tiles in a batch, which is filled up where tiles are missing: the last bits of a tile's result
                depend on the shape of its batch. Halved as often as memory runs out.
            excluded_channels: Channels that are never predicted.
        """
        self.device, self.ops, self.batch_size = device, ops, batch_size
        self.excluded_channels = list(excluded_channels)
        self._lock = threading.Lock()

    def __call__(self, data: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]]) -> Array:
        """Return the logits of tiles; see `logits`. Where float16 is too small for them, they are those of float32."""
        return self.logits(data, valid)

    def logits(self, data: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]]) -> Array:
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
            except (RuntimeError, MemoryError) as error:
                self._halve_batch(size, error)
                continue
            start += size
        return parts[0] if len(parts) == 1 else self.ops.concatenate(parts)

    @abstractmethod
    def _logits(self, data: Sequence[NDArray[Any]], valid: Sequence[NDArray[np.bool_]], size: int) -> Array:
        """Return the logits of at most `size` tiles; the batch is filled up to it."""

    @abstractmethod
    def _is_out_of_memory(self, error: Exception) -> bool:
        """Return whether there was not enough memory."""

    @abstractmethod
    def _free_memory(self) -> None:
        """Give back memory that is kept for later."""

    @abstractmethod
    def threads(self, count: int) -> AbstractContextManager[Executor]:
        """Yield threads in which to call this: on the CPU so many, elsewhere one.

        On the CPU each call then runs in one thread, so that several calls run side by side. This is as quick as one
        call on all threads, and the result of a tile does not depend on how many there are.
        """

    def _halve_batch(self, size: int, error: Exception) -> None:
        """Take fewer tiles at a time from now on; raise the error if it is not about memory."""
        if not self._is_out_of_memory(error):
            raise error
        if size == 1:
            raise OptionError(
                f"The memory of {self.device} is too small for a single tile. Use a `device` with more memory, or a "
                "smaller `tile_size`, which suits the model less."
            ) from error
        with self._lock:
            self.batch_size = min(self.batch_size, size // 2)
        self._free_memory()
