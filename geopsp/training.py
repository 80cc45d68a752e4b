"""Training by Lightning: on a GPU in bfloat16 where there is one, else on the CPU."""

from __future__ import annotations

import logging
import math
import tempfile
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint
from lightning.pytorch.tuner.tuning import Tuner
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.data import DataLoader

from geopsp.dataset import Sample
from geopsp.errors import OptionError, TrainingError
from geopsp.legend import IGNORE, Legend
from geopsp.losses import LossSpec, total_loss
from geopsp.metrics import Confusion
from geopsp.models.build import device_words, pick_device
from geopsp.models.pspnet import PSPNet, TrainingOutput
from geopsp.progress import say

MONITORS = {"valid_loss": "min", "accuracy": "max", "valid_miou": "max"}
WEIGHT_DECAY = 1e-2
CLIP = 1.0
"""Largest norm of the gradient."""

PATIENCE = 5
WARMUP = 0.25
"""Share of the steps in which the one-cycle rate rises. Source: Smith, "Super-Convergence" (2018)."""

FIND_LOW, FIND_HIGH = 1e-6, 1.0
DEFAULT_RATE = 1e-3
"""Taken when the range test finds no slope."""


@dataclass(frozen=True, slots=True)
class FitSpec:
    """How long and how training goes. Meanings as in arcgis.learn."""

    epochs: int = 10
    lr: float = DEFAULT_RATE
    one_cycle: bool = True
    early_stopping: bool = False
    checkpoint: bool = True
    """True brings back the weights of the best epoch."""

    monitor: str = "valid_loss"
    seed: int = 42

    def __post_init__(self) -> None:
        if self.epochs < 1:
            raise OptionError(f"epochs is {self.epochs}; needed at least 1.")
        if not 0 < self.lr < math.inf:
            raise OptionError(f"lr is {self.lr}; needed a positive learning rate, e.g. 0.001.")
        if self.monitor not in MONITORS:
            raise OptionError(f"monitor is {self.monitor!r}; needed one of {', '.join(MONITORS)}.")


class SegmentationTask(L.LightningModule):
    """One step of training, and the scores of a whole validation."""

    def __init__(self, network: PSPNet, legend: Legend, losses: LossSpec, weight: Tensor | None, fit: FitSpec) -> None:
        super().__init__()
        self.network, self.legend, self.losses, self.fit_spec = network, legend, losses, fit
        self.lr = fit.lr
        self.register_buffer("weight", weight, persistent=False)
        self.register_buffer("tally", torch.zeros(len(legend), len(legend), dtype=torch.int64), persistent=False)
        self.register_buffer("valid_sum", torch.zeros(2), persistent=False)
        self.weight: Tensor | None
        self.tally: Tensor
        self.valid_sum: Tensor

    def training_step(self, batch: Sample, step: int) -> Tensor:
        output: TrainingOutput = self.network(batch.image, batch.valid)
        loss = total_loss(output, batch.label, self.losses, self.weight)
        if not torch.isfinite(loss):
            raise TrainingError(
                f"The loss became {loss.item()} at step {self.global_step} with learning rate {self.lr:g}. "
                "Lower the rate (lr=, --lr), or look for extreme pixel values in the chips."
            )
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.image))
        return loss

    def on_validation_epoch_start(self) -> None:
        self.tally.zero_()
        self.valid_sum.zero_()

    def validation_step(self, batch: Sample, step: int) -> None:
        logits: Tensor = self.network(batch.image, batch.valid)
        known = batch.label != IGNORE
        self.valid_sum[0] += F.cross_entropy(logits.float(), batch.label, ignore_index=IGNORE, reduction="sum")
        self.valid_sum[1] += known.sum()
        self.tally += count_pairs(batch.label, logits, len(self.legend))

    def on_validation_epoch_end(self) -> None:
        total = self.trainer.strategy.reduce(self.valid_sum, reduce_op="sum")
        tally = self.trainer.strategy.reduce(self.tally, reduce_op="sum")
        scores = Confusion(self.legend, tally.cpu().numpy())
        loss = total[0] / total[1].clamp_min(1)
        values = {"valid_loss": float(loss), "accuracy": scores.accuracy(), "valid_miou": scores.mean_iou()}
        self.log_dict(values, sync_dist=False)

    def configure_optimizers(self) -> Any:
        trained = [p for p in self.network.parameters() if p.requires_grad]
        optimizer = torch.optim.AdamW(trained, lr=self.lr, weight_decay=WEIGHT_DECAY)
        if not self.fit_spec.one_cycle:
            return optimizer
        steps = int(self.trainer.estimated_stepping_batches)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer, max_lr=self.lr, total_steps=steps, pct_start=WARMUP, cycle_momentum=False
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def count_pairs(labels: Tensor, logits: Tensor, classes: int) -> Tensor:
    """(classes, classes) pixels by true and found class, on the device that the tensors are on."""
    found = logits.max(dim=1).indices
    known = labels != IGNORE
    pairs = labels[known] * classes + found[known]
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


