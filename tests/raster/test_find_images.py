import json
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
import rasterio
from hypothesis import given
from hypothesis import strategies as st
from rasterio.enums import Resampling

from geopsp.errors import BandError, InputNotFoundError, OptionError, RasterError
from geopsp.raster import find_images as finding
from geopsp.raster.band_files import BandFileName
from geopsp.raster.find_images import find_images
from geopsp.raster.scene import Scene
from geopsp.raster.source_image import SourceImage


def names(images, **options):
    return [image.name for image in find_images(images, **options)]


# Files, globs, folders


def test_one_path_a_list_a_glob_and_a_folder_name_the_same_files(make_raster, tmp_path):
    paths = [make_raster(f"in/{name}.tif", size=(4, 5)) for name in "ab"]
    (tmp_path / "in" / "notes.txt").write_text("")
    for images in (paths, tmp_path / "in", str(tmp_path / "in"), str(tmp_path / "in" / "*.tif"), find_images(paths)):
        assert names(images) == list(map(str, paths))
    assert find_images(str(paths[0])) == [SourceImage(str(paths[0]), (str(paths[0]),))]
    assert names([paths[1], str(tmp_path / "**" / "a.tif")]) == [str(paths[1]), str(paths[0])]


def test_folders_and_hidden_files_are_no_images(make_raster, tmp_path):
    image = make_raster("in/a.tif", size=(4, 5))
    (tmp_path / "in" / ".partial-map.tif").mkdir()
    (tmp_path / "in" / "folder.tif").mkdir()
    (tmp_path / "in" / "._a.tif").write_bytes(b"what a Mac leaves")
    assert names(tmp_path / "in") == names(str(tmp_path / "in" / "*.tif")) == names(image) == [str(image)]
    assert names(str(tmp_path / "**" / "*.tif")) == [str(image)]
    with pytest.raises(InputNotFoundError, match="No raster found"):
        find_images(str(tmp_path / "in" / "f*.tif"))


def test_a_name_with_glob_characters_is_a_name_first(make_raster):
    path = make_raster("scene[1].tif", size=(4, 5))
    assert names(path) == [str(path)]


@pytest.mark.parametrize("images", [[], {}, "nowhere.tif", "no*.tif", ["nowhere.tif"]])
def test_no_such_file_says_so(images):
    with pytest.raises(InputNotFoundError, match=r"No image is given|no such file or folder, and|is empty"):
        find_images(images)


@pytest.mark.parametrize(
    "name", ["https://there.org/a.tif?sig=x%2F", "s3://bucket/a.tif", "/vsizip/a.zip/a.tif", 'NETCDF:"a.nc":ndvi']
)
def test_names_that_only_gdal_knows_are_kept(name):
    assert find_images([name]) == [SourceImage(name, (name,))]


# Another kind of source


def find_numbered(item):
    """Find the images of "numbers:2", a made-up source, in the current folder."""
    kind, _, count = str(item).partition(":")
    if kind != "numbers":
        return None
    return [SourceImage(f"number {i}", (f"{i}.tif",), bands=(("r", "g", "b"),)) for i in range(int(count))]


def test_a_new_kind_of_source_is_one_finder(make_raster, tmp_path, monkeypatch):
    paths = [make_raster(f"{i}.tif", size=(4, 5), seed=i) for i in range(2)]
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputNotFoundError):
        find_images("numbers:2")
    monkeypatch.setattr(finding, "FINDERS", (find_numbered, *finding.FINDERS))
    assert names("numbers:2") == ["number 0", "number 1"]
    assert names([paths[0], "numbers:1", paths[1]]) == [str(paths[0]), "number 0", str(paths[1])]
    scene = Scene.open("numbers:2")
    assert (scene.name, scene.bands) == ("number 0 and 1 more", ("r", "g", "b"))
    with rasterio.open(paths[0]) as dataset:
        np.testing.assert_array_equal(scene.read().data, dataset.read())


def test_finders_are_asked_about_files_of_folders_and_objects_of_any_type(make_raster, tmp_path, monkeypatch):
    make_raster("in/a.tif", size=(4, 5))
    make_raster("in/b.tif", size=(4, 5))

    def find_b(item):
        if item == 7 or Path(item).name == "b.tif":
            return [SourceImage("b", (str(tmp_path / "in" / "b.tif"),))]
        return None

    monkeypatch.setattr(finding, "FINDERS", (*finding.FINDERS, find_b))
    assert names(tmp_path / "in") == [str(tmp_path / "in" / "a.tif"), "b"]
    assert names([7, tmp_path / "in" / "a.tif"]) == ["b", str(tmp_path / "in" / "a.tif")]


