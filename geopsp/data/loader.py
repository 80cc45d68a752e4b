"""Data loaders: the same batches for any number of workers, in a resumed run and over several ranks."""

from __future__ import annotations

import math
import multiprocessing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from geopsp.core.main_guard import require_main_guard
from geopsp.core.options import require_int
from geopsp.core.parallel import cpu_count
from geopsp.core.text import format_count
from geopsp.data.chip_batch import PackedChips, as_is, chip_bytes
from geopsp.data.dataset import ChipDataset, TiledChipDataset
from geopsp.data.waiting_batches import waiting_batches
from geopsp.errors import OptionError

MAX_WORKERS = 8


MAX_BUSY_CORES = 4
"""Cores that training itself keeps busy without a GPU. With no more than these, workers would only slow it down."""


class EpochSampler(Sampler[tuple[int, int]]):
    """The items of an epoch in random order, each with the seed of its transforms; one rank's share of them.

    Order and seeds depend on the sampler's seed, epoch and position only. Ranks take every n-th item, so that together
    they have the same batches as one rank with an n times larger batch size.
    """

    def __init__(
        self,
        count: int,
        *,
        seed: int,
        weights: Tensor | None = None,
        rank: int = 0,
        world: int = 1,
        batch_multiple: int = 1,
    ) -> None:
        """`batch_multiple`: the number of items is a multiple of it, unless there are fewer."""
        self.count, self.seed, self.rank, self.world = count, seed, rank, world
        self.batch_multiple = batch_multiple
        self.probabilities = None if weights is None else (weights.double() / weights.double().sum()).numpy()
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        self.epoch = epoch

    def __len__(self) -> int:
        share = self.count // self.world
        return share // self.batch_multiple * self.batch_multiple or share

    def __iter__(self) -> Iterator[tuple[int, int]]:
        rng = np.random.default_rng((self.seed, self.epoch))
        if self.probabilities is None:
            items = rng.permutation(self.count)
        else:
            items = rng.choice(self.count, self.count, p=self.probabilities)
        seeds = rng.integers(2**63, size=self.count)
        own = slice(self.rank, self.world * len(self), self.world)
        yield from zip(items[own].tolist(), seeds[own].tolist(), strict=True)


class _DeferredLoader(DataLoader[Any]):
    """A loader that draws nothing before its first batch is requested, and nothing from torch's global generator.

    Lightning makes the iterator before it sets the sampler's epoch. torch draws the seed of the workers whenever it
    makes an iterator: each epoch without workers, once with them. From the global generator this would change what
    dropout and mixup draw next.
    """

    num_epochs = 0
    """Epochs that will be asked for, one after the other; processes load the first batches of the next one ahead."""

    def __init__(self, dataset: Dataset[Any], **options: Any) -> None:
        super().__init__(dataset, generator=torch.Generator(), **options)
        self._ahead: tuple[int, Iterator[Any]] | None = None
        self._num_shown = 0

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        ahead, self._ahead = self._ahead, None
        batches = ahead[1] if ahead is not None and ahead[0] == self._epoch else super().__iter__()
        self._num_shown += 1
        for left in reversed(range(len(self))):
            batch = next(batches)
            if not left and self.num_workers and max(self._num_shown, self._epoch + 1) < self.num_epochs:
                self._ahead = self._begin_next()  # now, as Lightning asks for no more than there are
            yield batch

    @property
    def _epoch(self) -> int:
        return self.sampler.epoch if isinstance(self.sampler, EpochSampler) else 0

    def _begin_next(self) -> tuple[int, Iterator[Any]]:
        """Let the processes load the next epoch; return its number and its batches."""
        if not isinstance(self.sampler, EpochSampler):
            return 0, super().__iter__()
        epoch = self.sampler.epoch
        try:
            self.sampler.set_epoch(epoch + 1)
            return epoch + 1, super().__iter__()
        finally:
            self.sampler.set_epoch(epoch)


@dataclass(frozen=True, slots=True, eq=False)
class ChipLoaders:
    """Training and validation chips, and how they are loaded."""

    train: ChipDataset
    valid: TiledChipDataset
    batch_size: int
    """Chips of a batch on each rank."""

    seed: int = 42
    workers: int | None = None
    """Processes that load chips, on each rank; 0: none but this one; None: by device and cores."""

    weights: Tensor | None = None
    """(training chips,) sampling weights; None: each chip once per epoch."""

    def __post_init__(self) -> None:
        check_loader_options(batch_size=self.batch_size, workers=self.workers, seed=self.seed)
        if self.weights is not None:
            _check_weights(self.weights, len(self.train))

    def train_loader(
        self, *, rank: int = 0, world: int = 1, accumulate: int = 1, packed: bool = False, epochs: int = 0
    ) -> DataLoader[Any]:
        """Return shuffled batches of batch_size * accumulate chips; no position of an epoch is on two ranks.

        Each rank has as many batches. The last chips of an epoch that do not fill `batch_size` are left out, unless
        there would be no batch at all; the last batch may hold fewer multiples of `batch_size` than the others.

        Args:
            rank: Of this process.
            world: Number of ranks.
            accumulate: Chips of a batch, in `batch_size`.
            packed: True returns each batch as a `ChipBatch`, for `BatchTransforms` on a GPU; else as a `Sample`.
            epochs: Epochs that will be asked for, one after the other.

        Raises:
            OptionError: if there are fewer chips than ranks.
        """
        _check_rank(len(self.train), rank, world)
        sampler = EpochSampler(
            len(self.train),
            seed=self.seed,
            weights=self.weights,
            rank=rank,
            world=world,
            batch_multiple=self.batch_size,
        )
        size = self.batch_size * accumulate
        return _loader(self.train, size, self.workers, world, packed, epochs, batch_size=size, sampler=sampler)

    def val_loader(self, *, rank: int = 0, world: int = 1, packed: bool = False, epochs: int = 0) -> DataLoader[Any]:
        """Return every validation tile exactly once over all ranks, in order; each rank has as many batches.

        Args:
            rank: Of this process.
            world: Number of ranks.
            packed: See `train_loader`.
            epochs: See `train_loader`.

        Raises:
            OptionError: if there are fewer tiles than ranks.
        """
        return tile_loader(
            self.valid, self.batch_size, workers=self.workers, rank=rank, world=world, packed=packed, epochs=epochs
        )


