"""A trained model, and the folder that it is saved to: data only, never code.

DIR/model.json           architecture, classes, bands, statistics, sizes, settings, scores, versions, checksum
DIR/weights.safetensors  the network's tensors
DIR/history.csv          one line an epoch, if it was trained
"""

from __future__ import annotations

import hashlib
import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import pandas as pd
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from geopsp.core.bands import BandStats, Normalization
from geopsp.core.legend import BACKGROUND, Legend
from geopsp.core.output import atomic_output
from geopsp.errors import GeopspError, InputNotFoundError, OptionError, PackageError
from geopsp.models.build import ModelSpec, build_network, count_parameters
from geopsp.models.losses import LossSpec
from geopsp.models.network import SegmentationNetwork

MANIFEST = "model.json"


WEIGHTS = "weights.safetensors"


HISTORY = "history.csv"


VERSION = 2


READABLE = (1, VERSION)
"""Version 1 knew no other network than PSPNet."""


INCONSISTENT = (
    GeopspError, SafetensorError, KeyError, IndexError, TypeError, ValueError, AttributeError, RuntimeError
)  # fmt: skip
"""What reading a manifest raises whose parts are missing, of another type, or at odds with each other."""


@dataclass(slots=True, eq=False)
class TrainedModel:
    """A network and all that is needed to use it on another raster."""

    spec: ModelSpec
    network: SegmentationNetwork
    legend: Legend
    bands: tuple[str, ...]
    statistics: BandStats
    """Of the pixels that it was trained on; images are normalised with it."""

    dtype: str
    tile_size: int
    cell_size: tuple[float, float]
    """Pixel width and height that it was trained on, in `units`."""

    units: str
    losses: LossSpec = field(default_factory=LossSpec)
    settings: dict[str, Any] = field(default_factory=dict)
    """How it was trained."""

    history: list[dict[str, float]] = field(default_factory=list)
    """One row an epoch."""

    metrics: dict[str, Any] = field(default_factory=dict)
    """Scores on the validation chips."""

    @property
    def composition(self) -> str:
        """The network's parts, in words."""
        spec = self.spec
        depth = f", {spec.encoder_depth} stages" if spec.encoder_depth < 5 else ""
        parts = [f"{spec.backbone} at output stride {spec.output_stride}{depth}"]
        parts += [f"pyramid {spec.pyramid_sizes}"] if spec.pyramid_sizes else []
        parts += [f"rates {spec.atrous_rates}"] if spec.atrous_rates else []
        parts += [{"plain": "plain decoder", "unet": "U-Net decoder", "deeplab": "one skip"}[spec.decoder]]
        parts += ["PointRend"] if spec.pointrend else []
        parts += [f"auxiliary loss by {spec.aux}"] if spec.aux != "none" else []
        return ", ".join(parts)

    @property
    def summary(self) -> str:
        """Parts, size, bands, classes and training, in a line."""
        size = count_parameters(self.network) / 1e6
        return (
            f"{self.composition}; {size:.1f} M parameters; {self.spec.bands} bands, {self.spec.classes} classes, tiles "
            f"of {self.tile_size}; {len(self.history)} epochs trained"
        )

    def excluded_channels(self, *, background: bool = True) -> tuple[int, ...]:
        """Channels that are never predicted: those of classes ignored in training, and of the background if so asked.

        Raises:
            OptionError: if the background shall not be predicted and there is none, or nothing else.
        """
        channels = set(self.losses.ignored(self.legend))
        if not background:
            if BACKGROUND not in self.legend.names:
                raise OptionError(
                    f"predict_background is False, but the model has no class {BACKGROUND!r}; it has "
                    f"{', '.join(self.legend.names)}. Leave it out."
                )
            channels.add(self.legend.names.index(BACKGROUND))
        if len(channels) == len(self.legend):
            raise OptionError("No class is left to predict. Leave predict_background as it is.")
        return tuple(sorted(channels))

    def fingerprint(self) -> str:
        """What tells this model from any other, whatever folder it lies in: of its weights, bands and statistics."""
        digest = hashlib.sha256(type(self.network).__qualname__.encode())
        for name, tensor in sorted(self.network.state_dict().items()):
            digest.update(name.encode())
            digest.update(tensor.detach().cpu().contiguous().view(-1).view(torch.uint8).numpy().data)
        parts = (self.spec, self.legend, self.statistics, self.losses)
        about = [self.bands, *(part.to_json() for part in parts)]
        digest.update(json.dumps(about, sort_keys=True, default=str).encode())
        return digest.hexdigest()

    @property
    def normalization(self) -> Normalization:
        return Normalization.from_stats(self.statistics)

    # names of earlier versions
    unwanted = excluded_channels


def save_model(model: TrainedModel, folder: str | Path, *, overwrite: bool = False) -> Path:
    """The folder holds the model, whole.

    Raises:
        OutputError: if it exists and `overwrite` is False, or cannot be written.
    """
    with atomic_output(folder, overwrite=overwrite, folder=True, marker=MANIFEST) as partial:
        state = {name: tensor.detach().cpu().contiguous() for name, tensor in model.network.state_dict().items()}
        save_file(state, partial / WEIGHTS)
        if model.history:
            write_history(model.history, partial / HISTORY)
        manifest = _manifest(model, _checksum(partial / WEIGHTS))
        manifest["manifest_sha256"] = _manifest_checksum(manifest)
        (partial / MANIFEST).write_text(json.dumps(manifest, indent=1, allow_nan=True), encoding="utf-8")
    return Path(folder)


