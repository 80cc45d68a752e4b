"""Accuracy of networks and recipes on real scenes that were not trained on, at equal training time.

    python benchmarks/accuracy.py DATA [--seconds S,S] [--seeds 0,1,2] [--networks NAMES] [--recipes NAMES]
                                       [--scenes NAMES] [--work DIR]
    python benchmarks/accuracy.py --smoke

DATA holds folders `buildings`, `dubai` and `landsat_nc` (see docs/benchmarks.md). The networks are the presets,
compositions of their parts, and smp's; the recipes are ours (`fit` with its defaults) and the reference, a plain loop:
random crops of whole scenes, flips and rotations, AdamW at 1e-3, a warm-up of a tenth, then cosine. All have the same
encoder, EfficientNet-Lite0 with ImageNet weights, images at half their resolution (Landsat's as they are), and one
thread. The budget is processor time of training, validation included, so that other programs do not count; several
budgets give the curve of accuracy over time. Scores are of the last weights, on all labelled pixels of the scenes left
out, as they are and, "TTA", averaged over the eight symmetries of each tile, as `test_time_augmentation` does. Runs are
kept in DIR/runs.jsonl: an interrupted benchmark resumes, and several can fill one file. Prints tables and, last, one
line of JSON. `--smoke` makes up its data and takes few networks, from random weights.
"""

from __future__ import annotations

import argparse
import itertools
import math
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast

import numpy as np
import rasterio
import segmentation_models_pytorch as smp
import torch
from common import Journal, lite0_weights, option_parser, print_json, table, toy_data
from rasterio.enums import Resampling
from rasterio.windows import Window
from safetensors.torch import load_file
from torch import Tensor, nn

from geopsp import PixelClassifier, PSPNetClassifier, export_training_data, prepare_data
from geopsp.chips.chip_set import ChipSet
from geopsp.data.augment import RandomD4
from geopsp.data.dataset import TiledChipDataset
from geopsp.data.loader import tile_loader
from geopsp.models.losses import LossSpec, total_loss
from geopsp.models.network import TrainingOutput
from geopsp.training.evaluate import evaluate
from geopsp.training.fit import fit
from geopsp.training.fit_options import FitOptions, RunConfig
from geopsp.training.learned_pixels import loss_weight
from geopsp.training.metrics import Confusion
from geopsp.training.resolve_options import resolve_options
from geopsp.training.schedule import TimeBudget
from geopsp.training.training_data import TrainingData

BACKBONE = "tu-tf_efficientnet_lite0"
BATCH, VALIDATION, REFERENCE_RATE, REFERENCE_WARMUP = 8, 0.03, 1e-3, 0.1
PROFILED_STEPS = 6
PLAIN = LossSpec(boundary_weight=0)
SCORES = ("miou", "boundary", "miou_tta", "boundary_tta")
BuildNetwork = Callable[[TrainingData, Path | None], PixelClassifier]


@dataclass(frozen=True)
class Scenes:
    """Scenes to train on, and others to test on."""

    folder: str
    image: str
    labels: str
    train: tuple[int | str, ...]
    test: tuple[int | str, ...]


DUBAI = ("dubai", "scene{}.tif", "scene{}_labels.tif")
BUILDINGS = ("buildings", "area{}.tif", "area{}_buildings.geojson")
SCENES = {
    "dubai 1, 3": Scenes(*DUBAI, (4, 6, 7, 8), (1, 3)),
    "dubai 6": Scenes(*DUBAI, (1, 3, 4, 7, 8), (6,)),
    "dubai 4, 7, 8": Scenes(*DUBAI, (1, 3, 6), (4, 7, 8)),  # these overlap
    "buildings 1": Scenes(*BUILDINGS, (4, 5), (1,)),
    "buildings 4": Scenes(*BUILDINGS, (1, 5), (4,)),
    "buildings 5": Scenes(*BUILDINGS, (1, 4), (5,)),
    "landsat east": Scenes("landsat_nc", "lsat7_2000.tif", "landclass96.tif", ("west",), ("east",)),
}


