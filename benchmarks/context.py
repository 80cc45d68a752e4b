"""What the pyramid is for: boats and cars that look the same, on water and tarmac that look the same.

    python benchmarks/context.py [--epochs 1,3] [--seeds 0,1,2] [--only NAMES] [--picture FILE] [--smoke]
    python benchmarks/context.py --kind demo [--epochs N] ...

`--kind wide` draws lakes and aprons whose far rims alone tell them apart (`sample_data/make.py --kind wide`), and
trains one small network that grows: fully convolutional, with the auxiliary loss, with the pyramid, with PointRend.
`--kind demo` trains the demo's network with the pyramid and without it on the demo's scenes. Each is scored on a scene
that it was not trained on. Prints one line per training, a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from common import option_parser, print_json, table
from numpy.typing import NDArray
from scipy.ndimage import label as label_components
from torchvision.transforms import v2

from geopsp import ChipSet, FCNClassifier, PixelClassifier, PSPNetClassifier, export_training_data, prepare_data
from geopsp.cli.demo import (
    BATCH_SIZE,
    EPOCHS,
    OUTPUT_STRIDE,
    SCENES,
    SIMILAR_CLASSES,
    TEST,
    export_sample,
)
from geopsp.core.bands import Normalization
from geopsp.core.sample_data import find_sample_data
from geopsp.data.augment import RandomBrightness, RandomD4
from geopsp.training.evaluate import chip_loader
from geopsp.training.metrics import Confusion, boundary_counts, boundary_width

PYRAMID = (1, 2, 3, 6)


@dataclass(frozen=True)
class Setup:
    """What is trained on which chips; every option is given, so that new defaults change nothing here."""

    networks: Mapping[str, dict[str, Any]]
    """Options of each network; `pyramid_sizes` makes it a PSPNet, otherwise it is an FCN."""

    common: Mapping[str, Any]
    epochs: str
    batch_size: int
    lr: float
    checkpoint: bool
    """True keeps the epoch with the best validation mIoU, False the last one."""

    split: Mapping[str, Any]


WIDE = Setup(
    {
        "FCN": {"aux_loss": False, "pointrend": False},
        "+ auxiliary loss": {"aux_loss": True, "pointrend": False},
        "+ pyramid": {"aux_loss": True, "pyramid_sizes": PYRAMID, "use_unet": False, "pointrend": False},
        "+ PointRend": {"aux_loss": True, "pyramid_sizes": PYRAMID, "use_unet": False, "pointrend": True},
    },
    {"output_stride": 8, "encoder_depth": 3},
    epochs="1",
    batch_size=4,
    lr=2e-3,
    checkpoint=False,
    # Flips and turns, but no change of size, which would put rims out of the tile.
    split={"val_split_pct": 0.1, "transforms": v2.Compose([RandomD4(), RandomBrightness()])},
)
DEMO = Setup(
    {
        "pyramid, U-Net": {"aux_loss": False, "pyramid_sizes": PYRAMID, "use_unet": True},
        "no pyramid, U-Net": {"aux_loss": False, "pyramid_sizes": (), "use_unet": True},
        "pyramid, plain": {"aux_loss": True, "pyramid_sizes": PYRAMID, "use_unet": False},
        "no pyramid, plain": {"aux_loss": True, "pyramid_sizes": (), "use_unet": False},
    },
    {"output_stride": OUTPUT_STRIDE, "encoder_depth": 5},
    epochs=str(EPOCHS),
    batch_size=BATCH_SIZE,
    lr=2e-3,
    checkpoint=True,
    split={},
)
SETUPS = {"wide": WIDE, "demo": DEMO}

PICTURED = {"+ auxiliary loss": "FCN", "+ pyramid": "PSPNet"}
"""The two networks that are compared and drawn, which differ in the pyramid alone."""

BRIGHTEST = 3500.0
"""Reflectance x 10000 that is drawn as white."""


@dataclass(frozen=True)
class Scores:
    """Scores of one training, over all test chips."""

    confusion: Confusion
    objects: int
    """Connected boats and cars in the labels; one that two chips show counts twice."""

    found: int
    """Of them, those of which most pixels are predicted as boat or car."""

    mistaken: int
    """Of those found, the ones that are rather the other of the two classes."""

    @property
    def row(self) -> list[float]:
        """The numbers of the table."""
        scores = self.confusion
        share = self.mistaken / max(1, self.found)
        pixels = scores.confused(*SIMILAR_CLASSES)
        return [scores.mean_iou(), scores.mean_boundary_iou(), self.found / max(1, self.objects), share, pixels]


HEADER = ["mIoU", "boundary IoU", "boats and cars found", "of them confused", "pixels confused"]


def cut_chips(kind: str, folder: Path, *, smoke: bool) -> tuple[ChipSet, ChipSet]:
    """Write the chips for training and those for the test; the test's only in a smoke run of the demo."""
    if kind == "demo":
        sample = find_sample_data()
        test = export_sample(sample, (TEST,), "test_labels.gpkg", folder / "test")
        return test if smoke else export_sample(sample, SCENES, "labels.gpkg", folder / "train"), test
    make = find_sample_data() / "make.py"
    command = [sys.executable, make, "--kind", "wide", "--out", folder, *(["--small"] if smoke else [])]
    subprocess.run([str(part) for part in command], check=True)
    train, test = (
        export_training_data(
            folder / f"wide_{name}.tif", f"{folder / f'wide_{name}.gpkg'}|layername=landcover", folder / name,
            class_field="landcover", tile_size=256, stride=stride, background="ignore",
        )
        for name, stride in (("train", 128), ("test", 192))
    )  # fmt: skip
    return train, test


