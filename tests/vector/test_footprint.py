"""The hull of shapes on the globe, and its bounds."""

from __future__ import annotations

import numpy as np
import pyproj
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from shapely.geometry import shape

from geopsp.vector.antimeridian import WGS84
from geopsp.vector.footprint import geojson_fields, hull_in_wgs84

UTM60 = pyproj.CRS.from_epsg(32760)


def boxes(*bounds):
    return np.array([shapely.box(*each) for each in bounds], object)


def turned(geometry, degrees):
    return shapely.transform(geometry, lambda xy: xy + np.array([degrees, 0]))


PLACE = st.tuples(st.floats(-180, 180), st.floats(-80, 80), st.floats(0.01, 1), st.floats(0.01, 1))


@given(st.lists(PLACE, min_size=1, max_size=6))
def test_all_shapes_lie_in_the_hull(places):
    """Wherever the hull is cut, each shape is in it."""
    shapes = boxes(*((x, y, x + width, y + height) for x, y, width, height in places))
    fields = geojson_fields(hull_in_wgs84(shapes, WGS84))
    hull = shape(fields["geometry"])
    hull = shapely.union_all([hull, turned(hull, 360)]).buffer(1e-5)
    assert all(hull.covers(each) or hull.covers(turned(each, 360)) for each in shapes)
    west, south, east, north = fields["bbox"]
    assert -180 <= west <= 180
    assert -180 <= east <= 180
    assert south < north


def test_a_hull_goes_the_short_way():
    fields = geojson_fields(hull_in_wgs84(boxes((178, -17, 179, -16), (-179, -18, -178, -17)), WGS84))
    assert fields["geometry"]["type"] == "MultiPolygon"
    assert fields["bbox"] == [178, -18, -178, -16]
    assert shape(fields["geometry"]).area < 10


def test_bounds_of_a_shape_across_the_antimeridian_in_metres():
    """Fiji, in the zone that ends there."""
    at = pyproj.Transformer.from_crs(4326, UTM60, always_xy=True).transform(179.9, -17)
    fields = geojson_fields(hull_in_wgs84(boxes((at[0] - 5e4, at[1] - 1e4, at[0] + 5e4, at[1] + 1e4)), UTM60))
    west, _, east, _ = fields["bbox"]
    assert 179 < west < 180
    assert -180 < east < -179


def test_rings_run_counter_clockwise_and_are_short():
    fields = geojson_fields(hull_in_wgs84(boxes((500000.123456789, 5e6, 600000, 5.1e6)), pyproj.CRS.from_epsg(32632)))
    (ring,) = fields["geometry"]["coordinates"]
    assert shapely.LinearRing(ring).is_ccw
    assert all(value == round(value, 7) for point in ring for value in point)
    assert isinstance(ring[0], list)


@pytest.mark.parametrize("edges", [(-180, 0), (0, 180), (-180, 180)])
def test_ground_that_ends_at_the_antimeridian_does_not_cross_it(edges):
    fields = geojson_fields(hull_in_wgs84(boxes((edges[0], 0, edges[1], 10)), WGS84))
    assert fields["bbox"] == [edges[0], 0, edges[1], 10]