# One file a band


@pytest.mark.parametrize(
    ("files", "stem", "bands"),
    [
        (("T32_20230512T102031_B02_10m", "T32_20230512T102031_B8A_20m"), "T32_20230512T102031", ("B02", "B8A")),
        (("LC08_L2SP_20230512_SR_B10", "LC08_L2SP_20230512_SR_B4"), "LC08_L2SP_20230512", ("B4", "B10")),
        (("B02", "B03"), "", ("B02", "B03")),
        (("a_red_clip", "a_nir_clip"), "a_clip", ("nir", "red")),
        (("HLS.S30.T10.v2.0.B04", "HLS.S30.T10.v2.0.B05"), "HLS.S30.T10.v2.0", ("B04", "B05")),
    ],
)
def test_files_that_differ_in_a_band_s_token_are_one_image(files, stem, bands, make_raster, tmp_path):
    for file in files:
        make_raster(f"in/{file}.tif", bands=1, size=(4, 5))
    (image,) = find_images(tmp_path / "in")
    assert image.name == str(tmp_path / "in" / stem)
    assert image.bands == tuple((band,) for band in bands)
    assert [band in file for band, file in zip(bands, image.files, strict=True)] == [True, True]
    assert find_images(str(tmp_path / "in" / "*.tif")) == find_images(sorted((tmp_path / "in").iterdir())) == [image]
    assert "2 files make the image" in image.notes[0]


def test_masks_and_coarser_copies_of_a_band_are_left_out_and_named(make_raster, tmp_path):
    for name in ("R10m/T_B02_10m", "R10m/T_B04_10m", "R20m/T_B02_20m", "R20m/T_SCL_20m", "R10m/T_TCI_10m"):
        make_raster(f"{name}.tif", bands=3 if "TCI" in name else 1, size=(4, 5))
    (image,) = find_images(str(tmp_path / "**" / "*.tif"))
    assert [file.split("/")[-1] for file in image.files] == ["T_B02_10m.tif", "T_B04_10m.tif"]
    assert image.name == str(tmp_path / "T")
    backwards = sorted(tmp_path.rglob("*.tif"), reverse=True)
    assert find_images(backwards)[0].files == image.files
    assert image.notes[1].endswith("T_B02_20m.tif, T_SCL_20m.tif, T_TCI_10m.tif")


def test_other_files_stay_images_of_their_own(make_raster, tmp_path):
    for name, place in {"many_B1": {}, "many_B2": {}, "tile_B1": {}, "tile_B2": {"origin": (0.0, 0.0)}}.items():
        make_raster(f"{name}.tif", bands=3 if "many" in name else 1, size=(4, 5), **place)
    make_raster("alone_B1.tif", bands=1, size=(4, 5))
    assert len(find_images(tmp_path)) == 5


def test_several_dates_make_an_image_each(make_raster, tmp_path):
    for name in ("a_20200101_B1", "a_20200101_B2", "a_20210101_B1", "a_20210101_B2"):
        make_raster(f"{name}.tif", bands=1, size=(4, 5))
    assert names(tmp_path) == [str(tmp_path / "a_20200101"), str(tmp_path / "a_20210101")]


@given(st.from_regex(r"\A[a-z]{1,8}_[0-9]{8}\Z"), st.sampled_from(["B02", "B8A", "SR_B4", "B10", "nir", "VV"]))
def test_a_token_is_found_wherever_it_stands(stem, token):
    for name in (f"{stem}_{token}", f"{token}_{stem}", f"{stem}_{token}_10m"):
        part = BandFileName.from_path(Path(f"in/{name}.tif"))
        assert part.band == token.removeprefix("SR_")
        assert part.stem[1].strip("_") == stem


def test_a_mapping_names_the_bands(make_raster):
    files = {"nir": make_raster("x.tif", bands=1), "red": make_raster("y.tif", bands=1, seed=1)}
    assert find_images(files)[0].bands == (("nir",), ("red",))
    assert Scene.open(files).bands == ("nir", "red")
    with pytest.raises(BandError, match=r"z\.tif has 3 bands, but must have 1: blue"):
        Scene.open(files | {"blue": make_raster("z.tif")})


