"""Options reach the map; mosaics and images by themselves; what goes wrong is messages before any work."""

from __future__ import annotations

import logging
import os
import re
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import shapely
import torch
from affine import Affine
from inference_common import CLASSES, trained_model
from rasterio.crs import CRS
from rasterio.shutil import copy

from geopsp import PixelClassifier, classify_pixels, raster_to_polygons
from geopsp.core.grid import Grid
from geopsp.core.pixel_values import PixelValues
from geopsp.errors import BandError, GridError, LabelError, ModelError, OptionError, OutputError, RasterError
from geopsp.inference import classify_pixels as mapping
from geopsp.inference import estimate, map_run, predict_parts
from geopsp.inference.input_check import compare_with_training
from geopsp.inference.job import MapJob
from geopsp.inference.options import MapSettings
from geopsp.inference.output_paths import image_names
from geopsp.labels.area import AreaOfInterest
from geopsp.models.device import device_name, resolve_precision
from geopsp.polygons import raster_to_polygons as tracing
from geopsp.raster.open_scenes import open_scenes

CODES = np.array([0, 0, 3, 4, 90, 254])
"""Of the classes that the echo makes of pixels 0 to 5."""


def in_memory(trained):
    """A classifier that was not saved."""
    found = PixelClassifier.__new__(PixelClassifier)
    found.model, found.device = trained, "cpu"
    return found


@pytest.fixture
def model():
    """A classifier that names the class which a pixel's value tells."""
    return in_memory(trained_model())


@pytest.fixture
def scene(make_raster):
    return make_raster("scene.tif", data=levels(1), nodata=0, names=("level",))


@pytest.fixture
def messages(monkeypatch):
    """The messages of maps."""
    found = []
    handler, logger = logging.Handler(), logging.getLogger("geopsp.inference")
    handler.emit = lambda record: found.append(record.getMessage())
    monkeypatch.setattr(logger, "handlers", [handler])
    return found


