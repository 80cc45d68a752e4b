"""prepare_data: chips, their split into training and validation, and their loaders."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from geopsp.chips.chip_set import ChipSet, class_pixels, class_rows
from geopsp.chips.chip_warnings import log_chip_warnings
from geopsp.chips.export_training_data import index_chips
from geopsp.chips.labelled_scenes import LabelledScenes, Labels
from geopsp.chips.options import CUTTING, AreaRule, Background, ChipSpec, changed_options
from geopsp.core.addresses import place_of
from geopsp.core.bands import BandStats, Normalization
from geopsp.core.calls import call_text
from geopsp.core.escape import printable
from geopsp.core.legend import Legend
from geopsp.core.notebook_html import Cell, html_block, html_facts, html_table
from geopsp.core.options import describes, from_names, only_apply, option_fields, require_path
from geopsp.core.progress import progress_bar
from geopsp.core.warnings_log import collect_warnings
from geopsp.data.augment import default_transforms, make_transforms
from geopsp.data.cache import open_cache
from geopsp.data.chip_memory import keep_in_memory
from geopsp.data.chip_statistics import chip_statistics
from geopsp.data.dataset import ChipDataset, ChipFiles, ChipReader, Sample, TiledChipDataset
from geopsp.data.loader import ChipLoaders, chip_weights
from geopsp.data.scene_reader import SceneChipReader, safe_margin
from geopsp.data.split import split_chips
from geopsp.data.split_audit import Audit
from geopsp.data.split_groups import SplitBy, check_split
from geopsp.errors import OptionError
from geopsp.raster.find_images import Images
from geopsp.training.options import MIN_CHIP_SIZE, DataOptions
from geopsp.training.validation_part import require_classes, validation_part

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BATCH = 8
"""Chips per training step, if `batch_size` is not given or still open."""


TILE = 256
"""Side in pixels of chips that are cut from images, if `chip_size` is not given."""


@dataclass(slots=True, eq=False)
class TrainingData:
    """Training and validation chips with their loaders, from `prepare_data`."""

    chips: ChipSet
    chip_size: int
    batch_size: int | None
    """Chips per training step; None: chosen for the free memory once the network is known."""

    seed: int
    train_rows: NDArray[np.intp]
    valid_rows: NDArray[np.intp]
    audit: Audit
    statistics: BandStats
    """Statistics of the training chips' valid pixels, by which images are normalised."""

    transforms: v2.Transform = field(default_factory=default_transforms)
    workers: int | None = None
    """Processes that read chips; 0: this process; None: chosen by device and CPU cores."""

    balanced_sampling: bool = False
    """True draws chips with rare classes more often."""

    decoder: ChipReader | None = None
    """Reader of the chips' pixels; None: the chips' files."""

    warnings: tuple[str, ...] = ()
    """What was warned of when the chips were cut or opened, and split; models keep it."""

    call: str = ""
    """The code that made it."""

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
        """Labelled pixels of each class in the training chips."""
        counts = class_pixels(self.chips.index.iloc[self.train_rows], self.legend).sum(axis=0)
        return dict(zip(self.classes, counts.tolist(), strict=True))

    @property
    def train_ds(self) -> ChipDataset:
        return ChipDataset(
            self.chips,
            self.train_rows,
            Normalization.from_stats(self.statistics),
            size=self.chip_size,
            transform=self.transforms,
            reader=self.decoder,
        )

    @property
    def valid_ds(self) -> TiledChipDataset:
        normalization = Normalization.from_stats(self.statistics)
        return TiledChipDataset(self.chips, self.valid_rows, normalization, size=self.chip_size, reader=self.decoder)

    @property
    def loaders(self) -> ChipLoaders:
        """Loaders of the training and validation chips; batches of 8 while `batch_size` is None."""
        weights = None
        if self.balanced_sampling:
            weights = chip_weights(class_pixels(self.chips.index.iloc[self.train_rows], self.legend))
        return ChipLoaders(self.train_ds, self.valid_ds, self.batch_size or BATCH, self.seed, self.workers, weights)

    @property
    def train_dl(self) -> DataLoader[Sample]:
        return self.loaders.train_loader()

    @property
    def valid_dl(self) -> DataLoader[Sample]:
        return self.loaders.val_loader()

    def show_batch(self, rows: int = 3, *, alpha: float = 0.5, rgb_bands: Sequence[str | int] | None = None) -> Figure:
        """Plot augmented training chips with their labels; all images are stretched alike."""
        from geopsp.training.plots import show_batch

        return show_batch(
            self.train_ds, self.statistics, seed=self.seed, rows=rows, alpha=alpha, rgb_bands=rgb_bands
        )  # fmt: skip

    def __repr__(self) -> str:
        batch = "as many as fit into memory" if self.batch_size is None else str(self.batch_size)
        size = f"{self.chip_size} x {self.chip_size} px"
        return printable(f"<{self.chips!r} used at {size}, batch size {batch}: {self.audit}>")

    def _repr_html_(self) -> str:
        chips, batch = self.chips, "as fits into memory" if self.batch_size is None else str(self.batch_size)
        facts = {
            "chips": f"{len(chips):,} of {chips.tile_size} x {chips.tile_size} pixels, used at {self.chip_size}",
            "batch size": batch,
            "bands": ", ".join(chips.bands),
            "split": str(self.audit),
        }
        parts = [class_rows(chips, rows) for rows in (self.train_rows, self.valid_rows)]
        cells = [[f"{row['share']:.1%} in {row['chips']:,}" for row in rows] for rows in zip(*parts, strict=True)]
        rows: list[list[Cell]] = [[info, *texts] for info, texts in zip(self.legend, cells, strict=True)]
        table = html_table(["class", "training pixels, chips", "validation pixels, chips"], rows)
        return html_block(type(self).__name__, html_facts(facts), table)

    # names of earlier versions
    feed = loaders


