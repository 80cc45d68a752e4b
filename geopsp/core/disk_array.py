"""Arrays in mapped files, which need no memory while they are not used."""

from __future__ import annotations

import math
import mmap
import os
import shutil
import tempfile
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from geopsp.errors import OutputError

IN_MEMORY = 2**24
"""Bytes up to which a scratch array stays in memory, where it is a little faster."""


MAPPED = 2**29
"""Bytes of files up to which their memory is not released, as that takes time."""


CHUNK = 2**20
"""Entries that are looked at before the memory of scratch arrays is released."""


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
        """Reserve the disk space, then map it."""
        size = int(np.prod(shape)) * self._dtype.itemsize
        if not size:
            self.array = np.empty(shape, self._dtype)
            return
        with self.path.open("r+b") as file:
            _reserve(file, size, self.path.parent)
            self._map = mapped = mmap.mmap(file.fileno(), size)
        self.array = np.frombuffer(mapped, self._dtype).reshape(shape)


class ScratchArrays:
    """Makes arrays of zeros: small ones in memory, others in files that vanish with them."""

    def __init__(self, folder: Path, *, in_memory: int = IN_MEMORY, mapped: int = MAPPED) -> None:
        """Make none yet.

        Args:
            folder: For the files, which have no names there.
            in_memory: Bytes up to which an array stays in memory.
            mapped: Bytes of all files up to which their memory is not released.
        """
        self.folder, self.in_memory, self._mapped = folder, in_memory, mapped
        self._maps: weakref.WeakSet[mmap.mmap] = weakref.WeakSet()

    def zeros(self, dtype: DTypeLike, *shape: int) -> NDArray[Any]:
        """Return a new array.

        Raises:
            OSError: if the disk has no room for it.
            OutputError: likewise, where only the free space can be asked for.
        """
        size = math.prod(shape) * np.dtype(dtype).itemsize
        if size <= self.in_memory:
            return np.zeros(shape, dtype)
        with self.new_file() as file:
            _reserve(file, size, self.folder)
            return self.map(file, dtype, shape)

    def full(self, dtype: DTypeLike, count: int, value: int) -> NDArray[Any]:
        """Return a new (count,) array of one value; errors as `zeros`."""
        array = self.zeros(dtype, count)
        for start, stop in self.chunks(count):
            array[start:stop] = value
        return array

    def growing(self, dtype: DTypeLike, *row: int) -> GrowingArray:
        """Return an array without rows, to which some can be added."""
        return GrowingArray(self, np.dtype(dtype), row)

    def chunks(self, count: int) -> Iterator[tuple[int, int]]:
        """Yield ranges from 0 to `count`; release the memory after each."""
        for start in range(0, count, CHUNK):
            yield start, min(start + CHUNK, count)
            self.release()

    def release(self) -> None:
        """Give up the memory of all arrays in files, if they are large; it is read from there when it is used again."""
        if hasattr(mmap, "MADV_DONTNEED") and sum(map(len, self._maps)) > self._mapped:
            for mapped in self._maps:
                mapped.madvise(mmap.MADV_DONTNEED)

    def new_file(self) -> IO[bytes]:
        return tempfile.TemporaryFile(dir=self.folder)

    def map(self, file: IO[bytes], dtype: DTypeLike, shape: tuple[int, ...]) -> NDArray[Any]:
        """Return what a file holds as an array, which keeps the file when it is closed."""
        mapped = mmap.mmap(file.fileno(), 0)
        self._maps.add(mapped)
        return np.frombuffer(mapped, dtype).reshape(shape)


class GrowingArray:
    """Rows that are added at the end; once there are many, they go to a file."""

    def __init__(self, arrays: ScratchArrays, dtype: np.dtype[Any], row: tuple[int, ...]) -> None:
        self._arrays, self._dtype, self._row = arrays, dtype, row
        self._file: IO[bytes] | None = None
        self._parts: list[NDArray[Any]] = []
        self._bytes_waiting, self._length = 0, 0

    def __len__(self) -> int:
        return self._length

    def append(self, rows: NDArray[Any]) -> None:
        """Add rows, which must not change any more.

        Raises:
            OSError: if the disk is full.
        """
        self._parts.append(rows)
        self._length += len(rows)
        self._bytes_waiting += rows.nbytes
        if self._bytes_waiting > self._arrays.in_memory:
            self._write()

    def finish(self) -> NDArray[Any]:
        """Return all rows as an array that can be written to; this object has none any more."""
        shape = (self._length, *self._row)
        if self._file is None:
            whole = np.concatenate([np.empty((0, *self._row), self._dtype), *self._parts])
            self._parts.clear()
            return whole
        self._write()
        with self._file:
            self._file.flush()
            return self._arrays.map(self._file, self._dtype, shape)

    def _write(self) -> None:
        if self._file is None:
            self._file = self._arrays.new_file()
        for part in self._parts:
            self._file.write(np.ascontiguousarray(part, self._dtype).data)
        self._parts.clear()
        self._bytes_waiting = 0


def _reserve(file: IO[bytes], size: int, folder: Path) -> None:
    """Make a file so large, on the disk too: a program that writes to a mapped file dies if the disk fills up."""
    old = os.fstat(file.fileno()).st_size
    if hasattr(os, "posix_fallocate"):
        os.posix_fallocate(file.fileno(), old, size - old)
    elif shutil.disk_usage(folder).free < size - old:
        raise OutputError(f"{size / 1e6:,.0f} MB of disk space are needed in {folder}. Free some space.")
    file.truncate(size)
