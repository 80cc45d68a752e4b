"""Features taken, put together, dissolved."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from geopsp.polygons.borders.topology import Polygons, RaggedPolygons


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """Finished regions, each of one polygon, or of several that touch at corners."""

    outlines: RaggedPolygons

    parts: NDArray[np.int64]
    """(features + 1,) where each begins among the polygons, and the end."""

    codes: NDArray[np.uint8]
    """(features,)"""

    sums: NDArray[np.float64]
    """(features, SUMS) what `sums` counts of the pixels."""

    def __len__(self) -> int:
        return self.codes.size

    def shapes(self, transform: Affine) -> Polygons:
        """(features,) in CRS units; multipolygons where one has several parts."""
        polygons = self.outlines.shapes(transform)
        counts = np.diff(self.parts)
        found = polygons[self.parts[:-1]]
        if (several := counts > 1).any():
            which = np.repeat(np.cumsum(several) - 1, counts)[np.repeat(several, counts)]
            found[several] = shapely.multipolygons(polygons[np.repeat(several, counts)], indices=which)
        return found


Starts = NDArray[np.int64]


def take(features: Features, order: NDArray[np.intp]) -> Features:
    """These features, in this order."""
    lines = features.outlines
    polygons, parts = _members(features.parts, order)
    rings, starts = _members(lines.polygons, polygons)
    vertices, ring_starts = _members(lines.rings, rings)
    return Features(
        RaggedPolygons(lines.xy[vertices], ring_starts, starts),
        parts,
        features.codes[order],
        features.sums[order],
    )


def concatenate(batches: Sequence[Features]) -> Features:
    """All features, one batch after the other; at least one batch."""
    lines = [batch.outlines for batch in batches]
    return Features(
        RaggedPolygons(
            np.concatenate([line.xy for line in lines]),
            _chained([line.rings for line in lines]),
            _chained([line.polygons for line in lines]),
        ),
        _chained([batch.parts for batch in batches]),
        np.concatenate([batch.codes for batch in batches]),
        np.concatenate([batch.sums for batch in batches]),
    )


def dissolve(features: Features) -> tuple[Features, Starts]:
    """One feature a code, in the order of codes, of all polygons that have it; and where each begins in this order."""
    order = np.argsort(features.codes, kind="stable")
    found = take(features, order)
    starts = np.flatnonzero(np.diff(found.codes, prepend=-1)) if order.size else np.empty(0, np.intp)
    if not starts.size:
        return found, starts
    dissolved = Features(
        found.outlines,
        np.append(found.parts[starts], found.parts[-1]),
        found.codes[starts],
        np.add.reduceat(found.sums, starts),
    )
    return dissolved, starts


def _members(starts: Starts, groups: NDArray[np.intp]) -> tuple[NDArray[np.intp], Starts]:
    """The members of these groups, one group after the other, and where each now begins."""
    counts = starts[groups + 1] - starts[groups]
    ends = np.concatenate([[0], np.cumsum(counts)])
    return np.repeat(starts[groups] - ends[:-1], counts) + np.arange(ends[-1]), ends


def _chained(starts: Sequence[Starts]) -> Starts:
    """Starts in several arrays as starts in all of them together."""
    ends = np.cumsum([0, *(part[-1] for part in starts)])
    return np.concatenate([[0], *(part[1:] + end for part, end in zip(starts, ends, strict=False))])
