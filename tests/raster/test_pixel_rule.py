"""What the values of pixels mean: scale and offset, palettes; the right values worked out by numpy."""

import json

import numpy as np
import pytest
import rasterio
import rasterio.shutil

from geopsp.core.pixel_values import PixelValues
from geopsp.errors import BandError
from geopsp.raster.open_scenes import open_scenes
from geopsp.raster.scene import Scene

BEFORE, AFTER = (1e-4, 0.0), (1e-4, -0.1)
"""Sentinel-2 before and after baseline 04.00."""

REFLECTANCE = np.random.default_rng(0).integers(1, 6000, (2, 40, 50)) / 10_000
ORIGIN = (600_000.0, 5_300_000.0)


@pytest.fixture
def make_scaled(make_raster):
    """The same ground in digital numbers with a scale and an offset; with `tags=False` these are not in the file."""

    def make(name, scale=BEFORE, *, tags=True, dtype="uint16", east=0, nodata=None):
        numbers = (REFLECTANCE - scale[1]) / scale[0]
        data = np.rint(numbers).astype(dtype) if dtype[0] in "iu" else REFLECTANCE.astype(dtype)
        origin = (ORIGIN[0] + east * 50 * 10, ORIGIN[1])
        path = make_raster(name, data, origin=origin, cell=10, names=("red", "nir"), nodata=nodata)
        if tags:
            with rasterio.open(path, "r+") as dataset:
                dataset.scales, dataset.offsets = (scale[0],) * 2, (scale[1],) * 2
        return path

    return make


def numbers(scale):
    return np.rint((REFLECTANCE - scale[1]) / scale[0])


def test_one_scale_leaves_values_as_they_are(make_scaled):
    paths = [make_scaled("a.tif"), make_scaled("b.tif", east=1)]
    mosaic, scenes = Scene.open(paths), open_scenes(paths)
    assert mosaic.dtype == scenes[0].dtype == np.uint16
    assert mosaic.pixel_values == scenes[0].pixel_values == PixelValues(scales=(BEFORE, BEFORE))
    assert not mosaic.warnings
    np.testing.assert_array_equal(mosaic.read().data, np.tile(numbers(BEFORE), (1, 1, 2)))
    assert not mosaic.value_identity()


def test_scales_that_differ_give_physical_values(make_scaled):
    """The same ground has the same values, as a mosaic and image by image."""
    paths = [make_scaled("a.tif"), make_scaled("b.tif", AFTER, east=1)]
    mosaic, scenes = Scene.open(paths), open_scenes(paths)
    np.testing.assert_allclose(mosaic.read().data, np.tile(REFLECTANCE, (1, 1, 2)), rtol=1e-6)
    for scene in scenes:
        assert scene.dtype == np.float32
        np.testing.assert_allclose(scene.read().data, REFLECTANCE, rtol=1e-6)
    for each in (mosaic, scenes[0]):
        assert each.pixel_values.scaled
        assert "b.tif has scale 0.0001, offset -0.1, but" in each.notes[-1]
        assert "all values are converted to physical ones" in each.notes[-1]


@pytest.mark.parametrize("scale", [BEFORE, AFTER, (2.0, 7.0)])
def test_values_that_are_asked_for(scale, make_scaled):
    path = make_scaled("a.tif", scale, dtype="float64" if scale[0] > 1 else "uint16")
    raw = rasterio.open(path).read()
    scene = Scene.open(path, scaled=True)
    np.testing.assert_allclose(scene.read().data, raw * scale[0] + scale[1], rtol=1e-6)
    np.testing.assert_array_equal(Scene.open(path, scaled=False).read().data, raw)


def test_raw_values_are_used_if_asked_for_and_it_is_said(make_scaled):
    scenes = open_scenes([make_scaled("a.tif"), make_scaled("b.tif", AFTER)], scaled=False)
    np.testing.assert_array_equal(scenes[1].read().data, numbers(AFTER))
    assert "b.tif has scale 0.0001, offset -0.1" in scenes[0].warnings[0]
    assert "`scaled=True`" in scenes[0].warnings[0]
    assert scenes[0].pixel_values == PixelValues()


