"""A tiny network twice: as an ONNX file of geopsp's contract, and as the model that it was made of."""

from __future__ import annotations

import json
import shutil

import numpy as np
import onnx
import torch
from inference_common import trained_model
from onnx import TensorProto, helper, numpy_helper
from torch import nn

from geopsp.export import arcgis_function

SIZE, BANDS, CLASSES, KERNEL = 32, 3, 5, 9
RNG = np.random.default_rng(5)
WEIGHT = (RNG.normal(size=(CLASSES, BANDS, KERNEL, KERNEL)) / KERNEL).astype(np.float32)
GLOBAL = RNG.normal(size=(CLASSES, BANDS, 1, 1)).astype(np.float32)
MEAN, STD = np.float32(120), np.float32(60)


class Blurred(nn.Module):
    """Logits by a wide convolution that sees zeros beside the tile, and by the mean of the tile."""

    def __init__(self):
        super().__init__()
        self.near, self.whole = (nn.Parameter(torch.from_numpy(each)) for each in (WEIGHT, GLOBAL))

    def forward(self, image, valid=None):
        mean = image.mean(dim=(2, 3), keepdim=True)
        near = nn.functional.conv2d(image, self.near, padding=KERNEL // 2)
        return near + nn.functional.conv2d(mean, self.whole)


def blurred_model(dtype="uint8"):
    model = trained_model(size=SIZE, count=BANDS, network=Blurred(), dtype=dtype, cell=0.5)
    model.statistics.mean[:] = MEAN
    model.statistics.m2[:] = STD**2 * model.statistics.count
    return model


def write_onnx(path, *, batch="batch", size=SIZE):
    """The same network: raw pixels in, probabilities out, pixels of 0 in all bands invalid."""
    constants = {
        "mean": MEAN, "std": STD, "near": WEIGHT, "whole": GLOBAL, "zero": np.float32(0),
        "channel": np.array([1], np.int64), "sides": np.array([2, 3], np.int64),
    }  # fmt: skip
    node = helper.make_node
    nodes = [
        node("Abs", ["image"], ["size"]),
        node("ReduceMax", ["size", "channel"], ["largest"], keepdims=1),
        node("Greater", ["largest", "zero"], ["valid"]),
        node("Sub", ["image", "mean"], ["centred"]),
        node("Div", ["centred", "std"], ["scaled"]),
        node("Where", ["valid", "scaled", "zero"], ["masked"]),
        node("Conv", ["masked", "near"], ["local"], pads=[KERNEL // 2] * 4),
        node("ReduceMean", ["masked", "sides"], ["means"], keepdims=1),
        node("Conv", ["means", "whole"], ["global"]),
        node("Add", ["local", "global"], ["logits"]),
        node("Softmax", ["logits"], ["probabilities"], axis=1),
    ]
    graph = helper.make_graph(
        nodes,
        "blurred",
        [helper.make_tensor_value_info("image", TensorProto.FLOAT, [batch, BANDS, size, size])],
        [helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, [batch, CLASSES, size, size])],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 18)], ir_version=8)
    onnx.checker.check_model(model, full_check=True)
    onnx.save(model, path)
    return path


def write_folder(folder, **entries):
    """An unpacked package without a check of what is in it."""
    folder.mkdir()
    write_onnx(folder / "model.onnx")
    shutil.copy(arcgis_function.__file__, folder / "GeopspClassifier.py")
    legend = blurred_model().legend
    classes = [{"Value": each.code, "Name": each.name, "Color": list(each.rgb)} for each in legend]
    definition = {
        "ModelType": "ImageClassification", "InferenceFunction": "GeopspClassifier.py", "ModelFile": "model.onnx",
        "ImageHeight": SIZE, "ImageWidth": SIZE, "ExtractBands": list(range(BANDS)), "Classes": classes, **entries,
    }  # fmt: skip
    (folder / "model.emd").write_text(json.dumps(definition), encoding="utf-8")
    return folder


def picture(rows, cols, *, seed=0, bands=BANDS, dtype="uint8"):
    """Smooth fields and noise, nowhere 0."""
    rng = np.random.default_rng(seed)
    down, across = np.mgrid[:rows, :cols]
    fields = [np.sin(down / (7 + 3 * k) + k) + np.cos(across / (9 + 2 * k) - k) for k in range(bands)]
    data = 125 + 45 * np.stack(fields) + rng.normal(size=(bands, rows, cols)) * 12
    return data.clip(1, 255).astype(dtype)
