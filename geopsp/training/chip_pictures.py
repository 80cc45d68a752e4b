"""Pictures of chips: image, labels, prediction and errors, with the place where they lie."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal

import numpy as np
import pyproj
from numpy.typing import NDArray

from geopsp.chips.chip_set import ChipSet
from geopsp.core.bands import BandStats
from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.pictures import jpeg_of_colors, png_of_classes, png_of_indices, stretch
from geopsp.data.dataset import TiledChipDataset
from geopsp.models.saved_model import TrainedModel
from geopsp.models.spectral_bands import rgb_bands
from geopsp.models.training_record import ChipPicture
from geopsp.training.chip_counts import ChipScore
from geopsp.training.chip_predictions import predict_whole_chips

SIDE = 256
"""Of a picture at most, in pixels."""

DEVIATIONS = 2.2
"""Standard deviations around the mean of training pixels between black and white."""

RIGHT, WRONG = (214, 217, 222), (200, 30, 45)
"""Colours of pixels in the picture of errors."""

Kind = Literal["worst", "best"]


def chip_pictures(
    model: TrainedModel, dataset: TiledChipDataset, scores: Sequence[tuple[Kind, ChipScore]], *, device: str | None
) -> list[ChipPicture]:
    """Return pictures of chips of a dataset, in the order of the scores."""
    if not scores:
        return []
    rows = np.array([score.row for _, score in scores], np.intp)
    chosen = TiledChipDataset(dataset.chips, rows, dataset.normalization, size=dataset.size, reader=dataset.reader)
    stats = model.statistics_for(dataset.chips.pixel_values)
    found = predict_whole_chips(model, chosen, device)
    ignored = model.losses.ignored(model.legend)
    pictures = []
    for (kind, score), chip in zip(scores, found, strict=True):
        raw = dataset.reader.read(score.row, 0, 0, dataset.chips.tile_size)
        labels = np.where(np.isin(chip.labels, ignored), IGNORE_INDEX, chip.labels).astype(np.uint8)
        predicted = np.where(raw.valid, chip.predicted, IGNORE_INDEX).astype(np.uint8)
        name, place, point = _place(dataset.chips, score.row)
        pictures.append(
            ChipPicture(
                kind=kind, name=name, place=place, longitude=point[0], latitude=point[1], miou=score.miou,
                accuracy=score.accuracy, image=_image(raw.data, raw.valid, stats, dataset.chips.bands),
                truth=png_of_classes(_small(labels), model.legend),
                found=png_of_classes(_small(predicted), model.legend),
                errors=_errors(labels, predicted),
            )
        )  # fmt: skip
    return pictures


def _small(array: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return every n-th pixel, at most `SIDE` in each direction."""
    step = -(-max(array.shape[:2]) // SIDE)
    return array[step // 2 :: step, step // 2 :: step]


def _image(data: NDArray[np.generic], valid: NDArray[np.bool_], stats: BandStats, bands: Sequence[str]) -> str:
    """Return a JPEG of three bands, all chips stretched alike; white where invalid."""
    shown = list(rgb_bands(bands))
    low = np.maximum(stats.low, stats.mean - DEVIATIONS * stats.std)[shown]
    high = np.minimum(stats.high, stats.mean + DEVIATIONS * stats.std)[shown]
    colors = stretch(np.where(valid, data[shown], 0).astype(np.float32), low.tolist(), high.tolist())
    return jpeg_of_colors(_small(np.where(valid[..., None], colors, 255).astype(np.uint8)))


def _errors(labels: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> str:
    """Return a PNG of right and wrong pixels; clear where unlabelled."""
    wrong = np.where(labels == IGNORE_INDEX, IGNORE_INDEX, labels != predicted).astype(np.uint8)
    return png_of_indices(_small(wrong), (RIGHT, WRONG))


def _place(chips: ChipSet, row: int) -> tuple[str, str, tuple[float | None, float | None]]:
    """Return name, place in words, and longitude and latitude of the middle of a chip."""
    entry = chips.index.iloc[row]
    name = str(entry["image"]).replace("\\", "/").rpartition("/")[2] if "image" in chips.index else f"chip {row}"
    source = str(entry["source"]).replace("\\", "/").rpartition("/")[2]
    place = f"{source}, column {int(entry['col'])}, row {int(entry['row'])}" if "col" in chips.index else ""
    shape = entry["geometry"]
    if chips.index.crs is None or shape is None or shape.is_empty:
        return name, place, (None, None)
    to_degrees = pyproj.Transformer.from_crs(chips.index.crs, 4326, always_xy=True)
    longitude, latitude = to_degrees.transform(shape.centroid.x, shape.centroid.y)
    if not (np.isfinite(longitude) and np.isfinite(latitude)):
        return name, place, (None, None)
    return name, place, (round(float(longitude), 6), round(float(latitude), 6))
