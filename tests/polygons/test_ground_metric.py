"""Areas and lengths of pixels equal those of pyproj on the ellipsoid."""

import math
import pickle
from itertools import pairwise

import numpy as np
import pyproj
import pytest
from affine import Affine
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS

from geopsp.core.grid import Grid
from geopsp.errors import GridError
from geopsp.polygons.ground_metric import MAX_KNOTS, GroundMetric, cumulative_area, lengths, pixel_area

UTM = "EPSG:32633"
EARTH = 5.10065622e14

TINY = 0.01
"""Accuracy of areas by pyproj, in m2."""

TURNED = "+proj=ob_tran +o_proj=longlat +ellps=WGS84 +type=crs"
PLACES = {
    UTM: Affine(10, 0, 400_000, 0, -10, 4_800_000),
    "EPSG:4326": Affine(0.002, 0, 15, 0, -0.002, 60),
    "EPSG:3857": Affine(30, 0, 1_500_000, 0, -30, 8_000_000),
    "EPSG:2225": Affine(100, 0, 6e6, 0, -100, 2e6),  # feet
    "EPSG:5513": Affine(20, 0, 700_000, 0, -20, 1_001_000),  # axes to the south and west
    "EPSG:4807": Affine(0.01, 0, 0, 0, -0.01, 50),  # grads from Paris
    "EPSG:3995": Affine(500, 0, -60_000, 0, -500, 60_000),  # the pole amid it
    "EPSG:27700+5701": Affine(5, 0, 300_000, 0, -5, 500_000),  # with heights
    "+proj=longlat +R=3396190 +no_defs": Affine(0.01, 0, -179.9, 0, -0.01, -20),  # Mars, over the antimeridian
    f"{TURNED} +o_lon_p=0 +o_lat_p=39.25 +lon_0=18": Affine(0.01, 0, 0, 0, -0.01, 5),  # poles elsewhere
}
TURNS = [Affine.identity(), Affine.scale(1, -1), Affine.scale(1.3, 0.6), Affine.rotation(37), Affine.shear(10, 20)]

gently = settings(max_examples=examples(12), deadline=None)
sizes = st.integers(1, 300)
grids = st.builds(
    lambda place, turn, width, height: Grid(CRS.from_user_input(place[0]), place[1] @ turn, width, height),
    st.sampled_from(list(PLACES.items())),
    st.sampled_from(TURNS),
    sizes,
    sizes,
)


def grid_of(crs, transform, width, height):
    return Grid(CRS.from_user_input(crs), transform, width, height)


def world(size, *, beyond=0.0):
    """Return a grid of the whole Earth with pixels of `size` degrees; it extends `beyond` degrees beyond the poles."""
    height = round((180 + 2 * beyond) / size)
    return grid_of("EPSG:4326", Affine(size, 0, -180, 0, -size, 90 + beyond), round(360 / size), height)


def ellipsoid(grid, cols, rows):
    """Return a geod, and longitudes and latitudes of pixel corners on it."""
    plane = pyproj.CRS.from_user_input(grid.crs)
    geod = plane.get_geod()
    there = f"+proj=longlat +a={geod.a} +b={geod.b} +type=crs"
    t = grid.transform
    x, y = t.a * cols + t.b * rows + t.c, t.d * cols + t.e * rows + t.f
    return geod, *pyproj.Transformer.from_crs(plane, there, always_xy=True).transform(x, y)


def straight(corners, parts):
    """Return (2, n) points on the lines between corners, without repetition."""
    steps = np.linspace(0, 1, parts, endpoint=False)[:, None]
    lines = [a + steps * (np.subtract(b, a)) for a, b in pairwise(corners)]
    return np.concatenate([*lines, [corners[-1]]]).astype(float).T


def area(grid, col, row, width, height):
    """Return m2 of a window by pyproj."""
    ring = [(col, row), (col + width, row), (col + width, row + height), (col, row + height), (col, row)]
    geod, lon, lat = ellipsoid(grid, *straight(ring, 200))
    return abs(geod.polygon_area_perimeter(lon, lat)[0])


def line_of(*points, dtype=np.int32):
    return np.array(points, dtype), np.array([0, len(points)])


def pixel_areas(grid, metric):
    """Return (rows, cols) areas of pixels in m2."""
    before = np.zeros((grid.height, grid.width + 1))
    for row in range(grid.height):
        cumulative_area(metric, 0, row, before[row])
    return np.diff(before)


@gently
@given(grid=grids)
def test_all_pixels_are_as_large_as_the_frame(grid):
    found = pixel_areas(grid, GroundMetric.from_grid(grid)).sum()
    assert found == pytest.approx(area(grid, 0, 0, grid.width, grid.height), rel=1e-7, abs=TINY)


@gently
@given(grid=grids, where=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)))
def test_a_pixel_is_as_large_as_pyproj_says(grid, where):
    col, row = int(where[0] * grid.width), int(where[1] * grid.height)
    assert pixel_area(GroundMetric.from_grid(grid), col + 0.5, row + 0.5) == pytest.approx(
        area(grid, col, row, 1, 1), rel=3e-6, abs=TINY
    )


@gently
@given(grid=grids, places=st.lists(st.tuples(st.floats(0, 1), st.floats(0, 1)), min_size=2, max_size=5, unique=True))
def test_a_line_is_as_long_as_pyproj_says(grid, places):
    points = np.array(places) * (grid.width, grid.height)
    geod, lon, lat = ellipsoid(grid, *straight(points, 300))
    found = lengths(*line_of(*points, dtype=np.float64), GroundMetric.from_grid(grid))
    assert found[0] == pytest.approx(geod.line_length(lon, lat), rel=3e-6, abs=1e-4)


