"""Options of training data, networks and training."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from geopsp.core.options import check_fields, option, require_choice
from geopsp.errors import OptionError

if TYPE_CHECKING:
    import geopandas as gpd
    from lightning.pytorch.loggers import Logger
    from torchvision.transforms import v2

    from geopsp.data.split_groups import SplitBy

MIN_CHIP_SIZE = 32
"""Pixels; the encoder halves a chip five times."""


BATCH_SIZE = 8


NETWORKS = ("pspnet", "fcn", "unet", "deeplab")
"""Names of the classifiers in the shell; `training.networks.CLASSIFIERS` has their classes."""


BACKBONE = "resnet50"


PYRAMID_SIZES = (1, 2, 3, 6)


MONITORS = {"valid_loss": "min", "accuracy": "max", "valid_miou": "max", "dice": "max"}
"""What `fit` can monitor, and whether smaller or larger is better."""


CLIP = 1.0


LearningRate = float | slice | tuple[float, float]
"""One learning rate, or those of the first and the last layers as (low, high) or slice(low, high)."""


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
    transforms: v2.Transform | None = option(
        None,
        "Augmentation: torchvision v2 transforms of (Image, Mask). None: flips and rotations, scale, brightness and "
        "contrast.",
        flag="",
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
    pointrend: bool = option(False, "Refine uncertain boundary pixels (PointRend) for sharper outlines.")
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
    encoder_depth: int = option(
        5, "Stages of the encoder that are used: 3, 4 or 5; fewer are faster and see less far.", choices=(3, 4, 5)
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


@dataclass(frozen=True, slots=True)
class PSPNetOptions:
    """Options of the PSPNet alone."""

    use_unet: bool = option(
        True,
        "Use the U-Net decoder. False: upsample the output 8 times instead.",
        flag="--no-unet",
        shell_help="pspnet: upsample the output 8x instead of using the U-Net decoder.",
    )
    pyramid_sizes: Sequence[int] = option(
        PYRAMID_SIZES,
        "Grid sizes of the pyramid pooling; (): no pyramid.",
        shell_help="pspnet: grid sizes of the pyramid pooling, or none. Default: 1,2,3,6.",
    )
    unet_aux_loss: bool = option(
        False, "Use the auxiliary loss with the U-Net decoder, too; the plain decoder always has it.", flag=""
    )

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a network is trained.

    Raises:
        OptionError: if an option is out of range.
    """

    epochs: int = option(10, "Passes over the training chips.", minimum=1, unit="epochs")
    lr: LearningRate | None = option(
        None,
        "Highest learning rate; or (low, high): the first layers use `low`, the last `high`, the ones between are "
        "interpolated. None: found by a learning rate test.",
        shell_help="Highest learning rate, or LOW,HIGH: the first layers use LOW, the last HIGH. Default: found by a "
        "learning rate test.",
    )
    one_cycle: bool = option(
        True, "Raise and lower the learning rate over the run (one cycle). False: constant.", flag=""
    )
    early_stopping: bool = option(False, "Stop when `monitor` has not improved for 5 epochs.")
    checkpoint: bool = option(True, "Restore the epoch with the best `monitor` at the end.", flag="")
    monitor: str = option(
        "valid_loss", "Metric that decides which epoch is best: valid_loss, accuracy, valid_miou or dice."
    )
    seed: int = 42
    accumulate: int = option(1, "Batches whose gradients are accumulated for one step.", minimum=1, unit="batches")
    clip: float = option(CLIP, "Maximum norm of the gradient; inf: no clipping.", above=0, infinite=True, flag="")
    ema: float = option(
        0.0,
        "Decay of the exponential moving average of the weights, which is validated and kept, e.g. 0.999. 0: off.",
        minimum=0,
        below=1,
    )
    compiled: bool = option(
        False,
        "Compile the network first (torch.compile): takes minutes; for long runs on a GPU.",
        flag="--compile",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        require_choice("monitor", self.monitor, MONITORS)
        if self.lr is None:
            return
        rates = parse_lr(self.lr)
        if not all(0 < rate < math.inf for rate in rates):
            raise OptionError(f"`lr` is {rates[1]:g}, but must be a positive learning rate, e.g. 0.001.")
        object.__setattr__(self, "lr", rates)

    @property
    def rates(self) -> tuple[float, float]:
        """The highest learning rates of the first and of the last layers."""
        assert self.lr is not None
        return cast("tuple[float, float]", self.lr)

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON has them."""
        return {**asdict(self), "lr": list(self.rates)}


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Where training happens, and what it leaves behind.

    Raises:
        OptionError: if an option is out of range, or a run shall be resumed without its folder.
    """

    device: str | None = None
    """As torch names it; None: the first GPU, else the CPU."""

    devices: int = option(1, "GPUs (or processes on a CPU) per machine, each with batches of its own.", minimum=1)
    nodes: int = option(1, "Machines; each starts the same script by torchrun or Slurm.", minimum=1, unit="machines")
    folder: Path | None = option(
        None,
        "Folder for checkpoints, history.csv and logs. None: no checkpoints; logs go to runs/ and the time.",
        flag="--run",
        shell_help="Folder for checkpoints and logs. Default: OUT.run, deleted when training finishes (logs are kept "
        "with --tensorboard).",
    )
    resume: bool = option(False, "Resume the interrupted run in `folder` after its last epoch.")
    tensorboard: bool = option(False, "Write a log for TensorBoard into `folder`.")
    loggers: Sequence[Logger] = option((), "More Lightning loggers.", flag="")

    def __post_init__(self) -> None:
        check_fields(self)
        if self.resume and self.folder is None:
            raise OptionError("`resume` needs the folder of the run. Give `folder`, e.g. 'runs/first'.")
        if self.folder is not None:
            object.__setattr__(self, "folder", Path(self.folder))
        elif self.tensorboard:
            now = datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
            object.__setattr__(self, "folder", Path("runs") / now)

    @property
    def world(self) -> int:
        """Number of devices on all machines."""
        return self.devices * self.nodes


def parse_lr(lr: LearningRate) -> tuple[float, float]:
    """Return the rates of the first and the last layers; slice(high) gives the first a tenth, as fastai does.

    Raises:
        OptionError: if it is neither one rate nor two.
    """
    pair = (lr.start, lr.stop) if isinstance(lr, slice) else lr if isinstance(lr, tuple | list) else (lr, lr)
    if isinstance(lr, slice) and lr.start is None and isinstance(lr.stop, Real):
        pair = (float(lr.stop) / 10, lr.stop)
    if len(pair) != 2 or not all(isinstance(rate, Real) and not isinstance(rate, bool) for rate in pair):
        raise OptionError(f"`lr` is {lr!r}, but must be one learning rate, or two as (low, high) or slice(low, high).")
    return float(pair[0]), float(pair[1])
