"""Outlines of the regions of a class raster.

Rings are kept on the lattice of pixel corners, in whole numbers, until polygons are made of them. Where three polygons
meet, each of them gets a vertex: neighbours then share the same edges, vertex by vertex. That is what lets polygons be
merged, simplified or warped together without tearing the map.
"""

from __future__ import annotations

import math
from array import array
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import shapely
from numpy.typing import NDArray
from rasterio.enums import MaskFlags
from rasterio.errors import RasterioError
from rasterio.features import shapes
from rasterio.windows import Window as RioWindow

from geopsp.errors import RasterError
from geopsp.grid import Grid
from geopsp.legend import IGNORE
from geopsp.scene import open_raster

CODE_TYPES = {"uint8", "int8", "uint16", "int16", "int32"}

BLOCK = 2048
"""Pixels on a side of the blocks in which a raster is checked."""

Polygons = NDArray[np.object_]
Borders = tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class Rings:
    """Rings of polygons as flat arrays, a polygon's shell before its holes."""

    nodes: NDArray[np.int64]
    """(nodes, 2) columns and rows of pixel corners; a ring's first node is also its last."""

    ring_of: NDArray[np.int64]
    """(nodes,)"""

    polygon_of: NDArray[np.int64]
    """(rings,)"""

    codes: NDArray[np.int64]
    """(polygons,)"""


def trace(raster: str | Path) -> Rings:
    """The outlines of all 4-connected regions, in the order of their first pixels, row by row.

    Raises:
        InputNotFoundError: if there is no such raster.
        RasterError: if it is not a whole raster of one band of codes.
    """
    flat, sizes, polygon_of, codes = array("d"), array("q"), array("q"), array("q")
    with open_raster(raster) as dataset:
        _require_codes(dataset)
        inverse = ~dataset.transform
        for rings, code in _regions(dataset):
            polygon_of.extend([len(codes)] * len(rings))
            codes.append(code)
            sizes.extend(map(len, rings))
            flat.extend(chain.from_iterable(chain.from_iterable(rings)))
    x, y = np.array(flat, float).reshape(-1, 2).T
    columns, rows = inverse.c + x * inverse.a + y * inverse.b, inverse.f + x * inverse.d + y * inverse.e
    nodes = np.rint(np.column_stack([columns, rows])).astype(np.int64)
    ring_of = np.repeat(np.arange(len(sizes)), np.array(sizes, np.int64))
    return _in_reading_order(Rings(nodes, ring_of, np.array(polygon_of, np.int64), np.array(codes, np.int64)))


def _require_codes(dataset: Any) -> None:
    """Reads the raster once: GDAL's polygonizer passes over blocks that it cannot read, and says nothing."""
    if dataset.count != 1 or dataset.dtypes[0] not in CODE_TYPES:
        found = f"{dataset.count} band(s) of {dataset.dtypes[0]}"
        raise RasterError(f"{dataset.name} has {found}; needed one band of class codes (uint8). Export the class band.")
    for window in Grid(dataset.crs, dataset.transform, dataset.width, dataset.height).blocks(BLOCK):
        area = RioWindow(window.col, window.row, window.width, window.height)
        try:
            codes = dataset.read(1, window=area, masked=True).compressed()
        except RasterioError as error:
            raise RasterError(f"{dataset.name} is damaged ({error}). Make or fetch it again.") from error
        if codes.size and (codes.min() < 0 or codes.max() > IGNORE):
            found = f"values from {codes.min()} to {codes.max()}"
            raise RasterError(f"{dataset.name} holds {found}; class codes are 0 to {IGNORE - 1}. Reclassify it first.")


def _regions(dataset: Any) -> Iterator[tuple[list[list[tuple[float, float]]], int]]:
    """Rings in CRS units and code of each region that holds data."""
    flags = dataset.mask_flag_enums[0]
    masked = MaskFlags.per_dataset in flags and MaskFlags.all_valid not in flags
    absent = {IGNORE, dataset.nodata}
    for shape, code in shapes(rasterio.band(dataset, 1), mask=dataset.read_masks(1) if masked else None):
        if code not in absent:
            yield shape["coordinates"], int(code)