def write_history(rows: Sequence[Mapping[str, float]], path: Path) -> None:
    """The file holds one line an epoch."""
    with atomic_output(path, overwrite=True) as partial:
        pd.DataFrame(rows).to_csv(partial, index=False)


def _manifest(model: TrainedModel, checksum: str) -> dict[str, Any]:
    packages = ("geopsp", "torch", "torchvision", "segmentation-models-pytorch", "timm", "lightning")
    return {
        "format": "geopsp-model",
        "version": VERSION,
        "weights_sha256": checksum,
        "architecture": model.spec.to_json(),
        "classes": model.legend.to_json(),
        "bands": list(model.bands),
        "dtype": model.dtype,
        "statistics": model.statistics.to_json(),
        "tile_size": model.tile_size,
        "cell_size": list(model.cell_size),
        "units": model.units,
        "losses": model.losses.to_json(),
        "settings": model.settings,
        "history": model.history,
        "metrics": model.metrics,
        "made_with": {"python": platform.python_version()} | {name: version(name) for name in packages},
    }


def _checksum(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _manifest_checksum(manifest: Mapping[str, Any]) -> str:
    """Checksum of what a manifest says, however it is laid out."""
    said = {name: value for name, value in manifest.items() if name != "manifest_sha256"}
    return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()


def load_model(folder: str | Path) -> TrainedModel:
    """The model that was saved, in evaluation mode, on the CPU.

    Raises:
        InputNotFoundError: if there is no such folder.
        PackageError: if a part is missing, damaged or was changed.
    """
    folder = Path(folder)
    manifest = read_manifest(folder)
    weights = folder / WEIGHTS
    if not weights.exists():
        raise PackageError(f"{folder} has no {WEIGHTS}; needed the folder as geopsp saved it. Copy it again, whole.")
    if _checksum(weights) != manifest["weights_sha256"]:
        raise PackageError(f"{weights} is not the file that was saved: its checksum differs. Copy it again, whole.")
    try:
        model = _model_of(manifest)
        model.network.load_state_dict(load_file(weights))
    except INCONSISTENT as error:
        what = f"{type(error).__name__}: {error}".splitlines()[0]
        raise PackageError(f"{folder / MANIFEST} does not fit this geopsp ({what}). Upgrade.") from error
    model.network.eval()
    return model


def read_manifest(folder: Path) -> dict[str, Any]:
    """What the folder says about its model.

    Raises:
        InputNotFoundError: if there is no such folder.
        PackageError: if it does not hold a model that this version can read.
    """
    if not folder.is_dir():
        raise InputNotFoundError(f"No such folder: {folder}. Train and save a model first (geopsp train).")
    if not (folder / MANIFEST).exists():
        raise PackageError(f"{folder} has no {MANIFEST}; needed a folder that geopsp saved a model to.")
    try:
        manifest: dict[str, Any] = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
    except ValueError as error:
        raise PackageError(f"{folder / MANIFEST} is damaged ({error}). Copy the folder again, whole.") from error
    if not isinstance(manifest, dict) or manifest.get("format") != "geopsp-model" or "weights_sha256" not in manifest:
        raise PackageError(f"{folder / MANIFEST} does not describe a geopsp model. Copy the folder again, whole.")
    if manifest.get("version") not in READABLE:
        raise PackageError(
            f"{folder} holds a model of version {manifest.get('version')}; this geopsp reads up to {VERSION}. Upgrade."
        )
    if manifest.get("manifest_sha256") != _manifest_checksum(manifest):
        raise PackageError(f"{folder / MANIFEST} was changed: its checksum differs. Copy the folder again, whole.")
    return manifest


def _model_of(manifest: Mapping[str, Any]) -> TrainedModel:
    spec = ModelSpec.from_json(manifest["architecture"])
    legend, bands = Legend.from_json(manifest["classes"]), tuple(manifest["bands"])
    statistics = BandStats.from_json(manifest["statistics"])
    found = (len(legend), len(bands), len(statistics.mean), len(statistics.m2))
    if found != (spec.classes, spec.bands, spec.bands, spec.bands):
        raise ValueError(f"{found} classes, bands, means and spreads do not suit {spec}")
    return TrainedModel(
        spec=spec,
        network=build_network(spec),
        legend=legend,
        bands=bands,
        statistics=statistics,
        dtype=str(manifest["dtype"]),
        tile_size=int(manifest["tile_size"]),
        cell_size=(float(manifest["cell_size"][0]), float(manifest["cell_size"][1])),
        units=str(manifest["units"]),
        losses=LossSpec.from_json(manifest["losses"]),
        settings=dict(manifest["settings"]),
        history=list(manifest["history"]),
        metrics=dict(manifest["metrics"]),
    )
