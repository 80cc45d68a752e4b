"""One part of a large raster on disk: compressed blocks of the full resolution and of its overviews.

The format is private and temporary: the blocks one after another, then a table with offset and size of each block,
then the end of the blocks and a checksum of the table. The size of a block, which has 32 bits, shares its 64 with a
checksum of the block, which is 0 in parts of earlier versions. Why it is no TIFF:

- Rows arrive from the top down, and all overview levels fill at the same time. tifffile writes one page after the
  other, GDAL makes overviews of a finished file; here each block is compressed and written as soon as it is full.
- Blocks are copied into the final COG as they are. That needs their offsets and sizes, and no georeference or tags.
- The table comes last, and its checksum covers the layout, so that an unfinished part, or one of another raster, is
  recognised without reading its blocks.
"""

from __future__ import annotations

import os
import struct
import zlib
from collections.abc import Iterator
from concurrent.futures import Executor
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, BinaryIO, Self
from uuid import uuid4

import numpy as np
from numpy.typing import NDArray

from geopsp.core.documents import DocumentError, open_regular
from geopsp.core.output import write_errors
from geopsp.core.sync import sync_descriptor
from geopsp.core.text import format_error
from geopsp.errors import OutputError
from geopsp.raster.cog.overviews import downsample, is_blank
from geopsp.raster.cog.raster_spec import RasterSpec
from geopsp.raster.geotiff import deflate

TAIL = struct.Struct("<QI")
"""End of the blocks, in bytes from the start of the file, and checksum of the table."""


SIZE = 2**32 - 1
"""The bits of a block's size in the table."""


def level_sizes(width: int, height: int, levels: int) -> list[tuple[int, int]]:
    """Return (width, height) of the full resolution and of `levels` overviews."""
    return [(-(-width >> level), -(-height >> level)) for level in range(levels + 1)]


