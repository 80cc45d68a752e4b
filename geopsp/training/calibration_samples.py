"""What a calibration is fitted on: a sample of labelled pixels of validation chips, in bounded memory."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
import shapely
import torch
from numpy.typing import NDArray

from geopsp.chips.chip_set import ChipSet, class_pixels
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.progress import LOG_SECONDS, progress_bar
from geopsp.data.dataset import TiledChipDataset
from geopsp.data.loader import tile_loader
from geopsp.data.validation_sample import sample_tiles
from geopsp.errors import ChipError
from geopsp.models.device import autocast, pick_device
from geopsp.models.losses import ignore_channels
from geopsp.models.memory import memory_errors
from geopsp.models.network import mask_channels
from geopsp.models.saved_model import TrainedModel
from geopsp.training.evaluate import to_device
from geopsp.training.reliability import by_pixel

MAX_TILES = 128
"""Validation tiles that are shown to the network at most; more would take longer and change little."""

MAX_PIXELS, MAX_NUMBERS = 2**19, 2**24
"""Pixels of a sample at most, and those times classes."""

BATCH = 4
"""Tiles in a batch."""

BLOCKS_ACROSS = 4
"""About so many blocks of ground along each side go to the two halves in turn."""


class Classifier(Protocol):
    """A classifier, such as `PixelClassifier`."""

    model: TrainedModel
    device: str | None


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """Labelled pixels, and what the network makes of them."""

    probabilities: NDArray[np.float32]
    """(pixels, classes), without calibration; 0 for ignored channels."""

    labels: NDArray[np.int64]
    """(pixels,) channel indices."""

    second: NDArray[np.bool_]
    """(pixels,) True in the second of two halves of the chips."""

    folds: str
    """How these were made; see `Calibration.folds`."""

    chips: int


def draw_samples(
    classifier: Classifier, dataset: TiledChipDataset, *, seed: int, workers: int | None = None
) -> Samples:
    """Run the network on validation tiles, and draw pixels of them; each labelled pixel is as likely as another.

    Chips are drawn so that each class that occurs in the data is in one of them.

    Args:
        classifier: Trained.
        dataset: Validation tiles.
        seed: Another one draws other pixels.
        workers: Processes that read chips; None: as many as suit this machine.

    Raises:
        ChipError: if no pixel has a label that counts.
    """
    model, device = classifier.model, pick_device(classifier.device)
    ignored, rng = model.losses.ignored(model.legend), np.random.default_rng(seed)
    dataset = sample_tiles(dataset, MAX_TILES)
    total = int(class_pixels(dataset.chips.index.iloc[dataset.rows], dataset.chips.legend).sum())
    share = min(MAX_PIXELS, MAX_NUMBERS // len(model.legend)) / max(total, 1)
    halves, folds = halves_of(dataset.chips, dataset.rows)
    second_rows = torch.from_numpy(dataset.rows[halves])
    network, parts = model.network.to(device).eval(), list[tuple[NDArray[np.float32], ...]]()
    loader = tile_loader(dataset, BATCH, workers=workers)
    with memory_errors(), torch.inference_mode(), progress_bar("Calibrating", gap=LOG_SECONDS) as progress:
        for number, batch in enumerate(loader, 1):
            image, valid, label, row = to_device(batch, device)
            with autocast(device):
                logits = mask_channels(network(image, valid), ignored)
            labels = ignore_channels(label, ignored).flatten().cpu()
            second = torch.isin(row.cpu(), second_rows)[:, None].expand(len(row), label[0].numel()).flatten()
            known = torch.from_numpy(
                np.flatnonzero((labels != IGNORE_INDEX) & torch.from_numpy(rng.random(len(labels)) < share))
            )
            chances = by_pixel(logits)[known.to(device)].softmax(dim=1).cpu()
            parts.append((chances.numpy(), labels[known].numpy(), second[known].numpy()))
            progress(number, len(loader))
    network.cpu()
    probabilities, labels_, seconds = (np.concatenate(each) for each in zip(*parts, strict=True))
    if not len(labels_):
        raise ChipError("The chips have no labelled pixels to calibrate on. Choose other chips.")
    return Samples(probabilities, labels_.astype(np.int64), seconds.astype(bool), folds, len(dataset.rows))


def halves_of(chips: ChipSet, rows: NDArray[np.intp]) -> tuple[NDArray[np.bool_], str]:
    """Return True for the chips of the second half, and how they were halved: by "blocks", "chips", or "" if not.

    Blocks of ground go to the halves like the fields of a chessboard, so that neighbours mostly stay together. Chips
    without georeference are halved in their order, which is that of the images.
    """
    shapes = chips.index.geometry.to_numpy()[rows]
    if not (shapely.is_missing(shapes) | shapely.is_empty(shapes)).any():
        centres = shapely.get_coordinates(shapely.centroid(shapes))
        centres -= centres.min(axis=0)
        side = max(float(centres.max()) / BLOCKS_ACROSS, float(np.sqrt(shapely.area(shapes).mean())))
        second: NDArray[np.bool_] = np.floor(centres / side).sum(axis=1) % 2 == 1
        if second.any() and not second.all():
            return second, "blocks"
    second = np.arange(len(rows)) >= (len(rows) + 1) // 2
    return second, "chips" if second.any() else ""
