import json
import os
import pickle
from collections import Counter
from concurrent.futures import ThreadPoolExecutor

import geopandas as gpd
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pyogrio
import pytest
import rasterio
import rasterio.shutil
import shapely
from affine import Affine
from common import SHARED, examples, square
from hypothesis import given, settings
from hypothesis import strategies as st
from raster_common import class_raster
from rasterio.crs import CRS
from rasterio.enums import Resampling
from rasterio.features import rasterize
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT

from geopsp.core.grid import Grid, Window
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.errors import GeopspError, InputNotFoundError, LabelError, OptionError
from geopsp.labels import raster_labels as labelraster
from geopsp.labels.area import AreaOfInterest
from geopsp.labels.feature_index import FeaturesOnDisk
from geopsp.labels.features import POLYGON
from geopsp.labels.polygon_labels import PolygonLabels
from geopsp.labels.raster_labels import RasterLabels
from geopsp.labels.read_labels import is_raster, read_labels
from geopsp.raster.scene import Scene
from geopsp.vector import layer as layers
from geopsp.vector.open import open_layer, read_vector

HARD = SHARED / "hard" / "vectors"
LEFT, TOP = 601234.0, 5301717.0
UTM = CRS.from_epsg(32632)
GRID = Grid(UTM, from_origin(LEFT, TOP, 2.0, 2.0), 83, 61)


def frame(shapes, crs="EPSG:32632", **columns):
    return gpd.GeoDataFrame(columns or {"id": range(len(shapes))}, geometry=shapes, crs=crs)


def blobs(seed, count=12):
    """Random convex polygons on and around the grid."""
    rng = np.random.default_rng(seed)
    centres = rng.uniform((LEFT - 20, TOP - 150), (LEFT + 190, TOP + 20), (count, 2))
    points = centres[:, None] + rng.normal(0, rng.uniform(3, 30, (count, 1, 1)), (count, 7, 2))
    return [shapely.convex_hull(shapely.MultiPoint(p)) for p in points]


def rasterized(shapes, codes, *, fill=0, grid=GRID, all_touched=False):
    """rasterio's own burn, the largest polygon first."""
    order = np.argsort(-shapely.area(shapes), kind="stable")
    pairs = [(shapes[i], int(codes[i])) for i in order]
    size = (grid.height, grid.width)
    return rasterize(pairs, size, fill=fill, transform=grid.transform, all_touched=all_touched, dtype="uint8")


# Burning


@given(seed=st.integers(0, 10_000), all_touched=st.booleans(), background=st.sampled_from(["class", "ignore"]))
@settings(max_examples=examples(12), deadline=None)
def test_a_burn_equals_rasterio_s(seed, all_touched, background):
    shapes = blobs(seed)
    names = np.array(["a", "b", "c"])[np.arange(len(shapes)) % 3]
    labels = read_labels(frame(shapes, kind=names), class_field="kind", all_touched=all_touched, background=background)
    codes = [labels.legend.code_of(name) for name in names]
    fill = 0 if background == "class" else IGNORE_INDEX
    for grid in (GRID, GRID.crop(Window(-9, 20, 64, 64)), GRID.crop(Window(30, -20, 10, 25))):
        expected = rasterized(shapes, codes, fill=fill, grid=grid, all_touched=all_touched)
        np.testing.assert_array_equal(labels.burn(grid).codes, expected)


@pytest.mark.parametrize("crs", ["EPSG:4326", "EPSG:3857", "EPSG:32633", "EPSG:3035"])
@pytest.mark.parametrize("all_touched", [False, True])
def test_labels_in_another_crs_are_reprojected_whole(crs, all_touched):
    shapes = frame(blobs(4), kind=[f"k{i % 4}" for i in range(12)]).to_crs(crs)
    labels = read_labels(shapes, class_field="kind", all_touched=all_touched)
    order = np.argsort(-shapely.area(shapes.geometry.to_numpy()), kind="stable")
    there = shapes.to_crs("EPSG:32632").geometry.to_numpy()
    pairs = [(there[i], 1 + i % 4) for i in order]
    expected = rasterize(pairs, (61, 83), transform=GRID.transform, all_touched=all_touched, dtype="uint8")
    np.testing.assert_array_equal(labels.burn(GRID).codes, expected)


def test_a_burn_on_a_rotated_grid_equals_rasterio_s():
    transform = Affine.translation(LEFT, TOP) @ Affine.rotation(25) @ Affine.scale(2, -2)
    grid = Grid(UTM, transform, 40, 30)
    shapes = blobs(5)
    labels = read_labels(frame(shapes))
    np.testing.assert_array_equal(labels.burn(grid).codes, rasterized(shapes, np.ones(12), grid=grid))


def test_by_hand():
    one = square(LEFT + 4, TOP - 2, 6)
    labels = read_labels(frame([one]), background="ignore")
    codes = labels.burn(GRID.crop(Window(0, 0, 7, 5))).codes
    assert codes.tolist() == [
        [255, 255, 255, 255, 255, 255, 255],
        [255, 255, 1, 1, 1, 255, 255],
        [255, 255, 1, 1, 1, 255, 255],
        [255, 255, 1, 1, 1, 255, 255],
        [255, 255, 255, 255, 255, 255, 255],
    ]


@pytest.mark.parametrize(("background", "fill"), [("class", 0), ("ignore", IGNORE_INDEX)])
def test_where_no_polygon_lies(background, fill):
    burned = read_labels(frame([square(LEFT, TOP, 4)]), background=background).burn(GRID.crop(Window(50, 50, 5, 4)))
    assert (burned.codes == fill).all()
    assert not burned.conflict.any()


# Overlaps


def nested(*names):
    """Concentric squares, the first the largest, each a class."""
    shapes = [shapely.Point(LEFT + 80, TOP - 60).buffer(40 - 8 * i, cap_style="square") for i in range(len(names))]
    return shapes, frame(shapes, kind=list(names))


def test_the_smaller_polygon_lies_on_top_whatever_the_order_in_the_file():
    shapes, polygons = nested("a", "b", "c")
    expected = rasterized(shapes, [1, 2, 3])
    for order in ([0, 1, 2], [2, 1, 0], [1, 2, 0]):
        burned = read_labels(polygons.iloc[order], class_field="kind").burn(GRID)
        np.testing.assert_array_equal(burned.codes, expected)


def test_priority_by_list_beats_size():
    shapes, polygons = nested("a", "b", "c")
    labels = read_labels(polygons, class_field="kind", priority=["a"])
    np.testing.assert_array_equal(labels.burn(GRID).codes, rasterized(shapes[:1], [1]))
    assert labels.priority == "a on top; else smaller polygons lie on top of larger ones"
    labels = read_labels(polygons, class_field="kind", priority=["b", "a"])
    assert set(np.unique(labels.burn(GRID).codes)) == {0, 1, 2}
    with pytest.raises(LabelError, match="No class is named 'z'"):
        read_labels(polygons, class_field="kind", priority=["z"])


@given(seed=st.integers(0, 10_000), all_touched=st.booleans())
@settings(max_examples=examples(10), deadline=None)
def test_contested_pixels_are_those_in_polygons_of_several_classes(seed, all_touched):
    shapes = blobs(seed)
    kinds = [f"k{i % 3}" for i in range(len(shapes))]
    burned = read_labels(frame(shapes, kind=kinds), class_field="kind", all_touched=all_touched).burn(GRID)
    classes = np.zeros((61, 83), int)
    for kind in set(kinds):
        own = [shape for shape, k in zip(shapes, kinds, strict=True) if k == kind]
        classes += rasterized(own, np.ones(len(own)), all_touched=all_touched)
    np.testing.assert_array_equal(burned.conflict, classes > 1)


