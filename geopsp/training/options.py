"""Options of training data, networks and training."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from geopsp.core.options import check_fields, option
from geopsp.errors import OptionError
from geopsp.training.fit_options import CLIP, MONITORS, FitOptions, LearningRate, RunConfig, parse_lr

if TYPE_CHECKING:
    import geopandas as gpd
    from torchvision.transforms import v2

    from geopsp.data.split_groups import SplitBy

__all__ = [
    "CLIP", "MONITORS", "DataOptions", "FitOptions", "LearningRate", "ModelOptions", "RunConfig", "parse_lr",
]  # fmt: skip

MIN_CHIP_SIZE = 32
"""Pixels; the encoder halves a chip five times."""


AUGMENTATION, AUGMENTATIONS = "light", ("none", "light", "medium", "strong")
"""The default level of augmentation, and all; `data.augment` has what they do."""


BATCH_SIZE = 8


NETWORKS = ("pspnet", "fcn", "unet", "deeplab")
"""Names of the classifiers in the shell; `training.networks.CLASSIFIERS` has their classes."""


BACKBONE = "resnet50"


@dataclass(frozen=True, slots=True)
class DataOptions:
    """All options of `prepare_data`, but those that decide which chips are cut from images.

    Raises:
        OptionError: if one is out of range.
    """

    chip_size: int | None = option(
        None,
        "Size of the training crops. None: the size of the chips.",
        minimum=MIN_CHIP_SIZE,
        unit="pixels",
        shell_help="Size in pixels of the training crops. Default: the size of the chips.",
    )
    tile_size: int | None = option(
        None,
        "With `images`: size of the chips that are cut. None: `chip_size`, or 256.",
        minimum=MIN_CHIP_SIZE,
        unit="pixels",
        flag="",
    )
    val_split_pct: float = option(
        0.2,
        "Fraction of the labelled chips to validate on. They are whole blocks; chips within `gap` of them are left "
        "out.",
        above=0,
        below=1,
        flag="--val-split",
        shell_help="Fraction of the labelled chips to validate on.",
    )
    batch_size: int | None = option(
        BATCH_SIZE,
        "Chips per training step. None: as many as fit into memory.",
        minimum=1,
        unit="chips",
        shell_help="Chips per training step. 0: as many as fit into memory.",
    )
    seed: int = option(42, "Random seed for the split, the order of chips and random chips.", minimum=0)
    augmentation: str = option(
        AUGMENTATION,
        "Strength of the random flips, rotations, scale, contrast and brightness, and from medium on gamma, blur and "
        "noise, of the training chips; the stronger, the better for scenes that look different.",
        choices=AUGMENTATIONS,
    )
    transforms: v2.Transform | None = option(
        None, "Transforms of (Image, Mask) of torchvision v2. None: those of `augmentation`.", flag=""
    )
    workers: int | None = option(
        None,
        "Processes that read chips; 0: this process alone. None: as device and CPU cores allow.",
        minimum=0,
        unit="processes",
    )
    balanced_sampling: bool = option(
        False, "Draw chips with rare classes more often; an epoch has as many chips as without."
    )
    cache: str | Path | None = option(
        None,
        "Folder for decoded chips, so that later epochs and runs read them faster. None: chips are decoded each time.",
    )
    split: SplitBy = option(
        "blocks",
        "What stays together: blocks (square blocks of the ground), source (images), or random (single chips; "
        "validation scores are then too optimistic).",
        choices=("blocks", "source", "random"),
    )
    block_size: float | None = option(
        None, "Side of a block. None: the best of several sizes.", above=0, unit="CRS units"
    )
    gap: float | None = option(
        None,
        "Minimum distance between training and validation chips. None: one chip width for blocks and areas, else 0.",
        minimum=0,
        unit="CRS units",
    )
    valid_path: str | Path | gpd.GeoDataFrame | Sequence[str | Path | gpd.GeoDataFrame] | None = option(
        None,
        "Validate on these instead: chip folders, or layers of polygons, which take the chips that they touch; one or "
        "a list. None: on a split of the chips.",
        shell_help="Validate on this chip folder, or on the chips that this layer of polygons touches, instead; may be "
        "repeated.",
    )
    folds: int | None = option(
        None, "Number of folds for cross-validation; `fold` validates. None: one split.", minimum=2, unit="folds"
    )
    fold: int = option(0, "Which of the `folds` validates, from 0.", minimum=0)

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class ModelOptions:
    """Options of all networks.

    Raises:
        OptionError: if one is out of range.
    """

    backbone: str | None = option(
        None,
        "Name of the encoder, e.g. resnet18 to resnet152; `supported_backbones` lists all. None: resnet50.",
        shell_help="Name of the encoder, e.g. resnet18 to resnet152.",
        shell_default=BACKBONE,
    )
    pretrained_path: str | Path | None = option(
        None,
        "Local weight file (.safetensors or .pth), or the folder of a saved model, to start from: the whole network's "
        "weights if they fit, else the encoder's. None: see `encoder_weights`.",
        flag="--pretrained",
        shell_help="Weight file or saved model to start from: the whole network's weights if they fit, else the "
        "encoder's.",
    )
    aux_loss: bool | None = option(
        None,
        "Force the auxiliary loss on or off. None: as the network has it.",
        flag="--aux-loss/--no-aux-loss",
        shell_help="Force the auxiliary loss on the encoder on or off. Default: only with the plain decoder.",
    )
    pointrend: bool | None = option(
        None,
        "Refine uncertain boundary pixels (PointRend) for sharper outlines. None: as the preset of the PSPNet has it, "
        "else off.",
        flag="--pointrend/--no-pointrend",
    )
    aux: str | None = option(
        None,
        "What the auxiliary loss learns: pixel (the class of each pixel) or presence (which classes a chip holds). "
        "None: pixel.",
        choices=("pixel", "presence"),
    )
    output_stride: int | None = option(
        None,
        "How much smaller than the image the last map of the encoder is: 8, 16 or 32; larger is faster and coarser. "
        "None: depends on the network.",
        choices=(8, 16, 32),
    )
    encoder_depth: int | None = option(
        None,
        "Stages of the encoder that are used: 3, 4 or 5; fewer are faster and see less far. None: as the preset of the "
        "PSPNet has it, else 5.",
        choices=(3, 4, 5),
    )
    encoder_weights: str | Path | None = option(
        "auto",
        "Weights of the encoder: imagenet, a name of `supported_weights` such as ssl4eo-s2-moco (for satellites), a "
        "local .safetensors or .pth file, or auto (ImageNet if available). None: random.",
        flag="--weights",
        shell_help="Weights of the encoder: imagenet, a name that geopsp weights lists, none (random), auto (ImageNet "
        "if available) or a local file.",
    )
    device: str | None = option(
        None, 'Device as torch names it, e.g. "cpu" or "cuda:1". None: the first GPU, else the CPU.'
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if self.pretrained_path is not None and self.encoder_weights not in (None, "auto"):
            raise OptionError("`encoder_weights` and `pretrained_path` are both given. Start from one of them.")
