"""STAC Items of maps: valid, true of their files, linked to what the maps are made of, and never of a half map."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pyproj
import pystac
import pytest
import rasterio
import shapely
from inference_common import CLASSES, trained_model
from rasterio.features import shapes
from shapely.geometry import shape
from stac_common import require_valid

from geopsp import PixelClassifier, classify_pixels
from geopsp.errors import GeopspError, OptionError, OutputError, RasterError
from geopsp.inference import map_item
from geopsp.raster.valid_hull import valid_hull

NEEDED = ("file", "classification", "processing")
OPTIONS = {"stac": True, "precision": "fp32"}


@pytest.fixture(scope="module")
def model():
    found = PixelClassifier.__new__(PixelClassifier)
    found.model, found.device = trained_model(), "cpu"
    return found


def levels(seed=0, size=(61, 83)):
    return np.random.default_rng(seed).integers(1, CLASSES + 1, (1, *size)).astype("uint8")


@pytest.fixture
def scene(make_raster):
    data = levels()
    data[:, :20, 30:] = 0
    return make_raster("a scene.tif", data=data, nodata=0, names=("level",))


def item_beside(path):
    found = path.with_name(f"{path.stem}.stac.json")
    return json.loads(found.read_text(encoding="utf-8"), parse_constant=pytest.fail)


def valid_outline(path):
    """The valid pixels as polygons in WGS 84, by another library's way."""
    with rasterio.open(path) as dataset:
        mask = dataset.read_masks(1)
        found = [shape(each) for each, value in shapes(mask, transform=dataset.transform) if value]
        transform = pyproj.Transformer.from_crs(dataset.crs, 4326, always_xy=True).transform
    return shapely.transform(shapely.union_all(found), transform, interleaved=False)


def test_all_files_of_a_map_are_told(model, scene, tmp_path):
    files = {name: tmp_path / f"{name}.tif" for name in ("probabilities", "confidence", "disagreement")}
    files["polygons"] = tmp_path / "polygons" / "lines.gpkg"
    out = classify_pixels(scene, model, tmp_path / "maps" / "my map.tif", **files, **OPTIONS)
    item = item_beside(out)
    require_valid(item, needed=NEEDED)
    assert set(item["assets"]) == {"classes", *files}
    catalogue = pystac.Item.from_file(str(out.with_name("my map.stac.json")))
    for name, path in ({"classes": out} | files).items():
        asset = item["assets"][name]
        assert asset["file:checksum"] == "1220" + hashlib.sha256(path.read_bytes()).hexdigest()
        assert asset["file:size"] == path.stat().st_size
        assert catalogue.assets[name].get_absolute_href().replace("%20", " ") == str(path)
    for name, path in ({"classes": out} | files).items():
        if name != "polygons":
            with rasterio.open(path) as dataset:
                bands = item["assets"][name]["bands"]
                assert [(band["data_type"], band["nodata"]) for band in bands] == [("uint8", 255)] * dataset.count
                assert [band.get("raster:scale", 1) for band in bands] == list(dataset.scales)
    told = [(each["value"], each["description"]) for each in item["assets"]["classes"]["classification:classes"]]
    assert told == [(info.code, info.name) for info in model.model.legend]


def test_place_and_grid_are_those_of_the_map(model, scene, tmp_path):
    out = classify_pixels(scene, model, tmp_path / "map.tif", **OPTIONS)
    item, told = item_beside(out), item_beside(out)["properties"]
    with rasterio.open(out) as dataset:
        assert told["proj:code"] == "EPSG:32632"
        assert told["proj:shape"] == list(dataset.shape)
        assert told["proj:transform"] == list(dataset.transform)[:6]
        assert told["proj:bbox"] == pytest.approx(list(dataset.bounds))
    assert told["gsd"] == pytest.approx(2, rel=2e-3)
    hull, exact = shape(item["geometry"]), valid_outline(out).convex_hull
    assert hull.symmetric_difference(exact).area < 1e-3 * exact.area
    assert item["bbox"] == pytest.approx(valid_outline(out).bounds, abs=1e-6)
    assert told["datetime"] == told["created"]
    assert model.model.fingerprint()[:12] in told["geopsp:model"]


