"""One step of training and the scores of a validation, as a Lightning module."""

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
from geopsp.models.losses import LossSpec, ignore_channels
from geopsp.models.network import SegmentationNetwork, mask_channels
from geopsp.training.metrics import Confusion, count_pairs
from geopsp.training.options import FitOptions
from geopsp.training.step import MicroBatchGradients, batch_of, eval_if_frozen

WEIGHT_DECAY = 1e-2


WARMUP = 0.25
"""Share of the steps in which the one-cycle rate rises. Source: Smith, "Super-Convergence" (2018)."""


SHORTEST = 8
"""Steps for which one cycle can be laid out."""


NAMED = 8
"""Chips that an error names at most."""


class SegmentationTask(L.LightningModule):
    """Trains a network; a batch that does not fit into memory is taken in parts."""

    def __init__(
        self,
        network: SegmentationNetwork,
        legend: Legend,
        losses: LossSpec,
        weight: Tensor | None,
        fit: FitOptions,
        *,
        batch_size: int,
        name_of: Callable[[int], str] = str,
    ) -> None:
        """`weight`: (classes,) of the loss; `batch_size`: chips at a time; `name_of`: what a chip's row is called."""
        super().__init__()
        self.automatic_optimization = False
        self.network, self.legend, self.losses, self.fit_spec, self.name_of = network, legend, losses, fit, name_of
        self.lr = fit.lr[1]
        self.gradients = MicroBatchGradients(losses, batch_size)
        self.ignored = losses.ignored(legend)
        self.register_buffer("weight", weight, persistent=False)
        self.weight: Tensor | None
        self.images = 0
        self.loss = torch.zeros(())

    def train(self, mode: bool = True) -> SegmentationTask:
        """A frozen encoder stays as it is: its running statistics too."""
        super().train(mode)
        eval_if_frozen(self.network.encoder)
        return self

    def on_train_epoch_start(self) -> None:
        """Dropout and points are drawn by seed and epoch, so that a resumed run draws as an unbroken one."""
        world, rank = self.trainer.world_size, self.trainer.global_rank
        torch.manual_seed(self.fit_spec.seed + 7919 * (self.current_epoch * world + rank))
        self.images = 0

    def training_step(self, batch: Sample, step: int) -> None:
        strategy = self.trainer.strategy
        loss = self.gradients(
            self.network,
            batch_of(batch, self.legend, self.losses),
            self.weight,
            backward=self.manual_backward,
            unsynced=getattr(strategy, "block_backward_sync", nullcontext),
            alone=self.trainer.world_size == 1,
        )
        optimizer = self.optimizers()
        trained = [p for group in optimizer.param_groups for p in group["params"]]  # type: ignore[union-attr]
        norm = nn.utils.clip_grad_norm_(trained, self.fit_spec.clip)
        self._require_finite(loss, norm, batch)
        optimizer.step()  # type: ignore[union-attr]
        for schedule in _listed(self.lr_schedulers()):
            schedule.step()
        self.images += len(batch.image)
        self.loss = loss
        self.log("train_loss", loss, on_step=False, on_epoch=True, batch_size=len(batch.image), sync_dist=True)

    def _require_finite(self, loss: Tensor, norm: Tensor, batch: Sample) -> None:
        if torch.isfinite(loss + norm):
            return
        chips = [self.name_of(row) for row in batch.row.tolist()]
        more = f" and {len(chips) - NAMED} more" if len(chips) > NAMED else ""
        where = f"on the chips {', '.join(chips[:NAMED])}{more}"
        what, value = ("loss", loss) if not torch.isfinite(loss) else ("gradient", norm)
        if what == "gradient" and self.trainer.world_size > 1:
            where = "on this device or another, see there"  # gradients are the sum over devices, losses are not
        raise TrainingError(
            f"The {what} became {value.item()} at step {self.global_step} with learning rate {self.lr:g}, {where}. "
            "Lower the rate (lr=, --lr), or look for extreme pixel values in them."
        )

    def on_validation_epoch_start(self) -> None:
        """Every device validates the same network, and counts its own share of the chips."""
        if self.trainer.world_size > 1:
            for buffer in self.network.buffers():
                if buffer.is_floating_point():
                    buffer.copy_(self.trainer.strategy.reduce(buffer.clone(), reduce_op="mean"))
        size = len(self.legend)
        self.tally = torch.zeros(size, size, dtype=torch.int64, device=self.device)
        self.valid_sum = torch.zeros(2, dtype=torch.float64)  # not on the device: Apple's has no float64

    def validation_step(self, batch: Sample, step: int) -> None:
        logits = mask_channels(self.network(batch.image, batch.valid), self.ignored)
        labels = ignore_channels(batch.label, self.ignored)
        loss = F.cross_entropy(logits.float(), labels, ignore_index=IGNORE_INDEX, reduction="sum")
        self.valid_sum += torch.stack([loss, (labels != IGNORE_INDEX).sum()]).cpu()
        self.tally += count_pairs(labels, logits.max(dim=1).indices, len(self.legend))

    def on_validation_epoch_end(self) -> None:
        share = self.valid_sum.to(self.device, torch.float32)
        total = self.trainer.strategy.reduce(share, reduce_op="sum")
        tally = self.trainer.strategy.reduce(self.tally, reduce_op="sum")
        scores = Confusion(self.legend, tally.cpu().numpy())
        loss = float(total[0] / total[1].clamp_min(1))
        found = {"accuracy": scores.accuracy(), "valid_miou": scores.mean_iou(), "dice": scores.mean_dice()}
        self.log_dict({"valid_loss": loss, **found}, sync_dist=False)

    def configure_optimizers(self) -> Any:
        groups = parameter_groups(self.network, self.fit_spec.lr)
        optimizer = torch.optim.AdamW(groups, weight_decay=WEIGHT_DECAY, fused=self.device.type in {"cpu", "cuda"})
        if not self.fit_spec.one_cycle:
            return optimizer
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            optimizer,
            max_lr=[group["lr"] for group in groups],
            total_steps=max(SHORTEST, int(self.trainer.estimated_stepping_batches)),
            pct_start=WARMUP,
            cycle_momentum=False,
        )
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def parameter_groups(network: SegmentationNetwork, rates: tuple[float, float]) -> list[dict[str, Any]]:
    """What trains, with rates that rise evenly in their logarithm from the encoder's first stage to its last and on.

    Source: Howard and Ruder, "Universal Language Model Fine-tuning" (2018), section 3.2 (discriminative rates).
    """
    stages = _stages(network.encoder)
    inside = {id(p) for stage in stages for p in stage}
    stages.append([p for p in network.parameters() if id(p) not in inside])
    steps = np.geomspace(*rates, len(stages)).tolist()
    groups = [
        {"params": [p for p in stage if p.requires_grad], "lr": rate} for stage, rate in zip(stages, steps, strict=True)
    ]
    groups = [group for group in groups if group["params"]]
    return groups if rates[0] != rates[1] else [{"params": [p for g in groups for p in g["params"]], "lr": rates[1]}]


def _stages(encoder: nn.Module) -> list[list[nn.Parameter]]:
    """An encoder's parameters by child, in order; timm's are wrapped in one child more."""
    inner = encoder
    while len(children := [child for child in inner.children() if any(True for _ in child.parameters())]) == 1:
        inner = children[0]
    return [list(child.parameters()) for child in children]


def _listed(found: Any) -> Sequence[Any]:
    """Lightning gives None, one, or a list."""
    return [] if found is None else found if isinstance(found, list) else [found]
