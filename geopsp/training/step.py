"""The loss of a batch and its gradients, in micro batches if memory is short."""

from __future__ import annotations

import logging
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from typing import NamedTuple

import torch
from torch import Tensor, nn

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.text import format_count
from geopsp.data.dataset import Sample
from geopsp.errors import TrainingError
from geopsp.models.host_copy import HostCopy
from geopsp.models.loss_options import LossSpec
from geopsp.models.losses import draw_mixup_share, ignore_channels, mixup_batch, pixel_weights, total_loss
from geopsp.models.memory import is_out_of_memory
from geopsp.models.network import SegmentationNetwork, TrainingOutput
from geopsp.models.region_losses import TINY

logger = logging.getLogger(__name__)


class Batch(NamedTuple):
    """A batch of chips for the loss; with mixup each chip is blended with a partner."""

    image: Tensor
    """(n, bands, h, w)"""

    valid: Tensor
    """(n, 1, h, w)"""

    labels: Tensor
    """(n, h, w)"""

    partners: Tensor | None
    """(n, h, w) labels of the partners; None: no mixup."""

    mixup_share: float
    """Share of the chip itself in the blend, 0 to 1; its partner has the rest."""

    def take(self, chips: slice) -> Batch:
        """Return some of the chips, as a micro batch."""
        partners = None if self.partners is None else self.partners[chips]
        return Batch(self.image[chips], self.valid[chips], self.labels[chips], partners, self.mixup_share)


class StepRecord(NamedTuple):
    """What there is to check of a step, one step later, so that a GPU never waits for the host."""

    loss_and_norm: HostCopy
    """The loss, and the norm of the gradients."""

    rows: Tensor
    """(n,) rows of its chips in the index."""

    number: int
    """Steps before it."""


def make_batch(sample: Sample, legend: Legend, losses: LossSpec) -> Batch:
    """Remove the labels of ignored classes, and blend the chips if the loss uses mixup."""
    labels = ignore_channels(sample.label, losses.ignored(legend))
    if not losses.mixup:
        return Batch(sample.image, sample.valid, labels, None, 1.0)
    share = draw_mixup_share()
    return Batch(*mixup_batch(sample.image, sample.valid, labels, share=share), share)


def pad_batch(sample: Sample, size: int) -> Sample:
    """Return a batch of `size` chips, the last of them without valid or labelled pixels."""
    missing = size - len(sample.image)
    if missing <= 0:
        return sample
    image, valid, row = (
        torch.cat([part, part.new_zeros(missing, *part.shape[1:])]) for part in (sample.image, sample.valid, sample.row)
    )
    label = torch.cat([sample.label, sample.label.new_full((missing, *sample.label.shape[1:]), IGNORE_INDEX)])
    return Sample(image, valid, label, row)


def step_loss(
    network: SegmentationNetwork,
    batch: Batch,
    losses: LossSpec,
    weight: Tensor | None,
    *,
    fraction: Tensor | float = 1.0,
    partner_fraction: Tensor | float = 1.0,
) -> Tensor:
    """Return the loss of a network in training mode.

    Args:
        network: The network.
        batch: Chips.
        losses: The loss function.
        weight: (classes,); None: 1 each.
        fraction: By which the loss of the chips' own labels is multiplied.
        partner_fraction: By which that of their partners' labels is.
    """
    output: TrainingOutput = network(batch.image, batch.valid)
    loss = fraction * total_loss(output, batch.labels, batch.valid, losses, weight)
    if batch.partners is None:
        return loss
    partner_loss = partner_fraction * total_loss(output, batch.partners, batch.valid, losses, weight)
    return batch.mixup_share * loss + (1 - batch.mixup_share) * partner_loss


def chip_fractions(labels: Tensor, losses: LossSpec, weight: Tensor | None) -> Tensor:
    """Return what each chip counts in the cross entropy of all of them: (n,) from (n, h, w) labels."""
    counted = pixel_weights(labels, weight=weight, boundary=losses.boundary_weight).flatten(1).sum(dim=1)
    return counted / counted.sum().clamp_min(TINY)


class MicroBatchGradients:
    """The gradients of batches; when memory runs out, micro batches are halved and their gradients added up."""

    def __init__(self, losses: LossSpec, size: int) -> None:
        """Begin with micro batches of `size` chips."""
        self.losses, self.size = losses, size

    def __call__(
        self,
        network: SegmentationNetwork,
        batch: Batch,
        weight: Tensor | None,
        *,
        backward: Callable[[Tensor], None] = Tensor.backward,
        no_sync: Callable[[], AbstractContextManager[None]] = nullcontext,
        single_device: bool = True,
    ) -> Tensor:
        """Return the loss of a batch, and leave its gradients in the network.

        Args:
            network: In training mode.
            batch: Of any size; micro batches count by their labelled pixels and the weights of these, so that the
                cross entropy of the pixels is that of the whole batch.
            weight: (classes,) of the loss.
            backward: Computes the gradients of a loss.
            no_sync: Context in which gradients are not shared between devices; for all micro batches but the last.
            single_device: False where other devices wait for these gradients: then nothing can be computed again.

        Raises:
            TrainingError: if memory does not hold a single chip.
        """
        while True:
            try:
                return self._sum(network, batch, weight, backward, no_sync)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                size = min(self.size, len(batch.image))
                if size < 2 or not single_device:
                    raise TrainingError(
                        f"The GPU's memory is too small for {format_count(size, 'chip')} at a time. Lower "
                        "`batch_size` (`accumulate` keeps the steps as large) or `chip_size`, or use a smaller "
                        "backbone."
                    ) from error
            self.size = size // 2
            torch.cuda.empty_cache()
            logger.info(
                f"GPU memory ran out. Batches of {format_count(len(batch.image), 'chip')} are now computed {self.size} "
                "at a time, and their gradients added up, so the steps stay as large as before."
            )

    def _sum(
        self,
        network: SegmentationNetwork,
        batch: Batch,
        weight: Tensor | None,
        backward: Callable[[Tensor], None],
        no_sync: Callable[[], AbstractContextManager[None]],
    ) -> Tensor:
        network.zero_grad()
        count, total = len(batch.image), torch.zeros((), device=batch.image.device)
        slices = [slice(first, first + self.size) for first in range(0, count, self.size)]
        parts = [labels for labels in (batch.labels, batch.partners) if labels is not None] if len(slices) > 1 else []
        fractions = [chip_fractions(labels, self.losses, weight) for labels in parts]
        for chips in slices:
            shares = dict(
                zip(("fraction", "partner_fraction"), (each[chips].sum() for each in fractions), strict=False)
            )
            with nullcontext() if chips is slices[-1] else no_sync():
                loss = step_loss(network, batch.take(chips), self.losses, weight, **shares)
                backward(loss)
            total += loss.detach()
        return total


def is_frozen(module: nn.Module) -> bool:
    """Return True if no parameter trains."""
    return not any(p.requires_grad for p in module.parameters())


def eval_if_frozen(encoder: nn.Module) -> None:
    """Put a frozen encoder into evaluation mode, which keeps its running statistics."""
    if is_frozen(encoder):
        encoder.eval()
