"""What chips of `suggest_chips` are worth beside chips at random: mean IoU against the number of labelled chips.

    python benchmarks/suggest.py DATA [--seeds 0,1,2] [--rounds N] [--chips N] [--steps N] [--quick] [--work DIR]
    python benchmarks/suggest.py --smoke

DATA holds the folder `dubai` (see docs/benchmarks.md). Labels of scenes 4 and 6 are hidden. Networks are scored on
these scenes, as a user maps them (a third of their ground, on a grid of its own), and on scene 3, which is never shown.
Each strategy starts with the same few random chips. In each round it trains a network anew, from ImageNet weights, for
a fixed number of steps, then asks for as many chips again: at random, by entropy alone, or by `suggest_chips` with its
defaults (on the model, the images and the chip folder, as a user would). The hidden labels are then cut there.
Images are at half their resolution, the network is the preset "fast" on EfficientNet-Lite0. Results do not depend on
the load of the machine. Runs are kept in DIR/runs.jsonl: an interrupted benchmark resumes. `--quick` takes one seed and
few rounds. Prints tables and, last, one line of JSON: with how many times as many chips random has the same mean IoU.
"""

from __future__ import annotations

import argparse
import itertools
import json
import logging
import math
import shutil
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

import geopandas as gpd
import numpy as np
import rasterio
import torch
from accuracy import halved, score
from common import lite0_weights, option_parser, print_json, table, toy_data

from geopsp import PSPNetClassifier, export_training_data, prepare_data, suggest_chips
from geopsp.chips.chip_set import ChipSet
from geopsp.data.augment import RandomD4
from geopsp.models.loss_options import LossSpec
from geopsp.models.losses import total_loss
from geopsp.training.training_data import TrainingData

BACKBONE = "tu-tf_efficientnet_lite0"
RATE, WARMUP, BATCH = 1e-3, 0.1, 8
OFF = {"novelty_weight": 0.0, "rarity_weight": 0.0, "disagreement_weight": 0.0}
STRATEGIES: dict[str, dict[str, Any] | None] = {"random": None, "entropy": OFF, "ours": {}}
PLAIN = LossSpec(boundary_weight=0)
SCORES = {"own": "the scenes whose labels are hidden", "other": "a scene that is never shown"}

Pair = tuple[Path, Path]
"""An image and its labels."""


def pairs(data: Path, work: Path, *, smoke: bool) -> tuple[list[Pair], list[Pair]]:
    """Return images with labels: those to choose from, and those to test on."""
    if smoke:
        folder = toy_data(work / "toy", ("area1", "area4", "area5"), 192) / "buildings"
        found = [(folder / f"{name}.tif", folder / f"{name}_buildings.geojson") for name in ("area1", "area4", "area5")]
        return found[:2], found[2:]
    names = [(data / "dubai" / f"scene{n}.tif", data / "dubai" / f"scene{n}_labels.tif") for n in (4, 6, 3)]
    small = [(halved(image, work / f"half-{image.name}"), labels) for image, labels in names]
    return small[:2], small[2:]


def cut(pool: list[Pair], windows: gpd.GeoDataFrame, out: Path, size: int) -> Path:
    """Cut chips of some windows, and add them to a folder."""
    for image, labels in pool:
        area = windows[windows["image"] == image.name]
        if len(area):
            options: dict[str, Any] = {} if labels.suffix == ".tif" else {"class_field": "class"}
            export_training_data(
                image, labels, out, tile_size=size, aoi=area, aoi_rule="inside", append=out.exists(), **options
            )
    return out


def test_chips(scenes: list[Pair], work: Path, size: int, *, stride: int) -> ChipSet:
    """Cut the chips to score on."""
    folders = []
    for image, labels in scenes:
        folders.append(work / f"test-{image.stem}-{size}-{stride}")
        if not folders[-1].exists():
            field: dict[str, Any] = {} if labels.suffix == ".tif" else {"class_field": "class"}
            export_training_data(image, labels, folders[-1], tile_size=size, stride=stride, **field)
    return ChipSet.open(folders)