def test_a_class_below_and_above_another_is_contested():
    shapes, polygons = nested("a", "b", "a")
    burned = read_labels(polygons, class_field="kind").burn(GRID)
    np.testing.assert_array_equal(burned.conflict, rasterized(shapes[1:2], [1]) > 0)


# Cleaning


def test_what_is_not_a_valid_polygon_is_repaired_or_counted():
    x, y = LEFT + 40, TOP - 40
    bow_tie = shapely.Polygon([(x, y), (x + 20, y + 20), (x + 20, y), (x, y + 20)])
    solid = shapely.force_3d(square(x, y - 20, 10), 7)
    shapes = [
        bow_tie,
        solid,
        None,
        shapely.Polygon(),
        shapely.Point(x, y),
        shapely.LineString([(x, y), (x + 9, y)]),
        shapely.GeometryCollection([square(x + 40, y, 10), shapely.Point(x, y)]),
        shapely.GeometryCollection([shapely.Point(x, y), shapely.LineString([(x, y), (x + 9, y)])]),
        shapely.MultiPolygon([square(x - 30, y, 6), square(x - 20, y, 6)]),
        shapely.Polygon([(x, y), (x + 5, y), (x + 9, y)]),
    ]
    labels = read_labels(frame(shapes))
    found = {"polygons": 4, "repaired": 1, "null": 1, "empty": 1, "not_polygons": 4, "without_class": 0, "dropped": 0}
    assert labels.counts == found
    assert labels.report() == {"source": "the GeoDataFrame", **found, "priority": labels.priority, "notes": []}
    kept = [shapely.make_valid(bow_tie), shapely.force_2d(solid), square(x + 40, y, 10), shapes[8]]
    np.testing.assert_array_equal(labels.burn(GRID).codes, rasterized(kept, np.ones(4)))


def test_a_bow_tie_covers_both_its_wings():
    x, y = LEFT + 40, TOP - 80
    bow_tie = shapely.Polygon([(x, y), (x + 40, y + 40), (x + 40, y), (x, y + 40)])
    covered = read_labels(frame([bow_tie])).burn(GRID).codes.sum() * 4
    assert covered == pytest.approx(shapely.area(shapely.make_valid(bow_tie)), rel=0.1)


@pytest.mark.parametrize(
    "shapes",
    [[None], [shapely.Point(0, 0)], [shapely.Polygon()], [shapely.GeometryCollection()], []],
    ids=["null", "points", "empty", "empty collection", "nothing"],
)
def test_no_polygons(shapes):
    with pytest.raises(LabelError, match=r"contains no (polygons|features)|no polygons"):
        read_labels(frame(shapes))


def test_polygons_that_the_image_s_crs_cannot_hold_are_left_out():
    far = shapely.box(-179, -89, -178, 89)
    near = gpd.GeoSeries([square(LEFT + 20, TOP - 20, 40)], crs="EPSG:32632").to_crs("EPSG:4326").iloc[0]
    labels = read_labels(frame([far, near], crs="EPSG:4326"))
    assert labels.burn(GRID).codes.sum() == 400


@pytest.mark.parametrize("epsg", [32632, 3857, 2193, 32760, 3031])
def test_a_polygon_around_the_world_covers_every_image(epsg):
    x, y = {32632: (LEFT, TOP), 2193: (1_600_000, 5_400_000), 32760: (700_000, 6_000_000)}.get(epsg, (500, 900))
    grid = Grid(CRS.from_epsg(epsg), from_origin(x, y, 100, 100), 30, 20)
    world = frame([shapely.box(-180, -90, 180, 90)], crs="EPSG:4326")
    assert read_labels(world).burn(grid).codes.all()
    area = AreaOfInterest.read(world)
    area.require_overlap(grid)
    assert area.inside(grid).all()


def test_long_edges_bend_as_they_do_in_the_image_s_crs():
    box = shapely.box(7, 47, 11, 48)
    grid = Grid(UTM, from_origin(400_000, 5_330_000, 100, 100), 2000, 300)
    dense = gpd.GeoSeries([shapely.segmentize(box, 0.003)], crs=4326).to_crs(32632).to_numpy()
    labels = read_labels(frame([box], crs="EPSG:4326"))
    burned = labels.burn(grid).codes
    assert (burned != rasterized(dense, [1], grid=grid)).sum() <= 2
    window = Window(900, 50, 80, 100)
    np.testing.assert_array_equal(labels.burn(grid.crop(window)).codes, burned[window.slices(grid.full_window)])


def test_polygons_without_a_place_are_told_of():
    goes = CRS.from_proj4("+proj=geos +h=35785831 +lon_0=-75 +sweep=x")
    grid = Grid(goes, from_origin(0, 0, 1000, 1000), 20, 20)
    labels = read_labels(frame([shapely.box(-75.5, -1, -74.5, 1), shapely.box(100, 0, 101, 1)], crs="EPSG:4326"))
    labels.require_overlap(grid)
    assert labels.report()["notes"] == [
        "1 polygon of the GeoDataFrame cannot be projected into the CRS of the image: left out"
    ]
    for shape in (shapely.box(100, 0, 101, 1), square(LEFT, TOP, 9)):
        with pytest.raises(LabelError, match="cannot be projected into the CRS of the image"):
            read_labels(frame([shape], crs="EPSG:4326" if shape.area == 1 else "EPSG:32645")).require_overlap(grid)
    mars = Grid(CRS.from_user_input("IAU_2015:49900"), from_origin(9, 48, 0.1, 0.1), 9, 9)
    with pytest.raises(LabelError, match="Cannot transform coordinates between"):
        labels.burn(mars)


# Class table


def table(values, **options):
    shapes = [square(LEFT + 10 * i, TOP, 8) for i in range(len(values))]
    labels = read_labels(frame(shapes, kind=values), class_field="kind", **options)
    found = labels.features.features.polygons()
    codes = np.where(found.kinds == POLYGON, found.codes, None).tolist()
    by_place = dict(zip(found.keys[:, 3].astype(int).tolist(), codes, strict=True))
    return {info.code: info.name for info in labels.legend}, [by_place.get(i) for i in range(len(values))]


@pytest.mark.parametrize(
    ("values", "names", "codes"),
    [
        (["water", "boat", "water"], {0: "background", 1: "boat", 2: "water"}, [2, 1, 2]),
        ([" water ", "water", ""], {0: "background", 1: "water"}, [1, 1, None]),
        (["b", None, "a"], {0: "background", 1: "a", 2: "b"}, [2, None, 1]),
        ([7, 3, 7], {0: "background", 3: "class 3", 7: "class 7"}, [7, 3, 7]),
        ([7.0, np.nan, 3.0], {0: "background", 3: "class 3", 7: "class 7"}, [7, None, 3]),
        ([0, 2, 0], {0: "background", 2: "class 2"}, [0, 2, 0]),
        ([1.5, 0.5, 1.5], {0: "background", 1: "0.5", 2: "1.5"}, [2, 1, 2]),
        ([1000, 311, 311], {0: "background", 1: "311", 2: "1000"}, [2, 1, 1]),
        ([1000.0, 311.0, np.nan], {0: "background", 1: "311", 2: "1000"}, [2, 1, None]),
        ([-1, 4, 4], {0: "background", 1: "-1", 2: "4"}, [1, 2, 2]),
        ([1, "water", None], {0: "background", 1: "1", 2: "water"}, [1, 2, None]),
        (["Background", "road", "x"], {0: "background", 1: "road", 2: "x"}, [0, 1, 2]),
        (["zone", "background", "a"], {0: "background", 1: "a", 2: "zone"}, [2, 0, 1]),
        ([True, False, True], {0: "background", 1: "class 1"}, [1, 0, 1]),
        (pd.array([5, None, 9], "Int64"), {0: "background", 5: "class 5", 9: "class 9"}, [5, None, 9]),
        (pd.Categorical(["x", None, "a"]), {0: "background", 1: "a", 2: "x"}, [2, None, 1]),
    ],
)
def test_the_class_table_is_stable_and_sorted(values, names, codes):
    assert table(values) == (names, codes)


