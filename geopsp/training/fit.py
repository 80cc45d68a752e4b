"""Training by Lightning: on GPUs in bfloat16 where there are any, else on the CPU; one device or many."""

from __future__ import annotations

import hashlib
import json
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
from geopsp.core.output import whole
from geopsp.core.progress import leads, say
from geopsp.data.dataset import Sample
from geopsp.data.loader import Feed
from geopsp.errors import OptionError
from geopsp.models.losses import LossSpec
from geopsp.models.memory import memory_errors
from geopsp.models.network import SegmentationNetwork
from geopsp.training.callbacks import Journal, MovingAverage, Patience
from geopsp.training.lightning_module import SegmentationTask
from geopsp.training.options import MONITORS, FitSpec
from geopsp.training.trainer import Place, compiled, interruptible, make_trainer, quiet, where_of

PATIENCE = 5


RUN, LAST, BEST = "run.json", "last", "best"
"""In a run's folder: what is trained, and its checkpoints."""


class Loaders(L.LightningDataModule):
    """Gives each device its share of the chips."""

    def __init__(self, feed: Feed, accumulate: int) -> None:
        super().__init__()
        self.feed, self.accumulate = feed, accumulate

    def train_dataloader(self) -> DataLoader[Sample]:
        return self.feed.training(accumulate=self.accumulate, **self._share())

    def val_dataloader(self) -> DataLoader[Sample]:
        return self.feed.validation(**self._share())

    def _share(self) -> dict[str, int]:
        assert self.trainer is not None
        return {"rank": self.trainer.global_rank, "world": self.trainer.world_size}


def fit(
    network: SegmentationNetwork,
    feed: Feed,
    *,
    legend: Legend,
    losses: LossSpec,
    weight: Tensor | None,
    spec: FitSpec,
    history: list[dict[str, float]],
    place: Place = Place(),  # noqa: B008 (frozen)
) -> None:
    """The network is trained, in place, and `history` has one row more for each epoch.

    Raises:
        OptionError: if a run is to be resumed that was another one.
        TrainingError: if the loss is no longer finite, or memory runs out.
    """
    with quiet(), ExitStack() as stack:
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
        say(f"Training for {spec.epochs} epochs on {where_of(trainer, place)}")
        task.train().to(memory_format=torch.channels_last)
        stack.enter_context(compiled(network, wanted=spec.compiled))
        try:
            with memory_errors(), interruptible():
                trainer.fit(task, datamodule=Loaders(feed, spec.accumulate), ckpt_path=checkpoint, weights_only=True)
            trainer.strategy.barrier()  # all read the best weights before the first process clears up
        finally:  # also of a run that broke off, what is best so far is kept
            path = Path(best.best_model_path)
            if spec.checkpoint and path.is_file():
                task.load_state_dict(torch.load(path, map_location="cpu", weights_only=True)["state_dict"])
            network.cpu().eval()


def _callbacks(spec: FitSpec, place: Place, history: list[dict[str, float]], best: ModelCheckpoint) -> list[Callback]:
    callbacks: list[Callback] = [Journal(history, place.folder)]
    if spec.ema:
        callbacks.append(MovingAverage(spec.ema))
    if spec.early_stopping:
        callbacks.append(Patience(spec.monitor, mode=MONITORS[spec.monitor], patience=PATIENCE))
    if spec.checkpoint:
        callbacks.append(best)
    if place.folder:
        callbacks.append(
            ModelCheckpoint(place.folder, LAST, save_on_train_epoch_end=True, enable_version_counter=False)
        )
    return callbacks


def _identity(
    network: SegmentationNetwork, feed: Feed, losses: LossSpec, spec: FitSpec, place: Place
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


def recorded(folder: Path) -> dict[str, Any] | None:
    """What a run that can be gone on with was told, `FitSpec` under "fit"; None if there is none.

    Raises:
        OptionError: if the folder is damaged.
    """
    note, last = folder / RUN, folder / f"{LAST}.ckpt"
    if not last.exists():
        return None
    try:
        told: dict[str, Any] = json.loads(note.read_text(encoding="utf-8"))
        FitSpec(**{**told["fit"], "lr": tuple(told["fit"]["lr"])})
        torch.load(last, map_location="cpu", weights_only=True, mmap=True)
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        raise OptionError(
            f"The run in {folder} is damaged ({type(error).__name__}) and cannot be gone on with. Remove the folder, "
            "or choose another."
        ) from error
    return told


def _open_run(place: Place, identity: dict[str, Any]) -> Path | None:
    """The checkpoint to go on from; the folder now tells what is trained in it.

    Raises:
        OptionError: if another run is in the folder, or one that was not to be resumed, or it is damaged.
    """
    if place.folder is None:
        return None
    last = place.folder / f"{LAST}.ckpt"
    if place.resume and (before := recorded(place.folder)):
        differ = [name for name in identity if json.loads(json.dumps(identity[name])) != before.get(name)]
        if differ:
            found = "; ".join(f"{name} was {before.get(name)}, is {identity[name]}" for name in differ)
            raise OptionError(
                f"{place.folder} holds another run ({found}). Resume with the same options, or choose another folder."
            )
        say(f"Going on from {last}")
        return last
    if last.exists() and leads():
        raise OptionError(
            f"{place.folder} holds a run already. Go on with it (resume=True, --resume), or choose another folder."
        )
    if leads():
        if place.resume:
            say(f"There is nothing to resume in {place.folder}; training starts anew.")
        with whole(place.folder / RUN, overwrite=True) as partial:
            partial.write_text(json.dumps(identity, indent=1), encoding="utf-8")
    return None
