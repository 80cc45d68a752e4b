"""Class rasters in memory, with pixels of 1 m2, and slow reference implementations of their cleaning."""

import tempfile
from pathlib import Path

import numpy as np
import scipy.ndimage
from affine import Affine
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.crs import CRS

from geopsp.core.disk_array import ScratchArrays
from geopsp.core.grid import Grid, Window
from geopsp.polygons.ground_metric import GroundMetric
from geopsp.polygons.regions.cell_graph import UNITS_PER_PIXEL, IntegerUnits
from geopsp.polygons.regions.region_graph import apply_codes, build_region_graph

gently = settings(max_examples=40, deadline=None)
rasters = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=11), elements=st.sampled_from([0, 1, 2, 255]), fill=None
)
cells = st.sampled_from([3, 5, 64])
metres = st.sampled_from([1.5, 3.5, 8.5, 40.0])


class Array:
    """A class raster in memory."""

    def __init__(self, codes):
        self.codes = np.asarray(codes, np.uint8)
        height, width = self.codes.shape
        self.grid = Grid(CRS.from_epsg(32633), Affine(10, 0, 500_000, 0, -10, 4_800_000), width, height)

    def read(self, window: Window):
        rows, cols = np.arange(window.row, window.row_stop), np.arange(window.col, window.col_stop)
        return np.pad(self.codes, 1, constant_values=255)[
            np.clip(rows + 1, 0, self.grid.height + 1)[:, None], np.clip(cols + 1, 0, self.grid.width + 1)
        ]


def flat(codes, *, width=1.0, height=1.0, area=1.0):
    """Return a metric of equal pixels; metres and m2."""
    num_rows, num_cols = np.shape(codes)
    knots = np.ones((num_rows + 1, num_cols + 1))
    form = {"e": knots * width**2, "f": knots * 0, "g": knots * height**2}
    return GroundMetric(
        step=1,
        cols=np.arange(num_cols + 1.0),
        rows=np.arange(num_rows + 1.0),
        **form,
        pixel_area=knots * area,
        area_correction=np.ones((num_rows, num_cols)),
    )


def graph(codes, *, metric=None, max_area=2**60, all_borders=True, size=64, **options):
    units_of = IntegerUnits.from_metric(metric or flat(codes))
    return build_region_graph(
        Array(codes),
        units_of,
        max_area=max_area,
        all_borders=all_borders,
        cell_size=size,
        arrays=ScratchArrays(Path(tempfile.gettempdir()), in_memory=0),
        **options,
    )


def drawn(codes, found, *, size=64):
    """Return the raster with the codes of a graph."""
    result = np.zeros_like(codes)
    for window, cell in apply_codes(Array(codes), found, cell_size=size):
        result[window.slices(Window(0, 0, 0, 0))] = cell
    return result


def units(square_metres):
    return round(square_metres * UNITS_PER_PIXEL)


def labelled(codes, nothing=255):
    """Label regions by scipy, in the order of their first pixels; 0 is nodata."""
    found, count = np.zeros(codes.shape, int), 0
    for code in np.unique(codes[codes != nothing]):
        labels, more = scipy.ndimage.label(codes == code)
        found[labels > 0] = labels[labels > 0] + count
        count += more
    _, firsts, inverse = np.unique(found[found > 0], return_index=True, return_inverse=True)
    result = np.zeros(codes.shape, int)
    result[found > 0] = np.argsort(np.argsort(firsts))[inverse] + 1
    return result


def holes_of(codes):
    """Yield (mask, code around it) of each hole by scipy: what a region separates from the raster's surroundings."""
    labels = labelled(codes)
    for one in range(1, labels.max() + 1):
        parts, count = scipy.ndimage.label(np.pad(labels != one, 1, constant_values=True))
        parts = np.where(parts == parts[0, 0], 0, parts)[1:-1, 1:-1]
        for part in range(1, count + 1):
            if (parts == part).any():
                yield parts == part, codes[labels == one][0]


def filled_by_hand(codes, least):
    """Fill the holes of all polygons, smaller ones first."""
    result = codes.copy()
    for hole, code in sorted(holes_of(codes), key=lambda found: found[0].sum()):
        if hole.sum() < least:
            result[hole] = code
    return result


def sides_of(labels, one, across, along):
    """Return the lengths of a region's borders by neighbour."""
    found = {}
    for row, col in np.argwhere(labels == one):
        for down, right, length in ((1, 0, across), (-1, 0, across), (0, 1, along), (0, -1, along)):
            if 0 <= row + down < labels.shape[0] and 0 <= col + right < labels.shape[1]:
                other = labels[row + down, col + right]
                if other not in {0, one}:
                    found[other] = found.get(other, 0) + length
    return found


def merged_by_hand(codes, least, across=1.0, along=1.0):
    """Merge one region after the other, and label the map anew after each."""
    codes = codes.copy()
    while True:
        labels = labelled(codes)
        areas = np.bincount(labels.ravel())
        for one in sorted(range(1, areas.size), key=lambda one: (areas[one], one)):
            around = sides_of(labels, one, across, along)
            if areas[one] < least and around:
                best = min(around, key=lambda other: (-around[other], other))
                codes[labels == one] = codes[labels == best][0]
                break
        else:
            return codes