@describes(*CUTTING, DataOptions)
def prepare_data(
    path: str | Path | Sequence[str | Path] | None = None, chip_size: int | None = None, val_split_pct: float = 0.2,
    batch_size: int | None = 8, *, images: Images | None = None, labels: Labels | None = None,
    class_field: str | None = None, background: Background = "class", all_touched: bool = False,
    priority: Sequence[str] | None = None, priority_field: str | None = None, where: str | None = None,
    class_mapping: Mapping[Any, Any] | str | Path | None = None, buffer: float = 0.0,
    label_nodata: int | str | None = None, mask_classes: Mapping[Any, Any] | str | Path | None = None,
    aoi: str | Path | gpd.GeoDataFrame | None = None, aoi_rule: AreaRule = "mask",
    bands: Sequence[str | int] | None = None, per_image: bool = True, order: str = "given",
    cell_size: float | None = None, extent: Sequence[float] | None = None, scaled: bool | None = None,
    tile_size: int | None = None, stride: int | None = None, rotation_angle: float = 0.0, min_labelled: float = 0.0,
    min_valid: float = 0.0, skip_empty: bool = False, grid: bool = True, random_chips: int = 0, seed: int = 42,
    augmentation: str = "light", transforms: v2.Transform | None = None, workers: int | None = None,
    balanced_sampling: bool = False, cache: str | Path | None = None, split: SplitBy = "blocks",
    block_size: float | None = None, gap: float | None = None,
    valid_path: str | Path | gpd.GeoDataFrame | Sequence[str | Path | gpd.GeoDataFrame] | None = None,
    folds: int | None = None, fold: int = 0,
) -> TrainingData:  # fmt: skip
    """Split chips into training and validation, by blocks of the ground, and compute the training statistics.

    Chips come from exported folders (`path`), or straight from `images` and `labels`: then the same chips are cut when
    they are needed, and training windows are drawn anew in each epoch, up to half a chip off, but never into
    validation ground. The audit of the split is logged.

    Args:
        path: A chip folder, ours or one that ArcGIS exported, or a list of them with equal classes and bands.
        images: Instead of `path`: a raster, a URL, a glob, a folder, a STAC file, {band: file}, or a list of these.
        labels: With `images`: vector data, a GeoDataFrame, a raster of class codes, or masks: a folder, glob or list of
            label rasters, each of the image with its name.
        {options}

    Options from `class_field` to `random_chips` say how chips are cut, as in `export_training_data`; they apply only
    with `images`.

    Raises:
        InputNotFoundError, RasterError, GridError, BandError, LabelError, ChipError, OptionError, OutputError: as the
            input is.
    """
    given = dict(locals())
    chosen = validation_part(split, valid_path, cut=images is not None or labels is not None)
    options = from_names(DataOptions, given)
    if transforms is not None and not callable(transforms):
        raise OptionError(f"`transforms` is {transforms!r}, but must be torchvision v2 transforms, or None.")
    chosen |= {"share": val_split_pct, "seed": seed, "block_size": block_size, "gap": gap, "folds": folds, "fold": fold}
    check_split(**chosen)
    with collect_warnings() as warnings:
        if images is None and labels is None:
            chips, inputs = _from_folders(path, chosen.get("folders", ()), given), None
            log_chip_warnings(chips)
        else:
            chips, inputs = _from_images(given)
        data = _split(chips, inputs, options, chosen)
    return replace(data, warnings=tuple(warnings), call=call_text("data = prepare_data", prepare_data, given))


