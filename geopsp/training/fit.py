"""Training by Lightning: on GPUs in bfloat16 where there are any, else on the CPU; one device or many."""

from __future__ import annotations

import hashlib
import json
import logging
import pickle
import tempfile
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, ModelCheckpoint
from torch import Tensor
from torch.utils.data import DataLoader

from geopsp.core.legend import Legend
from geopsp.core.log import is_main_process
from geopsp.core.output import atomic_output
from geopsp.data.dataset import Sample
from geopsp.data.loader import ChipLoaders
from geopsp.errors import OptionError
from geopsp.models.losses import LossSpec
from geopsp.models.memory import memory_errors
from geopsp.models.network import SegmentationNetwork
from geopsp.training.callbacks import EMAWeights, EpochLogger, ResumableEarlyStopping
from geopsp.training.lightning_module import SegmentationTask
from geopsp.training.options import MONITORS, FitOptions
from geopsp.training.trainer import (
    RunConfig,
    compiled_network,
    describe_devices,
    interruptible,
    make_trainer,
    silence_lightning,
)

logger = logging.getLogger(__name__)

PATIENCE = 5


RUN, LAST, BEST = "run.json", "last", "best"
"""In a run's folder: what is trained, and its checkpoints."""


class ChipDataModule(L.LightningDataModule):
    """Gives each device its share of the chips."""

    def __init__(self, feed: ChipLoaders, accumulate: int) -> None:
        super().__init__()
        self.feed, self.accumulate = feed, accumulate

    def train_dataloader(self) -> DataLoader[Sample]:
        return self.feed.train_loader(accumulate=self.accumulate, **self._share())

    def val_dataloader(self) -> DataLoader[Sample]:
        return self.feed.val_loader(**self._share())

    def _share(self) -> dict[str, int]:
        assert self.trainer is not None
        return {"rank": self.trainer.global_rank, "world": self.trainer.world_size}


def fit(
    network: SegmentationNetwork,
    feed: ChipLoaders,
    *,
    legend: Legend,
    losses: LossSpec,
    weight: Tensor | None,
    spec: FitOptions,
    history: list[dict[str, float]],
    place: RunConfig = RunConfig(),  # noqa: B008 (frozen)
) -> None:
    """The network is trained, in place, and `history` has one row more for each epoch.

    Raises:
        OptionError: if a run is to be resumed that was another one.
        TrainingError: if the loss is no longer finite, or memory runs out.
    """
    with silence_lightning(), ExitStack() as stack:
        scratch = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="geopsp-")))
        folder = place.folder or scratch
        checkpoint = _open_run(place, _identity(network, feed, losses, spec, place))
        names = feed.train.names
        task = SegmentationTask(
            network, legend, losses, weight, spec, batch_size=feed.batch_size, name_of=lambda row: names[row]
        )
        best = ModelCheckpoint(
            folder, BEST, monitor=spec.monitor, mode=MONITORS[spec.monitor], save_weights_only=True,
            enable_version_counter=False,
        )  # fmt: skip
        trainer = make_trainer(place, folder, max_epochs=spec.epochs, callbacks=_callbacks(spec, place, history, best))
        logger.info(f"Training for {spec.epochs} epochs on {describe_devices(trainer, place)}")
        task.train().to(memory_format=torch.channels_last)
        stack.enter_context(compiled_network(network, wanted=spec.compiled))
        try:
            with memory_errors(), interruptible():
                trainer.fit(
                    task, datamodule=ChipDataModule(feed, spec.accumulate), ckpt_path=checkpoint, weights_only=True
                )
            trainer.strategy.barrier()  # all read the best weights before the first process clears up
        finally:  # also of a run that broke off, what is best so far is kept
            path = Path(best.best_model_path)
            if spec.checkpoint and path.is_file():
                task.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
            network.cpu().eval()


def _callbacks(
    spec: FitOptions, place: RunConfig, history: list[dict[str, float]], best: ModelCheckpoint
) -> list[Callback]:
    callbacks: list[Callback] = [EpochLogger(history, place.folder)]
    if spec.ema:
        callbacks.append(EMAWeights(spec.ema))
    if spec.early_stopping:
        callbacks.append(ResumableEarlyStopping(spec.monitor, mode=MONITORS[spec.monitor], patience=PATIENCE))
    if spec.checkpoint:
        callbacks.append(best)
    if place.folder:
        callbacks.append(
            ModelCheckpoint(place.folder, LAST, save_on_train_epoch_end=True, enable_version_counter=False)
        )
    return callbacks


def _identity(
    network: SegmentationNetwork, feed: ChipLoaders, losses: LossSpec, spec: FitOptions, place: RunConfig
) -> dict[str, Any]:
    """What the run's curve depends on, but for the weights that it starts from, so that only the same is resumed."""
    names = feed.train.names
    return {
        "fit": spec.to_json(),
        "losses": losses.to_json(),
        "batch_size": feed.batch_size,
        "devices": place.world,
        "chips": hashlib.sha256("\n".join(Path(names[row]).name for row in feed.train.rows).encode()).hexdigest()[:16],
        "chip_size": feed.train.size,
        "transform": repr(feed.train.transform),
        "validation_tiles": len(feed.valid),
        "balanced_sampling": feed.weights is not None,
        "trained": sum(p.numel() for p in network.parameters() if p.requires_grad),
        "parameters": sum(p.numel() for p in network.parameters()),
    }


def read_run(folder: Path) -> dict[str, Any] | None:
    """What a run that can be gone on with was told, `FitSpec` under "fit"; None if there is none.

    Raises:
        OptionError: if the folder is damaged.
    """
    note, last = folder / RUN, folder / f"{LAST}.ckpt"
    if not last.exists():
        return None
    try:
        told: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        FitOptions(**{**told["fit"], "lr": tuple(told["fit"]["lr"])})
        torch.load(last, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise OptionError(
            f"The run in {folder} is damaged ({type(error).__name__}) and cannot be gone on with. Remove the folder, "
            "or choose another."
        ) from error
    return told


def _open_run(place: RunConfig, identity: dict[str, Any]) -> Path | None:
    """The checkpoint to go on from; the folder now tells what is trained in it.

    Raises:
        OptionError: if another run is in the folder, or one that was not to be resumed, or it is damaged.
    """
    if place.folder is None:
        return None
    last = place.folder / f"{LAST}.ckpt"
    if place.resume and (before := read_run(place.folder)):
        differ = [name for name in identity if json.loads(json.dumps(identity[name])) != before.get(name)]
        if differ:
            found = "; ".join(f"{name} was {before.get(name)}, is {identity[name]}" for name in differ)
            raise OptionError(
                f"{place.folder} holds another run ({found}). Resume with the same options, or choose another folder."
            )
        logger.info(f"Going on from {last}")
        return last
    if last.exists() and is_main_process():
        raise OptionError(
            f"{place.folder} holds a run already. Go on with it (resume=True, --resume), or choose another folder."
        )
    if is_main_process():
        if place.resume:
            logger.info(f"There is nothing to resume in {place.folder}; training starts anew.")
        with atomic_output(place.folder / RUN, overwrite=True) as partial:
            partial.write_text(json.dumps(identity, indent=1), encoding="utf-8")
    return None
