"""Small holes of polygons are filled, regardless of the cells."""

import numpy as np
import pytest
import shapely
from graph_common import cells, drawn, filled_by_hand, flat, gently, graph, holes_of, metres, rasters, units
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.features import shapes

from geopsp.polygons.regions.fill_holes import fill_small_holes

nested = hnp.arrays(np.uint8, st.tuples(st.integers(5, 14), st.integers(5, 14)), elements=st.sampled_from([1, 1, 1, 2]))


def fill(codes, least, *, size=64, metric=None):
    codes = np.asarray(codes, np.uint8)
    found = graph(codes, metric=metric, max_area=units(least), size=size)
    return drawn(codes, fill_small_holes(found, units(least)), size=size)


@gently
@given(codes=st.one_of(rasters, nested), least=metres, size=cells)
def test_filling_is_as_by_hand(codes, least, size):
    assert np.array_equal(fill(codes, least, size=size), filled_by_hand(codes, least))


@gently
@given(codes=st.one_of(rasters, nested), least=metres)
def test_no_polygon_keeps_a_smaller_hole(codes, least):
    after = fill(codes, least)
    for shape, _ in shapes(after, mask=after != 255, connectivity=4):
        polygon = shapely.geometry.shape(shape)
        assert all(shapely.Polygon(ring).area >= least for ring in polygon.interiors)


@gently
@given(codes=st.one_of(rasters, nested), least=metres)
def test_what_is_in_no_small_hole_stays(codes, least):
    holes = [hole for hole, _ in holes_of(codes) if hole.sum() < least]
    changed = fill(codes, least) != codes
    assert not (changed & ~np.any(holes, axis=0)).any() if holes else not changed.any()


def ring(codes, at, code):
    """Fill a square with a code, `at` pixels from each side."""
    codes[at : len(codes) - at, at : len(codes) - at] = code


@pytest.mark.parametrize(("least", "expected"), [(1.0, 1), (1.5, 2), (9.5, 3), (25.5, 4), (80.0, 4)])
def test_of_holes_in_holes_the_largest_small_one_counts(least, expected):
    """Squares of 4, 3 and 2 enclose a pixel of 1; 4 is in no hole."""
    codes = np.full((9, 9), 255, np.uint8)
    for at, code in ((1, 4), (2, 3), (3, 2), (4, 1)):
        ring(codes, at, code)
    assert fill(codes, least)[4, 4] == expected


def test_islands_in_a_lake_of_nothing_stay_and_the_lake_is_filled_with_them():
    codes = np.full((7, 7), 1, np.uint8)
    codes[2:5, 2:5] = 255
    codes[3, 3] = 2
    assert np.array_equal(fill(codes, 8.5), codes)  # a hole of nine pixels, not eight
    assert (fill(codes, 9.5) == 1).all()


def test_what_lies_at_the_frame_is_no_hole():
    codes = np.ones((4, 5), np.uint8)
    codes[0, 2] = codes[3, 4] = 2
    codes[2, 0] = 255
    assert np.array_equal(fill(codes, 99), codes)


def test_two_that_touch_at_a_corner_are_two_holes():
    codes = np.ones((4, 5), np.uint8)
    codes[1, 1] = codes[2, 2:4] = 2
    assert (fill(codes, 1.5) == 2).sum() == 2
    assert (fill(codes, 2.5) == 1).all()


def test_a_hole_that_a_corner_shuts_is_one():
    codes = np.array([[255, 1, 1], [1, 2, 1], [1, 1, 1]], np.uint8)
    codes = np.pad(codes, 1, constant_values=255)
    assert fill(codes, 1.5)[2, 2] == 1


def test_a_hole_of_unknown_area_stays():
    codes = np.ones((3, 3), np.uint8)
    codes[1, 1] = 2
    metric = flat(codes)
    metric.pixel_area[1, 1] = np.nan
    assert fill(codes, 50, metric=metric)[1, 1] == 2
    assert fill(codes, 50)[1, 1] == 1
