"""Counts, sizes and reasons in messages."""

import pytest
from affine import Affine
from hypothesis import given
from hypothesis import strategies as st
from rasterio.crs import CRS

from geopsp.core.grid import Grid
from geopsp.core.text import format_count, format_error, format_length, format_pixel_size, shorten


@pytest.mark.parametrize(
    ("count", "nouns", "text"),
    [
        (0, ("chip",), "0 chips"),
        (1, ("chip",), "1 chip"),
        (1200, ("chip",), "1,200 chips"),
        (1, ("class", "classes"), "1 class"),
        (2, ("class", "classes"), "2 classes"),
    ],
)
def test_counts(count, nouns, text):
    assert format_count(count, *nouns) == text


def test_pixel_sizes_have_a_unit():
    assert format_pixel_size(2.0, 2.0, "metre") == "2 x 2 m"
    assert format_pixel_size(8.98315e-05, 8.98315e-05, "degree") == "8.98315e-05 x 8.98315e-05 degrees (about 10 m)"
    assert format_pixel_size(1, 1.5, "US survey foot") == "1 x 1.5 US survey foot"


def test_a_grid_in_a_message():
    grid = Grid(CRS.from_epsg(32632), Affine(2, 0, 601234, 0, -2, 5301717), 8300, 61)
    assert str(grid) == "8,300 x 61 pixels of 2 x 2 m, EPSG:32632, x 601234 to 617834, y 5301595 to 5301717"
    assert str(Grid(None, Affine.identity(), 2, 1)).startswith("2 x 1 pixels of 1 x 1 unit, no CRS, x 0 to 2")


def test_reasons_have_no_full_stop():
    assert format_error(ValueError("no such file. ")) == "no such file"


@pytest.mark.parametrize(
    ("length", "unit", "text"),
    [
        (0.149291, "metre", "0.1493 m"),
        (9_999.4, "metre", "9999 m"),
        (6_777_000.0, "metre", "6,777 km"),
        (8.98315e-05, "degree", "8.98e-05 degrees (about 10 m)"),
        (60.8797, "degree", "60.9 degrees (about 6,800 km)"),
        (400.0, "US survey foot", "400 US survey feet"),
    ],
)
def test_lengths_have_a_unit_and_degrees_metres_beside_them(length, unit, text):
    assert format_length(length, unit) == text


@given(st.text(), st.integers(20, 100))
def test_a_long_text_is_shortened_in_its_middle(text, most):
    short = shorten(text, most)
    assert len(short) <= most
    assert short == text if len(text) <= most else short.startswith(text[:13]) and short.endswith(text[-1:])


def test_errors_of_texts_are_told_in_words():
    with pytest.raises(UnicodeDecodeError) as caught:
        b"\xff".decode()
    assert format_error(caught.value) == "it contains text that is not UTF-8"
    assert len(format_error(ValueError("x" * 10_000))) <= 400
