"""Confidence rasters are read as values from 0 to 1, NaN where the confidence is unknown."""

import pickle
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest
import rasterio
from affine import Affine
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st

from geopsp.core.grid import Window
from geopsp.errors import GeopspError, GridError, InputNotFoundError, RasterError
from geopsp.inference.outputs import FRACTION_STEPS
from geopsp.polygons.confidence import Confidence
from geopsp.raster.info import read_info


@pytest.fixture
def make(make_raster):
    """Write a confidence raster, and open it on its own grid."""

    def made(data, *, scale=None, offset=None, **options):
        path = make_raster("shares.tif", np.asarray(data)[None], **options)
        with rasterio.open(path, "r+") as dataset:
            dataset.scales = [scale or 1.0]
            dataset.offsets = [offset or 0.0]
        return Confidence.open(path, read_info(path).grid)

    return made


def whole(confidence):
    return confidence.read(confidence.scene.grid.window)


def test_our_own_bytes_are_shares_of_254(make):
    stored = np.arange(256, dtype=np.uint8).reshape(16, 16)
    found = whole(make(stored, scale=1 / FRACTION_STEPS, nodata=255))
    assert found.dtype == np.float32
    assert found.ravel()[:255].tolist() == (np.arange(255) / FRACTION_STEPS).astype(np.float32).tolist()
    assert found.ravel()[127] == 0.5  # not a little less, which would count as unsure
    assert np.isnan(found[15, 15])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_floats_are_taken_as_they_are(make, dtype):
    found = whole(make(np.array([[0, 0.25, np.inf], [1, 0.5, np.nan]], dtype)))
    assert np.array_equal(found, np.array([[0, 0.25, np.nan], [1, 0.5, np.nan]], np.float32), equal_nan=True)


def test_percent_with_a_scale(make):
    found = whole(make(np.array([[0, 50, -1], [100, 25, 75]], np.int16), scale=0.01, nodata=-1))
    assert np.allclose(found, [[0, 0.5, np.nan], [1, 0.25, 0.75]], equal_nan=True)


def test_an_offset_is_added(make):
    assert np.allclose(whole(make(np.array([[-5, 0, 5]], np.int16), scale=0.1, offset=0.5)), [[0, 0.5, 1]])


def test_rounding_beyond_one_is_one(make):
    values = np.nextafter(np.float32([[0, 1]]), np.float32([[-1, 2]]))
    assert whole(make(values)).tolist() == [[0, 1]]


def test_masked_pixels_are_unknown(make):
    mask = np.array([[True, False, True]])
    found = whole(make(np.array([[0.5, 0.5, 1.0]], np.float32), mask=mask))
    assert np.isnan(found).tolist() == [[False, True, False]]


@pytest.mark.parametrize(
    ("values", "found"),
    [
        (np.array([[0.5, 1.01]], np.float32), r"from 0\.5 to 1\.01"),
        (np.array([[-0.01, 1]], np.float32), r"from -0\.01 to 1"),
        (np.array([[3, 90]], np.uint8), "from 3 to 90"),
    ],
)
def test_other_numbers_than_shares_are_told(make, values, found):
    with pytest.raises(RasterError, match=rf"shares\.tif contains values {found}, but confidence must be from 0 to 1"):
        whole(make(values))


def test_another_grid_is_told_with_both(make_raster):
    path = make_raster("shares.tif", np.ones((1, 7, 9), np.float32))
    grid = read_info(path).grid
    others = [
        grid.crop(Window(0, 0, 9, 6)),
        grid.crop(Window(1, 0, 9, 7)),
        replace(grid, transform=grid.transform @ Affine.scale(2)),
        replace(grid, crs=rasterio.CRS.from_epsg(32633)),
    ]
    for other in others:
        with pytest.raises(GridError, match=r"on another grid \(9 x 7 pixels of 2 x 2.*\) than the map \(9 x \d"):
            Confidence.open(path, other)


def test_several_bands_are_told(make_raster):
    path = make_raster("shares.tif", np.ones((3, 7, 9), np.float32))
    with pytest.raises(RasterError, match="3 bands"):
        Confidence.open(path, read_info(path).grid)


def test_a_missing_or_damaged_raster_is_told(make_raster, tmp_path):
    path = make_raster("shares.tif", np.random.default_rng(0).random((1, 300, 200), np.float32), tiled=True)
    grid = read_info(path).grid
    with pytest.raises(InputNotFoundError, match=r"none\.tif"):
        Confidence.open(tmp_path / "none.tif", grid)
    path.write_bytes(path.read_bytes()[:100_000])
    with pytest.raises(GeopspError, match=r"shares\.tif"):
        whole(Confidence.open(path, grid))


@settings(max_examples=examples(10), deadline=None)
@given(col=st.integers(-12, 12), row=st.integers(-12, 12), width=st.integers(1, 20), height=st.integers(1, 20))
def test_windows_are_cut_from_the_whole(tmp_path_factory, col, row, width, height):
    path = tmp_path_factory.mktemp("shares") / "shares.tif"
    stored = np.linspace(0, 1, 77, dtype=np.float32).reshape(11, 7)
    place = {"crs": "EPSG:32632", "transform": Affine(2, 0, 601234, 0, -2, 5301717)}
    with rasterio.open(path, "w", driver="GTiff", width=7, height=11, count=1, dtype="float32", **place) as dataset:
        dataset.write(stored, 1)
    found = Confidence.open(path, read_info(path).grid).read(Window(col, row, width, height))
    around = np.pad(stored, 40, constant_values=np.nan)
    assert np.array_equal(found, around[row + 40 :, col + 40 :][:height, :width], equal_nan=True)


def test_threads_and_copies_read_the_same(make):
    confidence = make(np.random.default_rng(0).random((61, 83), np.float32), tiled=True, blockxsize=16, blockysize=16)
    windows = list(confidence.scene.grid.blocks(16)) * 3
    expected = [confidence.read(window) for window in windows]
    twin = pickle.loads(pickle.dumps(confidence))
    with ThreadPoolExecutor(4) as pool:
        for one, other in zip(expected, pool.map(twin.read, windows), strict=True):
            assert np.array_equal(one, other)