@pytest.mark.parametrize("scaled", [None, True])
def test_a_file_without_a_scale_is_taken_to_have_that_of_the_others(scaled, make_scaled):
    scenes = open_scenes([make_scaled("a.tif"), make_scaled("b.tif", tags=False)], scaled=scaled)
    np.testing.assert_array_equal(scenes[0].read().data, scenes[1].read().data)
    (warning,) = scenes[0].warnings
    assert "b.tif has no scale and offset, but" in warning
    assert "a.tif has scale 0.0001, offset 0. Its values are taken to have the same." in warning


def test_floats_without_a_scale_are_physical(make_scaled):
    """Beside numbers with a scale; without physical values they cannot be used together."""
    paths = [make_scaled("a.tif"), make_scaled("b.tif", dtype="float32", tags=False)]
    scenes = open_scenes(paths, scaled=True)
    for scene in scenes:
        np.testing.assert_allclose(scene.read().data, REFLECTANCE, rtol=1e-6)
    assert "Its values are taken as physical ones." in scenes[0].warnings[0]
    with pytest.raises(BandError, match="has float32 pixels, but"):
        open_scenes(paths)


@pytest.mark.parametrize("tags", [(0.0, 0.0), (float("nan"), 0.0), (1.0, float("inf")), (1.0, 0.0)])
def test_scales_that_say_nothing(tags, make_raster):
    path = make_raster("a.tif", np.ones((1, 3, 4), np.uint8))
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (tags[0],), (tags[1],)
    assert Scene.open(path).pixel_values == PixelValues()


def test_nodata_is_that_of_the_file(make_scaled):
    """Of the numbers, before they are converted; invalid pixels are 0."""
    path = make_scaled("a.tif", AFTER, nodata=1234)
    raw = rasterio.open(path).read()
    raw[:, 3, 5], raw[0, 7, 9] = 1234, 1234
    with rasterio.open(path, "r+") as dataset:
        dataset.write(raw)
    found, plain = Scene.open(path, scaled=True).read(), Scene.open(path).read()
    np.testing.assert_array_equal(found.valid, plain.valid)
    assert not found.valid[3, 5]
    assert not found.data[:, ~found.valid].any()


@pytest.mark.parametrize(
    ("like", "expected"),
    [
        (PixelValues(scales=(BEFORE, BEFORE)), numbers(BEFORE)),
        (PixelValues(scales=(AFTER, AFTER)), numbers(AFTER)),
        (PixelValues(True, (BEFORE, BEFORE)), REFLECTANCE),
        (PixelValues(True), REFLECTANCE),
        (PixelValues(scales=((0.01, 0), (0.01, 0))), REFLECTANCE * 100),
    ],
)
@pytest.mark.parametrize("scale", [BEFORE, AFTER])
def test_a_model_gets_the_values_it_was_trained_with(like, expected, scale, make_scaled):
    (scene,) = open_scenes(make_scaled("a.tif", scale), like=like)
    np.testing.assert_allclose(scene.read().data, expected, rtol=2e-6, atol=1e-7)
    assert not scene.warnings


def test_a_scale_on_one_side_only_is_said(make_scaled):
    known, tagged, plain = PixelValues(scales=(AFTER, AFTER)), make_scaled("a.tif"), make_scaled("b.tif", tags=False)
    (scene,) = open_scenes(plain, like=known)
    assert "has no scale and offset, but the model was trained on" in scene.warnings[0]
    assert "raw values (scale 0.0001, offset -0.1)" in scene.warnings[0]
    np.testing.assert_array_equal(scene.read().data, numbers(BEFORE))
    (scene,) = open_scenes(tagged, like=PixelValues())
    assert "has scale 0.0001, offset 0, but no scale and offset are known" in scene.warnings[0]
    np.testing.assert_array_equal(scene.read().data, numbers(BEFORE))
    scenes = open_scenes([tagged, make_scaled("c.tif", AFTER)], like=PixelValues())
    np.testing.assert_array_equal(scenes[0].read().data, scenes[1].read().data)


def test_a_mosaic_on_another_grid_is_scaled_after_the_warp(make_scaled):
    path = make_scaled("a.tif", AFTER)
    warped = Scene.open(path, cell_size=20.0)
    np.testing.assert_allclose(
        Scene.open(path, cell_size=20.0, scaled=True).read().data, warped.read().data * 1e-4 - 0.1, rtol=1e-5
    )