class SmpNetwork(nn.Module):
    """A network of smp with the output of ours."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    @property
    def encoder(self) -> nn.Module:
        return self.inner.encoder  # type: ignore[no-any-return]

    def forward(self, image: Tensor, valid: Tensor | None = None) -> Tensor | TrainingOutput:
        logits = self.inner(image)
        return TrainingOutput(logits, None, None, None) if self.training else logits


def ours(**options: Any) -> BuildNetwork:
    """Return a function that builds a PSPNet."""

    def build(data: TrainingData, weights: Path | None) -> PixelClassifier:
        return PSPNetClassifier(data, BACKBONE, encoder_weights=weights, **options)

    return build


def theirs(kind: Callable[..., nn.Module]) -> BuildNetwork:
    """Return a function that puts a network of smp into a classifier."""

    def build(data: TrainingData, weights: Path | None) -> PixelClassifier:
        inner = kind(BACKBONE, encoder_weights=None, in_channels=len(data.chips.bands), classes=data.c)
        if weights:
            # some networks have an encoder with fewer stages
            state, own = load_file(weights), inner.encoder.state_dict()
            inner.encoder.load_state_dict({name: state[name] for name in own})
        classifier = PSPNetClassifier(data, BACKBONE, encoder_weights=weights)
        classifier.model = replace(classifier.model, network=cast("Any", SmpNetwork(inner)))
        return classifier

    return build


OURS: dict[str, BuildNetwork] = {
    "default": ours(),
    "fast": ours(preset="fast"),
    "best": ours(preset="best"),
    "no pyramid": ours(pyramid_sizes=()),
    "stride 16": ours(output_stride=16),
    "4 stages": ours(encoder_depth=4, output_stride=16),
    "4 stages, PointRend": ours(encoder_depth=4, output_stride=16, pointrend=True),
    "3 stages": ours(encoder_depth=3, output_stride=8),
    "no U-Net, stride 8": ours(use_unet=False),
}
SMP: dict[str, BuildNetwork] = {
    "smp Unet": theirs(smp.Unet),
    "smp DeepLabV3Plus": theirs(smp.DeepLabV3Plus),
    "smp FPN": theirs(smp.FPN),
    "smp PSPNet": theirs(smp.PSPNet),
}
NETWORKS = OURS | SMP


def halved(image: Path, out: Path) -> Path:
    """Write the image at half its resolution, each pixel the mean of four; return the path."""
    if out.exists():
        return out
    with rasterio.open(image) as source:
        height, width = source.height // 2, source.width // 2
        data = source.read(out_shape=(source.count, height, width), resampling=Resampling.average)
        mask = source.dataset_mask(out_shape=(height, width))
        scale = source.transform @ source.transform.scale(source.width / width, source.height / height)
        profile = {"driver": "GTiff", "dtype": data.dtype, "count": len(data), "height": height, "width": width}
        with rasterio.open(out, "w", crs=source.crs, transform=scale, **profile) as file:
            file.write(data)
            file.write_mask(mask)
    return out


def half(image: Path, side: str, out: Path) -> Path:
    """Write the western or eastern half of an image; return the path."""
    if not out.exists():
        with rasterio.open(image) as source:
            width = source.width // 2
            window = Window(0 if side == "west" else source.width - width, 0, width, source.height)
            profile = source.profile | {"width": width, "transform": source.window_transform(window)}
            with rasterio.open(out, "w", **profile) as file:
                file.write(source.read(window=window))
                file.descriptions = source.descriptions
    return out


def export(data: Path, scenes: Scenes, size: int, work: Path) -> tuple[TrainingData, ChipSet]:
    """Export chips, from which crops of half their size are drawn, and those to test on.

    Halves of one image are small: their crops have half the size.
    """
    size = size // 2 if isinstance(scenes.train[0], str) else size
    folders: dict[str, list[Path]] = {"train": [], "test": []}
    for use, number in [*(("train", n) for n in scenes.train), *(("test", n) for n in scenes.test)]:
        image, path = data / scenes.folder / scenes.image.format(number), work / f"{scenes.folder}-{number}.tif"
        image = half(image, number, path) if isinstance(number, str) else halved(image, path)
        side = 2 * size if use == "train" else size
        out = work / f"{scenes.folder}-{number}-{side}"
        if not out.exists():
            export_training_data(image, data / scenes.folder / scenes.labels.format(number), out, tile_size=side)
        folders[use].append(out)
    prepared = prepare_data(folders["train"], size, VALIDATION, BATCH, cache=work / "cache")
    return prepared, ChipSet.open(folders["test"])


class SymmetricNetwork(nn.Module):
    """A network whose probabilities are the mean over the symmetries of an image, as maps have them by TTA."""

    def __init__(self, inner: nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, image: Tensor, valid: Tensor) -> Tensor:
        total = torch.zeros(())
        for turns, flip in itertools.product(range(4), (False, True)):
            turned = [torch.rot90(each.flip(-1) if flip else each, turns, (-2, -1)) for each in (image, valid)]
            back = torch.rot90(self.inner(*turned).softmax(dim=1), -turns, (-2, -1))
            total = total + (back.flip(-1) if flip else back)
        return total.log()


def score(network: nn.Module, data: TrainingData, test: ChipSet) -> Confusion:
    """Score a network on all labelled chips of the scenes left out."""
    chips = test.with_legend(data.legend)
    rows = np.flatnonzero(chips.index["labelled"] > 0)
    dataset = TiledChipDataset(chips, rows, data.train_ds.normalization, size=data.chip_size)
    return evaluate(network, tile_loader(dataset, BATCH), data.legend)


def fit_ours(classifier: PixelClassifier, seconds: float, **changes: Any) -> None:
    """Train with the defaults of `fit`, but for the changes, for some processor time."""
    data, model = cast("TrainingData", classifier.data), classifier.model
    budget, history, run = TimeBudget(seconds, time.process_time), list[dict[str, float]](), RunConfig()
    options = FitOptions(minutes=seconds / 60, checkpoint=False, seed=data.seed, **changes)
    weight = loss_weight(data, model.losses)
    options = resolve_options(options, run, model, data.loaders, weight)
    fit(
        model.network, data.loaders, legend=data.legend, losses=model.losses, weight=weight, options=options,
        history=history, run=run, budget=budget,
    )  # fmt: skip


def fit_reference(classifier: PixelClassifier, seconds: float) -> None:
    """Train as the plain loop does, on all chips, those for validation too."""
    data, network = cast("TrainingData", classifier.data), classifier.model.network
    rows = np.concatenate([data.train_rows, data.valid_rows])
    loader = replace(data, train_rows=rows, transforms=RandomD4(), workers=0).train_dl
    optimizer = torch.optim.AdamW(network.parameters(), REFERENCE_RATE, weight_decay=1e-2)
    network.train().to(memory_format=torch.channels_last)
    start = time.process_time()
    for batch in itertools.chain.from_iterable(itertools.repeat(loader)):
        over = (time.process_time() - start) / seconds
        if over >= 1:
            break
        for group in optimizer.param_groups:
            group["lr"] = REFERENCE_RATE * min(1, over / REFERENCE_WARMUP) * (1 + math.cos(math.pi * over)) / 2
        loss = total_loss(network(batch.image, batch.valid), batch.label, batch.valid, PLAIN, None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()


RECIPES = {"ours": fit_ours, "no average": partial(fit_ours, ema=0.0), "reference": fit_reference}


def run(
    name: str, recipe: str, data: TrainingData, test: ChipSet, weights: Path | None, seconds: float
) -> dict[str, Any]:
    """Train a network, and return its scores."""
    torch.manual_seed(data.seed)
    classifier = NETWORKS[name](data, weights)
    steps = itertools.count()

    def count(network: nn.Module, _: Any) -> None:
        if network.training:
            next(steps)

    counter = classifier.model.network.register_forward_pre_hook(count)
    start = time.process_time()
    RECIPES[recipe](classifier, seconds)
    used = time.process_time() - start
    counter.remove()
    network = classifier.model.network
    found, averaged = (score(each, data, test) for each in (network, SymmetricNetwork(network)))
    return {
        "miou": found.mean_iou(), "boundary": found.mean_boundary_iou(), "accuracy": found.accuracy(),
        "iou": found.iou().tolist(), "used": used, "steps": next(steps),
        "miou_tta": averaged.mean_iou(), "boundary_tta": averaged.mean_boundary_iou(),
    }  # fmt: skip


def step_parts(data: TrainingData, names: list[str]) -> list[list[Any]]:
    """Return the milliseconds of the parts of a step of each network, the least of some steps in turn."""
    classifiers = {name: NETWORKS[name](data, None) for name in names}
    loader = iter(itertools.chain.from_iterable(itertools.repeat(replace(data, workers=0).train_dl)))
    least = {name: np.full(4, np.inf) for name in names}
    optimizers = {name: torch.optim.AdamW(each.model.network.parameters()) for name, each in classifiers.items()}
    for _ in range(PROFILED_STEPS):
        for name, classifier in classifiers.items():
            network = classifier.model.network.train().to(memory_format=torch.channels_last)
            times = [time.process_time()]
            batch = next(loader)
            times.append(time.process_time())
            loss = total_loss(network(batch.image, batch.valid), batch.label, batch.valid, PLAIN, None)
            times.append(time.process_time())
            loss.backward()
            times.append(time.process_time())
            optimizers[name].step()
            optimizers[name].zero_grad()
            times.append(time.process_time())
            least[name] = np.minimum(least[name], np.diff(times) * 1000)
    return [[name, *(f"{value:.0f}" for value in least[name]), f"{least[name].sum():.0f}"] for name in names]


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--seconds", default="240", help="processor seconds of each run; several, by commas: a curve")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--size", type=int, default=128, help="side of the crops in pixels")
    parser.add_argument("--networks", default=";".join(NETWORKS), help="of: %(default)s")
    parser.add_argument("--recipes", default=",".join(RECIPES), help="of: %(default)s")
    parser.add_argument("--scenes", default=";".join(SCENES), help="of: %(default)s")
    parser.add_argument("--work", type=Path, help="folder of chips and results, to resume; default: a temporary one")
    options = parser.parse_args()
    if options.data is None and not options.smoke:
        parser.error("DATA is missing: the folder of the real imagery.")
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        if options.smoke:
            options.data = toy_data(work / "toy", ("area1", "area4", "area5"), 384)
            options.seconds, options.seeds, options.size, options.scenes = "0.5", "0", 32, "buildings 5"
            options.networks = "default;smp Unet"
        compare(options, work)


def compare(options: argparse.Namespace, work: Path) -> None:
    """Train all networks by all recipes on all scenes with all seeds, but for the runs that are done; print results."""
    weights = None if options.smoke else lite0_weights(work)
    journal = Journal(work)
    sets = {name: export(options.data, SCENES[name], options.size, work) for name in options.scenes.split(";")}
    names, recipes = options.networks.split(";"), options.recipes.split(",")
    budgets = [float(text) for text in options.seconds.split(",")]
    for seed, seconds, (scenes, (data, test)), recipe, name in itertools.product(
        map(int, options.seeds.split(",")), budgets, sets.items(), recipes, names
    ):
        key = {"scenes": scenes, "network": name, "recipe": recipe, "seed": seed, "budget": seconds,
               "size": options.size}  # fmt: skip
        journal.run(key, partial(run, name, recipe, replace(data, seed=seed), test, weights, seconds))
    print(f"\nEncoder weights: {'ImageNet (lite0)' if weights else 'none'}. Milliseconds of a step by part:\n")
    parts = step_parts(next(iter(sets.values()))[0], names)
    print(table(["network", "loading", "forward", "backward", "optimizer", "all"], parts), "\n")
    report([row for row in journal.rows() if row["size"] == options.size])


def report(rows: list[dict[str, Any]]) -> None:
    """Print mean and spread over seeds, and the ratios."""
    lines, means = [], {}
    keys = dict.fromkeys((row["scenes"], row["budget"], row["network"], row["recipe"]) for row in rows)
    for scenes, budget, name, recipe in sorted(keys):
        runs = [
            row for row in rows
            if (row["scenes"], row["budget"], row["network"], row["recipe"]) == (scenes, budget, name, recipe)
        ]  # fmt: skip
        values = np.array([[row[key] for key in SCORES] for row in runs])
        means[scenes, budget, name, recipe] = tuple(values.mean(axis=0).tolist())
        scores = [f"{each.mean():.3f} ± {each.std():.3f}" for each in values.T]
        steps = round(float(np.mean([row["steps"] for row in runs])))
        lines.append([scenes, f"{budget:g}", name, recipe, steps, *scores, len(runs)])
    titles = ["mIoU", "boundary IoU", "mIoU, TTA", "boundary IoU, TTA"]
    print(table(["left out", "seconds", "network", "recipe", "steps", *titles, "seeds"], lines))
    print_json(_ratios(means))


def _ratios(means: dict[tuple[str, float, str, str], tuple[float, ...]]) -> dict[str, Any]:
    """Return the mean over scenes of what the default and our best score over the best of smp's in the reference loop.

    Which network is the best, the mean over all scenes says. With TTA, the networks of smp have it, too.
    """
    largest = max(budget for _, budget, _, _ in means)
    scenes = sorted({key[0] for key in means})

    def mean(name: str, recipe: str, number: int) -> float:
        found = [
            means[each, largest, name, recipe][number] for each in scenes if (each, largest, name, recipe) in means
        ]
        return float(np.mean(found)) if len(found) == len(scenes) else -math.inf

    result: dict[str, Any] = {"budget": largest}
    for number, what in enumerate(("", "_boundary", "_tta", "_boundary_tta")):
        smp_best = max(mean(name, "reference", number) for name in SMP)
        ours_best = max(mean(name, "ours", number) for name in OURS)
        for label, ours in (("ours", ours_best), ("default", mean("default", "ours", number))):
            if smp_best > 0 and ours > 0:
                result[f"{label}_over_best_smp{what}"] = ours / smp_best
    return result


if __name__ == "__main__":
    main()
