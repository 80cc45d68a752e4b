"""Zonal sums equal those of numpy for each region."""

import numpy as np
import pytest
from affine import Affine
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.crs import CRS
from scipy import ndimage

from geopsp.core.grid import Grid, Window
from geopsp.polygons.ground_metric import GroundMetric, pixel_area
from geopsp.polygons.zonal_stats import (
    AREA,
    CONFIDENCE_SUM,
    NUM_CONFIDENT,
    NUM_EDGE,
    NUM_PIXELS,
    NUM_SUMS,
    NUM_UNSURE,
    zonal_sums,
)

GRID = Grid(CRS.from_epsg(4326), Affine(0.5, 0, 15, 0, -0.5, 60), 40, 30)
METRIC = GroundMetric.from_grid(GRID)

rasters = hnp.arrays(
    np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.sampled_from([0, 1, 2, 255]), fill=None
)
levels = st.sampled_from([0.0, 0.25, 0.5, 0.75, 1.0, np.nan])
gently = settings(max_examples=examples(10), deadline=None)


def labelled(codes):
    """Return (h, w) labels of 4-connected regions, and their number."""
    labels, count = np.zeros(codes.shape, np.int32), 0
    for code in np.unique(codes[codes != 255]):
        its, more = ndimage.label(codes == code)
        labels[its > 0] = its[its > 0] + count
        count += more
    return labels, count


def edges(codes):
    """Return True for pixels next to another code, or at the frame."""
    inner = np.pad(codes.astype(int), 1, constant_values=-1)
    return np.any([np.roll(inner, step, axis) != inner for step in (1, -1) for axis in (0, 1)], axis=0)[1:-1, 1:-1]


def counted(codes, shares=None, *, window=None, metric=METRIC):
    """Return the sums of the regions of a raster or of a window."""
    labels, count = labelled(codes)
    whole = Window(0, 0, codes.shape[1], codes.shape[0])
    window = window or whole
    inside = window.slices(whole)
    halo = np.pad(codes, 1, constant_values=255)[window.row : window.row_stop + 2, window.col : window.col_stop + 2]
    part = None if shares is None else shares[inside]
    return zonal_sums(np.ascontiguousarray(labels[inside]), count, halo, part, metric, window)


@gently
@given(codes=rasters, data=st.data())
def test_sums_are_what_numpy_counts(codes, data):
    shares = data.draw(hnp.arrays(np.float32, codes.shape, elements=levels))
    labels, count = labelled(codes)
    found = counted(codes, shares)
    assert found.shape == (count, NUM_SUMS)
    rows, cols = np.indices(codes.shape)
    areas = np.vectorize(lambda col, row: pixel_area(METRIC, col + 0.5, row + 0.5))(cols, rows)
    seen = ~np.isnan(shares)
    for label in range(1, count + 1):
        its = labels == label
        edge = its & seen & edges(codes)
        assert found[label - 1, NUM_PIXELS] == its.sum()
        assert found[label - 1, AREA] == pytest.approx(areas[its].sum(), rel=1e-12)
        assert found[label - 1, CONFIDENCE_SUM] == np.nansum(shares[its])
        assert found[label - 1, NUM_CONFIDENT] == (its & seen).sum()
        assert found[label - 1, NUM_EDGE] == edge.sum()
        assert found[label - 1, NUM_UNSURE] == (shares[edge] < 0.5).sum()


@gently
@given(codes=rasters, data=st.data())
def test_sums_of_windows_add_up(codes, data):
    shares = data.draw(hnp.arrays(np.float32, codes.shape, elements=levels))
    height, width = codes.shape
    col, row = data.draw(st.integers(0, width)), data.draw(st.integers(0, height))
    parts = [
        Window(left, top, right - left, down - top)
        for left, right in ((0, col), (col, width))
        for top, down in ((0, row), (row, height))
    ]
    found = sum(counted(codes, shares, window=part) for part in parts if not part.is_empty)
    assert np.allclose(found, counted(codes, shares), rtol=1e-12)


def test_without_confidence_only_pixels_and_ground_are_counted():
    found = counted(np.array([[1, 1, 2], [255, 1, 2]], np.uint8))
    assert found[:, NUM_PIXELS].tolist() == [3, 2]
    assert (found[:, AREA] > 0).all()
    assert not found[:, CONFIDENCE_SUM:].any()


def test_a_raster_of_nothing_has_no_sums():
    assert counted(np.full((3, 4), 255, np.uint8), np.ones((3, 4), np.float32)).shape == (0, NUM_SUMS)


def test_one_unknown_pixel_does_not_hide_those_behind_it():
    """An image of the full Earth disc: the corners are outside of the domain of the CRS."""
    crs = CRS.from_string("+proj=geos +h=35785831 +lon_0=-75 +ellps=GRS80")
    metric = GroundMetric.from_grid(Grid(crs, Affine(1e6, 0, -6e6, 0, -1e6, 6e6), 12, 12))
    codes = np.repeat(np.arange(12, dtype=np.uint8)[None], 12, axis=0)
    codes[:3] = codes[-3:] = 255
    areas = counted(codes, metric=metric)[:, AREA]
    assert np.isnan(areas[[0, 11]]).all()
    assert areas[5] == pytest.approx(areas[6], rel=1e-9)
