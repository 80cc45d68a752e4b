"""Parts of a map as they lie on the disk: blocks deflated already, of full resolution and of coarser levels.

A part file holds the blocks one after another, then where each lies and how long it is, then a check of that table.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import Executor
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from geopsp.errors import GeopspError, OutputError
from geopsp.raster.cog.overviews import downsample, is_blank
from geopsp.raster.cog.raster_spec import RasterSpec
from geopsp.raster.geotiff import deflate

TAIL = struct.Struct("<QI")
"""Bytes of all blocks, and the check of the table."""


@contextmanager
def disk_errors(path: Path) -> Iterator[None]:
    """Trouble of the disk, in the block, becomes an OutputError that names the file."""
    try:
        yield
    except GeopspError:
        raise
    except OSError as error:
        raise OutputError(f"{path} cannot be written ({error}). Is the disk full, or the place read-only?") from error


def level_sizes(width: int, height: int, levels: int) -> list[tuple[int, int]]:
    """(width, height) of the full resolution and of that many coarser levels."""
    return [(-(-width >> level), -(-height >> level)) for level in range(levels + 1)]


@dataclass(frozen=True, slots=True)
class _PartLayout:
    """What a part file holds."""

    width: int
    height: int
    product: RasterSpec
    block: int
    levels: int

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return level_sizes(self.width, self.height, self.levels)

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(bands, rows, cols) of blocks, of each level."""
        return [(len(self.product.bands), -(-h // self.block), -(-w // self.block)) for w, h in self.sizes]

    def check(self, table: bytes) -> int:
        """A number that differs if the table does, or what it is of."""
        about = (self.width, self.height, len(self.product.bands), self.product.dtype, self.block, self.levels)
        return zlib.crc32(table, zlib.crc32(repr(about).encode()))


class _LevelBuffer:
    """Rows of a level, gathered until they fill a row of blocks."""

    def __init__(self, width: int, height: int, product: RasterSpec, block: int) -> None:
        self._product, self._block = product, block
        self.width, self._left = width, height
        self._rows, self._blank = 0, True
        self._room: NDArray[Any] | None = None

    @property
    def done(self) -> bool:
        return self._left == 0

    @property
    def full(self) -> bool:
        """True if what was gathered is a whole row of blocks, or the last one."""
        return self._rows == min(self._block, self._left)

    def fill(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Takes (bands, n, width) as far as they fit into this row of blocks, and gives back the others."""
        taken = rows[:, : min(self._block, self._left) - self._rows]
        if not is_blank(taken, self._product):
            self._blank = False
            self._buffer()[:, self._rows : self._rows + taken.shape[1], : self.width] = taken
        self._rows += taken.shape[1]
        return rows[:, taken.shape[1] :]

    def blocks(self) -> Iterator[NDArray[Any]]:
        """The blocks, band by band, filled up with nodata; none if all is nodata."""
        if not self._blank:
            for band in self._buffer():
                for col in range(0, self.width, self._block):
                    yield band[:, col : col + self._block]

    def pop(self) -> NDArray[Any]:
        """The rows at half the resolution; those to come begin a new row of blocks."""
        rows = self._product.blank(self._rows, self.width) if self._blank else self._buffer()[:, : self._rows]
        coarse = downsample(rows[:, :, : self.width], self._product)
        if not self._blank:
            self._buffer()[...] = self._product.nodata
        self._left -= self._rows
        self._rows, self._blank = 0, True
        return coarse

    def _buffer(self) -> NDArray[Any]:
        """(bands, block, whole blocks) pixels, made when the first one is known."""
        if self._room is None:
            shape = (len(self._product.bands), self._block, -(-self.width // self._block) * self._block)
            self._room = np.full(shape, self._product.nodata, self._product.dtype)
        return self._room


class PartWriter:
    """Writes a part from its rows; the file appears whole, or not at all."""

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        product: RasterSpec,
        *,
        block: int,
        levels: int,
        pool: Executor | None = None,
    ) -> None:
        """`levels` is how many coarser ones to make; `pool` deflates.

        Raises:
            OutputError: if the file cannot be written; so do the methods.
        """
        self._path, self._pool, self._product = path, pool, product
        self._form = _PartLayout(width, height, product, block, levels)
        self._levels = [_LevelBuffer(*size, product, block) for size in self._form.sizes]
        self._table = [np.zeros((*shape, 2), np.uint64) for shape in self._form.shapes]
        self._lines = [0] * (levels + 1)
        self._end = 0
        self._partial = path.with_name(f".{path.name}-{uuid4().hex}")  # more than one machine may make it
        with disk_errors(path):
            self._file = self._partial.open("xb")

    def append(self, rows: NDArray[Any]) -> None:
        """Puts (bands, n, width) below what was written so far."""
        with disk_errors(self._path):
            self._take(0, rows)

    def _take(self, number: int, rows: NDArray[Any]) -> None:
        level = self._levels[number]
        while rows.shape[1]:
            assert not level.done, "more rows than the part has"
            rows = level.fill(rows)
            if level.full:
                self._store(number, level)
                coarse = level.pop()
                if number + 1 < len(self._levels):
                    self._take(number + 1, coarse)

    def _store(self, number: int, level: _LevelBuffer) -> None:
        """Writes a row of blocks."""
        line = self._table[number][:, self._lines[number]].reshape(-1, 2)
        packed = self._pool.map(self._pack, level.blocks()) if self._pool else map(self._pack, level.blocks())
        for place, blob in enumerate(packed):
            line[place] = self._end, len(blob)
            self._file.write(blob)
            self._end += len(blob)
        self._table[number][:, self._lines[number]] = line.reshape(len(self._product.bands), -1, 2)
        self._lines[number] += 1

    def _pack(self, block: NDArray[Any]) -> bytes:
        """Nothing of a block without a known pixel."""
        blank = np.isnan(block) if np.isnan(self._product.nodata) else block == self._product.nodata
        return b"" if blank.all() else deflate(block)

    def finish(self) -> None:
        """The file is there."""
        assert all(level.done for level in self._levels), "fewer rows than the part has"
        table = b"".join(level.tobytes() for level in self._table)
        with disk_errors(self._path):
            self._file.write(table + TAIL.pack(self._end, self._form.check(table)))
            self._file.flush()
            os.fsync(self._file.fileno())  # else a power cut could leave the name without the blocks
            self._file.close()
            self._partial.replace(self._path)

    def discard(self) -> None:
        """Nothing is left of it."""
        try:
            with disk_errors(self._path):
                self._file.close()
        finally:
            self._partial.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if error is not None:
            self.discard()
            return
        try:
            self.finish()
        except BaseException:
            self.discard()
            raise


def is_complete(path: Path, width: int, height: int, product: RasterSpec, *, block: int, levels: int) -> bool:
    """True if the part is there and is all that it should be; its blocks are not looked into."""
    try:
        with path.open("rb") as file:
            return _read_table(file, _PartLayout(width, height, product, block, levels)) is not None
    except OSError:
        return False


def _read_table(file: BinaryIO, form: _PartLayout) -> list[NDArray[np.uint64]] | None:
    """(bands, rows, cols, 2) of offsets and lengths, a level; None if the file is not of this form."""
    counts = [2 * int(np.prod(shape)) for shape in form.shapes]
    behind = 8 * sum(counts) + TAIL.size
    size = file.seek(0, os.SEEK_END)
    if size < behind:
        return None
    file.seek(size - behind)
    table = file.read(behind - TAIL.size)
    end, check = TAIL.unpack(file.read(TAIL.size))
    if end + behind != size or check != form.check(table):
        return None
    flat = np.split(np.frombuffer(table, "<u8"), np.cumsum(counts)[:-1])
    return [numbers.reshape(*shape, 2) for numbers, shape in zip(flat, form.shapes, strict=True)]


class PartReader:
    """What a part file holds."""

    def __init__(self, path: Path, width: int, height: int, product: RasterSpec, *, block: int, levels: int) -> None:
        """As it was written.

        Raises:
            OutputError: if it is not there or damaged.
        """
        self._path, self._form = path, _PartLayout(width, height, product, block, levels)
        try:
            self._file = path.open("rb")
        except OSError as error:
            raise OutputError(f"{path} cannot be read ({error}). Give the same command again.") from error
        table = _read_table(self._file, self._form)
        if table is None:
            self._file.close()
            raise self._damaged()
        self._table = table

    def _damaged(self) -> OutputError:
        return OutputError(
            f"{self._path} is not the part of a map that it was. Delete it; give the same command again."
        )

    def block_sizes(self, level: int) -> NDArray[np.uint64]:
        """(bands, rows, cols) bytes of each block; 0 where nothing is known."""
        return self._table[level][..., 1]

    def block_bytes(self, level: int, band: int, row: int, col: int) -> bytes:
        """A deflated block; nothing where nothing is known.

        Raises:
            OutputError: if it cannot be read.
        """
        offset, length = map(int, self._table[level][band, row, col])
        if not length:
            return b""
        self._file.seek(offset)
        blob = self._file.read(length)
        if len(blob) != length:
            raise self._damaged()
        return blob

    def rows(self, level: int, row: int) -> NDArray[Any]:
        """(bands, n, width) pixels of a row of blocks."""
        product, block = self._form.product, self._form.block
        width, height = self._form.sizes[level]
        height = min(block, height - row * block)
        if not self.block_sizes(level)[:, row].any():
            return product.blank(height, width)
        pixels = np.full((len(product.bands), height, width), product.nodata, product.dtype)
        for band, line in enumerate(self.block_sizes(level)[:, row]):
            for col in np.flatnonzero(line):
                left = int(col) * block
                whole = self._inflated(self.block_bytes(level, band, row, int(col)))
                pixels[band, :, left : left + block] = whole[:height, : width - left]
        return pixels

    def _inflated(self, blob: bytes) -> NDArray[Any]:
        """(block, block) pixels."""
        try:
            return np.frombuffer(zlib.decompress(blob), self._form.product.dtype).reshape(
                self._form.block, self._form.block
            )
        except (zlib.error, ValueError) as error:
            raise self._damaged() from error

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
