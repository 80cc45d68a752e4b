"""The manifest of a saved model, read without torch."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import Field, model_validator

from geopsp.core.documents import DocumentError, read_json
from geopsp.core.owned_files import FolderKind
from geopsp.core.schema import (
    MAX_BANDS,
    MAX_TILE,
    BandNames,
    CellSize,
    ClassEntries,
    Count,
    Dtype,
    Name,
    PixelValuesEntry,
    Positive,
    Schema,
    Sha256,
    StatisticsEntry,
    require_fit,
    require_same_length,
)
from geopsp.core.text import format_error
from geopsp.errors import InputNotFoundError, PackageError
from geopsp.models.arcgis_package import require_no_arcgis_package

MANIFEST = "model.json"


WEIGHTS = "weights.safetensors"


HISTORY = "history.csv"

MODEL_ITEM = "model.stac.json"

RUN_CONFIG = "train.yaml"
"""The options of the command that trained a model; they name files of its user, so it is never uploaded."""

RECORD = "training.json"
"""What reports tell of the training, see `training_record`; it is never uploaded, either."""

REPORT = "report.html"

MODEL_FOLDER = FolderKind(MANIFEST, (WEIGHTS, HISTORY, MODEL_ITEM, RUN_CONFIG, RECORD, REPORT))


VERSION = 2
"""Version of the folder's format."""


BACKBONE_NAME = r"^[A-Za-z0-9][A-Za-z0-9_.+-]{0,99}$"
"""Names of encoders: no address and no path, which timm would follow."""

MAX_CONTEXT_NUMBER, MAX_CONTEXT_NUMBERS = 512, 16
"""Largest pooling size or rate of a context, and how many it may have."""


MAX_DECODER_WIDTH = 1024
"""Most channels of a step of a decoder."""


MAX_CLASSES = 255


READABLE_VERSIONS = (1, VERSION)
"""Version 1 had PSPNet only."""


Numbers = Annotated[list[Annotated[int, Field(ge=1, le=MAX_CONTEXT_NUMBER)]], Field(max_length=MAX_CONTEXT_NUMBERS)]


class ArchitectureEntry(Schema):
    """The fields of `ModelSpec`, and those of version 1; itself it checks how they go together."""

    backbone: Annotated[str, Field(pattern=BACKBONE_NAME)]
    bands: Annotated[int, Field(ge=1, le=MAX_BANDS)]
    classes: Annotated[int, Field(ge=2, le=MAX_CLASSES)]
    pyramid_sizes: Numbers | None = None
    atrous_rates: Numbers | None = None
    decoder: Name = "unet"
    use_unet: bool = True
    pointrend: bool = False
    aux: Name = "none"
    output_stride: int = 8
    encoder_depth: int = 5
    decoder_width: Annotated[int, Field(ge=1, le=MAX_DECODER_WIDTH)] | None = None
    decoder_stride: int = 2


class CalibrationEntry(Schema):
    """How probabilities are calibrated; `Calibration` checks its numbers."""

    method: Literal["temperature", "vector"]
    temperature: Positive
    weights: Annotated[list[Positive], Field(max_length=MAX_CLASSES)] = Field(default=[])
    biases: Annotated[list[float], Field(max_length=MAX_CLASSES)] = Field(default=[])
    pixels: Count = 0
    chips: Count = 0
    nll_before: float | None = None
    nll_after: float | None = None
    ece_before: float | None = None
    ece_after: float | None = None
    folds: Annotated[str, Field(max_length=100)] = ""


class ModelManifest(Schema):
    """What model.json holds; `LossSpec` checks the losses."""

    architecture: ArchitectureEntry
    classes: ClassEntries
    bands: BandNames
    dtype: Dtype
    statistics: StatisticsEntry
    tile_size: Annotated[int, Field(ge=16, le=MAX_TILE)]
    cell_size: CellSize
    units: Name
    pixel_values: PixelValuesEntry | None = None
    calibration: CalibrationEntry | None = None
    losses: dict[str, float | bool | str | list[Name]]
    settings: dict[str, Any]
    history: list[dict[str, Annotated[float, Field(allow_inf_nan=True)] | None]]
    metrics: dict[str, Any]
    made_with: dict[str, Any] | None = None
    weights_sha256: Sha256

    @model_validator(mode="after")
    def _require_consistent(self) -> Self:
        num_bands, num_classes = self.architecture.bands, self.architecture.classes
        require_same_length("bands", {"architecture": num_bands, "bands": len(self.bands)})
        require_same_length("bands", {"architecture": num_bands, "statistics": self.statistics.num_bands})
        require_same_length("classes", {"architecture": num_classes, "classes": len(self.classes)})
        if self.calibration and self.calibration.weights:
            counts = {"classes": len(self.classes), "calibration": len(self.calibration.weights)}
            require_same_length("classes", counts | {"calibration.biases": len(self.calibration.biases)})
        return self


def read_manifest(folder: Path) -> dict[str, Any]:
    """Read the manifest of a model folder.

    Raises:
        InputNotFoundError: if there is no such folder.
        PackageError: if it does not hold a model that this version can read, or one of ArcGIS.
    """
    if not (folder / MANIFEST).exists():
        require_no_arcgis_package(folder)
    if not folder.is_dir():
        raise InputNotFoundError(f"No such folder: {folder}. Train and save a model first.")
    try:
        manifest: Any = read_json(folder / MANIFEST, allow_nan=True)  # scores of absent classes are NaN
    except FileNotFoundError:
        raise PackageError(f"{folder} has no {MANIFEST}, so it is not a saved model.") from None
    except (DocumentError, OSError) as error:
        raise PackageError(f"Cannot read {folder / MANIFEST}: {format_error(error)}. Copy the folder again.") from error
    return check_manifest(manifest, str(folder / MANIFEST), str(folder))


def check_manifest(manifest: Any, name: str, where: str, remedy: str = "Copy the folder again") -> dict[str, Any]:
    """Check parsed JSON; return it.

    Args:
        manifest: The content.
        name: What holds it, for messages.
        where: The folder or file that holds the whole model.
        remedy: What to do if it is damaged.

    Raises:
        PackageError: if it does not describe a model that this version can read.
    """
    if not isinstance(manifest, dict) or manifest.get("format") != "geopsp-model" or "weights_sha256" not in manifest:
        raise PackageError(f"{name} does not describe a geopsp model. {remedy}.")
    if manifest.get("version") not in READABLE_VERSIONS:
        raise PackageError(
            f"{where} holds a model of version {manifest.get('version')}, but this geopsp reads versions up to "
            f"{VERSION}. Upgrade geopsp."
        )
    if manifest.get("manifest_sha256") != manifest_checksum(manifest):
        raise PackageError(f"{name} was changed: its checksum differs. {remedy}.")
    try:
        require_fit(manifest, ModelManifest)
    except DocumentError as error:
        raise PackageError(f"{name} does not fit any geopsp model: {error}. {remedy}, or train anew.") from None
    return manifest


def manifest_checksum(manifest: Mapping[str, Any]) -> str:
    """Return the checksum of a manifest's content, whatever its layout."""
    content = {name: value for name, value in manifest.items() if name != "manifest_sha256"}
    return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()
