"""The method `export` of classifiers."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from geopsp.core.options import describes, from_names, option_values
from geopsp.export.check_tiles import RawTiles, chip_tiles
from geopsp.export.export_job import ExportJob
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
    calibrated: bool = True,
    tile_size: int | None = None,
    chips: str | Path | Sequence[str | Path] | None = None,
    images: str | Path | Sequence[str | Path] | None = None,
    onnx: bool = False,
    license: str | None = None,  # noqa: A002 (the word of the Hub)
    overwrite: bool = False,
) -> Path:
    """Write the model as a file that other programs read, checked beside the model itself, and return its path.

    Args:
        classifier: Trained, or loaded.
        path: The file or folder to write.
        format: "onnx": one ONNX file, for QGIS Deepness and ONNX Runtime; "dlpk": a package for ArcGIS Pro;
            "hub": a folder for the Hugging Face Hub. A STAC Item lies in every saved model.
        {options}

    Raises:
        OptionError, ModelError: if an option is out of range or does not apply, or a package is missing.
        ExportError: if the network cannot be exported, or the exported file gives other results.
        OutputError: if the output exists and `overwrite` is False, or cannot be written.
    """
    options = option_values(from_names(ExportOptions, locals()))
    return export_model(classifier.model, path, format, **options, validation=_validation_tiles(classifier))


def push_to_hub(
    classifier: Classifier,
    repo_id: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
    onnx: bool = False,
    license: str | None = None,  # noqa: A002 (the word of the Hub)
) -> str:
    """Upload the model with a model card to the Hugging Face Hub, and return its address.

    `PixelClassifier.from_model("hf://OWNER/NAME")` loads it from there.

    Args:
        classifier: Trained, or loaded.
        repo_id: OWNER/NAME; it is made if it does not exist.
        private: True hides a new repository from others. None: as the owner's settings say.
        token: Of the Hub. None: that of `hf auth login` or HF_TOKEN.
        revision: A branch, which is made if it does not exist. None: the main branch.
        commit_message: What the Hub's history says of the upload.
        onnx: True also uploads the network as an ONNX file, checked beside the model.
        license: As the Hub writes it, e.g. "apache-2.0". None: unknown, which the model card says.

    Raises:
        ModelError, InputNotFoundError: if the name is none, the Hub cannot be reached or refuses it.
        OptionError, ExportError: if an option is out of range, or the ONNX file cannot be written.
    """
    from geopsp.export.hub import upload

    options = ExportOptions(onnx=onnx, license=license)
    job = ExportJob(classifier.model, options, validation=_validation_tiles(classifier) if onnx else None)
    return upload(job, repo_id, private=private, token=token, revision=revision, commit_message=commit_message)


def _validation_tiles(classifier: Classifier) -> RawTiles | None:
    if classifier.data is None:
        return None
    data = classifier.data.valid_ds
    return chip_tiles(classifier.model, data.chips, data.reader, data.rows.tolist(), "validation chips")
