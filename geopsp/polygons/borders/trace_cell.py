"""One cell of a raster: the regions inside it are finished, those at its seams go on in its neighbours."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.grid import Window
from geopsp.core.jit import jit
from geopsp.polygons.borders.rings import faces
from geopsp.polygons.borders.smooth import FAR, REACH, smooth_arcs
from geopsp.polygons.borders.topology import Arcs, RegionRings, outlines
from geopsp.polygons.borders.trace_arcs import ArcGraph, select, trace
from geopsp.polygons.features import Features
from geopsp.polygons.ground_metric import GroundMetric
from geopsp.polygons.regions.connected_regions import find, label_regions, union
from geopsp.polygons.zonal_stats import SUMS, zonal_sums

EVERY = np.ones(256, np.bool_)


Shape = Callable[[Arcs, RegionRings], Arcs]
"""What arcs become, given the faces that they part; nodes stay."""


@dataclass(frozen=True, slots=True, eq=False)
class Regions:
    """What is known of regions 1, 2, ..."""

    codes: NDArray[np.uint8]
    sums: NDArray[np.float64]

    first: NDArray[np.int64]
    """(regions,) each one's first pixel, counted row by row through the whole raster."""

    links: NDArray[np.int32]
    """(links, 2) numbers of regions that are one feature, as they touch at a corner."""

    @classmethod
    def none(cls) -> Regions:
        return cls(np.empty(0, np.uint8), np.empty((0, SUMS)), np.empty(0, np.int64), np.empty((0, 2), np.int32))

    def __len__(self) -> int:
        return self.codes.size


@dataclass(frozen=True, slots=True, eq=False)
class OpenRegions:
    """What goes on in the neighbours."""

    window: Window
    net: ArcGraph
    """Arcs of which a side goes on; a number of 0 is a region that does not, or nothing."""

    regions: Regions

    near: NDArray[np.float64]
    """(vertices, 2) of all borders near seams, but not on them, where borders are simplified or smoothed; else
    none."""

    sides: tuple[NDArray[np.int32], NDArray[np.int32], NDArray[np.int32], NDArray[np.int32]]
    """Numbers of the regions along the upper, right, lower and left side; 0 is nothing."""


@dataclass(frozen=True, slots=True)
class CellGrid:
    """Cells of `side` pixels that a raster is cut into."""

    width: int
    height: int
    side: int

    @property
    def reach(self) -> float:
        """Pixels from a seam up to which vertices count as near."""
        return max(64.0, self.side / 8)

    @property
    def hold(self) -> float:
        """Pixels from where a border meets a seam up to which its vertices wait to be smoothed.

        As far as triangles that hang on them may reach, all vertices are near.
        """
        return self.reach - 2 * REACH * FAR

    def rows(self) -> list[list[Window]]:
        """Rows of cells."""
        whole = Window(0, 0, self.width, self.height)
        return [
            [Window(col, row, self.side, self.side).intersect(whole) for col in range(0, self.width, self.side)]
            for row in range(0, self.height, self.side)
        ]

    def seams(self, window: Window) -> tuple[bool, bool, bool, bool]:
        """True for the upper, right, lower and left side of a cell if another cell lies there."""
        return window.row > 0, window.col_stop < self.width, window.row_stop < self.height, window.col > 0


