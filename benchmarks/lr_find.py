"""Worth of `lr_find`: the mIoU at the rate that it suggests, against the best rate of a sweep and the rates by rule.

    python benchmarks/lr_find.py DATA [--cases NAMES] [--seeds 0,1,2,3,4] [--train-steps N] [--work DIR]
    python benchmarks/lr_find.py --smoke

DATA holds folders `buildings`, `dubai` and `landsat_nc` (see docs/benchmarks.md). A case is a set of chips and a
backbone in the preset "fast": ResNet-18 from random weights, or EfficientNet-Lite0 with ImageNet weights. Scores are of
validation chips from the same scenes. Runs are kept in DIR/runs.jsonl: an interrupted benchmark resumes, and several
can fill one file.
Prints a table and, last, one line of JSON: for each case the mean over seeds of the mIoU at the suggested rates over
that at the best rate of the sweep, the rule's over the same, their means, and the least of the first.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from accuracy import BUILDINGS, DUBAI, halved
from common import Journal, lite0_weights, option_parser, print_json, table, toy_data

from geopsp import PSPNetClassifier, export_training_data, prepare_data
from geopsp.cli.demo import export_sample
from geopsp.core.sample_data import SCENES, find_sample_data
from geopsp.training.training_data import TrainingData

SWEEP = (3e-4, 1e-3, 2e-3, 5e-3, 1e-2)
FOUND, RULE = "found", "rule"
VALIDATION, BATCH = 0.25, 8
RESNET, LITE0 = "resnet18", "tu-tf_efficientnet_lite0"


@dataclass(frozen=True)
class Case:
    """Chips of one image, and a backbone."""

    image: str
    backbone: str
    size: int = 64
    """Side of the crops in pixels; chips are twice as large."""


CASES = {
    f"{image}, {backbone}": Case(image, backbone, size)
    for image, backbone, size in (
        ("dubai 6", RESNET, 64),
        ("dubai 6", LITE0, 64),
        ("buildings 5", RESNET, 64),
        ("buildings 5", LITE0, 64),
        ("landsat", RESNET, 32),
        ("sample", LITE0, 64),
    )
}


def export(data: Path | None, case: Case, work: Path) -> TrainingData:
    """Return the chips of a case."""
    out = work / f"{case.image}-{2 * case.size}"
    if not out.exists():
        kind, _, number = case.image.partition(" ")
        if kind == "sample":
            export_sample(find_sample_data(), SCENES[:1], "labels.gpkg", out)
        else:
            assert data is not None
            if kind == "landsat":
                image, labels = data / "landsat_nc/lsat7_2000.tif", data / "landsat_nc/landclass96.tif"
            else:
                folder, image_name, labels_name = DUBAI if kind == "dubai" else BUILDINGS
                image = halved(data / folder / image_name.format(number), work / f"{case.image}.tif")
                labels = data / folder / labels_name.format(number)
            export_training_data(image, labels, out, tile_size=2 * case.size)
    return prepare_data(out, case.size, VALIDATION, BATCH, cache=work / "cache")


def run(
    data: TrainingData, backbone: str, weights: Path | None, lr: float | str, options: argparse.Namespace
) -> dict[str, Any]:
    """Train at a rate, the rates by rule, or the rate that `lr_find` suggests; return the rate and the mIoU."""
    model = PSPNetClassifier(data, backbone, preset="fast", encoder_weights=weights)
    if lr == FOUND:
        rate: float | None = model.lr_find(allow_plot=False, steps=options.steps)
    else:
        rate = None if lr == RULE else float(lr)
    epochs = max(1, round(options.train_steps * BATCH / len(data.train_rows)))
    model.fit(epochs, rate, checkpoint=False, calibrate=None)
    return {"miou": model.evaluate().mean_iou(), "used": rate, "epochs": epochs}


def compare(options: argparse.Namespace, work: Path) -> None:
    """Train all cases with all seeds at all rates, but for the runs that are done; print results."""
    journal = Journal(work)
    lite0 = None if options.smoke else lite0_weights(work)
    for seed, name in itertools.product(map(int, options.seeds.split(",")), options.cases.split(";")):
        case = CASES[name]
        data = export(options.data, case, work)
        for lr in (FOUND, RULE, *options.sweep):
            key = {"case": name, "seed": seed, "lr": lr, "steps": options.steps, "train_steps": options.train_steps}
            weights = lite0 if case.backbone == LITE0 else None
            journal.run(key, partial(run, replace(data, seed=seed), case.backbone, weights, lr, options))
    report(journal.rows())


def report(runs: list[dict[str, Any]]) -> None:
    """Print the mean over seeds of each case, and the ratios."""
    rows, result = [], {}
    for name in dict.fromkeys(row["case"] for row in runs):
        scores: dict[Any, list[float]] = {}
        for row in runs:
            if row["case"] == name:
                scores.setdefault(row["lr"], []).append(row["miou"])
        mean = {lr: float(np.mean(each)) for lr, each in scores.items()}
        found = [row["used"] for row in runs if row["case"] == name and row["lr"] == FOUND]
        best = max((lr for lr in mean if lr not in {FOUND, RULE}), key=lambda lr: mean[lr])
        result[name] = {"found_over_best": round(mean[FOUND] / mean[best], 4),
                        "rule_over_best": round(mean[RULE] / mean[best], 4)}  # fmt: skip
        suggested = f"{min(found):.1e} to {max(found):.1e}"
        at_rates = " ".join(f"{mean[lr]:.3f}" for lr in sorted(lr for lr in mean if lr not in {FOUND, RULE}))
        rows.append([name, suggested, mean[FOUND], mean[RULE], f"{best:g}", mean[best], at_rates, len(found)])
    titles = [
        "chips, backbone",
        "suggested",
        "mIoU there",
        "mIoU by rule",
        "best rate",
        "mIoU there",
        "all of the sweep",
    ]
    print(table([*titles, "seeds"], rows))
    ratios = {name: [case[name] for case in result.values()] for name in ("found_over_best", "rule_over_best")}
    means = {name: float(np.mean(each)) for name, each in ratios.items()}
    print_json({"cases": result, **means, "least_found_over_best": min(ratios["found_over_best"])})


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--cases", default=";".join(CASES), help="of: %(default)s")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--steps", type=int, default=160, help="of lr_find")
    parser.add_argument("--train-steps", type=int, default=96, help="of each training")
    parser.add_argument("--work", type=Path, help="folder of chips and results, to resume; default: a temporary one")
    options = parser.parse_args()
    if options.data is None and not options.smoke:
        parser.error("DATA is missing: the folder of the real imagery.")
    options.sweep = SWEEP
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        if options.smoke:
            options.data = toy_data(work / "toy", ("area5",), 1536)
            options.cases, options.seeds, options.steps, options.train_steps = f"buildings 5, {RESNET}", "0", 10, 2
            options.sweep = SWEEP[2:3]
        compare(options, work)


if __name__ == "__main__":
    main()