@gently
@given(grid=grids, left=st.integers(-20, 20), start=st.integers(0, 100), row=st.integers(0, 300))
def test_runs_of_pixels_are_the_sum_of_their_pixels(grid, left, start, row):
    metric, before = GroundMetric.from_grid(grid), np.zeros(150)
    cumulative_area(metric, left, row, before)
    each = [pixel_area(metric, left + col + 0.5, row + 0.5) for col in range(start, start + 49)]
    assert before[start + 49] - before[start] == pytest.approx(sum(each), rel=1e-9)


def test_of_several_lines_each_has_its_length():
    grid = grid_of(UTM, Affine(10, 0, 500_000, 0, -20, 4_800_000), 70, 50)
    xy = np.array([[0, 0], [3, 0], [3, 2], [10, 10], [10, 14], [50, 7], [50, 7], [8, 3]], np.int32)
    expected = np.array([70, 80, 0, 0]) / 0.9996
    assert lengths(xy, np.array([0, 3, 5, 7, 8]), GroundMetric.from_grid(grid)) == pytest.approx(expected, rel=1e-6)


def test_a_slanting_line_in_slanting_pixels():
    turned = grid_of(UTM, Affine(8, 6, 500_000, 6, -8, 4_800_000), 30, 20)
    sheared = grid_of(UTM, Affine(10, 10, 500_000, 0, -10, 4_800_000), 30, 20)
    line = line_of((0, 0), (3, 4))
    assert lengths(*line, GroundMetric.from_grid(turned)) * 0.9996 == pytest.approx(50, rel=1e-6)
    assert lengths(*line, GroundMetric.from_grid(sheared)) * 0.9996 == pytest.approx(math.hypot(70, 40), rel=1e-6)


@pytest.mark.parametrize(("size", "exact"), [(10, 1e-6), (1, 1e-7), (0.3, 1e-7)])
def test_the_world_is_as_large_as_the_earth(size, exact):
    grid = world(size)
    assert pixel_areas(grid, GroundMetric.from_grid(grid)).sum() == pytest.approx(EARTH, rel=exact)


def test_of_a_world_map_also_pixels_at_the_poles_are_known():
    grid = world(0.5)
    found = pixel_areas(grid, GroundMetric.from_grid(grid))
    for row in (0, 1, 100, 359):
        assert found[row, 3] == pytest.approx(area(grid, 3, row, 1, 1), rel=2e-4)


def test_rows_beyond_a_pole_have_no_area():
    """The first row of some world maps has its centres at the pole."""
    grid = world(0.25, beyond=0.125)
    found = pixel_areas(grid, GroundMetric.from_grid(grid))
    assert found.sum() == pytest.approx(EARTH, rel=1e-5)
    assert found[0, 0] < found[1, 0] / 2


def test_the_antimeridian_changes_nothing():
    here, there = (grid_of("EPSG:4326", Affine(0.01, 0, west, 0, -0.01, 10), 300, 200) for west in (50, 178.7))
    assert np.allclose(GroundMetric.from_grid(here).pixel_area, GroundMetric.from_grid(there).pixel_area, rtol=1e-9)
    assert np.allclose(GroundMetric.from_grid(here).e, GroundMetric.from_grid(there).e, rtol=1e-9)


def test_beyond_a_projections_domain_nothing_is_known():
    """An image of the full Earth disc: its corners are outside of the domain of the CRS."""
    crs = "+proj=geos +h=35785831 +lon_0=-75 +ellps=GRS80"
    grid = grid_of(crs, Affine(200_000, 0, -5.6e6, 0, -200_000, 5.6e6), 56, 56)
    metric = GroundMetric.from_grid(grid)
    assert np.isnan(pixel_area(metric, 0.5, 0.5))
    assert pixel_area(metric, 28.5, 28.5) == pytest.approx(area(grid, 28, 28, 1, 1), rel=1e-6)
    assert np.isnan(lengths(*line_of((0, 0), (5, 0)), metric)).all()
    assert np.isnan(pixel_areas(grid, metric)[28, 30:]).all()  # behind the first that is unknown


def test_few_knots_are_enough_for_a_scene_and_never_many_are_taken():
    scene = GroundMetric.from_grid(grid_of(UTM, Affine(10, 0, 499_980, 0, -10, 4_800_000), 10_980, 10_980))
    assert scene.pixel_area.shape == (12, 12)
    globe = GroundMetric.from_grid(world(0.3))
    assert max(globe.pixel_area.shape) <= MAX_KNOTS[-1] + 2
    assert (globe.cols[-1], globe.rows[-1]) == (1200, 600)
    equal_area = GroundMetric.from_grid(grid_of("EPSG:3035", Affine(9e4, 0, 2.6e6, 0, -9e4, 5.4e6), 40, 40))
    assert equal_area.step < 40 / MAX_KNOTS[0]  # areas are the same all over, lengths are not


def test_it_can_be_sent_to_other_processes():
    grid = grid_of(UTM, PLACES[UTM], 40, 30)
    metric = GroundMetric.from_grid(grid)
    twin = pickle.loads(pickle.dumps(metric))
    assert pixel_area(twin, 3.5, 4.5) == pixel_area(metric, 3.5, 4.5)


def test_a_crs_without_an_ellipsoid_is_told():
    with pytest.raises(GridError, match="ellipsoid"):
        GroundMetric.from_grid(grid_of('LOCAL_CS["site",UNIT["metre",1]]', PLACES[UTM], 4, 3))
    with pytest.raises(GridError, match="ellipsoid"):
        GroundMetric.from_grid(grid_of("EPSG:4978", PLACES[UTM], 4, 3))  # from the globe's middle
