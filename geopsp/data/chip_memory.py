"""Decoded chips kept in memory, for chip sets that fit there."""

from __future__ import annotations

import math
import mmap
import multiprocessing
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.free_memory import available_memory
from geopsp.data.dataset import ChipFiles, ChipReader, RawChip

MEMORY_FRACTION = 0.25
"""Most of the free memory that decoded chips take."""


KEPT_FREE = 0.5
"""Part of the memory that was free at first; chips are kept only while more than that is free."""


class ChipMemory:
    """Reads chips from files once, and then from memory that processes forked later share."""

    margin = 0

    def __init__(self, files: ChipFiles) -> None:
        """Reserve addresses for all chips; each takes memory once it is read."""
        self.files = files
        side, count = files.size, len(files.images)
        self._image = _shared((count, files.bands, side, side), np.dtype(files.dtype))
        self._valid, self._codes = (_shared((count, side, side), np.dtype(kind)) for kind in (bool, np.uint8))
        self._is_kept = _shared((count,), np.dtype(bool))
        self._lock = multiprocessing.Lock()
        self._reserve = KEPT_FREE * available_memory()

    def read(self, row: int, top: int, left: int, size: int) -> RawChip:
        """Read a window, see `ChipFiles.read`."""
        with self._lock:  # so that a process that sees the mark also sees the pixels
            is_kept = bool(self._is_kept[row])
        if not is_kept:
            if available_memory() < self._reserve:
                return self.files.read(row, top, left, size)
            self._keep(row)
        rows, cols = slice(top, top + size), slice(left, left + size)
        return RawChip(self._image[row, :, rows, cols], self._valid[row, rows, cols], self._codes[row, rows, cols])

    def _keep(self, row: int) -> None:
        self._image[row], self._valid[row], self._codes[row] = self.files.read(row, 0, 0, self.files.size)
        with self._lock:
            self._is_kept[row] = True

    def __reduce__(self) -> tuple[Any, ...]:
        """Return what another process needs that is not forked: it reads the files."""
        return _the_same, (self.files,)


def keep_in_memory(files: ChipFiles) -> ChipReader:
    """Return a reader that keeps decoded chips, if all of them fit into a quarter of the free memory."""
    pixel = files.bands * np.dtype(files.dtype).itemsize + 2
    needed = len(files.images) * files.size**2 * pixel
    return ChipMemory(files) if needed <= MEMORY_FRACTION * available_memory() else files


def _the_same(files: ChipFiles) -> ChipFiles:
    return files


def _shared(shape: tuple[int, ...], kind: np.dtype[Any]) -> NDArray[Any]:
    """Return an array of zeros that forked processes share."""
    count = math.prod(shape)
    return np.frombuffer(mmap.mmap(-1, max(1, count * kind.itemsize)), kind, count).reshape(shape)
