"""prepare_data: chips, their split into training and validation, and their loaders."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Unpack

import geopandas as gpd
import numpy as np
from numpy.typing import NDArray
from torch.utils.data import DataLoader
from torchvision.transforms import v2

from geopsp.chips.chip_set import ChipSet, class_pixels
from geopsp.chips.export_training_data import index_chips
from geopsp.chips.labelled_scenes import LabelledScenes
from geopsp.chips.options import ChipSpec, ImageChipOptions, check_options
from geopsp.core.bands import BandStats, Normalization
from geopsp.core.legend import Legend
from geopsp.core.progress import progress_bar
from geopsp.data.augment import default_transforms
from geopsp.data.cache import open_cache
from geopsp.data.dataset import ChipDataset, ChipFiles, ChipReader, Sample, TiledChipDataset, chip_statistics
from geopsp.data.loader import ChipLoaders, check_loader_options, chip_weights
from geopsp.data.scene_reader import SceneChipReader, safe_margin
from geopsp.data.split import Areas, Audit, split_chips
from geopsp.data.split_groups import SplitBy, as_list, check_split
from geopsp.errors import ChipError, OptionError
from geopsp.models.build import MIN_TILE
from geopsp.raster.find_images import Images
from geopsp.vector.open import open_layer

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
        """Plot augmented training chips with their labels."""
        from geopsp.training.plots import show_batch

        return show_batch(self.train_ds, seed=self.seed, rows=rows, alpha=alpha, rgb_bands=rgb_bands)

    def __repr__(self) -> str:
        batch = "as many as fit into memory" if self.batch_size is None else str(self.batch_size)
        return f"<{self.chips!r} used at {self.chip_size} x {self.chip_size} px, batch size {batch}: {self.audit}>"

    # names of earlier versions
    feed = loaders


def prepare_data(
    path: str | Path | Sequence[str | Path] | None = None,
    chip_size: int | None = None,
    val_split_pct: float = 0.2,
    batch_size: int | None = BATCH,
    *,
    images: Images | None = None,
    labels: str | Path | gpd.GeoDataFrame | None = None,
    seed: int = 42,
    transforms: v2.Transform | None = None,
    workers: int | None = None,
    balanced_sampling: bool = False,
    cache: Path | str | None = None,
    split: SplitBy = "blocks",
    block_size: float | None = None,
    gap: float | None = None,
    valid_path: Areas | None = None,
    folds: int | None = None,
    fold: int = 0,
    **cutting: Unpack[ImageChipOptions],
) -> TrainingData:
    """Chips, split by ground, with the training part's statistics; the audit is printed.

    They come from exported folders, or straight from images and labels: then the same chips are cut when they are
    asked for, and training windows are drawn anew in each epoch, up to half a chip off, but not into validation ground.

    Args:
        path: A chip folder, ours or one that ArcGIS exported, or a list of them that agree in classes and bands.
        chip_size: Side of what the network is shown, in pixels; None: the exported size, or 256.
        val_split_pct: Share of the labelled chips to validate on, 0 to 1. They are whole blocks of ground, with a
            gap of at least a chip around them that is used for neither.
        batch_size: Chips a training step; None: as many as fit.
        images: Instead of a path: a raster, a URL, a glob, a folder, a STAC file, {band: file}, or a list of these.
        labels: With images: vector data, a GeoDataFrame, or a raster of codes.
        seed: Of the split and the order of chips, and of chips that are cut at random.
        transforms: torchvision v2 transforms on (Image, Mask); None: symmetries, scale, brightness and contrast.
        workers: Processes that read chips; 0: none but this one; None: by device and cores.
        balanced_sampling: True draws chips with rare classes more often; an epoch has as many chips as before.
        cache: A folder to keep decoded chips in, for this run and later ones; None: chips are decoded at each reading.
        split: What goes to one side as a whole: "blocks" of ground, "source" images; "random" takes single chips.
        block_size: Side of a block in CRS units; None: several sizes are tried.
        gap: Least distance in CRS units between the parts; None: a chip's side for blocks and areas.
        valid_path: What to validate on instead: chip folders (with path), or layers of polygons, of which what touches
            them is taken; one or a list.
        folds: Number of folds of which one validates; None: one split.
        fold: Which of them, from 0.
        **cutting: With images, how chips are cut, as for `export_training_data`.

    Raises:
        InputNotFoundError, RasterError, GridError, BandError, LabelError, ChipError, OptionError, OutputError: as the
            input is.
    """
    chosen = _validation(split, valid_path, cut=images is not None or labels is not None)
    chosen |= {"share": val_split_pct, "seed": seed, "block_size": block_size, "gap": gap, "folds": folds, "fold": fold}
    check_split(**chosen)
    check_loader_options(batch_size=batch_size, workers=workers, seed=seed)
    if images is None and labels is None:
        _check_size(chip_size)
        chips, ground = _from_folders(path, chosen.get("folders", ()), cutting), None
        size = _check_size(chip_size, chips.tile_size)
    else:
        spec = ChipSpec.of({"tile_size": TILE if chip_size is None else chip_size, "seed": seed, **cutting})
        size = _check_size(chip_size, spec.tile_size)
        chips, ground = _from_images(path, images, labels, cache, spec, cutting)
    found = split_chips(chips, **chosen)
    logger.info(f"Split: {found.audit}")
    _require_classes(chips, found.audit)
    decoder: ChipReader
    if ground is not None:
        decoder = SceneChipReader(ground, chips, margin=safe_margin(chips, found.train, found.audit.gap))
    else:
        decoder = open_cache(chips, cache) if cache is not None else ChipFiles(chips)
    return TrainingData(
        chips,
        size,
        batch_size,
        seed,
        found.train,
        found.valid,
        found.audit,
        chip_statistics(chips, found.train, decoder),
        transforms or default_transforms(),
        workers,
        balanced_sampling,
        decoder,
    )


def _from_folders(
    path: str | Path | Sequence[str | Path] | None, more: Sequence[Path], cutting: Mapping[str, Any]
) -> ChipSet:
    """The chips of folders, those to validate on among them."""
    if path is None:
        raise OptionError("There is nothing to train on: needed a chip folder (path), or images and labels.")
    check_options(cutting)
    if cutting:
        raise OptionError(
            f"{', '.join(sorted(cutting))}: such options say how chips are cut from images, but those in {path} are "
            "cut already. Leave them out, or pass images= and labels= instead of a path."
        )
    folders = as_list(path)
    known = {Path(folder).resolve() for folder in folders}
    return ChipSet.open([*folders, *(folder for folder in more if folder.resolve() not in known)])


def _from_images(
    path: Any, images: Images | None, labels: Any, cache: Any, spec: ChipSpec, cutting: Mapping[str, Any]
) -> tuple[ChipSet, LabelledScenes]:
    """The chips that an export would write, and what to cut them from."""
    if path is not None:
        raise OptionError("Both a chip folder and images or labels are given. Choose path, or images and labels.")
    if images is None or labels is None:
        missing = "images" if images is None else "labels"
        raise OptionError(f"There are no {missing}; needed both, images= and labels=, or a chip folder (path).")
    if cache is not None:
        raise OptionError(
            "A cache holds chips of folders; windows of images change in each epoch. Leave cache out, or export the "
            "chips (export_training_data) and train from their folder."
        )
    ground = LabelledScenes.open(images, labels, **cutting)
    with progress_bar("Looking for chips") as progress:
        return index_chips(ground, spec, progress=progress), ground


def _check_size(chip_size: int | None, tile_size: int | None = None) -> int:
    """The side of what the network is shown, of chips of some size; None: that is not known yet.

    Raises:
        OptionError: if they do not fit.
    """
    size = chip_size if chip_size is not None else TILE if tile_size is None else tile_size
    if not isinstance(size, int | np.integer) or size < MIN_TILE or size > (tile_size or size):
        raise OptionError(
            f"chip_size is {size!r}; needed "
            + (f"{MIN_TILE} to {tile_size}, the size of the chips." if tile_size else f"at least {MIN_TILE} pixels.")
        )
    return int(size)


def _validation(split: SplitBy, valid_path: Areas | None, *, cut: bool) -> dict[str, Any]:
    """The options of a split that say what validates.

    Args:
        split: What goes to one side as a whole.
        valid_path: What validates, chip folders or layers of polygons; None: what is drawn.
        cut: True if chips are cut from images, so that there are no folders.

    Raises:
        InputNotFoundError, LabelError: if polygons cannot be opened.
        OptionError: if these do not fit together.
    """
    if valid_path is None:
        if split in {"folder", "areas"}:
            raise OptionError(f"split is {split!r} and there is no valid_path. Name there what validates; leave split.")
        return {"by": split}
    if split != "blocks":
        raise OptionError(f"split is {split!r}, but valid_path says what validates. Leave one of them out.")
    if not isinstance(valid_path, str | Path | gpd.GeoDataFrame | Sequence) or not (parts := as_list(valid_path)):
        raise OptionError(f"valid_path is {valid_path!r}; needed chip folders, or layers of polygons.")
    folders = [part for part in parts if _is_folder(part)]
    if not folders:
        for part in parts:
            open_layer(part)
        return {"by": "areas", "areas": parts}
    if len(folders) < len(parts):
        raise OptionError(f"valid_path names both chip folders ({folders[0]}) and polygons. Choose one kind.")
    if cut:
        raise OptionError(
            f"valid_path names the folder {folders[0]}, but the chips are cut from images. Name polygons, or train "
            "from chip folders (path) too."
        )
    return {"by": "folder", "folders": [Path(folder) for folder in folders]}


def _is_folder(part: Any) -> bool:
    """True for a folder that is no geodatabase."""
    if isinstance(part, gpd.GeoDataFrame):
        return False
    if not isinstance(part, str | Path):
        raise OptionError(f"valid_path names {part!r}; needed a chip folder, or a layer of polygons.")
    return Path(part).is_dir() and Path(part).suffix.lower() != ".gdb"


def _require_classes(chips: ChipSet, audit: Audit) -> None:
    if len(chips.legend) < 2:
        raise ChipError(
            f"The chips hold one class only, {chips.legend.names[0]!r}; needed two. Export with background='class'."
        )
    if audit.missing_in_train:
        logger.warning(f"no training pixel is {', '.join(audit.missing_in_train)}; the model cannot learn that.")