def test_with_an_ignored_background_there_is_no_class_for_it():
    assert table(["b", "a"], background="ignore") == ({1: "a", 2: "b"}, [2, 1])
    assert table([4, 2], background="ignore") == ({2: "class 2", 4: "class 4"}, [4, 2])


def test_without_a_field_all_polygons_are_one_class():
    labels = read_labels(frame(blobs(0)))
    assert labels.legend.names == ["background", "object"]
    assert set(labels.features.features.codes) == {1}


@pytest.mark.parametrize("missing", [None, np.nan, "", " "])
@pytest.mark.parametrize("by_box", [False, True])
def test_polygons_without_a_class_are_unlabelled_and_counted(missing, by_box, make_labels, monkeypatch):
    monkeypatch.setattr(layers, "READ_WHOLE_BYTES", 0 if by_box else 2**20)
    shapes = [square(LEFT, TOP, 20), square(LEFT + 40, TOP, 20), square(LEFT + 44, TOP - 4, 6)]
    path = make_labels("l.gpkg", shapes, {"kind": ["a", missing, "a"]})
    labels = read_labels(path, class_field="kind")
    expected = np.zeros((61, 83), int)
    expected[:10, :10], expected[:10, 20:30], expected[2:5, 22:25] = 1, IGNORE_INDEX, 1
    np.testing.assert_array_equal(labels.burn(GRID).codes, expected)
    assert labels.count(GRID, GRID.full_window)["without_class"] == 1
    assert labels.counts.get("without_class", 1) == 1
    assert labels.report()["notes"][-1].endswith(
        "is empty for 1 feature: without a class, so unlabelled; map null with `class_mapping` to give them one"
    )
    for key in (None, "null"):
        mapped = read_labels(path, class_field="kind", class_mapping={key: "rest"})
        expected[expected == IGNORE_INDEX] = mapped.legend.code_of("rest")
        np.testing.assert_array_equal(mapped.burn(GRID).codes, expected)
        assert not mapped.report()["notes"]


def test_a_class_called_null_is_a_class():
    shapes = [square(LEFT + 20 * i, TOP, 8) for i in range(3)]
    labels = read_labels(frame(shapes, kind=["null", "a", None]), class_field="kind")
    assert labels.legend.names == ["background", "a", "null"]
    assert labels.counts["without_class"] == 1


def test_no_polygon_with_a_class_is_told():
    """Only points have one."""
    shapes = [square(LEFT, TOP, 20), shapely.Point(LEFT, TOP)]
    with pytest.raises(LabelError, match="contains 1 polygon, but none has a class"):
        read_labels(frame(shapes, kind=[None, "a"]), class_field="kind")


def test_dates_are_classes():
    days = pd.to_datetime(["2024-05-31", "2024-06-01", None, "2024-06-01 12:30"], format="ISO8601")
    shapes = [square(LEFT + 20 * i, TOP, 8) for i in range(4)]
    for kinds in (days, days.tz_localize("UTC"), [None if pd.isna(day) else day.date() for day in days]):
        labels = read_labels(frame(shapes, kind=kinds), class_field="kind")
        assert labels.legend.names[1].startswith("2024-05-31")
        assert labels.counts["without_class"] == 1
        assert set(np.unique(labels.burn(GRID).codes)) == {0, *labels.legend.codes, IGNORE_INDEX}


@pytest.mark.parametrize(
    ("ending", "zone"),
    [("gpkg", None), ("gpkg", "UTC"), ("parquet", None), ("parquet", "UTC"), ("parquet", "Europe/Berlin")],
)
def test_times_are_the_same_classes_by_box(ending, zone, tmp_path, monkeypatch):
    days = pd.to_datetime(["2024-05-31", "2024-06-01"] * 2).tz_localize(zone)
    table, path = frame([square(LEFT + 20 * i, TOP, 8) for i in range(4)], kind=days), tmp_path / f"a.{ending}"
    if ending == "parquet":
        table.to_parquet(path, write_covering_bbox=True, schema_version="1.1.0")
    else:
        table.to_file(path)
    in_memory = read_labels(path, class_field="kind")
    monkeypatch.setattr(layers, "READ_WHOLE_BYTES", 0)
    by_box = read_labels(path, class_field="kind")
    assert isinstance(by_box.features, FeaturesOnDisk)
    for labels in (in_memory, by_box):
        assert labels.legend.names == in_memory.legend.names
        assert np.bincount(labels.burn(GRID).codes.ravel()).tolist()[1:] == [32, 32]


def test_overlapping_parts_are_their_union():
    """Also parts in parts, loops, and overlapping holes; as labels and as an area of interest."""
    x, y = LEFT, TOP
    grid = Grid(UTM, from_origin(x, y, 10, 10), 60, 60)
    cross = [shapely.box(x + 100, y - 400, x + 300, y - 100), shapely.box(x + 200, y - 500, x + 400, y - 200)]
    inside = [shapely.box(x + 100, y - 400, x + 300, y - 100), shapely.box(x + 150, y - 300, x + 250, y - 200)]
    bow_tie = shapely.Polygon([(x + 100, y - 100), (x + 300, y - 300), (x + 300, y - 100), (x + 100, y - 300)])
    twice = [(100, 500), (500, 500), (500, 100), (100, 100), (100, 500), (400, 500), (400, 200), (100, 200)]
    loop = shapely.Polygon([(x + a, y - b) for a, b in twice])
    for shape, pixels in (
        (shapely.MultiPolygon(cross), 1000),
        (shapely.GeometryCollection(cross), 1000),
        (shapely.GeometryCollection([shapely.MultiPolygon(cross), shapely.Point(x, y)]), 1000),
        (shapely.MultiPolygon(inside), 600),
        (shapely.GeometryCollection(inside), 600),
        (shapely.MultiPolygon([shapely.box(x, y - 100, x + 100, y), shapely.box(x + 100, y - 100, x + 200, y)]), 200),
        (loop, 1600),
    ):
        assert read_labels(frame([shape])).burn(grid).codes.sum() == pixels
        assert AreaOfInterest.read(frame([shape])).inside(grid).sum() == pixels
        parts = [read_labels(frame([shape])).burn(grid.crop(window)).codes.sum() for window in grid.blocks(17)]
        assert sum(parts) == pixels
    assert read_labels(frame([bow_tie])).burn(grid).codes.sum() == pytest.approx(200, abs=10)