# Order


def test_order_by_date_of_tag_and_of_name(make_raster):
    def tagged(name, **tags):
        path = make_raster(name, size=(4, 5))
        with rasterio.open(path, "r+") as dataset:
            dataset.update_tags(**tags)
        return str(path)

    middle = tagged("tag.tif", TIFFTAG_DATETIME="2021:05:06 07:08:09", CLOUD="9.5")
    old = tagged("x_99999999_20200202T101112_y.tif", TIFFTAG_DATETIME="2029:05:06 07:08:09", CLOUD="10")
    new = tagged("z.tif", ACQUISITIONDATETIME="2022-01-01T00:00:00+01:00", CLOUD="9.5")
    images = [middle, old, new]
    found = find_images(images, order="newest")
    assert [image.name for image in found] == [new, middle, old]
    assert found[2].acquired == datetime(2020, 2, 2, 10, 11, 12, tzinfo=UTC)
    assert names(images, order="oldest") == [old, middle, new]
    assert names(images, order="CLOUD") == [middle, new, old]
    assert names(images, order="-CLOUD") == [old, middle, new]
    assert names(images) == images
    assert "newest first" in Scene.open(images, order="newest").notes[0]


def test_an_image_that_does_not_tell_is_named(make_raster):
    path = make_raster("a_12345678.tif", size=(4, 5))
    with pytest.raises(OptionError, match=r"a_12345678\.tif has no acquisition time"):
        find_images(path, order="newest")
    with pytest.raises(OptionError, match=r"a_12345678\.tif has no property or tag 'clouds' .*AREA_OR_POINT"):
        find_images(path, order="-clouds")


# STAC


def asset(href, *bands, roles=("data",), kind="image/tiff; application=geotiff", key="eo:bands"):
    told = {key: [dict(band) for band in bands]} if bands else {}
    return {"href": href, "type": kind, "roles": list(roles), **told}


def item(name, assets, when="2023-05-12T10:20:31Z", **properties):
    return {
        "type": "Feature", "stac_version": "1.0.0", "id": name, "geometry": None, "bbox": [0, 0, 1, 1], "links": [],
        "properties": {"datetime": when, **properties}, "assets": assets, "stac_extensions": [],
    }  # fmt: skip


def write(path, content):
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(content))
    return path


