"""What an ONNX file says of itself, read without running or building anything: a walk through its protocol buffers.

Only the standard library is needed, and no path that the file names is opened. Fields that may hold tensors or graphs
are all visited, also where a field that may stand once stands twice.

Source: onnx.proto of ONNX 1.19; "Encoding" of the protocol buffers documentation.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TypeAlias

from geopsp.core.documents import DocumentError

MAX_FIELDS = 1_000_000
"""Fields of a file beside the numbers of its tensors; networks have some thousands."""

STANDARD_DOMAINS = {"", "ai.onnx"}

TENSOR_TYPES = {1: "float32", 2: "uint8", 3: "int8", 5: "int16", 6: "int32", 7: "int64", 10: "float16", 11: "float64"}
"""Names of the usual types of tensors."""

VARINT, FIXED64, BYTES, FIXED32 = 0, 1, 2, 5
"""Wire types."""

Field: TypeAlias = tuple[int, int | memoryview]


@dataclass(frozen=True, slots=True)
class TensorSpec:
    """An input or output of a graph."""

    name: str
    dtype: str
    shape: tuple[int | str, ...]
    """A number, or the name of a dimension that is free; "?" if it has none."""

    def __str__(self) -> str:
        return f"{self.name!r} ({self.dtype}, {' x '.join(map(str, self.shape)) or 'no shape'})"


@dataclass(slots=True)
class OnnxHeader:
    """All of a file but its weights."""

    ir_version: int = 0
    opsets: dict[str, int] = field(default_factory=dict)
    inputs: list[TensorSpec] = field(default_factory=list)
    outputs: list[TensorSpec] = field(default_factory=list)
    metadata: dict[str, str] = field(default_factory=dict)
    operators: set[str] = field(default_factory=set)
    """Names of those that the nodes have, with their domain if it is not the standard one."""

    external: bool = False
    """True if a tensor lies in another file."""

    nested: bool = False
    """True if there are graphs in nodes (loops and branches), functions or graphs of training."""


def read_header(content: bytes) -> OnnxHeader:
    """Read the bytes of an ONNX file.

    Raises:
        DocumentError: if they are not those of an ONNX file.
    """
    walk = _Walk()
    try:
        walk.model(memoryview(content))
    except (UnicodeDecodeError, IndexError, TypeError) as error:
        raise DocumentError("it is no ONNX file, or is damaged") from error
    if not walk.header.ir_version or not walk.header.opsets:
        raise DocumentError("it is no ONNX file: it has no version")
    return walk.header


class _Walk:
    """One pass through a file."""

    def __init__(self) -> None:
        self.header, self._left = OnnxHeader(), MAX_FIELDS

    def _fields(self, message: int | memoryview) -> Iterator[Field]:
        """Yield number and value of the fields of a message: of whole numbers, bytes and messages; others are None."""
        if isinstance(message, int):
            raise DocumentError("it is no ONNX file, or is damaged")
        at = 0
        while at < len(message):
            self._left -= 1
            if self._left < 0:
                raise DocumentError(f"it has more than {MAX_FIELDS:,} fields")
            tag, at = _varint(message, at)
            number, kind = tag >> 3, tag & 7
            if kind == VARINT:
                value, at = _varint(message, at)
                yield number, value
            elif kind in {FIXED64, FIXED32}:
                at += 8 if kind == FIXED64 else 4
            elif kind == BYTES:
                size, at = _varint(message, at)
                if at + size > len(message):
                    raise DocumentError("it is no ONNX file, or is cut off")
                yield number, message[at : at + size]
                at += size
            else:
                raise DocumentError("it is no ONNX file, or is damaged")
        if at > len(message):
            raise DocumentError("it is no ONNX file, or is cut off")

    def model(self, message: memoryview) -> None:
        header = self.header
        for number, value in self._fields(message):
            if number == 1 and isinstance(value, int):
                header.ir_version = value
            elif number == 7:
                self._graph(value)
            elif number == 8:
                self._opset(value)
            elif number == 14:
                self._metadata(value)
            elif number in {20, 25}:  # graphs of training; functions
                header.nested = True

    def _opset(self, message: int | memoryview) -> None:
        domain, opset = "", 0
        for number, value in self._fields(message):
            if number == 1:
                domain = _text(value)
            elif number == 2 and isinstance(value, int):
                opset = value
        self.header.opsets[domain] = max(opset, self.header.opsets.get(domain, 0))

    def _metadata(self, message: int | memoryview) -> None:
        key, text = "", ""
        for number, value in self._fields(message):
            if number == 1:
                key = _text(value)
            elif number == 2:
                text = _text(value)
        if key in self.header.metadata:
            raise DocumentError(f"it has the metadata {key[:100]!r} twice")
        self.header.metadata[key] = text

    def _graph(self, message: int | memoryview) -> None:
        for number, value in self._fields(message):
            if number == 1:
                self._node(value)
            elif number == 5:
                self._tensor(value)
            elif number == 11:
                self.header.inputs.append(self._value_info(value))
            elif number == 12:
                self.header.outputs.append(self._value_info(value))
            elif number == 15:
                self._sparse_tensor(value)

    def _node(self, message: int | memoryview) -> None:
        operator, domain = "", ""
        for number, value in self._fields(message):
            if number == 4:
                operator = _text(value)
            elif number == 5:
                self._attribute(value)
            elif number == 7:
                domain = _text(value)
        self.header.operators.add(operator if domain in STANDARD_DOMAINS else f"{domain}.{operator}")

    def _attribute(self, message: int | memoryview) -> None:
        for number, value in self._fields(message):
            if number in {5, 10}:
                self._tensor(value)
            elif number in {22, 23}:
                self._sparse_tensor(value)
            elif number in {6, 11}:
                self.header.nested = True

    def _sparse_tensor(self, message: int | memoryview) -> None:
        for number, value in self._fields(message):
            if number in {1, 2}:
                self._tensor(value)

    def _tensor(self, message: int | memoryview) -> None:
        for number, value in self._fields(message):
            if number == 13 or (number == 14 and value != 0):
                self.header.external = True

    def _value_info(self, message: int | memoryview) -> TensorSpec:
        name, dtype, shape = "", "no tensor", tuple[int | str, ...]()
        for number, value in self._fields(message):
            if number == 1:
                name = _text(value)
            elif number == 2:
                for kind, content in self._fields(value):
                    if kind == 1:
                        dtype, shape = self._tensor_type(content)
        return TensorSpec(name, dtype, shape)

    def _tensor_type(self, message: int | memoryview) -> tuple[str, tuple[int | str, ...]]:
        dtype, shape = "?", []
        for number, value in self._fields(message):
            if number == 1:
                dtype = TENSOR_TYPES.get(value, f"type {value}") if isinstance(value, int) else "?"
            elif number == 2:
                shape += [self._dimension(content) for kind, content in self._fields(value) if kind == 1]
        return dtype, tuple(shape)

    def _dimension(self, message: int | memoryview) -> int | str:
        for number, value in self._fields(message):
            if number == 1 and isinstance(value, int):
                return value
            if number == 2:
                return _text(value) or "?"
        return "?"


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    """Return a number of 7 bits in each byte, and where it ends."""
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 0x7F) << shift
        if byte < 0x80:
            return value, at
        shift += 7
        if shift > 63:
            raise DocumentError("it is no ONNX file, or is damaged")


def _text(value: int | memoryview) -> str:
    if isinstance(value, int):
        raise DocumentError("it is no ONNX file, or is damaged")
    return bytes(value).decode()
