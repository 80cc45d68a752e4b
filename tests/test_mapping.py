"""Options reach the map; mosaics and images by themselves; what goes wrong is said before any work."""

from __future__ import annotations

from contextlib import contextmanager
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from maps_common import CLASSES, trained_model

from geopsp import PixelClassifier, classify_pixels, mapping
from geopsp.errors import (
    BandError,
    GridError,
    LabelError,
    ModelError,
    OptionError,
    OutputError,
    RasterError,
)
from geopsp.maps.settings import MapSettings
from geopsp.maps.targets import image_names

CODES = np.array([0, 0, 3, 4, 90, 254])
"""Of the classes that the echo makes of pixels 0 to 5."""


@pytest.fixture
def model():
    """A classifier that names the class which a pixel's value tells."""
    found = PixelClassifier.__new__(PixelClassifier)
    found.model, found.device = trained_model(), "cpu"
    return found


@pytest.fixture
def scene(make_raster):
    return make_raster("scene.tif", data=levels(1), nodata=0, names=("level",))


@pytest.fixture
def said(monkeypatch):
    lines = []
    monkeypatch.setattr(mapping, "say", lines.append)
    return lines


@pytest.fixture
def asked(monkeypatch):
    """What make_map is asked for, in place of doing it."""
    calls = []

    def make_map(job, model, **options):
        calls.append(SimpleNamespace(job=job, model=model, **options))

    monkeypatch.setattr(mapping, "make_map", make_map)
    return calls


def levels(seed, size=(61, 83)):
    return np.random.default_rng(seed).integers(1, CLASSES + 1, (1, *size)).astype("uint8")


