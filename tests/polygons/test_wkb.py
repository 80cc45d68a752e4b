"""WKB equals that of shapely, and representative points lie inside."""

from itertools import pairwise

import numpy as np
import pytest
import shapely
import shapely.affinity
import shapely.geometry
from affine import Affine
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from rasterio.features import shapes as rasterio_shapes

from geopsp.errors import OutputError
from geopsp.polygons import wkb as module
from geopsp.polygons.attributes import representative_points
from geopsp.polygons.borders.topology import RaggedPolygons
from geopsp.polygons.features import Features
from geopsp.polygons.wkb import encode_wkb
from geopsp.polygons.zonal_stats import NUM_SUMS

TRANSFORMS = [
    Affine(10, 0, 500_000.3, 0, -10, 4_800_000),
    Affine(8, 6, 0.1, 6, -8, 7),
    Affine(-1e-5, 0, 15, 0, 3e-5, 60),
    Affine(0.3, 0.1, 0.7, 0.7, -0.9, 0.1),
]

rasters = hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9), elements=st.integers(0, 2))
gently = settings(max_examples=examples(40), deadline=None)


def features_of(groups):
    """Return a feature for each list of shapely polygons."""
    polygons = [polygon for group in groups for polygon in group]
    parts = np.cumsum([0, *map(len, groups)])
    count = len(groups)
    outlines = RaggedPolygons(np.empty((0, 2)), np.array([0]), np.array([0]))
    if polygons:
        _, xy, (rings, starts) = shapely.to_ragged_array(np.array(polygons, object))
        outlines = RaggedPolygons(xy, rings.astype(np.int64), starts.astype(np.int64))
    return Features(outlines, parts, np.zeros(count, np.uint8), np.ones((count, NUM_SUMS)))


def regions(codes):
    """Return the polygons of 4-connected regions."""
    return [shapely.geometry.shape(shape) for shape, _ in rasterio_shapes(codes)]


@gently
@given(codes=rasters, transform=st.sampled_from(TRANSFORMS), data=st.data())
def test_bytes_are_those_of_shapely(codes, transform, data):
    polygons = regions(codes)
    cuts = sorted(data.draw(st.sets(st.integers(1, len(polygons)), max_size=3)) | {0, len(polygons)})
    groups = [polygons[i:j] for i, j in pairwise(cuts)]
    features = features_of(groups)
    found = encode_wkb(features, transform)
    found.validate(full=True)
    assert found.to_pylist() == list(shapely.to_wkb(features.to_shapely(transform), byte_order=1))


@gently
@given(codes=rasters, shear=st.floats(-2, 2), turn=st.floats(0, 360))
def test_inner_points_lie_inside(codes, shear, turn):
    bend = Affine.rotation(turn) @ Affine.shear(np.degrees(np.arctan(shear)), 0)
    polygons = [shapely.affinity.affine_transform(polygon, bend.to_shapely()) for polygon in regions(codes)]
    points = shapely.points(representative_points(features_of([[polygon] for polygon in polygons])))
    outlines = [polygon.boundary for polygon in polygons]
    assert shapely.contains(polygons, points).all()
    assert (shapely.distance(outlines, points) > 0).all()


@gently
@given(codes=rasters)
def test_inner_points_of_raster_regions_are_half_a_pixel_away_from_outlines(codes):
    polygons = regions(codes)
    points = shapely.points(representative_points(features_of([[polygon] for polygon in polygons])))
    assert (shapely.distance([polygon.boundary for polygon in polygons], points) >= 0.5).all()


def test_a_point_lies_amid_the_widest_part():
    comb = shapely.Polygon([(0, 0), (20, 0), (20, 9), (12, 9), (12, 2), (4, 2), (4, 9), (0, 9)])
    ring = shapely.Polygon(shapely.box(0, 0, 10, 10).exterior, [shapely.box(1, 1, 7, 9).exterior])
    assert representative_points(features_of([[comb], [ring]])).tolist() == [[16, 5.5], [8.5, 5]]


def test_of_several_parts_the_widest_has_the_point():
    parts = [shapely.box(0, 0, 2, 2), shapely.box(50, 90, 55, 91), shapely.box(7, 7, 8, 8)]
    assert representative_points(features_of([parts])).tolist() == [[52.5, 90.5]]


def test_nothing_has_no_bytes_and_no_points():
    assert encode_wkb(features_of([]), TRANSFORMS[0]).to_pylist() == []
    assert representative_points(features_of([])).shape == (0, 2)


def test_too_many_bytes_are_told(monkeypatch):
    monkeypatch.setattr(module, "MAX_BYTES", 93)
    assert len(encode_wkb(features_of([[shapely.box(0, 0, 1, 1)]]), Affine.identity())) == 1
    with pytest.raises(OutputError, match="2 polygons are 186 bytes long, but at most 93"):
        encode_wkb(features_of([[shapely.box(0, 0, 1, 1)]] * 2), Affine.identity())
