"""The method `export` of classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from geopsp.core.options import describes, from_names, option_values
from geopsp.export.check_tiles import RawTiles, chip_tiles
from geopsp.export.export_model import export_model
from geopsp.export.options import ExportOptions
from geopsp.models.saved_model import TrainedModel
from geopsp.training.training_data import TrainingData


class Classifier(Protocol):
    """A classifier, such as `PixelClassifier`."""

    model: TrainedModel
    data: TrainingData | None


@describes(ExportOptions)
def export(
    classifier: Classifier,
    path: str | Path,
    format: str = "onnx",  # noqa: A002 (the word of pandas and matplotlib)
    *,
    precision: str = "fp32",
    pointrend: bool = True,
    tile_size: int | None = None,
    chips: str | Path | Sequence[str | Path] | None = None,
    images: str | Path | Sequence[str | Path] | None = None,
    overwrite: bool = False,
) -> Path:
    """Write the model as a file that other programs read, checked beside the model itself, and return its path.

    Args:
        classifier: Trained, or loaded.
        path: The file or folder to write.
        format: "onnx": one ONNX file, for QGIS Deepness and ONNX Runtime; "dlpk": a package for ArcGIS Pro.
        {options}

    Raises:
        OptionError, ModelError: if an option is out of range or does not apply, or a package is missing.
        ExportError: if the network cannot be exported, or the exported file gives other results.
        OutputError: if the output exists and `overwrite` is False, or cannot be written.
    """
    options = option_values(from_names(ExportOptions, locals()))
    return export_model(classifier.model, path, format, **options, validation=_validation_tiles(classifier))


def _validation_tiles(classifier: Classifier) -> RawTiles | None:
    if classifier.data is None:
        return None
    data = classifier.data.valid_ds
    return chip_tiles(classifier.model, data.chips, data.reader, data.rows.tolist(), "validation chips")