def test_it_is_derived_from_model_and_images(trained, small_world, tmp_path):
    out = classify_pixels(small_world["part"], trained, tmp_path / "maps" / "map.tif", **OPTIONS)
    links = pystac.Item.from_file(str(out.with_name("map.stac.json"))).get_links("derived_from")
    assert [link.get_absolute_href() for link in links] == [
        str(trained / "model.stac.json"), str(small_world["part"])
    ]  # fmt: skip
    assert links[0].extra_fields["mlm:name"] == "model"
    item = pystac.Item.from_file(links[0].get_absolute_href())
    assert item.properties["mlm:name"] == "model"


def test_it_is_derived_from_the_items_of_images(model, make_raster, tmp_path):
    """Of a search's result by their own addresses, else by the file; and it has their times."""
    features = []
    for number, day in enumerate(("2024-05-01T10:00:00Z", "2024-06-02T11:00:00.5Z")):
        file = make_raster(f"{number}.tif", data=levels(number), names=("level",))
        asset = {"href": str(file), "type": "image/tiff", "roles": ["data"]}
        links = [{"rel": "self", "href": f"https://stac.example/items/{number}"}] if number else []
        features.append(
            {"type": "Feature", "stac_version": "1.0.0", "id": f"i{number}", "geometry": None, "links": links,
             "properties": {"datetime": day}, "assets": {"level": asset}, "stac_extensions": []}
        )  # fmt: skip
    search = tmp_path / "search.json"
    search.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    item = item_beside(classify_pixels(search, model, tmp_path / "map.tif", **OPTIONS))
    require_valid(item, needed=NEEDED)
    assert [link["href"] for link in item["links"]] == ["./search.json", "https://stac.example/items/1"]
    told = item["properties"]
    assert (told["start_datetime"], told["end_datetime"]) == ("2024-05-01T10:00:00Z", "2024-06-02T11:00:00Z")
    assert told["datetime"] is None


@pytest.mark.parametrize(
    ("address", "href"),
    [
        ("https://user:secret@host.example/a%20b.tif?sig=secret#x", "https://host.example/a%20b.tif"),
        ("/vsicurl/https://host.example/a.tif?token=secret", "https://host.example/a.tif"),
        ("/vsis3/bucket/key.tif", "s3://bucket/key.tif"),
        ("s3://bucket/key.tif", "s3://bucket/key.tif"),
    ],
)
def test_addresses_keep_no_secret(address, href, tmp_path):
    assert map_item._image_href(address, tmp_path) == href


def test_each_image_s_map_has_its_own(model, make_raster, tmp_path):
    paths = [make_raster(f"{name}.tif", data=levels(number)) for number, name in enumerate("ab")]
    options = {"per_image": True, "polygons": tmp_path / "lines", **OPTIONS}
    found = classify_pixels(paths, model, tmp_path / "maps", **options)
    for path, out in zip(paths, found, strict=True):
        item = item_beside(out)
        require_valid(item, needed=NEEDED)
        assert item["links"][0]["href"] == f"../{path.name}"
        assert item["assets"]["polygons"]["href"] == f"../lines/{path.stem}.gpkg"
    before = {out: (out.stat().st_mtime_ns, item_beside(out)) for out in found}
    found[0].with_name("a.stac.json").unlink()
    assert classify_pixels(paths, model, tmp_path / "maps", **options) == found
    assert {out: out.stat().st_mtime_ns for out in found} == {out: time for out, (time, _) in before.items()}
    assert item_beside(found[1]) == before[found[1]][1]
    assert item_beside(found[0])["assets"] == before[found[0]][1]["assets"]


def test_an_item_is_added_to_a_map_that_is_there(model, scene, tmp_path):
    """And then the map exists."""
    out = classify_pixels(scene, model, tmp_path / "map.tif", precision="fp32")
    before = out.stat().st_mtime_ns
    classify_pixels(scene, model, out, **OPTIONS)
    assert out.stat().st_mtime_ns == before
    assert item_beside(out)
    with pytest.raises(OutputError, match="already exists"):
        classify_pixels(scene, model, out, **OPTIONS)


