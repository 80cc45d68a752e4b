"""Where training happens: devices, machines, folders, and a Lightning trainer for them."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.strategies import DDPStrategy

from geopsp.errors import OptionError
from geopsp.models.device import device_name, has_bfloat16, pick_device
from geopsp.models.network import SegmentationNetwork


@dataclass(frozen=True, slots=True)
class RunConfig:
    """Where training happens and what it leaves behind."""

    device: str | None = None
    """As torch names it; None: the first GPU, else the CPU."""

    devices: int = 1
    """Of that kind in each machine."""

    nodes: int = 1
    """Machines; each starts the same script by torchrun, Slurm or whatever Lightning knows."""

    folder: Path | None = None
    """Where checkpoints, history.csv and logs go; None: nowhere, but for TensorBoard's runs/ and the time."""

    resume: bool = False
    """True goes on from the folder's last checkpoint, where there is one."""

    tensorboard: bool = False
    loggers: Sequence[Logger] = ()

    def __post_init__(self) -> None:
        for name in ("devices", "nodes"):
            if getattr(self, name) < 1:
                raise OptionError(f"{name} is {getattr(self, name)}; needed at least 1.")
        if self.resume and self.folder is None:
            raise OptionError("resume needs the folder of the run; none was given. Pass folder=, e.g. 'runs/first'.")
        if self.tensorboard and self.folder is None:
            now = datetime.now().astimezone().strftime("%Y-%m-%d_%H-%M-%S")
            object.__setattr__(self, "folder", Path("runs") / now)

    @property
    def world(self) -> int:
        return self.devices * self.nodes


def make_trainer(place: RunConfig, folder: Path, **options: Any) -> L.Trainer:
    """A trainer for the place, which writes to the folder.

    Raises:
        OptionError: if there are not so many GPUs.
    """
    where = pick_device(place.device)
    gpu = where.type == "cuda"
    if place.world > 1 and interactive():
        raise OptionError(
            "Training on several devices needs a script or the shell (geopsp train --devices), not a notebook."
        )
    if place.world > 1 and where.index is not None:
        raise OptionError(
            f"device is {place.device!r} and devices is {place.devices}; name the kind alone, e.g. 'cuda'."
        )
    if gpu and place.devices > torch.cuda.device_count():
        raise OptionError(f"devices is {place.devices}; there are {torch.cuda.device_count()} GPUs.")
    return L.Trainer(
        accelerator="gpu" if gpu else where.type,
        devices=[where.index or 0] if gpu and place.world == 1 else place.devices,
        num_nodes=place.nodes,
        strategy=_strategy(place),
        sync_batchnorm=gpu and place.world > 1,
        use_distributed_sampler=False,
        precision="bf16-mixed" if has_bfloat16(where) else "32-true",
        default_root_dir=folder,
        logger=_loggers(place),
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in options["callbacks"]),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        **options,
    )


def _strategy(place: RunConfig) -> DDPStrategy | str:
    """Gradients are summed over devices; running statistics are shared before each validation."""
    return "auto" if place.world == 1 else DDPStrategy(broadcast_buffers=False)


def interactive() -> bool:
    """True in a notebook: there is no script that other processes could start, and a fork cannot use the GPU."""
    return hasattr(sys, "ps1") or "ipykernel" in sys.modules


def _loggers(place: RunConfig) -> list[Logger]:
    if not place.tensorboard:
        return list(place.loggers)
    try:
        assert place.folder is not None
        return [*place.loggers, TensorBoardLogger(place.folder, name="tensorboard", version="")]
    except ModuleNotFoundError as error:
        raise OptionError("tensorboard=True needs the package tensorboard. Run: pip install tensorboard") from error


def describe_devices(trainer: L.Trainer, place: RunConfig) -> str:
    """The devices and the precision, in words."""
    times = f"{place.world} x " if place.world > 1 else ""
    return f"{times}{device_name(trainer.strategy.root_device)}, {trainer.precision}"


@contextmanager
def compiled_network(network: SegmentationNetwork, *, wanted: bool) -> Iterator[None]:
    """The network is compiled while the block runs."""
    if wanted:
        network.compile()
    try:
        yield
    finally:
        network._compiled_call_impl = None  # noqa: SLF001 (there is no public way back)


@contextmanager
def interruptible() -> Iterator[None]:
    """Lightning answers Ctrl-C by leaving the program and ignoring further ones; a notebook wants to go on."""
    main = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if main else None
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt("Training was stopped.") from error
    finally:
        if main:
            signal.signal(signal.SIGINT, before)


@contextmanager
def silence_lightning() -> Iterator[None]:
    """Lightning's advice on loggers and workers is not for our users."""
    logs = [
        logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities")
    ]
    before = [log.level for log in logs]
    for log in logs:
        log.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=".*(does not have many workers|lr_scheduler.step|`isinstance).*")
            yield
    finally:
        for log, level in zip(logs, before, strict=True):
            log.setLevel(level)
