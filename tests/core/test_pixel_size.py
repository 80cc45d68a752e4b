"""Sizes of pixels on the ground."""

import numpy as np
import pyproj
import pytest
from affine import Affine
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geopsp.core.grid import Grid
from geopsp.core.pixel_size import PixelSize, ground_size, metres_of, require_similar_size
from geopsp.errors import GridError

UTM = "EPSG:32632"


@given(longitude=st.floats(-170, 170), latitude=st.floats(-80, 80), cell=st.floats(0.1, 500), turn=st.floats(0, 360))
@settings(max_examples=examples(60), deadline=None)
def test_ground_size_is_geodesic(longitude, latitude, cell, turn):
    """As pyproj measures the sides of the pixel in the middle, in any CRS, turned or not."""
    for crs in ("EPSG:4326", "EPSG:3857", "EPSG:2263", "ESRI:54034"):
        to_globe = pyproj.Transformer.from_crs(crs, "EPSG:4326", always_xy=True)
        x, y = to_globe.transform(longitude, latitude, direction="INVERSE")
        if crs == "EPSG:2263" and abs(longitude + 74) > 3:
            continue
        step = cell / 111_000 if crs == "EPSG:4326" else cell
        middle = Affine.translation(x, y) * Affine.rotation(turn) * Affine.scale(step, -step)
        found = ground_size(Grid(CRS.from_user_input(crs), middle * Affine.translation(-10, -6), 20, 12))
        ends = [middle * place for place in ((-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5))]
        lon, lat = to_globe.transform(*np.transpose(ends))
        sides = pyproj.Geod(ellps="WGS84").inv(lon[[0, 2]], lat[[0, 2]], lon[[1, 3]], lat[[1, 3]])[2]
        assert found == pytest.approx(sides, rel=0.02)


def test_no_place_on_the_globe():
    """A site's own plane: metres are metres."""
    crs = 'ENGCRS["site",EDATUM["peg"],CS[Cartesian,2],AXIS["x",east],AXIS["y",north],LENGTHUNIT["metre",1]]'
    grid = Grid(CRS.from_wkt(crs), Affine(2, 0, 100, 0, -2, 100), 20, 10)
    assert ground_size(grid) == pytest.approx((2, 2))


def test_units_by_many_names():
    assert metres_of("metre", UTM) == metres_of("Meter", UTM) == 1
    assert metres_of("US survey foot", UTM) == pytest.approx(metres_of("Foot_US", UTM)) == pytest.approx(1200 / 3937)
    assert metres_of("foot", UTM) == pytest.approx(0.3048)
    assert metres_of("degree", UTM) == pytest.approx(111_319, rel=1e-4)
    assert metres_of("unknown", UTM) is None


@pytest.mark.parametrize(
    ("size", "trained", "unit", "ratio"),
    [
        (PixelSize(10, "metre", UTM), 2.5, "metre", 4),
        (PixelSize(10, "metre", UTM), 10 / 0.3048, "foot", 1),
        (PixelSize(1, "metre", UTM, 0.5), 1, "Meter", 0.5),
        (PixelSize(1e-4, "degree", "EPSG:4326"), 11.13, "metre", 1),
        (PixelSize(11.13, "metre", UTM), 1e-4, "degree", 1),
        (PixelSize(10, "metre", UTM), 1, "cubit", None),
        (PixelSize(1, "pixel", None), 10, "metre", None),
        (PixelSize(1, "pixel", None), 1, "degree", None),
    ],
)
def test_sizes_are_compared_across_units(size, trained, unit, ratio):
    found = size.ratio_to(trained, unit)
    assert found == (ratio if ratio is None else pytest.approx(ratio, rel=0.01))


def test_a_size_up_to_four_times_off_is_taken():
    for height in (0.25, 1, 4):
        require_similar_size(PixelSize(height, "metre", UTM), 1, "metre", "a.tif")


@pytest.mark.parametrize(("height", "words"), [(28.5, "191x finer"), (0.0372, "4.01x coarser")])
def test_a_size_further_off_is_refused(height, words):
    with pytest.raises(GridError) as error:
        require_similar_size(PixelSize(height, "metre", UTM), 0.149, "metre", "a.tif")
    for part in ("a.tif", words, "`cell_size=0.149`", "`allow_resolution_mismatch=True`"):
        assert part in str(error.value)
