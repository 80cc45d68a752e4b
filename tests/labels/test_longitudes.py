"""Longitudes of any convention, and shapes across the antimeridian: the same pixels by every way of reading."""

import geopandas as gpd
import numpy as np
import pandas as pd
import pytest
import shapely
from rasterio.crs import CRS
from rasterio.transform import from_origin
from rasterio.warp import transform

from geopsp.core.crs import full_circle, full_turns
from geopsp.core.grid import Grid, Window
from geopsp.errors import LabelError
from geopsp.labels.area import AreaOfInterest
from geopsp.labels.read_labels import read_labels
from geopsp.vector import layer as layers

EAST, NORTH = 179.98, -17.2
"""Left and top of the images, at 180 degrees."""

BOXES = [
    shapely.box(EAST + 0.004, NORTH - 0.021, EAST + 0.0411, NORTH - 0.0031),  # across the antimeridian
    shapely.box(EAST + 0.0011, NORTH - 0.039, EAST + 0.0151, NORTH - 0.0251),  # west of it
    shapely.box(EAST + 0.0251, NORTH - 0.039, EAST + 0.0391, NORTH - 0.0251),  # east
]
"""Longitudes from 0 to 360."""

HEIGHTS = (41, 47)


def grid_of(crs, turn):
    if CRS.from_user_input(crs).is_geographic:
        return Grid(CRS.from_user_input(crs), from_origin(EAST + turn, NORTH, 0.001, 0.001), HEIGHTS[1], HEIGHTS[0])
    (x,), (y,) = transform("EPSG:4326", crs, [EAST], [NORTH])
    return Grid(CRS.from_user_input(crs), from_origin(x, y, 105.0, 110.0), HEIGHTS[1], HEIGHTS[0])


def expected(grid):
    """(codes, sure) of pixel centres, in longitudes from 0 to 360; sure where no border is near."""
    cols, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x, y = grid.transform * (cols.ravel(), rows.ravel())
    if not grid.crs.is_geographic:
        x, y = transform(grid.crs, "EPSG:4326", x, y)
    points = shapely.points(np.mod(x, 360), y)
    codes, near = np.zeros(len(points), int), np.zeros(len(points), bool)
    for code, box in enumerate(BOXES, start=1):
        codes[shapely.contains(box, points)] = code
        near |= shapely.distance(box.exterior, points) < 2e-5
    return codes.reshape(cols.shape), ~near.reshape(cols.shape)


def labels_of(crs, turn):
    shapes = shapely.transform(np.array(BOXES), lambda xy: np.add(xy, [turn, 0]))
    degrees = gpd.GeoDataFrame({"kind": [1, 2, 3]}, geometry=shapes, crs="EPSG:4326")
    return degrees.set_crs(crs, allow_override=True) if CRS.from_user_input(crs).is_geographic else degrees.to_crs(crs)


@pytest.mark.parametrize(("image", "turn"), [("EPSG:4326", -360), ("EPSG:4326", 0), ("EPSG:4326", 360),
    ("EPSG:4759", 0), ("EPSG:32760", 0), ("EPSG:3832", 0)])  # fmt: skip
@pytest.mark.parametrize(("crs", "shift"), [("EPSG:4326", -360), ("EPSG:4326", 0), ("EPSG:4759", 0), ("EPSG:32760", 0)])
def test_every_way_of_reading_gives_the_same_pixels(image, turn, crs, shift, tmp_path, monkeypatch):
    grid, frame = grid_of(image, turn), labels_of(crs, shift)
    codes, sure = expected(grid)
    assert [int((codes[sure] == code).sum()) > 100 for code in (1, 2, 3)] == [True] * 3
    path = tmp_path / "a.gpkg"
    frame.to_file(path)
    in_memory = read_labels(frame, class_field="kind")
    inside = AreaOfInterest.read(frame).inside(grid)
    monkeypatch.setattr(layers, "READ_WHOLE_BYTES", 0)
    by_box = read_labels(path, class_field="kind")
    assert by_box.layer.reads_by_bbox
    np.testing.assert_array_equal(in_memory.burn(grid).codes[sure], codes[sure])
    np.testing.assert_array_equal(by_box.burn(grid).codes, in_memory.burn(grid).codes)
    np.testing.assert_array_equal(AreaOfInterest.read(path).inside(grid), inside)
    np.testing.assert_array_equal(inside, in_memory.burn(grid).codes > 0)
    for labels in (in_memory, by_box):
        labels.require_overlap(grid)
        windows = [Window(0, 0, 20, 41), Window(20, 0, 27, 41)]
        counted = [labels.count(grid, window)["polygons"] for window in windows]
        assert pd.DataFrame(counted).sum().to_dict() == {1: 1, 2: 1, 3: 1}
        for window in windows:
            np.testing.assert_array_equal(
                labels.burn(grid.crop(window)).codes, in_memory.burn(grid).codes[window.slices(grid.full_window)]
            )


