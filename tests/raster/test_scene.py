import multiprocessing
import os
import pickle
import zipfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
import rasterio.shutil
from affine import Affine
from common import SHARED, examples
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from raster_common import class_raster
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RioWindow

from geopsp.core.bands import match_bands
from geopsp.core.grid import Grid, Window
from geopsp.core.legend import Legend
from geopsp.errors import BandError, GeopspError, GridError, InputNotFoundError, OptionError, RasterError
from geopsp.raster.find_images import find_images
from geopsp.raster.info import raster_fingerprint, read_info
from geopsp.raster.layer_files import LayerFiles
from geopsp.raster.legend_io import read_legend
from geopsp.raster.open import open_raster
from geopsp.raster.open_scenes import open_scenes
from geopsp.raster.scene import Scene
from geopsp.raster.warp import WARP_CELL, warp_cells

HARD = SHARED / "hard" / "rasters"
ORIGIN = (601234.0, 5301717.0)


def levels(dtype="uint8", size=(61, 83), bands=3, seed=0):
    return np.random.default_rng(seed).integers(1, 120, (bands, *size)).astype(dtype)


def holed(dtype, value):
    """Levels with one pixel of `value` in band 1 only, at (5, 7), and one in all bands, at (9, 11)."""
    data = levels(dtype)
    data[0, 5, 7] = value
    data[:, 9, 11] = value
    return data


@pytest.mark.parametrize("images", [[], "nowhere.tif", "no*.tif", ["nowhere.tif"]])
def test_no_such_file_says_so(images):
    with pytest.raises(InputNotFoundError, match=r"No image is given|no such file or folder, and as a pattern"):
        Scene.open(images)


def test_an_empty_folder_holds_no_raster(tmp_path):
    with pytest.raises(InputNotFoundError, match="No raster found"):
        Scene.open(tmp_path)


def test_images_that_were_found_open_as_the_same_scene(make_raster):
    images = [make_raster("a.tif", nodata=0), make_raster("b.tif", origin=(ORIGIN[0] + 61, ORIGIN[1] + 7))]
    options = {"bands": [2, 1], "cell_size": 3.0, "extent": (ORIGIN[0], ORIGIN[1] - 90, ORIGIN[0] + 200, ORIGIN[1])}
    ours = Scene.from_images(find_images(images), **options)
    theirs = Scene.open(images, **options)
    assert (ours.layers, ours.grid, ours.bands, ours.name) == (theirs.layers, theirs.grid, theirs.bands, theirs.name)
    assert ours.notes == theirs.notes
    np.testing.assert_array_equal(ours.read().data, theirs.read().data)


# Valid mask


@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "float32"])
def test_pixels_and_grid_are_the_file_s(dtype, make_raster):
    data = levels(dtype)
    path = make_raster("a.tif", data)
    patch = Scene.open(path).read()
    np.testing.assert_array_equal(patch.data, data)
    assert patch.data.dtype == dtype
    assert patch.valid.all()
    with rasterio.open(path) as dataset:
        assert (patch.grid.transform, patch.grid.crs) == (dataset.transform, dataset.crs)


@pytest.mark.parametrize(
    ("dtype", "nodata", "one_band_counts"),
    [
        ("uint8", 0, False),
        ("uint16", 0, False),
        ("uint8", 255, True),
        ("int16", -9999, True),
        ("uint16", 65535, True),
        ("float32", 0, True),
        ("float32", -3.4028234663852886e38, True),
        ("float32", np.nan, True),
    ],
)
def test_nodata_is_invalid_and_zero_in_one_band_is_a_dark_pixel(dtype, nodata, one_band_counts, make_raster):
    patch = Scene.open(make_raster("a.tif", holed(dtype, nodata), nodata=nodata)).read()
    expected = np.ones((61, 83), bool)
    expected[9, 11] = False
    expected[5, 7] = not one_band_counts
    np.testing.assert_array_equal(patch.valid, expected)


def test_nan_and_inf_are_invalid_without_a_nodata_value(make_raster):
    data = holed("float32", np.nan)
    data[2, 20, 20] = np.inf
    valid = Scene.open(make_raster("a.tif", data)).read().valid
    assert [tuple(map(int, hole)) for hole in np.argwhere(~valid)] == [(5, 7), (9, 11), (20, 20)]


def test_each_band_has_its_own_nodata(make_raster, tmp_path):
    data = np.array([[[7, 1, 2]], [[9, 7, 9]]], np.uint8)
    path = make_raster("a.tif", data)
    text = "".join(
        f'<VRTRasterBand dataType="Byte" band="{band}"><NoDataValue>{nodata}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>{band}</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for band, nodata in ((1, 1), (2, 9))
    )
    (tmp_path / "a.vrt").write_text(
        f'<VRTDataset rasterXSize="3" rasterYSize="1"><SRS>EPSG:32632</SRS>'
        f"<GeoTransform>601234,2,0,5301717,0,-2</GeoTransform>{text}</VRTDataset>"
    )
    assert Scene.open(tmp_path / "a.vrt").read().valid.tolist() == [[False, False, False]]
    assert Scene.open(tmp_path / "a.vrt", bands=[2]).read().valid.tolist() == [[False, True, False]]
    assert Scene.open(path).read().valid.all()


@pytest.mark.parametrize("nodata", [None, 0])
def test_internal_masks_count_beside_nodata(nodata, make_raster):
    mask = np.ones((61, 83), bool)
    mask[30:40, 2:5] = False
    data = holed("uint8", 0)
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
        path = make_raster("a.tif", data, mask=mask, nodata=nodata)
    patch = Scene.open(path).read()
    with rasterio.open(path) as dataset:
        expected = dataset.dataset_mask() > 0
    if nodata == 0:
        expected[9, 11] = False
    np.testing.assert_array_equal(patch.valid, expected)


def with_alpha(path, alpha, **profile):
    data = levels(alpha.dtype)
    profile |= {"dtype": data.dtype, "count": 4, "height": 61, "width": 83, "crs": "EPSG:32632"}
    with rasterio.open(path, "w", driver="GTiff", transform=from_origin(*ORIGIN, 2, 2), **profile) as dataset:
        dataset.write(data, [1, 2, 3])
        dataset.write(alpha, 4)
        dataset.colorinterp = [ColorInterp.red, ColorInterp.green, ColorInterp.blue, ColorInterp.alpha]
    return path


@pytest.mark.parametrize("dtype", ["uint8", "uint16"])
@pytest.mark.parametrize("nodata", [None, 0])
def test_alpha_is_no_band_and_its_zero_is_invalid_beside_nodata(dtype, nodata, tmp_path):
    alpha = np.full((61, 83), np.iinfo(dtype).max, dtype)
    alpha[10:20, 3:9] = 0
    scene = Scene.open(with_alpha(tmp_path / "a.tif", alpha, nodata=nodata))
    assert scene.bands == ("red", "green", "blue")
    np.testing.assert_array_equal(scene.read().valid, alpha > 0)


# Windows


