"""What a user may ask of a prediction."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from geopsp.errors import OptionError

Precision = Literal["auto", "fp32", "bf16"]


@dataclass(frozen=True, slots=True)
class MapSettings:
    """How a scene is mapped; each default stands here."""

    tile_size: int | None = None
    """Side of a tile in pixels; None: as the model was trained, which is what pyramid pooling needs."""

    padding: int | None = None
    """Pixels by which tiles overlap; None: a quarter of a tile."""

    batch_size: int | None = None
    """Tiles at a time; None: what fits."""

    test_time_augmentation: bool = False
    """True shows each tile in its eight symmetries and takes the mean."""

    predict_background: bool = True
    """False never predicts the class background, but what comes next."""

    sieve: int = 0
    """Regions (4-connected) of fewer pixels join their largest neighbour, as gdal_sieve does it; 0: none."""

    precision: Precision = "auto"
    """"bf16", "fp32", or "auto": bf16 where the processor or GPU has it in hardware."""

    compiled: bool = False
    """True compiles the network first (torch.compile): minutes before, less time for each tile."""

    def __post_init__(self) -> None:
        for name, least in (("tile_size", 32), ("padding", 0), ("batch_size", 1), ("sieve", 0)):
            value = getattr(self, name)
            if value is not None and not (isinstance(value, int) and value >= least):
                raise OptionError(f"{name} is {value!r}; needed a whole number from {least}.")
        if self.precision not in ("auto", "fp32", "bf16"):
            raise OptionError(f"precision is {self.precision!r}; needed auto, fp32 or bf16.")
