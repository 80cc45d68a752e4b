"""The first pass over a map: pixels and areas by stratum, strip by strip, and the pixels of blocks."""

from __future__ import annotations

import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from geopsp.assessment.sampling.strata_raster import (
    NUM_CODES,
    NUM_KEYS,
    OUTSIDE_AOI,
    OUTSIDE_ZONES,
    StrataRaster,
    num_threads,
)
from geopsp.core.grid import Grid, Window
from geopsp.core.jit import jit
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.parallel import map_ordered
from geopsp.core.text import format_count
from geopsp.polygons.ground_metric import GroundMetric, example_metric, pixel_area

logger = logging.getLogger(__name__)

UNITS = 2.0**26
"""Whole units of area of the largest pixel: sums of whole numbers do not depend on their order."""


@dataclass(frozen=True, slots=True, eq=False)
class PixelCounts:
    """Pixels of a map by key."""

    strips: list[Window]
    by_strip: list[tuple[NDArray[np.int64], NDArray[np.int64]]]
    """Of each strip, the keys of its pixels that can be drawn and how many have each; without keys that it lacks."""

    pixels: NDArray[np.int64]
    """(NUM_KEYS,) in the map; 0 of keys that are not drawn."""

    area: NDArray[np.float64]
    """(NUM_KEYS,) m2 on the ellipsoid."""

    num_excluded: int
    """Pixels of classes that are not drawn."""

    num_outside_zones: int

    num_outside_aoi: int

    blocks: NDArray[np.int64]
    """(strips,) number of blocks with pixels that can be drawn; 0 but for cluster samples."""

    @property
    def keys(self) -> NDArray[np.int64]:
        """The keys of the pixels that can be drawn, ascending."""
        return np.flatnonzero(self.pixels)


@dataclass(frozen=True, slots=True, eq=False)
class PixelAreas:
    """Areas of pixels on the ellipsoid; of pixels that the CRS does not reach, by their size in the CRS."""

    metric: GroundMetric
    fallback: float
    """m2 of a pixel where the metric is unknown."""

    unit: float
    """m2 of a whole unit of area."""

    @classmethod
    def from_grid(cls, grid: Grid) -> PixelAreas:
        """Compute the areas of a grid's pixels.

        Raises:
            GridError: if the CRS is neither geographic nor projected.
        """
        metric = GroundMetric.from_grid(grid)
        known = metric.pixel_area[np.isfinite(metric.pixel_area)]
        nominal = abs(grid.transform.determinant) * float(grid.crs.units_factor[1]) ** 2
        fallback = nominal if grid.crs.is_projected or not known.size else float(known.mean())
        return cls(metric, fallback, max(float(known.max(initial=0)), fallback) * 1.01 / UNITS)

    def at(self, rows: NDArray[np.int64], cols: NDArray[np.int64]) -> NDArray[np.float64]:
        """Return (n,) m2 of pixels."""
        areas = np.empty(len(rows))
        _areas_at(self.metric, rows, cols, areas)
        return np.where(np.isfinite(areas), areas, self.fallback)