@given(
    window=st.builds(
        Window, st.integers(-90, 90), st.integers(-90, 90), st.integers(1, 99), st.integers(1, 99)
    )
)  # fmt: skip
@settings(max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_window_that_overhangs_is_padded_as_invalid(window, make_raster):
    path = make_raster("a.tif", nodata=0)
    patch = Scene.open(path).read(window)
    with rasterio.open(path) as dataset:
        area = RioWindow(window.col, window.row, window.width, window.height)
        expected = dataset.read(window=area, boundless=True, fill_value=0)
    np.testing.assert_array_equal(patch.data, expected)
    np.testing.assert_array_equal(patch.valid, expected.any(axis=0))
    assert patch.grid == Scene.open(path).grid.crop(window)


# Several rasters


def test_later_rasters_fill_where_earlier_ones_are_invalid(make_raster):
    first, second = levels(seed=1), levels(seed=2)
    first[:, 20:30, 40:] = 0
    images = [
        make_raster("first.tif", first, nodata=0),
        make_raster("second.tif", second, nodata=0, origin=(ORIGIN[0] + 2 * 50, ORIGIN[1] + 2 * 10)),
    ]
    scene = Scene.open(images)
    patch = scene.read()
    assert (scene.grid.width, scene.grid.height) == (50 + 83, 61 + 10)
    assert scene.grid.bounds()[0] == ORIGIN[0]
    expected = np.zeros((3, 71, 133), np.uint8)
    expected[:, :61, 50:] = second
    expected[:, 10:, :83] = np.where(first.any(axis=0), first, expected[:, 10:, :83])
    np.testing.assert_array_equal(patch.data, expected)
    np.testing.assert_array_equal(patch.valid, expected.any(axis=0))
    window = Window(45, 5, 20, 40)
    np.testing.assert_array_equal(scene.read(window).data, expected[:, 5:45, 45:65])
    assert scene.notes == (f"mosaic of 2 images; where they overlap, {images[0]} is on top (order as given)",)


def test_a_mosaic_has_one_type_and_one_image_the_type_that_holds_its_files(make_raster):
    images = [make_raster("a.tif", levels("uint8")), make_raster("b.tif", levels("int16", seed=1), origin=(0, 0))]
    with pytest.raises(BandError, match=r"b\.tif has int16 pixels, but .*a\.tif has uint8\. All images"):
        Scene.open(images)
    files = {"a": make_raster("a.tif", levels("uint8", bands=1)), "b": make_raster("b.tif", levels("int16", bands=1))}
    assert Scene.open(files).dtype == np.int16


def warped(path, grid, **options):
    place = {"crs": grid.crs, "transform": grid.transform, "width": grid.width, "height": grid.height}
    with rasterio.open(path) as dataset, WarpedVRT(dataset, **place, **options) as there:
        return there.read()


@pytest.mark.parametrize("resampling", [Resampling.nearest, Resampling.bilinear])
@pytest.mark.parametrize(
    ("crs", "transform"),
    [
        ("EPSG:32633", from_origin(152500.0, 5311285.0, 2.0, 2.0)),
        ("EPSG:4326", from_origin(10.354, 47.861, 3e-5, 2e-5)),
        ("EPSG:32632", from_origin(ORIGIN[0] + 21.0, ORIGIN[1] - 5.0, 2.0, 2.0)),
        ("EPSG:32632", from_origin(ORIGIN[0] + 21.0, ORIGIN[1] - 5.0, 0.7, 0.9)),
        ("EPSG:32632", Affine(2, 0, ORIGIN[0], 0, 2, ORIGIN[1] - 100)),
        ("EPSG:32632", Affine.translation(*ORIGIN) @ Affine.rotation(30) @ Affine.scale(2, -2)),
    ],
    ids=["utm zone", "degrees", "half a pixel", "resolution", "south-up", "rotated"],
)
def test_a_raster_on_another_grid_is_warped_and_that_is_noted(crs, transform, resampling, make_raster):
    first = make_raster("first.tif", np.zeros((3, 61, 83), np.uint8), nodata=0)
    other = make_raster("other.tif", levels(), nodata=0, crs=crs, transform=transform)
    scene = Scene.open([first, other], resampling=resampling)
    assert [source.warped for source in scene.sources] == [False, True]
    assert scene.notes[1:] == (f"{other} is warped ({resampling.name}) onto the grid of {first}",)
    patch = scene.read()
    assert patch.valid.any()
    place = scene.sources[1].grid
    np.testing.assert_array_equal(
        scene.read(scene.grid.window_of(place)).data, warped(other, place, resampling=resampling)
    )
    whole = warped(other, scene.grid, resampling=resampling).any(axis=0)
    assert (patch.valid != whole).sum() < 0.01 * whole.sum()  # the kernel's width depends on the extent


@pytest.fixture(scope="module")
def noisy(tmp_path_factory):
    """Scenes of a noisy image with holes, larger than a few cells, warped from another zone, and to other pixels."""
    rng = np.random.default_rng(0)
    data = rng.integers(1, 250, (2, 420, 700)).astype("uint8")
    data[:, rng.random((420, 700)) < 0.02] = 0
    folder = tmp_path_factory.mktemp("noisy")
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 2, "height": 420, "width": 700, "nodata": 0}
    for name, crs, corner in (("zone", 32633, (152500.0, 5311285.0)), ("here", 32632, ORIGIN)):
        place = {"crs": f"EPSG:{crs}", "transform": from_origin(*corner, 2, 2)}
        with rasterio.open(folder / f"{name}.tif", "w", **profile, **place) as dataset:
            dataset.write(data)
    place = {"crs": "EPSG:32632", "transform": from_origin(ORIGIN[0] + 4, ORIGIN[1] + 6, 2, 2)}
    with rasterio.open(folder / "first.tif", "w", **profile | {"height": 7, "width": 5}, **place) as dataset:
        dataset.write(data[:, :7, :5])
    mosaic = [folder / "first.tif", folder / "zone.tif"]
    scenes = {
        "zone": Scene.open(mosaic),
        "nearest": Scene.open(mosaic, resampling=Resampling.nearest),
        "finer": Scene.open(folder / "here.tif", cell_size=1.3),
        "coarser": Scene.open(folder / "here.tif", cell_size=4.7),
        "cut": Scene.open(mosaic, extent=(ORIGIN[0] + 150, ORIGIN[1] - 600, ORIGIN[0] + 900, ORIGIN[1] - 50)),
    }
    return scenes, {name: scene.read() for name, scene in scenes.items()}


@pytest.mark.parametrize("how", ["zone", "nearest", "finer", "coarser", "cut"])
@given(data=st.data())
@settings(max_examples=examples(12), deadline=None)
def test_a_pixel_of_a_warped_raster_is_the_same_in_any_window(how, data, noisy):
    scene, whole = noisy[0][how], noisy[1][how]
    col, row = data.draw(st.integers(0, scene.grid.width - 1)), data.draw(st.integers(0, scene.grid.height - 1))
    window = Window(col, row, data.draw(st.integers(1, 600)), data.draw(st.integers(1, 400)))
    window = window.intersect(scene.grid.window)
    patch = pickle.loads(pickle.dumps(scene)).read(window)
    rows, cols = window.slices(scene.grid.window)
    np.testing.assert_array_equal(patch.valid, whole.valid[rows, cols])
    np.testing.assert_array_equal(patch.data, whole.data[:, rows, cols])


def test_a_pixel_of_a_warped_raster_is_the_same_in_any_extent(noisy):
    """Parts of a map are cut where the extent begins; the cells are the file's own."""
    zone, whole = noisy[0]["zone"], noisy[1]["zone"]
    window = zone.grid.window_of(noisy[0]["cut"].grid)
    rows, cols = window.slices(zone.grid.window)
    np.testing.assert_array_equal(noisy[1]["cut"].data, whole.data[:, rows, cols])


def test_a_warped_file_is_read_in_whole_cells_of_its_own(noisy, monkeypatch):
    """Not in cells of the window: whether these give the same pixels depends on the release of GDAL."""
    areas, read = [], LayerFiles._read_file
    monkeypatch.setattr(LayerFiles, "_read_file", lambda self, *what: areas.append(what) or read(self, *what))
    noisy[0]["cut"].read(Window(33, 44, 300, 100))
    assert areas
    for band_source, area in areas:
        if band_source.info.warped:
            assert area in list(warp_cells(band_source.window, band_source.window))


@given(
    st.builds(Window, st.integers(-999, 999), st.integers(-999, 999), st.integers(1, 1500), st.integers(1, 1500)),
    st.builds(Window, st.integers(0, 999), st.integers(0, 999), st.integers(1, 700), st.integers(1, 700)),
)
@settings(max_examples=examples(30), deadline=None)
def test_cells_partition_what_is_read_of_a_warped_file(place, part):
    window = part.shift(place.col, place.row).intersect(place)
    if window.empty:
        return
    found = list(warp_cells(window, place))
    parts = [cell.intersect(window) for cell in found]
    assert sum(part.width * part.height for part in parts) == window.width * window.height
    assert not any(part.is_empty for part in parts)
    for cell in found:
        assert (cell.col - place.col) % WARP_CELL == (cell.row - place.row) % WARP_CELL == 0
        assert (cell.width, cell.height) == (
            min(WARP_CELL, place.col_stop - cell.col), min(WARP_CELL, place.row_stop - cell.row),
        )  # fmt: skip


