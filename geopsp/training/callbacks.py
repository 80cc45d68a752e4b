"""Callbacks of a training run: log of epochs, early stopping, moving average of the weights."""

from __future__ import annotations

import logging
import math
import time
from pathlib import Path
from statistics import median
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, WeightAveraging
from torch import nn

from geopsp.core.log import is_main_process
from geopsp.core.text import format_clock
from geopsp.data.validation_sample import TILE_COST
from geopsp.models.manifest import HISTORY
from geopsp.models.saved_model import write_history
from geopsp.training.lightning_module import SegmentationTask
from geopsp.training.run_display import RunDisplay
from geopsp.training.schedule import TimeBudget, ema_decay

logger = logging.getLogger(__name__)

UNSTEADY_STEPS = 3
"""First steps of a run, which do not tell how long others take."""


RECENT = 0.1
"""Weight of the latest step in the mean time of a step."""


RECENT_EPOCHS = 5
"""Epochs by whose median time the rest of a run is estimated: one that was held up does not count."""


SCHEDULED = 0.9
"""Part of a run after which its learning rate has come down far enough to stop early."""


class EpochLogger(Callback):
    """A history with one row per epoch, printed and written as a CSV file, and the progress of the run."""

    def __init__(self, rows: list[dict[str, float]], folder: Path | None, monitor: str = "valid_miou") -> None:
        """Add this run's rows to those of earlier runs; None as `folder` writes no CSV file."""
        self.rows, self.num_earlier, self.folder = rows, len(rows), folder
        self.display = RunDisplay(monitor)
        self.epoch_start = self.train_seconds = self.valid_start = 0.0
        self.loss = math.nan

    @property
    def state_key(self) -> str:
        return "Journal"  # the name in checkpoints of version 0.1

    @property
    def run_rows(self) -> list[dict[str, float]]:
        """The rows of this run."""
        return self.rows[self.num_earlier :]

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.num_earlier = len(self.rows) - trainer.current_epoch  # a resumed run has some of its own

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.epoch_start, self.train_seconds = time.monotonic(), 0.0
        self.display.begin(_title(trainer))

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        self.train_seconds = time.monotonic() - self.epoch_start
        assert isinstance(pl_module, SegmentationTask)
        self.loss = pl_module.loss
        done, total = batch_idx + 1, int(trainer.num_training_batches)
        training_left = self.train_seconds / done * (total - done)
        last = self.run_rows[-RECENT_EPOCHS:]
        # in the first epoch, nobody knows how long a validation takes
        validation = median(row["seconds"] - row["train_seconds"] for row in last) if last else 0.0
        epoch = median(row["seconds"] for row in last) if last else self.train_seconds / done * total
        self.display(done, total, self._remark(_seconds_left(trainer, training_left + validation, epoch)))

    def _remark(self, seconds_left: float) -> str:
        """Return the loss of the step before, the best score so far, and the time left in this run."""
        best = max((row["valid_miou"] for row in self.run_rows), default=math.nan)
        scores = [f"{name} {value:.3f}, " for name, value in (("loss", self.loss), ("best mIoU", best))
                  if not math.isnan(value)]  # fmt: skip
        return f"{''.join(scores)}{format_clock(seconds_left)} left"

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.valid_start = time.monotonic()
        self.display.begin(f"{_title(trainer)}, validation")

    def on_validation_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int,
        dataloader_idx: int = 0,
    ) -> None:  # fmt: skip
        done, total, now = batch_idx + 1, int(trainer.num_val_batches[0]), time.monotonic()
        left = (now - self.valid_start) / done * (total - done)
        self.display(
            done, total, self._remark(_seconds_left(trainer, left, self._epoch(now - self.epoch_start + left)))
        )

    def _epoch(self, latest: float) -> float:
        """Return the seconds of an epoch: the median of the latest one and those before it."""
        return median([*(row["seconds"] for row in self.run_rows[1 - RECENT_EPOCHS :]), latest])

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SegmentationTask)
        metrics = {name: float(value) for name, value in trainer.callback_metrics.items()}
        seconds = time.monotonic() - self.epoch_start
        self.rows.append(
            {
                "epoch": len(self.rows) + 1,
                **metrics,
                "lr": trainer.optimizers[0].param_groups[-1]["lr"],
                "images": pl_module.num_images * trainer.world_size,
                "train_seconds": round(self.train_seconds, 3),
                "seconds": round(seconds, 3),
            }
        )
        over = pl_module.progress(pl_module.global_step)
        left = _seconds_left(trainer, 0.0, median(row["seconds"] for row in self.run_rows[-RECENT_EPOCHS:]))
        self.display.epoch(_title(trainer), self.run_rows, over, format_clock(left))
        if self.folder and is_main_process():
            write_history(self.rows, self.folder / HISTORY)

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.display.close(self.run_rows)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.display.close(self.run_rows)

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows[:] = state_dict["rows"]


