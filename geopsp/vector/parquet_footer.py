"""Footers of Parquet files, read and written so far that files can be joined without decoding their columns.

A row group in a footer is a run of bytes with some offsets of the file in it. These are found, and written anew for
another place in another file; all else is copied.

Source: parquet.thrift of the Parquet format; Apache Thrift, compact protocol.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field

MAGIC = b"PAR1"
"""Begins and ends a file."""


BOOLEANS, BYTE, INTEGERS, DOUBLE, BINARY, LISTS, STRUCT = (1, 2), 3, (4, 5, 6), 7, 8, (9, 10), 12
"""Thrift's types."""


I32, I64, LIST = 5, 6, 9

VERSION, SCHEMA, NUM_ROWS, ROW_GROUPS, KEY_VALUES, CREATED_BY, COLUMN_ORDERS = range(1, 8)
"""Fields of FileMetaData."""


OFFSETS = frozenset({(1, 2), (1, 3, 9), (1, 3, 10), (1, 3, 11), (1, 3, 14), (1, 4), (1, 6), (5,)})
"""Fields of RowGroup that are offsets in the file: of columns (1), their metadata (1, 3), and of the group (5)."""


ORDINAL = 7
"""Field of RowGroup: its number, which only encrypted files need. It comes last, and is left out."""


@dataclass(frozen=True, slots=True)
class RowGroupEntry:
    """A row group in a footer, with gaps where its offsets stand."""

    pieces: tuple[bytes, ...]
    """The bytes around the offsets; one more than these."""

    offsets: tuple[int, ...]

    def at(self, shift: int) -> bytes:
        """Return the entry if its columns lie so many bytes further back."""
        moved = [_varint(2 * (offset + shift)) for offset in self.offsets]
        return b"".join(part for pair in zip(self.pieces, [*moved, b""], strict=True) for part in pair)


@dataclass(frozen=True, slots=True)
class Footer:
    """What the footer of a file says."""

    start: int
    """Where it begins in the file; the columns lie before it."""

    values: Mapping[int, bytes]
    """Fields of FileMetaData as they are stored."""

    row_groups: tuple[RowGroupEntry, ...]


def read_footer(content: memoryview) -> Footer:
    """Read the footer of a whole Parquet file.

    Raises:
        ValueError: if it has what the files of pyarrow do not have.
    """
    size = int.from_bytes(content[-8:-4], "little")
    start = len(content) - 8 - size
    reader, values, groups = _Reader(bytes(content[start:-8])), {}, []
    for number, kind in reader.fields():
        first = reader.at
        if number == ROW_GROUPS:
            groups = [_read_row_group(reader) for _ in range(reader.list_size())]
        else:
            reader.skip(kind)
        values[number] = reader.content[first : reader.at]
    return Footer(start, values, tuple(groups))


def write_footer(like: Footer, row_groups: Sequence[bytes], num_rows: int, metadata: Mapping[str, str]) -> bytes:
    """Return the end of a file.

    Args:
        like: The footer of a file with the same columns.
        row_groups: As of `RowGroupEntry.at`.
        num_rows: Of all row groups.
        metadata: Keys and values of the file.
    """
    pairs = [b"\x18" + _binary(key) + b"\x18" + _binary(value) + b"\x00" for key, value in metadata.items()]
    values = {
        **like.values,
        NUM_ROWS: _varint(2 * num_rows),
        ROW_GROUPS: _list(row_groups),
        KEY_VALUES: _list(pairs),
    }
    kinds = {VERSION: I32, SCHEMA: LIST, NUM_ROWS: I64, ROW_GROUPS: LIST, KEY_VALUES: LIST, CREATED_BY: BINARY}
    footer = b"".join(bytes([1 << 4 | kinds.get(number, LIST)]) + values[number] for number in sorted(values)) + b"\x00"
    return footer + struct.pack("<I", len(footer)) + MAGIC


def _read_row_group(reader: _Reader) -> RowGroupEntry:
    start, stop = reader.at, None
    reader.found.clear()
    for number, kind in reader.fields():
        if number == ORDINAL:
            stop = stop or reader.at - 1
        reader.skip(kind, (number,))
    pieces, at = [], start
    for first, last, _ in reader.found:
        pieces.append(reader.content[at:first])
        at = last
    end = reader.content[at : stop or reader.at - 1] + b"\x00"
    return RowGroupEntry((*pieces, end), tuple(offset for _, _, offset in reader.found))


@dataclass(slots=True, eq=False)
class _Reader:
    """Reads thrift's compact protocol, value after value."""

    content: bytes
    at: int = 0
    found: list[tuple[int, int, int]] = field(default_factory=list)
    """Start, end and value of the offsets that were passed; 0 stands for an unknown one, and stays."""

    def varint(self) -> int:
        value = shift = 0
        while True:
            byte = self.content[self.at]
            self.at += 1
            value |= (byte & 127) << shift
            if byte < 128:
                return value
            shift += 7

    def fields(self) -> Iterator[tuple[int, int]]:
        """Yield the number and the type of each field of a struct; its value must be read before the next."""
        number = 0
        while head := self.content[self.at]:
            self.at += 1
            number = number + (head >> 4) if head >> 4 else self.varint() // 2
            yield number, head & 15
        self.at += 1

    def list_size(self) -> int:
        """Return how many structs follow."""
        head = self.content[self.at]
        self.at += 1
        return head >> 4 if head >> 4 < 15 else self.varint()

    def skip(self, kind: int, path: tuple[int, ...] = ()) -> None:
        """Pass a value, and note the offsets in it.

        Args:
            kind: Its type.
            path: Numbers of the fields in which it is, from the row group on.
        """
        if kind in INTEGERS:
            start, value = self.at, self.varint()
            if value and path in OFFSETS:
                self.found.append((start, self.at, value // 2))
        elif kind == BINARY:
            size = self.varint()
            self.at += size
        elif kind == STRUCT:
            for number, inner in self.fields():
                self.skip(inner, (*path, number))
        elif kind in LISTS:
            inner = self.content[self.at] & 15
            for _ in range(self.list_size()):
                self.skip(BYTE if inner in BOOLEANS else inner, path)
        elif kind in {BYTE, DOUBLE}:
            self.at += 1 if kind == BYTE else 8
        elif kind not in BOOLEANS:
            raise ValueError(f"a footer has a value of type {kind}")


def _varint(value: int) -> bytes:
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    found.append(value)
    return bytes(found)


def _binary(text: str) -> bytes:
    content = text.encode()
    return _varint(len(content)) + content


def _list(structs: Sequence[bytes]) -> bytes:
    size = len(structs)
    head = bytes([size << 4 | STRUCT]) if size < 15 else bytes([15 << 4 | STRUCT]) + _varint(size)
    return head + b"".join(structs)