def tile_loader(
    dataset: TiledChipDataset, batch_size: int, *, workers: int | None = None, rank: int = 0, world: int = 1,
    packed: bool = False, epochs: int = 0,
) -> DataLoader[Any]:  # fmt: skip
    """Return every tile of a dataset exactly once over all ranks, in order, in batches of at most `batch_size`.

    Each rank has as many batches, so that none waits for another. Instead the sizes of batches differ by one, and with
    several ranks a batch of one may become two.

    Raises:
        OptionError: if there are fewer tiles than ranks.
    """
    _check_rank(len(dataset), rank, world)
    own = np.array_split(np.arange(len(dataset)), world)[rank]
    count = math.ceil(math.ceil(len(dataset) / world) / batch_size)
    batches = [part.tolist() for part in np.array_split(own, min(count, len(dataset) // world))]
    return _loader(dataset, batch_size, workers, world, packed, epochs, batch_sampler=batches)


def _loader(
    dataset: ChipDataset | TiledChipDataset, chips: int, workers: int | None, world: int, packed: bool, epochs: int,
    **options: Any,
) -> DataLoader[Any]:  # fmt: skip
    """Return a loader of batches of at most `chips`, with as many processes as are wanted and shared memory holds."""
    options |= _worker_options(workers, world, chips * chip_bytes(dataset, packed=packed))
    if packed:
        options["collate_fn"] = as_is
    loader = _DeferredLoader(PackedChips(dataset) if packed else dataset, **options)
    loader.num_epochs = epochs
    return loader


def _worker_options(workers: int | None, world: int, batch_bytes: int) -> dict[str, Any]:
    count, prefetch = waiting_batches(_default_workers(world) if workers is None else workers, batch_bytes)
    start_method = multiprocessing.get_start_method(allow_none=True) or multiprocessing.get_all_start_methods()[0]
    if count and start_method != "fork":
        require_main_guard(f"`workers={count}`")
    return {
        "num_workers": count,
        "persistent_workers": count > 0,
        "prefetch_factor": prefetch if count else None,
        "pin_memory": torch.cuda.is_available(),
    }


def _default_workers(world: int) -> int:
    """Return as many processes as cores are free; the ranks of this machine share them."""
    cores = cpu_count()
    if not torch.cuda.is_available():
        return min(MAX_WORKERS, cores - 1) if cores > MAX_BUSY_CORES else 0
    return max(1, min(MAX_WORKERS, cores // min(world, torch.cuda.device_count()) - 1))


def check_loader_options(*, batch_size: int | None, workers: int | None, seed: int) -> None:
    """Check the options of loaders.

    Raises:
        OptionError: if one is out of range.
    """
    if batch_size is not None:
        require_int("batch_size", batch_size, minimum=1)
    if workers is not None:
        require_int("workers", workers, minimum=0)
    require_int("seed", seed, minimum=0)


def _check_weights(weights: Tensor, count: int) -> None:
    if weights.shape != (count,):
        raise OptionError(
            f"The sampling weights have the shape {tuple(weights.shape)}, but there must be one for each of "
            f"{format_count(count, 'chip')}."
        )
    if not (torch.isfinite(weights).all() and (weights >= 0).all() and weights.sum() > 0):
        raise OptionError(
            "A sampling weight is negative or not finite, or all are 0. Use e.g. those of chip_weights()."
        )


def _check_rank(count: int, rank: int, world: int) -> None:
    if not 0 <= rank < world:
        raise OptionError(f"The rank is {rank}, but must be from 0 to {world - 1} (the world size is {world}).")
    if count < world:
        raise OptionError(
            f"{format_count(count, 'chip')} cannot be shared by {world} devices. Use fewer devices or more chips."
        )


def chip_weights(counts: NDArray[np.int64]) -> Tensor:
    """Return (chips,) float64 sampling weights: sqrt(chips / chips that hold the class) of a chip's rarest class.

    All are at least 1.

    Args:
        counts: (chips, classes) labelled pixels.

    Source: Gupta et al., "LVIS" (2019), section 4, repeat factor sampling with a threshold of 1.
    """
    holds = torch.from_numpy(counts > 0)
    share = holds.double().mean(dim=0).clamp_min(1 / max(len(counts), 1))
    return (holds * share.rsqrt()).amax(dim=1).clamp_min(1)