class ResumableEarlyStopping(EarlyStopping):
    """Early stopping that leaves a run stopped when it is resumed."""

    @property
    def state_key(self) -> str:
        return super().state_key.replace(type(self).__qualname__, "Patience")  # as in checkpoints of version 0.1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience

    def on_train_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Warn of a run that ended while its learning rate was high."""
        assert isinstance(pl_module, SegmentationTask)
        progress = pl_module.progress(pl_module.global_step)
        if self.wait_count >= self.patience and pl_module.options.one_cycle and progress < SCHEDULED:
            logger.warning(
                f"Training stopped early after {progress:.0%} of its schedule, before the learning rate had come down, "
                "so the network may be worse than after a shorter run. Give fewer `epochs` without `early_stopping`, "
                "or use `one_cycle=False`."
            )


class EMAWeights(WeightAveraging):
    """An exponential moving average of weights and running statistics, which is validated and kept.

    The decay of update n is min(decay, (1 + n) / (10 + n)): the average soon forgets the first steps.
    """

    def __init__(self, decay: float | None) -> None:
        """Average with this decay; None: with that for the length of the run."""
        super().__init__()
        self.decay = decay
        self._pairs: _TensorPairs | None = None

    @property
    def state_key(self) -> str:
        return "MovingAverage"  # the name in checkpoints of version 0.1

    def on_fit_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        """Move the average to the network's device, which it has only now; its count stays where it is read."""
        assert self._average_model is not None
        average: nn.Module = self._average_model.module
        average.to(pl_module.device)

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        assert isinstance(pl_module, SegmentationTask)
        assert self._average_model is not None
        if trainer.global_step <= self._latest_update_step:
            return
        if self._average_model.n_averaged == 0:
            self._average_model.update_parameters(pl_module)  # the first weights as they are
        else:
            self._update(pl_module)
        self._latest_update_step = trainer.global_step

    def _update(self, task: SegmentationTask) -> None:
        """Move the average towards the current weights; the tensors of both stay the same, so they are listed once."""
        assert self._average_model is not None
        if self._pairs is None:
            self._pairs = _TensorPairs(self._average_model.module, task)
        n = self._latest_update_step
        decay = ema_decay(task.num_steps) if self.decay is None else self.decay
        self._pairs.move(1 - min(decay, (1 + n) / (10 + n)))
        self._average_model.n_averaged += 1


class _TensorPairs:
    """Parameters and buffers of the average and of the network."""

    def __init__(self, average: nn.Module, current: nn.Module) -> None:
        ours, theirs = ([*each.parameters(), *each.buffers()] for each in (average, current))
        pairs = list(zip(ours, theirs, strict=True))
        self.averages = [a for a, _ in pairs if a.is_floating_point()]
        self.currents = [c for a, c in pairs if a.is_floating_point()]
        self.counts = [pair for pair in pairs if not pair[0].is_floating_point()]

    @torch.no_grad()
    def move(self, weight: float) -> None:
        """Move the average by this fraction of the way; counts are copied."""
        torch._foreach_lerp_(self.averages, self.currents, weight)
        for average, current in self.counts:
            average.copy_(current)


class TimeLimit(Callback):
    """Ends a run when its time is over, after a last validation; the time so far is kept in checkpoints."""

    def __init__(self, budget: TimeBudget, *, tiles_per_chip: float) -> None:
        """`tiles_per_chip`: validation tiles for each training chip of a step."""
        self.budget, self.tiles_per_chip = budget, tiles_per_chip
        self.last, self.num_steps, self.validated = budget.elapsed, 0, False

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        if trainer.global_step:  # resumed; however short the time, a new run makes a step
            self._stop_if_over(trainer)

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.last = self.budget.elapsed

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        now, budget = self.budget.elapsed, self.budget
        seconds, self.last, self.num_steps = now - self.last, now, self.num_steps + 1
        budget.step = seconds if self.num_steps <= UNSTEADY_STEPS else budget.step + RECENT * (seconds - budget.step)
        if not self.validated:
            budget.validation = TILE_COST * budget.step * self.tiles_per_chip
        self._stop_if_over(trainer)

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.last = self.budget.elapsed

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.budget.validation, self.validated = self.budget.elapsed - self.last, True
        self._stop_if_over(trainer)

    def _stop_if_over(self, trainer: L.Trainer) -> None:
        """Take the first device's times on all of them, and stop if no step fits any more."""
        budget, times = self.budget, (self.budget.elapsed, self.budget.step, self.budget.validation)
        budget.now, budget.step, budget.validation = trainer.strategy.broadcast(times)
        trainer.should_stop = trainer.should_stop or budget.is_over

    def state_dict(self) -> dict[str, Any]:
        return {"elapsed": self.budget.elapsed, "validation": self.budget.validation}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.budget.resume(float(state_dict["elapsed"]))
        self.budget.validation, self.validated = float(state_dict["validation"]), True


def _title(trainer: L.Trainer) -> str:
    last = "" if trainer.max_epochs == -1 else f"/{trainer.max_epochs}"
    return f"epoch {trainer.current_epoch + 1}{last}"


def _seconds_left(trainer: L.Trainer, epoch_left: float, epoch_seconds: float) -> float:
    """Return the seconds left of a run: of its time, or of this epoch and those after it."""
    task = trainer.lightning_module
    if isinstance(task, SegmentationTask) and task.budget is not None:
        return max(0.0, task.budget.seconds - task.budget.elapsed)
    return epoch_left + ((trainer.max_epochs or 0) - trainer.current_epoch - 1) * epoch_seconds
