"""Regions that lie in several cells, put together row of cells by row of cells."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX
from geopsp.polygons.borders.seam_nodes import SeamNodes, link_across_seams
from geopsp.polygons.borders.seam_simplify import drop_seam_vertices
from geopsp.polygons.borders.seam_smoothing import smooth_across_seams
from geopsp.polygons.borders.topology import Arcs
from geopsp.polygons.borders.trace_arcs import EAST, SOUTH, ArcGraph, select
from geopsp.polygons.borders.trace_cell import EVERY, CellGrid, OpenRegions, Regions, build_features, open_groups
from geopsp.polygons.features import Features
from geopsp.polygons.regions.connected_regions import find, union

Numbers = NDArray[np.int32]


Line = tuple[Numbers, Numbers, int, int, int]
"""Numbers of the regions to the left and right of a seam as one goes along it; column and row where it begins; the
direction, EAST or SOUTH."""


class CellStitcher:
    """What goes on below the rows of cells that were taken in.

    Memory grows with the regions that go on and all their borders, not with the raster.
    """

    def __init__(
        self,
        lattice: CellGrid,
        *,
        connectivity: int = 4,
        wanted: NDArray[np.bool_] = EVERY,
        least: float = 0.0,
        smooth: int = 0,
    ) -> None:
        """Nothing is open yet.

        Args:
            lattice: Of the cells.
            connectivity: 4, or 8.
            wanted: (256,) True for the codes of features that are made.
            least: In square pixels: of simplified borders, cuts at seams whose triangle is smaller are none.
            smooth: Rounds of smoothing, of which the last ones at seams are left to do.
        """
        self._wanted = wanted
        self._lattice, self._corners, self._least = lattice, connectivity == 8, least
        self._near, self._smooth = np.empty((0, 2)), smooth
        self._net, self._regions = _joined([], []), Regions.none()
        self._below = np.zeros(lattice.width, np.int32)

    def add_row(self, pieces: Sequence[OpenRegions]) -> Features:
        """The features that are complete once a row of cells, from left to right, is taken in."""
        row, stop = pieces[0].window.row, pieces[0].window.row_stop
        before = np.cumsum([len(self._regions), *(len(piece.regions) for piece in pieces)]).tolist()
        sides = [[_shifted(side, by) for side in piece.sides] for piece, by in zip(pieces, before, strict=False)]
        regions = _all([self._regions, *(piece.regions for piece in pieces)], [0, *before])
        lines = list(self._lines(pieces, sides, row))
        parent, group = np.arange(len(regions)), np.arange(len(regions))
        _unite(group, regions.links)
        borders = []
        for line in lines:
            _meet(parent, group, regions.codes, line[0], line[1], self._corners)
            borders.append(_border(regions.codes, line))
        nets = [self._net, *(piece.net for piece in pieces), *borders]
        net = _joined(nets, [0, *before[:-1], *(0 for _ in borders)])
        last = stop == self._lattice.height
        met = link_across_seams(net, self._lattice, row, stop + last)
        if self._least or self._smooth:
            net = self._shaped(net, met, [piece.near for piece in pieces], stop)
        below = np.zeros(0, np.int32) if last else np.concatenate([lower for _, _, lower, _ in sides])
        opened = _gather(parent, group, regions.sums, regions.first, below)
        done = self._done(net, regions, parent, group, opened)
        self._keep(net, regions, parent, group, opened, below, stop)
        return done

    def _shaped(self, net: ArcGraph, met: SeamNodes, near: Sequence[NDArray[np.float64]], stop: int) -> ArcGraph:
        """Borders are simplified and smoothed over seams; what is near to the one below is kept for the next row."""
        known, reach = np.concatenate([self._near, *near, met.fixed]), self._lattice.reach
        if self._least:
            net, left = drop_seam_vertices(net, met.cuts, known, least=self._least, reach=reach, inner=not self._smooth)
            known = np.concatenate([known, left])
        if self._smooth:
            net, known = smooth_across_seams(net, met, known, rounds=self._smooth, hold=self._lattice.hold)
        self._near = known[(known[:, 1] >= stop - reach) & (known[:, 1] < stop)]
        return net

    def _lines(self, pieces: Sequence[OpenRegions], sides: Sequence[Sequence[Numbers]], row: int) -> Iterator[Line]:
        """The seams of a row of cells: those between neighbours, then the one above."""
        for piece, west, east in zip(pieces, sides, sides[1:], strict=False):
            yield east[3], west[1], piece.window.col_stop, row, SOUTH
        if row:
            yield self._below, np.concatenate([upper for upper, *_ in sides]), 0, row, EAST

    def _done(
        self,
        net: ArcGraph,
        regions: Regions,
        parent: NDArray[np.intp],
        group: NDArray[np.intp],
        opened: NDArray[np.bool_],
    ) -> Features:
        """Complete features, in the order of their first pixels."""
        numbers = np.flatnonzero((parent == np.arange(parent.size)) & ~opened & self._wanted[regions.codes])
        numbers = numbers[np.lexsort([regions.first[numbers], group[numbers], regions.first[group[numbers]]])]
        place = np.full(parent.size + 1, -1, np.int32)
        place[numbers + 1] = np.arange(numbers.size)
        place[1:] = place[parent + 1]
        return build_features(net, regions, numbers, group[numbers], place)

    def _keep(
        self,
        net: ArcGraph,
        regions: Regions,
        parent: NDArray[np.intp],
        group: NDArray[np.intp],
        opened: NDArray[np.bool_],
        below: Numbers,
        stop: int,
    ) -> None:
        """What goes on, with its regions numbered anew; without borders that nobody asks for any more."""
        numbers = np.flatnonzero((parent == np.arange(parent.size)) & opened)
        place = np.zeros(parent.size + 1, np.int32)
        place[numbers + 1] = np.arange(1, numbers.size + 1)
        place[1:] = place[parent + 1]
        of_use = np.append(False, opened & (EVERY if self._least or self._smooth else self._wanted)[regions.codes])
        arcs = net.arcs
        lowest = np.maximum(arcs.xy[arcs.starts[:-1], 1], arcs.xy[arcs.starts[1:] - 1, 1])
        idle = ~(of_use[arcs.left] | of_use[arcs.right]) & (lowest < stop)
        self._net, self._below = select(net, place, dropped=idle), place[below]
        links = np.column_stack([place[numbers + 1], place[group[numbers] + 1]])
        self._regions = Regions(
            regions.codes[numbers], regions.sums[numbers], regions.first[numbers],
            links[links[:, 0] != links[:, 1]],
        )  # fmt: skip


def _shifted(numbers: Numbers, by: int) -> Numbers:
    """Other numbers for the same regions; nothing stays 0."""
    return np.where(numbers, numbers + np.int32(by), np.int32(0))


def _all(parts: Sequence[Regions], before: Sequence[int]) -> Regions:
    """What is known of all, under new numbers."""
    return Regions(
        np.concatenate([part.codes for part in parts]),
        np.concatenate([part.sums for part in parts]),
        np.concatenate([part.first for part in parts]),
        np.concatenate([part.links + np.int32(by) for part, by in zip(parts, before, strict=False)]),
    )


def _joined(nets: Sequence[ArcGraph], before: Sequence[int]) -> ArcGraph:
    """The arcs of all, with the numbers of regions moved on by what is given for each."""
    nobody = np.empty(0, np.int32)
    nets = [_straight(np.empty((0, 2, 2), np.int64), nobody, nobody, SOUTH), *nets]
    shifts = list(zip(nets, [0, *before], np.cumsum([0, *(len(net.arcs) for net in nets)]), strict=False))
    left = np.concatenate([_shifted(net.arcs.left, by) for net, by, _ in shifts])
    right = np.concatenate([_shifted(net.arcs.right, by) for net, by, _ in shifts])
    following = np.concatenate([_moved(net.following, arcs) for net, _, arcs in shifts])
    instead = np.concatenate([_moved(net.instead, arcs) for net, _, arcs in shifts])
    ends = np.cumsum([0, *(net.arcs.xy.shape[0] for net in nets)])
    starts = np.concatenate([[0], *(net.arcs.starts[1:] + by for net, by in zip(nets, ends, strict=False))])
    return ArcGraph(
        Arcs(np.concatenate([net.arcs.xy.astype(np.float64) for net in nets]), starts, left, right),
        np.concatenate([net.ways for net in nets]),
        following,
        instead,
        np.concatenate([net.kept for net in nets]),
    )


def _moved(darts: Numbers, arcs: int) -> Numbers:
    """Darts of arcs before which others were put; unknown ones stay -1."""
    return np.where(darts >= 0, darts + np.int32(2 * arcs), np.int32(-1))


def _border(codes: NDArray[np.uint8], line: Line) -> ArcGraph:
    """The arcs that run along a seam: straight, each between two regions of different codes."""
    left, right, col, row, way = line
    cuts, one, two = _runs(left, right, np.append(np.uint8(IGNORE_INDEX), codes))
    xy = np.empty((one.size, 2, 2), np.int64)
    xy[..., 0] = col + cuts * (way == EAST)
    xy[..., 1] = row + cuts * (way == SOUTH)
    return _straight(xy, one, two, way)


def _straight(ends: NDArray[np.int64], left: Numbers, right: Numbers, way: int) -> ArcGraph:
    """Arcs of two vertices, (arcs, 2, 2)."""
    count = left.size
    return ArcGraph(
        Arcs(ends.reshape(-1, 2).astype(np.float64), 2 * np.arange(count + 1), left, right),
        np.full((count, 2), way, np.int8),
        np.full(2 * count, -1, np.int32),
        np.full(2 * count, -1, np.int32),
        np.ones((count, 2), np.bool_),
    )


@jit
def _runs(left: Any, right: Any, codes: Any) -> Any:
    """(runs, 2) first pixel and end, and the regions to both sides, wherever their codes differ."""
    count = 0
    cuts, one, two = np.empty((left.size, 2), np.int64), np.empty(left.size, np.int32), np.empty(left.size, np.int32)
    for at in range(left.size):
        if codes[left[at]] == codes[right[at]]:
            continue
        if count and cuts[count - 1, 1] == at and one[count - 1] == left[at] and two[count - 1] == right[at]:
            cuts[count - 1, 1] = at + 1
            continue
        cuts[count, 0], cuts[count, 1] = at, at + 1
        one[count], two[count] = left[at], right[at]
        count += 1
    return cuts[:count].copy(), one[:count].copy(), two[:count].copy()


@jit
def _unite(group: Any, links: Any) -> None:
    """Regions that are linked are one feature."""
    for one, two in links:
        union(group, one - 1, two - 1)


@jit
def _meet(parent: Any, group: Any, codes: Any, left: Any, right: Any, corners: Any) -> None:
    """Regions of one code that share a side across a seam are one; those that share a corner may be one feature."""
    for at in range(left.size):
        here = left[at] - 1
        if here < 0:
            continue
        there = right[at] - 1
        if there >= 0 and codes[here] == codes[there]:
            union(parent, here, there)
            union(group, here, there)
        if corners:
            for near in (at - 1, at + 1):
                there = right[near] - 1 if 0 <= near < right.size else -1
                if there >= 0 and codes[here] == codes[there]:
                    union(group, here, there)


@jit
def _gather(parent: Any, group: Any, sums: Any, first: Any, below: Any) -> Any:
    """What is known of a region stands at its first number; `parent` and `group` are first numbers; which are open."""
    opened = np.zeros(parent.size, np.bool_)
    open_groups(opened, group, below)
    for number in range(parent.size):
        whole = find(parent, number)
        parent[number], group[number] = whole, find(group, number)
        opened[number] = opened[group[number]]
        if whole != number:
            for column in range(sums.shape[1]):
                sums[whole, column] += sums[number, column]
            first[whole] = min(first[whole], first[number])
    for number in range(parent.size):
        of = group[number]
        first[of] = min(first[of], first[parent[number]])
    return opened
