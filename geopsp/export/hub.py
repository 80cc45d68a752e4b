"""The format "hub": the folder of a model with what the Hugging Face Hub shows of it, and the upload there."""

from __future__ import annotations

import json
from importlib.metadata import version
from pathlib import Path
from typing import Any

from geopsp.core.stac import plain_name
from geopsp.core.temporary_folder import scratch_folder
from geopsp.errors import ModelError
from geopsp.export import onnx_file
from geopsp.export.export_job import ExportJob
from geopsp.export.model_card import model_card
from geopsp.export.stac_item import write_onnx_item
from geopsp.models.hub_model import MODEL_FILES, REPOSITORY, hub_errors
from geopsp.models.saved_model import TrainedModel, model_manifest, write_model_files

CONFIG, CARD, ONNX = "config.json", "README.md", "model.onnx"

ONNX_ITEM = f"{ONNX}.stac.json"

HUB_FILES = (*MODEL_FILES, CONFIG, CARD, ONNX, ONNX_ITEM)

OWNER = "OWNER"
"""Stands for the owner's name in the card of a folder that is not uploaded yet."""


def write(job: ExportJob, folder: Path) -> None:
    """Write the folder.

    Raises:
        OptionError, ExportError: if an ONNX file is asked for and cannot be written.
    """
    write_hub_folder(job, folder, f"{OWNER}/{plain_name(folder.name) or 'model'}")


def write_hub_folder(job: ExportJob, folder: Path, repository: str) -> None:
    """Write the folder of a model that goes to a repository, OWNER/NAME."""
    name = repository.rpartition("/")[2]
    write_model_files(job.model, folder)
    if job.options.onnx:
        onnx_file.write(job, folder / ONNX)
        write_onnx_item(job, folder / ONNX, folder / ONNX_ITEM, name)
    card = model_card(job.model, repository, license_id=job.options.license, onnx=job.options.onnx)
    (folder / CARD).write_text(card, encoding="utf-8")
    (folder / CONFIG).write_text(json.dumps(_config(job.model), indent=1), encoding="utf-8")


def _config(model: TrainedModel) -> dict[str, Any]:
    """Return what the Hub and people look at first; geopsp reads model.json."""
    manifest = model_manifest(model, "")
    names = ("architecture", "bands", "dtype", "tile_size", "cell_size", "units")
    return {
        "library_name": "geopsp",
        "geopsp_version": version("geopsp"),
        "model_type": str(model.settings.get("network", "PSPNetClassifier")),
        **{name: manifest[name] for name in names},
        "id2label": {str(channel): name for channel, name in enumerate(model.legend.names)},
        "label2id": {name: channel for channel, name in enumerate(model.legend.names)},
    }


def upload(
    job: ExportJob,
    repository: str,
    *,
    private: bool | None = None,
    token: str | None = None,
    revision: str | None = None,
    commit_message: str | None = None,
) -> str:
    """Upload a model to a repository of the Hub, which is made if it does not exist, and return its address.

    Raises:
        ModelError, InputNotFoundError: if the name is none, the Hub cannot be reached or refuses it.
    """
    from huggingface_hub import HfApi, constants

    name = repository.removeprefix("hf://")
    if not REPOSITORY.fullmatch(name):
        raise ModelError(f"{repository} is no name of a repository. Write OWNER/NAME.")
    with scratch_folder() as scratch:
        folder = scratch / name.rpartition("/")[2]
        folder.mkdir()
        write_hub_folder(job, folder, name)
        with hub_errors(f"hf://{name}"):
            api = HfApi(token=token, library_name="geopsp", library_version=version("geopsp"))
            api.create_repo(name, private=private, exist_ok=True)
            if revision is not None:
                api.create_branch(name, branch=revision, exist_ok=True)
            api.upload_folder(
                repo_id=name,
                folder_path=folder,
                revision=revision,
                commit_message=commit_message or "Upload of a geopsp model",
                allow_patterns=list(HUB_FILES),
            )
    return f"{constants.ENDPOINT}/{name}" + (f"/tree/{revision}" if revision else "")
