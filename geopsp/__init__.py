"""Satellite and aerial imagery to maps: chips, a PSPNet, seamless class rasters, polygons.

Names are loaded on first use, so that `import geopsp` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from geopsp.chips import export_training_data as export_training_data
    from geopsp.chipset import ChipSet as ChipSet
    from geopsp.classifier import PixelClassifier as PixelClassifier
    from geopsp.data import TrainingData as TrainingData
    from geopsp.data import prepare_data as prepare_data
    from geopsp.errors import GeopspError as GeopspError
    from geopsp.legend import ClassInfo as ClassInfo
    from geopsp.legend import Legend as Legend
    from geopsp.mapping import classify_pixels as classify_pixels
    from geopsp.metrics import Confusion as Confusion
    from geopsp.polygons.making import raster_to_polygons as raster_to_polygons
    from geopsp.presets import DeepLab as DeepLab
    from geopsp.presets import FCNClassifier as FCNClassifier
    from geopsp.presets import PSPNetClassifier as PSPNetClassifier
    from geopsp.presets import UnetClassifier as UnetClassifier
    from geopsp.scene import Scene as Scene

__version__ = "0.1.0"

_HOME = {
    "ChipSet": "chipset",
    "ClassInfo": "legend",
    "Confusion": "metrics",
    "DeepLab": "presets",
    "FCNClassifier": "presets",
    "GeopspError": "errors",
    "Legend": "legend",
    "PSPNetClassifier": "presets",
    "PixelClassifier": "classifier",
    "Scene": "scene",
    "TrainingData": "data",
    "UnetClassifier": "presets",
    "classify_pixels": "mapping",
    "export_training_data": "chips",
    "prepare_data": "data",
    "raster_to_polygons": "polygons.making",
}

__all__ = [
    "ChipSet",
    "ClassInfo",
    "Confusion",
    "DeepLab",
    "FCNClassifier",
    "GeopspError",
    "Legend",
    "PSPNetClassifier",
    "PixelClassifier",
    "Scene",
    "TrainingData",
    "UnetClassifier",
    "__version__",
    "classify_pixels",
    "export_training_data",
    "prepare_data",
    "raster_to_polygons",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'geopsp' has no attribute {name!r}")
    value = getattr(import_module(f"geopsp.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
