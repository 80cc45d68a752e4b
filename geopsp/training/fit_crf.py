"""The parameters of the CRF that suit a model, from a small grid, by its scores on the validation chips."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from geopsp.core.parallel import cpu_count
from geopsp.core.progress import LOG_SECONDS, progress_bar
from geopsp.errors import ChipError, OptionError
from geopsp.models.crf import SETTING, CRFParameters
from geopsp.models.device import autocast, pick_device
from geopsp.models.losses import ignore_channels
from geopsp.models.mean_field_torch import mean_field
from geopsp.models.memory import memory_errors
from geopsp.models.network import mask_channels
from geopsp.models.saved_model import TrainedModel
from geopsp.training.evaluate import to_device
from geopsp.training.learned_pixels import require_scores
from geopsp.training.metrics import Confusion, boundary_counts, boundary_width, count_pairs
from geopsp.training.training_data import TrainingData

logger = logging.getLogger(__name__)

GRID: Mapping[str, tuple[float, ...]] = {
    "color_sigma": (0.1, 0.2, 0.3, 0.5, 1.0),
    "appearance_weight": (1.0, 2.0, 4.0, 8.0),
    "appearance_sigma": (2.0, 4.0, 8.0),
    "smoothness_weight": (0.0, 1.0, 3.0),
}
"""Values that are tried, one parameter after the other, each with the best of the others so far."""

MAX_PIXELS = 2**21
"""Pixels of validation tiles that are scored at most; of more, tiles evenly spread are taken."""


class Classifier(Protocol):
    """A classifier with data, such as `PixelClassifier`."""

    model: TrainedModel
    data: TrainingData | None
    device: str | None


@dataclass(frozen=True, slots=True, eq=False)
class _Tiles:
    """What the network makes of validation tiles, on its device."""

    probabilities: list[Tensor]
    """(classes, h, w) float32 of each tile."""

    images: list[Tensor]
    """(bands, h, w) float32, normalised."""

    valid: list[Tensor]
    """(h, w) bool"""

    labels: list[Tensor]
    """(h, w) int64 channel indices, or IGNORE_INDEX."""


def fit_crf(classifier: Classifier, *, max_pixels: int = MAX_PIXELS) -> dict[str, Any]:
    """Find the CRF's parameters for a model, by the sum of mean IoU and mean boundary IoU on its validation chips.

    `classify_pixels(..., crf=True)` uses them from then on; they are saved with the model.

    Args:
        classifier: Trained, with data.
        max_pixels: Pixels of validation tiles that are scored at most.

    Returns:
        The parameters, and the scores `without` and `with` the CRF: miou, boundary_miou.

    Raises:
        ChipError: if the classifier has no data.
        OptionError: if `max_pixels` is below 1.
    """
    if max_pixels < 1:
        raise OptionError(f"`max_pixels` is {max_pixels}, but must be at least 1.")
    if classifier.data is None:
        raise ChipError(
            "fit_crf needs validation chips, but the model was loaded without data. Use "
            "PixelClassifier.from_model(path, data=prepare_data(...))."
        )
    tiles = _predict(classifier, classifier.data, max_pixels)
    model, tried = classifier.model, dict[CRFParameters, Confusion]()
    without = _score(model, tiles, None)
    with progress_bar("Fitting the CRF", gap=LOG_SECONDS, unit="settings") as progress:
        total, best = sum(map(len, GRID.values())), CRFParameters()
        for name, values in GRID.items():
            for value in (*values, getattr(best, name)):
                candidate = replace(best, **{name: value})
                if candidate not in tried:
                    tried[candidate] = _score(model, tiles, candidate)
                progress(min(len(tried), total), total)
            best = max(tried, key=lambda each: _worth(tried[each]))
        progress(total, total)
    found = {**best.to_json(), "without": _scores(without), "with": _scores(tried[best])}
    _report(without, tried[best])
    model.settings[SETTING] = found
    return found


def _predict(classifier: Classifier, data: TrainingData, max_pixels: int) -> _Tiles:
    """Run the network on validation tiles."""
    model, dataset = classifier.model, data.valid_ds
    device, ignored = pick_device(classifier.device), model.losses.ignored(model.legend)
    count = min(len(dataset), max(1, max_pixels // model.tile_size**2))
    network, tiles = model.network.to(device).eval(), _Tiles([], [], [], [])
    with memory_errors(), torch.inference_mode():
        for number in np.linspace(0, len(dataset) - 1, count).round().astype(int):
            image, valid, label, _ = to_device(type(dataset[0])(*(part[None] for part in dataset[int(number)])), device)
            with autocast(device):
                logits = network(image, valid)
            tiles.probabilities.append(mask_channels(logits.float(), ignored).softmax(dim=1)[0])
            tiles.images.append(image[0])
            tiles.valid.append(valid[0, 0] > 0)
            tiles.labels.append(ignore_channels(label, ignored)[0])
    network.cpu()
    return tiles


def _score(model: TrainedModel, tiles: _Tiles, crf: CRFParameters | None) -> Confusion:
    """Return the confusion matrix of the tiles after a CRF; None: without."""
    ignored, size = model.losses.ignored(model.legend), len(model.legend)

    @torch.inference_mode()
    def count(number: int) -> tuple[Tensor, Tensor]:
        probabilities, label = tiles.probabilities[number], tiles.labels[number]
        if crf is not None:
            image, valid = tiles.images[number], tiles.valid[number]
            probabilities = mean_field(probabilities, image, valid, crf, excluded=ignored)
        predicted, width = probabilities.argmax(dim=0), boundary_width(label.shape[-1])
        return count_pairs(label, predicted, size), boundary_counts(label[None], predicted[None], size, width)

    numbers: Sequence[int] = range(len(tiles.labels))
    threads = cpu_count() if tiles.labels[0].device.type == "cpu" else 1
    with ThreadPoolExecutor(threads) as pool:
        pairs, boundaries = zip(*pool.map(count, numbers), strict=True)
    found = Confusion(model.legend, sum(pairs).cpu().numpy(), sum(boundaries).cpu().numpy())
    return require_scores(found, model.losses)


def _worth(scores: Confusion) -> float:
    return float(np.nan_to_num(scores.mean_iou()) + np.nan_to_num(scores.mean_boundary_iou()))


def _scores(scores: Confusion) -> dict[str, float | None]:
    found = {"miou": scores.mean_iou(), "boundary_miou": scores.mean_boundary_iou()}
    return {name: value if np.isfinite(value) else None for name, value in found.items()}


def _report(without: Confusion, best: Confusion) -> None:
    """Say what the CRF is worth; warn if it is worth nothing."""
    change = ", ".join(
        f"{name} {before:.3f} to {after:.3f}"
        for name, before, after in (
            ("mIoU", without.mean_iou(), best.mean_iou()),
            ("boundary IoU", without.mean_boundary_iou(), best.mean_boundary_iou()),
        )
    )
    logger.info(f"The CRF changes the scores on the validation chips: {change}.")
    if _worth(best) <= _worth(without):
        logger.warning(f"No CRF raises the scores on the validation chips ({change}). Make maps without `crf`.")