def train(setup: Setup, name: str, chips: ChipSet, *, epochs: int, seed: int, smoke: bool) -> PixelClassifier:
    """Train one network, a ResNet-18 from random weights."""
    data = replace(prepare_data(chips.folders, batch_size=setup.batch_size, workers=0, **setup.split), seed=seed)
    if smoke:
        data = replace(data, train_rows=data.train_rows[:8], valid_rows=data.valid_rows[:2])
    options = {**setup.networks[name], **setup.common, "encoder_weights": None, "class_balancing": True}
    aux = options.pop("aux_loss")
    kind = PSPNetClassifier if "pyramid_sizes" in options else FCNClassifier
    model = kind(data, "resnet18", aux_loss=aux, aux="pixel" if aux else None, **options)
    model.fit(epochs, setup.lr, one_cycle=True, checkpoint=setup.checkpoint, monitor="valid_miou", ema=0.0)
    return model


def predictions(model: PixelClassifier, chips: ChipSet) -> Iterator[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
    """Yield images, labels and predicted channels, one batch of chips after the other."""
    network = model.model.network.eval()
    for batch in chip_loader(model.model, chips):
        with torch.inference_mode():
            yield batch.image, batch.label, network(batch.image, batch.valid).argmax(dim=1)


def score(model: PixelClassifier, chips: ChipSet) -> Scores:
    """Count pixels, boundaries and objects of all chips."""
    legend = model.model.legend
    similar = [legend.names.index(name) for name in SIMILAR_CLASSES]
    confusion, boundary, objects = Confusion(legend), np.zeros((len(legend), 2), np.int64), np.zeros(3, np.int64)
    for _, labels, predicted in predictions(model, chips):
        confusion.add(labels.numpy(), predicted.numpy())
        width = boundary_width(labels.shape[-1])
        boundary += boundary_counts(labels, predicted, len(legend), width).numpy()
        for pair in zip(labels.numpy(), predicted.numpy(), strict=True):
            objects += count_objects(*pair, *similar)
    return Scores(replace(confusion, boundary=boundary), *map(int, objects))


def count_objects(labels: NDArray[Any], predicted: NDArray[Any], one: int, other: int) -> tuple[int, int, int]:
    """Count the connected objects of two classes, those found and those confused, as in `Scores`."""
    total = found = mistaken = 0
    for mine, wrong in ((one, other), (other, one)):
        objects, count = label_components(labels == mine)
        pixels, right, lost = (
            np.bincount(objects[(objects > 0) & chosen], minlength=count + 1)[1:]
            for chosen in (labels == mine, predicted == mine, predicted == wrong)
        )
        seen = 2 * (right + lost) > pixels
        total, found, mistaken = total + count, found + int(seen.sum()), mistaken + int((seen & (lost > right)).sum())
    return total, found, mistaken


def draw(models: Mapping[str, PixelClassifier], chips: ChipSet, out: Path) -> None:
    """Draw the test chip with most boats and that with most cars: image, labels and each model's prediction."""
    import matplotlib.pyplot as plt
    from matplotlib.colors import ListedColormap

    from geopsp.training.plots import add_legend, save_figure

    first = next(iter(models.values()))
    names, normalization = first.model.legend.names, Normalization.from_stats(first.model.statistics)
    colors = {
        "bare": "#e6c98f", "boat": "#ff7f0e", "building": "#8c564b", "car": "#d62fd6", "crop": "#9ccb86",
        "road": "#8a8a8a", "water": "#4a90d9",
    }  # fmt: skip
    style: dict[str, Any] = {
        "cmap": ListedColormap([colors[name] for name in names]), "vmin": -0.5, "vmax": len(names) - 0.5,
        "interpolation": "nearest",
    }  # fmt: skip
    batches = list(predictions(first, chips))
    images, labels = torch.cat([image for image, _, _ in batches]), torch.cat([found for _, found, _ in batches])
    picked = [int((labels == names.index(name)).sum(dim=(1, 2)).argmax()) for name in SIMILAR_CLASSES]
    maps = {name: torch.cat([p for _, _, p in predictions(model, chips)]) for name, model in models.items()}
    figure, axes = plt.subplots(2, 2 + len(maps), figsize=(2.3 * (2 + len(maps)), 5), layout="constrained")
    for panels, chip in zip(axes, picked, strict=True):
        reflectance = np.moveaxis(images[chip].numpy(), 0, -1) * normalization.std + normalization.mean  # bands last
        panels[0].imshow(np.clip(reflectance[..., :3] / BRIGHTEST, 0, 1))
        for axis, shown in zip(panels[1:], [labels[chip], *(found[chip] for found in maps.values())], strict=True):
            axis.imshow(shown.numpy(), **style)
    for axis, title in zip(axes[0], ["image", "labels", *maps], strict=True):
        axis.set_title(title)
    for axis in axes.flat:
        axis.set_axis_off()
    add_legend(figure, [(name, colors[name]) for name in names])
    save_figure(figure, out)


def main() -> None:
    options = read_options()
    setup = SETUPS[options.kind]
    names = [name for name in setup.networks if name in options.only]
    found: dict[tuple[int, str], list[Scores]] = {}
    with tempfile.TemporaryDirectory() as scratch:
        chips, test = cut_chips(options.kind, Path(scratch), smoke=options.smoke)
        for epochs in options.epochs:
            for seed in options.seeds:
                models: dict[str, PixelClassifier] = {}
                for name in names:
                    start = time.process_time()
                    models[name] = train(setup, name, chips, epochs=epochs, seed=seed, smoke=options.smoke)
                    seconds = time.process_time() - start
                    scores = score(models[name], test)
                    found.setdefault((epochs, name), []).append(scores)
                    steps = epochs * (len(models[name].data.train_rows) // setup.batch_size)
                    print(
                        f"{name}, seed {seed}, {steps} steps, {seconds:.0f} s of CPU: {scores.objects} "
                        f"objects, {scores.found} found, {scores.mistaken} confused, "
                        f"{[round(number, 4) for number in scores.row]}", flush=True
                    )  # fmt: skip
                if options.picture and (epochs, seed) == (options.epochs[-1], options.seeds[0]):
                    draw({title: models[name] for name, title in PICTURED.items()}, test, options.picture)
    rows = []
    for (epochs, name), scores in found.items():
        numbers = np.array([one.row for one in scores])
        mean, spread = numbers.mean(axis=0), numbers.std(axis=0)
        rows.append([name, epochs, *(f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True))])
    print(table(["network", "epochs", *HEADER], rows))
    print_json(compare(found, options.epochs[-1]) if options.kind == "wide" else demo_result(found))


def read_options() -> argparse.Namespace:
    parser = option_parser(__doc__)
    parser.add_argument("--kind", choices=SETUPS, default="wide")
    parser.add_argument("--epochs", help="one or more numbers; default: 1, for the demo's scenes as the demo")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--only", help="NAME,NAME ...: networks; spaces and commas in a name may be left out")
    parser.add_argument("--picture", type=Path, help="PNG of two test chips with the maps of FCN and PSPNet")
    options = parser.parse_args()
    names = list(SETUPS[options.kind].networks)
    if options.smoke:
        options.epochs, options.seeds = "1", "0"
        options.only = options.only or ("+auxiliaryloss,+pyramid" if options.kind == "wide" else "pyramidplain")
    wanted = options.only.split(",") if options.only else None
    options.only = [name for name in names if wanted is None or name.replace(" ", "").replace(",", "") in wanted]
    options.epochs = [int(number) for number in (options.epochs or SETUPS[options.kind].epochs).split(",")]
    options.seeds = [int(number) for number in options.seeds.split(",")]
    if options.picture and not PICTURED.keys() <= set(options.only):
        parser.error(f"--picture needs the networks {' and '.join(PICTURED)}")
    return options


def compare(found: Mapping[tuple[int, str], Sequence[Scores]], epochs: int) -> dict[str, Any]:
    """Return what each part adds at the last budget, and how much more often the FCN confuses boats and cars."""

    def gain(more: str, less: str, column: int) -> float:
        pairs = zip(found.get((epochs, more), ()), found.get((epochs, less), ()), strict=False)
        return float(np.mean([a.row[column] - b.row[column] for a, b in pairs] or [np.nan]))

    fcn, pspnet = (found.get((epochs, name), ()) for name in PICTURED)
    ratios = [confused_share([a]) / confused_share([b]) for a, b in zip(fcn, pspnet, strict=False)]
    result = {
        "fcn_over_pspnet_confusion": confused_share(fcn) / confused_share(pspnet) if ratios else np.nan,
        "least_of_seeds": min(ratios, default=np.nan),
        "aux_miou_gain": gain("+ auxiliary loss", "FCN", 0),
        "pyramid_miou_gain": gain("+ pyramid", "+ auxiliary loss", 0),
        "pointrend_boundary_iou_gain": gain("+ PointRend", "+ pyramid", 1),
    }
    return {name: value for name, value in result.items() if np.isfinite(value)}


def confused_share(scores: Sequence[Scores]) -> float:
    """Return the share of the boats and cars found that are confused, with half an object added, so never 0."""
    return (sum(one.mistaken for one in scores) + 0.5) / (sum(one.found for one in scores) + 0.5)


def demo_result(found: Mapping[tuple[int, str], Sequence[Scores]]) -> dict[str, Any]:
    result = {}
    for (epochs, name), scores in found.items():
        miou, *_, pixels = np.mean([one.row for one in scores], axis=0)
        result |= {f"{name}, {epochs} epochs: miou": float(miou), f"{name}: boat/car confused": float(pixels)}
    return result


if __name__ == "__main__":
    main()
