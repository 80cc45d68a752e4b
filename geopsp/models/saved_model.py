"""A trained model and its folder, which holds data only, no code.

DIR/model.json           architecture, classes, bands, statistics, sizes, settings, scores, versions, checksum
DIR/weights.safetensors  tensors of the network
DIR/history.csv          one row per epoch, if it was trained
DIR/model.stac.json      a STAC Item of it for catalogues, which nothing here reads
DIR/train.yaml           all options of the command that trained it, if that was the shell's
DIR/training.json        what reports tell of the training: data, split, options, scores
DIR/report.html          the report, if the shell trained it
"""

from __future__ import annotations

import hashlib
import json
import logging
import platform
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save, save_file
from torch import Tensor

from geopsp.core.addresses import OutputPath
from geopsp.core.documents import file_checksum
from geopsp.core.escape import csv_text, printable
from geopsp.core.notebook_html import Cell, format_score, html_block, html_facts, html_table
from geopsp.core.output import atomic_output
from geopsp.core.pixel_values import pixel_values_entry
from geopsp.core.text import format_count, format_pixel_size
from geopsp.errors import GeopspError, PackageError
from geopsp.models.build import build_network, count_parameters
from geopsp.models.calibration import calibration_entry
from geopsp.models.check_weights import require_finite, require_fitting_weights
from geopsp.models.encoder import offline
from geopsp.models.hub_model import local_model
from geopsp.models.manifest import (
    HISTORY,
    MANIFEST,
    MODEL_FOLDER,
    RECORD,
    RUN_CONFIG,
    VERSION,
    WEIGHTS,
    manifest_checksum,
    read_manifest,
)
from geopsp.models.model_info import ModelInfo, require_saved_weights
from geopsp.models.network import SegmentationNetwork
from geopsp.models.spec import ModelSpec, check_tile_size
from geopsp.models.stac_item import NetworkSize, write_model_item
from geopsp.models.training_record import TrainingRecord, read_record, read_run_config, record_text

logger = logging.getLogger(__name__)

INCONSISTENT = (
    GeopspError, SafetensorError, KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError
)  # fmt: skip
"""Errors of reading a manifest with parts that are missing, of another type or contradict each other."""


@dataclass(slots=True, eq=False)
class TrainedModel(ModelInfo):
    """A trained network, with all that is needed to classify other images."""

    network: SegmentationNetwork = field(kw_only=True)

    run_config: str = field(default="", kw_only=True)
    """All options of the command that trained it, as YAML; only the shell knows them."""

    record: TrainingRecord | None = field(default=None, kw_only=True)
    """What reports tell of its training; None: it was not trained, or by an earlier version."""

    @property
    def summary(self) -> str:
        """Parts, size, bands, classes and training, in one line."""
        bands, epochs = format_count(self.spec.bands, "band"), format_count(len(self.history), "epoch")
        return (
            f"{self.composition}; {count_parameters(self.network) / 1e6:.1f} M parameters; {bands}, "
            f"{self.spec.classes} classes, tiles of {self.tile_size}; {epochs} trained"
        )

    def __repr__(self) -> str:
        return printable(f"<{type(self).__name__}: {self.summary}>")

    def _repr_html_(self) -> str:
        return self.html(type(self).__name__)

    def html(self, title: str, more: Mapping[str, str] | None = None) -> str:
        """Return what a notebook shows: parts, classes with their scores, training, and further facts by name."""
        facts = {
            "network": f"{self.composition}; {count_parameters(self.network) / 1e6:.1f} M parameters",
            "bands": f"{', '.join(self.bands)} ({self.dtype})",
            "pixels": f"{format_pixel_size(*self.cell_size, self.units)}; tiles of {self.tile_size} x {self.tile_size}",
            "training": format_count(len(self.history), "epoch"),
            **(more or {}),
        }
        scores = self.metrics.get("per_class", {})
        if not scores:
            return html_block(title, html_facts(facts | {"classes": self.legend.classes}))
        names = ("iou", "precision", "recall")
        rows: list[list[Cell]] = [
            [info, *(format_score(scores.get(info.name, {}).get(name)) for name in names)] for info in self.legend
        ]
        facts["validation"] = ", ".join(
            f"{words} {format_score(self.metrics.get(name))}" for name, words in (("miou", "mIoU"), ("accuracy",) * 2)
        )
        return html_block(title, html_facts(facts), html_table(["class", "IoU", "precision", "recall"], rows))

    @property
    def size(self) -> NetworkSize:
        """Parameters and bytes of the network."""
        memory = sum(tensor.nbytes for tensor in self.network.state_dict().values())
        return NetworkSize(count_parameters(self.network), memory)

    def fingerprint(self) -> str:
        """Return the SHA-256 of weights, architecture, classes, bands, statistics and losses, wherever it is saved."""
        digest = hashlib.sha256(type(self.network).__qualname__.encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        parts = (self.spec, self.legend, self.statistics, self.losses)
        about = [self.bands, *(part.to_json() for part in parts)]
        about += [] if self.pixel_values.is_default else [self.pixel_values.to_json()]
        digest.update(json.dumps(about, sort_keys=True, default=str).encode())
        return digest.hexdigest()


def save_model(model: TrainedModel, folder: str | Path, *, overwrite: bool = False) -> Path:
    """Write a model into a folder, whole or not at all.

    Raises:
        OutputError: if the folder exists and `overwrite` is False, or cannot be written.
    """
    with atomic_output(folder, overwrite=overwrite, folder=True, kind=MODEL_FOLDER) as partial:
        write_model_files(model, partial)
        if model.run_config:
            (partial / RUN_CONFIG).write_text(model.run_config, encoding="utf-8")
        if model.record is not None:
            (partial / RECORD).write_text(record_text(model.record), encoding="utf-8")
    return OutputPath(folder)


def write_model_files(model: TrainedModel, folder: Path) -> None:
    """Write the files of a model into a new folder."""
    save_file(_state(model), folder / WEIGHTS)
    if model.history:
        write_history(model.history, folder / HISTORY)
    manifest = model_manifest(model, file_checksum(folder / WEIGHTS))
    (folder / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=True), encoding="utf-8")
    write_model_item(folder, manifest, model.size, words=model.composition)
    shutil.copymode(folder / MANIFEST, folder / WEIGHTS)  # safetensors lets nobody else read its files


