"""What a classifier takes, by keyword."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from numbers import Real
from pathlib import Path
from typing import Any, TypedDict

from geopsp.core.legend import Legend
from geopsp.errors import OptionError
from geopsp.models.losses import LossSpec

MONITORS = {"valid_loss": "min", "accuracy": "max", "valid_miou": "max", "dice": "max"}


CLIP = 1.0


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How long and how training goes. Meanings as in arcgis.learn."""

    epochs: int = 10
    lr: tuple[float, float] = (1e-3, 1e-3)
    """Highest rates of the encoder's first layers and of what follows the encoder; those between lie between."""

    one_cycle: bool = True
    early_stopping: bool = False
    checkpoint: bool = True
    """True brings back the weights of the best epoch."""

    monitor: str = "valid_loss"
    seed: int = 42
    accumulate: int = 1
    """Batches whose gradients are added up for one step."""

    clip: float = CLIP
    """Largest norm of the gradient."""

    ema: float = 0.0
    """Decay of the moving average of the weights that is validated and kept; 0: none."""

    compiled: bool = False
    """True compiles the network before training."""

    def __post_init__(self) -> None:
        for name in ("epochs", "accumulate"):
            if not isinstance(getattr(self, name), int) or getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; needed a whole number of at least 1.")
        if not all(0 < rate < math.inf for rate in self.lr):
            raise OptionError(f"lr is {self.lr[1]:g}; needed a positive learning rate, e.g. 0.001.")
        if not isinstance(self.clip, float | int) or not self.clip > 0:
            raise OptionError(f"clip is {self.clip}; needed a positive norm, e.g. 1; inf for no clipping.")
        if not 0 <= self.ema < 1:
            raise OptionError(f"ema is {self.ema}; needed a decay from 0 (none) to below 1, e.g. 0.999.")
        if self.monitor not in MONITORS:
            raise OptionError(f"monitor is {self.monitor!r}; needed one of {', '.join(MONITORS)}.")

    def to_json(self) -> dict[str, Any]:
        return {**asdict(self), "lr": list(self.lr)}


LearningRate = float | slice | tuple[float, float]
"""One learning rate, or the first layers' and the last ones' as (low, high) or slice(low, high)."""


class ClassifierOptions(TypedDict, total=False):
    """What every classifier takes, by keyword."""

    pointrend: bool
    """True decides the least certain points anew, for sharper outlines; works with every decoder. Default: False."""

    aux: str
    """What the auxiliary head learns, where there is one: "pixel" (default), each pixel's class, or "presence", which
    classes a chip holds."""

    output_stride: int
    """How much smaller the encoder's last map is than the image: 8, 16 or 32."""

    encoder_depth: int
    """Stages of the encoder that are used, 3 to 5 (default); fewer are faster, and see less far but for the pyramid."""

    encoder_weights: str | Path | None
    """"imagenet"; a local .safetensors or .pth file; None: random; "auto" (default): ImageNet's where they can be had,
    else random, and it says so."""

    class_balancing: bool
    """True weights rare classes up in the loss, at most 10 to 1. Default: False."""

    focal_loss: bool
    """True weights pixels up that are hard. Default: False."""

    dice_loss_fraction: float
    """Share of the Dice loss, 0 (default) to 1."""

    dice_loss_average: str
    """"micro" (default), over all classes together, or "macro", the mean over the classes present."""

    lovasz_fraction: float
    """Share of the Lovasz loss, 0 (default) to 1."""

    tversky_fraction: float
    """Share of the Tversky loss, 0 (default) to 1."""

    tversky_alpha: float
    """What a pixel found wrongly costs in the Tversky loss. Default: 0.3."""

    tversky_beta: float
    """What a pixel missed costs in the Tversky loss. Default: 0.7."""

    label_smoothing: float
    """Share of each label that is spread over all classes. Default: 0."""

    ohem: float
    """Share of the labelled pixels, the hardest, that count in the cross entropy. Default: 1."""

    mixup: bool
    """True trains on mixtures of two chips each. Default: False."""

    ignore_classes: Sequence[str]
    """Classes whose pixels count as unlabelled, in training and scores of this model. Default: none."""

    device: str | None
    """As torch names it; None (default): the first GPU, else the CPU."""


LOSSES = (
    "class_balancing", "focal_loss", "dice_loss_fraction", "dice_loss_average", "lovasz_fraction", "tversky_fraction",
    "tversky_alpha", "tversky_beta", "label_smoothing", "ohem", "mixup", "ignore_classes",
)  # fmt: skip
"""Options that are the loss's."""


NAMES = tuple(ClassifierOptions.__annotations__)


def check_options(options: Mapping[str, Any]) -> None:
    """Nothing, if there are no others than known ones.

    Raises:
        OptionError: if there are.
    """
    unknown = [name for name in options if name not in NAMES]
    if unknown:
        raise OptionError(f"There is no option {', '.join(unknown)}; there are {', '.join(NAMES)}.")


def loss_spec(options: Mapping[str, Any], legend: Legend) -> LossSpec:
    """What is minimised under these options.

    Raises:
        OptionError: if one is out of range, or a class to ignore is not there or the last.
    """
    chosen = {name: options[name] for name in LOSSES if name in options}
    ignored = chosen.pop("ignore_classes", None) or ()
    ignored = (ignored,) if isinstance(ignored, str) else tuple(ignored)
    unknown = [name for name in ignored if name not in legend.names]
    if unknown or len(set(ignored)) > len(legend) - 2:
        raise OptionError(
            f"ignore_classes is {', '.join(map(str, ignored))}; the classes are {', '.join(legend.names)}, of which at "
            "least two must remain."
        )
    return LossSpec(**chosen, ignore_classes=ignored)


def parse_lr(lr: LearningRate) -> tuple[float, float]:
    """The lowest and the highest rate; slice(high) alone gives the first layers a tenth, as fastai does.

    Raises:
        OptionError: if it is none.
    """
    pair = (lr.start, lr.stop) if isinstance(lr, slice) else lr if isinstance(lr, tuple | list) else (lr, lr)
    if isinstance(lr, slice) and lr.start is None and isinstance(lr.stop, Real):
        pair = (float(lr.stop) / 10, lr.stop)
    if len(pair) != 2 or not all(isinstance(rate, Real) and not isinstance(rate, bool) for rate in pair):
        raise OptionError(f"lr is {lr!r}; needed one learning rate, or two as slice(low, high) or (low, high).")
    return float(pair[0]), float(pair[1])
