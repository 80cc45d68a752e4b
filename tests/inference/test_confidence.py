"""Calibration and thresholds change probabilities and unsure pixels, never the class of another pixel."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pytest
import rasterio
import torch
from common import examples, slow
from hypothesis import given, settings
from hypothesis import strategies as st
from inference_common import CLASSES, numba_ops, torch_ops, trained_model
from numpy.testing import assert_allclose, assert_array_equal

from geopsp import classify_pixels
from geopsp.core.legend import Legend
from geopsp.errors import OptionError
from geopsp.inference.blend import SUM_ONE
from geopsp.inference.confidence import confidence_rules
from geopsp.inference.options import MapOptions, MapSettings
from geopsp.inference.outputs import class_spec, fraction_spec, probability_spec
from geopsp.inference.plan_job import plan_job
from geopsp.inference.resources import Resources
from geopsp.inference.run_job import run_job
from geopsp.models.calibration import Calibration
from geopsp.raster.legend_io import read_legend
from geopsp.raster.scene import Scene

TEMPERATURE = Calibration("temperature", 2.5)
VECTOR = Calibration("vector", 1.0, (0.4, 0.9, 0.5, 1.3, 0.2), (0.0, 1.5, -1.0, 0.3, 0.1))
ALL = {"probabilities": "p.tif", "confidence": "c.tif", "probability_type": "float16"}


class Uncertain(torch.nn.Module):
    """Logits of all sizes, which also depend on the place in the tile, so that overlapping tiles disagree."""

    def __init__(self):
        super().__init__()
        weights = torch.randn(CLASSES, 1, 5, 5, generator=torch.Generator().manual_seed(1))
        self.weights = weights / 300

    def forward(self, image, valid=None):
        found = torch.nn.functional.conv2d(image - 100, self.weights, padding=2)
        return found + torch.linspace(-1, 1, image.shape[-1]) * torch.arange(CLASSES).view(-1, 1, 1) / 4


@pytest.fixture
def here(tmp_path, monkeypatch, make_raster):
    monkeypatch.chdir(tmp_path)
    data = np.random.default_rng(3).integers(1, 256, (1, 75, 110)).astype("uint8")
    data[:, 10:20, 30:50] = 0
    return make_raster(data=data, nodata=0)


def model_with(calibration, legend=None):
    model = trained_model(network=Uncertain())
    model.calibration, model.legend = calibration, legend or model.legend
    return SimpleNamespace(model=model, device="cpu")


def mapped(image, calibration, out="m.tif", legend=None, **options):
    options = {"tile_size": 32, "padding": 8, "precision": "fp32", "device": "cpu", **options}
    return classify_pixels(image, model_with(calibration, legend), out, **options)


def pixels(path):
    with rasterio.open(path) as dataset:
        return dataset.read()


def key(path):
    with rasterio.open(path) as dataset:
        return dataset.tags()["GEOPSP_JOB"]


@pytest.mark.parametrize("calibration", [TEMPERATURE, VECTOR])
@pytest.mark.parametrize(
    "options", [{}, *map(slow, ({"padding": 0}, {"test_time_augmentation": True}, {"batch_size": 3}))]
)
def test_classes_are_those_without_calibration(here, calibration, options):
    plain = Path(mapped(here, None, "a.tif", **options)).read_bytes()
    key_plain = key("a.tif")
    assert Path(mapped(here, calibration, "b.tif", **options)).read_bytes() == plain
    with_scores = mapped(here, calibration, "c.tif", confidence="conf.tif", probabilities="p.tif", **options)
    assert_array_equal(pixels(with_scores), pixels("a.tif"))
    assert key("b.tif") == key_plain != key("c.tif")
    assert len(np.unique(pixels("a.tif"))) == CLASSES + 1


@pytest.mark.parametrize("calibration", [TEMPERATURE, VECTOR])
def test_probabilities_and_confidence_are_calibrated(here, calibration):
    """By the formula, of what the map without calibration has; up to the rounding of that."""
    mapped(here, calibration, "off.tif", calibrated=False, probabilities="raw.tif", probability_type="float16")
    mapped(here, calibration, **ALL)
    raw, found = pixels("raw.tif").astype(float), pixels("p.tif").astype(float)
    highest = np.sort(np.nan_to_num(raw), axis=0)
    valid = (pixels("m.tif")[0] != 255) & (highest[-1] - highest[-2] > 2e-3)  # float16 does not show who wins a tie
    expected = calibration.apply(raw / raw.sum(axis=0))
    assert np.abs(found - expected)[:, valid].max() < 4e-3
    assert np.abs(found - raw)[:, valid].max() > 0.05, "it does change them"
    confidence = pixels("c.tif")[0] / 254
    assert np.abs(confidence - found.max(axis=0))[valid].max() < 0.5 / 254 + 1e-3
    legend = model_with(None).model.legend
    likeliest = np.array(legend.codes)[found.argmax(axis=0)]
    assert_array_equal(likeliest[valid], pixels("m.tif")[0][valid])


def test_turned_off_is_as_never_calibrated(here):
    mapped(here, TEMPERATURE, "a.tif", calibrated=False, probabilities="pa.tif", confidence="ca.tif")
    mapped(here, None, "b.tif", probabilities="pb.tif", confidence="cb.tif")
    for name in ("", "p", "c"):
        assert Path(f"{name}a.tif").read_bytes() == Path(f"{name}b.tif").read_bytes()
    assert key("a.tif") == key("b.tif")


@given(st.integers(0, 2**32 - 1), st.sampled_from([TEMPERATURE, VECTOR, Calibration("temperature", 0.3)]))
@settings(max_examples=examples(12), deadline=None)
def test_compiled_and_tensor_operations_agree(seed, calibration):
    """With each other and with the formula in float64; the predicted class stays the likeliest."""
    rng = np.random.default_rng(seed)
    chances = rng.dirichlet(np.full(CLASSES, rng.choice([0.05, 0.3, 1])), (7, 33)).transpose(2, 0, 1)
    chances[2] = 0
    sums = (chances / chances.sum(axis=0) * SUM_ONE).astype(np.int32)
    weights, biases = calibration.coefficients(CLASSES)
    biases[2] = -np.inf
    expected = calibration.apply(sums / SUM_ONE, excluded=[2])
    tensors = torch_ops()
    for ops, values in ((numba_ops(), sums), (tensors, torch.from_numpy(sums))):
        found = np.asarray(ops.calibrated(values, SUM_ONE, weights, biases))
        assert_allclose(found, expected, atol=5e-6)
        assert_array_equal(found.argmax(axis=0), sums.argmax(axis=0))
        largest = np.asarray(ops.confidence(values, SUM_ONE, weights, biases))
        assert_allclose(largest[0], expected.max(axis=0), atol=5e-6)


def test_unsure_pixels_are_those_below_the_threshold_in_the_confidence_raster(here):
    """Also with half a threshold for a class, and none for another; all other pixels keep their class."""
    thresholds = {"water": 0.9, "forest": 0.5, "other": 0.3, "road": 0}
    plain = pixels(mapped(here, TEMPERATURE, "a.tif"))[0]
    mapped(here, TEMPERATURE, "b.tif", confidence="c.tif", min_confidence=thresholds)
    codes, confidence = pixels("b.tif")[0], pixels("c.tif")[0]
    least = np.zeros(256)
    least[[0, 3, 4, 254]] = 0.3, 0.9, 0.5, 0.3
    unsure = (plain != 255) & (confidence / 254 < least[plain])
    assert 0.02 < unsure.mean() < 0.98
    assert set(np.unique(plain[unsure])) >= {3, 4}
    assert_array_equal(codes, np.where(unsure, 253, plain))
    names = {info.code: info.name for info in read_legend("b.tif")}
    assert names == {0: "background", 3: "water", 4: "forest", 90: "road", 253: "unsure", 254: "last"}
    assert_array_equal(pixels(mapped(here, TEMPERATURE, "d.tif", min_confidence=thresholds))[0], codes)
    nodata = mapped(here, TEMPERATURE, "e.tif", min_confidence=thresholds, unsure="nodata")
    assert_array_equal(pixels(nodata)[0], np.where(unsure, 255, plain))
    assert len(read_legend("e.tif")) == CLASSES


def test_unsure_pixels_become_polygons_and_go_through_the_sieve(here):
    mapped(here, None, min_confidence=0.8, polygons="m.gpkg", sieve=4, polygon_options={"keep": ["unsure"]})
    found = gpd.read_file("m.gpkg", layer="m")
    assert set(found["name"]) == {"unsure"}
    assert (pixels("m.tif") == 253).sum() > 100


def test_thresholds_of_0_change_nothing(here):
    plain = Path(mapped(here, None, "a.tif")).read_bytes()
    assert Path(mapped(here, None, "b.tif", min_confidence=0)).read_bytes() == plain
    everything = pixels(mapped(here, None, "c.tif", min_confidence=1.0, confidence="conf.tif"))[0]
    assert_array_equal(everything == 253, (pixels("conf.tif")[0] < 254) & (everything != 255))


def test_a_map_is_the_same_in_one_part_or_many(make_raster, tmp_path):
    """Threads, too."""
    data = np.random.default_rng(5).integers(1, 256, (1, 150, 170)).astype("uint8")
    scene, model, found = Scene.open(make_raster(data=data)), model_with(VECTOR).model, []
    settings = MapSettings(tile_size=32, padding=6, min_confidence=0.5)
    for number, (side, threads) in enumerate([(64, 1), (256, 2)]):
        folder = tmp_path / str(number)
        folder.mkdir()
        rasters = class_spec(folder / "m.tif", model.legend), fraction_spec("confidence", folder / "c.tif")
        job = plan_job(scene, model, rasters, settings, part_side=side, block=64)
        run_job(job, model, resources=Resources(torch.device("cpu"), 2, threads))
        found.append((job.key, pixels(folder / "m.tif"), pixels(folder / "c.tif")))
    assert found[0][0] == found[1][0]
    assert_array_equal(found[0][1], found[1][1])
    assert_array_equal(found[0][2], found[1][2])


def test_keys(make_raster):
    """They hold what pixels depend on: no calibration of classes alone, and thresholds only where there are some."""
    scene, out = Scene.open(make_raster(bands=1)), Path("m.tif")

    def key_of(calibration, *, confidence=False, probabilities=False, **options):
        model = trained_model()
        model.calibration = calibration
        rasters = [
            class_spec(out, model.legend),
            *([fraction_spec("confidence", Path("c.tif"))] * confidence),
            *([probability_spec(Path("p.tif"), model.legend)] * probabilities),
        ]
        return plan_job(scene, model, rasters, MapSettings(tile_size=32, **options)).key

    assert key_of(None) == key_of(TEMPERATURE) == key_of(VECTOR) == key_of(None, calibrated=False)
    assert key_of(None, min_confidence=0) == key_of(None)
    different = [
        key_of(None),
        key_of(None, confidence=True),
        key_of(TEMPERATURE, confidence=True),
        key_of(VECTOR, confidence=True),
        key_of(None, probabilities=True),
        key_of(TEMPERATURE, probabilities=True),
        key_of(None, min_confidence=0.5),
        key_of(None, min_confidence=0.5, unsure="nodata"),
        key_of(None, min_confidence={"water": 0.5}),
        key_of(TEMPERATURE, min_confidence=0.5),
    ]
    assert len(set(different)) == len(different)
    assert key_of(TEMPERATURE, confidence=True, calibrated=False) == key_of(None, confidence=True)
    crf = {"confidence": True, "crf": True}
    assert key_of(TEMPERATURE, **crf) == key_of(None, **crf), "of the CRF nothing is calibrated"
    scored = replace(TEMPERATURE, pixels=9, nll_before=1.0)
    assert key_of(scored, confidence=True) == key_of(TEMPERATURE, confidence=True), "scores are no part of it"


def test_which_code_is_that_of_unsure_pixels():
    def unsure(names, **options):
        model = SimpleNamespace(legend=Legend.from_names(names), calibration=None)
        return confidence_rules(MapSettings(min_confidence=0.5, **options), model).unsure

    assert unsure({0: "a", 7: "b"}).code == 8
    assert unsure({0: "a", 254: "b"}).code == 253
    full = {code: f"class {code}" for code in range(255)}
    with pytest.raises(OptionError, match="All class codes are taken"):
        unsure(full)
    assert unsure(full, unsure="nodata") is None
    with pytest.raises(OptionError, match=r"has a class 'Unsure'.*unsure=\"nodata\""):
        unsure({0: "a", 1: "Unsure"})


def test_other_is_the_rest_unless_a_class_has_this_name():
    def limits(names, given):
        model = SimpleNamespace(legend=Legend.from_names(dict(enumerate(names))), calibration=None)
        return confidence_rules(MapSettings(min_confidence=given), model).limits

    assert limits("abc", {"a": 0.5, "other": 1}) == (127, 254, 254)
    assert limits(["a", "other", "c"], {"a": 0.5, "other": 1}) == (127, 254, 0)
    assert limits("abc", 127 / 254) == (127,) * 3
    assert limits("abc", np.float32(0.25)) == (64,) * 3, "63.5 steps are reached by 64"
    assert limits("abc", {"a": 0.0}) == ()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_confidence": 1.2}, "`min_confidence` is 1.2, but must be a number from 0 to 1"),
        ({"min_confidence": -0.1}, "from 0 to 1"),
        ({"min_confidence": float("nan")}, "from 0 to 1"),
        ({"min_confidence": True}, "from 0 to 1"),
        ({"min_confidence": "0.6"}, "from 0 to 1"),
        ({"min_confidence": {}}, "from 0 to 1"),
        ({"min_confidence": {"water": 70}}, "is 70 for the class 'water'"),
        ({"min_confidence": {"water": None}}, "is None for the class 'water'"),
        ({"min_confidence": {"watr": 0.7}}, "the class 'watr'.*Did you mean 'water'"),
        ({"min_confidence": {"xyz": 0.7}}, "Its classes are background, water, forest, road, last"),
        ({"min_confidence": {3: 0.7}}, "Its classes are"),
        ({"unsure": "nodata"}, "`unsure` only applies.*Add `min_confidence`"),
        ({"unsure": "grey", "min_confidence": 0.5}, "`unsure` is 'grey'"),
        ({"calibrated": 1}, "`calibrated` is 1"),
    ],
)
def test_bad_options_are_refused(here, options, message):
    with pytest.raises(OptionError, match=message):
        mapped(here, None, **options)
    assert not Path("m.tif").exists()


def test_options_are_those_of_maps():
    assert MapOptions(min_confidence={"a": 0.5}).settings.min_confidence == {"a": 0.5}
