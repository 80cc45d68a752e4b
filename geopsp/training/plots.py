"""Figures of chips, results, losses and learning rates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib.pyplot as plt
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch as Swatch
from numpy.typing import NDArray

from geopsp.core.bands import match_bands
from geopsp.core.escape import printable
from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.core.options import require_int, require_number
from geopsp.core.output import atomic_output
from geopsp.data.dataset import ChipDataset, Sample, TiledChipDataset
from geopsp.errors import TrainingError
from geopsp.models.device import pick_device
from geopsp.models.saved_model import TrainedModel
from geopsp.training.metrics import Confusion

COLORS = ("red", "green", "blue")


@contextmanager
def plain_text() -> Iterator[None]:
    """Take texts of figures that are made in the block as they are: no formulas between $, no TeX."""
    with plt.rc_context({"text.parse_math": False, "text.usetex": False}):
        yield


def rgb_band_indices(bands: Sequence[str], wanted: Sequence[str | int] | None = None) -> tuple[int, ...]:
    """Return the bands to show as red, green and blue: the wanted ones, those of these names, or the first three."""
    if wanted is not None:
        return match_bands(wanted, bands, where="The image")
    names = [name.lower() for name in bands]
    if all(color in names for color in COLORS):
        return tuple(names.index(color) for color in COLORS)
    return (0, 1, 2) if len(bands) >= len(COLORS) else (0, 0, 0)


def to_rgb(data: NDArray[Any], valid: NDArray[np.bool_], indices: Sequence[int]) -> NDArray[np.float32]:
    """Stretch three bands of (bands, h, w) between their percentiles 1 and 99; (h, w, 3) in 0..1, invalid white."""
    bands = data[list(indices)].astype(np.float32)
    values = bands[:, valid]
    if not values.size:
        return np.ones((*valid.shape, 3), np.float32)
    low, high = np.percentile(values, [1, 99], axis=1)
    scaled = (bands - low[:, None, None]) / np.maximum(high - low, 1e-6)[:, None, None]
    return np.where(valid[..., None], scaled.clip(0, 1).transpose(1, 2, 0), 1).astype(np.float32)


def colorize(index: NDArray[np.uint8], legend: Legend) -> NDArray[np.uint8]:
    """Turn (h, w) channel indices into (h, w, 4) colours, transparent where IGNORE_INDEX."""
    table = np.zeros((256, 4), np.uint8)
    table[: len(legend)] = [(*info.rgb, 255) for info in legend]
    return table[index]


def _check_figure(rows: int, alpha: float) -> None:
    require_int("rows", rows, minimum=1)
    require_number("alpha", alpha, minimum=0, maximum=1)


def _panel(axes: Axes, title: str, *layers: Any, alpha: float = 1.0) -> None:
    for number, layer in enumerate(layers):
        axes.imshow(layer, alpha=alpha if number else 1.0, interpolation="nearest")
    axes.set_title(title, fontsize=9)
    axes.set_axis_off()


def add_legend(figure: Figure, entries: Iterable[tuple[str, str]]) -> None:
    """Draw names with their colours below a figure."""
    handles = [Swatch(facecolor=color, edgecolor="#888888", label=printable(name)) for name, color in entries]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 9), fontsize=8, frameon=False)


def _class_entries(legend: Legend) -> list[tuple[str, str]]:
    return [(info.name, info.color) for info in legend]


def _to_numpy(sample: Sample) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.uint8]]:
    return sample.image.numpy(), sample.valid[0].numpy() > 0, sample.label.numpy().astype(np.uint8)


@plain_text()
def show_batch(
    dataset: ChipDataset, *, seed: int, rows: int, alpha: float, rgb_bands: Sequence[str | int] | None
) -> Figure:
    """Draw training chips after augmentation, each beside its labels."""
    _check_figure(rows, alpha)
    legend, bands = dataset.chips.legend, rgb_band_indices(dataset.chips.bands, rgb_bands)
    count = min(rows * 3, len(dataset))
    figure, axes = plt.subplots(
        -(-count // 3), 6, figsize=(12, 2.2 * -(-count // 3) + 0.6), layout="constrained", squeeze=False
    )
    order = np.random.default_rng(seed).permutation(len(dataset))[:count]
    for number, ((left, right), item) in enumerate(zip(axes.reshape(-1, 2), order, strict=False)):
        image, valid, label = _to_numpy(dataset[int(item), seed + number])
        rgb = to_rgb(image, valid, bands)
        _panel(left, "image", rgb)
        _panel(right, "labels", rgb, colorize(label, legend), alpha=alpha)
    for unused in axes.reshape(-1)[2 * count :]:
        unused.set_axis_off()
    add_legend(figure, _class_entries(legend))
    return figure


@plain_text()
def show_results(
    model: TrainedModel, dataset: TiledChipDataset, *, seed: int, rows: int, alpha: float, device: str | None
) -> Figure:
    """Draw validation chips: image, labels and prediction."""
    _check_figure(rows, alpha)
    bands = rgb_band_indices(model.bands)
    count, where = min(rows, len(dataset)), pick_device(device)
    network = model.network.to(where).eval()
    figure, axes = plt.subplots(count, 3, figsize=(8, 2.7 * count + 0.6), layout="constrained", squeeze=False)
    order = np.random.default_rng(seed).permutation(len(dataset))[:count]
    for panels, item in zip(axes, order, strict=True):
        sample = dataset[int(item)]
        with torch.inference_mode():
            logits = network(sample.image[None].to(where), sample.valid[None].to(where))
        image, valid, label = _to_numpy(sample)
        predicted = logits[0].max(dim=0).indices.to(torch.uint8).cpu().numpy()
        predicted = np.where(valid, predicted, IGNORE_INDEX).astype(np.uint8)
        rgb = to_rgb(image, valid, bands)
        _panel(panels[0], "image", rgb)
        _panel(panels[1], "ground truth", rgb, colorize(label, model.legend), alpha=alpha)
        _panel(panels[2], "prediction", rgb, colorize(predicted, model.legend), alpha=alpha)
    add_legend(figure, _class_entries(model.legend))
    network.cpu()
    return figure


def plot_losses(history: Sequence[dict[str, float]]) -> Figure:
    """Draw training and validation loss, and mIoU, by epoch."""
    epochs = [row["epoch"] for row in history]
    figure, (left, right) = plt.subplots(1, 2, figsize=(9, 3.2), layout="constrained")
    for name in ("train_loss", "valid_loss"):
        left.plot(epochs, [row[name] for row in history], marker=".", label=name.replace("_", " "))
    right.plot(epochs, [row["valid_miou"] for row in history], marker=".", color="tab:green")
    left.set(xlabel="epoch", ylabel="loss")
    right.set(xlabel="epoch", ylabel="mIoU, validation", ylim=(0, 1))
    left.legend(frameon=False)
    return figure


def plot_rates(best: float, rates: Sequence[float], losses: Sequence[float]) -> Figure:
    """Draw the loss over the learning rate, and the suggested rate."""
    figure, axes = plt.subplots(figsize=(5, 3.2), layout="constrained")
    axes.semilogx(rates, losses)
    axes.axvline(best, color="tab:red", linestyle="--", label=f"suggested {best:.2g}")
    axes.set(xlabel="learning rate", ylabel="loss")
    axes.legend(frameon=False)
    return figure


def plot_reliability(scores: Confusion) -> Figure:
    """Draw the accuracy of pixels over their confidence, without calibration and with it where that was scored.

    Bars below the diagonal are pixels of which the network is too sure.

    Raises:
        TrainingError: if no reliability was counted.
    """
    found = {"uncalibrated": scores.reliability, "calibrated": scores.calibrated}
    shown = {name: each for name, each in found.items() if each is not None and each.pixels}
    if not shown:
        raise TrainingError("These scores have no reliability to plot. Score labelled chips with `evaluate`.")
    figure, panels = plt.subplots(1, len(shown), figsize=(4 * len(shown), 3.6), layout="constrained", squeeze=False)
    for axes, (name, each) in zip(panels[0], shown.items(), strict=True):
        table = each.bins()
        width, shares = table["high"] - table["low"], table["pixels"] / each.pixels
        axes.bar(table["low"], table["accuracy"], width, align="edge", edgecolor="white", label="accuracy")
        axes.step(
            [*table["low"], 1.0], [*shares, shares.iloc[-1]], where="post", color="#888888", label="share of pixels"
        )
        axes.plot([0, 1], [0, 1], linestyle="--", color="tab:red", label="as sure as right")
        axes.set(title=name, xlabel=f"confidence (ECE {each.ece():.3f})", xlim=(0, 1), ylim=(0, 1))
    panels[0][0].set_ylabel("accuracy")
    panels[0][0].legend(frameon=False, fontsize=8)
    return figure


def save_figure(figure: Figure, out: str | Path, *, overwrite: bool = True) -> Path:
    """Write a figure to a file, and close it."""
    with atomic_output(out, overwrite=overwrite) as partial:
        figure.savefig(partial, dpi=110)
    plt.close(figure)
    return Path(out)
