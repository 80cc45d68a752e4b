import numpy as np
import pytest
import shapely
from affine import Affine
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from rasterio.features import rasterize
from rasterio.transform import from_origin

from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX
from geopsp.labels import rasterize as burn
from geopsp.labels.rasterize import rasterize_polygons

UTM = CRS.from_epsg(32632)
GRID = Grid(UTM, from_origin(601234.3, 5301717.7, 0.7, 0.7), 120, 90)
TURNED = Grid(UTM, GRID.transform @ Affine.rotation(31), 120, 90)


def polygons(seed, snap, grid=GRID, count=9):
    """Random polygons, some with a hole, on and around a grid; `snap` parts of a pixel are where vertices lie."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform((-30, -30), (grid.width + 30, grid.height + 30), (count, 2))
    pixels = centres[:, None] + rng.normal(0, rng.uniform(2, 60, (count, 1, 1)), (count, 8, 2))
    pixels = np.round(pixels * snap) / snap if snap else pixels
    shapes = [shapely.convex_hull(shapely.MultiPoint(p)) for p in pixels]
    shapes = [
        shapely.difference(a, b) if i % 3 == 0 else a for i, (a, b) in enumerate(zip(shapes, shapes[::-1], strict=True))
    ]
    shapes = [s for s in shapes if s.geom_type in {"Polygon", "MultiPolygon"} and s.area > 0]
    t = grid.transform
    moved = shapely.transform(np.array(shapes, object), lambda p: np.column_stack(t @ p.T))
    return moved, rng.choice(np.array([1, 2, 5, IGNORE_INDEX], np.uint8), len(shapes))


windows = st.tuples(st.integers(-20, 100), st.integers(-20, 80), st.integers(1, 60), st.integers(1, 60))


@given(
    seed=st.integers(0, 10**6),
    snap=st.sampled_from([0, 1, 2, 4]),
    window=windows,
    all_touched=st.booleans(),
    grid=st.sampled_from([GRID, TURNED]),
)
@settings(max_examples=examples(75), deadline=None)
def test_a_window_sees_what_the_whole_sees(seed, snap, window, all_touched, grid):
    """Also where edges run exactly through the centres of pixels."""
    shapes, codes = polygons(seed, snap, grid)
    options = {"fill": 0, "all_touched": all_touched}
    whole, window = rasterize_polygons(shapes, codes, grid, **options), Window(*window)
    part, shared = rasterize_polygons(shapes, codes, grid.crop(window), **options), window.intersect(grid.window)
    for ours, theirs in ((part.codes, whole.codes), (part.conflict, whole.conflict)):
        np.testing.assert_array_equal(ours[shared.slices(window)], theirs[shared.slices(grid.window)])


@given(seed=st.integers(0, 10**6), grid=st.sampled_from([GRID, TURNED]))
@settings(max_examples=examples(30), deadline=None)
def test_it_is_rasterio_s_burn(seed, grid):
    shapes, codes = polygons(seed, 0, grid)
    pairs = list(zip(shapes, codes.tolist(), strict=True))
    expected = rasterize(pairs, (90, 120), transform=grid.transform, fill=7, dtype="uint8")
    burned = rasterize_polygons(shapes, codes, grid, fill=7, all_touched=False)
    np.testing.assert_array_equal(burned.codes, expected)
    layers = [
        rasterize(shapes[codes == code], (90, 120), transform=grid.transform)
        for code in {*codes.tolist()} - {IGNORE_INDEX}
    ]
    np.testing.assert_array_equal(burned.conflict, np.sum([np.zeros((90, 120)), *layers], axis=0) > 1)


@given(seed=st.integers(0, 10**6), all_touched=st.booleans())
@settings(max_examples=examples(15), deadline=None)
def test_costly_windows_are_burned_in_parts(seed, all_touched):
    shapes, codes = polygons(seed, 2)
    whole = rasterize_polygons(shapes, codes, GRID, fill=0, all_touched=all_touched)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(burn, "MAX_WORK", 200)
        parts = rasterize_polygons(shapes, codes, GRID, fill=0, all_touched=all_touched)
    corners = (
        2 if all_touched else 0
    )  # an edge through a pixel's corner touches it or not by the last bit of GDAL's floats
    assert (parts.codes != whole.codes).sum() <= corners
    assert (parts.conflict != whole.conflict).sum() <= corners


@pytest.mark.parametrize("all_touched", [False, True])
def test_polygons_on_pixel_borders_fill_their_pixels_and_no_more(all_touched):
    t = GRID.transform
    box = shapely.transform(shapely.box(3, 4, 9, 6), lambda p: np.column_stack(t @ p.T))
    burned = rasterize_polygons(np.array([box]), np.array([1], np.uint8), GRID, fill=0, all_touched=all_touched)
    expected = np.zeros((90, 120), np.uint8)
    expected[4:6, 3:9] = 1
    np.testing.assert_array_equal(burned.codes, expected)


def test_a_polygon_of_many_vertices_costs_a_window_what_it_shows():
    angles = np.linspace(0, 2 * np.pi, 200_001)[:-1]
    radius = 30_000 + 3 * np.sin(angles * 5000)
    middle = np.array([601234.3 - 30_000, 5301717.7])
    coast = shapely.Polygon(np.column_stack([np.cos(angles) * radius, np.sin(angles) * radius]) + middle)
    shapes, one = np.array([coast]), np.array([1], np.uint8)
    assert len(burn.pixel_rings(shapes, GRID, offset=(0, 0)).polygons[0]["coordinates"][0]) < 400
    expected = rasterize(shapes, (90, 120), transform=GRID.transform)
    np.testing.assert_array_equal(rasterize_polygons(shapes, one, GRID, fill=0, all_touched=False).codes, expected)


def test_hundreds_of_layers_of_one_class_are_not_contested():
    shapes = np.array([shapely.box(601240, 5301680, 601250, 5301690)] * 700)
    burned = rasterize_polygons(shapes, np.full(700, 254, np.uint8), GRID, fill=0, all_touched=False)
    assert set(np.unique(burned.codes)) == {0, 254}
    assert not burned.conflict.any()


def test_far_vertices_do_not_wrap():
    shapes = np.array([shapely.box(-1e15, -1e15, 1e15, 1e15)])
    assert rasterize_polygons(shapes, np.array([3], np.uint8), GRID, fill=0, all_touched=False).codes.min() == 3
