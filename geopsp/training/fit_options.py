"""Options of training itself: how long, at which rates and precision, and where."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from datetime import datetime
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

from geopsp.core.addresses import require_local
from geopsp.core.options import check_fields, option, require_choice
from geopsp.errors import OptionError
from geopsp.models.calibration_methods import METHODS, Method

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger

MONITORS = {"valid_loss": "min", "accuracy": "max", "valid_miou": "max", "dice": "max"}
"""What `fit` can monitor, and whether smaller or larger is better."""


CLIP = 1.0


EPOCHS = 10
"""Passes over the training chips where neither `epochs` nor `minutes` is given."""


COMPILED_STEPS = 3000
"""Steps of a run on a GPU from which on compiling takes less time than it saves."""


PRECISIONS = ("auto", "fp32", "bf16", "fp16")


RECIPE = 2
"""Version of the schedule, the parameter groups and the weight decay. 1: as in version 0.1, for its runs."""


LearningRate = float | slice | tuple[float, float]
"""One learning rate, or those of the first and the last layers as (low, high) or slice(low, high)."""


@dataclass(frozen=True, slots=True)
class FitOptions:
    """How a network is trained.

    Raises:
        OptionError: if an option is out of range.
    """

    epochs: int | None = option(
        None, f"Passes over the training chips. None: {EPOCHS}, unless `minutes` is given.", minimum=1, unit="epochs"
    )
    lr: LearningRate | None = option(
        None,
        "Highest learning rate; or (low, high): the first layers use `low`, the last `high`, the ones between are "
        "interpolated. None: by the batch size, and lower for an encoder with pretrained weights.",
        shell_help="Highest learning rate, or LOW,HIGH: the first layers use LOW, the last HIGH. Default: by the batch "
        "size, and lower for an encoder with pretrained weights.",
    )
    one_cycle: bool = option(
        True, "Raise the learning rate at the start, then lower it to the end of the run. False: constant.", flag=""
    )
    early_stopping: bool = option(False, "Stop when `monitor` has not improved for 5 epochs.")
    checkpoint: bool = option(True, "Restore the epoch with the best `monitor` at the end.", flag="")
    monitor: str = option(
        "valid_miou", "Metric that decides which epoch is best: valid_loss, accuracy, valid_miou or dice."
    )
    seed: int = 42
    accumulate: int = option(1, "Batches whose gradients are accumulated for one step.", minimum=1, unit="batches")
    clip: float = option(CLIP, "Maximum norm of the gradient; inf: no clipping.", above=0, infinite=True, flag="")
    ema: float | None = option(
        None,
        "Decay of the exponential moving average of the weights, which is validated and kept, e.g. 0.999. 0: off. "
        "None: by the length of the run.",
        minimum=0,
        below=1,
    )
    compiled: bool | None = option(
        None,
        f"Compile the network first (torch.compile), which takes minutes. None: only on a GPU, for {COMPILED_STEPS:,} "
        "steps or more.",
        flag="--compile/--no-compile",
    )
    minutes: float | None = option(
        None,
        "Train for this long instead of for `epochs`, validation included; the learning rate falls in time.",
        above=0,
        unit="minutes",
    )
    precision: str = option(
        "auto",
        "Precision of the network: auto is bf16 where the hardware has it (on a CPU where a trial is faster with it), "
        "fp16 on GPUs that have only that, else fp32.",
        choices=PRECISIONS,
    )
    validate_all: bool = option(
        False,
        "Score each epoch on all validation chips. False: on a fixed part of them that takes about 5 % of the time. "
        "The saved model is always scored on all.",
        flag="--validate-all",
    )
    calibrate: Method | None = option(
        "temperature",
        "Calibrate the trained network on the validation chips, so that confidence says how often the class is right: "
        "by a temperature, or by a weight and a bias for each class (vector). Classes do not change. None: it is not "
        "calibrated.",
        choices=METHODS,
        shell_help="Calibrate the trained network on the validation chips, so that confidence says how often the class "
        "is right: by a temperature, or by a weight and a bias for each class (vector). none: it is not calibrated. "
        "Classes do not change.",
    )
    graded: bool = True
    """True interpolates between the two rates of `lr`, over the stages of the encoder; False: the encoder has the
    lower rate, all other layers the higher one."""

    recipe: int = RECIPE
    """Version of schedule, parameter groups and weight decay, see `RECIPE`."""

    def __post_init__(self) -> None:
        check_fields(self)
        require_choice("monitor", self.monitor, MONITORS)
        if self.epochs is not None and self.minutes is not None:
            raise OptionError(
                f"`epochs` is {self.epochs} and `minutes` is {self.minutes:g}, but only one of them says when training "
                "ends. Leave the other out."
            )
        if self.lr is None:
            return
        rates = parse_lr(self.lr)
        if not all(0 < rate < math.inf for rate in rates):
            raise OptionError(f"`lr` is {rates[1]:g}, but must be a positive learning rate, e.g. 0.001.")
        object.__setattr__(self, "lr", rates)

    @property
    def num_epochs(self) -> int:
        """Passes over the training chips; -1: as many as `minutes` allow."""
        return -1 if self.minutes is not None else self.epochs or EPOCHS

    @property
    def rates(self) -> tuple[float, float]:
        """The highest learning rates of the first and of the last layers."""
        assert self.lr is not None
        return cast("tuple[float, float]", self.lr)

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON has them; without `calibrate`, which the training does not depend on."""
        epochs = None if self.minutes is not None else self.num_epochs
        entries = {**asdict(self), "epochs": epochs, "lr": list(self.rates)}
        del entries["calibrate"]
        return entries


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
        require_local("folder", self.folder, "Save the trained model there instead.")
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
