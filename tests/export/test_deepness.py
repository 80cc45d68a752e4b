"""QGIS Deepness, by its own arithmetic: the map of a tile is that of `classify_pixels`, of pixels of any type.

Deepness takes no part in the tests: what it does to pixels and to results is said again here. Source: its
documentation, "Model metadata", and `model_base.py` and `map_processor_segmentation.py` of version 0.6.5.
"""

from __future__ import annotations

import json
from types import SimpleNamespace

import numpy as np
import onnx
import onnxruntime
import pytest
import rasterio
from common import slow
from export_common import SIZE

from geopsp import classify_pixels
from geopsp.models.saved_model import load_model


class Deepness:
    """What the plugin does with a model after "Load default model parameters"."""

    def __init__(self, path):
        self.session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        found = self.session.get_modelmeta().custom_metadata_map
        self.read = {name: json.loads(value) for name, value in found.items() if not name.startswith("geopsp_")}
        (self.input,) = self.session.get_inputs()

    def class_map(self, image):
        """Channel indices of (bands, s, s) pixels as they are in the raster."""
        tiles = np.float32(image.transpose(1, 2, 0)[None] * 1.0 / 255.0)
        mean, std = (np.array(self.read[f"standardization_{name}"], np.float32) for name in ("mean", "std"))
        tiles = (tiles - mean) / std
        (result,) = self.session.run(None, {self.input.name: tiles.transpose(0, 3, 1, 2)})
        result[result < self.read["seg_thresh"]] = 0
        return result[0].argmax(axis=0), result[0]


@pytest.mark.parametrize(
    ("model_name", "file_name", "dtype"),
    [
        slow("trained", "onnx_file", "uint16"),
        slow("trained", "onnx_file", "int16"),
        ("pointrend_model", "pointrend_file", "uint8"),
    ],
)
def test_the_map_of_a_tile_is_ours(request, make_raster, tmp_path, small_world, model_name, file_name, dtype):
    path, model = request.getfixturevalue(file_name), request.getfixturevalue(model_name)
    if model_name == "trained":
        model = load_model(model)
        with rasterio.open(small_world["scene"]) as scene:
            image = scene.read(window=((64, 96), (180, 212))).astype(dtype)
        assert image.shape[1:] == (32, 32)
    else:
        image = np.random.default_rng(0).integers(1, 256, (3, SIZE, SIZE)).astype(dtype)
    image[:, :9, :13] = 0  # what Deepness gets where there is no image
    raster = make_raster(data=image, nodata=0)
    options = {"precision": "fp32", "batch_size": 1, "allow_resolution_mismatch": True}
    ours = classify_pixels(raster, SimpleNamespace(model=model, device="cpu"), tmp_path / "map.tif", **options)
    with rasterio.open(ours) as dataset:
        codes, valid = dataset.read(1), dataset.dataset_mask() > 0
    found, probabilities = Deepness(path).class_map(image)
    np.testing.assert_array_equal(valid, image.any(axis=0))
    top = np.sort(probabilities, axis=0)
    sure = valid & (top[-1] - top[-2] > 1e-3)
    assert sure.mean() > 0.5
    np.testing.assert_array_equal(np.array(model.legend.codes)[found][sure], codes[sure])
    assert len(np.unique(codes[sure])) > 1


@pytest.mark.parametrize(
    ("model_name", "file_name"), [slow("trained", "onnx_file"), ("pointrend_model", "pointrend_file")]
)
def test_all_that_it_reads_is_there(request, model_name, file_name):
    model, path = request.getfixturevalue(model_name), request.getfixturevalue(file_name)
    model = load_model(model) if model_name == "trained" else model
    plugin = Deepness(path)
    bands, classes = len(model.bands), len(model.legend)
    assert plugin.read == {
        "model_type": "Segmentor",
        "class_names": {str(i): name for i, name in enumerate(model.legend.names)},
        "resolution": 200,
        "tile_size": model.tile_size,
        "tiles_size": model.tile_size,
        "tiles_overlap": 25,
        "standardization_mean": [0] * bands,
        "standardization_std": [1 / 255] * bands,
        "seg_thresh": 0,
        "seg_small_segment": 0,
    }
    batch, *shape = plugin.input.shape
    assert isinstance(batch, str)
    assert shape == [bands, model.tile_size, model.tile_size]  # numbers: its dialog takes no others
    (output,) = plugin.session.get_outputs()
    assert output.shape[1:] == [classes, model.tile_size, model.tile_size]


def test_its_oldest_runtime_reads_the_file(pointrend_file):
    """ONNX Runtime 1.17.0, the newest that the plugin installs, reads IR 9 and operators of ONNX 20 at most."""
    proto = onnx.load(pointrend_file)
    assert proto.ir_version <= 9
    assert max(entry.version for entry in proto.opset_import) <= 20
