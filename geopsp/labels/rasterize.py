"""Burn polygons to class codes: the same pixels for every window of a grid."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import shapely
from affine import Affine
from numpy.typing import NDArray
from rasterio.enums import MergeAlg
from rasterio.features import rasterize

from geopsp.core.grid import Grid
from geopsp.core.legend import IGNORE_INDEX

SNAP_STEPS = 2.0**20
"""Fractions of a pixel to which vertices are rounded, so that all windows of a grid use the same coordinates."""


CENTRE_OFFSET = (2.0**-22, 0.7 * 2.0**-22)
"""Columns and rows by which outlines are moved, less than a step: where an edge runs exactly through a pixel's centre
or corner, no rounding error decides. The first alone keeps GDAL's rule for centres: those on left edges lie outside."""


FAR = 2.0**30
"""Pixels from the window at which coordinates are clipped."""


MARGIN = 2
"""Pixels around a window outside of which outlines may be simplified."""


MAX_WORK = 2**26
"""Vertices times rows of one pass of burning; a window that takes more is burned in halves."""


SHIFTED = Affine.translation(1, 1)
"""The transform that rasterio gets: it warns of the identity, which it takes for a missing georeference."""


RASTERIZE_LOCK = threading.Lock()
"""rasterio changes the filters of warnings while it burns, which is not thread-safe."""


TWO_POLYGONS = 512
"""Sums of code + 256 from here on are those of several polygons."""


@dataclass(frozen=True, slots=True, eq=False)
class RasterizedLabels:
    """Labels on a grid."""

    codes: NDArray[np.uint8]
    """(rows, cols) class codes; IGNORE_INDEX where unlabelled."""

    conflict: NDArray[np.bool_]
    """(rows, cols); True where polygons of several classes overlap, so that the drawing order decided."""


@dataclass(frozen=True, slots=True, eq=False)
class PixelRings:
    """Single polygons in the pixel coordinates of a window, simplified outside of it."""

    polygons: list[dict[str, Any]]
    """As GeoJSON."""

    owner: NDArray[np.intp]
    """(polygons,) index of the shape that each is part of."""

    boxes: NDArray[np.intp]
    """(polygons, 4) left, top, right and bottom, one pixel wider, clipped to the window."""

    work: int
    """Vertices times rows that burning visits."""


def rasterize_polygons(
    shapes: NDArray[np.object_], codes: NDArray[np.uint8], grid: Grid, *, fill: int, all_touched: bool
) -> RasterizedLabels:
    """Burn polygons that contain a pixel's centre or, with `all_touched`, that touch the pixel.

    Args:
        shapes: (n,) polygons in the grid's CRS, the lowest first.
        codes: (n,) class codes; a polygon of IGNORE_INDEX has no class, but hides those below.
        grid: The pixels.
        fill: The code outside of all polygons.
        all_touched: True burns all pixels that a polygon touches.
    """
    rings = pixel_rings(shapes, grid, offset=CENTRE_OFFSET if all_touched else (CENTRE_OFFSET[0], 0.0))
    if rings.work > MAX_WORK and grid.height > 1:
        half = grid.height // 2
        window = grid.full_window
        halves = [window.intersect(window.shift(0, shift)) for shift in (half - grid.height, half)]
        parts = [rasterize_polygons(shapes, codes, grid.crop(w), fill=fill, all_touched=all_touched) for w in halves]
        return RasterizedLabels(np.vstack([p.codes for p in parts]), np.vstack([p.conflict for p in parts]))
    return _burn_rings(rings, codes[rings.owner], (grid.height, grid.width), fill, all_touched)


