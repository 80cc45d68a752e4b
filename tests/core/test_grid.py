import math
from itertools import pairwise

import pytest
from affine import Affine
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.windows import Window as RioWindow
from rasterio.windows import transform as window_transform

from geopsp.core.grid import Grid, Window, tile_starts
from geopsp.errors import OptionError

UTM = CRS.from_epsg(32632)
GRID = Grid(UTM, from_origin(601234.0, 5301717.0, 2.0, 2.0), 83, 61)
offsets = st.integers(-500, 500)
windows = st.builds(Window, offsets, offsets, st.integers(0, 90), st.integers(0, 90))


@given(windows, windows)
@settings(max_examples=examples(60), deadline=None)
def test_intersection_holds_the_pixels_of_both(one, other):
    both = one.intersect(other)
    cols = set(range(one.col, one.col_stop)) & set(range(other.col, other.col_stop))
    rows = set(range(one.row, one.row_stop)) & set(range(other.row, other.row_stop))
    assert (both.width, both.height) == (len(cols), len(rows))
    assert both.empty == (not cols or not rows)
    if not both.empty:
        assert both == other.intersect(one)
        assert (both.col, both.row) == (min(cols), min(rows))


@given(windows, offsets, offsets)
@settings(max_examples=examples(40), deadline=None)
def test_shifting_there_and_back_changes_nothing(window, cols, rows):
    assert window.shift(cols, rows).shift(-cols, -rows) == window


def test_slices_count_from_the_origin_window():
    assert Window(7, 5, 3, 2).slices(Window(4, 4, 20, 20)) == (slice(1, 3), slice(3, 6))


@pytest.mark.parametrize(
    "transform",
    [
        from_origin(601234.0, 5301717.0, 2.0, 2.0),
        Affine(0.15, 0, 11.25, 0, 0.15, 48.5),
        Affine.translation(601234, 5301717) @ Affine.rotation(30) @ Affine.scale(2, -3),
    ],
    ids=["north-up", "south-up", "rotated"],
)
@given(window=windows)
@settings(max_examples=examples(25), deadline=None)
def test_a_crop_lies_where_rasterio_says_and_is_found_again(transform, window):
    grid = Grid(UTM, transform, 83, 61)
    crop = grid.crop(window)
    theirs = window_transform(RioWindow(window.col, window.row, window.width, window.height), transform)
    assert crop.transform.almost_equals(theirs, precision=1e-6)
    assert grid.window_of(crop) == window


def test_a_rotated_cell_keeps_its_size_and_its_box_holds_all_corners():
    transform = Affine.translation(601234, 5301717) @ Affine.rotation(30) @ Affine.scale(2, -3)
    grid = Grid(UTM, transform, 10, 4)
    assert grid.cell_size == pytest.approx((2, 3))
    left, bottom, right, top = grid.bounds()
    assert right - left == pytest.approx(20 * math.cos(math.pi / 6) + 12 * 0.5)
    assert top - bottom == pytest.approx(20 * 0.5 + 12 * math.cos(math.pi / 6))


@pytest.mark.parametrize(
    ("other", "window"),
    [
        (GRID.crop(Window(-3, 8, 5, 6)), Window(-3, 8, 5, 6)),
        (Grid(UTM, from_origin(601234.0 + 0.0015, 5301717.0, 2.0, 2.0), 5, 5), Window(0, 0, 5, 5)),
        (Grid(UTM, from_origin(601234.0 + 0.01, 5301717.0, 2.0, 2.0), 5, 5), None),
        (Grid(UTM, from_origin(601235.0, 5301717.0, 2.0, 2.0), 5, 5), None),
        (Grid(UTM, from_origin(601234.0, 5301717.0, 2.001, 2.0), 5, 5), None),
        (Grid(UTM, from_origin(601234.0, 5301717.0, 2.000001, 2.0), 900, 5), Window(0, 0, 900, 5)),
        (Grid(UTM, from_origin(601234.0, 5301717.0, 2.000001, 2.0), 9000, 5), None),
        (Grid(CRS.from_epsg(32633), GRID.transform, 5, 5), None),
        (Grid(UTM, Affine(2, 0, 601234.0, 0, 2, 5301717.0), 5, 5), None),
    ],
    ids=[
        "whole",
        "a hair",
        "a hundredth",
        "half a pixel",
        "resolution",
        "drift small",
        "drift large",
        "CRS",
        "south-up",
    ],
)
def test_a_lattice_is_the_same_one_to_a_thousandth_of_a_pixel(other, window):
    assert GRID.window_of(other) == window


@pytest.mark.parametrize("size", [1, 7, 61, 83, 200])
def test_blocks_partition_the_grid(size):
    small = Grid(UTM, GRID.transform, 23, 11)
    pixels = [(r, c) for b in small.blocks(size) for r in range(b.row, b.row_stop) for c in range(b.col, b.col_stop)]
    assert sorted(pixels) == [(r, c) for r in range(11) for c in range(23)]


def test_a_grid_says_what_it_is_in_a_line():
    assert repr(GRID) == "<83 x 61 pixels of 2 x 2, EPSG:32632, x 601234 to 601400, y 5301595 to 5301717>"
    odd = CRS.from_proj4("+proj=laea +lat_0=10 +lon_0=20 +datum=WGS84 +units=m")
    assert len(repr(Grid(odd, GRID.transform, 3, 3))) < 120


def test_the_worked_examples():
    assert tile_starts(20, size=8, overlap=2) == [0, 6, 12]
    assert tile_starts(19, size=8, overlap=2) == [0, 6, 11]
    assert tile_starts(8, size=8, overlap=2) == tile_starts(3, size=8, overlap=2) == [0]


@given(st.integers(1, 300), st.integers(1, 40), st.data())
def test_tiles_cover_an_axis_stay_inside_it_and_overlap_by_what_was_asked_at_least(length, size, data):
    overlap = data.draw(st.integers(0, size // 2))
    firsts = tile_starts(length, size=size, overlap=overlap)
    assert firsts[0] == 0
    assert firsts[-1] + size >= length
    assert all(0 < b - a <= size - overlap for a, b in pairwise(firsts))
    assert all(first + size <= max(length, size) for first in firsts)


@pytest.mark.parametrize(("size", "overlap"), [(8, 5), (8, -1), (0, 0), (1, 1)])
def test_an_overlap_of_more_than_half_a_tile_is_refused(size, overlap):
    with pytest.raises(OptionError, match=rf"is {overlap} pixels.* half a tile \({size} pixels"):
        tile_starts(100, size=size, overlap=overlap)