@pytest.fixture
def sentinel(make_raster, tmp_path):
    """An Item with assets as Sentinel-2's have them."""
    for name, scale in (("B04", 1), ("B08", 1), ("B05", 2), ("SCL", 2)):
        make_raster(f"px/{name}.tif", bands=1, size=(40 // scale, 60 // scale), cell=10.0 * scale, seed=ord(name[2]))
    (tmp_path / "px" / "thumb.png").write_bytes(b"")
    return {
        "thumbnail": asset("px/thumb.png", roles=["thumbnail"], kind="image/png"),
        "visual": asset("px/TCI.tif", {"name": "r"}, {"name": "g"}, {"name": "b"}, roles=["visual"]),
        "red": asset("px/B04.tif", {"name": "B04", "common_name": "red"}),
        "red-jp2": asset("px/B04.jp2", {"name": "B04", "common_name": "red"}, kind="image/jp2"),
        "nir": asset("./px/B08.tif", {"name": "B08", "common_name": "nir"}, roles=["data", "reflectance"]),
        "rededge1": asset("px/B05.tif", {"name": "B05"}),
        "scl": asset("px/SCL.tif"),
        "meta": asset("px/meta.xml", roles=["metadata"], kind="application/xml"),
    }


def test_an_item_s_bands_make_an_image_relative_to_the_file(sentinel, tmp_path):
    remote = {"rel": "self", "href": "https://there.org/items/s2.json"}
    path = write(tmp_path / "s2.json", item("s2", sentinel) | {"links": [remote]})
    (image,) = find_images(path)
    assert (image.name, image.bands) == ("s2", (("red",), ("nir",), ("B05",)))
    assert image.files == tuple(str(tmp_path / "px" / f"{name}.tif") for name in ("B04", "B08", "B05"))
    assert image.acquired == datetime(2023, 5, 12, 10, 20, 31, tzinfo=UTC)
    assert "not used: meta, red-jp2, scl, thumbnail, visual" in image.notes[0]
    scene = Scene.open(path, bands=["nir", "B05"])
    with rasterio.open(image.files[1]) as dataset:
        np.testing.assert_array_equal(scene.read().data[0], dataset.read(1))
    assert [source.path for source in scene.sources] == [image.files[1], image.files[2]]


def test_the_picture_is_read_where_there_is_nothing_else(sentinel, tmp_path):
    only = {key: sentinel[key] for key in ("thumbnail", "visual", "meta")}
    (image,) = find_images(write(tmp_path / "s2.json", item("s2", only)))
    assert image.bands == (("r", "g", "b"),)
    del only["visual"]
    with pytest.raises(RasterError, match=r"s2 in .* has no asset with imagery\. Its assets: thumbnail, meta"):
        find_images(write(tmp_path / "s2.json", item("s2", only)))


def test_bands_as_stac_1_1_tells_them(make_raster, tmp_path):
    make_raster("px.tif")
    bands = ({"name": "b1", "eo:common_name": "red"}, {"name": "b2"}, {"name": "b3", "eo:common_name": "nir"})
    path = write(tmp_path / "i.json", item("i", {"image": asset("px.tif", *bands, key="bands")}))
    assert Scene.open(path).bands == ("red", "b2", "nir")


def test_assets_without_bands_are_named_by_key_or_by_their_header(make_raster, tmp_path):
    make_raster("a.tif", bands=1)
    make_raster("b.tif", bands=1)
    two = write(tmp_path / "two.json", item("i", {"vv": asset("a.tif"), "vh": asset("b.tif")}))
    assert Scene.open(two).bands == ("vv", "vh")
    make_raster("c.tif", names=("x", "y", "z"))
    assert Scene.open(write(tmp_path / "one.json", item("i", {"data": asset("c.tif")}))).bands == ("x", "y", "z")


def test_a_collection_of_items_is_ordered_by_date_and_property(make_raster, tmp_path):
    rows = [("a", "2023-05-12T00:00:00Z", 20), ("b", "2023-05-14T00:00:00Z", 100), ("c", None, 3)]
    features = []
    for name, when, cloud in rows:
        make_raster(f"px/{name}.tif", size=(4, 5))
        span = {} if when else {"start_datetime": "2023-05-13T00:00:00Z", "end_datetime": "2023-06-13T00:00:00Z"}
        found = item(name, {"data": asset(f"px/{name}.tif")}, when, **span)
        found["properties"]["eo:cloud_cover"] = cloud
        features.append(found)
    path = write(tmp_path / "found.json", {"type": "FeatureCollection", "features": features})
    assert names(path) == ["a", "b", "c"]
    assert names(path, order="newest") == ["b", "c", "a"]
    assert names(path, order="eo:cloud_cover") == ["c", "a", "b"]
    assert names([path, tmp_path / "px" / "a.tif"]) == ["a", "b", "c", str(tmp_path / "px" / "a.tif")]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ({"type": "Catalog", "id": "c"}, "is a STAC Catalog, which lists no pixels. It must be a STAC Item"),
        ({"type": "Collection", "id": "c"}, "is a STAC Collection"),
        ({"type": "Feature", "properties": {}, "geometry": None}, "is no STAC file"),
        ({"type": "FeatureCollection", "features": []}, "lists no Item"),
        ({"a": 1}, "has the type None. It must"),
        ([1], "has the type list. It must"),
    ],
)
def test_what_is_no_item_says_what_is_needed(content, words, tmp_path):
    with pytest.raises(RasterError, match=words):
        find_images(write(tmp_path / "c.json", content))


def test_a_list_far_away_and_a_broken_one(tmp_path):
    with pytest.raises(RasterError, match="Download it"):
        find_images("https://there.org/items.json")
    (tmp_path / "a.json").write_text("{")
    with pytest.raises(RasterError, match="is no STAC file"):
        find_images(tmp_path / "a.json")


# What lies beside images, products, odd input


