"""Windows of a class raster contain codes, and 255 for nodata."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import rasterio
from common import examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from geopsp.core.grid import Window
from geopsp.errors import GridError, InputNotFoundError, RasterError
from geopsp.polygons.class_raster import ClassRaster

CODES = np.random.default_rng(2).integers(0, 6, (1, 13, 21))


@pytest.fixture(params=["uint8", "uint8 of 0", "uint8 without", "int16", "masked", "int8", "int64"])
def raster(request, make_raster):
    """Return rasters of one map that declare nodata in several ways."""
    kind = request.param
    nodata = {"uint8": 255, "uint8 of 0": 0, "int16": -9999, "masked": None, "int8": -1, "int64": 7}.get(kind)
    data = np.where(CODES == 0, nodata, CODES) if nodata is not None else CODES
    dtype = kind if kind.startswith("int") else "uint8"
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        mask = CODES[0] != 0 if kind == "masked" else None
        return make_raster("map.tif", data.astype(dtype), mask=mask, **({} if nodata is None else {"nodata": nodata}))


@settings(max_examples=examples(12), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(window=st.builds(Window, *[st.integers(-5, 25)] * 2, *[st.integers(0, 30)] * 2))
def test_a_window_is_as_rasterio_reads_it(raster, window):
    with rasterio.open(raster) as dataset:
        expected = dataset.read(1, masked=True).filled(255 if dataset.dtypes[0] != "int8" else 127).astype(np.uint8)
    expected[expected == 127] = 255
    expected = np.pad(expected, 60, constant_values=255)[window.shift(60, 60).slices(Window(0, 0, 0, 0))]
    with ClassRaster.open(raster) as codes:
        found = codes.read(window)
    assert found.dtype == np.uint8
    assert np.array_equal(found, expected)


def test_the_grid_is_the_raster_s(make_raster):
    path = make_raster("map.tif", CODES.astype("uint8"))
    with rasterio.open(path) as dataset:
        grid = ClassRaster.open(path).grid
        assert (grid.crs, grid.transform, grid.width, grid.height) == (dataset.crs, dataset.transform, 21, 13)


@pytest.mark.parametrize(("dtype", "nodata"), [("uint8", 0), ("int16", -1), ("uint16", 65535), ("int32", -9999)])
def test_declared_nodata_and_255_are_nothing(make_raster, dtype, nodata):
    path = make_raster("map.tif", np.array([[[nodata, 3], [255, 0 if nodata else 4]]]).astype(dtype), nodata=nodata)
    assert ClassRaster.open(path).read(Window(0, 0, 2, 2)).tolist() == [[255, 3], [255, 0 if nodata else 4]]


def test_values_that_are_masked_out_may_be_any(make_raster):
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = make_raster("map.tif", np.array([[[1, 999]]], "int16"), mask=np.array([[True, False]]))
    assert ClassRaster.open(path).read(Window(0, 0, 2, 1)).tolist() == [[1, 255]]


@pytest.mark.parametrize(("values", "found"), [([1, 256], "from 1 to 256"), ([-2, 3], "from -2 to 3")])
def test_values_that_are_no_codes_are_told_when_read(make_raster, values, found):
    codes = ClassRaster.open(make_raster("map.tif", np.array([[values]], "int16")))
    with pytest.raises(RasterError, match=found):
        codes.read(Window(0, 0, 2, 1))


@pytest.mark.parametrize(
    "dtype", ["int8", "uint16", "int16", "int32", "uint32", "int64", "uint64", "float32", "float64"]
)
def test_values_of_any_type_are_numbered_if_they_are_no_codes(make_raster, dtype):
    small = np.array([[[1, 7], [0, 120]]], dtype)
    large = {"int8": [-5, 3, 3, 120]}.get(dtype, [111, 512, 60000 if dtype != "int16" else 30000, 255])
    for data, values in ((small, None), (np.array(large, dtype).reshape(1, 2, 2), sorted(set(large)))):
        with ClassRaster.open(make_raster("map.tif", data)) as raster:
            raster.number_values()
            found = raster.read(Window(0, 0, 2, 2))
            assert (raster.values is None) == (values is None)
            numbers = found if values is None else raster.values[found]
            assert np.array_equal(numbers, data[0])


def test_nodata_of_floats_is_nothing(make_raster):
    data = np.array([[[1, np.nan], [-3.4e38, 2000]]], "float32")
    with ClassRaster.open(make_raster("map.tif", data, nodata=float(np.float32(-3.4e38)))) as raster:
        raster.number_values()
        assert raster.values.tolist() == [1, 2000]
        assert raster.read(Window(0, 0, 2, 2)).tolist() == [[0, 255], [255, 1]]


@pytest.mark.parametrize(("data", "words"), [
    (np.array([[[0.25, 1]]], "float32"), r"0\.25 \(float32\), but class codes are whole numbers"),
    (np.array([[[np.inf, 1]]], "float64"), r"inf"),
    (np.arange(300, dtype="int16").reshape(1, 15, 20), "more than 255 different values, from 0 to 299"),
    (np.array([[[2**60, 1]]], "int64"), "of at most 15 digits"),
])  # fmt: skip
def test_what_cannot_be_numbered_is_told(make_raster, data, words):
    with pytest.raises(RasterError, match=words), ClassRaster.open(make_raster("map.tif", data)) as raster:
        raster.number_values()


def test_alpha_is_a_mask(make_raster):
    path = make_raster("map.tif", np.array([[[1, 2]], [[255, 0]]], "uint8"), photometric="minisblack", alpha="yes")
    assert ClassRaster.open(path).read(Window(0, 0, 2, 1)).tolist() == [[1, 255]]


@pytest.mark.parametrize(
    ("data", "found"),
    [
        (np.ones((3, 2, 2), "uint8"), r"3 bands of uint8"),
        (np.ones((1, 2, 2), "complex64"), "complex64"),
    ],
)
def test_other_rasters_than_of_codes_are_told(make_raster, data, found):
    with pytest.raises(RasterError, match=found):
        ClassRaster.open(make_raster("map.tif", data))


def test_a_raster_that_lies_nowhere_is_told(make_raster, tmp_path):
    with pytest.raises(GridError, match="no CRS"):
        ClassRaster.open(make_raster("map.tif", CODES.astype("uint8"), crs=None))
    with pytest.raises(InputNotFoundError, match=r"none\.tif"):
        ClassRaster.open(tmp_path / "none.tif")


@pytest.mark.parametrize("compress", ["none", "deflate"])
def test_a_truncated_raster_is_told_where_it_is_read(make_raster, compress):
    data = np.random.default_rng(1).integers(0, 9, (1, 200, 300)).astype("uint8")
    path = make_raster("map.tif", data, compress=compress, tiled=True, blockxsize=64, blockysize=64)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with ClassRaster.open(path) as codes, pytest.raises(RasterError, match="truncated or damaged"):
        codes.read(codes.grid.full_window)


@pytest.fixture
def many(make_raster):
    data = np.random.default_rng(1).integers(0, 9, (1, 200, 300)).astype("uint8")
    return make_raster("map.tif", data, compress="deflate", tiled=True, blockxsize=16, blockysize=16), data[0]


def test_threads_read_at_once(many):
    path, data = many
    with ClassRaster.open(path) as codes, ThreadPoolExecutor(4) as pool:
        windows = list(codes.grid.blocks(7))
        for window, found in zip(windows, pool.map(codes.read, windows), strict=True):
            assert np.array_equal(found, data[window.slices(codes.grid.full_window)])


def test_closed_while_others_read_nothing_breaks(many):
    path, data = many
    with ThreadPoolExecutor(4) as pool, ClassRaster.open(path) as codes:
        reads = [pool.submit(codes.read, codes.grid.full_window) for _ in range(50)]
        while not all(read.done() for read in reads):
            codes.close()
    assert all(np.array_equal(read.result(), data) for read in reads)
    codes.close()
    assert not any(handle._dataset for handle in codes._handles)
