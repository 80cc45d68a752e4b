"""ONNX files for tests: one that geopsp exported, and copies of it that differ."""

from __future__ import annotations

import sys

import onnx
from common import REPOSITORY

GOLDEN = REPOSITORY / "tests" / "golden"
MODEL = GOLDEN / "model.onnx"
"""The model in golden/model, exported by `geopsp export golden/model --to onnx`: 2 bands, 3 classes, tiles of 64."""

NOT_INSTALLED = (
    "torch", "torchvision", "lightning", "segmentation_models_pytorch", "timm", "safetensors", "matplotlib",
    "distributed", "dask", "onnx", "huggingface_hub",
)  # fmt: skip
"""Packages that are not in requirements-runtime.txt."""

BLOCK = f"import sys; sys.modules.update(dict.fromkeys({NOT_INSTALLED}))"
"""Code that makes their import fail, as if they were not installed."""


def changed(path, change):
    """Write a copy of the model that a function has changed; return its path."""
    proto = onnx.load(MODEL)
    change(proto)
    path.write_bytes(proto.SerializeToString())
    return path


def set_metadata(**entries):
    """A change of the metadata; None removes an entry."""

    def change(proto):
        kept = {entry.key: entry.value for entry in proto.metadata_props} | entries
        del proto.metadata_props[:]
        onnx.helper.set_model_props(proto, {key: value for key, value in kept.items() if value is not None})

    return change


def without(monkeypatch, *names):
    """Packages that cannot be imported for the rest of a test."""
    for name in names:
        monkeypatch.setitem(sys.modules, name, None)
