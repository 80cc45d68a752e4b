"""What is exported: a model, its options and the pixels that it is checked on."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from geopsp.export.check_tiles import RawTiles
from geopsp.export.options import ExportOptions
from geopsp.models.calibration import Calibration
from geopsp.models.saved_model import TrainedModel


@dataclass(frozen=True, slots=True, eq=False)
class ExportJob:
    """A model to export."""

    model: TrainedModel
    options: ExportOptions
    folder: Path | None = None
    """Where the model was saved; None if it was not."""

    target: Path | None = None
    """What is written, once it is complete."""

    validation: RawTiles | None = None
    """Validation chips of a classifier with data."""

    @property
    def calibration(self) -> Calibration | None:
        """Of the exported probabilities; None: they are those of the network."""
        return self.model.calibration if self.options.calibrated else None

    @property
    def tile_size(self) -> int:
        return self.options.tile_size or self.model.tile_size
