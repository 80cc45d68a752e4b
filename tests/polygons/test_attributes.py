"""The attribute table holds class, size and confidence of each polygon."""

import json

import numpy as np
import pyarrow as pa
import pytest
import rasterio
import shapely
from affine import Affine
from rasterio.crs import CRS

from geopsp.core.grid import Grid
from geopsp.core.legend import CLASSES_TAG, IGNORE_INDEX, Legend, distinct_color
from geopsp.errors import InputNotFoundError, RasterError
from geopsp.polygons.attributes import AttributeTable, areas_in_pixels, legend_for
from geopsp.polygons.borders.topology import RaggedPolygons
from geopsp.polygons.features import Features
from geopsp.polygons.ground_metric import GroundMetric
from geopsp.raster.legend_io import write_class_files

GRID = Grid(CRS.from_epsg(32632), Affine(10, 0, 601_234, 0, -10, 5_301_717), 83, 61)
METRIC = GroundMetric.from_grid(GRID)
LEGEND = Legend.from_names({0: "water", 3: "Grünland", 7: "road"}, {3: "#010203"})

SQUARE = [(0, 0), (0, 4), (4, 4), (4, 0), (0, 0)]
HOLE = [(1, 1), (2, 1), (2, 2), (1, 2), (1, 1)]
FAR = [(10, 10), (10, 12), (13, 12), (10, 10)]
WORDS = ["code", "name", "color", "area_m2", "perimeter_m"]


def features_of(*, codes=(3, 7), sums=((15, 3000, 6, 8, 4, 1), (4, 800, 0, 0, 0, 0))):
    """A square with a hole; and, as one feature, a triangle and a square."""
    rings = [SQUARE, HOLE, FAR, [(x + 20, y + 30) for x, y in SQUARE]]
    xy = np.concatenate(rings).astype(float)
    starts = np.cumsum([0, *map(len, rings)])
    outlines = RaggedPolygons(xy, starts, np.array([0, 2, 3, 4]))
    return Features(outlines, np.array([0, 1, 3]), np.array(codes, np.uint8), np.array(sums, float))


def none():
    outlines = RaggedPolygons(np.empty((0, 2)), np.array([0]), np.array([0]))
    return Features(outlines, np.array([0]), np.empty(0, np.uint8), np.empty((0, 6)))


def test_areas_in_pixels_are_those_of_shapely():
    features = features_of()
    assert areas_in_pixels(features).tolist() == [15, 3 + 16]
    assert areas_in_pixels(features).tolist() == shapely.area(features.to_shapely(Affine.identity())).tolist()


def test_a_row_holds_class_size_point_and_shape():
    features = features_of()
    found = AttributeTable(GRID, METRIC, LEGEND).to_batch(features).to_pydict()
    assert list(found) == [*WORDS, "point_x", "point_y", "geometry"]
    assert found["code"] == [3, 7]
    assert found["name"] == ["Grünland", "road"]
    assert found["color"] == ["#010203", LEGEND.classes[2].color]
    assert found["area_m2"] == [3000, 19 * 200]  # the mean pixel of the second has 200 m2
    around = shapely.length(features.to_shapely(Affine.identity())) * 10 / 0.9997  # UTM, 100 km from the meridian
    assert found["perimeter_m"] == pytest.approx(around, rel=1e-4)
    shapes = features.to_shapely(GRID.transform)
    assert shapely.equals_exact(shapely.from_wkb(found["geometry"]), shapes).all()
    assert shapely.contains_xy(shapes, found["point_x"], found["point_y"]).all()


def test_confidence_is_told_where_it_is_known():
    table = AttributeTable(GRID, METRIC, LEGEND, has_confidence=True)
    found = table.to_batch(features_of()).to_pydict()
    assert list(found) == [*WORDS, "confidence", "edge_unsure", "point_x", "point_y", "geometry"]
    assert found["confidence"] == [0.75, None]
    assert found["edge_unsure"] == [0.25, None]


def test_moved_corners_are_told():
    found = (
        AttributeTable(GRID, METRIC, LEGEND, has_moved=True)
        .to_batch(features_of(), moved=np.array([0.5, np.nan]))
        .to_pydict()
    )
    assert list(found) == [*WORDS, "moved_m", "point_x", "point_y", "geometry"]
    assert found["moved_m"] == [0.5, None]


def test_what_is_unknown_is_null_and_no_number():
    features = features_of(sums=((15, np.nan, 0, 0, 0, 0), (4, 800, 0, 0, 0, 0)))
    batch = AttributeTable(GRID, METRIC, LEGEND).to_batch(features)
    assert batch["area_m2"].to_pylist() == [None, 3800]