def pixel_rings(shapes: NDArray[np.object_], grid: Grid, *, offset: tuple[float, float]) -> PixelRings:
    """Return the outlines of polygons in pixel coordinates of a window; `offset` as `CENTRE_OFFSET`."""
    parts, owner = shapely.get_parts(shapes, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    points = pixel_coordinates(shapely.get_coordinates(rings), grid) + offset
    ring = np.repeat(np.arange(len(rings)), shapely.get_num_coordinates(rings))
    keep = _needed_vertices(points, ring, grid.width, grid.height)
    lengths = np.bincount(ring[keep], minlength=len(rings))
    has_area = lengths >= 4  # a ring outside of the window is left with fewer vertices
    keep &= has_area[ring]
    return _assemble(points[keep], lengths[has_area], part[has_area], owner, (grid.width, grid.height))


def pixel_coordinates(points: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """Return (n, 2) columns and rows of (n, 2) CRS coordinates, rounded to `SNAP_STEPS`."""
    t = grid.transform
    x, y = points[:, 0] - t.c, points[:, 1] - t.f
    scale = t.a * t.e - t.b * t.d
    cols_rows = np.column_stack([(t.e * x - t.b * y) / scale, (t.a * y - t.d * x) / scale])
    snapped: NDArray[np.float64] = np.rint(np.clip(cols_rows, -FAR, FAR) * SNAP_STEPS) / SNAP_STEPS
    return snapped


def _needed_vertices(points: NDArray[np.float64], ring: NDArray[np.intp], width: int, height: int) -> NDArray[np.bool_]:
    """Return (n,) False for inner vertices of a run on one side of the window.

    A straight edge between the ends of the run encloses the same pixels of the window. Edges in the window stay
    unchanged to the last bit.
    """
    x, y = points.T
    beyond = [x < -MARGIN, x > width + MARGIN, y < -MARGIN, y > height + MARGIN]
    side = np.select(beyond, [1, 2, 3, 4], 0)
    same = (side[1:] == side[:-1]) & (ring[1:] == ring[:-1]) & (side[1:] > 0)
    inner = np.zeros(len(points), bool)
    inner[1:-1] = same[1:] & same[:-1]
    return ~inner


def _assemble(
    points: NDArray[np.float64],
    lengths: NDArray[np.intp],
    part: NDArray[np.intp],
    owner: NDArray[np.intp],
    size: tuple[int, int],
) -> PixelRings:
    """Assemble polygons of rings.

    Args:
        points: (n, 2) vertices, one ring after the other.
        lengths: (rings,) vertices of each.
        part: (rings,) the polygon that each belongs to, ascending; its outer ring comes first.
        owner: The shape of each polygon.
        size: Width and height of the window.
    """
    if not len(lengths):
        return PixelRings([], np.zeros(0, np.intp), np.zeros((0, 4), np.intp), 0)
    stops = np.cumsum(lengths)
    first = np.flatnonzero(np.diff(part, prepend=-1))
    starts = (stops - lengths)[first]
    low = np.clip(np.floor(np.minimum.reduceat(points, starts)) - 1, 0, size).astype(np.intp)
    high = np.clip(np.ceil(np.maximum.reduceat(points, starts)) + 1, 0, size).astype(np.intp)
    vertices = np.diff(np.append(starts, len(points)))
    work = int((vertices * (high - low)[:, 1]).sum())
    coordinates = (points + 1).tolist()  # as SHIFTED
    rings = [coordinates[a:b] for a, b in zip((stops - lengths).tolist(), stops.tolist(), strict=True)]
    bounds = zip(first.tolist(), [*first[1:].tolist(), len(rings)], strict=True)
    polygons = [{"type": "Polygon", "coordinates": rings[a:b]} for a, b in bounds]
    return PixelRings(polygons, owner[part[first]], np.hstack([low, high]), work)


def _burn_rings(
    rings: PixelRings, codes: NDArray[np.uint8], size: tuple[int, int], fill: int, all_touched: bool
) -> RasterizedLabels:
    """Burn polygons of a window.

    A first pass sums code + 256 of all polygons at a pixel: the low byte is the code of a single polygon. Only polygons
    near pixels with several are burned again, in their order.
    """
    if not rings.polygons:
        return RasterizedLabels(np.full(size, fill, np.uint8), np.zeros(size, bool))
    values = codes.astype(int) + 256
    sums = _rasterize(rings.polygons, values, size, all_touched, dtype="uint16", merge_alg=MergeAlg.add)
    burned: NDArray[np.uint8] = sums.astype(np.uint8)  # the low byte
    if fill:
        burned[sums == 0] = fill
    overlap = sums >= TWO_POLYGONS
    if not overlap.any():
        return RasterizedLabels(burned, overlap)
    near = [i for i, (c, r, c2, r2) in enumerate(rings.boxes.tolist()) if overlap[r:r2, c:c2].any()]
    polygons = [rings.polygons[i] for i in near]
    top = _rasterize(polygons, codes[near], size, all_touched, dtype="uint8")
    np.copyto(burned, top, where=overlap)
    return RasterizedLabels(burned, _class_conflicts(polygons, codes[near], size, all_touched))


def _class_conflicts(
    polygons: Sequence[dict[str, Any]], codes: NDArray[np.uint8], size: tuple[int, int], all_touched: bool
) -> NDArray[np.bool_]:
    """Return (rows, cols) True where burning the highest codes last and the lowest last gives different codes."""
    order = np.argsort(codes, kind="stable")
    order = order[codes[order] != IGNORE_INDEX]
    if not len(order) or codes[order[0]] == codes[order[-1]]:
        return np.zeros(size, bool)
    highest, lowest = (
        _rasterize([polygons[i] for i in rows], codes[rows], size, all_touched, dtype="uint8")
        for rows in (order, order[::-1])
    )
    return np.asarray(highest != lowest)


def _rasterize(
    polygons: Sequence[dict[str, Any]], values: NDArray[Any], size: tuple[int, int], all_touched: bool, **options: Any
) -> NDArray[Any]:
    pairs = zip(polygons, values.tolist(), strict=True)
    with RASTERIZE_LOCK:
        burned: NDArray[Any] = rasterize(pairs, size, transform=SHIFTED, all_touched=all_touched, **options)
    return burned