def read(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


@pytest.mark.parametrize(
    ("option", "value"),
    [
        ("tile_size", 64),
        ("padding", 5),
        ("batch_size", 3),
        ("test_time_augmentation", True),
        ("predict_background", False),
        ("sieve", 7),
        ("precision", "bf16"),
        ("compiled", True),
    ],
)
def test_settings_reach_the_map(option, value, model, scene, asked, tmp_path):
    classify_pixels(scene, model, tmp_path / "map.tif", **{option: value})
    job = asked[0].job
    assert job.settings == MapSettings(**{option: value})
    assert job.bf16 == (value == "bf16" or (option != "precision" and asked_bf16()))
    assert job.unwanted == ((0,) if option == "predict_background" else ())
    assert job.plan.size == (value if option == "tile_size" else 32)
    assert job.plan.overlap == (5 if option == "padding" else job.plan.size // 4)


def asked_bf16():
    return mapping.resolve("auto", torch.device("cpu")) == "bf16"


def test_places_reach_the_map(model, scene, asked, tmp_path):
    places = {name: tmp_path / f"{name}.tif" for name in ("probabilities", "confidence", "disagreement")}
    out = classify_pixels(scene, model, tmp_path / "map.tif", probability_type="float16", **places)
    assert out == tmp_path / "map.tif"
    found = {product.name: product for product in asked[0].job.products}
    assert list(found) == ["classes", "probabilities", "confidence", "disagreement"]
    assert {name: found[name].path for name in places} == places
    assert found["probabilities"].dtype == "float16"
    assert found["confidence"].dtype == "uint8"
    assert found["classes"].path == out


def test_what_is_mapped_reaches_the_map(model, make_raster, make_labels, asked, tmp_path):
    paths = [make_raster(f"2024010{i}.tif", data=levels(i), names=("other",)) for i in (1, 2)]
    left, bottom, right, top = rasterio.open(paths[0]).bounds
    extent = (left + 20, bottom + 10, right - 40, top - 8)
    aoi = make_labels("aoi.gpkg", [shapely.box(left, bottom, right, top)])
    classify_pixels(paths, model, tmp_path / "map.tif", bands=[1], extent=extent, cell_size=4, order="newest", aoi=aoi)
    job = asked[0].job
    assert job.scene.cell_size == (4, 4)
    assert job.scene.grid.bounds() == pytest.approx(extent, abs=4)
    assert job.scene.sources[0].path.endswith("20240102.tif")
    assert job.aoi == aoi
    assert job.scene.dtype == "uint8"


def test_where_it_is_made_reaches_the_map(model, scene, asked, monkeypatch, tmp_path):
    ended = []

    @contextmanager
    def connect(scheduler):
        yield f"client of {scheduler}"
        ended.append(scheduler)

    monkeypatch.setattr(mapping, "connect", connect)
    classify_pixels(scene, model, tmp_path / "map.tif", scheduler="tcp://there:8786", overwrite=True)
    classify_pixels(scene, model, tmp_path / "map.tif", client="mine", device="cpu")
    classify_pixels(scene, model, tmp_path / "map.tif")
    assert [call.client for call in asked] == ["client of tcp://there:8786", "mine", None]
    assert [call.overwrite for call in asked] == [True, False, False]
    assert {call.device for call in asked} == {"cpu"}
    assert ended == ["tcp://there:8786"]


def test_a_map_and_all_that_goes_with_it(model, scene, said, tmp_path):
    """An echo gives the raster back; the rest lies beside it."""
    places = {name: tmp_path / "new" / f"{name}.tif" for name in ("probabilities", "confidence", "disagreement")}
    out = classify_pixels(scene, model, tmp_path / "map.tif", polygons=tmp_path / "map.gpkg", **places)
    assert (read(out) == CODES[read(scene)]).all()
    assert [len(read(places[name])) for name in places] == [CLASSES, 1, 1]
    assert set(gpd.read_file(tmp_path / "map.gpkg")["code"]) == set(CODES.tolist())
    assert said[0] == f"Mapping {scene}, 83 x 61 pixels, on CPU, {torch.get_num_threads()} threads"
    assert said[-1] == "Note: 12 tiles, of 32 x 32 pixels."


def test_what_differs_is_said(model, make_raster, said, tmp_path):
    path = make_raster(data=levels(0).astype("uint16") * 200, cell=9.0, names=("level",))
    classify_pixels(path, model, tmp_path / "map.tif", tile_size=64)
    text = "\n".join(said)
    for words in ("the images hold uint16", "things show 4.5 times smaller", "tiles are 64 pixels wide",
                  "level lies between 200 and 1000"):  # fmt: skip
        assert words in text


def test_polygons_that_a_kill_prevented_are_made(model, scene, asked, tmp_path, monkeypatch):
    """The map is there from the same call: it is not made again, and is no reason to stop."""
    monkeypatch.undo()
    out = classify_pixels(scene, model, tmp_path / "map.tif")
    before = out.stat().st_mtime_ns
    classify_pixels(scene, model, out, polygons=tmp_path / "map.gpkg")
    assert (tmp_path / "map.gpkg").exists()
    assert out.stat().st_mtime_ns == before
    with pytest.raises(OutputError, match="exists already"):
        classify_pixels(scene, model, out, polygons=tmp_path / "map.gpkg")
    with pytest.raises(OutputError, match="exists already"):
        classify_pixels(scene, model, out, padding=3, polygons=tmp_path / "other.gpkg")


def test_each_image_by_itself(model, make_raster, said, tmp_path):
    """Into folders, under its own name; a second call makes only what is not there."""
    paths = [make_raster(f"in/{name}.tif", data=levels(i, (40 + i, 50)), names=("level",), origin=(6e5, 5e6 + i))
             for i, name in enumerate("ab")]  # fmt: skip
    folders = {name: tmp_path / name for name in ("polygons", "probabilities", "confidence")}
    found = classify_pixels(paths, model, tmp_path / "maps", per_image=True, **folders)
    assert found == [tmp_path / "maps" / "a.tif", tmp_path / "maps" / "b.tif"]
    for path, out in zip(paths, found, strict=True):
        assert (read(out) == CODES[read(path)]).all()
    made = {name: sorted(path.name for path in folder.glob("[a-z]*")) for name, folder in folders.items()}
    assert made["polygons"] == ["a.gpkg", "b.gpkg"]
    assert made["confidence"] == made["probabilities"] == ["a.tif", "b.tif"]
    times = [path.stat().st_mtime_ns for path in found]
    paths.append(make_raster("in/c.tif", data=levels(9), names=("level",)))
    (folders["polygons"] / "a.gpkg").unlink()
    said.clear()
    assert len(classify_pixels(paths, model, tmp_path / "maps", per_image=True, **folders)) == 3
    assert said[0] == "1 of 3 images are mapped already, from the same call; they stay."
    assert [path.stat().st_mtime_ns for path in found] == times
    assert (folders["polygons"] / "a.gpkg").exists()
    with pytest.raises(OutputError, match=r"a\.tif exists already"):
        classify_pixels(paths, model, tmp_path / "maps", per_image=True, padding=3)


def test_a_damaged_image_stops_no_other(model, make_raster, said, tmp_path):
    paths = [make_raster(f"{name}.tif", data=levels(i, (300, 300)), names=("level",), compress="deflate")
             for i, name in enumerate("abc")]  # fmt: skip
    content = paths[1].read_bytes()
    middle = len(content) // 2
    paths[1].write_bytes(content[:middle] + bytes([255]) * 500 + content[middle + 500 :])
    with pytest.raises(RasterError, match=r"1 of 3 images could not be mapped; the first: .*b\.tif"):
        classify_pixels(paths, model, tmp_path / "maps", per_image=True)
    assert sorted(path.name for path in (tmp_path / "maps").glob("*.tif")) == ["a.tif", "c.tif"]
    paths[1].write_bytes(content)
    assert len(classify_pixels(paths, model, tmp_path / "maps", per_image=True)) == 3
    assert (read(tmp_path / "maps" / "b.tif") == CODES[read(paths[1])]).all()


def test_images_that_the_area_misses_are_left_out(model, make_raster, make_labels, said, tmp_path):
    near, far = make_raster("near.tif", data=levels(0)), make_raster("far.tif", data=levels(1), origin=(7e5, 5e6))
    left, bottom, right, top = rasterio.open(near).bounds
    aoi = make_labels("aoi.gpkg", [shapely.box(left, (bottom + top) / 2, right, top)])
    found = classify_pixels([near, far], model, tmp_path / "maps", per_image=True, aoi=aoi)
    assert [path.name for path in found] == ["near.tif"]
    assert f"Note: {far} lies outside of {aoi}" in said[0]
    codes = read(found[0])[0]
    assert (codes[:30] != 255).all()
    assert (codes[31:] == 255).all()
    with pytest.raises(LabelError, match="miss the image"):
        classify_pixels(far, model, tmp_path / "map.tif", aoi=aoi)


def test_names_of_maps():
    def named(*names):
        return image_names([SimpleNamespace(layers=[SimpleNamespace(name=name)]) for name in names])

    assert named("/x/a.tif", "/x/b.1.TIF", "/x/T32_2020.0101") == ["a", "b.1", "T32_2020.0101"]
    assert named("/x/a.tif", "/y/a.jp2", "/y/b.tif") == ["x_a", "y_a", "b"]
    assert named("https://host/a%20b.tif?token=1&x=y") == ["a_20b"]
    assert named('NETCDF:"/x/a.nc":var') == ["a.nc_var"]


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"tile_sise": 64}, OptionError, "No such option: tile_sise; there are aoi, bands"),
        ({"client": 1, "scheduler": "local"}, OptionError, "client and scheduler are both given"),
        ({"bands": [1, 1]}, OptionError, "2 bands were given; the model needs level"),
        ({"bands": ["nir"]}, BandError, "no band nir"),
        ({"probability_type": "int8"}, OptionError, "probability_type is 'int8'; needed uint8 or float16"),
        ({"tile_size": 50}, ModelError, "multiple of 32"),
        ({"padding": 17}, OptionError, "17"),
        ({"sieve": -1}, OptionError, "sieve is -1"),
        ({"batch_size": 0}, OptionError, "batch_size is 0"),
        ({"precision": "fp8"}, OptionError, "precision is 'fp8'"),
        ({"extent": (0, 0, 1, 1)}, GridError, "No image lies in the extent"),
        ({"cell_size": -2}, OptionError, "cell_size is -2"),
        ({"device": "abacus"}, ModelError, "'abacus'"),
        ({"polygons": "map.dwg"}, OptionError, ".gpkg"),
        ({"scheduler": "local", "device": "abacus"}, ModelError, "'abacus'"),
    ],
)
def test_what_goes_wrong_is_said_first(options, error, says, model, scene, asked, tmp_path):
    with pytest.raises(error, match=says.replace(".", r"\.")):
        classify_pixels(scene, model, tmp_path / "map.tif", **options)
    assert not asked
    assert not (tmp_path / "map.tif").exists()


