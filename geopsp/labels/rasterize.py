"""Polygons burned to class codes: the same pixels whatever the window that is asked for."""

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
"""Steps a pixel to which vertices are rounded, so that windows of one lattice see the same numbers."""


CENTRE_OFFSET = (2.0**-22, 0.7 * 2.0**-22)
"""Columns and rows by which outlines are moved, less than a step: where an edge runs exactly through a pixel's centre
or corner, no rounding error decides. The first alone keeps GDAL's rule for centres: left edges leave them out."""


FAR = 2.0**30
"""Pixels from the window beyond which vertices are not told apart."""


MARGIN = 2
"""Pixels around a window outside of which outlines may be shortened."""


MAX_WORK = 2**26
"""Vertices times rows that one pass may cost; a window that costs more is burned in halves."""


SHIFTED = Affine.translation(1, 1)
"""What rasterio is told of the pixels: it warns where they lie nowhere."""


ONE_AT_A_TIME = threading.Lock()
"""While it burns, rasterio sets filters of warnings aside, which threads must not do at once; it runs alone anyway."""


TWO_POLYGONS = 512


@dataclass(frozen=True, slots=True, eq=False)
class RasterizedLabels:
    """Labels on a grid."""

    codes: NDArray[np.uint8]
    """(rows, cols) class codes; IGNORE where nothing is known."""

    conflict: NDArray[np.bool_]
    """(rows, cols); True where polygons of several classes lie, so that the priority decided."""


@dataclass(frozen=True, slots=True, eq=False)
class PixelRings:
    """Polygons without parts in the pixel coordinates of a window, shortened where it does not show them."""

    polygons: list[dict[str, Any]]
    """As GeoJSON has them."""

    owner: NDArray[np.intp]
    """(polygons,) the shape that each is part of."""

    boxes: NDArray[np.intp]
    """(polygons, 4) first column and row, last column and row, a pixel more on each side, within the window."""

    work: int
    """Vertices times rows that burning visits."""


def rasterize_polygons(
    shapes: NDArray[np.object_], codes: NDArray[np.uint8], grid: Grid, *, fill: int, all_touched: bool
) -> RasterizedLabels:
    """Codes where a pixel's centre lies in a polygon (with `all_touched`, where a polygon touches the pixel).

    Args:
        shapes: (n,) polygons in the grid's CRS, the lowest first.
        codes: (n,) of each; IGNORE is no class, but covers what lies below.
        grid: The pixels.
        fill: The code where no polygon lies.
        all_touched: See above.
    """
    outlines = outline(shapes, grid, nudge=CENTRE_OFFSET if all_touched else (CENTRE_OFFSET[0], 0.0))
    if outlines.work > MAX_WORK and grid.height > 1:
        half = grid.height // 2
        window = grid.full_window
        strips = [window.intersect(window.shift(0, shift)) for shift in (half - grid.height, half)]
        parts = [rasterize_polygons(shapes, codes, grid.crop(w), fill=fill, all_touched=all_touched) for w in strips]
        return RasterizedLabels(np.vstack([p.codes for p in parts]), np.vstack([p.conflict for p in parts]))
    return _burn_outlines(outlines, codes[outlines.owner], (grid.height, grid.width), fill, all_touched)


def outline(shapes: NDArray[np.object_], grid: Grid, *, nudge: tuple[float, float]) -> PixelRings:
    """The polygons' outlines as the window shows them."""
    parts, owner = shapely.get_parts(shapes, return_index=True)
    rings, part = shapely.get_rings(parts, return_index=True)
    points = pixel_coordinates(shapely.get_coordinates(rings), grid) + nudge
    ring = np.repeat(np.arange(len(rings)), shapely.get_num_coordinates(rings))
    keep = _shown(points, ring, grid.width, grid.height)
    lengths = np.bincount(ring[keep], minlength=len(rings))
    whole = lengths >= 4  # what is left of a ring outside has no area
    keep &= whole[ring]
    return _collect(points[keep], lengths[whole], part[whole], owner, (grid.width, grid.height))


def pixel_coordinates(points: NDArray[np.float64], grid: Grid) -> NDArray[np.float64]:
    """(n, 2) columns and rows of (n, 2) CRS coordinates, in whole steps."""
    t = grid.transform
    x, y = points[:, 0] - t.c, points[:, 1] - t.f
    scale = t.a * t.e - t.b * t.d
    cols_rows = np.column_stack([(t.e * x - t.b * y) / scale, (t.a * y - t.d * x) / scale])
    steps: NDArray[np.float64] = np.rint(np.clip(cols_rows, -FAR, FAR) * SNAP_STEPS) / SNAP_STEPS
    return steps