def _in_reading_order(rings: Rings) -> Rings:
    """The same polygons, sorted by their uppermost leftmost node, which no two share."""
    if not rings.codes.size:
        return rings
    polygon = rings.polygon_of[rings.ring_of]
    starts = np.searchsorted(polygon, np.arange(rings.codes.size))
    order = np.argsort(np.minimum.reduceat(_keys(rings.nodes, axis=0), starts))
    rank = np.argsort(order)
    new_rings = np.argsort(rank[rings.polygon_of], kind="stable")
    ring_of = np.argsort(new_rings)[rings.ring_of]
    moved = np.argsort(ring_of, kind="stable")
    return Rings(rings.nodes[moved], ring_of[moved], rank[rings.polygon_of][new_rings], rings.codes[order])


def _keys(nodes: NDArray[np.int64], *, axis: int) -> NDArray[np.int64]:
    """One number a node, in the order in which nodes follow one another along lines of the axis (0: along rows)."""
    result: NDArray[np.int64] = nodes[:, 1 - axis] * (nodes.max(initial=0) + 1) + nodes[:, axis]
    return result


def match_nodes(rings: Rings) -> Rings:
    """The same rings, with a node in each wherever another polygon has one on the same line."""
    nodes, ring_of = rings.nodes, rings.ring_of
    for axis in (0, 1):
        nodes, ring_of = _fill(nodes, ring_of, axis=axis)
    return Rings(nodes, ring_of, rings.polygon_of, rings.codes)


def _fill(
    nodes: NDArray[np.int64], ring_of: NDArray[np.int64], *, axis: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Puts all nodes that lie inside an edge along the axis into that edge, in its direction."""
    keys = _keys(nodes, axis=axis)
    lattice, positions = np.unique(keys, return_index=True)
    start, stop = keys[:-1], keys[1:]
    along = (ring_of[:-1] == ring_of[1:]) & (nodes[:-1, 1 - axis] == nodes[1:, 1 - axis])
    low = np.searchsorted(lattice, np.minimum(start, stop), "right")
    high = np.searchsorted(lattice, np.maximum(start, stop), "left")
    count = np.where(along, high - low, 0)
    edge = np.repeat(np.arange(count.size), count)
    rank = np.arange(edge.size) - np.repeat(np.cumsum(count) - count, count)
    found = nodes[positions[np.where(start < stop, low, high - 1)[edge] + np.where(start < stop, 1, -1)[edge] * rank]]
    return np.insert(nodes, edge + 1, found, axis=0), np.insert(ring_of, edge + 1, ring_of[edge])


def build(rings: Rings, grid: Grid) -> Polygons:
    """Polygons in CRS units, of the very coordinates that GDAL gives them."""
    if not rings.codes.size:
        return np.empty(0, object)
    t, (columns, rows) = grid.transform, rings.nodes.T
    xy = np.column_stack([t.c + columns * t.a + rows * t.b, t.f + columns * t.d + rows * t.e])
    lines: Any = shapely.linearrings(xy, indices=rings.ring_of)
    polygons: Any = shapely.polygons(lines, indices=rings.polygon_of)
    return np.asarray(polygons, object)


def borders(rings: Rings, grid: Grid) -> Borders:
    """(first, second, length): pairs of polygons that share edges, and how long these are together.

    Needs matched nodes: an edge of two polygons is then the same pair of nodes in both. Lengths are in CRS units; in
    a geographic CRS, in degrees of latitude at the raster's middle.
    """
    width, height = grid.cell_size
    if grid.crs.is_geographic:
        width *= math.cos(math.radians((grid.bounds()[1] + grid.bounds()[3]) / 2))
    edges = np.flatnonzero(rings.ring_of[:-1] == rings.ring_of[1:])
    step = np.abs(rings.nodes[edges + 1] - rings.nodes[edges])
    keys = _keys(rings.nodes, axis=0)
    edge = 2 * np.minimum(keys[edges], keys[edges + 1]) + (step[:, 0] > 0)
    order = np.argsort(edge, kind="stable")
    twins = np.flatnonzero(edge[order][:-1] == edge[order][1:])
    one, two = order[twins], order[twins + 1]
    polygon = rings.polygon_of[rings.ring_of[edges]]
    pairs = np.sort(np.column_stack([polygon[one], polygon[two]]), axis=1)
    count = max(1, rings.codes.size)
    found, inverse = np.unique(pairs[:, 0] * count + pairs[:, 1], return_inverse=True)
    length = np.bincount(inverse, step[one] @ (width, height), found.size).astype(np.float64)
    first, second = np.divmod(found, np.int64(count))
    return first, second, length
