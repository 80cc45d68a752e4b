"""What differs between a scene and the training is said in words, with numbers."""

from __future__ import annotations

import re

import numpy as np
import pytest
from affine import Affine
from common import examples
from hypothesis import given, settings
from hypothesis import strategies as st
from rasterio.crs import CRS
from torch import nn

from geopsp.core.bands import BandStats
from geopsp.core.grid import Grid, Window
from geopsp.core.legend import Legend
from geopsp.inference import input_check
from geopsp.inference.input_check import (
    compare_with_training,
    sample_statistics,
    sample_windows,
)
from geopsp.models.build import ModelSpec
from geopsp.models.saved_model import TrainedModel
from geopsp.raster.scene import Scene


def model_of(*, dtype="uint8", cell=2.0, units="metre", bands=("red", "green", "blue"), pixels=None, tile_size=64):
    """A model that was trained on such pixels, (bands, n); of uniform ones from 1 to 200."""
    if pixels is None:
        pixels = np.random.default_rng(1).integers(1, 200, (len(bands), 5000)).astype(dtype)
    statistics = BandStats.from_array(pixels[..., None], np.ones((pixels.shape[1], 1), bool))
    spec = ModelSpec("tu-test_resnet", len(bands), 2)
    legend = Legend.from_names({0: "background", 1: "a"})
    return TrainedModel(spec, legend, bands, statistics, dtype, tile_size, (cell, cell), units, network=nn.Identity())


def grid_at(crs, x, y, cell, *, width=200, height=100):
    """Centred there."""
    step = (cell, cell) if np.isscalar(cell) else cell
    return Grid(
        CRS.from_user_input(crs),
        Affine(step[0], 0, x - width / 2 * step[0], 0, -step[1], y + height / 2 * step[1]),
        width,
        height,
    )


def count_reads(monkeypatch):
    """The windows of any scene that are read from now on."""
    reads = []
    monkeypatch.setattr(Scene, "read", lambda self, window, read=Scene.read: reads.append(window) or read(self, window))
    return reads


def test_nothing_to_say_of_what_was_trained_on(make_raster):
    assert compare_with_training(Scene.open(make_raster()), model_of(), tile_size=64) == []
    assert compare_with_training(Scene.open(make_raster()), model_of()) == []


def test_another_type_and_tile(make_raster):
    scene = Scene.open(make_raster(dtype="uint16"))
    kind, tile = compare_with_training(scene, model_of(), tile_size=96)
    assert kind == "The images are uint16, but the model was trained on uint8."
    assert "96 pixels wide, but the model was trained on 64" in tile


@pytest.mark.parametrize(
    ("cell", "units", "trained", "says"),
    [
        (2.0, "metre", 2.4, None),
        (2.0, "metre", 1.0, "size is 2 m, but the model was trained at 1 m (2x finer). Objects appear 2x smaller"),
        (
            0.5,
            "metre",
            2.0,
            "(4x coarser). Objects appear 4x larger|Resample the images with `cell_size=2`.",
        ),
        (2.0, "US survey foot", 6.56, None),
        (2.0, "foot", 1.0, "size is 2 m, but the model was trained at 1 foot (6.57x finer)"),
        (2.0, "degree", 1.8e-5, None),
        (
            2.0,
            "degree",
            9e-5,
            "Objects appear 5x larger than in training|Resample the images with `cell_size=10.0",
        ),
        (2.0, "cubit", 1.0, None),
        (
            2000.0,
            "metre",
            1.0,
            "2,000x smaller than in training, so results will be|Train a model for this resolution.",
        ),
    ],
)
def test_pixel_sizes(cell, units, trained, says, make_raster):
    scene = Scene.open(make_raster(cell=cell))
    notes = [note for note in compare_with_training(scene, model_of(cell=trained, units=units)) if "values" not in note]
    assert len(notes) == (says is not None)
    for words in (says or "").split("|"):
        assert not words or words in notes[0]