def test_points_in_degrees_are_those_that_proj_gives():
    features = features_of()
    plain, turned = (
        AttributeTable(GRID, METRIC, LEGEND, in_wgs84=degrees).to_batch(features).to_pydict()
        for degrees in (False, True)
    )
    x, y = rasterio.warp.transform(GRID.crs, "EPSG:4326", plain["point_x"], plain["point_y"])
    assert np.allclose([turned["point_x"], turned["point_y"]], [x, y], rtol=0, atol=1e-9)
    assert turned["geometry"] == plain["geometry"]


def test_points_without_a_place_in_degrees_are_null():
    """The corner of an image of the full Earth disc has no longitude and latitude."""
    crs = CRS.from_string("+proj=geos +h=35785831 +lon_0=-75 +ellps=GRS80")
    grid = Grid(crs, Affine(1e4, 0, -5.6e6, 0, -1e4, 5.6e6), 99, 99)
    batch = AttributeTable(grid, GroundMetric.from_grid(grid), LEGEND, in_wgs84=True).to_batch(features_of())
    assert batch["perimeter_m"].null_count == 2
    assert batch["point_x"].to_pylist() == batch["point_y"].to_pylist() == [None, None]


@pytest.mark.parametrize(("left", "x"), [(174, [179, -161]), (-215, [150, 170]), (-180, [-175, -155])])
def test_points_in_degrees_are_those_of_the_earth(left, x):
    """Longitudes are from -180 to 180, also if the raster crosses the antimeridian; not so in the raster's CRS."""
    grid = Grid(CRS.from_epsg(4326), Affine(1, 0, left, 0, -1, 60), 40, 40)
    squares = np.concatenate([np.add(SQUARE, (x, 20)) for x in (3, 23)]).astype(float)
    outlines = RaggedPolygons(squares, np.array([0, 5, 10]), np.array([0, 1, 2]))
    features = Features(outlines, np.arange(3), np.array([3, 7], np.uint8), np.full((2, 6), 16.0))
    turned, plain = (
        AttributeTable(grid, GroundMetric.from_grid(grid), LEGEND, in_wgs84=degrees).to_batch(features).to_pydict()
        for degrees in (True, False)
    )
    assert plain["point_x"] == [left + 5, left + 25]
    assert turned["point_x"] == x
    assert turned["point_y"] == plain["point_y"] == [38, 38]


@pytest.mark.parametrize(
    "options", [{}, {"has_confidence": True}, {"has_moved": True}, {"has_confidence": True, "has_moved": True}]
)
def test_no_rows_have_the_same_columns(options):
    table = AttributeTable(GRID, METRIC, LEGEND, **options)
    batch = table.to_batch(none(), moved=np.empty(0))
    assert (batch.num_rows, batch.schema) == (0, table.schema)


def test_columns_are_of_plain_types_and_the_geometry_says_what_it_is():
    schema = AttributeTable(GRID, METRIC, LEGEND).schema
    assert schema.field("code").type == pa.int16()
    assert schema.field("name").type == pa.string()
    assert schema.field("geometry").metadata == {b"ARROW:extension:name": b"geoarrow.wkb"}


def test_a_legend_of_every_code_from_our_tag(make_raster):
    path = make_raster(data=np.zeros((1, 3, 4), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(**{CLASSES_TAG: json.dumps(LEGEND.to_json())})
    found = {info.code: info for info in legend_for(path)}
    assert list(found) == list(range(IGNORE_INDEX))
    assert [found[info.code] for info in LEGEND] == list(LEGEND)
    assert (found[254].name, found[254].color) == ("class 254", distinct_color(254))


def test_a_legend_from_the_files_beside_and_from_the_colour_table(make_raster):
    path = make_raster(data=np.zeros((1, 3, 4), np.uint8))
    assert [info.name for info in legend_for(path)] == [f"class {code}" for code in range(IGNORE_INDEX)]
    with rasterio.open(path, "r+") as dataset:
        dataset.write_colormap(1, {1: (255, 0, 16, 255)})
    assert legend_for(path).classes[1].color == "#ff0010"
    write_class_files(path, LEGEND)
    assert legend_for(path).classes[3] == LEGEND.classes[1]


def test_a_damaged_legend_or_none_is_told(make_raster, tmp_path):
    path = make_raster(data=np.zeros((1, 3, 4), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.update_tags(**{CLASSES_TAG: '[{"code": 1}]'})
    with pytest.raises(RasterError, match=CLASSES_TAG):
        legend_for(path)
    with pytest.raises(InputNotFoundError, match=r"none\.tif"):
        legend_for(tmp_path / "none.tif")