@pytest.fixture
def asked(monkeypatch):
    """What run_job is asked for, in place of doing it."""
    calls = []

    def record_call(job, model, **options):
        calls.append(SimpleNamespace(job=job, model=model, **options))

    monkeypatch.setattr(map_run, "run_job", record_call)
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
        ("precision", "fp16"),
        ("compiled", True),
    ],
)
def test_settings_reach_the_map(option, value, model, scene, asked, tmp_path):
    classify_pixels(scene, model, tmp_path / "map.tif", **{option: value})
    job = asked[0].job
    assert job.settings == MapSettings(**{option: value})
    assert job.precision == (value if option == "precision" else resolve_precision("auto", torch.device("cpu")))
    assert job.compiled == (option == "compiled")
    assert job.excluded_channels == ((0,) if option == "predict_background" else ())
    assert job.tiles.size == (value if option == "tile_size" else 32)
    assert job.tiles.overlap == (5 if option == "padding" else job.tiles.size // 4)


def test_places_reach_the_map(model, scene, asked, tmp_path):
    places = {name: tmp_path / f"{name}.tif" for name in ("probabilities", "confidence", "disagreement")}
    out = classify_pixels(scene, model, tmp_path / "map.tif", probability_type="float16", **places)
    assert out == tmp_path / "map.tif"
    found = {product.name: product for product in asked[0].job.rasters}
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
    assert job.aoi.source == aoi
    assert job.scene.dtype == "uint8"


def test_where_it_is_made_reaches_the_map(model, scene, asked, monkeypatch, tmp_path):
    ended = []
    mine, theirs = (SimpleNamespace(map=print, nthreads=dict) for _ in range(2))

    @contextmanager
    def connect(scheduler, *, gpus):
        yield theirs
        ended.append(scheduler)

    monkeypatch.setattr("geopsp.cluster.client.connect", connect)
    classify_pixels(scene, model, tmp_path / "map.tif", scheduler="tcp://there:8786", overwrite=True)
    classify_pixels(scene, model, tmp_path / "map.tif", client=mine, device="cpu")
    classify_pixels(scene, model, tmp_path / "map.tif")
    assert [call.client for call in asked] == [theirs, mine, None]
    assert [call.overwrite for call in asked] == [True, False, False]
    assert {call.device for call in asked} == {"cpu"}
    assert ended == ["tcp://there:8786"]


def test_a_map_and_all_that_goes_with_it(model, scene, messages, tmp_path):
    """An echo gives the raster back; the rest lies beside it."""
    places = {name: tmp_path / "new" / f"{name}.tif" for name in ("probabilities", "confidence", "disagreement")}
    out = classify_pixels(scene, model, tmp_path / "map.tif", polygons=tmp_path / "map.gpkg", **places)
    assert (read(out) == CODES[read(scene)]).all()
    assert [len(read(places[name])) for name in places] == [CLASSES, 1, 1]
    assert set(gpd.read_file(tmp_path / "map.gpkg", layer="map")["code"]) == set(CODES.tolist())
    assert messages[0] == f"Classifying {scene} (83 x 61 pixels) on {device_name(torch.device('cpu'))}."
    assert messages[-2] == "12 tiles of 32 x 32 pixels."
    assert messages[-1].startswith("Output: up to ")
    assert messages[-1].endswith(" free).")


def test_polygons_are_made_as_asked_and_know_how_sure_the_map_is(model, scene, messages, tmp_path):
    options = {"keep": [4], "dissolve": True, "min_area": 20.0}
    places = {"polygons": tmp_path / "p.parquet", "confidence": tmp_path / "c.tif"}
    out = classify_pixels(scene, model, tmp_path / "map.tif", polygon_options=options, **places)
    found = gpd.read_parquet(tmp_path / "p.parquet")
    assert found.code.tolist() == [4]
    assert found.confidence.between(0, 1).all()
    wanted = raster_to_polygons(out, tmp_path / "w.parquet", confidence=places["confidence"], **options)
    assert gpd.read_parquet(wanted).equals(found)


def test_what_differs_is_said(model, make_raster, messages, tmp_path):
    path = make_raster(data=levels(0).astype("uint16") * 200, cell=9.0, names=("level",))
    classify_pixels(path, model, tmp_path / "map.tif", tile_size=64, allow_resolution_mismatch=True)
    text = "\n".join(messages)
    for words in ("The images are uint16", "Objects appear 4.5x smaller", "Tiles are 64 pixels wide",
                  "level is 200 to 1000"):  # fmt: skip
        assert words in text


def test_polygons_that_a_kill_prevented_are_made(model, scene, asked, tmp_path, monkeypatch):
    """The map is there from the same call: it is not made again, and is no reason to stop."""
    monkeypatch.undo()
    out = classify_pixels(scene, model, tmp_path / "map.tif")
    before = out.stat().st_mtime_ns
    classify_pixels(scene, model, out, polygons=tmp_path / "map.gpkg")
    assert (tmp_path / "map.gpkg").exists()
    assert out.stat().st_mtime_ns == before
    with pytest.raises(OutputError, match="already exists"):
        classify_pixels(scene, model, out, polygons=tmp_path / "map.gpkg")
    with pytest.raises(OutputError, match="already exists"):
        classify_pixels(scene, model, out, padding=3, polygons=tmp_path / "other.gpkg")


def test_each_image_by_itself(model, make_raster, messages, tmp_path):
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
    assert made["confidence"] == made["probabilities"] == ["a.qml", "a.tif", "b.qml", "b.tif"]
    times = [path.stat().st_mtime_ns for path in found]
    paths.append(make_raster("in/c.tif", data=levels(9), names=("level",)))
    (folders["polygons"] / "a.gpkg").unlink()
    messages.clear()
    assert len(classify_pixels(paths, model, tmp_path / "maps", per_image=True, **folders)) == 3
    assert messages[0] == "1 of 3 images are mapped already by the same call; they are kept."
    assert [path.stat().st_mtime_ns for path in found] == times
    assert (folders["polygons"] / "a.gpkg").exists()
    with pytest.raises(OutputError, match=r"a\.tif already exists"):
        classify_pixels(paths, model, tmp_path / "maps", per_image=True, padding=3)


def test_a_damaged_image_stops_no_other(model, make_raster, messages, tmp_path):
    paths = [make_raster(f"{name}.tif", data=levels(i, (300, 300)), names=("level",), compress="deflate")
             for i, name in enumerate("abc")]  # fmt: skip
    content = paths[1].read_bytes()
    middle = len(content) // 2
    paths[1].write_bytes(content[:middle] + bytes([255]) * 500 + content[middle + 500 :])
    with pytest.raises(RasterError, match=r"1 of 3 images could not be mapped. The first: .*b\.tif"):
        classify_pixels(paths, model, tmp_path / "maps", per_image=True)
    assert sorted(path.name for path in (tmp_path / "maps").glob("*.tif")) == ["a.tif", "c.tif"]
    paths[1].write_bytes(content)
    assert len(classify_pixels(paths, model, tmp_path / "maps", per_image=True)) == 3
    assert (read(tmp_path / "maps" / "b.tif") == CODES[read(paths[1])]).all()


@pytest.fixture
def begun(monkeypatch):
    """What becomes of images on a cluster that makes nothing: begun, ended, or taken back."""
    events, errors = [], {}

    @contextmanager
    def begun_map(job, model, **options):
        events.append(f"+{job.out.stem}")
        if error := errors.get(f"+{job.out.stem}"):
            raise error

        def finish(progress):
            if error := errors.get(job.out.stem):
                raise error
            events.append(job.out.stem)

        try:
            yield finish
        except BaseException:
            events.append(f"-{job.out.stem}")
            raise

    monkeypatch.setattr(map_run, "start_job", begun_map)
    return SimpleNamespace(events=events, errors=errors)


def cluster_of(threads):
    return SimpleNamespace(map=print, nthreads=lambda: {"a": threads})


@pytest.mark.parametrize(
    ("threads", "expected"),
    [
        (0, "+a a +b b +c c +d d"),  # nobody has joined yet
        (1, "+a +b +c a +d b c d"),
        (9, "+a +b +c +d a b c d"),
    ],
)
def test_workers_have_the_next_images_while_one_ends(threads, expected, model, make_raster, begun, messages, tmp_path):
    """Two parts a thread of those to come, and no more."""
    paths = [make_raster(f"{name}.tif", data=levels(0), names=("level",)) for name in "abcd"]
    found = classify_pixels(paths, model, tmp_path / "maps", per_image=True, client=cluster_of(threads))
    assert [path.stem for path in found] == list("abcd")
    assert " ".join(begun.events) == expected


def test_images_that_only_lack_polygons_are_no_work_for_workers(
    model, make_raster, begun, messages, tmp_path, monkeypatch
):
    """Their parts count neither as waiting for a thread, nor in how many parts the others are made."""
    paths = [make_raster(f"{name}.tif", data=levels(0), names=("level",)) for name in "abcd"]
    classify_pixels(paths[1:2], model, tmp_path / "maps", per_image=True)
    shares, parted, traced = [], MapJob.with_parts, []
    monkeypatch.setattr(MapJob, "with_parts", lambda job, threads=1: shares.append(threads) or parted(job, threads))
    monkeypatch.setattr(tracing, "raster_to_polygons", lambda out, place, **_: traced.append(place.stem))
    options = {"per_image": True, "polygons": tmp_path / "lines"}
    for threads, expected, share in ((1, "+a +c +d a c d", 1), (8, "+a +c +d a c d", 3)):
        begun.events.clear()
        shares.clear()
        classify_pixels(paths, model, tmp_path / "maps", client=cluster_of(threads), **options)
        assert " ".join(begun.events) == expected
        assert set(shares) == {share}
    assert traced == list("abcd") * 2


@pytest.mark.parametrize("at", ["+b", "b"])
def test_an_image_that_fails_on_a_cluster_is_named_and_others_stay(at, model, make_raster, begun, messages, tmp_path):
    """An image that cannot be read stops no other; what would stop all is told when the images before are mapped."""
    paths = [make_raster(f"{name}.tif", data=levels(0), names=("level",)) for name in "abc"]
    options = {"per_image": True, "client": cluster_of(9)}
    begun.errors[at] = RasterError("it is torn")
    with pytest.raises(RasterError, match=r"1 of 3 images could not be mapped\. The first: it is torn"):
        classify_pixels(paths, model, tmp_path / "maps", **options)
    assert [event for event in begun.events if event in "abc"] == ["a", "c"]
    begun.events.clear()
    begun.errors[at] = OptionError("Each worker died.")
    with pytest.raises(OptionError, match=r"b\.tif: Each worker died\. 0 of 3 images are mapped; the same"):
        classify_pixels(paths, model, tmp_path / "maps", **options)
    assert [event for event in begun.events if event in "abc"] == ["a"]
    assert begun.events[-1] == "-c", "its parts are taken back"


def test_what_all_images_cost_is_told_before_the_first(model, make_raster, messages, tmp_path):
    paths = [make_raster(f"{name}.tif", data=levels(0), names=("level",)) for name in "ab"]
    classify_pixels(paths, model, tmp_path / "maps", per_image=True)
    one, two = (next(n for n, line in enumerate(messages) if words in line) for words in ("2 images: ", "Classifying "))
    assert one < two
    tiles = [int(line.split(" tiles")[0].rsplit(" ")[-1]) for line in messages if " tiles" in line]
    assert tiles[0] == sum(tiles[1:])


def test_the_time_is_told_once_and_nothing_is_made_apart_here(model, make_raster, messages, tmp_path, monkeypatch):
    """For all images together; for the only one that is left, by itself."""
    monkeypatch.setattr(estimate, "MIN_TIMED_TILES", 1)
    monkeypatch.setattr(predict_parts, "tile_seconds", lambda *_: 3.0)
    monkeypatch.setattr(MapJob, "with_parts", lambda job, _=1: replace(job, parts=replace(job.parts, part_height=512)))
    paths = [make_raster(f"{name}.tif", data=levels(0, (1100, 40)), names=("level",)) for name in "abc"]
    options = {"per_image": True, "tile_size": 256}
    classify_pixels(paths[:2], model, tmp_path / "maps", **options)
    assert any("in 3 parts" in line for line in messages)
    classify_pixels(paths, model, tmp_path / "maps", polygons=tmp_path / "lines", **options)
    assert sum(" of memory (" in line for line in messages) == 2
    assert not any("more tiles" in line for line in messages)


def test_what_a_kill_left_of_an_image_that_is_done_is_cleared(model, make_raster, messages, tmp_path):
    paths = [make_raster(f"{name}.tif", data=levels(0), names=("level",)) for name in "ab"]
    options = {"per_image": True, "polygons": tmp_path / "lines"}
    out = classify_pixels(paths, model, tmp_path / "maps", **options)
    (tmp_path / "lines" / "b.gpkg").unlink()
    files = [*out, tmp_path / "lines" / "a.gpkg"]
    times = [path.stat().st_mtime_ns for path in files]
    for name in "ab":
        (tmp_path / "maps" / f".partial-{name}.tif").mkdir()
    classify_pixels(paths, model, tmp_path / "maps", **options)
    assert not list((tmp_path / "maps").glob(".*"))
    assert [path.stat().st_mtime_ns for path in files] == times


def test_the_area_is_opened_once(model, make_raster, make_labels, messages, tmp_path, monkeypatch):
    paths = [make_raster(f"{name}.tif", data=levels(0), names=("level",)) for name in "ab"]
    aoi, opened, read_area = (
        make_labels("aoi.gpkg", [shapely.box(*rasterio.open(paths[0]).bounds)]),
        [],
        AreaOfInterest.read,
    )
    monkeypatch.setattr(AreaOfInterest, "read", lambda named: opened.append(named) or read_area(named))
    classify_pixels(paths, model, tmp_path / "maps", per_image=True, aoi=aoi)
    assert opened == [aoi]


def test_images_that_the_area_misses_are_left_out(model, make_raster, make_labels, messages, tmp_path):
    near, far = make_raster("near.tif", data=levels(0)), make_raster("far.tif", data=levels(1), origin=(7e5, 5e6))
    left, bottom, right, top = rasterio.open(near).bounds
    aoi = make_labels("aoi.gpkg", [shapely.box(left, (bottom + top) / 2, right, top)])
    found = classify_pixels([near, far], model, tmp_path / "maps", per_image=True, aoi=aoi)
    assert [path.name for path in found] == ["near.tif"]
    assert f"{far} is skipped: it lies outside {aoi}" in messages[0]
    codes = read(found[0])[0]
    assert (codes[:30] != 255).all()
    assert (codes[31:] == 255).all()
    with pytest.raises(LabelError, match="do not overlap the image"):
        classify_pixels(far, model, tmp_path / "map.tif", aoi=aoi)


def test_a_scene_too_large_to_map():
    crs, most = CRS.from_epsg(32632), mapping.MAX_SIDE
    for width, height in ((most, 1), (1, most)):
        scene = SimpleNamespace(name="a", grid=Grid(crs, Affine.scale(1e-6, -1e-6), width, height))
        mapping.check_size(scene)
        scene.grid = Grid(crs, scene.grid.transform, width + width // most, height + height // most)
        with pytest.raises(GridError, match=r"10,000,001.* pixels of 1e-06 \(metre\).*cell_size"):
            mapping.check_size(scene)


def test_names_of_maps():
    def named(*names):
        return image_names([SimpleNamespace(layers=[SimpleNamespace(name=name)]) for name in names])

    assert named("/x/a.tif", "/x/b.1.TIF", "/x/T32_2020.0101") == ["a", "b.1", "T32_2020.0101"]
    assert named("/x/a.tif", "/y/a.jp2", "/y/b.tif") == ["x_a", "y_a", "b"]
    assert named("https://host/a%20b.tif?token=1&x=y") == ["a_20b"]
    assert named('NETCDF:"/x/a.nc":var') == ["a.nc_var"]
    assert named("/x/a b.tif", "/x/a_b.tif", "/x/c.tif") == ["a_b-806c5cd3", "a_b-28cb39ea", "c"]
    assert len({name.casefold() for name in named("/x/A b.tif", "/x/a_b.tif", "/x/a%b.tif")}) == 3


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"tile_sise": 64}, OptionError, "no option `tile_sise`. Did you mean `tile_size`?"),
        ({"client": 1, "scheduler": "local"}, OptionError, "`client` and `scheduler` are both given"),
        ({"bands": [1, 2]}, OptionError, "2 bands are given, but the model needs level"),
        ({"bands": [1, 1]}, OptionError, "`bands` has 1 twice"),
        ({"bands": ["Nir", "nir"]}, OptionError, "`bands` has Nir twice"),
        ({"bands": [1, "band_1"]}, OptionError, "`bands` has 1 twice"),
        ({"bands": "red"}, OptionError, "`bands` is 'red', but must be a list"),
        ({"bands": 5}, OptionError, "`bands` is 5, but must be a list"),
        ({"bands": [1.0]}, OptionError, "`bands` is [1.0], but must be a list"),
        ({"bands": [True]}, OptionError, "`bands` is [True], but must be a list"),
        ({"overwrite": "no"}, OptionError, "`overwrite` is 'no', but must be True or False"),
        ({"per_image": 1}, OptionError, "`per_image` is 1, but must be True or False"),
        ({"compiled": 1}, OptionError, "`compiled` is 1, but must be True or False"),
        ({"predict_background": 0}, OptionError, "`predict_background` is 0, but must be"),
        ({"test_time_augmentation": "yes"}, OptionError, "`test_time_augmentation` is 'yes', but must be"),
        ({"sieve": True}, OptionError, "`sieve` is True, but must be a whole number"),
        ({"sieve": None}, OptionError, "`sieve` is None, but must be a whole number"),
        ({"padding": False}, OptionError, "`padding` is False, but must be a whole number"),
        ({"cell_size": True}, OptionError, "`cell_size` is True"),
        ({"cell_size": 1e-6}, GridError, "166,000,000 x 122,000,000 pixels of 1e-06 (metre)"),
        ({"order": None}, OptionError, "`order` is None"),
        ({"order": 3}, OptionError, "`order` is 3"),
        ({"device": 0}, OptionError, "`device` is 0"),
        ({"client": "tcp://a:1"}, OptionError, "`client` is 'tcp://a:1', but must be a Dask client"),
        ({"confidence": ""}, OptionError, "`confidence` is '', but must be the path"),
        ({"probabilities": 7}, OptionError, "`probabilities` is 7, but must be the path"),
        ({"aoi": ""}, OptionError, "`aoi` is '', but must be the path"),
        ({"disagreement": "d.png"}, OptionError, "`disagreement` is d.png, but must end in .tif"),
        ({"polygons": "p.gpkg/"}, OptionError, "`polygons` is p.gpkg/, a folder"),
        ({"bands": ["nir"]}, BandError, "no band nir"),
        (
            {"probability_type": "int8"},
            OptionError,
            "`probability_type` is 'int8', but must be one of 'uint8'",
        ),
        ({"tile_size": 50}, ModelError, "multiple of 32"),
        ({"padding": 17}, OptionError, "17"),
        ({"sieve": -1}, OptionError, "`sieve` is -1"),
        ({"batch_size": 0}, OptionError, "`batch_size` is 0"),
        ({"precision": "fp8"}, OptionError, "`precision` is 'fp8'"),
        ({"extent": (0, 0, 1, 1)}, GridError, "No image lies in the extent"),
        ({"cell_size": -2}, OptionError, "`cell_size` is -2"),
        ({"device": "abacus"}, ModelError, "'abacus'"),
        ({"polygons": "map.dwg"}, OptionError, ".gpkg"),
        (
            {"polygon_options": {"simplify": 2}},
            OptionError,
            "`simplify` only applies to polygon output. Add",
        ),
        (
            {"polygon_options": {"confidence": "c.tif"}},
            OptionError,
            "`polygon_options` has no option `confidence`. The options",
        ),
        ({"polygon_options": "simplify"}, OptionError, "`polygon_options` is 'simplify', but must be a dict"),
        ({"polygons": "p.gpkg", "polygon_options": {"smooth": -1}}, OptionError, "`smooth` is -1"),
        ({"polygons": "p.gpkg", "polygon_options": {"keep": ["moon"]}}, OptionError, "has no class 'moon'"),
        ({"scheduler": "local", "device": "abacus"}, ModelError, "'abacus'"),
    ],
)
def test_what_goes_wrong_is_said_first(options, error, says, model, scene, asked, tmp_path):
    with pytest.raises(error, match=re.escape(says)):
        classify_pixels(scene, model, tmp_path / "map.tif", **options)
    assert not asked
    assert not (tmp_path / "map.tif").exists()


