"""What one step of training minimises."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.data.dataset import Sample
from geopsp.errors import TrainingError
from geopsp.models.losses import LossSpec, draw_mixup_share, ignore_channels, mixup_batch, total_loss
from geopsp.models.network import SegmentationNetwork, TrainingOutput

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """Chips as the loss takes them; with mixup each is blended with a partner."""

    image: Tensor
    """(n, bands, h, w)"""

    valid: Tensor
    """(n, 1, h, w)"""

    labels: Tensor
    """(n, h, w)"""

    partners: Tensor | None
    """(n, h, w) labels of the partners; None without mixup."""

    share: float
    """Of the chips themselves in the blend."""

    def part(self, span: slice) -> Batch:
        """Some of its chips."""
        partners = None if self.partners is None else self.partners[span]
        return Batch(self.image[span], self.valid[span], self.labels[span], partners, self.share)


def batch_of(sample: Sample, legend: Legend, losses: LossSpec) -> Batch:
    """The chips, without the labels of ignored classes, and blended if the losses ask for it."""
    labels = ignore_channels(sample.label, losses.ignored(legend))
    if not losses.mixup:
        return Batch(sample.image, sample.valid, labels, None, 1.0)
    share = draw_mixup_share()
    return Batch(*mixup_batch(sample.image, sample.valid, labels, share=share), share)


def step_loss(network: SegmentationNetwork, batch: Batch, losses: LossSpec, weight: Tensor | None) -> Tensor:
    """The loss of a network in training mode; `weight`: (classes,)."""
    output: TrainingOutput = network(batch.image, batch.valid)
    loss = total_loss(output, batch.labels, batch.valid, losses, weight)
    if batch.partners is None:
        return loss
    return batch.share * loss + (1 - batch.share) * total_loss(output, batch.partners, batch.valid, losses, weight)


class MicroBatchGradients:
    """Takes the gradients of batches, so many chips at a time as memory holds."""

    def __init__(self, losses: LossSpec, size: int) -> None:
        """`size`: chips at a time, at first."""
        self.losses, self.size = losses, size

    def __call__(
        self,
        network: SegmentationNetwork,
        batch: Batch,
        weight: Tensor | None,
        *,
        backward: Callable[[Tensor], None] = Tensor.backward,
        unsynced: Callable[[], AbstractContextManager[None]] = nullcontext,
        alone: bool = True,
    ) -> Tensor:
        """The loss, with its gradients in the network.

        Args:
            network: In training mode.
            batch: May be larger than what is taken at a time; parts count by their labelled pixels.
            weight: (classes,) of the loss.
            backward: Takes a part's gradients.
            unsynced: Within it other devices are not told; used for all parts but the last.
            alone: False where other devices wait for this one's gradients, so that no part can be taken again.

        Raises:
            TrainingError: if memory does not hold a single chip.
        """
        while True:
            try:
                return self._sum(network, batch, weight, backward, unsynced)
            except torch.OutOfMemoryError as error:
                size = min(self.size, len(batch.image))
                if size < 2 or not alone:
                    raise TrainingError(
                        f"The GPU's memory is too small for {size} chips at a time. Lower batch_size (--batch-size; "
                        "accumulate keeps the steps as large) or chip_size, or take a smaller backbone."
                    ) from error
            self.size = size // 2
            torch.cuda.empty_cache()
            logger.info(
                f"Memory ran out: batches of {len(batch.image)} are now taken {self.size} at a time, with the "
                "gradients added up; the steps stay as large as they were."
            )

    def _sum(
        self,
        network: SegmentationNetwork,
        batch: Batch,
        weight: Tensor | None,
        backward: Callable[[Tensor], None],
        unsynced: Callable[[], AbstractContextManager[None]],
    ) -> Tensor:
        network.zero_grad()
        count, total = len(batch.image), torch.zeros((), device=batch.image.device)
        spans = [slice(first, first + self.size) for first in range(0, count, self.size)]
        known = (batch.labels != IGNORE_INDEX).sum().clamp_min(1)
        for span in spans:
            part = batch.part(span)
            with nullcontext() if span is spans[-1] else unsynced():
                share = (part.labels != IGNORE_INDEX).sum() / known if len(spans) > 1 else 1.0
                loss = share * step_loss(network, part, self.losses, weight)
                backward(loss)
            total += loss.detach()
        return total


def is_frozen(module: nn.Module) -> bool:
    """True if nothing in it trains."""
    return not any(p.requires_grad for p in module.parameters())


def eval_if_frozen(encoder: nn.Module) -> None:
    """A frozen encoder stays as it is: its running statistics too."""
    if is_frozen(encoder):
        encoder.eval()
