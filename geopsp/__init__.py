"""Satellite and aerial imagery to maps: chips, a PSPNet, seamless class rasters, polygons.

Names are loaded on first use, so that `import geopsp` is quick.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

from geopsp.core.extras import quick_imports
from geopsp.core.log import set_up_logging

if TYPE_CHECKING:
    from geopsp.active_learning.suggest_chips import suggest_chips as suggest_chips
    from geopsp.assessment.accuracy.assess_map import assess_map as assess_map
    from geopsp.assessment.accuracy.map_accuracy import MapAccuracy as MapAccuracy
    from geopsp.assessment.change.compare_maps import compare_maps as compare_maps
    from geopsp.assessment.change.map_change import MapChange as MapChange
    from geopsp.assessment.comparison.compare_models import compare_models as compare_models
    from geopsp.assessment.comparison.model_comparison import ModelComparison as ModelComparison
    from geopsp.assessment.sampling.draw_sample import draw_sample as draw_sample
    from geopsp.assessment.sampling.sample_file import Sample as Sample
    from geopsp.assessment.sampling.sample_file import read_sample as read_sample
    from geopsp.chips.chip_set import ChipSet as ChipSet
    from geopsp.chips.export_training_data import export_training_data as export_training_data
    from geopsp.core.legend import ClassInfo as ClassInfo
    from geopsp.core.legend import Legend as Legend
    from geopsp.core.sample_data import find_sample_data as find_sample_data
    from geopsp.core.warnings_log import warnings_as_errors as warnings_as_errors
    from geopsp.errors import GeopspError as GeopspError
    from geopsp.inference.classify_pixels import classify_pixels as classify_pixels
    from geopsp.models.crf import CRFOptions as CRFOptions
    from geopsp.models.weight_sets import supported_weights as supported_weights
    from geopsp.polygons.raster_to_polygons import raster_to_polygons as raster_to_polygons
    from geopsp.raster.scene import Scene as Scene
    from geopsp.report.explore_map import explore as explore
    from geopsp.report.map_figure import show_map as show_map
    from geopsp.training.classifier import PixelClassifier as PixelClassifier
    from geopsp.training.metrics import Confusion as Confusion
    from geopsp.training.networks import DeepLab as DeepLab
    from geopsp.training.networks import FCNClassifier as FCNClassifier
    from geopsp.training.networks import PSPNetClassifier as PSPNetClassifier
    from geopsp.training.networks import UnetClassifier as UnetClassifier
    from geopsp.training.report_classifier import write_report as write_report
    from geopsp.training.training_data import TrainingData as TrainingData
    from geopsp.training.training_data import prepare_data as prepare_data

__version__ = "0.2.0"

set_up_logging()

_HOME = {
    "CRFOptions": "models.crf",
    "ChipSet": "chips.chip_set",
    "ClassInfo": "core.legend",
    "Confusion": "training.metrics",
    "DeepLab": "training.networks",
    "FCNClassifier": "training.networks",
    "GeopspError": "errors",
    "Legend": "core.legend",
    "MapAccuracy": "assessment.accuracy.map_accuracy",
    "MapChange": "assessment.change.map_change",
    "ModelComparison": "assessment.comparison.model_comparison",
    "PSPNetClassifier": "training.networks",
    "PixelClassifier": "training.classifier",
    "Sample": "assessment.sampling.sample_file",
    "Scene": "raster.scene",
    "TrainingData": "training.training_data",
    "UnetClassifier": "training.networks",
    "assess_map": "assessment.accuracy.assess_map",
    "classify_pixels": "inference.classify_pixels",
    "compare_maps": "assessment.change.compare_maps",
    "compare_models": "assessment.comparison.compare_models",
    "draw_sample": "assessment.sampling.draw_sample",
    "explore": "report.explore_map",
    "export_training_data": "chips.export_training_data",
    "find_sample_data": "core.sample_data",
    "prepare_data": "training.training_data",
    "raster_to_polygons": "polygons.raster_to_polygons",
    "show_map": "report.map_figure",
    "suggest_chips": "active_learning.suggest_chips",
    "read_sample": "assessment.sampling.sample_file",
    "supported_weights": "models.weight_sets",
    "warnings_as_errors": "core.warnings_log",
    "write_report": "training.report_classifier",
}

__all__ = [
    "CRFOptions",
    "ChipSet",
    "ClassInfo",
    "Confusion",
    "DeepLab",
    "FCNClassifier",
    "GeopspError",
    "Legend",
    "MapAccuracy",
    "MapChange",
    "ModelComparison",
    "PSPNetClassifier",
    "PixelClassifier",
    "Sample",
    "Scene",
    "TrainingData",
    "UnetClassifier",
    "__version__",
    "assess_map",
    "classify_pixels",
    "compare_maps",
    "compare_models",
    "draw_sample",
    "explore",
    "export_training_data",
    "find_sample_data",
    "prepare_data",
    "raster_to_polygons",
    "read_sample",
    "show_map",
    "suggest_chips",
    "supported_weights",
    "warnings_as_errors",
    "write_report",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module 'geopsp' has no attribute {name!r}")
    with quick_imports():
        value = getattr(import_module(f"geopsp.{_HOME[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return __all__
