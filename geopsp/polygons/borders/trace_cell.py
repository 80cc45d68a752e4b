"""Trace one cell of a raster: finished features, and open regions that continue in other cells."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.connected_regions import find, flatten, label_regions, unite_pairs
from geopsp.core.grid import Window
from geopsp.core.jit import jit
from geopsp.polygons.borders.rings import build_rings
from geopsp.polygons.borders.simplify import simplify_arcs
from geopsp.polygons.borders.smooth import Unfinished, needed_distance, smooth_arcs
from geopsp.polygons.borders.topology import build_polygons
from geopsp.polygons.borders.trace_arcs import ArcGraph, select_arcs, trace_arcs
from geopsp.polygons.features import Features
from geopsp.polygons.ground_metric import GroundMetric
from geopsp.polygons.zonal_stats import NUM_SUMS, zonal_sums

ALL_CODES = np.ones(256, np.bool_)


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """Codes and sums of regions, which are numbered 1, 2, ..."""

    codes: NDArray[np.uint8]
    sums: NDArray[np.float64]

    first_pixels: NDArray[np.int64]
    """(regions,) first pixel of each, counted row by row over the whole raster."""

    touching: NDArray[np.int32]
    """(n, 2) numbers of regions that form one feature because they touch at a corner."""

    @classmethod
    def empty(cls) -> Regions:
        return cls(np.empty(0, np.uint8), np.empty((0, NUM_SUMS)), np.empty(0, np.int64), np.empty((0, 2), np.int32))

    def __len__(self) -> int:
        return self.codes.size


@dataclass(frozen=True, slots=True, eq=False)
class OpenRegions:
    """Regions of a cell that continue in other cells."""

    window: Window
    graph: ArcGraph
    """Arcs with an open region on a side; other regions have the number 0, like nodata."""

    regions: Regions

    near_seams: NDArray[np.float64]
    """(vertices, 2) vertices of all borders near seams, but not on them; none if nothing is simplified or smoothed."""

    unfinished: Unfinished
    """What is left of the smoothing of their borders."""

    sides: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]
    """Numbers of the regions along the upper, right, lower and left side; 0 is nodata."""


@dataclass(frozen=True, slots=True)
class CellGrid:
    """A raster divided into square cells."""

    width: int
    height: int
    cell_size: int

    @property
    def seam_distance(self) -> float:
        """Distance from a seam, in pixels, up to which vertices count as near."""
        return max(64.0, self.cell_size / 8)

    def rows(self) -> list[list[Window]]:
        """Return rows of cells."""
        whole, size = Window(0, 0, self.width, self.height), self.cell_size
        return [
            [Window(col, row, size, size).intersect(whole) for col in range(0, self.width, size)]
            for row in range(0, self.height, size)
        ]

    def seams(self, window: Window) -> tuple[bool, bool, bool, bool]:
        """Return True for the upper, right, lower and left side of a cell if there is another cell."""
        return window.row > 0, window.col_stop < self.width, window.row_stop < self.height, window.col > 0


def trace_cell(
    codes: NDArray[np.uint8],
    window: Window,
    grid: CellGrid,
    metric: GroundMetric,
    *,
    connectivity: int = 4,
    selected: NDArray[np.bool_] = ALL_CODES,
    confidence: NDArray[np.float32] | None = None,
    min_triangle: float = 0.0,
    smooth: int = 0,
) -> tuple[Features, OpenRegions]:
    """Trace a cell; return its finished features and its open regions.

    Args:
        codes: (rows + 2, cols + 2) codes of the cell and one pixel around it.
        window: The cell.
        grid: The grid of cells that it belongs to.
        metric: Pixel sizes of the raster.
        connectivity: 4, or 8: regions of one code that touch at corners are one feature.
        selected: (256,) True for codes that become features; borders between other codes are dropped.
        confidence: (rows, cols)
        min_triangle: Square pixels of the largest triangle whose vertex is simplified away; 0: nothing is simplified.
        smooth: Rounds of smoothing.
    """
    inner = codes[1:-1, 1:-1]
    labels, count = label_regions(inner)
    graph = trace_arcs(labels)
    seams = grid.seams(window)
    at_seam, on_seam = _find_seam_arcs(graph.arcs.xy, graph.arcs.starts, labels.shape, seams)
    if min_triangle:
        rings = build_rings(graph, np.arange(-1, count, dtype=np.int32), count)
        graph = replace(graph, arcs=simplify_arcs(graph, rings, min_triangle))
    unfinished = Unfinished.none()
    if smooth:
        arcs, unfinished = smooth_arcs(graph.arcs, smooth, open_ends=at_seam)
        graph = replace(graph, arcs=arcs)
    generalized = min_triangle > 0 or smooth > 0
    origin = np.array([window.col, window.row], graph.arcs.xy.dtype)
    graph = replace(graph, arcs=replace(graph.arcs, xy=graph.arcs.xy + origin))
    unfinished = unfinished.shifted(origin)
    first_pixels, own_codes = _first_pixels(labels, inner, count, window.col, window.row, grid.width)
    touching = _touching_corners(labels, inner) if connectivity == 8 else np.empty((0, 2), np.int32)
    group, is_open = _group_features(labels, count, touching, seams)
    sums = zonal_sums(labels, count, codes, confidence, metric, window)
    regions = Regions(own_codes, sums, first_pixels, touching)
    near = np.empty((0, 2))
    if generalized:
        distance = max(
            grid.seam_distance if min_triangle else 0.0,
            needed_distance(graph.arcs, smooth, at_seam) if smooth else 0.0,
        )
        near = _vertices_near_seams(graph.arcs.xy, graph.arcs.starts, at_seam, _seam_lines(window, seams), distance)
    # Borders between other codes are kept if they may be in the way of those that move.
    useful = ALL_CODES if generalized else selected
    open_regions = _open_regions(graph, regions, is_open, useful, window, labels, at_seam, on_seam, near, unfinished)
    return _finished_features(graph, regions, group, ~is_open & selected[own_codes]), open_regions


def build_features(
    graph: ArcGraph,
    regions: Regions,
    chosen: NDArray[np.intp],
    group: NDArray[np.intp],
    position: NDArray[np.int32],
) -> Features:
    """Build finished features.

    Args:
        graph: Arcs of their borders.
        regions: All regions.
        chosen: (polygons,) indices of the regions, those of a feature together.
        group: (polygons,) equal numbers for regions of one feature.
        position: (labels,) for each label in the arcs its position in `chosen`, or -1.
    """
    polygons = build_polygons(graph.arcs, build_rings(graph, position, chosen.size), is_vertex=graph.is_vertex)
    starts = np.flatnonzero(np.diff(group, prepend=-1)) if group.size else np.empty(0, np.intp)
    parts = np.append(starts, chosen.size).astype(np.int64)
    if not starts.size:
        return Features(polygons, parts, np.empty(0, np.uint8), np.empty((0, NUM_SUMS)))
    return Features(
        polygons,
        parts,
        regions.codes[chosen[starts]],
        np.add.reduceat(regions.sums[chosen], starts),
    )


def _finished_features(
    graph: ArcGraph, regions: Regions, group: NDArray[np.intp], is_chosen: NDArray[np.bool_]
) -> Features:
    """Build the features of chosen regions, in the order of their first pixels."""
    chosen = np.flatnonzero(is_chosen)
    chosen = chosen[np.argsort(group[chosen], kind="stable")]
    position = np.full(is_chosen.size + 1, -1, np.int32)
    position[chosen + 1] = np.arange(chosen.size)
    return build_features(graph, regions, chosen, group[chosen], position)


def _open_regions(
    graph: ArcGraph,
    regions: Regions,
    is_open: NDArray[np.bool_],
    useful: NDArray[np.bool_],
    window: Window,
    labels: NDArray[np.int32],
    at_seam: NDArray[np.bool_],
    on_seam: NDArray[np.bool_],
    near_seams: NDArray[np.float64],
    unfinished: Unfinished,
) -> OpenRegions:
    """Renumber the open regions, without borders that no useful code needs."""
    kept = np.flatnonzero(is_open)
    numbers = np.zeros(is_open.size + 1, np.int32)
    numbers[kept + 1] = np.arange(1, kept.size + 1)
    touching = numbers[regions.touching]
    kept_regions = Regions(
        regions.codes[kept], regions.sums[kept], regions.first_pixels[kept], touching[touching.all(axis=1)]
    )
    upper, right, lower, left = (numbers[side] for side in (labels[0], labels[:, -1], labels[-1], labels[:, 0]))
    is_useful = np.append(False, is_open & useful[regions.codes])
    useless = ~(is_useful[graph.arcs.left] | is_useful[graph.arcs.right] | at_seam.any(axis=1))
    open_graph = select_arcs(graph, numbers, dropped=on_seam | useless, open_ends=at_seam)
    return OpenRegions(window, open_graph, kept_regions, near_seams, unfinished, (upper, right, lower, left))


def _seam_lines(window: Window, seams: tuple[bool, bool, bool, bool]) -> tuple[float, float, float, float]:
    """Return the row or column of the upper, right, lower and left seam; infinite where there is none."""
    upper, right, lower, left = seams
    return (
        float(window.row) if upper else -np.inf,
        float(window.col_stop) if right else np.inf,
        float(window.row_stop) if lower else np.inf,
        float(window.col) if left else -np.inf,
    )


@jit("f8[:, ::1]", "i8[::1]", "b1[:, ::1]", "UniTuple(f8, 4)", "f8")
def _vertices_near_seams(xy: Any, starts: Any, at_seam: Any, lines: Any, max_distance: Any) -> Any:
    """Return (n, 2) vertices of arcs near a seam, except the ends of arcs on a seam; nodes once for each arc."""
    upper, right, lower, left = lines
    near, used = np.empty_like(xy), 0
    for arc in range(len(at_seam)):
        for at in range(starts[arc] + at_seam[arc, 0], starts[arc + 1] - at_seam[arc, 1]):
            x, y = xy[at, 0], xy[at, 1]
            distance = min(y - upper, lower - y, x - left, right - x)
            near[used, 0], near[used, 1] = x, y
            used += distance <= max_distance
    return near[:used].copy()


@jit("i4[:, ::1]", "u1[:, :]", "i8", "i8", "i8", "i8")
def _first_pixels(labels: Any, codes: Any, count: Any, col: Any, row: Any, width: Any) -> Any:
    """Return first pixels and codes of regions, which are numbered in the order of their first pixels."""
    first_pixels, region_codes = np.empty(count, np.int64), np.empty(count, np.uint8)
    number = 1
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] == number:
                first_pixels[number - 1], region_codes[number - 1] = (row + y) * width + col + x, codes[y, x]
                number += 1
    return first_pixels, region_codes


@jit("i4[:, ::1]", "u1[:, :]")
def _touching_corners(labels: Any, codes: Any) -> Any:
    """Return (n, 2) regions of one code that touch at a corner."""
    found = []
    for row in range(1, labels.shape[0]):
        for col in range(1, labels.shape[1]):
            for lower, upper in ((col, col - 1), (col - 1, col)):
                one, two = labels[row - 1, upper], labels[row, lower]
                if one != two and one > 0 and two > 0 and codes[row - 1, upper] == codes[row, lower]:
                    found.append((one, two))
    pairs = np.empty((len(found), 2), np.int32)
    for pair, (one, two) in enumerate(found):
        pairs[pair, 0], pairs[pair, 1] = one, two
    return pairs


@jit("i4[:, ::1]", "i8", "i4[:, ::1]", "UniTuple(b1, 4)")
def _group_features(labels: Any, count: Any, touching: Any, seams: Any) -> Any:
    """Return the first region of the feature of each region, and whether that feature touches a seam."""
    group = np.arange(count)
    unite_pairs(group, touching - 1)
    is_open = np.zeros(count, np.bool_)
    upper, right, lower, left = seams
    if upper:
        mark_open(is_open, group, labels[0])
    if right:
        mark_open(is_open, group, labels[:, -1])
    if lower:
        mark_open(is_open, group, labels[-1])
    if left:
        mark_open(is_open, group, labels[:, 0])
    flatten(group)
    return group, is_open[group]


@jit()
def mark_open(is_open: Any, group: Any, numbers: Any) -> None:
    """Mark the features of regions with these numbers as open; 0 is nodata."""
    for number in numbers:
        if number:
            is_open[find(group, number - 1)] = True


@jit("f8[:, ::1]", "i8[::1]", "UniTuple(i8, 2)", "UniTuple(b1, 4)")
def _find_seam_arcs(xy: Any, starts: Any, shape: Any, seams: Any) -> Any:
    """Return (arcs, 2) which ends are on a seam, and (arcs,) which arcs run along one."""
    count = starts.size - 1
    at_seam, on_seam = np.zeros((count, 2), np.bool_), np.zeros(count, np.bool_)
    upper, right, lower, left = seams
    for arc in range(count):
        for end in range(2):
            at, inner = (starts[arc], starts[arc] + 1) if end == 0 else (starts[arc + 1] - 1, starts[arc + 1] - 2)
            x, y = xy[at, 0], xy[at, 1]
            on_upper, on_right = upper and y == 0, right and x == shape[1]
            on_lower, on_left = lower and y == shape[0], left and x == 0
            at_seam[arc, end] = on_upper or on_right or on_lower or on_left
            horizontal, vertical = xy[inner, 1] == y, xy[inner, 0] == x
            on_seam[arc] |= (horizontal and (on_upper or on_lower)) or (vertical and (on_left or on_right))
    return at_seam, on_seam
