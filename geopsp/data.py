"""Training data as the notebook sees it: chips, their split, and loaders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from geopsp.augment import standard
from geopsp.cache import cached
from geopsp.chipset import ChipSet, class_pixels
from geopsp.dataset import ChipDataset, ChipFiles, Decoder, Normalization, Sample, WholeChipDataset, statistics_of
from geopsp.errors import ChipError, OptionError
from geopsp.legend import Legend
from geopsp.loading import Feed, check_feed, chip_weights
from geopsp.models.build import MIN_TILE
from geopsp.progress import say
from geopsp.split import Audit, split_chips
from geopsp.stats import BandStats

if TYPE_CHECKING:
    from matplotlib.figure import Figure


BATCH = 8


@dataclass(slots=True, eq=False)
class TrainingData:
    """Chips, split and ready to train on; made by `prepare_data`."""

    chips: ChipSet
    chip_size: int
    batch_size: int | None
    """Chips a training step; None: as many as fit, found when the network is known."""

    seed: int
    train_rows: NDArray[np.intp]
    valid_rows: NDArray[np.intp]
    audit: Audit
    statistics: BandStats
    """Of the training chips' valid pixels; what images are normalised with."""

    transforms: v2.Transform = field(default_factory=standard)
    workers: int | None = None
    """Processes that read chips; 0: none but this one; None: by device and cores."""

    balanced_sampling: bool = False
    """True draws chips with rare classes more often."""

    decoder: Decoder | None = None
    """Where pixels come from; None: the chips' files."""

    @property
    def legend(self) -> Legend:
        return self.chips.legend

    @property
    def classes(self) -> list[str]:
        return self.legend.names

    @property
    def c(self) -> int:
        """Number of classes."""
        return len(self.legend)

    @property
    def class_mapping(self) -> dict[int, str]:
        return {info.code: info.name for info in self.legend}

    @property
    def color_mapping(self) -> dict[int, tuple[int, int, int]]:
        return {info.code: info.rgb for info in self.legend}

    @property
    def num_pixels_per_class(self) -> dict[str, int]:
        """Of the training chips."""
        counts = class_pixels(self.chips.index.iloc[self.train_rows], self.legend).sum(axis=0)
        return dict(zip(self.classes, counts.tolist(), strict=True))

    @property
    def train_ds(self) -> ChipDataset:
        return ChipDataset(
            self.chips,
            self.train_rows,
            Normalization.of(self.statistics),
            size=self.chip_size,
            transform=self.transforms,
            decoder=self.decoder,
        )

    @property
    def valid_ds(self) -> WholeChipDataset:
        normalization = Normalization.of(self.statistics)
        return WholeChipDataset(self.chips, self.valid_rows, normalization, size=self.chip_size, decoder=self.decoder)

    @property
    def feed(self) -> Feed:
        """Both parts with how they are drawn; batches of 8 while the batch size is open."""
        weights = None
        if self.balanced_sampling:
            weights = chip_weights(class_pixels(self.chips.index.iloc[self.train_rows], self.legend))
        return Feed(self.train_ds, self.valid_ds, self.batch_size or BATCH, self.seed, self.workers, weights)

    @property
    def train_dl(self) -> DataLoader[Sample]:
        return self.feed.training()

    @property
    def valid_dl(self) -> DataLoader[Sample]:
        return self.feed.validation()

    def show_batch(self, rows: int = 3, *, alpha: float = 0.5, rgb_bands: Sequence[str | int] | None = None) -> Figure:
        """A picture of training chips as the network sees them, with their labels."""
        from geopsp.plotting import show_batch

        return show_batch(self.train_ds, seed=self.seed, rows=rows, alpha=alpha, rgb_bands=rgb_bands)

    def __repr__(self) -> str:
        batches = f"batches of {self.batch_size or 'as many as fit'}"
        return f"<{self.chips!r} shown as {self.chip_size} x {self.chip_size}, {batches}: {self.audit}>"


def prepare_data(
    path: str | Path | Sequence[str | Path],
    chip_size: int | None = None,
    val_split_pct: float = 0.2,
    batch_size: int | None = BATCH,
    *,
    seed: int = 42,
    transforms: v2.Transform | None = None,
    workers: int | None = None,
    balanced_sampling: bool = False,
    cache: Path | str | None = None,
) -> TrainingData:
    """Chips of one export or several, split by ground, with the training part's statistics; the audit is printed.

    Args:
        path: A chip folder, or a list of them that agree in classes and bands.
        chip_size: Side of what the network is shown, in pixels; None: the exported size.
        val_split_pct: Share of the labelled chips to validate on, 0 to 1. They are whole blocks of ground, with a
            gap of at least a chip around them that is used for neither.
        batch_size: Chips a training step; None: as many as fit.
        seed: Of the split and the order of chips.
        transforms: torchvision v2 transforms on (Image, Mask); None: symmetries, scale, brightness and contrast.
        workers: Processes that read chips; 0: none but this one; None: by device and cores.
        balanced_sampling: True draws chips with rare classes more often; an epoch has as many chips as before.
        cache: A folder to keep decoded chips in, for this run and later ones; None: chips are decoded at each reading.

    Raises:
        InputNotFoundError, ChipError, OptionError, OutputError: as the input is.
    """
    check_feed(batch_size=batch_size, workers=workers, seed=seed)
    chips = ChipSet.open(path)
    size = chips.tile_size if chip_size is None else chip_size
    if not MIN_TILE <= size <= chips.tile_size:
        raise OptionError(f"chip_size is {size}; needed {MIN_TILE} to {chips.tile_size}, the exported size.")
    split = split_chips(chips, share=val_split_pct, seed=seed)
    say(f"Split: {split.audit}")
    if len(chips.legend) < 2:
        raise ChipError(
            f"The chips hold one class only, {chips.legend.names[0]!r}; needed two. Export with background='class'."
        )
    if split.audit.missing_in_train:
        say(f"Warning: no training pixel is {', '.join(split.audit.missing_in_train)}; the model cannot learn that.")
    decoder = cached(chips, cache) if cache is not None else ChipFiles(chips)
    return TrainingData(
        chips,
        size,
        batch_size,
        seed,
        split.train,
        split.valid,
        split.audit,
        statistics_of(chips, split.train, decoder),
        transforms or standard(),
        workers,
        balanced_sampling,
        decoder,
    )
