"""The fit finds the temperature that labels were drawn with, and never makes the NLL worse."""

from __future__ import annotations

import json
from dataclasses import replace
from types import SimpleNamespace

import geopandas as gpd
import numpy as np
import pytest
import torch
from common import REPOSITORY, examples
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from shapely.geometry import box

from geopsp import PixelClassifier, PSPNetClassifier, prepare_data
from geopsp.core.legend import Legend
from geopsp.errors import ChipError, ModelError, OptionError, PackageError
from geopsp.models.calibration import LOW, Calibration
from geopsp.models.calibration_torch import scaled_softmax
from geopsp.models.manifest import manifest_checksum
from geopsp.training.calibration_samples import Samples, halves_of
from geopsp.training.fit_calibration import UNCHANGED, fit, fit_samples

LEGEND = Legend.from_names({0: "a", 1: "b", 2: "c", 3: "d"})


def softmax(logits):
    shares = np.exp(logits - logits.max(axis=1, keepdims=True))
    return shares / shares.sum(axis=1, keepdims=True)


def drawn(probabilities, rng):
    """A label for each row, as likely as its probabilities say."""
    return (probabilities.cumsum(axis=1) > rng.random((len(probabilities), 1))).argmax(axis=1)


def made(temperature, count=60_000, seed=0, spread=3.0):
    """Probabilities of logits, and labels drawn at another temperature: the network is so much too certain."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, spread, (count, 4))
    return softmax(logits).astype(np.float32), drawn(softmax(logits / temperature), rng)


def nll(calibration, probabilities, labels, excluded=()):
    found = calibration.apply(probabilities.T.astype(float), excluded=excluded)
    return -np.log(found[labels, np.arange(len(labels))]).mean()


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.8, 4.0])
def test_the_temperature_of_the_labels_is_found(temperature):
    probabilities, labels = made(temperature)
    assert fit(probabilities, labels, "temperature").temperature == pytest.approx(temperature, rel=0.03)
    vector = fit(probabilities, labels, "vector")
    assert_allclose(vector.weights, 1 / temperature, rtol=0.1)
    assert_allclose(np.array(vector.biases) - np.mean(vector.biases), 0, atol=0.1)


def test_weights_and_biases_of_the_labels_are_found():
    rng = np.random.default_rng(1)
    logits = rng.normal(0, 2, (200_000, 4))
    logs = np.log(softmax(logits))
    weights, biases = np.array([0.5, 0.9, 0.7, 1.2]), np.array([0.4, -0.3, 0.1, -0.2])
    labels = drawn(softmax(logs * weights + biases), rng)
    found = fit(softmax(logits).astype(np.float32), labels, "vector")
    assert_allclose(found.weights, weights, atol=0.04)
    assert_allclose(np.array(found.biases) - np.mean(found.biases), biases, atol=0.06)


@given(st.integers(0, 2**32 - 1), st.sampled_from(["temperature", "vector"]))
@settings(max_examples=examples(20), deadline=None)
def test_the_nll_of_the_fit_is_never_worse(seed, method):
    """Whatever the labels are: random, always right, always wrong, of one class alone; with and without a class."""
    rng = np.random.default_rng(seed)
    probabilities, labels = made(rng.uniform(0.3, 5), count=int(rng.integers(1, 800)), seed=seed)
    kind = rng.integers(4)
    labels = (labels, probabilities.argmax(axis=1), probabilities.argmin(axis=1), np.full_like(labels, 1))[kind]
    ignored = [3] if rng.random() < 0.5 else []
    if ignored:
        probabilities[:, 3] = 0
        probabilities /= probabilities.sum(axis=1, keepdims=True)
        labels = labels % 3
    found = fit(probabilities, labels, method, ignored)
    assert nll(found, probabilities, labels, ignored) <= nll(UNCHANGED, probabilities, labels, ignored) + 1e-6
    assert 0.2 <= found.temperature <= 20


def test_rare_classes_keep_the_temperature():
    probabilities, labels = made(2.0, count=20_000)
    labels[labels == 3] = 0
    labels[:50] = 3
    found = fit(probabilities, labels, "vector")
    assert (found.weights[3], found.biases[3]) == (pytest.approx(1 / found.temperature), 0)


def test_scores_after_are_those_of_the_other_half():
    """One half is drawn at another temperature, so that each is scored by the wrong fit."""
    parts = [made(1.0, count=20_000), made(4.0, count=20_000, seed=1)]
    probabilities, labels = (np.concatenate(each) for each in zip(*parts, strict=True))
    samples = Samples(probabilities, labels, np.arange(40_000) >= 20_000, "blocks", chips=8)
    found = fit_samples(samples, "temperature", LEGEND)
    wrong = [fit(*part, "temperature") for part in parts[::-1]]
    expected = np.mean([nll(each, *part) for each, part in zip(wrong, parts, strict=True)])
    assert found.nll_after == pytest.approx(expected, abs=1e-5)
    assert found.nll_after > nll(found, probabilities, labels) + 0.05, "which is optimistic"
    assert (found.folds, found.pixels, found.chips) == ("blocks", 40_000, 8)
    alone = fit_samples(replace(samples, folds=""), "temperature", LEGEND)
    assert alone.nll_after == pytest.approx(nll(found, probabilities, labels), abs=1e-5)


def test_the_error_of_an_over_confident_network_falls():
    probabilities, labels = made(3.0)
    found = fit_samples(Samples(probabilities, labels, np.arange(60_000) % 2 == 0, "chips", 2), "temperature", LEGEND)
    assert found.ece_before > 0.2
    assert found.ece_after < 0.01
    assert found.nll_after < found.nll_before
    assert "temperature 3.0" in found.summary
    assert "two-fold by chips" in found.summary


def test_blocks_of_ground_go_to_the_halves():
    shapes = [box(x, y, x + 10, y + 10) for x in range(0, 200, 10) for y in range(0, 100, 10)]
    chips = SimpleNamespace(index=gpd.GeoDataFrame(geometry=shapes))
    second, folds = halves_of(chips, np.arange(len(shapes)))
    assert folds == "blocks"
    assert 0.3 < second.mean() < 0.7
    table = second.reshape(20, 10)
    assert (table[1:] == table[:-1]).mean() > 0.7, "neighbours mostly stay together"
    assert halves_of(chips, np.array([4]))[1] == ""
    nowhere = SimpleNamespace(index=gpd.GeoDataFrame(geometry=[None] * 5))
    second, folds = halves_of(nowhere, np.arange(5))
    assert (second.tolist(), folds) == ([False] * 3 + [True] * 2, "chips")


def test_a_calibration_of_impossible_numbers_is_refused():
    for numbers in ((0.0,), (-1.0,), (np.nan,), (1.0, (1.0, -1.0), (0.0, 0.0)), (1.0, (1.0,), (0.0, 0.0))):
        with pytest.raises(ModelError, match="Calibrate anew"):
            Calibration("temperature" if len(numbers) == 1 else "vector", *numbers)
    with pytest.raises(OptionError, match="`method`"):
        Calibration("isotonic", 1.0)


# With a classifier


@pytest.fixture
def classifier():
    """Untrained, on 12 small chips."""
    data = prepare_data(REPOSITORY / "tests/golden/chips", split="random", val_split_pct=0.25, batch_size=4, workers=0)
    return PSPNetClassifier(data, "tu-test_resnet", encoder_weights=None, device="cpu")


def test_training_calibrates_unless_it_is_told_not_to(classifier):
    classifier.fit(1, 1e-3, precision="fp32", calibrate=None)
    assert classifier.model.calibration is None
    classifier.fit(1, 1e-3, precision="fp32")
    found = classifier.model.calibration
    assert (found.method, found.pixels > 1000, found.chips > 0) == ("temperature", True, True)
    assert "calibrate" not in classifier.model.settings["runs"][-1]
    scores = classifier.evaluate().to_json()["calibration"]
    assert scores["uncalibrated"]["nll"] == pytest.approx(found.nll_before, abs=2e-3), "all pixels are in the sample"
    assert scores["calibrated"]["nll"] <= scores["uncalibrated"]["nll"] + 1e-4
    classifier.fit(1, 1e-3, precision="fp32", calibrate="vector")
    assert classifier.model.calibration.method == "vector"
    assert len(classifier.model.calibration.weights) == len(classifier.model.legend)
    with pytest.raises(OptionError, match="`calibrate` is 'platt'"):
        classifier.fit(1, calibrate="platt")


@pytest.mark.parametrize("seed", [1, 40, 139])
def test_a_network_that_is_always_right_is_scaled_within_bounds(seed):
    """More weight is always better then, and the search ran away to no number."""
    rng = np.random.default_rng(seed)
    count = int(rng.integers(120, 2000))
    probabilities = softmax(rng.normal(0, rng.uniform(0.5, 12), (count, 3))).astype(np.float32)
    labels = probabilities.argmax(axis=1)
    vector = fit(probabilities, labels, "vector")
    assert min(vector.weights) > 0
    assert max(vector.weights) <= 1 / LOW
    assert nll(vector, probabilities, labels) <= nll(fit(probabilities, labels, "temperature"), probabilities, labels)


def test_a_saved_model_keeps_its_calibration(classifier, tmp_path):
    plain = classifier.model.fingerprint()
    before = classifier.evaluate()
    classifier.calibrate(method="vector")
    assert classifier.model.fingerprint() == plain, "no class depends on it"
    assert np.array_equal(classifier.evaluate().counts, before.counts)
    classifier.save(tmp_path / "model")
    again = PixelClassifier.from_model(tmp_path / "model")
    assert again.model.calibration == classifier.model.calibration
    with pytest.raises(ChipError, match="calibrate needs validation chips"):
        again.calibrate()
    found = again.calibrate(classifier.data.chips)
    assert again.model.calibration is found
    assert found.method == "temperature"
    with pytest.raises(OptionError, match="`method` is 'none'"):
        again.calibrate(method="none")


@pytest.mark.parametrize(
    ("entry", "message"),
    [
        ({"temperature": -1.0}, "temperature"),
        ({"method": "magic"}, "method"),
        ({"weights": [1.0], "biases": [0.0]}, "as many classes everywhere"),
        ({"weights": [1.0, 1.0, 1.0], "biases": []}, "as many classes everywhere"),
        ({"temperature": "1"}, "temperature"),
    ],
)
def test_a_damaged_calibration_is_refused(classifier, tmp_path, entry, message):
    classifier.model.calibration = Calibration("temperature", 1.5)
    path = classifier.save(tmp_path / "model") / "model.json"
    manifest = json.loads(path.read_text())
    manifest["calibration"] |= entry
    path.write_text(json.dumps(manifest | {"manifest_sha256": manifest_checksum(manifest)}))
    with pytest.raises(PackageError, match=message):
        PixelClassifier.from_model(tmp_path / "model")


def test_tensors_and_arrays_give_the_same():
    probabilities, _ = made(1.0, count=500)
    for calibration in (Calibration("temperature", 0.4), Calibration("vector", 1, (0.4, 1, 2, 0.7), (0, 2, -1, 0.5))):
        weights, biases = map(torch.from_numpy, calibration.coefficients(4))
        found = scaled_softmax(torch.from_numpy(probabilities), weights, biases, dim=1)
        assert_allclose(found, calibration.apply(probabilities.T).T, atol=1e-5)
        assert (found.argmax(dim=1).numpy() == probabilities.argmax(axis=1)).all()
