"""SegmentationTask: training steps, validation scores and the optimizer, as a Lightning module."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import Any

import lightning as L
import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.data.dataset import Sample
from geopsp.errors import TrainingError
from geopsp.models.loss_options import LossSpec
from geopsp.models.losses import ignore_channels
from geopsp.models.network import SegmentationNetwork, mask_channels
from geopsp.training.checkpoint_checks import require_optimizer_state
from geopsp.training.metrics import Confusion, count_pairs
from geopsp.training.options import FitOptions
from geopsp.training.step import MicroBatchGradients, eval_if_frozen, make_batch

WEIGHT_DECAY = 1e-2


WARMUP = 0.25
"""Fraction of the steps in which the one-cycle rate rises. Source: Smith, "Super-Convergence" (2018)."""


MIN_CYCLE_STEPS = 8
"""Fewest steps that OneCycleLR can plan."""


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
        """
        super().__init__()
        self.automatic_optimization = False
        self.network, self.legend, self.losses, self.options, self.chip_name = (
            network, legend, losses, options, chip_name
        )  # fmt: skip
        self.lr = options.rates[1]
        self.compute_gradients = MicroBatchGradients(losses, batch_size)
        self.ignored = losses.ignored(legend)
        self.register_buffer("weight", weight, persistent=False)
        self.weight: Tensor | None
        self.num_images = 0
        self.loss = torch.zeros(())

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
        optimizer = self.optimizers()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]  # type: ignore[union-attr]
        norm = nn.utils.clip_grad_norm_(parameters, self.options.clip)
        self._require_finite(loss, norm, batch)
        optimizer.step()  # type: ignore[union-attr]
        for scheduler in _as_list(self.lr_schedulers()):
            scheduler.step()
        self.num_images += len(batch.image)
        self.loss = loss
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.image), sync_dist=True)

    def _require_finite(self, loss: Tensor, norm: Tensor, batch: Sample) -> None:
        if torch.isfinite(loss + norm):
            return
        names = [self.chip_name(row) for row in batch.row.tolist()]
        more = f" and {len(names) - MAX_NAMED_CHIPS} more" if len(names) > MAX_NAMED_CHIPS else ""
        chips = f"the chips {', '.join(names[:MAX_NAMED_CHIPS])}{more}"
        quantity, value = ("loss", loss) if not torch.isfinite(loss) else ("gradient", norm)
        if quantity == "gradient" and self.trainer.world_size > 1:
            chips = "chips of this device or another"  # gradients are summed over devices, losses are not
        raise TrainingError(
            f"The {quantity} became {value.item()} at step {self.global_step} with a learning rate of {self.lr:g}, on "
            f"{chips}. Lower `lr`, or check these chips for extreme pixel values."
        )

    def on_validation_epoch_start(self) -> None:
        """Average the running statistics over devices: all validate the same network, each on its own chips."""
        if self.trainer.world_size > 1:
            for buffer in self.network.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.trainer.strategy.reduce(buffer.clone(), reduce_op="mean"))
        size = len(self.legend)
        self.confusion = torch.zeros(size, size, dtype=torch.int64, device=self.device)
        self.loss_and_pixels = torch.zeros(2, dtype=torch.float64)  # on the CPU: Apple's GPUs have no float64

    def validation_step(self, batch: Sample, step: int) -> None:
        logits = mask_channels(self.network(batch.image, batch.valid), self.ignored)
        labels = ignore_channels(batch.label, self.ignored)
        loss = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE_INDEX, reduction="sum")
        self.loss_and_pixels += torch.stack([loss, (labels != IGNORE_INDEX).sum()]).cpu()
        self.confusion += count_pairs(labels, logits.max(dim=1).indices, len(self.legend))

    def on_validation_epoch_end(self) -> None:
        strategy = self.trainer.strategy
        loss, pixels = strategy.reduce(self.loss_and_pixels.to(self.device, torch.float32), reduce_op="sum")
        if not pixels:  # the index of the chips counted some
            raise TrainingError(
                "No pixel of the validation chips has a class that counts, so no epoch can be scored. Their labels "
                "have changed since the export: export the chips again."
            )
        scores = Confusion(self.legend, strategy.reduce(self.confusion, reduce_op="sum").cpu().numpy())
        metrics = {"accuracy": scores.accuracy(), "valid_miou": scores.mean_iou(), "dice": scores.mean_dice()}
        self.log_dict({"valid_loss": float(loss / pixels), **metrics}, sync_dist=False)

    def configure_optimizers(self) -> Any:
        groups = parameter_groups(self.network, self.options.rates)
        optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=self.device.type in {"cpu", "cuda"})
        if not self.options.one_cycle:
            return optimizer
        scheduler = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in groups],
            total_steps=max(MIN_CYCLE_STEPS, int(self.trainer.estimated_stepping_batches)),
            pct_start=WARMUP,
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def parameter_groups(network: SegmentationNetwork, rates: tuple[float, float]) -> list[dict[str, Any]]:
    """Group the trainable parameters by encoder stage, the rest last, each group with its learning rate.

    The rates rise evenly in their logarithm, from `rates[0]` of the first stage to `rates[1]` of the rest.

    Source: Howard and Ruder, "Universal Language Model Fine-tuning" (2018), section 3.2 (discriminative rates).
    """
    stages = _encoder_stages(network.encoder)
    in_encoder = {id(p) for stage in stages for p in stage}
    stages.append([p for p in network.parameters() if id(p) not in in_encoder])
    stage_rates = np.geomspace(*rates, len(stages)).tolist()
    groups = [
        {"params": [p for p in stage if p.requires_grad], "lr": rate}
        for stage, rate in zip(stages, stage_rates, strict=True)
    ]
    groups = [group for group in groups if group["params"]]
    return groups if rates[0] != rates[1] else [{"params": [p for g in groups for p in g["params"]], "lr": rates[1]}]


def _encoder_stages(encoder: nn.Module) -> list[list[nn.Parameter]]:
    """Return the parameters of each child in order; timm wraps its encoders in one more module."""
    inner = encoder
    while len(children := [child for child in inner.children() if any(True for _ in child.parameters())]) == 1:
        inner = children[0]
    return [list(child.parameters()) for child in children]


def _as_list(schedulers: Any) -> Sequence[Any]:
    """Return a list of what Lightning gives as None, one scheduler, or a list."""
    return [] if schedulers is None else schedulers if isinstance(schedulers, list) else [schedulers]