def test_a_map_that_fails_has_none(model, scene, tmp_path, monkeypatch):
    out = tmp_path / "map.tif"

    def fail(*args, **options):
        raise RasterError("The disk is gone.")

    for name in ("inference.map_run.run_job", "polygons.raster_to_polygons.raster_to_polygons"):
        with monkeypatch.context() as patch:
            patch.setattr(f"geopsp.{name}", fail)
            with pytest.raises(GeopspError, match="gone"):
                classify_pixels(scene, model, out, polygons=tmp_path / "lines.gpkg", overwrite=True, **OPTIONS)
        assert not list(tmp_path.glob("*.stac.json"))


def test_a_new_map_has_no_item_of_an_old_one(model, scene, tmp_path):
    out = classify_pixels(scene, model, tmp_path / "map.tif", **OPTIONS)
    classify_pixels(scene, model, out, padding=3, precision="fp32", overwrite=True)
    assert not list(tmp_path.glob("*.stac.json"))


def test_files_of_others_stay(model, scene, tmp_path):
    mine, out = tmp_path / "map.stac.json", tmp_path / "map.tif"
    mine.write_text('{"mine": 1}')
    with pytest.raises(OutputError, match=r"map\.stac\.json already exists"):
        classify_pixels(scene, model, out, **OPTIONS)
    assert not out.exists()
    classify_pixels(scene, model, out, precision="fp32")
    assert mine.read_text() == '{"mine": 1}'
    classify_pixels(scene, model, out, overwrite=True, **OPTIONS)
    assert item_beside(out)["type"] == "Feature"


def test_an_item_is_no_input(model, make_raster, tmp_path):
    path = make_raster("scene.tif", data=levels(), names=("level",))
    asset = {"href": str(path), "type": "image/tiff", "roles": ["data"]}
    item = {"type": "Feature", "stac_version": "1.0.0", "id": "i", "geometry": None, "links": [], "stac_extensions": [],
            "properties": {"datetime": "2024-05-01T10:00:00Z"}, "assets": {"level": asset}}  # fmt: skip
    given = tmp_path / "map.stac.json"
    given.write_text(json.dumps(item))
    with pytest.raises((OptionError, OutputError)):
        classify_pixels(given, model, tmp_path / "map.tif", **OPTIONS)
    assert json.loads(given.read_text()) == item


def test_an_empty_map_has_no_place(model, make_raster, tmp_path):
    path = make_raster("scene.tif", data=levels() * 0, nodata=0, names=("level",))
    item = item_beside(classify_pixels(path, model, tmp_path / "map.tif", **OPTIONS))
    require_valid(item, needed=NEEDED)
    assert item["geometry"] is None


def test_a_map_across_the_antimeridian(model, make_raster, tmp_path):
    x, y = pyproj.Transformer.from_crs(4326, 32760, always_xy=True).transform(179.995, -17)
    path = make_raster("fiji.tif", data=levels(), names=("level",), crs="EPSG:32760", origin=(x, y), cell=20.0)
    model.model.cell_size = (20.0, 20.0)
    item = item_beside(classify_pixels(path, model, tmp_path / "map.tif", **OPTIONS))
    model.model.cell_size = (2.0, 2.0)
    require_valid(item, needed=NEEDED)
    west, _, east, _ = item["bbox"]
    assert item["geometry"]["type"] == "MultiPolygon"
    assert (west > 179, east < -179) == (True, True)


@pytest.mark.parametrize("side", [7, 64, 1024])
def test_the_hull_of_a_large_raster_is_a_little_larger(side, make_raster):
    data = levels(size=(150, 210))
    data[:, :40], data[:, :, 160:] = 0, 0
    path = make_raster("image.tif", data=data, nodata=0)
    hull, step = valid_hull(path, max_side=side), -(-210 // side)
    with rasterio.open(path) as dataset:
        exact = shapely.box(*(dataset.transform * (0, 150)), *(dataset.transform * (160, 40)))
    assert hull.buffer(1e-6).covers(exact)
    assert exact.buffer(2 * (2 * step) + 1e-6, join_style="mitre").covers(hull)
    if side == 1024:
        assert hull.equals(exact)