def test_a_model_without_background(model, scene, asked, tmp_path):
    legend = model.model.legend
    model.model.legend = type(legend)(legend.classes[1:])
    with pytest.raises(OptionError, match=r"predict_background` is False, but the model has no class 'background'"):
        classify_pixels(scene, model, tmp_path / "map.tif", predict_background=False)


def test_no_output_harms_another(model, scene, make_raster, asked, tmp_path):
    out = tmp_path / "map.tif"
    with pytest.raises(OptionError, match="Two outputs have the same name"):
        classify_pixels(scene, model, out, confidence=tmp_path / "x" / ".." / "map.tif")
    with pytest.raises(OptionError, match="which would be lost"):
        classify_pixels(scene, model, scene, overwrite=True)
    with pytest.raises(OptionError, match="which would be lost"):
        classify_pixels(scene, model, scene.parent, per_image=True, overwrite=True)
    with pytest.raises(OptionError, match=r"scene\.tif is given 2 times, but each image has one map"):
        classify_pixels([scene, scene], model, tmp_path / "maps", per_image=True)
    with pytest.raises(OptionError, match="Two outputs have the same name"):
        classify_pixels(scene, model, tmp_path / "maps", per_image=True, confidence=tmp_path / "maps")
    out.touch()
    with pytest.raises(OutputError, match="already exists"):
        classify_pixels(scene, model, out)
    (tmp_path / "c.tif").touch()
    with pytest.raises(OutputError, match=r"c\.tif already exists"):
        classify_pixels(scene, model, tmp_path / "new.tif", confidence=tmp_path / "c.tif")
    assert not asked