class History(Callback):
    """Keeps and prints one row an epoch."""

    def __init__(self, rows: list[dict[str, float]]) -> None:
        self.rows, self.first, self.start = rows, len(rows), time.monotonic()

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start = time.monotonic()

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        seconds = time.monotonic() - self.start
        self.rows.append({"epoch": len(self.rows) + 1, **found, "seconds": round(seconds, 2)})
        left = (trainer.max_epochs or 0) - trainer.current_epoch - 1
        say(
            f"epoch {len(self.rows) - self.first}/{trainer.max_epochs}  train loss {found['train_loss']:.4f}  "
            f"valid loss {found['valid_loss']:.4f}  mIoU {found['valid_miou']:.4f}  "
            f"accuracy {found['accuracy']:.4f}  {seconds:.0f} s, {left * seconds:.0f} s left"
        )


def fit(
    network: PSPNet,
    train: DataLoader[Sample],
    valid: DataLoader[Sample],
    *,
    legend: Legend,
    losses: LossSpec,
    weight: Tensor | None,
    spec: FitSpec,
    history: list[dict[str, float]],
    device: str | None = None,
) -> None:
    """The network is trained, in place, and `history` has one row more for each epoch.

    Raises:
        TrainingError: if the loss is no longer finite, or memory runs out.
    """
    with _quiet(), tempfile.TemporaryDirectory(prefix="geopsp-") as scratch:
        L.seed_everything(spec.seed, workers=True, verbose=False)
        task = SegmentationTask(network, legend, losses, weight, spec)
        callbacks: list[Callback] = [History(history)]
        mode = MONITORS[spec.monitor]
        if spec.early_stopping:
            callbacks.append(EarlyStopping(spec.monitor, mode=mode, patience=PATIENCE))
        best = ModelCheckpoint(scratch, monitor=spec.monitor, mode=mode, save_weights_only=True)
        if spec.checkpoint:
            callbacks.append(best)
        trainer = _trainer(scratch, device, max_epochs=spec.epochs, callbacks=callbacks)
        say(f"Training for {spec.epochs} epochs of {len(train)} batches on {_words(trainer)}")
        task.train().to(memory_format=torch.channels_last)
        with _memory_errors():
            trainer.fit(task, train, valid)
        if spec.checkpoint and best.best_model_path:
            state = torch.load(best.best_model_path, map_location="cpu", weights_only=True)["state_dict"]
            task.load_state_dict(state)
        network.cpu().eval()


def find_rate(
    network: PSPNet,
    train: DataLoader[Sample],
    *,
    legend: Legend,
    losses: LossSpec,
    weight: Tensor | None,
    seed: int,
    steps: int,
    device: str | None = None,
) -> tuple[float, list[float], list[float]]:
    """A good learning rate, by the range test, with the rates tried and the loss at each; the network stays as it was.

    Source: Smith, "Cyclical Learning Rates for Training Neural Networks" (2017), section 3.3.
    """
    with _quiet(), tempfile.TemporaryDirectory(prefix="geopsp-") as scratch:
        L.seed_everything(seed, workers=True, verbose=False)
        task = SegmentationTask(network, legend, losses, weight, FitSpec(one_cycle=False))
        trainer = _trainer(scratch, device, max_epochs=-1, callbacks=[])
        say(f"Looking for a learning rate in {steps} steps on {_words(trainer)}")
        task.train()
        with _memory_errors():
            found = Tuner(trainer).lr_find(
                task, train, min_lr=FIND_LOW, max_lr=FIND_HIGH, num_training=steps, early_stop_threshold=4.0
            )
        network.cpu().eval()
        if found is None:
            raise TrainingError("The learning-rate search gave no result; pass lr yourself, e.g. 0.001.")
        rate = found.suggestion(skip_begin=min(10, steps // 4), skip_end=1)
        return float(rate or DEFAULT_RATE), list(found.results["lr"]), list(found.results["loss"])


def _trainer(scratch: str, device: str | None, **options: Any) -> L.Trainer:
    where = pick_device(device)
    return L.Trainer(
        accelerator="gpu" if where.type == "cuda" else where.type,
        devices=[where.index or 0] if where.type == "cuda" else 1,
        precision="bf16-mixed" if where.type == "cuda" else "32-true",
        default_root_dir=scratch,
        logger=False,
        enable_checkpointing=any(isinstance(c, ModelCheckpoint) for c in options["callbacks"]),
        enable_progress_bar=False,
        enable_model_summary=False,
        num_sanity_val_steps=0,
        gradient_clip_val=CLIP,
        **options,
    )


def _words(trainer: L.Trainer) -> str:
    return f"{device_words(trainer.strategy.root_device)}, {trainer.precision}"


@contextmanager
def _memory_errors() -> Iterator[None]:
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "The GPU's memory is too small for this batch. Lower batch_size (--batch-size) or chip_size, "
            "or take a smaller backbone."
        ) from error


@contextmanager
def _quiet() -> Iterator[None]:
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


def evaluate(network: nn.Module, loader: DataLoader[Sample], legend: Legend, *, device: str | None = None) -> Confusion:
    """Scores over every labelled pixel of the loader."""
    where = pick_device(device)
    network = network.to(where).eval()
    tally = torch.zeros(len(legend), len(legend), dtype=torch.int64, device=where)
    with _memory_errors(), torch.inference_mode():
        for batch in loader:
            image, valid, label = (part.to(where) for part in batch)
            with torch.autocast(where.type, torch.bfloat16, enabled=where.type == "cuda"):
                logits = network(image, valid)
            tally += count_pairs(label, logits, len(legend))
    network.cpu()
    return Confusion(legend, tally.cpu().numpy())