@pytest.mark.parametrize("ending", ["gpkg", "parquet", "fgb", "frame"])
@pytest.mark.parametrize("bad", [np.inf, -np.inf, np.nan])
def test_endless_polygons_are_left_out_and_told(ending, bad, tmp_path, caplog):
    shapes = [square(LEFT + 40 * i, TOP, 20) for i in range(4)]
    shapes[1] = shapely.transform(shapes[1], lambda xy: np.where(np.arange(5)[:, None] == 2, bad, xy))
    shapes[3] = shapely.transform(shapes[3], lambda xy: np.full_like(xy, np.inf))
    table = frame(shapes, kind=list("abab"))
    source = table
    if ending != "frame":
        source = tmp_path / f"a.{ending}"
        table.to_parquet(source) if ending == "parquet" else table.to_file(source, SPATIAL_INDEX="NO")
    expected = np.zeros((61, 83), int)
    expected[:10, :10] = expected[:10, 40:50] = 1
    labels = read_labels(source, class_field="kind")
    np.testing.assert_array_equal(labels.burn(GRID).codes, expected)
    counts = labels.counts
    assert counts["polygons"] == 2
    assert counts["null"] + counts["empty"] + counts["not_finite"] == 2
    first = int(ending == "gpkg")
    assert f"with infinite or NaN coordinates left out: feature {1 + first}" in labels.report()["notes"][-1]
    area = AreaOfInterest.read(source)
    np.testing.assert_array_equal(area.inside(GRID), expected > 0)
    assert "left out: feature" in caplog.text