def test_masks_are_left_out_where_their_image_is_there(make_raster, tmp_path):
    place = {"size": (4, 5), "bands": 1, "dtype": "uint16"}
    band = make_raster("l/LC08_X_20200101_SR_B4.TIF", **place)
    make_raster("l/LC08_X_20200101_QA_PIXEL.TIF", **place)
    (image,) = find_images(tmp_path / "l")
    assert image.files == (str(band),)
    assert "LC08_X_20200101_QA_PIXEL.TIF" in image.notes[0]
    assert Scene.open(tmp_path / "l").notes == image.notes
    many = make_raster("p/20200101_3B_AnalyticMS.tif", size=(4, 5), bands=4, dtype="uint16")
    make_raster("p/20200101_3B_udm2.tif", size=(4, 5), bands=3)
    other = make_raster("p/20200202_3B_udm2.tif", size=(4, 5), bands=3)
    found = find_images(tmp_path / "p")
    assert [image.name for image in found] == [str(many), str(other)]
    assert "20200101_3B_udm2.tif" in found[0].notes[0]
    assert not found[1].notes
    assert [image.name for image in find_images(other)] == [str(other)]
    assert [image.name for image in find_images([many, many])] == [str(many)] * 2


def test_sentinel_products_are_searched_inside(make_raster, tmp_path):
    def product(folder, *names):
        for name in names:
            make_raster(f"{folder}/{name}", size=(4, 5), bands=1, dtype="uint16")

    inside = "GRANULE/L2A_T32/IMG_DATA"
    product(f"one.SAFE/{inside}/R10m", "T32_20200101T101010_B02_10m.tif", "T32_20200101T101010_B03_10m.tif")
    product(f"one.SAFE/{inside}/R20m", "T32_20200101T101010_B8A_20m.tif", "T32_20200101T101010_SCL_20m.tif")
    product("two.SAFE/GRANULE/L1C_T33/IMG_DATA", "T33_B02.tif", "T33_B03.tif")
    (image,) = find_images(tmp_path / "one.SAFE")
    assert image.bands == (("B02",), ("B03",), ("B8A",))
    assert [len(image.files) for image in find_images(tmp_path)] == [3, 2]


@pytest.mark.parametrize("images", [None, 3, [3], [None], ["a.tif", 2.5]])
def test_what_is_no_image_is_refused(images):
    with pytest.raises(OptionError, match=r"An image is given as .*, but must be a path"):
        find_images(images)


def test_nodata_of_stac_counts_where_the_file_tells_none(make_raster, tmp_path):
    data = np.full((1, 4, 6), 5, np.uint16)
    data[0, 0], data[0, 1] = 7, 9
    red, nir = make_raster("red.tif", data), make_raster("nir.tif", data, nodata=9)

    def asset(path, nodata):
        return {"href": path.name, "type": "image/tiff", "roles": ["data"], "raster:bands": [{"nodata": nodata}]}

    item = {
        "type": "Feature", "stac_version": "1.0.0", "id": "i", "geometry": None, "links": [],
        "properties": {"datetime": "2020-01-01T00:00:00Z"},
        "assets": {"red": asset(red, 7), "nir": asset(nir, 7), "swir": asset(red, "nan")},
    }  # fmt: skip
    (tmp_path / "i.json").write_text(json.dumps(item))
    path = tmp_path / "i.json"
    assert find_images(path)[0].nodata[:2] == (7, 7)
    for bands, gone in ((["red"], [0]), (["nir"], [1]), (["red", "nir"], [0, 1]), (["swir"], [])):
        valid = Scene.open(path, bands=bands).read().valid
        assert np.flatnonzero(~valid.all(axis=1)).tolist() == gone
    coarse = Scene.open(path, bands=["red"], cell_size=1.0, resampling=Resampling.bilinear).read()
    assert set(np.unique(coarse.data[:, coarse.valid])) <= {5, 6, 7, 8, 9}
    assert not coarse.valid[:2].any()


@pytest.mark.parametrize(
    ("entry", "value"),
    [("id", ["a"]), ("assets", []), ("properties", None), ("type", ["image/tiff"]), ("bands", [0.5]), ("roles", "data"),
     ("eo:bands", [None]), ("raster:bands", {"nodata": 0}), ("href", 1)],
)  # fmt: skip
def test_stac_entries_of_another_type(tmp_path, entry, value):
    asset = {"href": "a.tif", "type": "image/tiff", "roles": ["data"]}
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "a", "geometry": None, "links": [],
            "properties": {"datetime": "2024-05-01T10:00:00Z"}, "assets": {"data": asset}}  # fmt: skip
    (item if entry in {"id", "assets", "properties"} else asset)[entry] = value
    for content in (item, {"type": "FeatureCollection", "features": [item]}):
        (tmp_path / "item.json").write_text(json.dumps(content))
        with pytest.raises(RasterError, match="is no STAC file"):
            find_images(tmp_path / "item.json")