def test_the_whole_of_a_warped_raster_is_seen(make_raster):
    first = make_raster("first.tif", np.ones((1, 5, 5), np.uint8))
    other = make_raster("other.tif", np.ones((1, 61, 83), np.uint8), crs="EPSG:32633", origin=(152500.0, 5311285.0))
    patch = Scene.open([first, other], resampling=Resampling.nearest).read()
    assert patch.valid.sum() == pytest.approx(25 + 61 * 83, rel=0.02)
    assert (patch.data[:, patch.valid] == 1).all()


@pytest.mark.parametrize(
    ("how", "dtype"),
    [
        *((how, dtype) for how in ("mask", "nodata and mask", "nothing") for dtype in ("uint8", "float32")),
        ("alpha", "uint8"),
        ("nan", "float32"),
    ],
)
def test_a_warp_carries_validity_along(how, dtype, make_raster, tmp_path):
    hole = np.ones((61, 83), bool)
    hole[20:40, 30:50] = False
    first = make_raster("first.tif", np.full((3, 4, 4), 5, dtype), origin=(ORIGIN[0] - 8, ORIGIN[1]))
    place = {"origin": (ORIGIN[0] + 1.0, ORIGIN[1] - 1.0)}
    data = np.full((3, 61, 83), 100, dtype)
    if how == "alpha":
        other = with_alpha(tmp_path / "other.tif", np.where(hole, 255, 0).astype(dtype))
        with rasterio.open(other, "r+") as dataset:
            dataset.transform = from_origin(*place["origin"], 2, 2)
    elif how == "nan":
        other = make_raster("other.tif", np.where(hole, data, np.nan).astype(dtype), **place)
    else:
        extra = {"nothing": {}, "mask": {"mask": hole}, "nodata and mask": {"mask": hole, "nodata": 0}}[how]
        with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True):
            other = make_raster("other.tif", data, **place, **extra)
    patch = Scene.open([first, other]).read(Window(4, 0, 82, 61))
    middle = patch.valid[22:38, 32:48]
    assert middle.all() if how == "nothing" else not middle.any()
    assert patch.valid[2:18].all()
    if how != "alpha":
        np.testing.assert_allclose(patch.data[:, patch.valid], 100)


def test_a_scene_is_aligned_to_a_given_grid(make_raster):
    onto = Grid(CRS.from_epsg(32632), from_origin(ORIGIN[0] + 1, ORIGIN[1] - 1, 4, 4), 5, 5)
    scene = Scene.open(make_raster(), onto=onto)
    assert scene.grid.window_of(onto) is not None
    assert "the given grid" in scene.notes[0]


def test_worlds_apart_cannot_be_warped(make_raster):
    mars = CRS.from_wkt(
        'GEOGCS["Mars",DATUM["D_Mars",SPHEROID["Mars",3396190,169.9]],'
        'PRIMEM["Reference_Meridian",0],UNIT["degree",0.0174532925199433]]'
    )
    images = [make_raster("earth.tif"), make_raster("mars.tif", crs=mars, origin=(10, 10), cell=0.1)]
    with pytest.raises(GridError, match=r"Cannot warp .*mars\.tif \(.*\) onto the grid"):
        Scene.open(images)


@pytest.mark.parametrize(
    "transform",
    [Affine(2, 0, 601234, 0, 2, 5301717), Affine.translation(*ORIGIN) @ Affine.rotation(20) @ Affine.scale(2, -2)],
    ids=["south-up", "rotated"],
)
def test_single_rasters_of_any_orientation_read_as_they_are(transform, make_raster):
    data = levels()
    patch = Scene.open(make_raster("a.tif", data, transform=transform)).read(Window(3, -2, 20, 30))
    np.testing.assert_array_equal(patch.data[:, 2:], data[:, :28, 3:23])
    assert patch.grid.transform.almost_equals(transform @ Affine.translation(3, -2), precision=1e-6)


def test_with_others_a_rotated_first_image_goes_onto_a_north_up_grid(make_raster):
    rotated = Affine.translation(*ORIGIN) @ Affine.rotation(20) @ Affine.scale(2, -2)
    first, other = make_raster("a.tif", transform=rotated, nodata=0), make_raster("b.tif", seed=1)
    scene = Scene.open([first, other])
    left, _, _, top = read_info(first).grid.bounds()
    assert scene.cell_size == pytest.approx((2, 2))
    assert (scene.grid.transform.b, scene.grid.transform.d) == (0, 0)
    assert [source.warped for source in scene.sources] == [True, True]
    assert f"as {first} is rotated" in scene.notes[1]
    whole = [warped(path, scene.grid, resampling=Resampling.bilinear) for path in (first, other)]
    patch = scene.read()
    there = whole[0].any(axis=0)
    assert abs(there.sum() - 61 * 83) < 200
    agree = (patch.data == np.where(there, *whole)).all(axis=0)
    assert agree[there].mean() > 0.97
    assert scene.grid.to_pixel_coordinates(np.array([(left, top)]))[0] == pytest.approx(
        scene.grid.to_pixel_coordinates(np.array([(left, top)]))[0].round(), abs=1e-3
    )


# One file a band, at differing resolutions


def bundle(make_raster, *, hole=None):
    """Red and nir at 10 m, both with a hole, swir at 20 m."""
    red, nir, swir = (
        levels("uint16", (40, 60), 1, 1),
        levels("uint16", (40, 60), 1, 2),
        levels("uint16", (20, 30), 1, 3),
    )
    if hole:
        red[:, *hole] = nir[:, *hole] = 0
    place = {"cell": 10.0, "nodata": 0}
    return {
        "red": make_raster("red_10.tif", red, **place),
        "nir": make_raster("nir_10.tif", nir, **place),
        "swir": make_raster("swir_20.tif", swir, cell=20.0, nodata=0),
    }


@pytest.mark.parametrize("resampling", [Resampling.nearest, Resampling.bilinear])
def test_the_finest_file_gives_the_grid_and_the_others_are_resampled_onto_it(resampling, make_raster):
    files = bundle(make_raster, hole=(slice(5, 8), slice(9, 12)))
    files = {name: files[name] for name in ("swir", "nir", "red")}
    scene = Scene.open(files, bands=["swir", "red"], resampling=resampling)
    assert scene.bands == ("swir", "red")
    assert scene.cell_size == (10, 10)
    assert [source.path for source in scene.sources] == [str(files["red"]), str(files["swir"])]
    assert scene.notes == (f"{files['swir']} is warped ({resampling.name}) onto the grid of {files['red']}",)
    patch = scene.read()
    np.testing.assert_array_equal(patch.data[0], warped(files["swir"], scene.grid, resampling=resampling)[0])
    np.testing.assert_array_equal(patch.data[1], rasterio.open(files["red"]).read(1))
    assert patch.valid.all()  # 0 in red alone is a dark pixel
    expected = np.ones((40, 60), bool)
    expected[5:8, 9:12] = False
    np.testing.assert_array_equal(Scene.open(files, bands=["nir", "red"]).read().valid, expected)
    if resampling == Resampling.nearest:
        np.testing.assert_array_equal(patch.data[0], rasterio.open(files["swir"]).read(1).repeat(2, 0).repeat(2, 1))
    window = Window(-3, 31, 20, 20)
    part = scene.read(window)
    np.testing.assert_array_equal(part.data[:, :9, 3:], patch.data[:, 31:, :17])
    assert not part.valid[:, :3].any()


def test_files_whose_bands_nobody_asked_for_are_not_opened(make_raster, tmp_path):
    files = bundle(make_raster) | {"blue": tmp_path / "nowhere.tif"}
    assert Scene.open(files, bands=["swir"]).cell_size == (20, 20)
    with pytest.raises(InputNotFoundError, match="nowhere"):
        Scene.open(files)