@pytest.mark.parametrize("left", [-180.0, 0.0, -190.0])
def test_a_map_of_the_world_has_a_shape_at_both_ends(left):
    grid = Grid(CRS.from_epsg(4326), from_origin(left, 90, 1, 1), 360 if left != -190 else 380, 180)
    shapes = [shapely.box(170, 10, 190, 20), shapely.box(-170, -20, -160, -10), shapely.box(350, 0, 370, 10)]
    labels = read_labels(gpd.GeoDataFrame({"kind": [1, 2, 3]}, geometry=shapes, crs="EPSG:4326"), class_field="kind")
    longitude = np.mod(left + 0.5 + np.arange(grid.width), 360)
    codes = labels.burn(grid).codes
    columns = {1: (longitude > 170) & (longitude < 190), 2: (longitude > 190) & (longitude < 200)}
    columns[3] = (longitude > 350) | (longitude < 10)
    for code, row in ((1, 75), (2, 105), (3, 85)):
        np.testing.assert_array_equal(codes[row] == code, columns[code])
    assert labels.count(grid, grid.full_window)["polygons"] == {1: 1, 2: 1, 3: 1}


def test_labels_elsewhere_are_still_elsewhere():
    grid = grid_of("EPSG:4326", 0)
    with pytest.raises(LabelError, match="do not overlap"):
        read_labels(gpd.GeoDataFrame(geometry=[shapely.box(10, 10, 11, 11)], crs="EPSG:4326")).require_overlap(grid)


def test_what_strangers_found():
    """https://epsg.org/crs_3793: an area of use across the antimeridian."""
    shape = shapely.box(183.22, -43.98, 183.30, -43.90)
    (x,), (y,) = transform("EPSG:4167", "EPSG:3793", [183.22 - 360], [-43.90])
    grid = Grid(CRS.from_epsg(3793), from_origin(x - 500, y + 500, 200.0, 200.0), 60, 60)
    found = read_labels(gpd.GeoDataFrame(geometry=[shape], crs="EPSG:4167")).burn(grid).codes
    wrapped = shapely.box(183.22 - 360, -43.98, 183.30 - 360, -43.90)
    other = read_labels(gpd.GeoDataFrame(geometry=[wrapped], crs="EPSG:4167")).burn(grid).codes
    assert found.sum() > 900
    np.testing.assert_array_equal(found, other)


@pytest.mark.parametrize("image", ["EPSG:4326", "EPSG:32760"])
@pytest.mark.parametrize("turn", [-360, 0, 360])
@pytest.mark.parametrize("shift", [-360, 0])
def test_label_rasters_of_any_convention(image, turn, shift, make_raster):
    grid = grid_of(image, turn)
    values = np.random.default_rng(0).integers(1, 9, (1, 60, 70)).astype("uint8")
    left, top, size = EAST - 0.005 + shift, NORTH + 0.005, 0.001
    labels = read_labels(make_raster("l.tif", values, origin=(left, top), cell=size, crs="EPSG:4326"))
    labels.require_overlap(grid)
    cols, rows = np.meshgrid(np.arange(grid.width) + 0.5, np.arange(grid.height) + 0.5)
    x, y = grid.transform * (cols.ravel(), rows.ravel())
    if not grid.crs.is_geographic:
        x, y = transform(grid.crs, "EPSG:4326", x, y)
    col, row = (np.mod(x, 360) - EAST + 0.005) / size, (NORTH + 0.005 - np.array(y)) / size
    found = labels.burn(grid).codes.ravel()
    sure = (np.abs(col - np.rint(col)) > 1e-3) & (np.abs(row - np.rint(row)) > 1e-3)
    np.testing.assert_array_equal(found[sure], values[0, np.floor(row).astype(int), np.floor(col).astype(int)][sure])
    assert sure.mean() > 0.9


def test_turns():
    assert full_circle("EPSG:4326") == 360
    assert full_circle("EPSG:4807") == 400
    assert full_circle("EPSG:32632") is None
    assert full_turns((183, 184), (-180, 180), 360) == [-360]
    assert full_turns((-180, 180), (-180, 180), 360) == [0]
    assert full_turns((0, 360), (-180, 180), 360) == [-360, 0]
    assert full_turns((10, 20), (-5, 5), 360) == []
    assert full_turns((-1e300, 1e300), (0, 1), 360) == [-720, -360, 0, 360, 720]
    assert full_turns((np.nan, np.nan), (0, 1), 360) == []