def test_a_model_without_background(model, scene, asked, tmp_path):
    legend = model.model.legend
    model.model.legend = type(legend)(legend.classes[1:])
    with pytest.raises(OptionError, match=r"predict_background is False, but the model has no class 'background'"):
        classify_pixels(scene, model, tmp_path / "map.tif", predict_background=False)


def test_no_output_harms_another(model, scene, make_raster, asked, tmp_path):
    out = tmp_path / "map.tif"
    with pytest.raises(OptionError, match="Two outputs have the same name"):
        classify_pixels(scene, model, out, confidence=tmp_path / "x" / ".." / "map.tif")
    with pytest.raises(OptionError, match="it would be lost"):
        classify_pixels(scene, model, scene, overwrite=True)
    with pytest.raises(OptionError, match="it would be lost"):
        classify_pixels(scene, model, scene.parent, per_image=True, overwrite=True)
    with pytest.raises(OptionError, match="Two outputs have the same name"):
        classify_pixels([scene, scene], model, tmp_path / "maps", per_image=True)
    with pytest.raises(OptionError, match="Two outputs have the same name"):
        classify_pixels(scene, model, tmp_path / "maps", per_image=True, confidence=tmp_path / "maps")
    out.touch()
    with pytest.raises(OutputError, match="exists already"):
        classify_pixels(scene, model, out)
    (tmp_path / "c.tif").touch()
    with pytest.raises(OutputError, match=r"c\.tif exists already"):
        classify_pixels(scene, model, tmp_path / "new.tif", confidence=tmp_path / "c.tif")
    assert not asked