@pytest.mark.parametrize("ending", ["gpkg", "parquet"])
def test_endless_polygons_of_a_large_file_are_told_once(ending, tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(layers, "READ_WHOLE_BYTES", 0)
    shapes = [square(LEFT + 40 * i, TOP, 20) for i in range(3)]
    shapes[1] = shapely.transform(shapes[1], lambda xy: np.where(np.arange(5)[:, None] == 2, np.inf, xy))
    path = tmp_path / f"a.{ending}"
    if ending == "parquet":
        frame(shapes).to_parquet(path, write_covering_bbox=True, schema_version="1.1.0")
    else:
        frame(shapes).to_file(path)
    labels = read_labels(path)
    assert isinstance(labels.features, FeaturesOnDisk)
    labels.require_overlap(GRID)
    expected = np.zeros((61, 83), int)
    expected[:10, :10] = expected[:10, 40:50] = 1
    for window in GRID.blocks(30):
        labels.features._kept.clear()
        np.testing.assert_array_equal(labels.burn(GRID.crop(window)).codes, expected[window.slices(GRID.full_window)])
    assert caplog.text.count("with infinite or NaN coordinates left out") <= 1


@pytest.mark.parametrize("ending", ["gpkg", "parquet"])
def test_a_ring_that_nan_keeps_open_is_left_out(ending, tmp_path):
    """shapely refuses to read it."""
    shapes = [square(LEFT + 40 * i, TOP, 20) for i in range(2)]
    wkb = shapely.to_wkb(shapes).tolist()
    wkb[0] = wkb[0][:13] + np.full(2, np.nan).tobytes() + wkb[0][29:]
    path = tmp_path / f"a.{ending}"
    if ending == "gpkg":
        table = pa.table({"kind": ["a", "b"], "geometry": wkb})
        pyogrio.write_arrow(table, path, geometry_name="geometry", geometry_type="Polygon", crs="EPSG:32632")
    else:
        frame(shapes, kind=["a", "b"]).to_parquet(path)
        table = pq.read_table(path)
        pq.write_table(table.set_column(1, table.schema.field(1), pa.array(wkb)), path)
    labels = read_labels(path, class_field="kind")
    assert labels.counts["polygons"] == 1
    assert labels.counts["null"] == 1
    assert np.bincount(labels.burn(GRID).codes.ravel()).tolist()[1:] == [0, 100]


@pytest.mark.parametrize("ending", ["gpkg", "fgb", "parquet", "shp", "frame"])
def test_long_codes_stay_exact(ending, tmp_path):
    """Also beside nulls, for which pandas makes floats of whole numbers."""
    values = [10**17 + 1, 10**17 + 2, None, 10**17 + 3]
    shapes = [square(LEFT + 20 * i, TOP, 8) for i in range(4)]
    table = frame(shapes, kind=pd.array(values, "Int64"))
    source = table
    if ending != "frame":
        source = tmp_path / f"a.{ending}"
        if ending == "parquet":
            table["kind"] = table["kind"].astype(object)
            table.to_parquet(source)
        else:
            table.to_file(source)
    expected = ["background", *(str(value) for value in values if value is not None)]
    for where in (None, "kind > 5"):
        labels = read_labels(source, class_field="kind", where=where)
        assert labels.legend.names == expected
        codes = labels.burn(GRID).codes
        assert [int(codes[1, 1 + 10 * i]) for i in range(4)] == [1, 2, 0 if where else IGNORE_INDEX, 3]
    mapped = read_labels(source, class_field="kind", class_mapping={values[0]: "x", str(values[1]): "y"})
    assert mapped.legend.names == ["background", str(values[3]), "x", "y"]


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_long_codes_of_a_raster_stay_exact(dtype, make_raster):
    data = np.full((1, 6, 6), 2**60, dtype)
    data[0, :3], data[0, 3:, 3:] = 2**60 + 1, 2**60 + 2
    mapping = {2**60: "a", 2**60 + 1: "b", 2**60 + 2: "c"}
    labels = read_labels(make_raster("codes.tif", data), class_mapping=mapping)
    codes = np.array([labels.legend.code_of(mapping[value]) for value in data[0].ravel().tolist()]).reshape(6, 6)
    np.testing.assert_array_equal(labels.burn(labels.scene.grid).codes, codes)


def test_names_that_look_the_same():
    """Unicode's forms, blanks and invisible characters make no other class; upper and lower case are told."""
    names = ["caf\u00e9", "cafe\u0301", " caf\u00e9", "caf\u00e9\u200b", "a\u00a0b", "a b", "Water", "water"]
    shapes = [square(LEFT + 20 * i, TOP, 8) for i in range(len(names))]
    labels = read_labels(frame(shapes, kind=names), class_field="kind", priority=["cafe\u0301"])
    assert labels.legend.names == ["background", "Water", "a b", "caf\u00e9", "water"]
    case, spelling = labels.report()["notes"]
    assert "spells a b, caf\u00e9 in several ways" in spelling
    assert "'Water' and 'water': map one to the other" in case
    mapped = read_labels(
        frame(shapes, kind=names), class_field="kind", class_mapping={"cafe\u0301": "x", "Water": "water"}
    )
    assert mapped.legend.names == ["background", "a b", "water", "x"]


def test_the_index_of_a_dissolved_table_is_a_field(tmp_path):
    shapes = [square(LEFT + 20 * i, TOP, 8) for i in range(4)]
    dissolved = frame(shapes, cover=list("abab"), n=[1, 2, 3, 4]).dissolve("cover")
    path = tmp_path / "a.parquet"
    dissolved.to_parquet(path)
    for source in (path, dissolved):
        for where in (None, "cover = 'a' OR n > 0"):
            labels = read_labels(source, class_field="cover", where=where)
            assert labels.legend.names == ["background", "a", "b"]
            assert np.bincount(labels.burn(GRID).codes.ravel()).tolist()[1:] == [32, 32]
    other = dissolved.rename(index={"a": "c"})
    assert read_labels(other, class_field="cover").fingerprint() != labels.fingerprint()
    unnamed = dissolved.rename_axis(None)
    unnamed.to_parquet(path)
    assert open_layer(path).fields == ("n",)
    assert read_labels(path, class_field="n").legend.names == ["background", "class 1", "class 2"]


@pytest.mark.parametrize("crs", [{"type": "GeographicCRS"}, "EPSG:nonsense", 7.5, [1]])
def test_a_crs_that_cannot_be_understood(crs, tmp_path):
    path = tmp_path / "a.parquet"
    frame([square(LEFT, TOP, 8)]).to_parquet(path)
    table = pq.read_table(path)
    geo = json.loads(table.schema.metadata[b"geo"])
    geo["columns"]["geometry"]["crs"] = crs
    pq.write_table(table.replace_schema_metadata({b"geo": json.dumps(geo).encode()}), path)
    with pytest.raises(LabelError, match=r"The CRS of .*a\.parquet cannot be understood"):
        read_labels(path)


@pytest.mark.parametrize("geo", ["{", "[]", "{}", '{"columns": {}, "primary_column": "x"}', '{"columns": 3}'])
def test_geoparquet_without_sense(geo, tmp_path):
    path = tmp_path / "a.parquet"
    frame([square(LEFT, TOP, 8)]).to_parquet(path)
    pq.write_table(pq.read_table(path).replace_schema_metadata({b"geo": geo.encode()}), path)
    with pytest.raises(LabelError, match="Cannot read polygons from"):
        read_labels(path)


def test_a_vrt_of_vectors_is_no_raster(make_labels, tmp_path):
    make_labels("l.gpkg", [square(LEFT, TOP, 8)], {"kind": ["a"]})
    path = tmp_path / "l.vrt"
    path.write_text(
        '<OGRVRTDataSource><OGRVRTLayer name="l"><SrcDataSource relativeToVRT="1">l.gpkg</SrcDataSource>'
        "</OGRVRTLayer></OGRVRTDataSource>"
    )
    assert not is_raster(path)
    assert read_labels(path, class_field="kind").burn(GRID).codes.sum() == 16


def test_class_fields_that_cannot_be_used():
    shapes = frame([square(LEFT, TOP, 9)] * 2, kind=["a", "b"], empty=[None, " "], height=[1, 2])
    with pytest.raises(LabelError, match=r"has no field 'klass'\. Fields: kind, empty, height"):
        read_labels(shapes, class_field="klass")
    with pytest.raises(LabelError, match=r"'empty' .* is empty"):
        read_labels(shapes, class_field="empty")
    many = frame([square(LEFT, TOP, 9)] * 255, kind=[f"k{i}" for i in range(255)])
    with pytest.raises(LabelError, match="has 255 classes, but at most 254 are possible"):
        read_labels(many, class_field="kind")
    with pytest.raises(OptionError, match="`background` is 'none'"):
        read_labels(shapes, background="none")


# Sources


@pytest.mark.parametrize("ending", ["gpkg", "geojson", "shp", "fgb", "parquet"])
def test_the_format_does_not_matter(ending, tmp_path):
    polygons = frame(blobs(1), kind=[f"k{i % 3}" for i in range(12)]).to_crs("EPSG:4326")
    path = tmp_path / f"labels.{ending}"
    polygons.to_parquet(path) if ending == "parquet" else polygons.to_file(path)
    ours, theirs = (read_labels(source, class_field="kind") for source in (path, polygons))
    assert ours.legend == theirs.legend
    assert str(path) in ours.source
    np.testing.assert_array_equal(ours.burn(GRID).codes, theirs.burn(GRID).codes)


@pytest.fixture
def layered(make_labels, tmp_path):
    make_labels("l.gpkg", [square(LEFT, TOP, 90)], {"note": ["x"]}, layer="first")
    make_labels("l.gpkg", [square(LEFT, TOP, 20)], {"kind": ["a"]}, layer="cover")
    return make_labels("l.gpkg", [square(LEFT, TOP, 50)], {"note": ["y"]}, layer="aoi")


def test_the_layer_with_the_field_is_taken_or_the_one_named(layered, make_labels):
    assert "layer cover" in read_labels(layered, class_field="kind").source
    assert "layer first" in read_labels(layered).source
    assert "layer aoi" in AreaOfInterest.read(layered).source
    assert "layer cover" in AreaOfInterest.read(f"{layered}|layername=cover").source
    assert read_labels(f"{layered}|layername=aoi").burn(GRID).codes.sum() == 625
    with pytest.raises(LabelError, match=r"'note' in several layers: first, aoi\. Name one of them"):
        read_labels(layered, class_field="note")
    with pytest.raises(InputNotFoundError, match=r"has no layer 'sky'\. Its layers are first, cover, aoi"):
        read_labels(f"{layered}|layername=sky")
    with pytest.raises(LabelError, match=r"layer first\) has no field 'klass'\. Fields: note"):
        read_labels(layered, class_field="klass")


def test_sources_that_cannot_be_used(tmp_path):
    with pytest.raises(InputNotFoundError, match="No such file"):
        read_labels(tmp_path / "none.gpkg")
    for name in ("a.gpkg", "a.geojson", "a.parquet", "a.shp"):
        (tmp_path / name).write_bytes(b"no vector data")
        with pytest.raises(LabelError, match=r"Cannot read .*/a\."):
            read_labels(tmp_path / name)
    pd.DataFrame({"kind": ["a"]}).to_parquet(tmp_path / "plain.parquet")
    with pytest.raises(LabelError, match="Cannot read polygons from"):
        read_labels(tmp_path / "plain.parquet")
    (tmp_path / "table.csv").write_text("kind,height\na,1\n")
    with pytest.raises(LabelError, match="no layer with geometries"):
        read_labels(tmp_path / "table.csv")
    with pytest.raises(LabelError, match="has no CRS"):
        read_labels(frame([square(0, 1, 1)], crs=None))
    with pytest.raises(LabelError, match="contains no polygons"):
        read_vector(gpd.GeoDataFrame({"kind": ["a"]}))


def test_labels_that_miss_the_image_say_how_far():
    labels = read_labels(frame([square(LEFT - 500, TOP, 100), square(LEFT - 900, TOP, 100)]))
    where = r"Labels: x 600334 to 600834, y 5301617 to 5301717; image: x 601234 to 601400, .* \(EPSG:32632\)"
    with pytest.raises(LabelError, match=rf"do not overlap the image: they are 400 m away\. {where}"):
        labels.require_overlap(GRID)
    read_labels(frame([square(LEFT - 100, TOP, 101)])).require_overlap(GRID)
    degrees = Grid(CRS.from_epsg(4326), from_origin(10, 48, 0.001, 0.001), 100, 100)
    far = frame([shapely.box(12.1, 47.95, 12.2, 47.99)], crs="EPSG:4326")
    with pytest.raises(LabelError, match=r"do not overlap the image: they are 2 degrees \(about 220 km\) away"):
        read_labels(far).require_overlap(degrees)


# Area of interest


def test_an_area_is_where_pixel_centres_lie_in_it():
    shapes = blobs(2, 3)
    area = AreaOfInterest.read(frame(shapes).to_crs("EPSG:4326"))
    expected = rasterized(frame(shapes).to_crs("EPSG:4326").to_crs("EPSG:32632").geometry.to_numpy(), [1, 1, 1]) > 0
    np.testing.assert_array_equal(area.inside(GRID), expected)
    assert not area.inside(GRID.crop(Window(500, 0, 9, 9))).any()
    around = AreaOfInterest.read(frame([square(LEFT - 50, TOP + 50, 900), *shapes]))
    assert around.inside(GRID).all()


# Label rasters


def code_raster(make_raster, name="codes.tif", **options):
    codes = np.random.default_rng(1).choice(np.array([1, 4, 9], np.uint8), (1, 61, 83))
    return codes[0], make_raster(name, codes, **options)


def test_a_raster_of_codes_is_read_as_it_is(make_raster):
    codes, path = code_raster(make_raster)
    labels = read_labels(path)
    assert isinstance(labels, RasterLabels)
    assert [(c.code, c.name) for c in labels.legend] == [(1, "class 1"), (4, "class 4"), (9, "class 9")]
    burned = labels.burn(GRID.crop(Window(-4, 10, 30, 20)))
    assert (burned.codes[:, :4] == IGNORE_INDEX).all()
    np.testing.assert_array_equal(burned.codes[:, 4:], codes[10:30, :26])
    assert not burned.conflict.any()


def test_nodata_of_a_code_raster_is_unlabelled(make_raster):
    codes, path = code_raster(make_raster, nodata=4)
    labels = read_labels(path)
    assert labels.legend.codes == [1, 9]
    np.testing.assert_array_equal(labels.burn(GRID).codes, np.where(codes == 4, IGNORE_INDEX, codes))


@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", from_origin(152480.0, 5311295.0, 2.0, 2.0)),
        ("EPSG:32632", from_origin(LEFT - 1, TOP + 1, 3.0, 3.0)),
    ],
)
def test_a_code_raster_on_another_lattice_is_sampled_not_mixed(crs, transform, make_raster):
    _, path = code_raster(make_raster, crs=crs, transform=transform)
    labels = read_labels(path)
    burned = labels.burn(GRID).codes
    assert set(np.unique(burned)) <= {1, 4, 9, IGNORE_INDEX}
    place = {"crs": UTM, "transform": GRID.transform, "width": 83, "height": 61, "add_alpha": True}
    with rasterio.open(path) as dataset, WarpedVRT(dataset, **place, resampling=Resampling.nearest) as warped:
        data, alpha = warped.read()
    expected = np.where(alpha > 0, data, IGNORE_INDEX)
    assert (expected != IGNORE_INDEX).mean() > 0.4
    assert (burned == expected).mean() > 0.99
    np.testing.assert_array_equal(labels.burn(GRID.crop(Window(5, 6, 20, 10))).codes, burned[6:16, 5:25])


