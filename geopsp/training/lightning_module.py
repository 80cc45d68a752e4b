"""SegmentationTask: training steps, validation scores and the optimizer, as a Lightning module."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import WeightAveraging
from torch import Tensor, nn
from torch.nn import functional as F

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.data.dataset import Sample
from geopsp.errors import TrainingError
from geopsp.models.host_copy import HostCopy
from geopsp.models.loss_options import LossSpec
from geopsp.models.losses import ignore_channels
from geopsp.models.network import SegmentationNetwork, mask_channels
from geopsp.training.checkpoint_checks import require_optimizer_state
from geopsp.training.fit_options import FitOptions
from geopsp.training.learning_rates import make_optimizer
from geopsp.training.metrics import Confusion, count_pairs
from geopsp.training.schedule import TimeBudget, rate_factor
from geopsp.training.step import MicroBatchGradients, StepRecord, eval_if_frozen, make_batch, pad_batch

ONE_CYCLE_WARMUP = 0.25
"""Fraction of the steps in which the rate of version 0.1 rises. Source: Smith, "Super-Convergence" (2018)."""


MIN_CYCLE_STEPS = 8
"""Fewest steps that OneCycleLR can plan."""


MAX_SKIPPED = 20
"""Most steps in a row without finite gradients in float16: the scaler halves its scale at each, from 2 ** 16."""


MAX_NAMED_CHIPS = 8
"""Most chips that an error names."""


class SegmentationTask(L.LightningModule):
    """A network in training; a batch that does not fit into memory is computed in micro batches."""

    def __init__(
        self,
        network: SegmentationNetwork,
        legend: Legend,
        losses: LossSpec,
        weight: Tensor | None,
        options: FitOptions,
        *,
        batch_size: int,
        chip_name: Callable[[int], str] = str,
        budget: TimeBudget | None = None,
    ) -> None:
        """Take the network to train.

        Args:
            network: Trained in place.
            legend: The classes of its output channels.
            losses: The loss function.
            weight: (classes,) of the loss; None: all classes count the same.
            options: How to train.
            batch_size: Chips per micro batch, at first.
            chip_name: Gives the name of a chip from its row, for errors.
            budget: The time of the run; None: it has a number of epochs.
        """
        super().__init__()
        self.automatic_optimization = False
        self.network, self.legend, self.losses, self.options, self.chip_name = (
            network, legend, losses, options, chip_name
        )  # fmt: skip
        self.lr, self.budget = options.rates[1], budget
        self.num_skipped = 0
        self.total_steps: float = 0
        self.compute_gradients = MicroBatchGradients(losses, batch_size)
        self.ignored = losses.ignored(legend)
        self.register_buffer("weight", weight, persistent=False)
        self.weight: Tensor | None
        self.num_images = 0
        self.loss = math.nan
        """Of the last step that was checked; NaN before the first one."""

        self._unchecked: StepRecord | None = None
        self._largest = 0

    def train(self, mode: bool = True) -> SegmentationTask:
        """Set the mode; a frozen encoder stays in evaluation mode, which keeps its running statistics."""
        super().train(mode)
        eval_if_frozen(self.network.encoder)
        return self

    def on_train_start(self) -> None:
        for optimizer in self.trainer.optimizers:
            require_optimizer_state(optimizer)

    def on_train_epoch_start(self) -> None:
        """Seed dropout and point sampling by epoch, so that a resumed run draws what an uninterrupted one draws."""
        world_size, rank = self.trainer.world_size, self.trainer.global_rank
        torch.manual_seed(self.options.seed + 7919 * (self.current_epoch * world_size + rank))
        self.num_images = 0

    def training_step(self, batch: Sample, step: int) -> None:
        strategy = self.trainer.strategy
        loss = self.compute_gradients(
            self.network,
            make_batch(batch, self.legend, self.losses),
            self.weight,
            backward=self.manual_backward,
            no_sync=getattr(strategy, "block_backward_sync", nullcontext),
            single_device=self.trainer.world_size == 1,
        )
        self._step(loss, batch)
        self.num_images += len(batch.image)
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.image), sync_dist=True)

    def _step(self, loss: Tensor, batch: Sample) -> None:
        """Clip the gradients, and change the weights; without finite gradients they stay as they are.

        Whether they were finite is decided on the device, and checked here one step later: no step waits for the host.
        """
        optimizer: Any = self.optimizers()
        scaler = self._scaler
        if scaler is not None:
            scaler.unscale_(optimizer.optimizer)
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        norm = nn.utils.clip_grad_norm_(parameters, self.options.clip)
        loss_and_norm = torch.stack([loss, norm]).float()
        step = StepRecord(HostCopy(loss_and_norm), batch.row, self.global_step)
        self.check_last_step()  # also moves the learning rate on
        if scaler is None and optimizer.defaults["fused"]:
            optimizer.optimizer.found_inf = 1 - torch.isfinite(loss_and_norm).all().float()
        elif scaler is None:
            self._require_finite(step)
        optimizer.step()  # a scaler skips it by itself, and lowers its scale
        self._unchecked = step

    @property
    def _scaler(self) -> torch.amp.GradScaler | None:
        return getattr(self.trainer.precision_plugin, "scaler", None)

    def check_last_step(self) -> None:
        """Check the last step, and move the learning rate on, unless it was skipped.

        Raises:
            TrainingError: if its loss was not finite; or its gradients, in float16 those of many steps in a row.
        """
        step, self._unchecked = self._unchecked, None
        if step is not None and self._require_finite(step):
            for scheduler in _as_list(self.lr_schedulers()):
                scheduler.step()

    def _require_finite(self, step: StepRecord) -> bool:
        """Return False if a step in float16 had no finite gradients, which is skipped."""
        loss, norm = step.loss_and_norm.wait().tolist()
        if math.isfinite(loss) and math.isfinite(norm):
            self.loss, self.num_skipped = loss, 0
            return True
        self.num_skipped += 1
        if self._scaler is None or not math.isfinite(loss) or self.num_skipped > MAX_SKIPPED:
            raise self._not_finite(loss, norm, step)
        return False

    def _not_finite(self, loss: float, norm: float, step: StepRecord) -> TrainingError:
        names = [self.chip_name(row) for row in step.rows.tolist()]
        more = f" and {len(names) - MAX_NAMED_CHIPS} more" if len(names) > MAX_NAMED_CHIPS else ""
        chips = f"the chips {', '.join(names[:MAX_NAMED_CHIPS])}{more}"
        quantity, value = ("gradient", norm) if math.isfinite(loss) else ("loss", loss)
        if quantity == "gradient" and self.trainer.world_size > 1:
            chips = "chips of this device or another"  # gradients are summed over devices, losses are not
        return TrainingError(
            f"The {quantity} became {value} at step {step.number} with a learning rate of {self.lr:g}, on {chips}. "
            "Lower `lr`, or check these chips for extreme pixel values."
        )

    def on_validation_epoch_start(self) -> None:
        """Average the running statistics over devices: all validate the same network, each on its own chips."""
        self.check_last_step()
        if self.trainer.world_size > 1:
            for buffer in self.network.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.trainer.strategy.reduce(buffer.clone(), reduce_op="mean"))
        size = len(self.legend)
        self.confusion = torch.zeros(size, size, dtype=torch.int64, device=self.device)
        kind = torch.float32 if self.device.type == "mps" else torch.float64  # which Apple's GPUs do not have
        self.loss_and_pixels = torch.zeros(2, dtype=kind, device=self.device)

    def validation_step(self, batch: Sample, step: int) -> None:
        self._largest = max(self._largest, len(batch.image))
        if self.options.compiled or self.device.type == "cuda":  # each size is compiled or measured anew
            batch = pad_batch(batch, self._largest)
        logits = mask_channels(self.network(batch.image, batch.valid), self.ignored)
        labels = ignore_channels(batch.label, self.ignored)
        loss = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE_INDEX, reduction="sum")
        self.loss_and_pixels += torch.stack([loss, (labels != IGNORE_INDEX).sum()])
        self.confusion += count_pairs(labels, logits.max(dim=1).indices, len(self.legend))

    def on_validation_epoch_end(self) -> None:
        strategy = self.trainer.strategy
        loss, pixels = strategy.reduce(self.loss_and_pixels, reduce_op="sum")
        if not pixels:  # the index of the chips counted some
            raise TrainingError(
                "No pixel of the validation chips has a class that counts, so no epoch can be scored. Their labels "
                "have changed since the export: export the chips again."
            )
        scores = Confusion(self.legend, strategy.reduce(self.confusion, reduce_op="sum").cpu().numpy())
        metrics = {"accuracy": scores.accuracy(), "valid_miou": scores.mean_iou(), "dice": scores.mean_dice()}
        self.log_dict({"valid_loss": float(loss / pixels), **metrics}, sync_dist=False)

    def configure_optimizers(self) -> Any:
        options, self.total_steps = self.options, self.trainer.estimated_stepping_batches
        optimizer = make_optimizer(
            self.network, options.rates, self.device, graded=options.graded, recipe=options.recipe
        )
        if not options.one_cycle:
            return optimizer
        scheduler: torch.optim.lr_scheduler.LRScheduler
        if options.recipe > 1:
            scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda step: rate_factor(self.progress(step)))
        else:
            scheduler = torch.optim.lr_scheduler.OneCycleLR(
                optimizer,
                max_lr=[group["lr"] for group in optimizer.param_groups],
                total_steps=max(MIN_CYCLE_STEPS, int(self.total_steps)),
                pct_start=ONE_CYCLE_WARMUP,
                cycle_momentum=False,
            )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Keep the moving average, which is what was validated, in a checkpoint of weights alone.

        Lightning lets callbacks change whole checkpoints only.
        """
        trainer: Any = self.trainer
        average = next((each for each in trainer.callbacks if isinstance(each, WeightAveraging)), None)
        if average is not None and "callbacks" not in checkpoint:
            average.on_save_checkpoint(trainer, self, checkpoint)
            for name in ("current_model_state", "averaging_state"):
                checkpoint.pop(name, None)

    def progress(self, step: int) -> float:
        """Return the fraction of the run that is over in the middle of a step, 0 to 1."""
        if self.budget is not None:
            return self.budget.progress
        return (step + 0.5) / max(1, self.total_steps)

    @property
    def num_steps(self) -> float:
        """Steps of the whole run; with a budget of time, estimated from those so far."""
        if self.budget is None:
            return self.total_steps
        return self.global_step / max(self.budget.progress, 1e-9)


def _as_list(schedulers: Any) -> Sequence[Any]:
    """Return a list of what Lightning gives as None, one scheduler, or a list."""
    return [] if schedulers is None else schedulers if isinstance(schedulers, list) else [schedulers]
