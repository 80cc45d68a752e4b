"""An array in a mapped file, which needs no memory while it is not used."""

from __future__ import annotations

import mmap
import os
import shutil
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from geopsp.errors import OutputError


class DiskArray:
    """An array in a file of its own, which may grow."""

    def __init__(self, path: Path, dtype: DTypeLike, shape: tuple[int, ...] = (0,)) -> None:
        """Make the file, of zeros.

        Raises:
            OSError: if the disk has no room for it.
            OutputError: likewise, where only the free space can be asked for.
        """
        self.path, self._dtype = path, np.dtype(dtype)
        self._map: mmap.mmap | None = None
        self.array: NDArray[Any] = np.empty(0, self._dtype)
        path.touch(exist_ok=False)
        self._resize(shape)

    def grow(self, count: int, value: int) -> None:
        """Append entries of one value. Earlier views of `array` still show the same file."""
        if not count:
            return
        size = len(self.array)
        self._resize((size + count, *self.array.shape[1:]))
        self.array[size:] = value

    def release(self) -> None:
        """Give up the memory of all pages, which are read from the file when they are used again."""
        if self._map is not None and hasattr(mmap, "MADV_DONTNEED"):
            self._map.madvise(mmap.MADV_DONTNEED)

    def _resize(self, shape: tuple[int, ...]) -> None:
        """Reserve the disk space, then map it: a program that writes to a mapped file dies if the disk fills up."""
        size = int(np.prod(shape)) * self._dtype.itemsize
        if not size:
            self.array = np.empty(shape, self._dtype)
            return
        with self.path.open("r+b") as file:
            old = os.fstat(file.fileno()).st_size
            if hasattr(os, "posix_fallocate"):
                os.posix_fallocate(file.fileno(), old, size - old)
            elif shutil.disk_usage(self.path.parent).free < size - old:
                raise OutputError(
                    f"{size / 1e6:,.0f} MB of disk space are needed in {self.path.parent}. Free some space."
                )
            file.truncate(size)
            self._map = mapped = mmap.mmap(file.fileno(), size)
        self.array = np.frombuffer(mapped, self._dtype).reshape(shape)
