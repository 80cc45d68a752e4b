import multiprocessing
import pickle
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import rasterio
from affine import Affine
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from rasterio.control import GroundControlPoint
from rasterio.crs import CRS
from rasterio.enums import ColorInterp, Resampling
from rasterio.transform import from_origin
from rasterio.vrt import WarpedVRT
from rasterio.windows import Window as RioWindow

from geopsp.bands import match_bands
from geopsp.errors import BandError, GeopspError, GridError, InputNotFoundError, RasterError
from geopsp.grid import Grid, Window
from geopsp.legend import Legend
from geopsp.scene import Scene, describe, find_images, open_raster, read_legend
from geopsp.writer import class_raster

HARD = Path(__file__).parents[2] / "shared" / "data" / "hard" / "rasters"
ORIGIN = (601234.0, 5301717.0)


def levels(dtype="uint8", size=(61, 83), bands=3, seed=0):
    return np.random.default_rng(seed).integers(1, 120, (bands, *size)).astype(dtype)


def holed(dtype, value):
    """Levels with one pixel of `value` in band 1 only, at (5, 7), and one in all bands, at (9, 11)."""
    data = levels(dtype)
    data[0, 5, 7] = value
    data[:, 9, 11] = value
    return data


# Finding files


def test_one_path_a_list_a_glob_and_a_folder_name_the_same_files(make_raster, tmp_path):
    paths = [make_raster(f"in/{name}.tif", size=(4, 5)) for name in "ab"]
    (tmp_path / "in" / "notes.txt").write_text("")
    for images in (paths, tmp_path / "in", str(tmp_path / "in"), str(tmp_path / "in" / "*.tif")):
        assert find_images(images) == paths
    assert find_images(str(paths[0])) == paths[:1]
    assert find_images([paths[1], str(tmp_path / "**" / "a.tif")]) == [paths[1], paths[0]]


def test_a_name_with_glob_characters_is_a_name_first(make_raster):
    path = make_raster("scene[1].tif", size=(4, 5))
    assert find_images(path) == [path]


@pytest.mark.parametrize("images", [[], "nowhere.tif", "no*.tif", ["nowhere.tif"]])
def test_no_such_file_says_so(images):
    with pytest.raises(InputNotFoundError, match=r"No image was given|no such file, and nothing matches"):
        Scene.open(images)


def test_an_empty_folder_holds_no_raster(tmp_path):
    with pytest.raises(InputNotFoundError, match="No raster found"):
        Scene.open(tmp_path)


# Validity


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
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
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
    assert scene.notes == ()


def test_the_type_of_a_scene_holds_every_source(make_raster):
    images = [make_raster("a.tif", levels("uint8")), make_raster("b.tif", levels("int16", seed=1), origin=(0, 0))]
    assert Scene.open(images).dtype == np.int16


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
def test_a_raster_on_another_lattice_is_warped_and_that_is_said(crs, transform, resampling, make_raster):
    first = make_raster("first.tif", np.zeros((3, 61, 83), np.uint8), nodata=0)
    other = make_raster("other.tif", levels(), nodata=0, crs=crs, transform=transform)
    scene = Scene.open([first, other], resampling=resampling)
    assert [source.warped for source in scene.sources] == [False, True]
    assert scene.notes == (f"{other} is warped ({resampling.name}) onto the grid of {first}",)
    patch = scene.read()
    assert patch.valid.any()
    place = scene.sources[1].grid
    np.testing.assert_array_equal(
        scene.read(scene.grid.window_of(place)).data, warped(other, place, resampling=resampling)
    )
    whole = warped(other, scene.grid, resampling=resampling).any(axis=0)
    assert (patch.valid != whole).sum() < 0.01 * whole.sum()  # the kernel's width depends on the extent


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


def test_a_grid_that_is_asked_for_becomes_the_lattice(make_raster):
    onto = Grid(CRS.from_epsg(32632), from_origin(ORIGIN[0] + 1, ORIGIN[1] - 1, 4, 4), 5, 5)
    scene = Scene.open(make_raster(), onto=onto)
    assert scene.grid.window_of(onto) is not None
    assert "the grid asked for" in scene.notes[0]


def test_worlds_apart_cannot_be_warped(make_raster):
    mars = CRS.from_wkt(
        'GEOGCS["Mars",DATUM["D_Mars",SPHEROID["Mars",3396190,169.9]],'
        'PRIMEM["Reference_Meridian",0],UNIT["degree",0.0174532925199433]]'
    )
    images = [make_raster("earth.tif"), make_raster("mars.tif", crs=mars, origin=(10, 10), cell=0.1)]
    with pytest.raises(GridError, match=r"mars\.tif.*cannot be warped onto"):
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


def test_nothing_is_warped_onto_a_rotated_grid(make_raster):
    rotated = Affine.translation(*ORIGIN) @ Affine.rotation(20) @ Affine.scale(2, -2)
    with pytest.raises(GridError, match="rotated grid"):
        Scene.open([make_raster("a.tif", transform=rotated), make_raster("b.tif")])


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
        (("red", "nir"), ("band_1",), "has 1 bands without names; needed 2: red, nir"),
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
    with pytest.raises(GridError, match="placed by 4 ground control points only"):
        Scene.open(bare(tmp_path / "a.tif", gcps=points, crs="EPSG:4326"))


def test_complex_and_mixed_pixels(make_raster, tmp_path):
    path = make_raster("a.tif", np.ones((1, 4, 4), "complex64"))
    with pytest.raises(RasterError, match=r"holds complex64 pixels; needed"):
        Scene.open(path)
    bands = "".join(f'<VRTRasterBand dataType="{t}" band="{b}"/>' for b, t in ((1, "Byte"), (2, "Float32")))
    (tmp_path / "mixed.vrt").write_text(
        f'<VRTDataset rasterXSize="4" rasterYSize="4"><SRS>EPSG:32632</SRS>'
        f"<GeoTransform>601234,2,0,5301717,0,-2</GeoTransform>{bands}</VRTDataset>"
    )
    with pytest.raises(RasterError, match=r"holds float32 and uint8 pixels; needed .* of one type"):
        Scene.open(tmp_path / "mixed.vrt")


@pytest.mark.parametrize("content", [b"", b"not a raster at all"])
def test_what_is_not_a_raster(content, tmp_path):
    (tmp_path / "a.tif").write_bytes(content)
    with pytest.raises(RasterError, match=r"a\.tif cannot be read as a raster"):
        Scene.open(tmp_path / "a.tif")


def test_a_truncated_raster_says_where(make_raster):
    path = make_raster("a.tif", levels(size=(400, 300)), tiled=True, blockxsize=16, blockysize=16)
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with pytest.raises(RasterError, match=r"a\.tif cannot be read.*truncated or damaged|cannot be read as a raster"):
        Scene.open(path).read()


def test_pixels_without_area(make_raster):
    with pytest.raises((GridError, RasterError)):
        Scene.open(make_raster("a.tif", transform=Affine(2, 0, 5, 0, 0, 5)))


def test_open_raster_knows_no_such_file(tmp_path):
    with pytest.raises(InputNotFoundError, match="No such file"):
        open_raster(tmp_path / "none.tif")


def test_a_header_can_be_described_without_a_crs(make_raster):
    assert describe(make_raster(crs=None), needs_crs=False).bands == ("red", "green", "blue")


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