def test_the_cell_size_that_is_named_helps(make_raster):
    """Opened as it says, the scene needs no further word."""
    path = make_raster(size=(300, 200), cell=0.5)
    model = model_of(cell=6.0, units="US survey foot")
    (note,) = compare_with_training(Scene.open(path), model)
    size = float(re.search(r"`cell_size=([\d.]+)`", note)[1])
    assert size == pytest.approx(6 * 1200 / 3937, rel=0.01)
    assert compare_with_training(Scene.open(path, cell_size=size), model) == []


@pytest.mark.parametrize(
    ("crs", "x", "y", "cell", "says"),
    [
        ("EPSG:32632", 5e5, 5.3e6, 2.0, ()),
        ("EPSG:3857", 1e6, 1e5, 2.0, ()),
        ("EPSG:3857", 1e6, 8.4e6, 2.0, ("2 m are 1 m high on the ground, because WGS 84 / Pseudo-Mercator",)),
        ("EPSG:4326", 11.0, 0.0, 1e-5, ()),
        ("EPSG:4326", 11.0, 60.0, 1e-5, ("0.557 m wide and 1.11 m high", "objects look wider")),
    ],
)
def test_distorted_pixels(crs, x, y, cell, says):
    grid = grid_at(crs, x, y, cell)
    units = "degree" if crs == "EPSG:4326" else "metre"
    notes = list(input_check._pixel_size(grid, model_of(cell=cell, units=units)))
    assert len(notes) == bool(says)
    for words in says:
        assert words in notes[0]


def test_bands_without_names_are_taken_in_order(make_raster):
    """Unless they are chosen by number."""
    path, model = make_raster(bands=2), model_of(bands=("red", "nir"))
    (note,) = compare_with_training(Scene.open(path, bands=model.bands), model)
    assert "image.tif has no band names, so its bands are taken in this order: red, nir." in note
    assert compare_with_training(Scene.open(path, bands=[1, 2]), model) == []


def test_a_pixel_of_two_sides():
    grid = grid_at("EPSG:32632", 5e5, 5.3e6, (3.0, 2.0))
    (note,) = input_check._pixel_size(grid, model_of())
    assert "3 m wide and 2 m high" in note
    assert "narrower" in note


BLUER = np.reshape([0, 0, 0.3], (3, 1, 1))
REFLECTANCE = np.random.default_rng(2).normal(0.2, 0.05, (3, 61, 83)).clip(0.001, 1)


INTEGERS = (REFLECTANCE - REFLECTANCE.mean()) * 25_116 + REFLECTANCE.mean() * 10_000
"""Of the scale of the means, but of a wider spread."""


@pytest.mark.parametrize(
    ("shown", "trained", "says"),
    [
        (REFLECTANCE, REFLECTANCE * 1e4, ("about 10,0", "x smaller", "reflectance of 0 to 1 and of 0 to 10,000")),
        (REFLECTANCE * 1e4, REFLECTANCE, ("about 10,0", "x larger")),
        (REFLECTANCE * 255, REFLECTANCE * 65535, ("about 257x smaller", "between 8 and 16 bits")),
        (REFLECTANCE, REFLECTANCE * 255, ("about 255x smaller", "0 to 1 and 8 bits")),
        (INTEGERS, REFLECTANCE, ("about 10,0", "x larger, as between reflectance")),
        (REFLECTANCE, INTEGERS, ("about 10,0", "x smaller, as between reflectance")),
        (INTEGERS / 2.5116 + 4200, REFLECTANCE, ("about 10,0", "x larger, as between reflectance")),
        (REFLECTANCE * 30, REFLECTANCE, ("about 30x larger. Convert",)),
        (REFLECTANCE / 100 - 0.003, REFLECTANCE, ("All values lie outside",)),
        (REFLECTANCE + 5, REFLECTANCE, ("All values lie outside",)),
        (
            REFLECTANCE + BLUER,
            REFLECTANCE,
            ("blue is 0.", "Results may be poor"),
        ),
        (REFLECTANCE * 1.5, REFLECTANCE, ()),
        (REFLECTANCE + 0.1, REFLECTANCE, ()),
    ],
)
def test_values(shown, trained, says, make_raster):
    scene = Scene.open(make_raster(data=shown.astype("float32")))
    model = model_of(dtype="float32", pixels=trained.reshape(3, -1))
    notes = compare_with_training(scene, model)
    assert len(notes) == bool(says)
    for words in says:
        assert words in notes[0]