def test_a_map_of_ours_brings_its_names(tmp_path):
    legend = Legend.from_names({2: "boat", 5: "car"})
    with class_raster(tmp_path / "map.tif", GRID, legend) as writer:
        writer.append(np.where(np.arange(61 * 83).reshape(1, 61, 83) % 2, 2, 5).astype(np.uint8))
    assert read_labels(tmp_path / "map.tif").legend == legend


def test_code_rasters_that_cannot_be_used(make_raster):
    with pytest.raises(LabelError, match=r"has red, green and blue, .* `mask_classes`"):
        read_labels(make_raster("rgb.tif"))
    with pytest.raises(LabelError, match="has 4 bands of uint16"):
        read_labels(make_raster("four.tif", bands=4, dtype="uint16"))
    with pytest.raises(LabelError, match=r"values such as 1\.5 \(float32\)"):
        read_labels(make_raster("float.tif", np.full((1, 4, 4), 1.5, np.float32)))
    with pytest.raises(LabelError, match=r"contains 300, but class codes .*Map other values to classes"):
        read_labels(make_raster("big.tif", np.full((1, 4, 4), 300, np.uint16)))
    with pytest.raises(LabelError, match="they are 834 m away"):
        read_labels(code_raster(make_raster, origin=(LEFT + 1000, TOP))[1]).require_overlap(GRID)
    with pytest.raises(InputNotFoundError):
        read_labels("none.tif")


@pytest.mark.skipif(not HARD.is_dir(), reason="the hard vectors are not beside the checkout")
@pytest.mark.parametrize("path", sorted(HARD.glob("*.*")), ids=lambda path: path.name)
def test_hard_vectors_read_or_say_why_not(path):
    words = ""
    try:
        labels = read_labels(path)
        assert isinstance(labels, PolygonLabels)
        assert labels.counts["polygons"] > 0
        left, bottom, right, top = shapely.total_bounds(labels.features.features.polygons().shapes)
        crs = CRS.from_user_input(labels.layer.crs.to_wkt())
        side = max(right - left, top - bottom) / 40
        assert (labels.burn(Grid(crs, from_origin(left, top, side, side), 41, 41)).codes > 0).any()
    except GeopspError as error:
        words = str(error)
    advice = ("Choose", "Pass", "Assign", "Repair", "Check", "Use", "needed")
    assert not words or (path.name in words and any(word in words for word in advice))


def test_options_for_polygons_do_not_pass_for_rasters(make_raster):
    codes = make_raster("codes.tif", np.array([[[0, 1], [2, 1]]], np.uint8))
    for options in ({"class_field": "kind"}, {"all_touched": True}, {"priority": ["class 1"]}):
        with pytest.raises(OptionError, match="is a label raster"):
            read_labels(codes, **options)
    assert read_labels(codes).legend.names == ["background", "class 1", "class 2"]
    known = read_labels(codes, background="ignore")
    assert known.legend.codes == [1, 2]
    assert known.burn(known.scene.grid).codes.tolist() == [[255, 1], [2, 1]]


# From memory or by bounding box

KINDS = [f"k{i % 3}" for i in range(12)]


@pytest.fixture
def large(monkeypatch):
    """All files count as too large to be read whole."""
    monkeypatch.setattr(layers, "READ_WHOLE_BYTES", 0)


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326", "EPSG:3035"])
@pytest.mark.parametrize("ending", ["gpkg", "fgb", "parquet"])
def test_the_way_of_reading_does_not_matter(crs, ending, large, tmp_path):
    polygons = frame([*blobs(3)[:-1], shapely.Point(LEFT + 60, TOP - 60)], kind=KINDS).to_crs(crs)
    path = tmp_path / f"labels.{ending}"
    if ending == "parquet":
        polygons.to_parquet(path, write_covering_bbox=True, schema_version="1.1.0")
    else:
        polygons.to_file(path)
    options = {"class_field": "kind", "priority": ["k1"], "buffer": 9.0}
    disk, memory = read_labels(path, **options), read_labels(polygons, **options)
    assert isinstance(disk.features, FeaturesOnDisk)
    assert disk.legend == memory.legend
    assert disk.report().keys() == {"source", "priority", "notes"}
    for window in (Window(0, 0, 83, 61), Window(40, 20, 9, 30), Window(-30, -4, 50, 40), Window(41, 22, 4, 5)):
        ours, theirs = (labels.burn(GRID.crop(window)) for labels in (disk, memory))
        np.testing.assert_array_equal(ours.codes, theirs.codes)
        np.testing.assert_array_equal(ours.conflict, theirs.conflict)
        assert disk.count(GRID, window) == memory.count(GRID, window)
    disk.require_overlap(GRID)
    with pytest.raises(LabelError, match=r"do not overlap the image: they are 1[12][0-9] km away\. Labels: x"):
        disk.require_overlap(GRID.crop(Window(60_000, 0, 50, 50)))


