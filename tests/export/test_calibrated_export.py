"""Exported files give calibrated probabilities, and the same classes; geopsp maps with them as with the saved model."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import rasterio
from export_common import SIZE, random_model, run_onnx
from numpy.testing import assert_allclose, assert_array_equal

from geopsp import classify_pixels
from geopsp.errors import OptionError
from geopsp.export.export_model import export_model
from geopsp.models.build import ModelSpec
from geopsp.models.calibration import Calibration
from geopsp.models.losses import LossSpec
from geopsp.models.onnx_file import UNCALIBRATED, read_onnx

CALIBRATIONS = {
    "temperature": Calibration("temperature", 2.5),
    "vector": Calibration("vector", 2.0, (0.2, 0.9, 0.5, 1.0), (1.0, -0.5, 0.3, 0.0)),
}


@pytest.fixture(scope="module", params=sorted(CALIBRATIONS))
def exported(request, tmp_path_factory):
    """A calibrated model with an ignored class, its files with and without calibration, and an image of pixels."""
    folder = tmp_path_factory.mktemp("exported")
    model = random_model(ModelSpec("tu-test_resnet", 2, 4), losses=LossSpec(ignore_classes=("class 2",)))
    model.calibration = CALIBRATIONS[request.param]
    files = [export_model(model, folder / f"{calibrated}.onnx", calibrated=calibrated) for calibrated in (True, False)]
    return SimpleNamespace(model=model, file=files[0], plain=files[1])


def tiles():
    return np.random.default_rng(4).integers(1, 3000, (3, 2, SIZE, SIZE)).astype("float32")


def test_the_file_gives_calibrated_probabilities_and_the_same_classes(exported):
    plain, found = run_onnx(exported.plain, tiles()), run_onnx(exported.file, tiles())
    assert_array_equal(found.argmax(axis=1), plain.argmax(axis=1))
    expected = exported.model.calibration.apply(plain.swapaxes(0, 1), excluded=[2]).swapaxes(0, 1)
    assert_allclose(found, expected, atol=1e-5)
    assert np.abs(found - plain).max() > 0.1
    assert not found[:, 2].any(), "ignored in training"


def test_other_programs_see_one_output_and_our_own_engine_the_network_s_probabilities(exported):
    session = onnxruntime.InferenceSession(str(exported.file), providers=["CPUExecutionProvider"])
    assert [each.name for each in session.get_outputs()] == ["probabilities"]
    metadata = {entry.key: entry.value for entry in onnx.load(exported.file).metadata_props}
    assert json.loads(metadata["geopsp_export"])["calibrated"] == exported.model.calibration.words
    model, plain = read_onnx(exported.file), read_onnx(exported.plain)
    assert model.calibration == plain.calibration == exported.model.calibration
    assert (model.network_output, plain.network_output) == (UNCALIBRATED, "probabilities")
    (found,) = model.session().run([model.network_output], {"image": tiles()})
    (wanted,) = plain.session().run([plain.network_output], {"image": tiles()})
    assert_array_equal(found, wanted)


def test_maps_are_the_same_by_all_ways(exported, make_raster, tmp_path, monkeypatch):
    """Torch, an ONNX file with or without calibration inside, and a file that is exported for the map."""
    monkeypatch.chdir(tmp_path)
    pixels = np.random.default_rng(5).integers(1, 3000, (2, 150, 170)).astype("uint16")
    image, saved = make_raster(data=pixels), SimpleNamespace(model=exported.model, device="cpu")
    ways = {
        "file": (exported.file, {}), "plain": (exported.plain, {}), "made": (saved, {"engine": "onnx"}),
        "torch": (saved, {"precision": "fp32"}),
    }  # fmt: skip
    maps, confidence, keys = {}, {}, {}
    for name, (model, options) in ways.items():
        classify_pixels(image, model, f"{name}.tif", confidence=f"{name}-c.tif", **options)
        with rasterio.open(f"{name}.tif") as dataset, rasterio.open(f"{name}-c.tif") as other:
            maps[name], confidence[name] = dataset.read(1), other.read(1).astype(int)
            keys[name] = dataset.tags()["GEOPSP_JOB"]
    for name in ("plain", "made"):
        assert_array_equal(maps["file"], maps[name])
        assert_array_equal(confidence["file"], confidence[name])
    assert (maps["file"] != maps["torch"]).mean() < 1e-3, "but for near-ties"
    assert np.abs(confidence["file"] - confidence["torch"]).max() <= 1
    classify_pixels(image, saved, "off.tif", confidence="off-c.tif", precision="fp32", calibrated=False)
    with rasterio.open("off.tif") as dataset, rasterio.open("off-c.tif") as other:
        assert_array_equal(dataset.read(1), maps["torch"])
        assert np.abs(other.read(1).astype(int) - confidence["torch"]).max() > 20


def test_packages_for_arcgis_hold_the_network_s_probabilities(exported, tmp_path):
    """ArcGIS blends and shows classes, which would differ where tiles overlap."""
    with zipfile.ZipFile(export_model(exported.model, tmp_path / "m.dlpk", "dlpk")) as archive:
        (name,) = [each for each in archive.namelist() if each.endswith(".onnx")]
        archive.extract(name, tmp_path)
    assert_array_equal(run_onnx(tmp_path / name, tiles()), run_onnx(exported.plain, tiles()))
    with pytest.raises(OptionError, match="`calibrated` only applies to the formats onnx, hub, not to dlpk"):
        export_model(exported.model, Path("m.dlpk"), "dlpk", calibrated=False)