@pytest.mark.parametrize("applied", [False, True])
@pytest.mark.parametrize("field", ["raster:bands", "bands"])
def test_scales_of_stac(field, applied, make_scaled, tmp_path):
    prefix = "raster:" if field == "bands" else ""
    assets = {}
    for name in ("red", "nir"):
        path = make_scaled(f"{name}.tif", AFTER, tags=False)
        with rasterio.open(path) as dataset:
            band, profile = dataset.read([1 if name == "red" else 2]), {**dataset.profile, "count": 1}
        with rasterio.open(path, "w", **profile) as dataset:
            dataset.write(band)
        tags = {f"{prefix}scale": 0.0001, f"{prefix}offset": -0.1}
        assets[name] = {
            "href": f"./{name}.tif",
            "type": "image/tiff",
            "roles": ["data"],
            field: [{"name": name, **tags}],
        }
    item = {
        "type": "Feature", "stac_version": "1.1.0", "id": "s2", "geometry": None, "links": [], "assets": assets,
        "properties": {"datetime": "2022-02-01T00:00:00Z", "earthsearch:boa_offset_applied": applied},
    }  # fmt: skip
    (tmp_path / "item.json").write_text(json.dumps(item), encoding="utf-8")
    scene = Scene.open(tmp_path / "item.json", scaled=True)
    np.testing.assert_allclose(scene.read().data, REFLECTANCE + 0.1 * applied, rtol=1e-6)


# Palettes

COLORS = {0: (10, 20, 30, 255), 1: (200, 100, 50, 255), 2: (0, 0, 255, 255), 3: (9, 9, 9, 255)}
OTHERS = {0: (200, 100, 50, 255), 1: (0, 0, 255, 255), 2: (9, 9, 9, 255), 3: (10, 20, 30, 255)}
INDICES = np.random.default_rng(1).integers(0, 4, (1, 30, 40)).astype("uint8")


def colors_of(indices, table=COLORS):
    return np.moveaxis(np.array([table[i][:3] for i in range(4)], np.uint8)[indices[0]], 2, 0)


@pytest.fixture
def make_palette(make_raster):
    def make(name, indices=INDICES, colors=COLORS, **options):
        path = make_raster(name, indices, **options)
        with rasterio.open(path, "r+") as dataset:
            dataset.write_colormap(1, colors)
        return path

    return make


def test_palettes_are_expanded_each_by_its_own(make_palette):
    same = (INDICES + 3) % 4
    paths = [make_palette("a & <b>.tif"), make_palette("b.tif", same.astype("uint8"), OTHERS)]
    scenes = open_scenes(paths)
    for scene in scenes:
        assert scene.bands == ("red", "green", "blue")
        assert "has a palette: its colours are read" in " ".join(scene.notes)
    np.testing.assert_array_equal(scenes[0].read().data, colors_of(INDICES))
    np.testing.assert_array_equal(scenes[1].read().data, colors_of(same, OTHERS))
    assert scenes[0].read().valid.all()
    assert scenes[0].value_identity() != open_scenes(paths[0], bands=[1])[0].value_identity()


def test_indices_are_read_where_they_are_asked_for(make_palette):
    path = make_palette("a.tif")
    for scene in (open_scenes(path, bands=[1])[0], open_scenes(path, bands=["band_1"])[0], Scene.open(path)):
        np.testing.assert_array_equal(scene.read().data, INDICES)
    with rasterio.open(path, "r+") as dataset:
        dataset.descriptions = ("cover",)
    np.testing.assert_array_equal(open_scenes(path, bands=["cover"])[0].read().data, INDICES)
    np.testing.assert_array_equal(open_scenes(path, bands=["green"])[0].read().data, colors_of(INDICES)[1:2])
    (scene,) = open_scenes({"cover": path})
    np.testing.assert_array_equal(scene.read().data, INDICES)


def test_transparent_colours_nodata_and_mask_are_invalid(make_palette):
    path = make_palette("a.tif", nodata=3)
    np.testing.assert_array_equal(open_scenes(path)[0].read().valid, INDICES[0] != 3)
    path = path.with_suffix(".vrt")  # TIFF has no transparent colours
    rasterio.shutil.copy(path.with_suffix(".tif"), path, driver="VRT")
    text = path.read_text()
    assert 'c3="255" c4="255"' in text
    path.write_text(text.replace('c3="255" c4="255"', 'c3="255" c4="0"'))
    assert open_scenes(path)[0].bands == ("red", "green", "blue")
    np.testing.assert_array_equal(open_scenes(path)[0].read().valid, INDICES[0] < 2)
    mask = np.full(INDICES.shape[1:], 255, np.uint8)
    mask[:5] = 0
    path = make_palette("b.tif")
    with rasterio.open(path, "r+") as dataset:
        dataset.write_mask(mask)
    np.testing.assert_array_equal(open_scenes(path)[0].read().valid, mask > 0)