def trace_cell(
    codes: NDArray[np.uint8],
    window: Window,
    lattice: CellGrid,
    metric: GroundMetric,
    *,
    connectivity: int = 4,
    wanted: NDArray[np.bool_] = EVERY,
    shares: NDArray[np.float32] | None = None,
    shape: Shape | None = None,
    smooth: int = 0,
) -> tuple[Features, OpenRegions]:
    """The finished features of a cell, and what goes on.

    Args:
        codes: (rows + 2, cols + 2) with a pixel around the cell.
        window: Of the cell.
        lattice: That it is one of.
        metric: Of the raster.
        connectivity: 4, or 8: regions of one code that touch at corners are one feature.
        wanted: (256,) True for the codes of features that are made; what borders only on others is forgotten.
        shares: (rows, cols) confidence.
        shape: Simplifies arcs.
        smooth: Rounds of smoothing.
    """
    inner = codes[1:-1, 1:-1]
    labels, count = label_regions(inner)
    net = trace(labels)
    seams = lattice.seams(window)
    met, on_seam = _at_seams(net.arcs.xy, net.arcs.starts, labels.shape, seams)
    if shape is not None:
        every = np.arange(-1, count, dtype=np.int32)
        net = replace(net, arcs=shape(net.arcs, faces(net, every, count)))
    if smooth:
        net = replace(net, arcs=smooth_arcs(net.arcs, smooth, waits=met, hold=lattice.hold))
    moved = shape is not None or smooth > 0
    net = replace(net, arcs=replace(net.arcs, xy=net.arcs.xy + np.array([window.col, window.row], net.arcs.xy.dtype)))
    first, own_codes = _firsts(labels, inner, count, window.col, window.row, lattice.width)
    links = _links(labels, inner) if connectivity == 8 else np.empty((0, 2), np.int32)
    group, opened = _groups(labels, count, links, seams)
    known = Regions(own_codes, zonal_sums(labels, count, codes, shares, metric, window), first, links)
    near = _near(net.arcs, met, window, seams, lattice.reach) if moved else np.empty((0, 2))
    use = EVERY if moved else wanted  # the others' borders are in the way of those that move
    piece = _piece(net, known, opened, use, window, labels, met, on_seam, near)
    return _finished(net, known, group, ~opened & wanted[own_codes]), piece


def build_features(
    net: ArcGraph,
    known: Regions,
    numbers: NDArray[np.intp],
    group: NDArray[np.intp],
    regions: NDArray[np.int32],
) -> Features:
    """Finished features.

    Args:
        net: Arcs of their borders.
        known: Of all regions.
        numbers: (parts,) indices of the regions, those of a feature together.
        group: (parts,) the same for parts of one feature.
        regions: (labels,) for each label in the arcs its place in `numbers`, or -1.
    """
    found = outlines(net.arcs, faces(net, regions, numbers.size), kept=net.kept)
    starts = np.flatnonzero(np.diff(group, prepend=-1)) if group.size else np.empty(0, np.intp)
    parts = np.append(starts, numbers.size).astype(np.int64)
    if not starts.size:
        return Features(found, parts, np.empty(0, np.uint8), np.empty((0, SUMS)))
    return Features(
        found,
        parts,
        known.codes[numbers[starts]],
        np.add.reduceat(known.sums[numbers], starts),
    )


def _finished(net: ArcGraph, known: Regions, group: NDArray[np.intp], chosen: NDArray[np.bool_]) -> Features:
    """Features of chosen regions, in the order of their first pixels."""
    closed = np.flatnonzero(chosen)
    numbers = closed[np.argsort(group[closed], kind="stable")]
    regions = np.full(chosen.size + 1, -1, np.int32)
    regions[numbers + 1] = np.arange(numbers.size)
    return build_features(net, known, numbers, group[numbers], regions)


def _piece(
    net: ArcGraph,
    known: Regions,
    opened: NDArray[np.bool_],
    wanted: NDArray[np.bool_],
    window: Window,
    labels: NDArray[np.int32],
    met: NDArray[np.bool_],
    on_seam: NDArray[np.bool_],
    near: NDArray[np.float64],
) -> OpenRegions:
    """What goes on of the open regions, numbered anew; without borders of which nobody wants a side."""
    going = np.flatnonzero(opened)
    renumber = np.zeros(opened.size + 1, np.int32)
    renumber[going + 1] = np.arange(1, going.size + 1)
    links = renumber[known.links]
    regions = Regions(known.codes[going], known.sums[going], known.first[going], links[links.all(axis=1)])
    upper, right, lower, left = (renumber[side] for side in (labels[0], labels[:, -1], labels[-1], labels[:, 0]))
    of_use = np.append(False, opened & wanted[known.codes])
    idle = ~(of_use[net.arcs.left] | of_use[net.arcs.right] | met.any(axis=1))
    going_on = select(net, renumber, dropped=on_seam | idle, met=met)
    return OpenRegions(window, going_on, regions, near, (upper, right, lower, left))