def all_windows(pool: list[Pair], size: int) -> gpd.GeoDataFrame:
    """Return all windows that lie on an image whole."""
    rows, shapes, crs = [], [], None
    for image, _ in pool:
        with rasterio.open(image) as file:
            crs, side = file.crs, size * file.transform.a
            for top, left in itertools.product(
                range(0, file.height - size + 1, size), range(0, file.width - size + 1, size)
            ):
                x, y = file.transform * (left, top)
                rows.append(image.name)
                shapes.append([[x, y], [x + side, y], [x + side, y - side], [x, y - side], [x, y]])
    import shapely

    return gpd.GeoDataFrame({"image": rows}, geometry=shapely.polygons(shapes), crs=crs)


def train(folder: Path, size: int, steps: int, seed: int, weights: Path | None) -> PSPNetClassifier:
    """Train on all chips of a folder for some steps."""
    torch.manual_seed(seed)
    data = prepare_data(folder, size, 0.2, BATCH, split="random", seed=seed, workers=0)
    rows = np.concatenate([data.train_rows, data.valid_rows])
    data = replace(data, train_rows=rows, transforms=RandomD4(), workers=0)
    classifier = PSPNetClassifier(data, BACKBONE, encoder_weights=weights, preset="fast")
    network = classifier.model.network
    optimizer = torch.optim.AdamW(network.parameters(), RATE, weight_decay=1e-2)
    network.train().to(memory_format=torch.channels_last)
    batches = itertools.chain.from_iterable(itertools.repeat(data.train_dl))
    for step, batch in enumerate(itertools.islice(batches, steps)):
        over = step / steps
        optimizer.param_groups[0]["lr"] = RATE * min(1, (over + 1e-3) / WARMUP) * (1 + math.cos(math.pi * over)) / 2
        loss = total_loss(network(batch.image, batch.valid), batch.label, batch.valid, PLAIN, None)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    network.eval()
    return classifier


def next_windows(
    strategy: dict[str, Any] | None,
    model: Path,
    pool: list[Pair],
    chips: Path,
    free: gpd.GeoDataFrame,
    number: int,
    rng: np.random.Generator,
) -> gpd.GeoDataFrame:
    """Return the windows to label next."""
    if strategy is None:
        return free.iloc[rng.permutation(len(free))[:number]]
    out = chips.with_suffix(".gpkg")
    images = [image for image, _ in pool]
    suggest_chips(
        model, images, out, number=number, labelled=chips, min_valid=1.0, overwrite=True, precision="fp32",
        **strategy,
    )  # fmt: skip
    found = gpd.read_file(out, layer="windows")
    return found.assign(image=[Path(name).name for name in found["image"]])


def run(name: str, seed: int, options: argparse.Namespace, work: Path) -> None:
    """Run one strategy from the first chips on, but for the rounds that are done."""
    pool = options.pool
    folder, journal = work / f"chips-{name}-{seed}", work / "runs.jsonl"
    done = [row for row in read_rows(journal) if (row["strategy"], row["seed"]) == (name, seed)]
    if len(done) > options.rounds:
        return
    shutil.rmtree(folder, ignore_errors=True)
    windows, rng = all_windows(pool, options.size), np.random.default_rng(seed)
    chosen = windows.iloc[rng.permutation(len(windows))[: options.chips]]
    for number in range(options.rounds + 1):
        cut(pool, chosen, folder, options.size)
        taken = ChipSet.open(folder).index
        if number < len(done):
            chosen = gpd.GeoDataFrame.from_features(done[number]["next"], crs=windows.crs)
            continue
        model = work / (f"first-{seed}" if number == 0 else f"model-{name}-{seed}")
        row = first_row(model, work) if number == 0 else None
        if row is None:
            classifier = train(folder, options.size, options.steps, seed, options.weights)
            classifier.save(model, overwrite=True, compute_metrics=False)
            data = cast("TrainingData", classifier.data)
            row = {"chips": len(taken), "model": model.name}
            row |= {
                kind: score(classifier.model.network, data, chips).mean_iou() for kind, chips in options.tests.items()
            }
        row |= {"strategy": name, "seed": seed}
        print({key: row[key] for key in ("strategy", "seed", "chips", *options.tests)}, flush=True)
        free = windows[~windows.representative_point().within(taken.union_all())]
        chosen = next_windows(
            STRATEGIES[name], model, pool, folder, free, options.chips, np.random.default_rng([seed, number])
        ) if number < options.rounds else chosen  # fmt: skip
        row["next"] = json.loads(chosen[["image", "geometry"]].to_json())["features"]
        with journal.open("a") as file:
            file.write(json.dumps(row) + "\n")


