"""The format "stac": the STAC Item of a saved model, at any place, with links to the model's files."""

from __future__ import annotations

from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from geopsp.core.addresses import href
from geopsp.errors import OptionError
from geopsp.export.export_job import ExportJob
from geopsp.models.manifest import read_manifest
from geopsp.models.saved_model import model_manifest
from geopsp.models.stac_item import item_text, model_item, onnx_item


def write(job: ExportJob, path: Path) -> None:
    """Write the Item.

    Raises:
        OptionError: if the model was not saved, so that there are no files to describe.
    """
    if job.folder is None or job.target is None:
        raise OptionError(
            "A STAC Item describes files, but this model was not saved. Save it: its folder then holds an Item, "
            "model.stac.json; `geopsp export` writes another one elsewhere."
        )
    content = model_item(
        job.folder.resolve(),
        read_manifest(job.folder),
        job.model.size,
        words=job.model.composition,
        to_folder=f"{href(job.folder.resolve(), job.target.parent.resolve())}/",
    )
    path.write_text(item_text(content), encoding="utf-8")


def write_onnx_item(job: ExportJob, file: Path, path: Path, name: str) -> None:
    """Write the Item of the ONNX file of a model beside it."""
    try:
        written_by = version("onnx")
    except PackageNotFoundError:
        written_by = ""
    content = onnx_item(file, model_manifest(job.model), version=written_by, words=job.model.composition, name=name)
    path.write_text(item_text(content), encoding="utf-8")
