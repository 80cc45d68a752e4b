"""Train a network with Lightning: run, resume, restore the best epoch."""

from __future__ import annotations

import errno
import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor

from geopsp.core.full_disk import full_disk_hint
from geopsp.core.legend import Legend
from geopsp.core.lock import output_lock
from geopsp.core.log import is_main_process
from geopsp.core.output import atomic_output, write_errors
from geopsp.core.owned_files import FolderKind
from geopsp.core.temporary_folder import scratch_folder
from geopsp.core.text import format_count
from geopsp.data.loader import ChipLoaders
from geopsp.data.validation_sample import epoch_sample
from geopsp.errors import OptionError
from geopsp.models.device import pick_device
from geopsp.models.loss_options import ADDED, LossSpec
from geopsp.models.manifest import HISTORY
from geopsp.models.memory import memory_errors
from geopsp.models.network import SegmentationNetwork
from geopsp.training.callbacks import EMAWeights, EpochLogger, ResumableEarlyStopping, TimeLimit
from geopsp.training.checkpoint_checks import require_checkpoint, resumed_from
from geopsp.training.checkpoints import BEST, ENDING, LAST, PREVIOUS, damage, find_checkpoint, has_checkpoint
from geopsp.training.chip_data_module import ChipDataModule
from geopsp.training.fit_options import MONITORS, FitOptions, RunConfig
from geopsp.training.lightning_module import SegmentationTask
from geopsp.training.precision import precision_plugin
from geopsp.training.resolve_options import RUN, read_run
from geopsp.training.run_display import best_epoch, describe_score
from geopsp.training.schedule import TimeBudget
from geopsp.training.trainer import (
    TrainingInterrupted,
    describe_devices,
    interruptible,
    make_trainer,
    prepared_network,
    silence_lightning,
)

logger = logging.getLogger(__name__)

PATIENCE = 5
"""Epochs without a better score after which early stopping ends a run."""


RUN_LOGS = (HISTORY, "tensorboard/*")

RUN_FOLDER = FolderKind(RUN, (*(f"{name}{ENDING}" for name in (LAST, PREVIOUS, BEST)), *RUN_LOGS))


WORDS = {
    "chips": "the training chips", "parameters": "the number of parameters of the network",
    "trained": "the number of parameters that train", "transform": "`transforms`",
    "validation_tiles": "the number of validation tiles", "graded": "the spread of `lr` over the encoder's stages",
}  # fmt: skip
"""What a run depends on that is no option of its name."""


NAMELESS = ("chips", "transform")
"""What is too long to be shown."""


def fit(
    network: SegmentationNetwork,
    loaders: ChipLoaders,
    *,
    legend: Legend,
    losses: LossSpec,
    weight: Tensor | None,
    options: FitOptions,
    history: list[dict[str, float]],
    run: RunConfig = RunConfig(),  # noqa: B008 (frozen)
    budget: TimeBudget | None = None,
) -> None:
    """Train the network in place, and append one row per epoch to `history`.

    Args:
        network: On the CPU, before and after.
        loaders: The chips to train and to validate on.
        legend: The classes of the network's output channels.
        losses: The loss function.
        weight: (classes,) of the loss; None: all classes count the same.
        options: How to train.
        history: The rows of earlier runs.
        run: Devices, folder, loggers.
        budget: The time of the run, which is running already; None: it begins now, if `options` have `minutes`.

    Raises:
        OptionError: if the run to resume had other options or other chips.
        TrainingError: if the loss is no longer finite, or memory runs out.
    """
    if budget is None and options.minutes is not None:
        budget = TimeBudget(60 * options.minutes)
    with silence_lightning(), ExitStack() as stack:
        folder = run.folder or stack.enter_context(scratch_folder())
        if run.folder and is_main_process():
            with write_errors(run.folder):
                run.folder.mkdir(parents=True, exist_ok=True)
            stack.enter_context(output_lock(run.folder))
        checkpoint = _open_run(run, _run_inputs(network, loaders, losses, options, run))
        if not options.validate_all:
            loaders = replace(loaders, valid=epoch_sample(loaders.valid, len(loaders.train)))
        names = loaders.train.names
        task = SegmentationTask(
            network, legend, losses, weight, options, batch_size=loaders.batch_size, chip_name=lambda row: names[row],
            budget=budget,
        )  # fmt: skip
        best = ModelCheckpoint(
            folder, BEST, monitor=options.monitor, mode=MONITORS[options.monitor], save_weights_only=True,
            enable_version_counter=False,
        )  # fmt: skip
        if checkpoint:
            for path in (checkpoint, checkpoint.with_stem(BEST)):
                if path.exists():
                    require_checkpoint(path, task)
        epochs = EpochLogger(history, run.folder, options.monitor)
        callbacks = _callbacks(options, run, epochs, best)
        if budget is not None:
            per_step = loaders.batch_size * options.accumulate * run.world
            callbacks.append(TimeLimit(budget, tiles_per_chip=len(loaders.valid) / per_step))
        device = pick_device(run.device)
        plugin = precision_plugin(options.precision, device)
        trainer = make_trainer(run, folder, plugin, max_epochs=options.num_epochs, callbacks=callbacks)
        length = f"{options.minutes:g} min" if options.minutes else format_count(options.num_epochs, "epoch")
        logger.info(f"Training for {length} on {describe_devices(trainer, run)}")
        task.train()
        stack.enter_context(prepared_network(network, trainer, loaders.batch_size, compiled=bool(options.compiled)))
        try:
            with resumed_from(checkpoint), memory_errors(), interruptible(), _full_disk_errors(folder):
                data = ChipDataModule(loaders, options.accumulate, packed=device.type == "cuda")
                trainer.fit(task, datamodule=data, ckpt_path=checkpoint, weights_only=True)
        except KeyboardInterrupt:
            raise TrainingInterrupted(_what_is_kept(epochs, options, Path(best.best_model_path))) from None
        finally:  # an interrupted run keeps its best weights too
            _restore_best(task, Path(best.best_model_path))
            network.cpu().eval()
        # from the main process, whose folder others may not see, or no more
        network.load_state_dict(trainer.strategy.broadcast(network.state_dict()))


