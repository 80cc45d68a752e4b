"""Devices, machines, folder and loggers of a training run, and the Lightning trainer for them."""

from __future__ import annotations

import logging
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import ModelCheckpoint
from lightning.pytorch.loggers import Logger, TensorBoardLogger
from lightning.pytorch.plugins import MixedPrecision, Precision
from lightning.pytorch.strategies import DDPStrategy

from geopsp.core.log import in_notebook
from geopsp.errors import OptionError
from geopsp.models.device import device_name, memory_format, pick_device
from geopsp.models.network import SegmentationNetwork
from geopsp.models.synchronized_norms import MIN_CHIPS, synchronized_norms
from geopsp.training.checkpoints import AtomicCheckpoints
from geopsp.training.fit_options import RunConfig

RESUME = "The run can be resumed from its last checkpoint."
NO_FOLDER = "Set TMPDIR to a folder on another disk, or give `folder`, where a run can be resumed."
"""Advice where a checkpoint cannot be written."""


class TrainingInterrupted(KeyboardInterrupt):
    """An interrupt that says which weights are kept; a notebook shows that alone, without the calls."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


def make_trainer(run: RunConfig, folder: Path, precision: Precision, **options: Any) -> L.Trainer:
    """Return a trainer on the devices of the run, which computes in this precision and writes to the folder.

    Raises:
        OptionError: if there are too few GPUs, or if a notebook asks for several devices.
    """
    device = pick_device(run.device)
    gpu = device.type == "cuda"
    if run.world > 1 and is_interactive():
        raise OptionError(
            "Training on several devices needs a script or the shell (geopsp train), but this is a notebook."
        )
    if run.world > 1 and device.index is not None:
        raise OptionError(
            f"`device` is {run.device!r}, but must be {device.type!r} where `devices` or `nodes` is more than 1."
        )
    if gpu and run.devices > torch.cuda.device_count():
        raise OptionError(
            f"`devices` is {run.devices}, but must be at most {torch.cuda.device_count()}, the number of GPUs here."
        )
    return L.Trainer(
        accelerator="gpu" if gpu else device.type,
        devices=[device.index or 0] if gpu and run.world == 1 else run.devices,
        num_nodes=run.nodes,
        strategy=_strategy(run),
        use_distributed_sampler=False,
        default_root_dir=folder,
        logger=_loggers(run),
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in options["callbacks"]),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        plugins=[AtomicCheckpoints(RESUME if run.folder else NO_FOLDER), precision],
        **options,
    )


def _strategy(run: RunConfig) -> DDPStrategy | str:
    """Sum gradients over devices; running statistics are averaged before each validation instead of each step."""
    return "auto" if run.world == 1 else DDPStrategy(broadcast_buffers=False, gradient_as_bucket_view=True)


def is_interactive() -> bool:
    """Return True in a notebook: there is no script for other processes to start, and a fork cannot use the GPU."""
    return hasattr(sys, "ps1") or in_notebook()


def _loggers(run: RunConfig) -> list[Logger]:
    if not run.tensorboard:
        return list(run.loggers)
    try:
        assert run.folder is not None
        return [*run.loggers, TensorBoardLogger(run.folder, name="tensorboard", version="")]
    except ModuleNotFoundError as error:
        raise OptionError("`tensorboard=True` needs the package tensorboard. Run: pip install tensorboard") from error


def describe_devices(trainer: L.Trainer, run: RunConfig) -> str:
    """Return the devices and the precision in words, e.g. "CPU (1 thread, float32)"."""
    name, device = device_name(trainer.strategy.root_device), trainer.strategy.root_device.type
    precision = {"bf16-mixed": "bfloat16", "16-mixed": "float16"}.get(trainer.precision, "float32")
    details = f"{name.removesuffix(')')}, {precision})" if device == "cpu" else f"{name} ({precision})"
    return f"{run.world} x {details}" if run.world > 1 else details


@contextmanager
def prepared_network(
    network: SegmentationNetwork, trainer: L.Trainer, batch_size: int, *, compiled: bool
) -> Iterator[None]:
    """Lay the network out for its device; for the duration of the block its norms are over all GPUs, if chips are few.

    Args:
        network: The network.
        trainer: Has its devices and its precision.
        batch_size: Chips of a batch on each device.
        compiled: True compiles it for the duration of the block.
    """
    device = trainer.strategy.root_device
    network.to(memory_format=memory_format(device, half=isinstance(trainer.precision_plugin, MixedPrecision)))
    few = device.type == "cuda" and trainer.world_size > 1 and batch_size < MIN_CHIPS
    with synchronized_norms(network, wanted=few), compiled_network(network, wanted=compiled), measured_convolutions():
        yield


@contextmanager
def compiled_network(network: SegmentationNetwork, *, wanted: bool) -> Iterator[None]:
    """Compile the network for the duration of the block, if wanted."""
    if wanted:
        network.compile()
    try:
        yield
    finally:
        network._compiled_call_impl = None  # noqa: SLF001 (there is no public way back)


@contextmanager
def measured_convolutions() -> Iterator[None]:
    """Let cuDNN try its algorithms on each size of maps: batches keep their sizes. A user's choice stays."""
    before = torch.backends.cudnn.benchmark
    deterministic = torch.backends.cudnn.deterministic or torch.are_deterministic_algorithms_enabled()
    torch.backends.cudnn.benchmark = before or not deterministic
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


@contextmanager
def interruptible() -> Iterator[None]:
    """Turn Ctrl-C into KeyboardInterrupt: Lightning exits the program and ignores further ones, a notebook goes on."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    before = signal.getsignal(signal.SIGINT) if in_main_thread else None
    try:
        yield
    except SystemExit as error:
        raise KeyboardInterrupt from error
    finally:
        if in_main_thread:
            signal.signal(signal.SIGINT, before)


@contextmanager
def silence_lightning() -> Iterator[None]:
    """Hide Lightning's advice on loggers and workers, which is for those who write its scripts."""
    loggers = [
        logging.getLogger(name) for name in ("lightning.pytorch", "lightning.fabric", "lightning.pytorch.utilities")
    ]
    levels = [logger.level for logger in loggers]
    for logger in loggers:
        logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", module=r"lightning\..*")
            warnings.filterwarnings("ignore", message=".*(does not have many workers|lr_scheduler.step|`isinstance).*")
            yield
    finally:
        for logger, level in zip(loggers, levels, strict=True):
            logger.setLevel(level)