def test_colours_are_mixed_by_a_warp_not_indices(make_palette):
    path = make_palette("a.tif", np.kron(INDICES, np.ones((1, 4, 4), "uint8")))
    (scene,) = open_scenes(path, cell_size=8.0)
    inner = scene.read().data[:, 1:-1, 1:-1].reshape(3, -1).T
    table = np.array([COLORS[i][:3] for i in range(4)])
    assert np.abs(inner[:, None] - table).max(axis=2).min(axis=1).max() <= 1
    (mixed,) = open_scenes(path, cell_size=16.0)
    expected = colors_of(INDICES).reshape(3, 15, 2, 20, 2).mean(axis=(2, 4))
    np.testing.assert_allclose(mixed.read().data, expected, atol=1)


def test_a_palette_beside_colours(make_palette, make_raster):
    paths = [make_palette("a.tif"), make_raster("b.tif", colors_of(INDICES))]
    one, other = open_scenes(paths)
    np.testing.assert_array_equal(one.read().data, other.read().data)
    with pytest.raises(BandError, match="number of bands"):
        open_scenes([make_raster("c.tif", INDICES), paths[0]])


# Products of Sentinel-2

METADATA = """<n1:Level-2A_User_Product xmlns:n1="https://psd-15.sentinel2.eo.esa.int/PSD/User_Product_Level-2A.xsd"><n1:General_Info>
<QUANTIFICATION_VALUES_LIST><BOA_QUANTIFICATION_VALUE unit="none">10000</BOA_QUANTIFICATION_VALUE>
<AOT_QUANTIFICATION_VALUE unit="none">1000.0</AOT_QUANTIFICATION_VALUE></QUANTIFICATION_VALUES_LIST>{}
</n1:General_Info></n1:Level-2A_User_Product>"""
OFFSETS = "".join(f'<BOA_ADD_OFFSET band_id="{i}">{-1000 - 10 * (i == 8)}</BOA_ADD_OFFSET>' for i in range(13))


def make_product(make_raster, tmp_path, name, offsets, values):
    folder = f"{name}.SAFE/GRANULE/L2A_T32/IMG_DATA/R10m"
    for band, numbers in zip(("B04", "B8A"), values, strict=True):
        make_raster(f"{folder}/T32TPT_20230512T101010_{band}_10m.tif", numbers[None].astype("uint16"), cell=10)
    (tmp_path / f"{name}.SAFE" / "MTD_MSIL2A.xml").write_text(METADATA.format(offsets), encoding="utf-8")
    return tmp_path / f"{name}.SAFE"


def test_products_before_and_after_baseline_04_00(make_raster, tmp_path):
    """Their metadata says scale and offset, of each band its own."""
    before = make_product(make_raster, tmp_path, "before", "", numbers(BEFORE))
    after = make_product(
        make_raster, tmp_path, "after", OFFSETS, numbers(BEFORE) + np.array([1000, 1010])[:, None, None]
    )
    assert Scene.open(after).pixel_values == PixelValues(scales=((1e-4, -0.1), (1e-4, -0.101)))
    scenes = open_scenes([before, after])
    for scene in scenes:
        np.testing.assert_allclose(scene.read().data, REFLECTANCE, rtol=1e-5)
    assert Scene.open(before).dtype == np.uint16


@pytest.mark.parametrize("text", ["", "<a>", "<a><BOA_QUANTIFICATION_VALUE>x</BOA_QUANTIFICATION_VALUE></a>", "<a/>"])
def test_metadata_that_cannot_be_read_say_nothing(text, make_raster, tmp_path):
    path = make_product(make_raster, tmp_path, "s2", "", numbers(BEFORE))
    (path / "MTD_MSIL2A.xml").write_text(text, encoding="utf-8")
    assert Scene.open(path).pixel_values == PixelValues()
