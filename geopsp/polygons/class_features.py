"""One feature per class: its polygons are collected in a file as they are finished."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from geopsp.core.disk_array import GrowingArray, ScratchArrays
from geopsp.errors import OutputError
from geopsp.polygons.attributes import AttributeTable, Floats, Measures
from geopsp.polygons.features import Features, dissolve
from geopsp.polygons.wkb import HEADER_BYTES, encode_polygons, multipolygon_header


@dataclass(frozen=True, slots=True, eq=False)
class ClassParts:
    """The polygons of some features, by class."""

    measures: Measures
    """Of the polygons of each class together."""

    counts: NDArray[np.int64]
    """(classes,) numbers of polygons."""

    contents: list[NDArray[np.uint8]]
    """WKB of the polygons of each class, one after the other."""


def class_parts(table: AttributeTable, features: Features, moved: Floats | None = None) -> ClassParts:
    """Return the polygons of features by class; arguments as of `AttributeTable.to_batch`.

    Raises:
        OutputError: if they are too large for one array.
    """
    whole, starts = dissolve(features)
    if moved is not None and starts.size:
        moved = np.maximum.reduceat(moved[np.argsort(features.codes, kind="stable")], starts)
    _, offsets, content = encode_polygons(whole.outlines, table.grid.transform).buffers()
    ends = np.frombuffer(offsets, np.int32)[whole.parts]
    every = np.frombuffer(content, np.uint8)
    contents = [every[start:end].copy() for start, end in pairwise(ends)]
    return ClassParts(table.measure(whole, moved=moved), np.diff(whole.parts), contents)


@dataclass(slots=True, eq=False)
class _Collected:
    """The polygons of one class so far."""

    measures: Measures
    content: GrowingArray
    """A header, then the polygons."""

    count: int = 0


class ClassFeatures:
    """Collects polygons by class, in files if there are many."""

    def __init__(self, table: AttributeTable, arrays: ScratchArrays, max_bytes: int) -> None:
        """Start without polygons.

        Args:
            table: Makes rows.
            arrays: Makes the files.
            max_bytes: Of one feature.
        """
        self._table, self._arrays, self._max_bytes = table, arrays, max_bytes
        self._classes: dict[int, _Collected] = {}

    def add(self, parts: ClassParts) -> None:
        """Add polygons.

        Raises:
            OSError: if the disk is full.
            OutputError: if the feature of a class is too large for the output.
        """
        for at, (count, content) in enumerate(zip(parts.counts.tolist(), parts.contents, strict=True)):
            measures = parts.measures.take(np.array([at]))
            found = self._classes.get(code := int(measures.codes[0]))
            if found is None:
                found = self._classes[code] = _Collected(measures, self._arrays.growing(np.uint8))
                found.content.append(np.zeros(HEADER_BYTES, np.uint8))
            else:
                found.measures = found.measures.joined(measures)
            found.content.append(content)
            found.count += count
            if len(found.content) > self._max_bytes:
                names = dict(zip(self._table.legend.codes, self._table.legend.names, strict=True))
                raise OutputError(
                    f"The polygons of {names[code]!r} take more than {self._max_bytes:,} bytes, too many for one "
                    "feature of this file. Simplify them, or write them without `dissolve`."
                )

    def batches(self) -> Iterator[pa.RecordBatch]:
        """Yield one row per class, in the order of codes; then there are no polygons any more."""
        for code in sorted(self._classes):
            found = self._classes.pop(code)
            content = found.content.finish()
            content[:HEADER_BYTES] = multipolygon_header(found.count)
            yield self._table.rows(found.measures, _one_value(content if found.count > 1 else content[HEADER_BYTES:]))
            self._arrays.release()


def _one_value(content: NDArray[np.uint8]) -> Any:
    """Return a (1,) pyarrow array of these bytes, without a copy."""
    ends = pa.py_buffer(np.array([0, content.size], np.int32))
    return pa.Array.from_buffers(pa.binary(), 1, [None, ends, pa.py_buffer(content)])