def test_only_some_bands_are_named(make_raster):
    names = tuple("abcdef")
    scene = Scene.open(make_raster(bands=6, names=names, dtype="float32"))
    pixels = np.random.default_rng(0).normal(size=(6, 500))
    (note,) = compare_with_training(scene, model_of(dtype="float32", bands=names, pixels=pixels))
    assert note.count("trained on") == input_check.MAX_BANDS_NAMED
    assert "and 3 more bands" in note


def test_nodata_is_not_looked_at(make_raster, monkeypatch):
    """Statistics are of valid pixels, found even where most of a large sparse raster is empty; the same each time."""
    data = np.zeros((1, 1500, 1700), "uint16")
    data[:, 900:1400, 300:700] = np.random.default_rng(0).integers(500, 900, (500, 400))
    path = make_raster(
        data=data, nodata=0, tiled=True, blockxsize=64, blockysize=64, sparse_ok=True, compress="deflate"
    )
    reads = count_reads(monkeypatch)
    first, second = (sample_statistics(Scene.open(path)) for _ in range(2))
    assert all(not window.intersect(Window(256, 896, 448, 512)).empty for window in reads)
    assert len(reads) <= 2 * input_check.MAX_READS
    assert 500 <= first.low[0] <= first.high[0] < 900
    assert first.count == second.count > 1000
    assert first.mean[0] == second.mean[0]


def test_a_scene_without_ground_has_no_values(make_raster):
    scene = Scene.open(make_raster(data=np.zeros((3, 40, 50), "uint8"), nodata=0))
    assert sample_statistics(scene).count == 0
    (note,) = compare_with_training(scene, model_of())
    assert "No valid pixel was found in 1 window of" in note


def test_it_is_said_how_far_was_looked(make_raster):
    """Windows that are read, or known to be empty."""
    data = np.zeros((3, 900, 1100), "uint8")
    (note,) = compare_with_training(Scene.open(make_raster("read.tif", data=data, nodata=0)), model_of())
    assert f"No valid pixel was found in {input_check.MAX_READS} windows" in note
    sparse = make_raster("sparse.tif", data=data, nodata=0, tiled=True, sparse_ok=True, compress="deflate")
    (note,) = compare_with_training(Scene.open(sparse), model_of())
    assert "in 1000 windows" in note


def test_few_windows_are_read(make_raster, monkeypatch):
    scene = Scene.open(make_raster(data=np.zeros((1, 900, 1100), "uint8"), nodata=0))
    reads = count_reads(monkeypatch)
    sample_statistics(scene)
    assert len(reads) == input_check.MAX_READS


@given(width=st.integers(1, 5000), height=st.integers(1, 5000))
@settings(max_examples=examples(30), deadline=None)
def test_places_lie_inside_and_differ(width, height):
    grid = grid_at("EPSG:32632", 5e5, 5.3e6, 1.0, width=width, height=height)
    found = sample_windows(grid)
    assert len(set(found)) == len(found)
    for window in found:
        assert window.intersect(grid.window) == window
        assert (window.width, window.height) == (min(256, width), min(256, height))
    if width > 1000 and height > 1000:
        middles = np.array([(w.col / (width - 256), w.row / (height - 256)) for w in found[:12]])
        counts = np.histogram2d(*middles.T, bins=2, range=[[0, 1], [0, 1]])[0]
        assert (counts >= 1).all(), "each quarter is looked at"
