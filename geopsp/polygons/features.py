"""Features: take some, concatenate, dissolve; many of them in files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from geopsp.core.disk_array import ScratchArrays
from geopsp.polygons.borders.topology import Polygons, PolygonStore, RaggedPolygons, members
from geopsp.polygons.zonal_stats import NUM_SUMS

Starts = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Finished regions; each has one polygon, or several that touch at corners or are dissolved."""

    outlines: RaggedPolygons

    parts: Starts
    """(features + 1,) start of each feature in the polygons, and the end."""

    codes: NDArray[np.uint8]
    """(features,)"""

    sums: NDArray[np.float64]
    """(features, NUM_SUMS) zonal sums."""

    def __len__(self) -> int:
        return self.codes.size

    def to_shapely(self, transform: Affine) -> Polygons:
        """Return (features,) geometries in CRS units; features of several polygons are multipolygons."""
        polygons = self.outlines.to_shapely(transform)
        counts = np.diff(self.parts)
        geometries = polygons[self.parts[:-1]]
        if (multiple := counts > 1).any():
            feature = np.repeat(np.cumsum(multiple) - 1, counts)[np.repeat(multiple, counts)]
            geometries[multiple] = shapely.multipolygons(polygons[np.repeat(multiple, counts)], indices=feature)
        return geometries


def take(features: Features, indices: NDArray[np.intp]) -> Features:
    """Return the features at these indices, in this order."""
    polygons, parts = members(features.parts, indices)
    return Features(features.outlines.take(polygons), parts, features.codes[indices], features.sums[indices])


def concatenate(batches: Sequence[Features]) -> Features:
    """Concatenate one or more batches."""
    outlines = [batch.outlines for batch in batches]
    return Features(
        RaggedPolygons(
            np.concatenate([batch.xy for batch in outlines]),
            _concatenate_starts([batch.rings for batch in outlines]),
            _concatenate_starts([batch.polygons for batch in outlines]),
        ),
        _concatenate_starts([batch.parts for batch in batches]),
        np.concatenate([batch.codes for batch in batches]),
        np.concatenate([batch.sums for batch in batches]),
    )


class FeatureStore:
    """Concatenates batches of features, in files if there are many."""

    def __init__(self, arrays: ScratchArrays) -> None:
        """Start without features.

        Args:
            arrays: Makes the files.
        """
        self._outlines = PolygonStore(arrays)
        self._parts, self._codes = arrays.growing(np.int64), arrays.growing(np.uint8)
        self._sums = arrays.growing(np.float64, NUM_SUMS)
        self._parts.append(np.zeros(1, np.int64))

    def __len__(self) -> int:
        return len(self._codes)

    def append(self, features: Features) -> None:
        """Add a batch.

        Raises:
            OSError: if the disk is full.
        """
        self._parts.append(features.parts[1:] + len(self._outlines))
        self._outlines.append(features.outlines)
        self._codes.append(features.codes)
        self._sums.append(features.sums)

    def finish(self) -> Features:
        """Return all features; then this object has none any more."""
        return Features(self._outlines.finish(), self._parts.finish(), self._codes.finish(), self._sums.finish())


def dissolve(features: Features) -> tuple[Features, Starts]:
    """Make one feature per code, in the order of codes.

    Returns:
        The features, and where each begins in the input sorted by code.
    """
    order = np.argsort(features.codes, kind="stable")
    ordered = take(features, order)
    starts = np.flatnonzero(np.diff(ordered.codes, prepend=-1)) if order.size else np.empty(0, np.intp)
    if not starts.size:
        return ordered, starts
    dissolved = Features(
        ordered.outlines,
        np.append(ordered.parts[starts], ordered.parts[-1]),
        ordered.codes[starts],
        np.add.reduceat(ordered.sums, starts),
    )
    return dissolved, starts


def _concatenate_starts(batches: Sequence[Starts]) -> Starts:
    """Shift the starts of each batch by the sizes of those before it."""
    ends = np.cumsum([0, *(starts[-1] for starts in batches)])
    return np.concatenate([[0], *(starts[1:] + end for starts, end in zip(batches, ends, strict=False))])
