"""Right-angled outlines that come to overlap others become again what they were.

The polygons may be in files. They are looked at some at a time, with those around them; what is near is found by blocks
of polygons, of which each covers a part of the raster.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray

from geopsp.core.disk_array import ScratchArrays
from geopsp.polygons.borders.topology import Polygons, PolygonStore, RaggedPolygons

PIECE = 2000
"""Polygons that are compared with those around them at a time."""


Indices = NDArray[np.intp]


class MovedOutlines:
    """Outlines before and after they moved, and which of the two holds."""

    def __init__(
        self,
        old: RaggedPolygons,
        new: RaggedPolygons,
        moved: NDArray[np.float64],
        blocks: Sequence[tuple[int, int]],
        arrays: ScratchArrays,
    ) -> None:
        """Let the new outlines hold where they moved.

        Args:
            old: The outlines before.
            new: The same after.
            moved: (polygons,) the distance between the two. It becomes 0 where the old outline holds again.
            blocks: First polygon of each block, and the first behind it; they cover all polygons.
            arrays: Makes tables, and releases the memory of all files.
        """
        self.moved = moved
        self._old, self._new, self._blocks, self._arrays = old, new, blocks, arrays
        self._boxes, self._block_boxes = arrays.zeros(np.float64, len(moved), 4), np.empty((len(blocks), 4))
        for block, (start, stop) in enumerate(blocks):
            both = [_bounds(outlines.part(start, stop)) for outlines in (old, new)]
            self._boxes[start:stop] = _around(np.stack(both))
            self._block_boxes[block] = _around(self._boxes[start:stop])
            arrays.release()

    def part(self, start: int, stop: int) -> RaggedPolygons:
        """Return the outlines that hold, from `start` to before `stop`."""
        both = PolygonStore(self._arrays)
        for outlines in (self._old, self._new):
            both.append(outlines.part(start, stop))
        is_new = self.moved[start:stop] > 0
        return both.finish().take(np.arange(stop - start) + is_new * (stop - start))

    def restore_conflicts(self) -> None:
        """Let old outlines hold until none overlaps another one, or shares a wall with it that it did not share before.

        Of two that do, the one that moved further becomes the old one again.
        """
        count, arrays = len(self.moved), self._arrays
        chosen, is_first = arrays.zeros(np.bool_, count), True
        for start, stop in arrays.chunks(count):
            chosen[start:stop] = self.moved[start:stop] > 0
        while True:
            restored, num_restored = arrays.zeros(np.bool_, count), 0
            for piece in self._pieces(chosen):
                near = self._near(piece)
                losers = self._losers(piece, near if is_first else near[self.moved[near] > 0])
                restored[losers] = True
                num_restored += len(losers)
                arrays.release()
            if not num_restored:
                return
            for start, stop in arrays.chunks(count):
                self.moved[start:stop][restored[start:stop]] = 0
            chosen, is_first = restored, False  # only these can be in conflict with others now

    def _pieces(self, chosen: NDArray[np.bool_]) -> Iterator[Indices]:
        """Yield some of the chosen polygons at a time, which lie near each other."""
        for start, stop in self._blocks:
            indices = start + np.flatnonzero(chosen[start:stop])
            indices = indices[np.argsort(self._boxes[indices, 0])]
            yield from (indices[first : first + PIECE] for first in range(0, len(indices), PIECE))

    def _near(self, piece: Indices) -> Indices:
        """Return the polygons whose boxes meet one of those of a piece."""
        boxes = self._boxes[piece]
        around, found = _around(boxes), []
        for block in np.flatnonzero(_meet(self._block_boxes, around)).tolist():
            start, stop = self._blocks[block]
            found.append(start + np.flatnonzero(_meet(self._boxes[start:stop], around)))
        near = np.concatenate(found)
        tree = shapely.STRtree(shapely.box(*boxes.T))
        found_at: Indices = np.unique(tree.query(shapely.box(*self._boxes[near].T))[0])
        return near[found_at]

    def _losers(self, piece: Indices, near: Indices) -> Indices:
        """Return which polygons of both become old ones, as they are in conflict."""
        shapes, others = self._holding(piece), self._holding(near)
        one, two = shapely.STRtree(others).query(shapes, predicate="intersects")
        differ = piece[one] != near[two]
        one, two = one[differ], two[differ]
        conflict = shapely.relate_pattern(shapes[one], others[two], "T********")
        share = np.flatnonzero(~conflict & _share_walls(shapes[one], others[two]))
        one, two = piece[one], near[two]
        before = (self._old.take(each[share]).to_shapely(Affine.identity()) for each in (one, two))
        conflict[share] = ~_share_walls(*before)
        losers: Indices = np.where(self.moved[one] >= self.moved[two], one, two)[conflict]
        return losers

    def _holding(self, indices: Indices) -> Polygons:
        """Return the outlines that hold."""
        is_new = self.moved[indices] > 0
        outlines = np.empty(len(indices), object)
        for outlines_of, chosen in ((self._new, is_new), (self._old, ~is_new)):
            outlines[chosen] = outlines_of.take(indices[chosen]).to_shapely(Affine.identity())
        return outlines


def _share_walls(polygons: Polygons, others: Polygons) -> NDArray[np.bool_]:
    """Return True where two outlines have more than points in common."""
    shared: NDArray[np.bool_] = shapely.relate_pattern(polygons, others, "****1****")
    return shared


def _bounds(outlines: RaggedPolygons) -> NDArray[np.float64]:
    """Return (polygons, 4) left, top, right and bottom."""
    starts = outlines.rings[outlines.polygons[:-1]]
    return np.column_stack([np.minimum.reduceat(outlines.xy, starts), np.maximum.reduceat(outlines.xy, starts)])


def _around(boxes: NDArray[np.float64]) -> NDArray[np.float64]:
    """Return (..., 4) the box around (n, ..., 4) boxes."""
    return np.concatenate([boxes[..., :2].min(axis=0), boxes[..., 2:].max(axis=0)], axis=-1)


def _meet(boxes: NDArray[np.float64], box: NDArray[np.float64]) -> NDArray[np.bool_]:
    """Return True for boxes that share a point with one."""
    meets: NDArray[np.bool_] = np.all((boxes[:, :2] <= box[2:]) & (boxes[:, 2:] >= box[:2]), axis=1)
    return meets