@pytest.mark.parametrize("name", ["map", "map.png", "map.tif.gz", "map.tif/", ".", ""])
def test_a_map_is_a_geotiff(name, model, scene, asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(OptionError, match=r"out`? is"):
        classify_pixels(scene, model, name)
    assert not asked


@pytest.mark.parametrize("model", [5, None, "", []])
def test_what_is_no_model(model, scene, tmp_path):
    with pytest.raises(OptionError, match="The model is"):
        classify_pixels(scene, model, tmp_path / "map.tif")


def test_maps_of_each_image_go_into_a_folder(model, scene, asked, tmp_path, monkeypatch):
    """Which may be the one that we are in, or end in a slash, but is no file."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file.tif").touch()
    with pytest.raises(OptionError, match=r"`out` is file\.tif, which is a file, but must be a folder"):
        classify_pixels(scene, model, "file.tif", per_image=True)
    with pytest.raises(OptionError, match=r"`confidence` is .* which is a file, but must be a folder"):
        classify_pixels(scene, model, "maps", per_image=True, confidence="file.tif")
    assert classify_pixels(scene, model, "maps/", per_image=True)[0].name == "scene.tif"
    (tmp_path / "here").mkdir()
    monkeypatch.chdir(tmp_path / "here")
    assert len(classify_pixels(scene, model, ".", per_image=True)) == 1


def test_nothing_that_is_read_is_written_over(model, make_raster, make_labels, asked, tmp_path, monkeypatch):
    """Members of VRTs, also in VRTs; the area; the model. Also by another way to write their names."""
    member, vrt, outer = make_raster("a/member.tif", data=levels(1)), tmp_path / "b.vrt", tmp_path / "c.vrt"
    copy(member, vrt, driver="VRT")
    copy(vrt, outer, driver="VRT")
    left, bottom, right, top = rasterio.open(member).bounds
    aoi = make_labels("aoi.gpkg", [shapely.box(left, bottom, right, top)])
    folder = tmp_path / "model"
    folder.mkdir()
    for name in ("model.json", "odd.tif"):
        (folder / name).touch()
    monkeypatch.setattr("geopsp.inference.engines._with_torch", lambda path: model.model)
    options = {"aoi": f"{aoi}|layername={aoi.stem}", "overwrite": True}
    around = tmp_path / "x" / ".." / "a" / "member.tif"
    for place in (member, around, folder / "odd.tif"):
        with pytest.raises(OptionError, match="which would be lost"):
            classify_pixels(outer, folder, place, **options)
    for place, words in ((aoi, "is the area"), (folder / "model.json", "is part of the model")):
        with pytest.raises(OptionError, match=f"{words}.*which would be lost"):
            classify_pixels(outer, folder, tmp_path / "m.tif", polygons=place, **options)
    assert not asked
    classify_pixels(outer, folder, tmp_path / "m.tif", confidence=tmp_path / "p.tif", aoi=str(aoi))
    assert len(asked) == 1


def test_old_polygons_are_not_taken_for_those_of_the_map(model, scene, messages, tmp_path, monkeypatch):
    """Those of a run before, of which a kill left the map only: traced anew, and the map is not made again."""
    out, polygons = tmp_path / "map.tif", tmp_path / "map.gpkg"
    classify_pixels(scene, model, out, polygons=polygons, padding=3)
    monkeypatch.setattr(tracing, "raster_to_polygons", stop)
    with pytest.raises(Killed):
        classify_pixels(scene, model, out, polygons=polygons, overwrite=True)
    monkeypatch.undo()
    made, old = out.stat().st_mtime_ns, polygons.stat().st_mtime_ns
    assert old < made
    with pytest.raises(OutputError, match=r"map\.gpkg already exists"):
        classify_pixels(scene, model, out, polygons=polygons)
    monkeypatch.setattr(map_run, "run_job", stop)
    classify_pixels(scene, model, out, polygons=polygons, overwrite=True)
    assert polygons.stat().st_mtime_ns > made == out.stat().st_mtime_ns
    with pytest.raises(Killed):  # all is there: made again, as was asked
        classify_pixels(scene, model, out, polygons=polygons, overwrite=True)


class Killed(BaseException):
    pass


def stop(*_, **__):
    raise Killed


def test_old_polygons_of_one_image_are_traced_anew(model, make_raster, messages, tmp_path):
    paths = [make_raster(f"in/{name}.tif", data=levels(i, (40, 50)), names=("level",)) for i, name in enumerate("ab")]
    options = {"per_image": True, "polygons": tmp_path / "lines"}
    maps = classify_pixels(paths, model, tmp_path / "maps", **options)
    old = tmp_path / "lines" / "b.gpkg"
    os.utime(old, ns=(1, 1))
    times = [path.stat().st_mtime_ns for path in maps]
    with pytest.raises(OutputError, match=r"b\.gpkg already exists"):
        classify_pixels(paths, model, tmp_path / "maps", **options)
    classify_pixels(paths, model, tmp_path / "maps", overwrite=True, **options)
    assert old.stat().st_mtime_ns > times[1]
    assert [path.stat().st_mtime_ns for path in maps] == times


def test_other_polygons_of_images_that_are_mapped(model, make_raster, messages, tmp_path):
    """They stay, and that is messages; with overwrite they are made anew, of the maps that are there."""
    paths = [make_raster(f"in/{name}.tif", data=levels(i, (40, 50)), names=("level",)) for i, name in enumerate("ab")]
    places = {"per_image": True, "polygons": tmp_path / "lines"}
    maps = classify_pixels(paths, model, tmp_path / "maps", **places)
    files = [tmp_path / "lines" / f"{name}.gpkg" for name in "ab"]
    times, before = [path.stat().st_mtime_ns for path in maps], [path.read_bytes() for path in files]

    def again(**options):
        messages.clear()
        classify_pixels(paths, model, tmp_path / "maps", **places, **options)
        assert [path.stat().st_mtime_ns for path in maps] == times
        return messages[0]

    stay = "2 of 2 images are mapped already by the same call; they are kept"
    assert again() == f"{stay}."
    words = f"{stay}, and their polygons as they are: `overwrite=True` makes these again."
    assert again(polygon_options={"dissolve": True}) == words
    assert [path.read_bytes() for path in files] == before
    words = "2 of 2 images are mapped already by the same call; the maps are kept, and polygons are made again."
    assert again(polygon_options={"dissolve": True}, overwrite=True) == words
    assert [len(gpd.read_file(path, layer=path.stem)) for path in files] == [CLASSES] * 2
    again(overwrite=True)
    assert min(len(gpd.read_file(path, layer=path.stem)) for path in files) > 100


# Values and sizes of pixels


def tagged(make_raster, name, data, scale, dtype="int16"):
    """A file whose physical values are `data`."""
    path = make_raster(name, np.rint((data - scale[1]) / scale[0]).astype(dtype))
    with rasterio.open(path, "r+") as dataset:
        dataset.scales, dataset.offsets = (scale[0],), (scale[1],)
    return path


@pytest.mark.parametrize(
    "trained",
    [PixelValues(scaled=True, scales=((0.5, 0),)), PixelValues(scales=((1.0, -7.0),)), PixelValues(scaled=True)],
)
def test_a_model_reads_the_values_that_it_was_trained_on(trained, make_raster, tmp_path):
    """Whatever the scale and offset of the image: the maps are the same."""
    physical, model = levels(0).astype(float), trained_model(dtype="float32")
    model.pixel_values = trained
    if not trained.scaled:
        physical -= 7  # the network knows raw values
    maps = []
    for number, scale in enumerate([(0.5, 0.0), (0.25, -40.0), (-0.5, 3.0)]):
        path = tagged(make_raster, f"{number}.tif", physical, scale)
        maps.append(read(classify_pixels(path, in_memory(model), tmp_path / f"map{number}.tif", device="cpu")))
    codes = CODES[levels(0)]
    for found in maps:
        np.testing.assert_array_equal(found, codes)


def test_an_image_without_a_scale_is_said(make_raster):
    trained = trained_model()
    trained.pixel_values = PixelValues(scales=((0.5, 0.0),))
    path = make_raster(data=levels(0))
    (scene,) = open_scenes(path, like=trained.pixel_values)
    (warning,) = [text for text in compare_with_training(scene, trained) if "scale" in text]
    assert "has no scale and offset, but the model was trained on raw values (scale 0.5, offset 0)" in warning


def test_pixels_of_another_size_are_refused(make_raster, asked, tmp_path):
    model = in_memory(trained_model(cell=0.149))
    path = make_raster(data=levels(0), cell=28.5)
    with pytest.raises(GridError, match=r"191x finer.*`cell_size=0\.149`.*`allow_resolution_mismatch=True`"):
        classify_pixels(path, model, tmp_path / "map.tif")
    classify_pixels(path, model, tmp_path / "map.tif", allow_resolution_mismatch=True)
    classify_pixels(path, model, tmp_path / "map.tif", cell_size=0.5)
    assert len(asked) == 2
