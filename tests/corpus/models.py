"""Models whose map is known: the first band says the class."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
from inference_common import CLASSES, Echo
from numpy.typing import NDArray

from geopsp.core.bands import BandStats
from geopsp.core.legend import Legend
from geopsp.models.build import ModelSpec
from geopsp.models.saved_model import TrainedModel, save_model

CODES = np.array([0, 3, 4, 90, 254], np.uint8)

NAMES = ("background", "water", "forest", "road", "last")


class SavedEcho(Echo):
    """An `Echo` with one weight, so that it can be saved."""

    def __init__(self, *_: Any, **__: Any) -> None:
        super().__init__()
        self.register_buffer("nothing", torch.zeros(1))


class Classifier:
    """What `classify_pixels` takes in place of a folder."""

    device = "cpu"

    def __init__(self, names: tuple[str, ...], dtype: str = "uint8", cell: float = 10.0, units: str = "metre") -> None:
        self.model = echo_model(names, dtype, cell, units)


def echo_model(names: tuple[str, ...], dtype: str = "uint8", cell: float = 10.0, units: str = "metre") -> TrainedModel:
    """Return a model of these bands that takes the class of a pixel from its value in the first: 1 is background."""
    count = len(names)
    statistics = BandStats(9, np.zeros(count), np.full(count, 9.0), np.zeros(count), np.full(count, 255.0))
    legend = Legend.from_names(dict(zip(CODES.tolist(), NAMES, strict=True)))
    spec = ModelSpec("tu-test_resnet", count, CLASSES)
    return TrainedModel(spec, legend, names, statistics, dtype, 32, (cell, cell), units, network=SavedEcho())


def load_echoes(monkeypatch: Any) -> None:
    """Let saved models be loaded as a `SavedEcho`."""
    for module in ("saved_model", "check_weights"):
        monkeypatch.setattr(f"geopsp.models.{module}.build_network", SavedEcho)


def save_echo(folder: Path, names: tuple[str, ...], **options: Any) -> Path:
    """Save such a model; `build_network` must give `SavedEcho` when it is loaded."""
    return save_model(echo_model(names, **options), folder)


def channels_of(band: NDArray[Any]) -> NDArray[np.intp]:
    """Return the channel indices that the model gives these values of the first band."""
    return np.clip(np.rint(band.astype(float)) - 1, 0, CLASSES - 1).astype(np.intp)


def codes_of(band: NDArray[Any], valid: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return the map of these values."""
    return np.where(valid, CODES[channels_of(np.where(valid, band, 1))], 255).astype(np.uint8)