def test_a_window_beside_the_last_is_not_read_again(large, make_labels, monkeypatch):
    labels = read_labels(make_labels("l.gpkg", blobs(3), {"kind": KINDS}), class_field="kind")
    reads = []
    real = layers.OgrLayer.read
    monkeypatch.setattr(layers.OgrLayer, "read", lambda self, *a, **k: reads.append(k) or real(self, *a, **k))
    for col in (20, 24, 16):
        labels.burn(GRID.crop(Window(col, 20, 10, 10)))
        labels.count(GRID, Window(col, 20, 10, 10))
    assert len(reads) == 1
    again = pickle.loads(pickle.dumps(labels))
    np.testing.assert_array_equal(again.burn(GRID).codes, labels.burn(GRID).codes)


@pytest.mark.parametrize("by_box", [False, True])
def test_threads_agree(by_box, make_labels, monkeypatch):
    monkeypatch.setattr(layers, "READ_WHOLE_BYTES", 0 if by_box else 2**20)
    path = make_labels("l.gpkg", blobs(8), {"kind": KINDS})
    labels = read_labels(path, class_field="kind")
    whole = read_labels(path, class_field="kind").burn(GRID).codes
    windows = list(GRID.blocks(11)) * 2
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda window: labels.burn(GRID.crop(window)).codes, windows))
    for window, part in zip(windows, parts, strict=True):
        np.testing.assert_array_equal(part, whole[window.slices(GRID.full_window)])


@given(seed=st.integers(0, 10_000), size=st.integers(7, 90), crs=st.sampled_from(["EPSG:32632", "EPSG:4326"]))
@settings(max_examples=examples(12), deadline=None)
def test_windows_count_each_polygon_once(seed, size, crs):
    shapes = [*blobs(seed), shapely.Point(LEFT + 9, TOP - 9), square(LEFT - 500, TOP + 500, 2000)]
    kinds = [*(["a", "b", None, "c"] * 3), "a", "b"]
    polygons = frame(shapes, kind=kinds).to_crs(crs)
    labels = read_labels(polygons, class_field="kind", class_mapping={"c": None})
    counts = [labels.count(GRID, window) for window in GRID.blocks(size)]
    ring = shapely.polygons(GRID.corners())
    meet = shapely.intersects(polygons.to_crs("EPSG:32632").geometry.to_numpy(), ring)
    expected = pd.Series(kinds)[meet & (shapely.area(shapes) > 0)]
    found = Counter()
    for count in counts:
        found.update({labels.legend.names[code]: n for code, n in count["polygons"].items()})
    assert found == {name: n for name, n in expected.value_counts().items() if name != "c"}
    assert sum(count["without_class"] for count in counts) == expected.isna().sum()
    assert sum(count["dropped"] for count in counts) == (expected == "c").sum()
    assert sum(count["not_polygons"] for count in counts) == 1


# Options


def test_a_query_chooses_polygons(make_labels):
    path = make_labels("l.gpkg", [square(LEFT, TOP, 20), square(LEFT + 40, TOP, 20)], {"height": [3, 8]})
    for source in (path, gpd.read_file(path)):
        assert read_labels(source, where="height > 5").burn(GRID).codes.nonzero()[1].min() == 20
        with pytest.raises(LabelError, match="none that `where` selects"):
            read_labels(source, where="height > 9")
        with pytest.raises(LabelError, match="Fields: height"):
            read_labels(source, where="heigth > 9")


def test_what_is_mapped_to_nothing_is_unlabelled():
    shapes, polygons = nested("a", "b", "c")
    burned = read_labels(polygons, class_field="kind", class_mapping={"b": None, "c": "a"}).burn(GRID)
    expected = rasterized(shapes, [1, IGNORE_INDEX, 1])
    np.testing.assert_array_equal(burned.codes, expected)
    assert not burned.conflict.any()
    with pytest.raises(OptionError, match="Pass `class_field`"):
        read_labels(polygons, class_mapping={"a": "b"})


def test_larger_values_of_a_field_lie_on_top():
    shapes, polygons = nested("a", "b", "c")
    polygons["level"] = [2.0, 1.0, np.nan]
    labels = read_labels(polygons, class_field="kind", priority_field="level")
    np.testing.assert_array_equal(labels.burn(GRID).codes, rasterized(shapes[:1], [1]))
    assert labels.priority == "larger level on top; else smaller polygons lie on top of larger ones"
    labels = read_labels(polygons, class_field="kind", priority=["c"], priority_field="level")
    assert set(np.unique(labels.burn(GRID).codes)) == {0, 1, 3}
    with pytest.raises(LabelError, match="does not contain numbers"):
        read_labels(polygons, class_field="kind", priority_field="kind")
    with pytest.raises(LabelError, match="has no field 'depth'"):
        read_labels(polygons, class_field="kind", priority_field="depth")


@pytest.mark.parametrize("crs", ["EPSG:32632", "EPSG:4326", "EPSG:3035"])
def test_lines_and_points_are_widened_by_metres(crs):
    x, y = LEFT + 83, TOP - 60
    shapes = [shapely.Point(x, y), shapely.LineString([(x - 50, y - 40), (x + 50, y - 40)])]
    labels = read_labels(frame(shapes).to_crs(crs), buffer=15)
    covered = (labels.burn(Grid(UTM, from_origin(LEFT, TOP, 0.4, 0.4), 420, 310)).codes > 0).sum() * 0.16
    assert covered == pytest.approx(np.pi * 15**2 * 2 + 100 * 30, rel=0.02)
    assert labels.counts["not_polygons"] == 0


@pytest.mark.parametrize("by_box", [False, True])
@pytest.mark.parametrize("crs", ["EPSG:3857", "EPSG:32662", "EPSG:4326", "EPSG:32633"])
def test_far_from_true_scale_metres_are_metres_on_the_ground(crs, by_box, make_labels, monkeypatch):
    monkeypatch.setattr(layers, "READ_WHOLE_BYTES", 0 if by_box else 2**20)
    grid = Grid(CRS.from_epsg(32633), from_origin(499_700, 6651_900, 2, 2), 300, 300)
    x, y = (grid.bounds()[i] + 300 for i in (0, 1))
    path = make_labels("l.gpkg", list(frame([shapely.Point(x, y)], crs="EPSG:32633").to_crs(crs).geometry), crs=crs)
    labels = read_labels(path, buffer=100)
    codes = labels.burn(grid).codes
    assert codes.sum() * 4 == pytest.approx(np.pi * 100**2, rel=0.01)
    assert codes.any(axis=0).sum() == pytest.approx(100, abs=1)
    assert labels.burn(grid.crop(Window(195, 150, 10, 1))).codes.sum() == codes[150, 195:205].sum() > 0


def test_a_crs_in_feet_is_buffered_in_metres():
    labels = read_labels(frame([shapely.Point(990_000, 210_000)], crs="EPSG:2263"), buffer=15)
    grid = Grid(CRS.from_epsg(2263), from_origin(989_900, 210_100, 2, 2), 100, 100)
    assert labels.burn(grid).codes.sum() * 4 == pytest.approx(np.pi * (15 / 0.3048006) ** 2, rel=0.02)


def test_options_of_another_type():
    polygons = frame([square(LEFT, TOP, 9)], kind=["a"], many=[[1, 2]])
    with pytest.raises(OptionError, match="`buffer` is '3'"):
        read_labels(polygons, buffer="3")
    with pytest.raises(OptionError, match="must be the name of one field"):
        read_labels(polygons, class_field=["kind"])
    with pytest.raises(LabelError, match=r"'many' .* contains lists"):
        read_labels(polygons, class_field="many")
    noted = read_labels(polygons, class_field="kind", class_mapping={"a": "x", "z": "y"}).report()["notes"]
    assert len(noted) == 1
    assert "does not contain z" in noted[0]


