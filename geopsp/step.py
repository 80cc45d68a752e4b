"""What one step of training minimises."""

from __future__ import annotations

from typing import NamedTuple

from torch import Tensor

from geopsp.dataset import Sample
from geopsp.legend import Legend
from geopsp.losses import LossSpec, ignore, mix, mix_share, total_loss
from geopsp.models.network import SegmentationNetwork, TrainingOutput


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
    labels = ignore(sample.label, losses.ignored(legend))
    if not losses.mixup:
        return Batch(sample.image, sample.valid, labels, None, 1.0)
    share = mix_share()
    return Batch(*mix(sample.image, sample.valid, labels, share=share), share)


def step_loss(network: SegmentationNetwork, batch: Batch, losses: LossSpec, weight: Tensor | None) -> Tensor:
    """The loss of a network in training mode; `weight`: (classes,)."""
    output: TrainingOutput = network(batch.image, batch.valid)
    loss = total_loss(output, batch.labels, batch.valid, losses, weight)
    if batch.partners is None:
        return loss
    return batch.share * loss + (1 - batch.share) * total_loss(output, batch.partners, batch.valid, losses, weight)