def _split(
    chips: ChipSet, inputs: LabelledScenes | None, options: DataOptions, chosen: Mapping[str, Any]
) -> TrainingData:
    """Split the chips, and compute the statistics of the training chips.

    Args:
        chips: All chips.
        inputs: What they are cut from; None: they are read from their folders.
        options: As the user gave them.
        chosen: Arguments of `split_chips`.
    """
    size = _check_size(options.chip_size, chips.tile_size)
    found = split_chips(chips, **chosen)
    logger.info(f"Split: {found.audit}")
    require_classes(chips, found.audit)
    decoder: ChipReader
    if inputs is not None:
        decoder = SceneChipReader(inputs, chips, margin=safe_margin(chips, found.train, found.audit.gap))
    else:
        decoder = open_cache(chips, options.cache) if options.cache is not None else keep_in_memory(ChipFiles(chips))
    return TrainingData(
        chips,
        size,
        options.batch_size,
        options.seed,
        found.train,
        found.valid,
        found.audit,
        chip_statistics(chips, found.train, decoder),
        options.transforms or make_transforms(options.augmentation),
        options.workers,
        options.balanced_sampling,
        decoder,
    )


def _from_folders(
    path: str | Path | Sequence[str | Path] | None, more: Sequence[Path], given: Mapping[str, Any]
) -> ChipSet:
    """The chips of folders, those to validate on among them."""
    if path is None:
        raise OptionError("There is nothing to train on. Give a chip folder (`path`), or `images` and `labels`.")
    if cutting := sorted(set(changed_options(given)) - {"seed"}):
        raise OptionError(
            f"{only_apply(cutting)} to chips that are cut from images, but those in {path} are cut already. Leave out "
            "such options, or give `images` and `labels` instead of a chip folder."
        )
    folders = [path] if isinstance(path, str | Path) or not isinstance(path, Iterable) else list(path)
    for folder in folders:
        require_path("path", folder)
    known = set(map(place_of, folders))
    return ChipSet.open([*folders, *(folder for folder in more if place_of(folder) not in known)])


def _from_images(given: Mapping[str, Any]) -> tuple[ChipSet, LabelledScenes]:
    """Return the chips that an export would write, and what to cut them from; `given` are the arguments by name."""
    images, labels = given["images"], given["labels"]
    tile_size = given["tile_size"] or given["chip_size"] or TILE
    cutting = {name: given[name] for name in option_fields(*CUTTING)} | {"tile_size": tile_size}
    spec = from_names(ChipSpec, cutting)
    _check_size(given["chip_size"], spec.tile_size)
    if given["path"] is not None:
        raise OptionError("Both a chip folder and images or labels are given. Give `path`, or `images` and `labels`.")
    if images is None or labels is None:
        missing = "images" if images is None else "labels"
        raise OptionError(f"`{missing}` are missing. Give both `images` and `labels`, or a chip folder (`path`).")
    if given["cache"] is not None:
        raise OptionError(
            "A cache holds chips of folders, but chips cut from images change in each epoch. Leave out `cache`, or "
            "export the chips and train from their folder."
        )
    inputs = LabelledScenes.open(images, labels, **cutting)
    with progress_bar("Looking for chips") as progress:
        return index_chips(inputs, spec, progress=progress), inputs


def _check_size(chip_size: int | None, tile_size: int) -> int:
    """Return the size of the training crops.

    Raises:
        OptionError: if it is not between the least that a network takes and the size of the chips.
    """
    size = tile_size if chip_size is None else chip_size
    if not MIN_CHIP_SIZE <= size <= tile_size:
        raise OptionError(
            f"`chip_size` is {size}, but must be between {MIN_CHIP_SIZE} and {tile_size} (the size of the chips)."
        )
    return int(size)
