"""Exported files that many tests read: each is written once."""

from __future__ import annotations

from pathlib import Path

import pytest
from common import once
from export_common import random_model

from geopsp.export.export_model import export_model
from geopsp.models.build import ModelSpec
from geopsp.models.loss_options import LossSpec
from geopsp.models.saved_model import TrainedModel


@pytest.fixture(scope="session")
def pointrend_model() -> TrainedModel:
    """PointRend on a plain decoder; the class at channel 1 was ignored in training."""
    spec = ModelSpec("tu-test_resnet", 3, 4, decoder="plain", pointrend=True, aux="pixel")
    return random_model(spec, losses=LossSpec(ignore_classes=("class 1",)), dtype="uint8")


@pytest.fixture(scope="session")
def pointrend_file(pointrend_model: TrainedModel, shared_folder: Path) -> Path:
    """The same as ONNX."""
    path = shared_folder / "pointrend.onnx"
    once(shared_folder, "pointrend", lambda: export_model(pointrend_model, path))
    return path