def write_history(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """Write a CSV file with one row per epoch."""
    import pandas as pd  # not needed to predict

    with atomic_output(path, overwrite=True) as partial:
        pd.DataFrame(map(_csv_row, rows)).to_csv(partial, index=False)


def _csv_row(row: Mapping[str, Any]) -> dict[str, Any]:
    """Return a row whose texts no spreadsheet takes for formulas; those of a received model may hold any."""
    return {csv_text(name): csv_text(value) if isinstance(value, str) else value for name, value in row.items()}


def _state(model: TrainedModel) -> dict[str, Tensor]:
    return {name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}


def model_manifest(model: TrainedModel, weights_sha256: str | None = None) -> dict[str, Any]:
    """Return what `model.json` holds of a model that is saved now.

    Args:
        model: The model.
        weights_sha256: Checksum of its file of weights; None: of the file that would be written.
    """
    if weights_sha256 is None:
        weights_sha256 = hashlib.sha256(save(_state(model))).hexdigest()
    packages = ("geopsp", "torch", "torchvision", "segmentation-models-pytorch", "timm", "lightning")
    manifest = {
        "format": "geopsp-model",
        "version": VERSION,
        "weights_sha256": weights_sha256,
        "architecture": model.spec.to_json(),
        "classes": model.legend.to_json(),
        "bands": list(model.bands),
        "dtype": model.dtype,
        "statistics": model.statistics.to_json(),
        "tile_size": model.tile_size,
        "cell_size": list(model.cell_size),
        "units": model.units,
        **pixel_values_entry(model.pixel_values),
        **calibration_entry(model.calibration),
        "losses": model.losses.to_json(),
        "settings": model.settings,
        "history": model.history,
        "metrics": model.metrics,
        "made_with": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }
    return manifest | {"manifest_sha256": manifest_checksum(manifest)}


def load_model(folder: str | Path) -> TrainedModel:
    """Load a saved model, in evaluation mode, on the CPU.

    Raises:
        InputNotFoundError: if there is no such folder.
        PackageError: if a part is missing or damaged, or was changed.
    """
    folder = local_model(folder)
    manifest = read_manifest(folder)
    weights = folder / WEIGHTS
    require_saved_weights(folder, manifest)
    try:
        with offline():
            require_fitting_weights(ModelSpec.from_json(manifest["architecture"]), weights)
            model = _model_from_manifest(manifest)
        state = load_file(weights)
        require_finite(state)
        model.network.load_state_dict(state)
    except INCONSISTENT as error:
        raise PackageError(
            f"{folder} does not fit this version of geopsp ({_first_detail(error)}). Upgrade geopsp, or copy the "
            "folder again."
        ) from error
    model.network.eval()
    model.run_config = read_run_config(folder)
    try:
        model.record = read_record(folder)
    except PackageError as error:
        logger.warning(str(error))
    return model


def _first_detail(error: Exception) -> str:
    """Return the reason of an error in one line; torch names the tensors below its first."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    text = lines[1] if len(lines) > 1 and isinstance(error, RuntimeError) else lines[0] if lines else ""
    text = text.rstrip(".")
    return text if isinstance(error, GeopspError | ValueError) else f"{type(error).__name__}: {text}"


def _model_from_manifest(manifest: Mapping[str, Any]) -> TrainedModel:
    info = ModelInfo.from_manifest(manifest)
    check_tile_size(info.tile_size, output_stride=info.spec.output_stride)
    return TrainedModel(network=build_network(info.spec), **info.entries())