def first_row(model: Path, work: Path) -> dict[str, Any] | None:
    """Return the scores of the first model of a seed, which all strategies share; None if it is not trained yet."""
    rows = [row for row in read_rows(work / "runs.jsonl") if row["model"] == model.name]
    return {name: rows[0][name] for name in ("chips", *SCORES, "model")} if rows else None


def read_rows(journal: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in journal.read_text().splitlines()] if journal.exists() else []


def chips_needed(counts: list[float], scores: list[float], target: float) -> float:
    """Return at how many chips a curve first reaches a score, between its points by a line; infinite if never."""
    for (n0, s0), (n1, s1) in itertools.pairwise(zip(counts, scores, strict=True)):
        if s1 >= target:
            return n0 if s0 >= target else n0 + (n1 - n0) * (target - s0) / (s1 - s0)
    return math.inf


def report(rows: list[dict[str, Any]]) -> dict[str, Any]:
    """Print the curves, and return with how many times as many chips random has the same mean IoU."""
    result: dict[str, Any] = {}
    for kind, where in SCORES.items():
        curves: dict[str, dict[int, list[float]]] = {}
        for row in rows:
            curves.setdefault(row["strategy"], {}).setdefault(row["chips"], []).append(row[kind])
        counts = sorted({count for curve in curves.values() for count in curve})
        lines = []
        for count in counts:
            cells = [curve.get(count, []) for curve in curves.values()]
            lines.append([count, *(f"{np.mean(cell):.3f} ± {np.std(cell):.3f}" if cell else "" for cell in cells)])
        print(f"\nMean IoU of {where}, and its spread over seeds:\n")
        print(table(["chips", *curves], lines), "\n")
        means = {name: [float(np.mean(curve[count])) for count in sorted(curve)] for name, curve in curves.items()}
        sizes = {name: [float(count) for count in sorted(curve)] for name, curve in curves.items()}
        result |= {f"miou_{kind}_{name}": values[-1] for name, values in means.items()}
        target, last = means["random"][-1], sizes["random"][-1]
        for name in set(means) - {"random"}:
            needed = chips_needed(sizes[name], means[name], target)
            result[f"chips_of_random_over_{name}_{kind}"] = last / needed if math.isfinite(needed) else None
    return result


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--seeds", default="0,1,2")
    parser.add_argument("--rounds", type=int, default=3, help="after the first chips")
    parser.add_argument("--chips", type=int, default=8, help="of a round")
    parser.add_argument("--steps", type=int, default=120, help="of each training")
    parser.add_argument("--size", type=int, default=64, help="side of a chip in pixels")
    parser.add_argument("--strategies", default=",".join(STRATEGIES))
    parser.add_argument("--quick", action="store_true", help="one seed, three rounds")
    parser.add_argument("--work", type=Path, help="folder of chips and results, to resume; default: a temporary one")
    options = parser.parse_args()
    if options.data is None and not options.smoke:
        parser.error("DATA is missing: the folder of the real imagery.")
    if options.quick:
        options.seeds, options.rounds = options.seeds.partition(",")[0], 3
    if options.smoke:
        options.seeds, options.rounds, options.chips, options.steps, options.size = "0", 1, 4, 2, 32
    logging.getLogger("geopsp").setLevel(logging.ERROR)
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        options.pool, test = pairs(options.data, work, smoke=options.smoke)
        options.weights = None if options.smoke else lite0_weights(work)
        options.tests = {
            "own": test_chips(options.pool, work, options.size, stride=options.size * 7 // 4),
            "other": test_chips(test, work, options.size, stride=options.size),
        }
        for seed, name in itertools.product(map(int, options.seeds.split(",")), options.strategies.split(",")):
            run(name, seed, options, work)
        print(f"Encoder weights: {'ImageNet (lite0)' if options.weights else 'none'}.")
        print_json(report(read_rows(work / "runs.jsonl")))


if __name__ == "__main__":
    main()
