"""Stitch regions across cells, one row of cells after the other."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.connected_regions import flatten, union, unite_pairs
from geopsp.core.grid import Window
from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX
from geopsp.polygons.borders.seam_nodes import SeamNodes, link_across_seams
from geopsp.polygons.borders.seam_simplify import drop_seam_vertices
from geopsp.polygons.borders.seam_smoothing import smooth_across_seams
from geopsp.polygons.borders.smooth import Unfinished, max_needed_distance
from geopsp.polygons.borders.topology import Arcs
from geopsp.polygons.borders.trace_arcs import EAST, SOUTH, ArcGraph, select_arcs
from geopsp.polygons.borders.trace_cell import (
    ALL_CODES,
    CellGrid,
    OpenRegions,
    Regions,
    build_features,
    mark_open,
)
from geopsp.polygons.features import Features

Numbers = NDArray[np.int32]


Seam = tuple[Numbers, Numbers, int, int, int]
"""A seam that runs EAST or SOUTH: numbers of the regions on its left and on its right, column and row of its start, and
the direction."""


class CellStitcher:
    """Holds the regions that continue below the rows of cells added so far.

    Memory grows with these regions and all their borders, not with the raster.
    """

    def __init__(
        self,
        grid: CellGrid,
        *,
        connectivity: int = 4,
        selected: NDArray[np.bool_] = ALL_CODES,
        min_triangle: Callable[[Window], float] | None = None,
        smooth: int = 0,
    ) -> None:
        """Start without open regions.

        Args:
            grid: The cells.
            connectivity: 4, or 8.
            selected: (256,) True for codes that become features.
            min_triangle: Returns square pixels for a window: vertices that simplifying left on its seams are dropped
                if the triangle with their neighbours is smaller. None: all stay.
            smooth: Rounds of smoothing; the last ones near seams are still to be done.
        """
        self._selected, self._grid, self._touch_at_corners = selected, grid, connectivity == 8
        self._min_triangle, self._smooth = min_triangle, smooth
        self._graph, self._regions = _concatenate_graphs([], []), Regions.empty()
        self._near_seams, self._unfinished = np.empty((0, 2)), Unfinished.none()
        self._numbers_below = np.zeros(grid.width, np.int32)

    def add_row(self, cells: Sequence[OpenRegions]) -> Features:
        """Add a row of cells, from left to right; return the features that are finished."""
        row, row_stop = cells[0].window.row, cells[0].window.row_stop
        offsets = np.cumsum([len(self._regions), *(len(cell.regions) for cell in cells)]).tolist()
        sides = [[_shift(side, by) for side in cell.sides] for cell, by in zip(cells, offsets, strict=False)]
        regions = _concatenate_regions([self._regions, *(cell.regions for cell in cells)], [0, *offsets])
        parent, group = np.arange(len(regions)), np.arange(len(regions))
        unite_pairs(group, regions.touching.astype(np.int64) - 1)
        borders = []
        for seam in self._seams(cells, sides, row):
            _unite_across(parent, group, regions.codes, seam[0], seam[1], self._touch_at_corners)
            borders.append(_seam_border(regions.codes, seam))
        graphs = [self._graph, *(cell.graph for cell in cells), *borders]
        graph = _concatenate_graphs(graphs, [0, *offsets[:-1], *(0 for _ in borders)])
        is_last = row_stop == self._grid.height
        nodes = link_across_seams(graph, self._grid, row, row_stop + is_last)
        if self._min_triangle or self._smooth:
            graph = self._generalize(graph, nodes, cells, row_stop)
        below = np.zeros(0, np.int32) if is_last else np.concatenate([lower for _, _, lower, _ in sides])
        is_open = _gather(parent, group, regions.sums, regions.first_pixels, below)
        features = self._finished_features(graph, regions, parent, group, is_open)
        self._keep_open(graph, regions, parent, group, is_open, below, row_stop)
        return features

    def _generalize(self, graph: ArcGraph, nodes: SeamNodes, cells: Sequence[OpenRegions], row_stop: int) -> ArcGraph:
        """Simplify and smooth borders across seams; keep the vertices near the seam below for the next row."""
        vertices = np.concatenate([self._near_seams, *(cell.near_seams for cell in cells), nodes.fixed])
        distance = self._grid.seam_distance
        if self._min_triangle is not None:
            row = max(0, row_stop - 2 * self._grid.cell_size)  # two rows of cells meet at the seam above
            graph, left = drop_seam_vertices(
                graph,
                nodes.bends,
                vertices,
                min_triangle=self._min_triangle(Window(0, row, self._grid.width, row_stop - row)),
                max_distance=distance,
                between_seams=not self._smooth,
            )
            vertices = np.concatenate([vertices, left])
        if self._smooth:
            unfinished = Unfinished.concatenated([self._unfinished, *(cell.unfinished for cell in cells)])
            graph, vertices, self._unfinished = smooth_across_seams(
                graph, nodes, vertices, unfinished, rounds=self._smooth
            )
            distance = max(distance, max_needed_distance(self._smooth))
        self._near_seams = vertices[(vertices[:, 1] >= row_stop - distance) & (vertices[:, 1] < row_stop)]
        return graph

    def _seams(self, cells: Sequence[OpenRegions], sides: Sequence[Sequence[Numbers]], row: int) -> Iterator[Seam]:
        """Yield the seams of a row of cells: those between neighbours, then the one above."""
        for cell, west, east in zip(cells, sides, sides[1:], strict=False):
            yield east[3], west[1], cell.window.col_stop, row, SOUTH
        if row:
            yield self._numbers_below, np.concatenate([upper for upper, *_ in sides]), 0, row, EAST

    def _finished_features(
        self,
        graph: ArcGraph,
        regions: Regions,
        parent: NDArray[np.intp],
        group: NDArray[np.intp],
        is_open: NDArray[np.bool_],
    ) -> Features:
        """Build the finished features, in the order of their first pixels."""
        first_pixels = regions.first_pixels
        chosen = np.flatnonzero((parent == np.arange(parent.size)) & ~is_open & self._selected[regions.codes])
        chosen = chosen[np.lexsort([first_pixels[chosen], group[chosen], first_pixels[group[chosen]]])]
        position = np.full(parent.size + 1, -1, np.int32)
        position[chosen + 1] = np.arange(chosen.size)
        position[1:] = position[parent + 1]
        return build_features(graph, regions, chosen, group[chosen], position)

    def _keep_open(
        self,
        graph: ArcGraph,
        regions: Regions,
        parent: NDArray[np.intp],
        group: NDArray[np.intp],
        is_open: NDArray[np.bool_],
        below: Numbers,
        row_stop: int,
    ) -> None:
        """Keep the open regions, renumbered, without borders that are no longer needed."""
        kept = np.flatnonzero((parent == np.arange(parent.size)) & is_open)
        numbers = np.zeros(parent.size + 1, np.int32)
        numbers[kept + 1] = np.arange(1, kept.size + 1)
        numbers[1:] = numbers[parent + 1]
        useful = ALL_CODES if self._min_triangle or self._smooth else self._selected
        is_useful = np.append(False, is_open & useful[regions.codes])
        arcs = graph.arcs
        lowest = np.maximum(arcs.xy[arcs.starts[:-1], 1], arcs.xy[arcs.starts[1:] - 1, 1])
        useless = ~(is_useful[arcs.left] | is_useful[arcs.right]) & (lowest < row_stop)
        self._graph, self._numbers_below = select_arcs(graph, numbers, dropped=useless), numbers[below]
        touching = np.column_stack([numbers[kept + 1], numbers[group[kept] + 1]])
        self._regions = Regions(
            regions.codes[kept],
            regions.sums[kept],
            regions.first_pixels[kept],
            touching[touching[:, 0] != touching[:, 1]],
        )


def _shift(numbers: Numbers, by: int) -> Numbers:
    """Add an offset to numbers of regions; 0 (nodata) stays 0."""
    return np.where(numbers, numbers + np.int32(by), np.int32(0))


def _concatenate_regions(batches: Sequence[Regions], offsets: Sequence[int]) -> Regions:
    return Regions(
        np.concatenate([regions.codes for regions in batches]),
        np.concatenate([regions.sums for regions in batches]),
        np.concatenate([regions.first_pixels for regions in batches]),
        np.concatenate([regions.touching + np.int32(by) for regions, by in zip(batches, offsets, strict=False)]),
    )


def _concatenate_graphs(graphs: Sequence[ArcGraph], offsets: Sequence[int]) -> ArcGraph:
    """Concatenate arcs; the region numbers of each graph are shifted by its offset."""
    no_regions = np.empty(0, np.int32)
    graphs = [_straight_arcs(np.empty((0, 2, 2), np.int64), no_regions, no_regions, SOUTH), *graphs]
    arc_offsets = np.cumsum([0, *(len(graph.arcs) for graph in graphs)])
    shifts = list(zip(graphs, [0, *offsets], arc_offsets, strict=False))
    left = np.concatenate([_shift(graph.arcs.left, by) for graph, by, _ in shifts])
    right = np.concatenate([_shift(graph.arcs.right, by) for graph, by, _ in shifts])
    next_dart = np.concatenate([_shift_darts(graph.next_dart, arcs) for graph, _, arcs in shifts])
    next_same = np.concatenate([_shift_darts(graph.next_dart_same_region, arcs) for graph, _, arcs in shifts])
    ends = np.cumsum([0, *(graph.arcs.xy.shape[0] for graph in graphs)])
    starts = np.concatenate([[0], *(graph.arcs.starts[1:] + by for graph, by in zip(graphs, ends, strict=False))])
    return ArcGraph(
        Arcs(np.concatenate([graph.arcs.xy.astype(np.float64) for graph in graphs]), starts, left, right),
        np.concatenate([graph.directions for graph in graphs]),
        next_dart,
        next_same,
        np.concatenate([graph.is_vertex for graph in graphs]),
    )


def _shift_darts(darts: Numbers, arcs: int) -> Numbers:
    """Renumber darts for `arcs` arcs put before theirs; -1 (unknown) stays -1."""
    return np.where(darts >= 0, darts + np.int32(2 * arcs), np.int32(-1))


def _seam_border(codes: NDArray[np.uint8], seam: Seam) -> ArcGraph:
    """Return the arcs along a seam: straight, each between two regions of different codes."""
    left, right, col, row, direction = seam
    ranges, left, right = _runs(left, right, np.append(np.uint8(IGNORE_INDEX), codes))
    xy = np.empty((left.size, 2, 2), np.int64)
    xy[..., 0] = col + ranges * (direction == EAST)
    xy[..., 1] = row + ranges * (direction == SOUTH)
    return _straight_arcs(xy, left, right, direction)


def _straight_arcs(ends: NDArray[np.int64], left: Numbers, right: Numbers, direction: int) -> ArcGraph:
    """Make arcs of two vertices each, (arcs, 2, 2); the next darts are not yet known."""
    count = left.size
    return ArcGraph(
        Arcs(ends.reshape(-1, 2).astype(np.float64), 2 * np.arange(count + 1), left, right),
        np.full((count, 2), direction, np.int8),
        np.full(2 * count, -1, np.int32),
        np.full(2 * count, -1, np.int32),
        np.ones((count, 2), np.bool_),
    )


@jit("i4[::1]", "i4[::1]", "u1[::1]")
def _runs(left: Any, right: Any, codes: Any) -> Any:
    """Return runs of pixels with the same two regions of different codes: (runs, 2) start and end, left, right."""
    count, size = 0, left.size
    ranges, one, two = np.empty((size, 2), np.int64), np.empty(size, np.int32), np.empty(size, np.int32)
    for at in range(size):
        if codes[left[at]] == codes[right[at]]:
            continue
        if count and ranges[count - 1, 1] == at and one[count - 1] == left[at] and two[count - 1] == right[at]:
            ranges[count - 1, 1] = at + 1
            continue
        ranges[count, 0], ranges[count, 1] = at, at + 1
        one[count], two[count] = left[at], right[at]
        count += 1
    return ranges[:count].copy(), one[:count].copy(), two[:count].copy()


@jit("i8[::1]", "i8[::1]", "u1[::1]", "i4[::1]", "i4[::1]", "b1")
def _unite_across(parent: Any, group: Any, codes: Any, left: Any, right: Any, touch_at_corners: Any) -> None:
    """Unite regions of one code that share a side across a seam; group those that share a corner if asked for."""
    for at in range(left.size):
        here = left[at] - 1
        if here < 0:
            continue
        there = right[at] - 1
        if there >= 0 and codes[here] == codes[there]:
            union(parent, here, there)
            union(group, here, there)
        if touch_at_corners:
            for neighbour in (at - 1, at + 1):
                there = right[neighbour] - 1 if 0 <= neighbour < right.size else -1
                if there >= 0 and codes[here] == codes[there]:
                    union(group, here, there)


@jit("i8[::1]", "i8[::1]", "f8[:, ::1]", "i8[::1]", "i4[::1]")
def _gather(parent: Any, group: Any, sums: Any, first_pixels: Any, below: Any) -> Any:
    """Add up the sums of united regions at the first of them, flatten `parent` and `group`; return which are open.

    A group's first pixel is stored at its first region.
    """
    is_open = np.zeros(parent.size, np.bool_)
    mark_open(is_open, group, below)
    flatten(parent)
    flatten(group)
    for number in range(parent.size):
        whole = parent[number]
        if whole != number:
            for column in range(sums.shape[1]):
                sums[whole, column] += sums[number, column]
            first_pixels[whole] = min(first_pixels[whole], first_pixels[number])
    for number in range(parent.size):
        first = group[number]
        first_pixels[first] = min(first_pixels[first], first_pixels[parent[number]])
    return is_open[group]