def _shown(points: NDArray[np.float64], ring: NDArray[np.intp], width: int, height: int) -> NDArray[np.bool_]:
    """False for vertices within a run on one side of the window.

    The run's ends, joined by a straight edge on that side, enclose the same pixels of the window; the edges that
    the window shows stay as they are, to the last bit.
    """
    x, y = points.T
    beyond = [x < -MARGIN, x > width + MARGIN, y < -MARGIN, y > height + MARGIN]
    side = np.select(beyond, [1, 2, 3, 4], 0)
    same = (side[1:] == side[:-1]) & (ring[1:] == ring[:-1]) & (side[1:] > 0)
    inner = np.zeros(len(points), bool)
    inner[1:-1] = same[1:] & same[:-1]
    return ~inner


def _collect(
    points: NDArray[np.float64],
    lengths: NDArray[np.intp],
    part: NDArray[np.intp],
    owner: NDArray[np.intp],
    size: tuple[int, int],
) -> PixelRings:
    """Rings that lie one after the other in `points`, put together by their parts."""
    if not len(lengths):
        return PixelRings([], np.zeros(0, np.intp), np.zeros((0, 4), np.intp), 0)
    stops = np.cumsum(lengths)
    first = np.flatnonzero(np.diff(part, prepend=-1))
    starts = (stops - lengths)[first]
    low = np.clip(np.floor(np.minimum.reduceat(points, starts)) - 1, 0, size).astype(np.intp)
    high = np.clip(np.ceil(np.maximum.reduceat(points, starts)) + 1, 0, size).astype(np.intp)
    vertices = np.diff(np.append(starts, len(points)))
    work = int((vertices * (high - low)[:, 1]).sum())
    coordinates = (points + 1).tolist()  # see SHIFTED
    rings = [coordinates[a:b] for a, b in zip((stops - lengths).tolist(), stops.tolist(), strict=True)]
    bounds = zip(first.tolist(), [*first[1:].tolist(), len(rings)], strict=True)
    polygons = [{"type": "Polygon", "coordinates": rings[a:b]} for a, b in bounds]
    return PixelRings(polygons, owner[part[first]], np.hstack([low, high]), work)


def _burn_outlines(
    outlines: PixelRings, codes: NDArray[np.uint8], size: tuple[int, int], fill: int, all_touched: bool
) -> RasterizedLabels:
    """One pass counts polygons and sums their codes; where several lie, the order and the classes are looked at."""
    if not outlines.polygons:
        return RasterizedLabels(np.full(size, fill, np.uint8), np.zeros(size, bool))
    values = codes.astype(int) + 256
    sums = _rasterize(outlines.polygons, values, size, all_touched, dtype="uint16", merge_alg=MergeAlg.add)
    burned: NDArray[np.uint8] = sums.astype(np.uint8)  # the low byte
    if fill:
        burned[sums == 0] = fill
    crowded = sums >= TWO_POLYGONS
    if not crowded.any():
        return RasterizedLabels(burned, crowded)
    matter = [i for i, (c, r, c2, r2) in enumerate(outlines.boxes.tolist()) if crowded[r:r2, c:c2].any()]
    polygons = [outlines.polygons[i] for i in matter]
    top = _rasterize(polygons, codes[matter], size, all_touched, dtype="uint8")
    np.copyto(burned, top, where=crowded)
    return RasterizedLabels(burned, _contested(polygons, codes[matter], size, all_touched))


def _contested(
    polygons: Sequence[dict[str, Any]], codes: NDArray[np.uint8], size: tuple[int, int], all_touched: bool
) -> NDArray[np.bool_]:
    """True where the highest code on top and the lowest code on top differ."""
    order = np.argsort(codes, kind="stable")
    order = order[codes[order] != IGNORE_INDEX]
    if not len(order) or codes[order[0]] == codes[order[-1]]:
        return np.zeros(size, bool)
    highest, lowest = (
        _rasterize([polygons[i] for i in turn], codes[turn], size, all_touched, dtype="uint8")
        for turn in (order, order[::-1])
    )
    return np.asarray(highest != lowest)


def _rasterize(
    polygons: Sequence[dict[str, Any]], values: NDArray[Any], size: tuple[int, int], all_touched: bool, **options: Any
) -> NDArray[Any]:
    pairs = zip(polygons, values.tolist(), strict=True)
    with ONE_AT_A_TIME:
        burned: NDArray[Any] = rasterize(pairs, size, transform=SHIFTED, all_touched=all_touched, **options)
    return burned
