"""Class rasters are cleaned before they are traced."""

import sys
from itertools import count

import numpy as np
import pytest
from affine import Affine
from graph_common import filled_by_hand, flat, holes_of, merged_by_hand
from rasterio.crs import CRS

from geopsp.core.grid import Grid
from geopsp.errors import OutputError, RasterError
from geopsp.polygons.class_raster import ClassRaster
from geopsp.polygons.ground_metric import GroundMetric
from geopsp.polygons.regions.clean import clean_raster, write_codes

LIMITS = [(3.5, 0.0), (0.0, 9.5), (4.5, 20.5), (20.5, 4.5)]


@pytest.fixture
def noisy():
    """Return a map of rough patches, single pixels, holes and nodata with an island."""
    random = np.random.default_rng(3)
    codes = np.kron(random.integers(0, 4, (7, 9)), np.ones((6, 5))).astype(np.uint8)
    codes[random.random(codes.shape) < 0.15] = 254
    codes[10:20, 12:30] = 255
    codes[15, 20] = 3
    return codes


@pytest.fixture
def raster(make_raster, noisy):
    return make_raster("map.tif", noisy[None], nodata=255)


@pytest.mark.parametrize("cell", [5, 64])
@pytest.mark.parametrize(("min_area", "fill_holes"), LIMITS)
def test_holes_are_filled_then_small_regions_merged(raster, noisy, tmp_path, min_area, fill_holes, cell):
    with ClassRaster.open(raster) as codes:
        limits = {"min_area": min_area, "fill_holes": fill_holes}
        with clean_raster(codes, flat(noisy), **limits, folder=tmp_path, cell_size=cell) as after:
            found = after.read(after.grid.full_window)
        assert after.grid == codes.grid
    expected = filled_by_hand(merged_by_hand(filled_by_hand(noisy, fill_holes), min_area), fill_holes)
    assert np.array_equal(found, expected)
    assert not np.array_equal(found, noisy)
    assert all(hole.sum() >= fill_holes for hole, _ in holes_of(found))


def test_a_hole_that_merging_makes_is_filled(make_raster, tmp_path):
    """Code 2 is in a hole once the pixel of code 9 at the frame has joined code 1."""
    codes = np.ones((6, 6), np.uint8)
    codes[2:4, 2:4] = 2
    codes[2, 0], codes[2, 1] = 9, 2
    codes[3, 1] = 2
    limits = {"min_area": 1.5, "fill_holes": 7.0}
    with ClassRaster.open(make_raster("map.tif", codes[None])) as raster:
        with clean_raster(raster, flat(codes), **limits, folder=tmp_path) as after:
            assert (after.read(after.grid.full_window) == 1).all()
        with clean_raster(raster, flat(codes), **(limits | {"min_area": 0}), folder=tmp_path) as after:
            assert np.array_equal(after.read(after.grid.full_window), codes)


def test_areas_are_those_of_the_ground(make_raster, tmp_path):
    """A pixel in degrees is half as large at 60 degrees north as at the equator."""
    codes = np.ones((7, 5), np.uint8)
    codes[1, 1] = codes[5, 3] = 2
    pixel = 111_000.0**2 * 10 * 10
    transform = Affine(10, 0, 15, 0, -10, 70)
    with ClassRaster.open(make_raster("map.tif", codes[None], crs="EPSG:4326", transform=transform)) as raster:
        metric = GroundMetric.from_grid(raster.grid)
        for limits in ({"min_area": 0.8 * pixel, "fill_holes": 0}, {"min_area": 0, "fill_holes": 0.8 * pixel}):
            with clean_raster(raster, metric, **limits, folder=tmp_path) as after:
                found = after.read(after.grid.full_window)
            assert found[1, 1] == 1
            assert found[5, 3] == 2


def test_with_nothing_to_do_it_is_the_raster_itself(raster, tmp_path):
    codes = ClassRaster.open(raster)
    assert clean_raster(codes, flat(np.ones((2, 2))), min_area=0, fill_holes=0, folder=tmp_path) is codes
    assert [path.name for path in tmp_path.iterdir()] == ["map.tif"]


def test_two_rounds_are_told(raster, noisy, tmp_path):
    told = []

    def tell(done, total, note=""):
        told.append((done, total))

    with ClassRaster.open(raster) as codes:
        clean_raster(codes, flat(noisy), min_area=9, fill_holes=0, folder=tmp_path, cell_size=16, progress=tell)
    assert told == [(step, 18) for step in range(1, 19)]


def test_a_damaged_raster_is_told(make_raster, tmp_path):
    data = np.random.default_rng(1).integers(0, 9, (1, 200, 300)).astype("uint8")
    path = make_raster("map.tif", data, compress="deflate", tiled=True, blockxsize=64, blockysize=64)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with ClassRaster.open(path) as codes, pytest.raises(RasterError, match="truncated or damaged"):
        clean_raster(codes, flat(data[0]), min_area=9, fill_holes=0, folder=tmp_path, cell_size=64)


@pytest.mark.skipif(sys.platform == "win32", reason="has no limit of file sizes")
@pytest.mark.parametrize("size", [300, 4000, 89_000, 89_900])
def test_a_full_disk_is_told(tmp_path, size):
    """GDAL writes most when it closes the file, and raises no error then."""
    import resource

    codes = np.random.default_rng(0).integers(0, 250, (300, 300)).astype(np.uint8)
    grid = Grid(CRS.from_epsg(32633), Affine(10, 0, 500_000, 0, -10, 4_800_000), 300, 300)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        with pytest.raises(OutputError, match="Is the disk full"):
            write_codes(tmp_path / "cleaned.tif", grid, [(grid.full_window, codes)], lambda: None)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


def test_a_file_that_holds_something_else_is_told(raster, noisy, tmp_path, monkeypatch):
    """A block that was not written reads as nodata."""
    numbers = count()
    monkeypatch.setattr("geopsp.polygons.regions.clean.crc32", lambda _: next(numbers))
    with ClassRaster.open(raster) as codes, pytest.raises(OutputError, match="does not contain what was written"):
        clean_raster(codes, flat(noisy), min_area=9, fill_holes=0, folder=tmp_path)


def test_a_folder_that_is_none_is_told(raster, noisy, tmp_path):
    with ClassRaster.open(raster) as codes, pytest.raises(OutputError, match=r"Cannot write .*cleaned\.tif"):
        clean_raster(codes, flat(noisy), min_area=9, fill_holes=0, folder=tmp_path / "none")
