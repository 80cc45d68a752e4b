"""Figures of chips, losses, scores and learning rates."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch as Swatch
from matplotlib.ticker import MaxNLocator, PercentFormatter
from numpy.typing import NDArray

from geopsp.chips.chip_set import ChipSet
from geopsp.core.addresses import OutputPath
from geopsp.core.bands import BandStats, Normalization, match_bands
from geopsp.core.escape import printable
from geopsp.core.legend import Legend
from geopsp.core.options import require_int, require_number
from geopsp.core.output import atomic_output
from geopsp.core.text import shorten
from geopsp.data.dataset import ChipDataset, Sample
from geopsp.errors import TrainingError
from geopsp.models.spectral_bands import rgb_bands as bands_by_name
from geopsp.training.loss_range import loss_range
from geopsp.training.metrics import Confusion
from geopsp.training.notebook_figure import NotebookFigure

STRETCH = 2.0
"""Standard deviations around the mean that images of a chip set show."""

LOSSES = ("train_loss", "valid_loss")
"""Columns of the history."""

MAX_NAME = 30
"""Characters of the name of a chip or a class in a figure."""

MAX_CELLS = 15
"""Classes up to which a confusion matrix has numbers."""


@contextmanager
def plain_text() -> Iterator[None]:
    """Take texts of figures that are made in the block as they are: no formulas between $, no TeX."""
    params: Any = mpl.rcParams
    plain = {"text.parse_math": False, "text.usetex": False}
    before = {name: params[name] for name in plain}
    params.update(plain)  # `rc_context` would also undo what a backend sets when the first figure loads it
    try:
        yield
    finally:
        params.update(before)


def rgb_band_indices(bands: Sequence[str], wanted: Sequence[str | int] | None = None) -> tuple[int, ...]:
    """Return the bands to show as red, green and blue: the wanted ones, else by their names."""
    return bands_by_name(bands) if wanted is None else match_bands(wanted, bands, where="The image")


def to_rgb(
    data: NDArray[Any], valid: NDArray[np.bool_], indices: Sequence[int], limits: NDArray[np.float64] | None = None
) -> NDArray[np.float32]:
    """Stretch three bands of an image to 0..1; invalid pixels are white.

    Args:
        data: (bands, h, w)
        valid: (h, w)
        indices: The bands that become red, green and blue.
        limits: (2, bands) values that become 0 and 1; None: the percentiles 1 and 99 of these pixels.

    Returns:
        (h, w, 3)
    """
    bands = data[list(indices)].astype(np.float32)
    values = bands[:, valid]
    if not values.size:
        return np.ones((*valid.shape, 3), np.float32)
    low, high = np.percentile(values, [1, 99], axis=1) if limits is None else limits[:, list(indices)]
    scaled = (bands - low[:, None, None]) / np.maximum(high - low, 1e-6)[:, None, None]
    return np.where(valid[..., None], scaled.clip(0, 1).transpose(1, 2, 0), 1).astype(np.float32)


def common_limits(stats: BandStats) -> NDArray[np.float64]:
    """Return (2, bands) limits by which all chips are stretched alike: mean -2 and +2 std, within what occurs.

    Normalised pixels have them, i.e. they are in units of the standard deviation.
    """
    norm = Normalization.from_stats(stats)
    occurring = (np.stack([stats.low, stats.high]) - norm.mean) / norm.std
    return np.clip(occurring, -STRETCH, STRETCH)


def colorize(index: NDArray[np.uint8], legend: Legend) -> NDArray[np.uint8]:
    """Turn (h, w) channel indices into (h, w, 4) colours, transparent where IGNORE_INDEX."""
    table = np.zeros((256, 4), np.uint8)
    table[: len(legend)] = [(*info.rgb, 255) for info in legend]
    return table[index]


def subplots(rows: int, columns: int, width: float, height: float) -> tuple[Figure, NDArray[Any]]:
    """Return a figure of this size in inches, which a notebook shows once, and its (rows, columns) axes."""
    figure, axes = plt.subplots(
        rows, columns, figsize=(width, height), layout="constrained", squeeze=False, FigureClass=NotebookFigure
    )
    return figure, axes


def check_figure(rows: int, alpha: float) -> None:
    """Check options of figures of chips.

    Raises:
        OptionError: if one is out of range.
    """
    require_int("rows", rows, minimum=1)
    require_number("alpha", alpha, minimum=0, maximum=1)


def draw_panel(axes: Axes, title: str, *layers: Any, alpha: float = 1.0) -> None:
    """Draw images on each other, all but the first with an opacity."""
    for number, layer in enumerate(layers):
        axes.imshow(layer, alpha=alpha if number else 1.0, interpolation="nearest")
    axes.set_title(printable(title), fontsize=9)
    axes.set_axis_off()


def add_legend(figure: Figure, entries: Iterable[tuple[str, str]]) -> None:
    """Draw names with their colours below a figure."""
    handles = [Swatch(facecolor=color, edgecolor="#888888", label=printable(name)) for name, color in entries]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(len(handles), 9), fontsize=8, frameon=False)


def class_entries(legend: Legend) -> list[tuple[str, str]]:
    """Return the names and colours of classes, for `add_legend`."""
    return [(info.name, info.color) for info in legend]


def _to_numpy(sample: Sample) -> tuple[NDArray[Any], NDArray[np.bool_], NDArray[np.uint8]]:
    return sample.image.numpy(), sample.valid[0].numpy() > 0, sample.label.numpy().astype(np.uint8)


@plain_text()
def show_batch(
    dataset: ChipDataset, stats: BandStats, *, seed: int, rows: int, alpha: float, rgb_bands: Sequence[str | int] | None
) -> Figure:
    """Draw training chips after augmentation, each beside its labels, all stretched alike."""
    check_figure(rows, alpha)
    legend, bands = dataset.chips.legend, rgb_band_indices(dataset.chips.bands, rgb_bands)
    limits, names = common_limits(stats), chip_names(dataset.chips)
    count = min(rows * 3, len(dataset))
    lines = -(-count // 3)
    figure, axes = subplots(lines, 6, 12, 2.2 * lines + 0.6)
    order = np.random.default_rng(seed).permutation(len(dataset))[:count]
    for number, ((left, right), item) in enumerate(zip(axes.reshape(-1, 2), order, strict=False)):
        sample = dataset[int(item), seed + number]
        image, valid, label = _to_numpy(sample)
        rgb = to_rgb(image, valid, bands, limits)
        draw_panel(left, names[int(sample.row)], rgb)
        draw_panel(right, "labels", rgb, colorize(label, legend), alpha=alpha)
    for unused in axes.reshape(-1)[2 * count :]:
        unused.set_axis_off()
    add_legend(figure, class_entries(legend))
    return figure


def chip_names(chips: ChipSet) -> list[str]:
    """Return a short name of each chip: that of its file, or its image and position."""
    index = chips.index
    if "image" in index:
        names = [Path(path).stem for path in index["image"]]
    else:
        places = zip(index["source"], index["col"], index["row"], strict=True)
        names = [f"{Path(str(source)).stem} {col}, {row}" for source, col, row in places]
    return [shorten(name, MAX_NAME) for name in names]


@plain_text()
def plot_losses(history: Sequence[Mapping[str, float]]) -> Figure:
    """Draw training and validation loss, and mIoU, by epoch; losses beyond the axis are marked at its top."""
    epochs = [row["epoch"] for row in history]
    figure, axes = subplots(1, 2, 9, 3.2)
    left, right = axes[0]
    low, high = loss_range(row[name] for row in history for name in LOSSES)
    margin = 0.06 * (high - low)
    for name in LOSSES:
        values = np.array([row[name] for row in history], float)
        (line,) = left.plot(epochs, values, marker=".", label=name.replace("_", " "))
        for epoch, value in zip(epochs, values, strict=True):
            if value > high:
                left.plot(epoch, high + margin / 2, marker="^", color=line.get_color(), clip_on=False)
                left.annotate(f"{value:.3g}", (epoch, high), fontsize=8, ha="left", va="top")
    left.set(xlabel="epoch", ylabel="loss", ylim=(low - margin, high + margin))
    right.plot(epochs, [row["valid_miou"] for row in history], marker=".", color="tab:green")
    right.set(xlabel="epoch", ylabel="mIoU, validation", ylim=(0, 1))
    left.legend(frameon=False)
    for panel in axes[0]:
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


@plain_text()
def plot_confusion(scores: Confusion) -> Figure:
    """Draw the confusion matrix: of the pixels of each class in the ground truth, the shares of the predictions."""
    names, size = [printable(shorten(name, MAX_NAME)) for name in scores.legend.names], len(scores.legend)
    shares = scores.shares()
    side = min(2.4 + 0.62 * size, 12)
    figure, axes = subplots(1, 1, side + 1.2, side)
    panel = axes[0, 0]
    image = panel.imshow(np.nan_to_num(shares), cmap="Blues", vmin=0, vmax=1)
    for row, col in np.ndindex(shares.shape) if size <= MAX_CELLS else ():
        if np.isfinite(shares[row, col]):
            color = "white" if shares[row, col] > 0.6 else "black"
            panel.text(col, row, f"{shares[row, col]:.0%}", ha="center", va="center", color=color, fontsize=8)
    panel.set_xticks(range(size), names, rotation=45, ha="right", rotation_mode="anchor", fontsize=8)
    panel.set_yticks(range(size), names, fontsize=8)
    panel.set(xlabel="prediction", ylabel="ground truth")
    panel.set_title(f"mIoU {scores.mean_iou():.3f}, accuracy {scores.accuracy():.3f}", fontsize=10)
    figure.colorbar(image, ax=panel, label="share of the ground truth", format=PercentFormatter(1), shrink=0.8)
    return figure


def plot_rates(best: float, rates: Sequence[float], losses: Sequence[float]) -> Figure:
    """Draw the validation loss over the learning rate, and the suggested rate."""
    figure, ((axes,),) = subplots(1, 1, 5, 3.2)
    axes.semilogx(rates, losses, marker="o")
    axes.axvline(best, color="tab:red", linestyle="--", label=f"suggested {best:.2g}")
    low, high = loss_range(losses)
    margin = 0.06 * (high - low)
    axes.set(xlabel="learning rate", ylabel="validation loss", ylim=(low - margin, high + margin))
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
    figure, panels = subplots(1, len(shown), 4 * len(shown), 3.6)
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
    return OutputPath(out)
