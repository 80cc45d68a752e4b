"""Polygons in longitude and latitude are valid and within 180 degrees, and cover the same ground."""

import numpy as np
import pyogrio
import pyproj
import pytest
import shapely
from affine import Affine
from polygons_common import blobs
from shapely import Polygon, box

from geopsp.polygons.raster_to_polygons import raster_to_polygons
from geopsp.vector.antimeridian import to_wgs84

WGS84 = pyproj.CRS(4326)
NOTCHED = Polygon([(178, 0), (182, 0), (182, 1), (179, 1), (179, 2), (180, 2), (180, 3), (178, 3)])
STAIRS = Polygon([(178, 0), (182, 0), (182, 1), (180, 1), (180, 2), (182, 2), (182, 3), (178, 3)])
HOLES = box(170, 0, 190, 10).difference(box(179, 2, 181, 4)).difference(box(185, 2, 186, 4))
PARTS = shapely.MultiPolygon([box(178, 0, 182, 1), box(183, 0, 184, 1), box(170, 0, 171, 1)])
WORLD = box(-180, -80, 180, -60)


def turned(shape):
    """The same ground within 180 degrees, made another way: both halves, the eastern one moved."""
    strips = [(box(360 * turn - 180, -90, 360 * turn + 180, 90), turn) for turn in (-1, 0, 1)]
    moved = [shapely.affinity.translate(shape.intersection(strip), -360 * turn) for strip, turn in strips]
    return shapely.union_all([shapely.buffer(part, 0) for part in moved])


def require_same_ground(found, wanted):
    assert found.geom_type in {"Polygon", "MultiPolygon"}
    assert found.is_valid
    left, _, right, _ = found.bounds
    assert -180 <= left <= right <= 180
    assert found.symmetric_difference(wanted).area == pytest.approx(0, abs=1e-6)


def in_crs(shape, crs):
    to_crs = pyproj.Transformer.from_crs(4326, crs, always_xy=True)
    return shapely.transform(shape, lambda xy: np.column_stack(to_crs.transform(*xy.T)))


@pytest.mark.parametrize("shape", [
    box(170, 10, 190, 20), box(190, 10, 200, 20), box(359, 0, 361, 1), box(-190, 0, -170, 5), box(0, -80, 360, -60),
    box(10, 10, 20, 20), box(-179.99, 0, 179.99, 10), NOTCHED, STAIRS, HOLES, PARTS, WORLD,
])  # fmt: skip
def test_longitudes_of_a_geographic_crs_are_turned(shape):
    (found,) = to_wgs84(np.array([shape], object), WGS84)
    require_same_ground(found, turned(shape))
    assert (found.geom_type == "MultiPolygon") == (turned(shape).geom_type == "MultiPolygon")


@pytest.mark.parametrize("shape", [box(170, 10, 190, 20), box(190, 10, 200, 20), NOTCHED, STAIRS, HOLES, PARTS])
def test_a_projected_polygon_across_the_antimeridian_is_cut(shape):
    (found,) = to_wgs84(np.array([in_crs(shape, 3832)], object), pyproj.CRS(3832))
    require_same_ground(found, turned(shape))


def test_edges_around_half_the_world_stay():
    world = box(-20_037_508, -1e6, 20_037_508, 1e6)
    (found,) = to_wgs84(np.array([world], object), pyproj.CRS(3857))
    assert found.area == pytest.approx(360 * 2 * 8.9465739, rel=1e-6)
    assert found.is_valid


@pytest.mark.parametrize("shape", [
    box(-1e6, -1e6, 1e6, 1e6), box(-1e6, -1e6, 1e6, 1e6).difference(box(-1e5, -1e5, 1e5, 1e5)),
    box(-1e6, -1e6, 1e6, 1e6).difference(box(2e5, 2e5, 3e5, 3e5)), box(-2e6, -2e6, -1e6, 2e6),
])  # fmt: skip
def test_polygons_around_a_pole_reach_it(shape):
    """Points of the plane lie in the polygon before and after."""
    crs = pyproj.CRS(3413)
    dense = shapely.segmentize(shape, 2e4)
    (found,) = to_wgs84(np.array([dense], object), crs)
    assert found.is_valid
    xy = np.random.default_rng(0).uniform(-2.2e6, 2.2e6, (3000, 2))
    lon, lat = pyproj.Transformer.from_crs(crs, 4326, always_xy=True).transform(*xy.T)
    inside = shapely.contains_xy(shape, *xy.T)
    clear = shapely.distance(shape.boundary, shapely.points(xy)) > 5e3
    assert (shapely.contains_xy(found, lon, lat) == inside)[clear].all()


def test_a_map_of_0_to_360_degrees_is_valid_geojson(make_raster, tmp_path):
    codes = blobs(40)
    path = make_raster("m.tif", codes[None], crs="EPSG:4326", transform=Affine(9, 0, 0, 0, -4.5, 90), nodata=255)
    for name, options in (("plain", {}), ("one", {"dissolve": True}), ("corners", {"connectivity": 8})):
        frame = pyogrio.read_dataframe(raster_to_polygons(path, tmp_path / f"{name}.geojson", **options))
        assert set(frame.geom_type) <= {"Polygon", "MultiPolygon"}
        assert frame.is_valid.all()
        left, _, right, _ = frame.total_bounds
        assert (left, right) == (-180, 180)
        assert shapely.area(frame.geometry.values).sum() == pytest.approx(9 * 4.5 * (codes != 255).sum())
        assert ((frame.point_x >= -180) & (frame.point_x <= 180)).all()