@dataclass(frozen=True, slots=True)
class _PartLayout:
    """Size, bands, data type, block size and number of overviews of a part file."""

    width: int
    height: int
    spec: RasterSpec
    block: int
    levels: int

    @property
    def sizes(self) -> list[tuple[int, int]]:
        return level_sizes(self.width, self.height, self.levels)

    @property
    def shapes(self) -> list[tuple[int, int, int]]:
        """(bands, rows, cols) of blocks per level."""
        return [(len(self.spec.bands), -(-h // self.block), -(-w // self.block)) for w, h in self.sizes]

    def checksum(self, table: bytes) -> int:
        """Return a checksum of the table and of this layout."""
        layout = (self.width, self.height, len(self.spec.bands), self.spec.dtype, self.block, self.levels)
        return zlib.crc32(table, zlib.crc32(repr(layout).encode()))


class _LevelBuffer:
    """Rows of one level, collected until they fill a row of blocks."""

    def __init__(self, width: int, height: int, spec: RasterSpec, block: int) -> None:
        self._spec, self._block = spec, block
        self.width, self._left = width, height
        self._rows, self._blank = 0, True
        self._pixels: NDArray[Any] | None = None

    @property
    def done(self) -> bool:
        return self._left == 0

    @property
    def full(self) -> bool:
        """True if the collected rows are a whole row of blocks, or the last one."""
        return self._rows == min(self._block, self._left)

    def fill(self, rows: NDArray[Any]) -> NDArray[Any]:
        """Take as many of the (bands, n, width) rows as fit into this row of blocks; return the others."""
        taken = rows[:, : min(self._block, self._left) - self._rows]
        if not is_blank(taken, self._spec):
            self._blank = False
            self._buffer()[:, self._rows : self._rows + taken.shape[1], : self.width] = taken
        self._rows += taken.shape[1]
        return rows[:, taken.shape[1] :]

    def blocks(self) -> Iterator[NDArray[Any]]:
        """Yield the blocks band by band, padded with nodata; none if all is nodata."""
        if not self._blank:
            for band in self._buffer():
                for col in range(0, self.width, self._block):
                    yield band[:, col : col + self._block]

    def pop(self) -> NDArray[Any]:
        """Return the collected rows at half the resolution and start a new row of blocks."""
        rows = self._spec.blank(self._rows, self.width) if self._blank else self._buffer()[:, : self._rows]
        coarse = downsample(rows[:, :, : self.width], self._spec)
        if not self._blank:
            self._buffer()[...] = self._spec.nodata
        self._left -= self._rows
        self._rows, self._blank = 0, True
        return coarse

    def _buffer(self) -> NDArray[Any]:
        """Return (bands, block, padded width) pixels; allocated when the first valid pixel arrives."""
        if self._pixels is None:
            shape = (len(self._spec.bands), self._block, -(-self.width // self._block) * self._block)
            self._pixels = np.full(shape, self._spec.nodata, self._spec.dtype)
        return self._pixels


class PartWriter:
    """Writes a part from its rows; the file appears complete or not at all."""

    def __init__(
        self,
        path: Path,
        width: int,
        height: int,
        spec: RasterSpec,
        *,
        block: int,
        levels: int,
        pool: Executor | None = None,
    ) -> None:
        """Create a temporary file beside `path`.

        Args:
            path: Where the finished part goes.
            width: Of the part, in pixels.
            height: Of the part, in pixels.
            spec: The raster that the part belongs to.
            block: Side of a block, in pixels.
            levels: Number of overviews.
            pool: Threads that compress blocks.

        Raises:
            OutputError: if the file cannot be written; also raised by the methods.
        """
        self._path, self._pool, self._spec = path, pool, spec
        self._layout = _PartLayout(width, height, spec, block, levels)
        self._levels = [_LevelBuffer(*size, spec, block) for size in self._layout.sizes]
        self._table = [np.zeros((*shape, 2), np.uint64) for shape in self._layout.shapes]
        self._block_rows = [0] * (levels + 1)
        self._end = 0
        self._partial = path.with_name(f".{path.name}-{uuid4().hex}")  # two machines may make the same part
        with write_errors(path):
            self._file = self._partial.open("xb")

    def append(self, rows: NDArray[Any]) -> None:
        """Add (bands, n, width) rows at the bottom."""
        with write_errors(self._path):
            self._add(0, rows)

    def _add(self, number: int, rows: NDArray[Any]) -> None:
        level = self._levels[number]
        while rows.shape[1]:
            assert not level.done, "more rows than the part has"
            rows = level.fill(rows)
            if level.full:
                self._write_blocks(number, level)
                coarse = level.pop()
                if number + 1 < len(self._levels):
                    self._add(number + 1, coarse)

    def _write_blocks(self, number: int, level: _LevelBuffer) -> None:
        """Write a row of blocks."""
        entries = self._table[number][:, self._block_rows[number]].reshape(-1, 2)
        compressed = (
            self._pool.map(self._compress, level.blocks()) if self._pool else map(self._compress, level.blocks())
        )
        for i, data in enumerate(compressed):
            entries[i, 0], entries[i, 1] = self._end, len(data) | zlib.crc32(data) << 32
            self._file.write(data)
            self._end += len(data)
        self._table[number][:, self._block_rows[number]] = entries.reshape(len(self._spec.bands), -1, 2)
        self._block_rows[number] += 1

    def _compress(self, block: NDArray[Any]) -> bytes:
        """Return the deflated block; b"" if all pixels are nodata."""
        return b"" if self._is_nodata(block[0]) and self._is_nodata(block) else deflate(block)

    def _is_nodata(self, pixels: NDArray[Any]) -> bool:
        nodata = self._spec.nodata
        return bool(np.isnan(pixels).all() if np.isnan(nodata) else (pixels == nodata).all())

    def finish(self) -> None:
        """Write the table and rename the file to its final name."""
        assert all(level.done for level in self._levels), "fewer rows than the part has"
        table = b"".join(level.tobytes() for level in self._table)
        with write_errors(self._path):
            self._file.write(table + TAIL.pack(self._end, self._layout.checksum(table)))
            self._file.flush()
            sync_descriptor(self._file.fileno())  # else a power cut could leave the name without the blocks
            self._file.close()
            self._partial.replace(self._path)

    def discard(self) -> None:
        """Delete the temporary file."""
        try:
            with write_errors(self._path):
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


def is_complete(path: Path, width: int, height: int, spec: RasterSpec, *, block: int, levels: int) -> bool:
    """Return True if the part exists, has this layout and was written to its end; its blocks are not read."""
    try:
        with open_regular(path) as file:
            return _read_table(file, _PartLayout(width, height, spec, block, levels)) is not None
    except (OSError, DocumentError):
        return False


def _read_table(file: BinaryIO, layout: _PartLayout) -> list[NDArray[np.uint64]] | None:
    """Read (bands, rows, cols, 2) offsets and sizes of blocks per level; None if the file has another layout."""
    counts = [2 * int(np.prod(shape)) for shape in layout.shapes]
    tail = 8 * sum(counts) + TAIL.size
    size = file.seek(0, os.SEEK_END)
    if size < tail:
        return None
    file.seek(size - tail)
    table = file.read(tail - TAIL.size)
    end, checksum = TAIL.unpack(file.read(TAIL.size))
    if end + tail != size or checksum != layout.checksum(table):
        return None
    flat = np.split(np.frombuffer(table, "<u8"), np.cumsum(counts)[:-1])
    return [numbers.reshape(*shape, 2) for numbers, shape in zip(flat, layout.shapes, strict=True)]


class PartReader:
    """An open part file."""

    def __init__(self, path: Path, width: int, height: int, spec: RasterSpec, *, block: int, levels: int) -> None:
        """Open the file with the layout that it was written with.

        Raises:
            OutputError: if it is missing or damaged.
        """
        self._path, self._layout = path, _PartLayout(width, height, spec, block, levels)
        try:
            self._file = open_regular(path)
        except (OSError, DocumentError) as error:
            raise OutputError(f"Cannot read {path}: {format_error(error)}. Run the same command again.") from error
        table = _read_table(self._file, self._layout)
        if table is None:
            self._file.close()
            raise self._damaged()
        self._table = table

    def _damaged(self) -> OutputError:
        return OutputError(
            f"{self._path} is damaged or belongs to another map. Delete it and run the same command again."
        )

    def block_sizes(self, level: int) -> NDArray[np.uint64]:
        """Return (bands, rows, cols) sizes of the compressed blocks in bytes; 0 for a block of nodata."""
        return self._table[level][..., 1] & np.uint64(SIZE)

    def block_bytes(self, level: int, band: int, row: int, col: int) -> bytes:
        """Read a compressed block; b"" for a block of nodata.

        Raises:
            OutputError: if it cannot be read.
        """
        offset, number = map(int, self._table[level][band, row, col])
        size, checksum = number & SIZE, number >> 32
        if not size:
            return b""
        self._file.seek(offset)
        data = self._file.read(size)
        if len(data) != size or (checksum and zlib.crc32(data) != checksum):
            raise self._damaged()
        return data

    def rows(self, level: int, row: int) -> NDArray[Any]:
        """Read the (bands, n, width) pixels of a row of blocks."""
        spec, block = self._layout.spec, self._layout.block
        width, height = self._layout.sizes[level]
        height = min(block, height - row * block)
        if not self.block_sizes(level)[:, row].any():
            return spec.blank(height, width)
        pixels = np.full((len(spec.bands), height, width), spec.nodata, spec.dtype)
        for band, sizes in enumerate(self.block_sizes(level)[:, row]):
            for col in np.flatnonzero(sizes):
                left = int(col) * block
                decoded = self._decompress(self.block_bytes(level, band, row, int(col)))
                pixels[band, :, left : left + block] = decoded[:height, : width - left]
        return pixels

    def _decompress(self, data: bytes) -> NDArray[Any]:
        """Return (block, block) pixels."""
        block, dtype = self._layout.block, self._layout.spec.dtype
        try:
            return np.frombuffer(zlib.decompress(data), dtype).reshape(block, block)
        except (zlib.error, ValueError) as error:
            raise self._damaged() from error

    def close(self) -> None:
        """Close the file."""
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