def count_pixels(
    raster: StrataRaster, areas: PixelAreas, *, cluster_size: int | None, on_strip: Callable[[int, int], None]
) -> PixelCounts:
    """Count the pixels of a map by key, and add up their areas.

    Args:
        raster: The map.
        areas: Areas of its pixels.
        cluster_size: Side of the blocks that are counted; None: none are.
        on_strip: Called after each strip with the strips done and their number.

    Raises:
        RasterError: if the map cannot be read.
    """
    strips, is_drawn = raster.strips(cluster_size or 1), raster.is_drawn
    pixels, units = np.zeros(NUM_KEYS, np.int64), np.zeros(NUM_KEYS, np.int64)
    by_strip, blocks, num_unknown = [], [], 0

    def count(window: Window) -> tuple[NDArray[np.int64], NDArray[np.int64], int, int]:
        keys = raster.read(window)
        counts, area = np.zeros(NUM_KEYS, np.int64), np.zeros(NUM_KEYS, np.int64)
        unknown = _count(keys, is_drawn, areas.metric, window.row, areas.fallback, 1 / areas.unit, counts, area)
        found = 0 if cluster_size is None else np.count_nonzero(block_counts(keys, is_drawn, cluster_size))
        return counts, area, unknown, int(found)

    threads = num_threads(strips)
    with (
        ThreadPoolExecutor(threads) as pool,
        closing(map_ordered(pool, count, strips, in_flight=threads + 1)) as results,
    ):
        for done, (counts, area, unknown, found) in enumerate(results, 1):
            pixels += counts
            units += area
            num_unknown += unknown
            keys = np.flatnonzero(counts * is_drawn)
            by_strip.append((keys, counts[keys]))
            blocks.append(found)
            on_strip(done, len(strips))
    if num_unknown:
        logger.warning(
            f"{format_count(num_unknown, 'pixel')} of {raster.raster.path} lie where its CRS does not reach the "
            "ground: their size in the CRS is taken as their area."
        )
    outside_aoi, outside_zones = int(pixels[OUTSIDE_AOI]), int(pixels[OUTSIDE_ZONES])
    nodata = int(pixels[IGNORE_INDEX::NUM_CODES].sum()) - outside_zones  # which is the last key of all
    drawn = pixels * is_drawn
    return PixelCounts(
        strips=strips,
        by_strip=by_strip,
        pixels=drawn,
        area=(units * is_drawn).astype(np.float64) * areas.unit,
        num_excluded=int(pixels.sum() - drawn.sum()) - outside_aoi - outside_zones - nodata,
        num_outside_zones=outside_zones,
        num_outside_aoi=outside_aoi,
        blocks=np.array(blocks, np.int64),
    )


def block_counts(keys: NDArray[np.uint16], is_drawn: NDArray[np.bool_], size: int) -> NDArray[np.int64]:
    """Return how many pixels of each block can be drawn, (block rows, block cols); the last blocks may be smaller."""
    height, width = keys.shape
    counts = np.zeros((-(-height // size), -(-width // size)), np.int64)
    _count_blocks(keys, is_drawn, size, counts)
    return counts


@jit("u2[:, ::1]", "b1[::1]", example_metric, "i8", "f8", "f8", "i8[::1]", "i8[::1]")
def _count(keys, is_drawn, metric, top, fallback, per_m2, pixels, units):  # type: ignore[no-untyped-def]
    """Count the pixels of whole rows, and their areas in whole units; return how many are of unknown area.

    A run of equal pixels between two knots, where areas are linear, is added at once. As rows are whole, runs do not
    depend on the strip, nor do their areas.
    """
    height, width = keys.shape
    unknown = 0
    for row in range(height):
        y = top + row + 0.5
        for origin in range(0, width, metric.step):
            edge = pixel_area(metric, float(origin), y)
            slope = 2 * (pixel_area(metric, origin + 0.5, y) - edge)
            stop = min(origin + metric.step, width)
            start = origin
            while start < stop:
                key = keys[row, start]
                end = start + 1
                while end < stop and keys[row, end] == key:
                    end += 1
                area = edge + slope * ((start + end) / 2 - origin)  # at the middle of the run: its mean
                if area != area:  # noqa: PLR0124 (true for NaN)
                    area = fallback
                    unknown += (end - start) * is_drawn[key]
                pixels[key] += end - start
                units[key] += int((end - start) * area * per_m2 + 0.5)
                start = end
    return unknown


@jit(example_metric, "i8[::1]", "i8[::1]", "f8[::1]")
def _areas_at(metric, rows, cols, areas):  # type: ignore[no-untyped-def]
    for at in range(rows.size):
        areas[at] = pixel_area(metric, cols[at] + 0.5, rows[at] + 0.5)


@jit("u2[:, ::1]", "b1[::1]", "i8", "i8[:, ::1]")
def _count_blocks(keys, is_drawn, size, counts):  # type: ignore[no-untyped-def]
    height, width = keys.shape
    for row in range(height):
        for col in range(width):
            counts[row // size, col // size] += is_drawn[keys[row, col]]
