"""Figure of validation chips beside what a model finds there."""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.options import require_choice
from geopsp.core.progress import LOG_SECONDS, progress_bar
from geopsp.data.dataset import TiledChipDataset
from geopsp.models.saved_model import TrainedModel
from geopsp.training.chip_predictions import ChipPrediction, predict_dataset
from geopsp.training.plots import (
    add_legend,
    check_figure,
    chip_names,
    class_entries,
    colorize,
    common_limits,
    draw_panel,
    plain_text,
    rgb_band_indices,
    subplots,
    to_rgb,
)

Which = Literal["random", "worst"]
"""Chips of a figure."""

ERROR, UNLABELLED = (214, 39, 40), (255, 255, 255)
"""Colours of pixels that are predicted wrongly, and of those without a label."""


@plain_text()
def show_results(
    model: TrainedModel, dataset: TiledChipDataset, *, seed: int, rows: int, alpha: float,
    rgb_bands: Sequence[str | int] | None, which: Which, device: str | None,
) -> Figure:  # fmt: skip
    """Draw validation chips, the worst first: image, ground truth, prediction and errors, all stretched alike.

    Args:
        model: The model.
        dataset: The validation chips, normalised by the statistics of the model.
        seed: Of the random choice.
        rows: Chips to show.
        alpha: Opacity of the classes over the image.
        rgb_bands: Bands to show as red, green and blue; None: those of these names, or the first three.
        which: "random": some chips; "worst": those with most errors, for which all are predicted.
        device: As torch names it; None: the first GPU, else the CPU.
    """
    check_figure(rows, alpha)
    require_choice("which", which, ("random", "worst"))
    bands = rgb_band_indices(model.bands, rgb_bands)
    names, norm = chip_names(dataset.chips), dataset.normalization
    limits = common_limits(model.statistics_for(dataset.chips.pixel_values))
    found = _worst_first(model, dataset, seed=seed, rows=rows, which=which, device=device)
    figure, axes = subplots(len(found), 4, 11, 2.8 * len(found) + 0.6)
    for panels, chip in zip(axes, found, strict=True):
        raw = dataset.reader.read(chip.row, 0, 0, dataset.chips.tile_size)
        rgb = to_rgb(norm(raw.data, raw.valid), raw.valid, bands, limits)
        predicted = np.where(raw.valid, chip.predicted, IGNORE_INDEX).astype(np.uint8)
        draw_panel(panels[0], names[chip.row], rgb)
        draw_panel(panels[1], "ground truth", rgb, colorize(chip.labels, model.legend), alpha=alpha)
        draw_panel(panels[2], "prediction", rgb, colorize(predicted, model.legend), alpha=alpha)
        draw_panel(panels[3], f"errors: {error_share(chip):.1%}", error_image(rgb, chip))
    swatches = {"error": ERROR, "no label": UNLABELLED}
    add_legend(figure, [*class_entries(model.legend), *((name, "#" + bytes(c).hex()) for name, c in swatches.items())])
    return figure


def _worst_first(
    model: TrainedModel, dataset: TiledChipDataset, *, seed: int, rows: int, which: Which, device: str | None
) -> list[ChipPrediction]:
    """Return predictions of chips, those with most errors first."""
    chosen = dataset.rows
    if which == "random":
        chosen = np.random.default_rng(seed).permutation(chosen)[:rows]
    some = TiledChipDataset(
        dataset.chips, chosen, dataset.normalization, size=dataset.size, reader=dataset.reader
    )  # fmt: skip
    return heapq.nlargest(rows, _predict(model, some, device), key=error_share)


def _predict(model: TrainedModel, dataset: TiledChipDataset, device: str | None) -> Iterator[ChipPrediction]:
    with progress_bar("Predicting", gap=LOG_SECONDS, unit="chips") as progress:
        for done, chip in enumerate(predict_dataset(model, dataset, device), 1):
            progress(done, len(dataset.rows))
            yield chip


def error_share(chip: ChipPrediction) -> float:
    """Return the fraction of the labelled pixels of a chip that are predicted wrongly; 0 if there are none."""
    labelled = chip.labels != IGNORE_INDEX
    wrong = labelled & (chip.labels != chip.predicted)
    return float(wrong.sum() / max(labelled.sum(), 1))


def error_image(rgb: NDArray[np.float32], chip: ChipPrediction) -> NDArray[Any]:
    """Return the image, (h, w, 3) in 0..1, in pale grey, with errors in red; white where there is no label."""
    image = np.repeat(0.5 + 0.4 * rgb.mean(axis=2, keepdims=True), 3, axis=2)
    labelled = chip.labels != IGNORE_INDEX
    image[~labelled] = np.array(UNLABELLED) / 255
    image[labelled & (chip.labels != chip.predicted)] = np.array(ERROR) / 255
    return image
