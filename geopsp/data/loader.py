"""The way of chips into batches: the same for every number of workers, and for every epoch gone on from."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Sampler

from geopsp.data.dataset import ChipDataset, Sample, TiledChipDataset
from geopsp.errors import OptionError

MOST_WORKERS = 8


FEW_CORES = 4
"""Without a GPU, training itself keeps as many cores busy: loading beside it would only take turns with it."""


PREFETCH = 4
"""Batches that each worker has ready or in hand."""


class EpochSampler(Sampler[tuple[int, int]]):
    """Items in the order of an epoch, each with the seed of its changes; one rank's share of them.

    What is drawn depends on seed, epoch and position only. Ranks take turns, so that together they see what one alone
    would see in batches as many times as large.
    """

    def __init__(
        self, count: int, *, seed: int, weights: Tensor | None = None, rank: int = 0, world: int = 1, unit: int = 1
    ) -> None:
        """`unit`: the share is a multiple of it, if it reaches it at all."""
        self.count, self.seed, self.rank, self.world, self.unit = count, seed, rank, world, unit
        self.share = None if weights is None else (weights.double() / weights.double().sum()).numpy()
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        share = self.count // self.world
        return share // self.unit * self.unit or share

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        items = rng.permutation(self.count) if self.share is None else rng.choice(self.count, self.count, p=self.share)
        seeds = rng.integers(2**63, size=self.count)
        mine = slice(self.rank, self.world * len(self), self.world)
        yield from zip(items[mine].tolist(), seeds[mine].tolist(), strict=True)


class _Batches(DataLoader[Sample]):
    """A loader that draws nothing before its first batch is asked for.

    Lightning makes the iterator before it sets the sampler's epoch.
    """

    def __iter__(self) -> Iterator[Sample]:  # type: ignore[override]
        yield from super().__iter__()


@dataclass(frozen=True, slots=True, eq=False)
class ChipLoaders:
    """What is trained and validated on, and how it is drawn."""

    train: ChipDataset
    valid: TiledChipDataset
    batch_size: int
    """Chips a batch on each rank."""

    seed: int = 42
    workers: int | None = None
    """Processes that read, on each rank; 0: none but this one; None: by device and cores."""

    weights: Tensor | None = None
    """(training chips,) how much more often a chip is drawn than one of weight 1; None: each once an epoch."""

    def __post_init__(self) -> None:
        check_feed(batch_size=self.batch_size, workers=self.workers, seed=self.seed)
        if self.weights is not None:
            _check_weights(self.weights, len(self.train))

    def train_loader(self, *, rank: int = 0, world: int = 1, accumulate: int = 1) -> DataLoader[Sample]:
        """Shuffled batches of batch_size * accumulate; as many on each rank, and no position of an epoch on two.

        The last chips of an epoch that do not fill `batch_size` are left out, unless there would be no batch at all;
        the last batch may have fewer times `batch_size` than the others.

        Raises:
            OptionError: if there are fewer chips than ranks.
        """
        _check_rank(len(self.train), rank, world)
        sampler = EpochSampler(
            len(self.train), seed=self.seed, weights=self.weights, rank=rank, world=world, unit=self.batch_size
        )
        return _Batches(self.train, self.batch_size * accumulate, sampler=sampler, **_options(self.workers, world))

    def val_loader(self, *, rank: int = 0, world: int = 1) -> DataLoader[Sample]:
        """Every item exactly once over all ranks, in order; as many batches on each rank.

        Raises:
            OptionError: if there are fewer items than ranks.
        """
        return loader(self.valid, self.batch_size, workers=self.workers, rank=rank, world=world)


def loader(
    dataset: TiledChipDataset, batch_size: int, *, workers: int | None = None, rank: int = 0, world: int = 1
) -> DataLoader[Sample]:
    """Every item of a dataset exactly once over all ranks, in order, in batches of at most `batch_size`.

    Each rank gets as many batches, so that none waits for another; their sizes differ by one instead, and among
    several ranks a batch of one may become two.

    Raises:
        OptionError: if there are fewer items than ranks.
    """
    _check_rank(len(dataset), rank, world)
    mine = np.array_split(np.arange(len(dataset)), world)[rank]
    count = math.ceil(math.ceil(len(dataset) / world) / batch_size)
    batches = [part.tolist() for part in np.array_split(mine, min(count, len(dataset) // world))]
    return _Batches(dataset, batch_sampler=batches, **_options(workers, world))


def _options(workers: int | None, world: int) -> dict[str, Any]:
    count = _workers(world) if workers is None else workers
    return {
        "num_workers": count,
        "persistent_workers": count > 0,
        "prefetch_factor": PREFETCH if count else None,
        "pin_memory": torch.cuda.is_available(),
    }


def _workers(world: int) -> int:
    """As many processes as there are cores to spare, the ranks of this machine sharing them."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    if not torch.cuda.is_available():
        return min(MOST_WORKERS, cores - 1) if cores > FEW_CORES else 0
    return max(1, min(MOST_WORKERS, cores // min(world, torch.cuda.device_count()) - 1))


def check_feed(*, batch_size: int | None, workers: int | None, seed: int) -> None:
    """Raises OptionError if one is out of range; None is within."""
    if batch_size is not None and not (isinstance(batch_size, int) and batch_size >= 1):
        raise OptionError(f"batch_size is {batch_size}; needed at least 1, or None for the largest that fits.")
    if workers is not None and not (isinstance(workers, int) and workers >= 0):
        raise OptionError(f"workers is {workers}; needed 0 (read in this process) or more, or None to let us choose.")
    if seed < 0:
        raise OptionError(f"seed is {seed}; needed 0 or more.")


def _check_weights(weights: Tensor, count: int) -> None:
    if weights.shape != (count,):
        raise OptionError(f"There are weights of shape {tuple(weights.shape)} for {count} chips; needed one a chip.")
    if not (torch.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise OptionError("A sampling weight is negative or not finite, or all are 0; needed e.g. chip_weights().")


def _check_rank(count: int, rank: int, world: int) -> None:
    if not 0 <= rank < world:
        raise OptionError(f"rank is {rank} of {world}; needed 0 to {world - 1}.")
    if count < world:
        raise OptionError(f"{count} chips cannot be shared by {world} devices. Use fewer devices or more chips.")


def chip_weights(counts: NDArray[np.int64]) -> Tensor:
    """(chips,) float64 sampling weights, at least 1: sqrt(1 / share of chips that hold the class), of a chip's rarest.

    Args:
        counts: (chips, classes) labelled pixels.

    Source: Gupta et al., "LVIS" (2019), section 4, repeat factor sampling with a threshold of 1.
    """
    holds = torch.from_numpy(counts > 0)
    share = holds.double().mean(dim=0).clamp_min(1 / max(len(counts), 1))
    return (holds * share.rsqrt()).amax(dim=1).clamp_min(1)