def _near(
    arcs: Arcs, met: NDArray[np.bool_], window: Window, seams: tuple[bool, bool, bool, bool], reach: float
) -> NDArray[np.float64]:
    """The vertices near a seam, without those where arcs meet one."""
    upper, right, lower, left = seams
    x, y = arcs.xy.T
    found = np.zeros(x.size, np.bool_)
    for here, away in (
        (upper, y - window.row), (right, window.col_stop - x), (lower, window.row_stop - y), (left, x - window.col),
    ):  # fmt: skip
        if here:
            found |= away <= reach
    found[arcs.starts[:-1][met[:, 0]]] = False
    found[arcs.starts[1:][met[:, 1]] - 1] = False
    return np.unique(arcs.xy[found].astype(np.float64), axis=0)


@jit
def _firsts(labels: Any, codes: Any, count: Any, col: Any, row: Any, width: Any) -> Any:
    """First pixels and codes of regions, which are numbered in the order of their first pixels."""
    first, found = np.empty(count, np.int64), np.empty(count, np.uint8)
    number = 1
    for y in range(labels.shape[0]):
        for x in range(labels.shape[1]):
            if labels[y, x] == number:
                first[number - 1], found[number - 1] = (row + y) * width + col + x, codes[y, x]
                number += 1
    return first, found


@jit
def _links(labels: Any, codes: Any) -> Any:
    """Pairs of regions of one code that touch at a corner."""
    found = []
    for row in range(1, labels.shape[0]):
        for col in range(1, labels.shape[1]):
            for here, there in ((col, col - 1), (col - 1, col)):
                one, two = labels[row - 1, there], labels[row, here]
                if one != two and one > 0 and two > 0 and codes[row - 1, there] == codes[row, here]:
                    found.append((one, two))
    pairs = np.empty((len(found), 2), np.int32)
    for place, (one, two) in enumerate(found):
        pairs[place, 0], pairs[place, 1] = one, two
    return pairs


@jit
def _groups(labels: Any, count: Any, links: Any, seams: Any) -> Any:
    """The first region of the feature that each belongs to, and whether that feature lies at a seam."""
    group = np.arange(count)
    for one, two in links:
        union(group, one - 1, two - 1)
    opened = np.zeros(count, np.bool_)
    upper, right, lower, left = seams
    if upper:
        open_groups(opened, group, labels[0])
    if right:
        open_groups(opened, group, labels[:, -1])
    if lower:
        open_groups(opened, group, labels[-1])
    if left:
        open_groups(opened, group, labels[:, 0])
    for region in range(count):
        group[region] = find(group, region)
        opened[region] = opened[group[region]]
    return group, opened


@jit
def open_groups(opened: Any, group: Any, numbers: Any) -> None:
    """The features of these regions are open; 0 is nothing."""
    for number in numbers:
        if number:
            opened[find(group, number - 1)] = True


@jit
def _at_seams(xy: Any, starts: Any, shape: Any, seams: Any) -> Any:
    """(arcs, 2) which ends lie at a seam, and (arcs,) which arcs run along one."""
    count = starts.size - 1
    met, along = np.zeros((count, 2), np.bool_), np.zeros(count, np.bool_)
    upper, right, lower, left = seams
    for arc in range(count):
        for end in range(2):
            at, near = (starts[arc], starts[arc] + 1) if end == 0 else (starts[arc + 1] - 1, starts[arc + 1] - 2)
            x, y = xy[at, 0], xy[at, 1]
            on_upper, on_right = upper and y == 0, right and x == shape[1]
            on_lower, on_left = lower and y == shape[0], left and x == 0
            met[arc, end] = on_upper or on_right or on_lower or on_left
            level, upright = xy[near, 1] == y, xy[near, 0] == x
            along[arc] |= (level and (on_upper or on_lower)) or (upright and (on_left or on_right))
    return met, along