def test_a_pixel_is_valid_where_all_files_reach(make_raster):
    files = {
        "a": make_raster("a.tif", levels(bands=1, size=(20, 20))),
        "b": make_raster("b.tif", levels(bands=1, size=(20, 20)), origin=(ORIGIN[0] + 10, ORIGIN[1])),
    }
    patch = Scene.open(files).read()
    assert patch.valid[:, 5:].all()
    assert not patch.valid[:, :5].any()


def test_a_coarse_file_that_reaches_further_adds_no_pixel(make_raster):
    files = {
        "coarse": make_raster(
            "c.tif", levels(bands=1, size=(30, 30)), cell=7.0, origin=(ORIGIN[0] - 30, ORIGIN[1] + 9)
        ),
        "fine": make_raster("f.tif", levels(bands=1, size=(20, 20))),
    }
    scene = Scene.open(files)
    assert scene.grid == read_info(files["fine"]).grid
    assert scene.read().valid.all()


def test_bundles_lie_on_one_another_like_files(make_raster):
    files = bundle(make_raster, hole=(slice(0, 40), slice(20, 40)))
    other = {
        name: make_raster(
            f"other_{name}.tif", levels("uint16", (60, 30), 1, 7), cell=10.0, origin=(ORIGIN[0] + 100, ORIGIN[1])
        )
        for name in ("nir", "red")
    }
    patch = Scene.open([files, other], bands=["red", "nir"]).read()
    assert patch.valid.shape == (60, 60)
    np.testing.assert_array_equal(patch.valid[:40], True)
    np.testing.assert_array_equal(patch.data[0, :40, 20:40], rasterio.open(other["red"]).read(1)[:40, 10:])


# Cell size and extent


def test_a_coarser_cell_averages_and_keeps_the_corner(make_raster):
    data = levels("float32", (60, 80))
    scene = Scene.open(make_raster("a.tif", data), cell_size=8)
    assert scene.grid.transform == from_origin(*ORIGIN, 8, 8)
    expected = data.reshape(3, 15, 4, 20, 4).mean(axis=(2, 4))
    np.testing.assert_allclose(scene.read().data, expected, rtol=1e-5)
    assert "is warped (average) onto a north-up grid of 8 metre pixels" in scene.notes[0]
    near = Scene.open(make_raster("a.tif", data), cell_size=8, resampling=Resampling.nearest)
    assert np.isin(near.read().data, data).all()


@pytest.mark.parametrize(("cell_size", "how"), [(2.0, None), (3.9, "bilinear"), (1.0, "bilinear"), (4.0, "average")])
def test_how_a_cell_size_is_reached(cell_size, how, make_raster):
    path = make_raster()
    (source,) = Scene.open(path, cell_size=cell_size).sources
    assert (source.resampling.name if source.resampling else None) == how
    data = Scene.open(path, cell_size=cell_size).read().data
    np.testing.assert_array_equal(
        data, warped(path, source.grid, resampling=source.resampling) if how else rasterio.open(path).read()
    )


@pytest.mark.parametrize("cell_size", [0, -1, float("nan"), float("inf")])
def test_a_cell_size_is_a_positive_number(cell_size, make_raster):
    with pytest.raises(OptionError, match=r"`cell_size` is .*, but must be a number above 0"):
        Scene.open(make_raster(), cell_size=cell_size)


def test_a_south_up_and_a_rotated_image_become_north_up_at_a_cell_size(make_raster):
    rotated = Affine.translation(*ORIGIN) @ Affine.rotation(20) @ Affine.scale(2, -2)
    for transform in (Affine(2, 0, *ORIGIN[:1], 0, 2, ORIGIN[1]), rotated):
        path = make_raster("a.tif", np.full((1, 61, 83), 9, np.uint8), transform=transform)
        left, _, _, top = read_info(path).grid.bounds()
        scene = Scene.open(path, cell_size=4)
        assert scene.grid.transform.almost_equals(from_origin(left, top, 4, 4))
        patch = scene.read()
        assert patch.valid.sum() == pytest.approx(61 * 83 / 4, rel=0.08)
        assert (patch.data[:, patch.valid] == 9).all()


