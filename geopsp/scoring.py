"""A network's scores over chips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader

from geopsp.dataset import Sample
from geopsp.errors import TrainingError
from geopsp.legend import IGNORE, Legend
from geopsp.losses import ignore, silence
from geopsp.metrics import Confusion, boundary_counts, boundary_width
from geopsp.models.build import autocast, pick_device


def to_device(batch: Sample, device: torch.device) -> Sample:
    """The batch, there."""
    return Sample(*(part.to(device, non_blocking=True) for part in batch))


def count_pairs(labels: Tensor, found: Tensor, classes: int) -> Tensor:
    """(classes, classes) pixels by true and found class, (n, h, w) each, on the device that they are on."""
    known = labels != IGNORE
    pairs = labels[known] * classes + found[known]
    return torch.bincount(pairs, minlength=classes * classes).view(classes, classes)


def evaluate(
    network: nn.Module,
    loader: DataLoader[Sample],
    legend: Legend,
    *,
    ignored: Sequence[int] = (),
    device: str | None = None,
) -> Confusion:
    """Scores over every labelled pixel of the loader; those of `ignored` channels count as unlabelled."""
    where = pick_device(device)
    network = network.to(where).eval()
    size = len(legend)
    tally = torch.zeros(size, size, dtype=torch.int64, device=where)
    edges = torch.zeros(size, 2, dtype=torch.int64, device=where)
    with memory_errors(), torch.inference_mode():
        for batch in loader:
            image, valid, label, _ = to_device(batch, where)
            label = ignore(label, ignored)
            with autocast(where):
                found = silence(network(image, valid), ignored).max(dim=1).indices
            tally += count_pairs(label, found, size)
            edges += boundary_counts(label, found, size, boundary_width(image.shape[-1]))
    network.cpu()
    return Confusion(legend, tally.cpu().numpy(), edges.cpu().numpy())


@contextmanager
def memory_errors() -> Iterator[None]:
    """A GPU's memory that runs out is said in our words."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "The GPU's memory is too small for this batch. Lower batch_size (--batch-size) or chip_size, "
            "or take a smaller backbone."
        ) from error
