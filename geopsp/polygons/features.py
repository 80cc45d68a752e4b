"""Features: take some, concatenate, dissolve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from geopsp.polygons.borders.topology import Polygons, RaggedPolygons

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
    outlines = features.outlines
    polygons, parts = _members(features.parts, indices)
    rings, polygon_starts = _members(outlines.polygons, polygons)
    vertices, ring_starts = _members(outlines.rings, rings)
    return Features(
        RaggedPolygons(outlines.xy[vertices], ring_starts, polygon_starts),
        parts,
        features.codes[indices],
        features.sums[indices],
    )


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


def _members(starts: Starts, groups: NDArray[np.intp]) -> tuple[NDArray[np.intp], Starts]:
    """Return the indices of the members of some groups, one group after the other, and the new starts."""
    counts = starts[groups + 1] - starts[groups]
    ends = np.concatenate([[0], np.cumsum(counts)])
    return np.repeat(starts[groups] - ends[:-1], counts) + np.arange(ends[-1]), ends


def _concatenate_starts(batches: Sequence[Starts]) -> Starts:
    """Shift the starts of each batch by the sizes of those before it."""
    ends = np.cumsum([0, *(starts[-1] for starts in batches)])
    return np.concatenate([[0], *(starts[1:] + end for starts, end in zip(batches, ends, strict=False))])