@given(
    box=st.tuples(*[st.floats(-30, 220, allow_nan=False)] * 2, *[st.floats(0.5, 150, allow_nan=False)] * 2)
)  # fmt: skip
@settings(max_examples=examples(15), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_extent_is_snapped_outward_and_cropped_to_the_images(box, make_raster):
    path, (x, y, width, height) = make_raster("a.tif"), box
    extent = (ORIGIN[0] + x, ORIGIN[1] - y - height, ORIGIN[0] + x + width, ORIGIN[1] - y)
    cols = (max(int(np.floor(x / 2 + 1e-3)), 0), min(int(np.ceil((x + width) / 2 - 1e-3)), 83))
    rows = (max(int(np.floor(y / 2 + 1e-3)), 0), min(int(np.ceil((y + height) / 2 - 1e-3)), 61))
    if cols[0] >= cols[1] or rows[0] >= rows[1]:
        with pytest.raises(GridError, match=r"No image lies in the extent .* The images cover 83 x 61 pixels"):
            Scene.open(path, extent=extent)
        return
    scene = Scene.open(path, extent=extent)
    whole = Scene.open(path)
    assert whole.grid.window_of(scene.grid) == Window(cols[0], rows[0], cols[1] - cols[0], rows[1] - rows[0])
    np.testing.assert_array_equal(scene.read().data, whole.read().data[:, slice(*rows), slice(*cols)])
    beyond = scene.read(Window(-4, -4, scene.grid.width + 8, scene.grid.height + 8)).valid
    assert beyond.sum() == scene.grid.width * scene.grid.height


@pytest.mark.parametrize("extent", [(1, 2, 3), (3, 1, 2, 5), (0, 5, 1, 5), (0, 0, float("nan"), 1)])
def test_an_extent_is_a_box(extent, make_raster):
    with pytest.raises(OptionError, match="must be left, bottom, right, top"):
        Scene.open(make_raster(), extent=extent)


# Onto any grid


def turned(grid, angle, size, step=1.0):
    """A grid around the same centre, turned."""
    t = grid.transform @ Affine.translation(grid.width / 2, grid.height / 2) @ Affine.rotation(angle)
    return Grid(grid.crs, t @ Affine.scale(step) @ Affine.translation(-size / 2, -size / 2), size, size)


@given(angle=st.floats(-180, 180), size=st.integers(1, 70))
@settings(max_examples=examples(12), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_a_plane_of_values_turns_exactly(angle, size, make_raster):
    rows, cols = np.mgrid[0:61, 0:83] + 0.5
    scene = Scene.open(make_raster("a.tif", np.stack([cols, rows]).astype("float32")))
    grid = turned(scene.grid, angle, size)
    patch = scene.read_onto(grid)
    r, c = np.mgrid[0:size, 0:size] + 0.5
    t = ~scene.grid.transform @ grid.transform
    col, row = t.a * c + t.b * r + t.c, t.d * c + t.e * r + t.f
    inside = (col >= 0) & (col < 83) & (row >= 0) & (row < 61)
    clear = np.abs(np.stack([col, col - 83, row, row - 61])).min(axis=0) > 2e-3  # not on the very edge
    np.testing.assert_array_equal(patch.valid[clear], inside[clear])
    inner = (col > 0.5) & (col < 82.5) & (row > 0.5) & (row < 60.5)
    np.testing.assert_allclose(patch.data[:, inner], np.stack([col, row])[:, inner], atol=3e-3)
    assert (patch.grid, patch.data.dtype) == (grid, np.float32)


def test_invalid_pixels_do_not_bleed_into_their_neighbours(make_raster):
    data = np.full((1, 61, 83), 101, np.uint8)
    data[:, 20:40, 30:50] = 0
    scene = Scene.open(make_raster("a.tif", data, nodata=0))
    patch = scene.read_onto(turned(scene.grid, 33, 60))
    assert 0 < (~patch.valid).sum() < 3600
    assert set(np.unique(patch.data[:, patch.valid])) == {101}
    assert (patch.data[:, ~patch.valid] == 0).all()


def test_a_scene_of_classes_is_turned_by_nearest_and_integers_are_rounded(make_raster):
    data = levels()
    path = make_raster("a.tif", data)
    near = Scene.open(path, resampling=Resampling.nearest)
    grid = turned(near.grid, 20, 30)
    assert np.isin(near.read_onto(grid).data, data).all()
    exact = Scene.open(make_raster("f.tif", data.astype("float64"))).read_onto(grid).data
    np.testing.assert_array_equal(Scene.open(path).read_onto(grid).data, np.rint(exact))


def test_a_window_of_the_scene_is_read_as_it_is_and_another_crs_is_refused(make_raster):
    scene = Scene.open(make_raster())
    np.testing.assert_array_equal(
        scene.read_onto(scene.grid.crop(Window(3, 4, 5, 6))).data, scene.read(Window(3, 4, 5, 6)).data
    )
    with pytest.raises(GridError, match="Warp the grid"):
        scene.read_onto(Grid(CRS.from_epsg(4326), from_origin(11, 48, 1e-5, 1e-5), 5, 5))
    away = scene.read_onto(Grid(scene.grid.crs, from_origin(0.5, 0.5, 2, 2), 5, 5))
    assert not away.valid.any()


# Known to be empty


def sparse(path, *, blocks, nodata, size=(200, 300), count=2, **profile):
    """A TIFF of blocks of 32 of which only some are written."""
    height, width = size
    options = {"driver": "GTiff", "dtype": "uint8", "count": count, "height": height, "width": width}
    options |= {"tiled": True, "blockxsize": 32, "blockysize": 32, "sparse_ok": True, "crs": "EPSG:32632"}
    options |= {"transform": from_origin(*ORIGIN, 2, 2), "nodata": nodata, "compress": "deflate"}
    with rasterio.open(path, "w", **options | profile) as dataset:
        for col, row in blocks:
            area = RioWindow(col * 32, row * 32, min(32, width - col * 32), min(32, height - row * 32))
            dataset.write(np.full((count, area.height, area.width), 7, "uint8"), window=area)
    return path


@pytest.mark.parametrize("interleave", ["pixel", "band"])
@given(window=st.builds(Window, st.integers(-60, 320), st.integers(-60, 230), st.integers(1, 90), st.integers(1, 90)))
@settings(max_examples=examples(20), deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_sparse_blocks_are_known_to_be_empty(interleave, window, tmp_path):
    path = tmp_path / "s.tif"
    if not path.exists():
        sparse(path, blocks=[(1, 1), (8, 2), (9, 6)], nodata=0, interleave=interleave)
    scene = Scene.open(path)
    seen = scene.read(window).valid.any()
    assert not (seen and scene.known_empty(window))
    whole = Window(window.col // 32 * 32, window.row // 32 * 32, 32, 32)
    assert scene.known_empty(whole) == (not scene.read(whole).valid.any())


def test_what_is_not_known_is_not_called_empty(make_raster, tmp_path):
    dark = make_raster("dark.tif", np.zeros((1, 61, 83), np.uint8), nodata=0)
    zeros = sparse(tmp_path / "zeros.tif", blocks=[(1, 1)], nodata=None)
    gone = sparse(tmp_path / "gone.tif", blocks=[(1, 1)], nodata=0)
    for images, options in ((dark, {}), (zeros, {}), (gone, {"cell_size": 4.0})):
        assert not Scene.open(images, **options).known_empty(Window(0, 0, 20, 20))
        assert Scene.open(images, **options).known_empty(Window(-20, -20, 20, 20))
    assert Scene.open(zeros).read(Window(100, 100, 9, 9)).valid.all()
    assert Scene.open(gone).known_empty(Window(100, 100, 9, 9))
    assert not Scene.open([gone, zeros]).known_empty(Window(100, 100, 9, 9))
    full = sparse(tmp_path / "full.tif", blocks=[(3, 3)], nodata=0, count=1)
    lacking = sparse(tmp_path / "lacking.tif", blocks=[(1, 1)], nodata=0, count=1)
    assert not Scene.open({"a": full, "b": lacking}).known_empty(Window(100, 100, 9, 9))  # a dark pixel of b
    assert Scene.open({"a": full, "b": lacking}).known_empty(Window(130, 130, 9, 9))
    other = sparse(tmp_path / "other.tif", blocks=[(1, 1)], nodata=9, count=1)
    assert Scene.open({"a": full, "b": other}).known_empty(Window(100, 100, 9, 9))
    assert Scene.open(gone, extent=(ORIGIN[0], ORIGIN[1] - 60, ORIGIN[0] + 60, ORIGIN[1])).known_empty(
        Window(33, 33, 9, 9)
    )


# Many scenes


def test_a_scene_an_image_with_the_first_s_bands_and_names_of_their_own(make_raster):
    one = make_raster("one.tif", names=("red", "green", "nir"))
    two = make_raster("two.tif", names=("nir", "red", "green"), cell=3.0, crs="EPSG:32633")
    scenes = open_scenes([one, two, one])
    assert [scene.bands for scene in scenes] == [("red", "green", "nir")] * 3
    assert [scene.name for scene in scenes] == [str(one), str(two), f"{one} (2)"]
    assert [scene.cell_size[0] for scene in scenes] == [2, 3, 2]
    (mosaic,) = open_scenes([one, two], per_image=False, cell_size=4)
    assert (mosaic.name, mosaic.cell_size) == (f"{one} and 1 more", (4, 4))
    assert open_scenes([one], per_image=False)[0].name == str(one)


def test_scenes_of_another_kind_are_refused(make_raster):
    one, two = make_raster("one.tif"), make_raster("two.tif", dtype="uint16")
    with pytest.raises(BandError, match=r"two\.tif has uint16 pixels, but .*one\.tif has uint8\. All images must"):
        open_scenes([one, two])
    more = make_raster("more.tif", names=("red", "green", "blue", "nir"), bands=4)
    with pytest.raises(BandError, match=r"more\.tif and .*one\.tif differ in their number of bands \(4 and 3\)"):
        open_scenes([one, more])
    assert len(open_scenes([one, more], bands=["red"])) == 2


def test_images_that_miss_the_extent_are_left_out(make_raster):
    one, two = make_raster("one.tif"), make_raster("two.tif", origin=(ORIGIN[0] + 500, ORIGIN[1]))
    zone = make_raster("zone.tif", crs="EPSG:32633", origin=(152500.0, 5311285.0))
    left, bottom, right, top = read_info(one).grid.bounds()
    scenes = open_scenes([one, two, zone], extent=(left + 10, bottom, right, top - 10))
    assert [scene.name for scene in scenes] == [str(one), str(zone)]
    assert (scenes[0].grid.width, scenes[0].grid.height) == (78, 56)
    assert scenes[0].read().valid.all()
    with pytest.raises(GridError, match="No image lies in the extent"):
        open_scenes([one, two], extent=(0, 0, 1, 1))


def test_a_fingerprint_changes_with_the_file_and_with_what_a_vrt_points_at(make_raster, tmp_path):
    path = make_raster("a.tif")
    (tmp_path / "a.vrt").write_text(
        '<VRTDataset rasterXSize="83" rasterYSize="61"><SRS>EPSG:32632</SRS>'
        '<GeoTransform>601234,2,0,5301717,0,-2</GeoTransform><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        '<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    scene, virtual = Scene.open(path), Scene.open(tmp_path / "a.vrt")
    before = scene.fingerprint(), virtual.fingerprint()
    assert before[0] == [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}"]
    assert (scene.fingerprint(), virtual.fingerprint()) == before
    make_raster("a.tif", size=(61, 83), bands=1)
    assert scene.fingerprint() != before[0]
    assert virtual.fingerprint() != before[1]


def test_a_file_is_opened_once_before_its_first_pixel(make_raster, monkeypatch):
    path, opened, rasterio_open = make_raster("a.tif"), [], rasterio.open
    monkeypatch.setattr(rasterio, "open", lambda name: opened.append(name) or rasterio_open(name))
    scene = Scene.open(path)
    assert scene.fingerprint() == raster_fingerprint(str(path))
    assert opened == [str(path)] * 2  # once more by the line above, which knows no header


def virtual(path, source):
    """A VRT of one band of a file or a subdataset."""
    path.write_text(
        '<VRTDataset rasterXSize="83" rasterYSize="61"><SRS>EPSG:32632</SRS>'
        '<GeoTransform>601234,2,0,5301717,0,-2</GeoTransform><VRTRasterBand dataType="Byte" band="1"><SimpleSource>'
        f'<SourceFilename relativeToVRT="0">{source}</SourceFilename><SourceBand>1</SourceBand></SimpleSource>'
        "</VRTRasterBand></VRTDataset>"
    )
    return path


def zipped(path, member):
    with zipfile.ZipFile(path, "w") as archive:
        archive.write(member, member.name)
    return path


def lines_of(*paths):
    return [f"{path} {path.stat().st_size} {path.stat().st_mtime_ns}" for path in paths]


def test_a_fingerprint_has_every_file_however_it_is_reached(make_raster, tmp_path):
    image = make_raster("a.tif")
    inner = virtual(tmp_path / "inner.vrt", image)
    outer = virtual(tmp_path / "outer.vrt", inner)
    assert sorted(raster_fingerprint(str(outer))) == sorted(lines_of(outer, inner, image))
    archive = zipped(tmp_path / "a.zip", image)
    for name in (f"/vsizip/{archive}/a.tif", f"/vsizip/{{{archive}}}/a.tif", f"zip://{archive}!/a.tif"):
        assert raster_fingerprint(name) == [name, *lines_of(archive)]
    boxed = virtual(tmp_path / "boxed.vrt", f"/vsizip/{archive}/a.tif")
    assert raster_fingerprint(str(boxed)) == lines_of(boxed, archive)
    nested = f"/vsizip/{zipped(tmp_path / 'b.zip', inner)}/inner.vrt"
    assert sorted(raster_fingerprint(nested)) == sorted([nested, *lines_of(tmp_path / "b.zip", image)])
    part = f"GTIFF_DIR:1:{image}"
    assert raster_fingerprint(part) == [part, *lines_of(image)]
    of_part = virtual(tmp_path / "part.vrt", part)
    assert raster_fingerprint(str(of_part)) == lines_of(of_part, image)
    assert raster_fingerprint(f"file://{image}")[1:] == lines_of(image)
    lost = virtual(tmp_path / "lost.vrt", tmp_path / "gone.tif")
    assert raster_fingerprint(str(lost)) == lines_of(lost)  # not the folder that would hold it
    far = virtual(tmp_path / "far.vrt", "/vsicurl/http://localhost:1/a.vrt")
    assert raster_fingerprint(str(far)) == lines_of(far)


@pytest.mark.parametrize("name", ["NETCDF:{}:Band1", 'netcdf:"{}":Band1', "netcdf:{}:Band1", "HDF5:{}://Band1"])
def test_a_fingerprint_changes_with_the_file_of_a_subdataset(name, make_raster, tmp_path):
    with rasterio.Env() as env:
        if not {"netCDF", "HDF5"} <= set(env.drivers()):
            pytest.skip("this GDAL reads no NetCDF or no HDF5")
    path = tmp_path / "a.nc"
    rasterio.shutil.copy(make_raster(bands=1), path, driver="netCDF", format="NC4")
    name = name.format(path)
    before = raster_fingerprint(name)
    assert before == [name, *lines_of(path)]
    os.utime(path, ns=(0, 1))
    assert raster_fingerprint(name) == [name, *lines_of(path)] != before


def test_blocks_are_those_of_the_first_file_or_the_cells_it_is_read_in(make_raster):
    first = make_raster("a.tif", size=(64, 96), tiled=True, blockxsize=32, blockysize=16)
    assert Scene.open([first, make_raster("b.tif")]).block_shape == (16, 32)
    assert Scene.open(first, cell_size=3.0).block_shape == (WARP_CELL, WARP_CELL)


def test_subdatasets_are_named_and_can_be_asked_for(tmp_path):
    if not (HARD / "two-subs.h5").exists():
        pytest.skip("the hard rasters are not beside the checkout")
    with pytest.raises(RasterError, match=r"two-subs\.h5 has no bands\. Name one of its .*: HDF5:.*//data, "):
        Scene.open(HARD / "two-subs.h5")
    assert read_info(f"HDF5:{HARD / 'two-subs.h5'}://data", needs_crs=False).bands == ("band_1",)


# Bands


def test_bands_by_name_in_any_order_and_case_and_by_number(make_raster):
    data = levels(bands=4)
    path = make_raster("a.tif", data, names=("red", "green", "blue", "NIR"))
    for bands, index in [(["nir", "Red"], [3, 0]), ([4, 1], [3, 0]), (["nir", 2], [3, 1]), (["band_3"], [2])]:
        np.testing.assert_array_equal(Scene.open(path, bands=bands).read().data, data[index])
    assert Scene.open(path).bands == ("red", "green", "blue", "NIR")


def test_a_described_fourth_byte_band_is_no_alpha(make_raster):
    data = levels(bands=4)
    data[3, 20:40, 30:60] = 0
    path = make_raster("a.tif", data, names=("red", "green", "blue", "NIR"))
    assert Scene.open(path).read().valid.all()
    base = make_raster("base.tif", levels("uint8", (4, 4), 4), names=("red", "green", "blue", "nir"))
    onto = Scene.open(base).grid.crop(Window(0, 0, 1, 1))
    half = Grid(onto.crs, from_origin(ORIGIN[0] + 1, ORIGIN[1] - 1, 2, 2), 1, 1)
    scene = Scene.open(path, onto=half, resampling=Resampling.nearest)
    patch = scene.read()
    assert patch.data[0, 30, 45] > 0
    assert patch.data[3, 30, 45] == 0
    assert patch.valid.mean() > 0.95


def test_bands_of_a_second_raster_are_found_by_name(make_raster):
    data = levels(seed=2)
    first = make_raster("a.tif", np.zeros((3, 61, 83), np.uint8), names=("red", "green", "nir"), nodata=0)
    second = make_raster("b.tif", data, names=("nir", "red", "green"))
    np.testing.assert_array_equal(Scene.open([first, second]).read().data, data[[1, 2, 0]])


@pytest.mark.parametrize(
    ("wanted", "found", "positions"),
    [
        (("red", "nir"), ("band_1", "band_2"), (0, 1)),
        (("band_2", "band_1"), ("nir", "red"), (1, 0)),
        (("band_3",), ("band_1", "band_2", "band_3"), (2,)),
        ((3, 1), ("a", "b", "c"), (2, 0)),
        (("B", "a"), ("A", "b"), (1, 0)),
    ],
)
def test_names_numbers_and_positions(wanted, found, positions):
    assert match_bands(wanted, found, where="it") == positions


@pytest.mark.parametrize(
    ("wanted", "found", "words"),
    [
        (("red", "swir"), ("red", "nir"), r"x\.tif has no band swir; it has 2: red, nir"),
        ((3,), ("red", "nir"), "no band 3"),
        ((0,), ("red", "nir"), "no band 0"),
        (("band_4",), ("band_1", "band_2", "band_3"), "no band band_4; it has 3"),
        (("red", "nir"), ("band_1",), "has 1 band without names, but 2 are needed: red, nir"),
    ],
)
def test_a_missing_band_is_named(wanted, found, words):
    with pytest.raises(BandError, match=words):
        match_bands(wanted, found, where="x.tif")


def test_a_name_that_two_bands_bear_is_no_name(make_raster):
    data = levels()
    scene = Scene.open(make_raster("a.tif", data, names=("B1", "b1", "B2")))
    assert scene.bands == ("band_1", "band_2", "B2")
    np.testing.assert_array_equal(scene.read().data, data)


# Threads and processes


def _first_pixels(scene):
    return scene.read(Window(10, 5, 40, 40)).data


def test_threads_and_processes_read_the_same_pixels(make_raster):
    images = [
        make_raster("a.tif", levels(seed=1), nodata=0),
        make_raster("b.tif", levels(seed=2), nodata=0, origin=(ORIGIN[0] + 61, ORIGIN[1] + 7)),
    ]
    scene = Scene.open(images)
    windows = [Window(col, row, 24, 24) for row in range(-8, 60, 8) for col in range(-8, 100, 16)]
    expected = [scene.read(window).data for window in windows]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda window: scene.read(window).data, windows))
    for ours, theirs in zip(expected, found, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    copy = pickle.loads(pickle.dumps(scene))
    np.testing.assert_array_equal(_first_pixels(copy), _first_pixels(scene))
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        np.testing.assert_array_equal(pool.apply(_first_pixels, (scene,)), _first_pixels(scene))


# What cannot be used


def test_no_crs(make_raster):
    with pytest.raises(GridError, match=r"image\.tif has no CRS"):
        Scene.open(make_raster(crs=None))


def bare(path, **profile):
    options = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": 5, "width": 6}
    with rasterio.open(path, "w", **options | profile) as dataset:
        dataset.write(np.ones((1, 5, 6), dataset.dtypes[0]))
    return path


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_a_crs_without_a_georeference(tmp_path):
    with pytest.raises(GridError, match="has a CRS but no georeference"):
        Scene.open(bare(tmp_path / "a.tif", crs="EPSG:32632"))


@pytest.mark.filterwarnings("ignore::rasterio.errors.NotGeoreferencedWarning")
def test_ground_control_points_only(tmp_path):
    points = [GroundControlPoint(r, c, 11 + c, 48 - r) for r, c in ((0, 0), (0, 5), (4, 0), (4, 5))]
    with pytest.raises(GridError, match="georeferenced only by 4 ground control points"):
        Scene.open(bare(tmp_path / "a.tif", gcps=points, crs="EPSG:4326"))


def test_complex_and_mixed_pixels(make_raster, tmp_path):
    path = make_raster("a.tif", np.ones((1, 4, 4), "complex64"))
    with pytest.raises(RasterError, match=r"has complex64 pixels, but all bands must"):
        Scene.open(path)
    bands = "".join(f'<VRTRasterBand dataType="{t}" band="{b}"/>' for b, t in ((1, "Byte"), (2, "Float32")))
    (tmp_path / "mixed.vrt").write_text(
        f'<VRTDataset rasterXSize="4" rasterYSize="4"><SRS>EPSG:32632</SRS>'
        f"<GeoTransform>601234,2,0,5301717,0,-2</GeoTransform>{bands}</VRTDataset>"
    )
    with pytest.raises(RasterError, match=r"has float32 and uint8 pixels, but all bands must have one"):
        Scene.open(tmp_path / "mixed.vrt")


@pytest.mark.parametrize("content", [b"", b"not a raster at all"])
def test_what_is_not_a_raster(content, tmp_path):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(RasterError, match=r"Cannot read .*a\.tif as a raster"):
        Scene.open(tmp_path / "a.tif")


def test_a_truncated_raster_says_where(make_raster):
    path = make_raster("a.tif", levels(size=(400, 300)), tiled=True, blockxsize=16, blockysize=16)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with pytest.raises(RasterError, match=r"Cannot read .*a\.tif at .*truncated or damaged|Cannot read .* as a raster"):
        Scene.open(path).read()


def test_pixels_without_area(make_raster):
    with pytest.raises((GridError, RasterError)):
        Scene.open(make_raster("a.tif", transform=Affine(2, 0, 5, 0, 0, 5)))


def test_open_raster_knows_no_such_file(tmp_path):
    with pytest.raises(InputNotFoundError, match="No such file"):
        open_raster(tmp_path / "none.tif")


def test_a_header_can_be_described_without_a_crs(make_raster):
    assert read_info(make_raster(crs=None), needs_crs=False).bands == ("red", "green", "blue")


def test_a_class_raster_tells_its_legend(make_raster, tmp_path):
    legend = Legend.from_names({1: "boat", 3: "car"})
    grid = Scene.open(make_raster()).grid
    with class_raster(tmp_path / "map.tif", grid, legend) as writer:
        writer.append(np.ones((1, grid.height, grid.width), np.uint8))
    assert read_legend(tmp_path / "map.tif") == legend
    assert read_legend(make_raster("plain.tif")) is None


@pytest.mark.skipif(not HARD.is_dir(), reason="the hard rasters are not beside the checkout")
@pytest.mark.parametrize("path", sorted(HARD.glob("*.*")), ids=lambda path: path.name)
def test_hard_rasters_read_or_say_why_not(path):
    words = ""
    try:
        scene = Scene.open(path)
        grid = scene.grid
        for window in (Window(grid.width // 2, grid.height // 2, 32, 32), Window(-5, -5, 20, 20)):
            patch = scene.read(window)
            assert patch.valid.shape == (window.height, window.width)
            assert patch.data.shape == (len(scene.bands), window.height, window.width)
    except GeopspError as error:
        words = str(error)
    assert not words or (path.name in words and words.endswith("."))


# One band's nodata through a warp


@pytest.mark.parametrize(
    ("dtype", "nodata"), [("float32", -9999), ("float32", np.nan), ("uint16", 65535), ("int16", -32768), ("uint16", 0)]
)
@pytest.mark.parametrize("how", ["cell", "shifted"])
def test_no_warp_mixes_nodata_of_one_band_into_pixels(dtype, nodata, how, make_raster):
    data = np.full((2, 40, 50), 500, dtype)
    data[0, :20] = nodata
    data[:, :, :5] = nodata
    path = make_raster("a.tif", data, nodata=None if np.isnan(nodata) else nodata, cell=10.0)
    if how == "cell":
        patch = Scene.open(path, cell_size=9.0).read()
    else:
        first = make_raster("f.tif", np.full((2, 2, 2), 500, dtype), cell=10.0, origin=(ORIGIN[0] + 5, ORIGIN[1] + 5))
        patch = Scene.open([first, path]).read()
    seen = patch.data[:, patch.valid]
    if nodata == 0:  # dark pixels of the first band are pixels, and GDAL keeps a 0 from being one
        assert patch.valid.mean() > 0.8
        return
    assert 0.35 < patch.valid.mean() < 0.65
    assert (seen == 500).all()


@pytest.mark.parametrize("values", [(1, 9), (0, 9), (9, 0)])
def test_bands_of_differing_nodata_are_warped_each_by_its_own(values, make_raster, tmp_path):
    data = np.full((2, 40, 50), 500, np.uint16)
    data[0, :10] = values[0]
    data[1, 30:] = values[1]
    make_raster("a.tif", data, cell=10.0)
    bands = "".join(
        f'<VRTRasterBand dataType="UInt16" band="{band}"><NoDataValue>{value}</NoDataValue><SimpleSource>'
        f'<SourceFilename relativeToVRT="1">a.tif</SourceFilename><SourceBand>{band}</SourceBand>'
        "</SimpleSource></VRTRasterBand>"
        for band, value in enumerate(values, 1)
    )
    (tmp_path / "a.vrt").write_text(
        f'<VRTDataset rasterXSize="50" rasterYSize="40"><SRS>EPSG:32632</SRS>'
        f"<GeoTransform>601234,10,0,5301717,0,-10</GeoTransform>{bands}</VRTDataset>"
    )
    patch = Scene.open(tmp_path / "a.vrt", cell_size=5.0).read()
    rows = patch.valid.all(axis=1)
    for value, part in zip(values, (slice(0, 19), slice(61, 80)), strict=True):
        assert patch.valid[part].all() if value == 0 else not patch.valid[part].any()
    assert rows[21:59].all()
    assert (patch.data[:, 21:59] == 500).all()


def test_zero_as_nodata_counts_where_all_bands_read_are_zero_over_the_files_of_an_image(make_raster):
    one, two = (np.full((1, 8, 9), 50, np.uint8) for _ in "ab")
    one[0, 2:4], two[0, 3:5] = 0, 0
    files = {"a": make_raster("a.tif", one, nodata=0), "b": make_raster("b.tif", two, nodata=0)}
    both = Scene.open(make_raster("ab.tif", np.concatenate([one, two]), nodata=0)).read()
    patch = Scene.open(files).read()
    np.testing.assert_array_equal(patch.valid, both.valid)
    np.testing.assert_array_equal(patch.data, both.data)
    assert np.flatnonzero(~patch.valid.all(axis=1)).tolist() == [3]
    files["b"] = make_raster("b.tif", two, nodata=50)
    assert np.flatnonzero(Scene.open(files).read().valid.all(axis=1)).tolist() == [4]


# A fourth band of bytes


def test_a_fourth_band_of_bytes_is_said_to_be_alpha_and_read_if_asked_for(make_raster):
    data = levels(bands=4)
    data[3] = 255
    data[3, :10] = 0
    path = make_raster("a.tif", data)
    scene = Scene.open(path)
    assert "band 4 of" in scene.notes[0]
    assert "counts as an alpha band" in scene.notes[0]
    assert not scene.read().valid[:10].any()
    for bands in ([1, 2, 3, 4], ["band_4", "red"]):
        asked = Scene.open(path, bands=bands)
        assert not asked.notes
        assert asked.read().valid.all()
    np.testing.assert_array_equal(Scene.open(path, bands=[4]).read().data[0], data[3])
    images = [path, make_raster("b.tif", data, origin=(ORIGIN[0] + 1, ORIGIN[1]))]
    assert Scene.open(images, bands=[1, 4]).read(Window(1, 1, 80, 59)).valid.all()
    assert not Scene.open(make_raster("c.tif")).notes


def test_a_fourth_band_of_bytes_with_other_values_than_alpha_is_data(make_raster):
    """GDAL marks it as alpha, but it is near infrared."""
    data = levels(bands=4)
    data[3, :10] = 0
    paths = [make_raster("a.tif", data), make_raster("b.tif", data, origin=(ORIGIN[0] + 0.3, ORIGIN[1] + 0.4))]
    with rasterio.open(paths[0]) as dataset:
        assert dataset.colorinterp[3] == ColorInterp.alpha
    for path in paths:
        scene = Scene.open(path)
        assert scene.bands == ("red", "green", "blue", "band_4")
        (note,) = scene.notes
        assert "marked as an alpha band, but most of its values are neither 0 nor 255" in note
        np.testing.assert_array_equal(scene.read().data, data)
    for options in ({}, {"bands": ["red", "green", "blue"]}, {"bands": [1, 2, 3]}):
        assert Scene.open(paths[0], **options).read().valid.all()
        assert Scene.open(paths, **options).read(Window(1, 1, 80, 59)).valid.all()


@pytest.mark.parametrize("shift", [0, 0.3])
def test_a_pixel_is_valid_where_both_alpha_and_mask_band_are(shift, make_raster, tmp_path):
    """Also where the file is warped, to a grid that lies aside by a part of a pixel."""
    path = make_raster("a.tif", levels(bands=4))
    alpha, mask = np.full((61, 83), 255, np.uint8), np.full((61, 83), 255, np.uint8)
    alpha[:20], mask[:, :30] = 0, 0
    with rasterio.Env(GDAL_TIFF_INTERNAL_MASK=True), rasterio.open(path, "r+") as dataset:
        dataset.write(alpha, 4)
        dataset.write_mask(mask)
    with rasterio.open(path) as dataset:
        grid = Grid(dataset.crs, dataset.transform * Affine.translation(shift, shift), 83, 61)
    valid = Scene.open(path, onto=grid).read(Window(0, 0, 82, 60)).valid
    assert Scene.open(path, onto=grid).sources[0].warped == bool(shift)
    np.testing.assert_array_equal(valid[21:, 31:], True)
    assert not valid[:19].any()
    assert not valid[:, :29].any()


# Open files


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="counts open files as Linux tells them")
def test_few_files_stay_open_over_many_scenes(make_raster):
    resource = pytest.importorskip("resource")
    paths = [make_raster(f"{i:03}.tif", np.full((1, 2, 2), 1 + i, np.uint8), origin=(4.0 * i, 0)) for i in range(90)]
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)
    before = len(list(Path("/proc/self/fd").iterdir()))
    resource.setrlimit(resource.RLIMIT_NOFILE, (before + 80, limit[1]))
    try:
        mosaic, scenes = Scene.open(paths), open_scenes(paths)
        for _ in range(2):
            np.testing.assert_array_equal(mosaic.read().data[0, 0, ::2], np.arange(1, 91))
            assert [int(scene.read().data[0, 0, 0]) for scene in scenes] == list(range(1, 91))
        shifted = Scene.open([paths[0], *paths[1:70]], cell_size=1.0)
        assert shifted.read().valid.all()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limit)


# Options that do not fit


def test_a_cell_size_of_another_unit_is_refused(make_raster):
    degrees = make_raster("d.tif", crs="EPSG:4326", origin=(15.0, 47.9), cell=1e-4)
    with pytest.raises(OptionError, match=r"`cell_size` is 2 \(.* degree\)\. That is wider than the image .*d\.tif"):
        Scene.open(degrees, cell_size=2)
    metres = make_raster("m.tif")
    with pytest.raises(OptionError, match=r"`cell_size` is 1e-08 .* metre\)\. That is more than 2\*\*31 times smaller"):
        Scene.open(metres, cell_size=1e-8)
    with pytest.raises(OptionError, match=r"d\.tif has the unit degree and .*m\.tif the unit metre"):
        open_scenes([metres, make_raster("d.tif", crs="EPSG:4326", origin=(15.0, 47.9), cell=0.2)], cell_size=4)
    with pytest.raises(OptionError, match="`cell_size` is '5'"):
        Scene.open(metres, cell_size="5")


@pytest.mark.parametrize("extent", ["abcd", 5, ("1", "x", "2", "3")])
def test_an_extent_is_of_numbers(extent, make_raster):
    with pytest.raises(OptionError, match="must be left, bottom, right, top"):
        Scene.open(make_raster(), extent=extent)


def test_no_band_is_refused(make_raster):
    with pytest.raises(BandError, match="`bands` is empty"):
        Scene.open(make_raster(), bands=[])


def test_images_outside_the_extent_are_noted(make_raster):
    images = [make_raster("one.tif"), make_raster("two.tif", origin=(ORIGIN[0] + 500, ORIGIN[1]))]
    box = read_info(images[0]).grid.bounds()
    note = f"outside the extent and not used: {images[1]}"
    assert Scene.open(images, extent=box).notes[-1] == note
    assert open_scenes(images, extent=box)[0].notes == (note,)


def test_an_extent_that_another_world_has_no_place_for_leaves_its_image_out(make_raster):
    mars = CRS.from_wkt(
        'GEOGCS["Mars",DATUM["D_Mars",SPHEROID["Mars",3396190,169.9]],'
        'PRIMEM["Reference_Meridian",0],UNIT["degree",0.0174532925199433]]'
    )
    view = CRS.from_proj4("+proj=geos +h=35785831 +lon_0=-137 +sweep=x +ellps=GRS80")
    images = [
        make_raster("earth.tif"),
        make_raster("mars.tif", crs=mars, origin=(10, 10), cell=0.1),
        make_raster("view.tif", crs=view, origin=(0, 0), cell=2000.0),
    ]
    scenes = open_scenes(images, extent=read_info(images[0]).grid.bounds())
    assert [scene.name for scene in scenes] == [str(images[0])]
    assert "mars.tif" in scenes[0].notes[0]
    assert "view.tif" in scenes[0].notes[0]