def test_polygons_are_not_widened():
    with pytest.raises(LabelError, match=r"\(points or lines: 1\)\. Pass `buffer` to widen points and lines"):
        read_labels(frame([shapely.Point(LEFT, TOP)]))
    with pytest.raises(OptionError, match="`buffer` is -1"):
        read_labels(frame([shapely.Point(LEFT, TOP)]), buffer=-1)
    assert read_labels(frame([square(LEFT + 20, TOP - 20, 20)]), buffer=30).burn(GRID).codes.sum() == 100


def test_labels_beyond_the_date_line_are_found():
    grid = Grid(CRS.from_epsg(4326), from_origin(179.9, 10, 0.01, 0.01), 20, 10)
    polygons = frame([shapely.box(-179.97, 9.95, -179.95, 9.97), shapely.box(179.95, 9.9, 180, 10)], crs="EPSG:4326")
    codes = read_labels(polygons).burn(grid).codes
    expected = np.zeros((10, 20), int)
    expected[:, 5:10], expected[3:5, 13:15] = 1, 1
    np.testing.assert_array_equal(codes, expected)


def test_a_miss_says_what_may_be_wrong():
    square_ = square(LEFT + 10, TOP - 10, 50)
    here = gpd.GeoSeries([square_], crs="EPSG:32632").to_crs("EPSG:4326").iloc[0]
    turned = shapely.transform(here, lambda xy: xy[:, ::-1])
    for shape, crs, words in (
        (turned, "EPSG:4326", r"They would fit with x and y \(latitude and longitude\?\) swapped"),
        (here, "EPSG:3857", "Their CRS is EPSG:3857, but they would fit as EPSG:4326: assign that CRS"),
        (square_, "EPSG:3035", "Their CRS is EPSG:3035, but they would fit as EPSG:32632: assign that CRS"),
    ):
        with pytest.raises(LabelError, match=words):
            read_labels(frame([shape], crs=crs)).require_overlap(GRID)


# More of areas and rasters


@pytest.mark.parametrize("by_box", [False, True])
def test_an_area_covers_what_lies_wholly_in_it(by_box, make_labels, monkeypatch):
    monkeypatch.setattr(layers, "READ_WHOLE_BYTES", 0 if by_box else 2**20)
    area = AreaOfInterest.read(make_labels("a.gpkg", [square(LEFT, TOP, 40), square(LEFT + 40, TOP, 40)]))
    assert area.inside(GRID.crop(Window(0, 0, 40, 20))).all()
    assert not area.inside(GRID.crop(Window(0, 0, 41, 20))).all()
    assert area.inside(GRID).sum() == 800
    assert pickle.loads(pickle.dumps(area)).fingerprint() == area.fingerprint()


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_codes_of_a_raster_are_mapped(dtype, make_raster):
    high = 77 if dtype == "uint8" else 300
    data = np.random.default_rng(1).choice([1, 4, high], (1, 61, 83)).astype(dtype)
    path = make_raster("codes.tif", data, nodata=1)
    labels = read_labels(path, class_mapping={high: {"name": "water", "code": 3}})
    assert [(c.code, c.name) for c in labels.legend] == [(3, "water"), (4, "class 4")]
    expected = np.where(data[0] == 1, IGNORE_INDEX, np.where(data[0] == 4, 4, 3))
    np.testing.assert_array_equal(labels.burn(GRID).codes, expected)
    assert labels.count(GRID, GRID.full_window) == {}
    assert read_labels(path, class_mapping={"*": "all"}).legend.names == ["all"]
    assert set(np.unique(read_labels(path, class_mapping={high: None}).burn(GRID).codes)) == {4, IGNORE_INDEX}


def test_a_code_raster_on_a_turned_grid_is_sampled(make_raster):
    codes, path = code_raster(make_raster)
    grid = Grid(UTM, GRID.transform @ Affine.translation(20, 10) @ Affine.rotation(30), 30, 20)
    cols, rows = np.meshgrid(np.arange(30) + 0.5, np.arange(20) + 0.5)
    x, y = ~GRID.transform @ (grid.transform @ (cols, rows))
    inside = (x >= 0) & (y >= 0) & (x < 83) & (y < 61)
    expected = np.full((20, 30), IGNORE_INDEX)
    expected[inside] = codes[y[inside].astype(int), x[inside].astype(int)]
    np.testing.assert_array_equal(read_labels(path).burn(grid).codes, expected)


def test_a_much_finer_code_raster_is_read_in_parts(make_raster, monkeypatch):
    monkeypatch.setattr(labelraster, "BLOCK", 8)
    codes, path = code_raster(make_raster)
    grid = Grid(UTM, from_origin(LEFT, TOP, 14.0, 14.0), 11, 8)
    np.testing.assert_array_equal(read_labels(path).burn(grid).codes, codes[3:56:7, 3:77:7])


def test_a_code_raster_is_stamped_by_what_it_is_made_of(make_raster, tmp_path):
    path = make_raster("codes.tif", np.array([[[0, 1], [2, 1]]], np.uint8))
    rasterio.shutil.copy(path, tmp_path / "codes.vrt", driver="VRT")
    before = read_labels(tmp_path / "codes.vrt").fingerprint()
    assert before == read_labels(tmp_path / "codes.vrt").fingerprint()
    make_raster("codes.tif", np.array([[[0, 1], [2, 5]]], np.uint8))
    os.utime(path, ns=(0, 1))  # clocks of disks may be coarse
    assert read_labels(tmp_path / "codes.vrt").fingerprint() != before
    before = read_labels(path).fingerprint()
    names = "<Category>sky</Category><Category>boat</Category>"
    xml = f'<PAMDataset><PAMRasterBand band="1"><CategoryNames>{names}</CategoryNames></PAMRasterBand></PAMDataset>'
    path.with_name("codes.tif.aux.xml").write_text(xml)
    assert read_labels(path).fingerprint() != before


def test_what_a_code_raster_drops_is_noted_and_empty_blocks_are_not_read(make_raster, monkeypatch):
    codes = np.array([[[0, 1], [2, 255]]], np.uint8)
    assert "contains 255, which is not its nodata value" in read_labels(make_raster("a.tif", codes)).notes[0]
    assert read_labels(make_raster("b.tif", codes, nodata=255)).notes == ()
    data = np.zeros((1, 256, 256), np.uint8)
    data[0, :9, :9] = 3
    options = {"tiled": True, "blockxsize": 64, "blockysize": 64, "SPARSE_OK": True, "nodata": 0}
    path = make_raster("sparse.tif", data, **options)
    monkeypatch.setattr(labelraster, "BLOCK", 64)
    read, real = [], Scene.read
    monkeypatch.setattr(Scene, "read", lambda self, window: read.append(window) or real(self, window))
    assert read_labels(path).legend.codes == [3]
    assert len(read) == 1


@pytest.mark.parametrize("ending", ["asc", "png"])
def test_a_code_raster_of_another_format(ending, make_raster, tmp_path):
    path = make_raster("codes.tif", np.array([[[0, 1], [2, 1]]], np.uint8))
    rasterio.shutil.copy(path, tmp_path / f"codes.{ending}", driver={"asc": "AAIGrid", "png": "PNG"}[ending])
    labels = read_labels(tmp_path / f"codes.{ending}")
    assert isinstance(labels, RasterLabels)
    assert labels.legend.codes == [0, 1, 2]
    assert is_raster("https://example.org/codes.tif?signed=1")
    assert not is_raster("https://example.org/codes.gpkg?signed=1.tif")
