"""Exported files give calibrated probabilities, and the same classes; geopsp maps with them as with the saved model."""

from __future__ import annotations

import json
import zipfile
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import rasterio
import torch
from export_common import SIZE, random_model, run_onnx
from numpy.testing import assert_allclose, assert_array_equal

from geopsp import classify_pixels
from geopsp.errors import OptionError
from geopsp.export.export_model import export_model
from geopsp.export.onnx_graph import ExportedNetwork
from geopsp.models.build import ModelSpec
from geopsp.models.calibration import Calibration
from geopsp.models.losses import LossSpec
from geopsp.models.onnx_file import UNCALIBRATED, read_onnx

CALIBRATION = Calibration("vector", 2.0, (0.2, 0.9, 0.5, 1.0), (1.0, -0.5, 0.3, 0.0))
"""It would change classes, were they not kept."""


@pytest.fixture(scope="module")
def model():
    """A calibrated model with an ignored class."""
    found = random_model(ModelSpec("tu-test_resnet", 2, 4), losses=LossSpec(ignore_classes=("class 2",)))
    found.calibration = CALIBRATION
    return found


@pytest.fixture(scope="module")
def file(model, tmp_path_factory):
    return export_model(model, tmp_path_factory.mktemp("exported") / "model.onnx")


@pytest.fixture(scope="module")
def plain(model, tmp_path_factory):
    return export_model(model, tmp_path_factory.mktemp("exported") / "plain.onnx", calibrated=False)


@pytest.mark.parametrize("calibration", [None, CALIBRATION])
def test_the_network_that_is_exported_gives_calibrated_probabilities_and_the_same_classes(model, calibration):
    """What becomes the graph of the file; 0 for the ignored class."""
    network = ExportedNetwork(model, half=False, pointrend=True, calibration=calibration).eval()
    with torch.inference_mode():
        output = network(torch.from_numpy(tiles()))
    if calibration is None:
        assert not output[:, 2].any()
        return
    found, raw = (each.numpy() for each in output)
    assert_array_equal(found.argmax(axis=1), raw.argmax(axis=1))
    assert_allclose(found, CALIBRATION.apply(raw.swapaxes(0, 1), excluded=[2]).swapaxes(0, 1), atol=1e-5)
    assert np.abs(found - raw).max() > 0.1
    assert not found[:, 2].any()


def tiles():
    return np.random.default_rng(4).integers(1, 3000, (3, 2, SIZE, SIZE)).astype("float32")


@pytest.mark.slow
def test_the_file_gives_calibrated_probabilities_and_the_same_classes(model, file):
    """Other programs see one output; our own engine sees the network's probabilities, too, which these are made of."""
    opened = read_onnx(file)
    assert (opened.calibration, opened.network_output) == (CALIBRATION, UNCALIBRATED)
    (raw,) = opened.session().run([opened.network_output], {"image": tiles()})
    found = run_onnx(file, tiles())
    assert_array_equal(found.argmax(axis=1), raw.argmax(axis=1))
    assert_allclose(found, CALIBRATION.apply(raw.swapaxes(0, 1), excluded=[2]).swapaxes(0, 1), atol=1e-5)
    assert np.abs(found - raw).max() > 0.1
    assert not found[:, 2].any(), "ignored in training"
    free = np.log(np.maximum(raw, 1e-30)) * np.array(CALIBRATION.weights)[:, None, None]
    free += np.array(CALIBRATION.biases)[:, None, None]
    assert (free.argmax(axis=1) != raw.argmax(axis=1)).mean() > 0.01, "vector scaling alone would change classes"
    session = onnxruntime.InferenceSession(str(file), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_outputs()] == ["probabilities"]
    metadata = {entry.key: entry.value for entry in onnx.load(file).metadata_props}
    assert json.loads(metadata["geopsp_export"])["calibrated"] == CALIBRATION.words


def mapped(image, ways):
    """Maps, confidence and keys, by the names of the ways to make them."""
    maps, confidence = {}, {}
    for name, (model, options) in ways.items():
        classify_pixels(image, model, f"{name}.tif", confidence=f"{name}-c.tif", **options)
        with rasterio.open(f"{name}.tif") as dataset, rasterio.open(f"{name}-c.tif") as other:
            maps[name], confidence[name] = dataset.read(1), other.read(1).astype(int)
    return maps, confidence


@pytest.fixture
def image(make_raster, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return make_raster(data=np.random.default_rng(5).integers(1, 3000, (2, 150, 170)).astype("uint16"))


@pytest.mark.slow
def test_maps_with_the_file_are_those_with_the_saved_model(model, file, image):
    saved, fp32 = SimpleNamespace(model=model, device="cpu"), {"precision": "fp32"}
    ways = {"file": (file, {}), "torch": (saved, fp32), "off": (saved, fp32 | {"calibrated": False})}
    maps, confidence = mapped(image, ways)
    assert (maps["file"] != maps["torch"]).mean() < 1e-3, "but for near-ties"
    same = maps["file"] == maps["torch"]
    assert np.abs(confidence["file"] - confidence["torch"])[same].max() <= 1
    assert_array_equal(maps["off"], maps["torch"])
    assert np.abs(confidence["off"] - confidence["torch"]).max() > 20


@pytest.mark.slow
def test_maps_are_the_same_with_any_file(model, file, plain, image):
    """With calibration inside or beside, or exported for the map."""
    saved = SimpleNamespace(model=model, device="cpu")
    maps, confidence = mapped(image, {"file": (file, {}), "plain": (plain, {}), "made": (saved, {"engine": "onnx"})})
    for name in ("plain", "made"):
        assert_array_equal(maps["file"], maps[name])
        assert_array_equal(confidence["file"], confidence[name])


@pytest.mark.slow
def test_packages_for_arcgis_hold_the_network_s_probabilities(model, plain, tmp_path):
    """ArcGIS blends and shows classes, which would differ where tiles overlap."""
    with zipfile.ZipFile(export_model(model, tmp_path / "m.dlpk", "dlpk")) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith(".onnx")]
        archive.extract(name, tmp_path)
    assert_array_equal(run_onnx(tmp_path / name, tiles()), run_onnx(plain, tiles()))


def test_packages_do_not_take_the_option(model, tmp_path):
    with pytest.raises(OptionError, match="`calibrated` only applies to the formats onnx, hub, not to dlpk"):
        export_model(model, tmp_path / "m.dlpk", "dlpk", calibrated=False)