@contextmanager
def _full_disk_errors(folder: Path) -> Iterator[None]:
    """Turn errors of a disk that takes no more, e.g. of a logger, into an `OutputError`; others stay."""
    try:
        yield
    except OSError as error:
        if not (full_disk_hint(error) or error.errno in {errno.EROFS, errno.EACCES}):
            raise
        with write_errors(folder):
            raise


def _restore_best(task: SegmentationTask, path: Path) -> None:
    """Load the weights of the best epoch in the main process, if they were kept."""
    if not (is_main_process() and path.is_file()):
        return
    if problem := damage(path):
        logger.warning(f"{path} is damaged ({problem}), so the weights of the last epoch are kept, not the best ones.")
        return
    task.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])


def _what_is_kept(epochs: EpochLogger, options: FitOptions, best: Path) -> str:
    """Return which weights the network has after an interrupt."""
    rows = epochs.run_rows
    if options.checkpoint and rows and best.is_file() and (row := best_epoch(rows, options.monitor)):
        kept = f"those of epoch {row['epoch']:.0f}, the best so far ({describe_score(row, options.monitor)})"
    else:
        kept = "those of its last step, as no epoch was kept"
    return f"Training was interrupted after {format_count(len(rows), 'epoch')}. The weights of the model are {kept}."


def _callbacks(options: FitOptions, run: RunConfig, epochs: EpochLogger, best: ModelCheckpoint) -> list[Callback]:
    callbacks: list[Callback] = [epochs]
    if options.ema != 0:
        callbacks.append(EMAWeights(options.ema))
    if options.early_stopping:
        callbacks.append(ResumableEarlyStopping(options.monitor, mode=MONITORS[options.monitor], patience=PATIENCE))
    if options.checkpoint:
        callbacks.append(best)
    if run.folder:
        callbacks.append(ModelCheckpoint(run.folder, LAST, save_on_train_epoch_end=True, enable_version_counter=False))
    return callbacks


def _run_inputs(
    network: SegmentationNetwork, loaders: ChipLoaders, losses: LossSpec, options: FitOptions, run: RunConfig
) -> dict[str, Any]:
    """Return all that a run depends on but its first weights; a run is resumed only if it is the same."""
    names = loaders.train.names
    chips = "\n".join(Path(names[row]).name for row in loaders.train.rows)
    return {
        "fit": options.to_json(),
        "losses": losses.to_json(),
        "batch_size": loaders.batch_size,
        "devices": run.world,
        "chips": hashlib.sha256(chips.encode()).hexdigest()[:16],
        "chip_size": loaders.train.size,
        "transform": repr(loaders.train.transform),
        "validation_tiles": len(loaders.valid),
        "balanced_sampling": loaders.weights is not None,
        "trained": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def _differences(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return what differs between the inputs of two runs, each in words."""
    flat_earlier, flat_now = _flat(earlier), _flat(now)
    return [
        f"{WORDS.get(name, f'`{name}`')} {_change(name, flat_earlier.get(name), value)}"
        for name, value in flat_now.items()
        if flat_earlier.get(name) != value
    ]


def _flat(inputs: Mapping[str, Any]) -> dict[str, Any]:
    losses = {**ADDED, **inputs.get("losses", {})}  # its JSON leaves 0 out
    return {**inputs.get("fit", {}), **losses} | {
        name: value for name, value in inputs.items() if name not in {"fit", "losses"}
    }


def _change(name: str, earlier: Any, now: Any) -> str:
    """Return a change in words; of one learning rate for all layers, the rate."""
    if name in NAMELESS:
        return "differ" if name == "chips" else "differs"
    if name == "lr":
        earlier, now = (rates[0] if len(set(rates)) == 1 else tuple(rates) for rates in (earlier, now))
    return f"was {earlier!r}, is {now!r}"


def _open_run(run: RunConfig, inputs: dict[str, Any]) -> Path | None:
    """Return the checkpoint to resume from, or write the inputs of a new run into its folder.

    Raises:
        OptionError: if the folder holds another run, one that must not be resumed, or a damaged one.
    """
    if run.folder is None:
        return None
    if run.resume and (earlier := read_run(run.folder, run.device)):
        if differing := _differences(earlier, json.loads(json.dumps(inputs))):
            raise OptionError(
                f"{run.folder} holds another run: {'; '.join(differing)}. Resume it with its own options and chips, or "
                "choose another folder."
            )
        checkpoint = find_checkpoint(run.folder)
        logger.info(f"Resuming from {checkpoint}")
        return checkpoint
    if has_checkpoint(run.folder) and is_main_process():
        raise OptionError(
            f"{run.folder} already holds a run. Use `resume=True` to continue it, or choose another folder."
        )
    if is_main_process():
        if run.resume:
            logger.info(f"There is no run to resume in {run.folder}, so training starts from the beginning.")
        with atomic_output(run.folder / RUN, overwrite=True) as partial:
            partial.write_text(json.dumps(inputs, indent=1), encoding="utf-8")
    return None
