"""What is known of a model beside its network: classes, bands, statistics, sizes. Nothing here needs torch."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from geopsp.core.bands import BandStats, Normalization
from geopsp.core.documents import DocumentError, file_checksum
from geopsp.core.legend import BACKGROUND, Legend
from geopsp.core.pixel_values import RAW, PixelValues, is_identity
from geopsp.core.text import format_error
from geopsp.errors import BandError, GeopspError, OptionError, PackageError
from geopsp.models.calibration import Calibration
from geopsp.models.loss_options import LossSpec
from geopsp.models.manifest import WEIGHTS, read_manifest
from geopsp.models.spec import ModelSpec


@dataclass(slots=True, eq=False)
class ModelInfo:
    """What is known of a model beside its network, and what follows from it, whatever computes the network."""

    spec: ModelSpec
    legend: Legend
    bands: tuple[str, ...]
    statistics: BandStats
    """Of the training pixels; images are normalised with them."""

    dtype: str
    tile_size: int
    cell_size: tuple[float, float]
    """Pixel width and height of the training images, in `units`."""

    units: str
    """CRS units, e.g. "metre"."""

    losses: LossSpec = field(default_factory=LossSpec)
    settings: dict[str, Any] = field(default_factory=dict)
    """Options of training, e.g. the seed and each run."""

    history: list[dict[str, float]] = field(default_factory=list)
    """One row per epoch."""

    metrics: dict[str, Any] = field(default_factory=dict)
    """Scores on the validation chips."""

    pixel_values: PixelValues = RAW
    """What the values of the training pixels mean; those of other images are converted to it."""

    calibration: Calibration | None = None
    """How its probabilities are calibrated; None: not. No class depends on it."""

    @staticmethod
    def from_manifest(manifest: Mapping[str, Any]) -> ModelInfo:
        """Return what a manifest says that fits `ModelManifest`.

        Raises:
            ModelError, OptionError, ...: if its entries contradict each other.
        """
        legend = Legend.from_json(manifest["classes"])
        return ModelInfo(
            spec=ModelSpec.from_json(manifest["architecture"]),
            legend=legend,
            bands=tuple(manifest["bands"]),
            statistics=BandStats.from_json(manifest["statistics"]),
            dtype=str(manifest["dtype"]),
            tile_size=int(manifest["tile_size"]),
            cell_size=(float(manifest["cell_size"][0]), float(manifest["cell_size"][1])),
            units=str(manifest["units"]),
            losses=LossSpec.from_json(manifest["losses"]).for_legend(legend),
            settings=dict(manifest["settings"]),
            history=list(manifest["history"]),
            metrics=dict(manifest["metrics"]),
            pixel_values=PixelValues.from_json(manifest.get("pixel_values")),
            calibration=Calibration.from_json(manifest.get("calibration")),
        )

    def entries(self) -> dict[str, Any]:
        """Return the entries by name."""
        return {entry.name: getattr(self, entry.name) for entry in fields(ModelInfo)}

    @property
    def composition(self) -> str:
        """The parts of the network, in words."""
        return self.spec.words

    @property
    def normalization(self) -> Normalization:
        return Normalization.from_stats(self.statistics)

    def excluded_channels(self, *, background: bool = True) -> tuple[int, ...]:
        """Return the channels that are never predicted: of the classes ignored in training, and of the background.

        Args:
            background: True if the background may be predicted.

        Raises:
            OptionError: if there is no background to exclude, or no other class.
        """
        channels = set(self.losses.ignored(self.legend))
        if not background:
            if BACKGROUND not in self.legend.names:
                raise OptionError(
                    f"`predict_background` is False, but the model has no class {BACKGROUND!r}, only "
                    f"{', '.join(self.legend.names)}. Leave the option out."
                )
            channels.add(self.legend.names.index(BACKGROUND))
        if len(channels) == len(self.legend):
            raise OptionError(
                "`predict_background` is False, and no other class is left to predict. Leave the option out."
            )
        return tuple(sorted(channels))

    def statistics_for(self, values: PixelValues) -> BandStats:
        """Return the training statistics in values of another meaning, which these normalise just as well.

        Raises:
            BandError: if a band's scales have opposite signs.
        """
        conversion = values.conversion_to(self.pixel_values, len(self.bands))
        if any(gain < 0 for gain, _ in conversion):
            raise BandError(
                f"The values are {values}, but the model was trained on {self.pixel_values}: scales of opposite signs. "
                "Give both the same sign."
            )
        return self.statistics if is_identity(conversion) else self.statistics.before(conversion)

    # names of earlier versions
    unwanted = excluded_channels


def read_model_info(folder: str | Path) -> ModelInfo:
    """Read what is known of a saved model; its network is not built.

    Raises:
        InputNotFoundError: if there is no such folder.
        PackageError: if a part is missing or was changed.
    """
    manifest = read_manifest(Path(folder))
    require_saved_weights(Path(folder), manifest)
    try:
        return ModelInfo.from_manifest(manifest)
    except (GeopspError, KeyError, TypeError, ValueError) as error:
        raise PackageError(
            f"{folder} does not fit this version of geopsp ({format_error(error)}). Upgrade geopsp, or copy the folder "
            "again."
        ) from error


def require_saved_weights(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Check that the weights are those that were saved.

    Raises:
        PackageError: if not.
    """
    weights = folder / WEIGHTS
    try:
        checksum = file_checksum(weights)
    except FileNotFoundError:
        raise PackageError(f"{folder} has no {WEIGHTS}. Copy the whole folder again.") from None
    except (OSError, DocumentError) as error:
        raise PackageError(f"Cannot read {weights}: {format_error(error)}. Copy the folder again.") from error
    if checksum != manifest["weights_sha256"]:
        raise PackageError(f"{weights} is not the file that was saved: its checksum differs. Copy the folder again.")
