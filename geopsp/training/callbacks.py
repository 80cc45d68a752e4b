"""What a training run keeps and shows as it goes: a row an epoch, a CSV file, a moving average of the weights."""

from __future__ import annotations

import logging
import time
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, WeightAveraging
from torch import Tensor

from geopsp.core.log import is_main_process
from geopsp.core.progress import Progress, progress_bar
from geopsp.models.saved_model import HISTORY, write_history
from geopsp.training.lightning_module import SegmentationTask

logger = logging.getLogger(__name__)

LOG_SECONDS = 30.0
"""Seconds between two lines of an epoch in a log."""


LOSS_EVERY = 10
"""Batches from one look at the loss to the next: each makes a GPU wait."""


class EpochLogger(Callback):
    """Keeps, prints and writes one row an epoch, and shows how far the epoch is."""

    def __init__(self, rows: list[dict[str, float]], folder: Path | None) -> None:
        """`rows`: of earlier runs, to which this one's are added; `folder`: where the CSV file goes."""
        self.rows, self.before, self.folder = rows, len(rows), folder
        self.start = self.trained = 0.0
        self.loss = ""
        self.bar: ExitStack = ExitStack()
        self.tell: Progress | None = None

    @property
    def state_key(self) -> str:
        return "Journal"  # the name in checkpoints of version 0.1

    def on_train_epoch_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.start, self.trained = time.monotonic(), 0.0
        self.tell = self.bar.enter_context(
            progress_bar(f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}", gap=LOG_SECONDS)
        )

    def on_train_batch_end(
        self, trainer: L.Trainer, pl_module: L.LightningModule, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        done, total = batch_idx + 1, int(trainer.num_training_batches)
        self.trained = time.monotonic() - self.start
        if self.tell:
            assert isinstance(pl_module, SegmentationTask)
            if batch_idx % LOSS_EVERY == 0:
                self.loss = f"loss {float(pl_module.loss):.3f}"
            best = max((row["valid_miou"] for row in self.rows[self.before :]), default=None)
            notes = [self.loss] if best is None else [self.loss, f"best mIoU {best:.3f}"]
            left = self.trained / done * (total - done) + self._epochs_left(trainer) * self._epoch_seconds(done, total)
            self.tell(done, total, ", ".join([*notes, f"{_words(left)} left"]))

    def on_validation_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        self.bar.close()
        self.tell = None

    def on_train_epoch_end(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        assert isinstance(pl_module, SegmentationTask)
        found = {name: float(value) for name, value in trainer.callback_metrics.items()}
        seconds = time.monotonic() - self.start
        self.rows.append(
            {
                "epoch": len(self.rows) + 1,
                **found,
                "lr": trainer.optimizers[0].param_groups[-1]["lr"],
                "images": pl_module.images * trainer.world_size,
                "train_seconds": round(self.trained, 3),
                "seconds": round(seconds, 3),
            }
        )
        logger.info(
            f"epoch {trainer.current_epoch + 1}/{trainer.max_epochs}  train loss {found['train_loss']:.4f}  "
            f"valid loss {found['valid_loss']:.4f}  mIoU {found['valid_miou']:.4f}  "
            f"accuracy {found['accuracy']:.4f}  {seconds:.0f} s, {_words(self._epochs_left(trainer) * seconds)} left"
        )
        if self.folder and is_main_process():
            write_history(self.rows, self.folder / HISTORY)

    def on_exception(self, trainer: L.Trainer, pl_module: L.LightningModule, exception: BaseException) -> None:
        self.bar.close()

    def state_dict(self) -> dict[str, Any]:
        return {"rows": self.rows}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self.rows[:] = state_dict["rows"]

    @staticmethod
    def _epochs_left(trainer: L.Trainer) -> int:
        return (trainer.max_epochs or 0) - trainer.current_epoch - 1

    def _epoch_seconds(self, done: int, total: int) -> float:
        """Of a whole epoch: the last one's, else what this one's pace promises."""
        own = self.rows[self.before :]
        return own[-1]["seconds"] if own else self.trained / done * total


class ResumableEarlyStopping(EarlyStopping):
    """Ends a run that gets no better; one that had ended so and is resumed stays ended."""

    @property
    def state_key(self) -> str:
        return super().state_key.replace(type(self).__qualname__, "Patience")  # as in checkpoints of version 0.1

    def on_train_start(self, trainer: L.Trainer, pl_module: L.LightningModule) -> None:
        trainer.should_stop = trainer.should_stop or self.wait_count >= self.patience


class EMAWeights(WeightAveraging):
    """Validates and keeps an exponential moving average of the weights, which starts quickly.

    The decay of update n is min(decay, (1 + n) / (10 + n)), so that the first steps do not linger.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(avg_fn=self._mean)
        self.decay = decay

    @property
    def state_key(self) -> str:
        return "MovingAverage"  # the name in checkpoints of version 0.1

    def _mean(self, average: Tensor, current: Tensor, count: Tensor | int) -> Tensor:
        n = int(count)
        return torch.lerp(average.float(), current.float(), 1 - min(self.decay, (1 + n) / (10 + n))).to(average.dtype)


def _words(seconds: float) -> str:
    """A time as a person would say it."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s" if minutes else f"{rest} s"
