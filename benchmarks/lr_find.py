"""Worth of `lr_find`: the mIoU at the rate that it suggests, against the best rate of a sweep and the rates by rule.

    python benchmarks/lr_find.py [--chips FOLDER ...] [--backbones NAMES] [--seeds 0,1,2,3,4] [--epochs N] [--smoke]

Chip folders default to those of the sample data. Each pair of chips and backbone is a case. Prints a table and, last,
one line of JSON: for each case the mean over seeds of mIoU(suggested) / mIoU(best of the sweep), and the least of them.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import option_parser, print_json, table

from geopsp import PSPNetClassifier, prepare_data
from geopsp.cli.demo import OUTPUT_STRIDE, export_sample
from geopsp.core.sample_data import SCENES, find_sample_data

SWEEP = (1e-4, 3e-4, 1e-3, 2e-3, 5e-3, 1e-2)


def score(data, backbone, lr, *, epochs, steps):
    """Return the mIoU on the validation chips, and the rate; `lr` is one rate, "found", or None for the rule."""
    model = PSPNetClassifier(data, backbone, encoder_weights="auto", output_stride=OUTPUT_STRIDE)
    rate = model.lr_find(allow_plot=False, steps=steps) if lr == "found" else lr
    model.fit(epochs, rate)
    return model.evaluate().mean_iou(), rate


def run_case(folder, backbone, seeds, options):
    """Return the scores by rate, (seeds,) each, and the rates that were suggested."""
    scores, found = {rate: [] for rate in ("found", None, *options.sweep)}, []
    for seed in seeds:
        data = replace(prepare_data(folder, chip_size=options.chip_size), seed=seed)
        if options.smoke:
            data = replace(data, train_rows=data.train_rows[:16], valid_rows=data.valid_rows[:4])
        for rate, kept in scores.items():
            miou, used = score(data, backbone, rate, epochs=options.epochs, steps=options.steps)
            kept.append(miou)
            if rate == "found":
                found.append(used)
    return scores, found


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--chips", nargs="*", default=[])
    parser.add_argument("--backbones", default="resnet18,tu-tf_efficientnet_lite0")
    parser.add_argument("--seeds", default="0,1,2,3,4")
    parser.add_argument("--epochs", type=int, default=8)
    parser.add_argument("--steps", type=int, default=100)
    parser.add_argument("--chip-size", type=int, default=None)
    options = parser.parse_args()
    options.sweep = SWEEP
    if options.smoke:
        options.backbones, options.seeds, options.epochs, options.chip_size = "tu-test_resnet", "0", 1, 64
        options.steps = 12
        options.sweep = SWEEP[2:3]
    rows, result = [], {}
    with tempfile.TemporaryDirectory() as scratch:
        folders = options.chips
        if not folders:
            folders = [str(Path(scratch) / "chips")]
            export_sample(find_sample_data(), SCENES[:1], "labels.gpkg", Path(folders[0]))
        for folder in folders:
            for backbone in options.backbones.split(","):
                scores, found = run_case(folder, backbone, [int(seed) for seed in options.seeds.split(",")], options)
                mean = {rate: float(np.mean(kept)) for rate, kept in scores.items()}
                best = max(options.sweep, key=mean.get)
                name = f"{Path(folder).name}, {backbone}"
                result[name] = {"found_over_best": round(mean["found"] / mean[best], 4),
                                "rule_over_best": round(mean[None] / mean[best], 4)}  # fmt: skip
                suggested = f"{min(found):.1e} to {max(found):.1e}"
                rows.append(
                    [name, suggested, f"{mean['found']:.4f}", f"{mean[None]:.4f}", f"{best:g}", f"{mean[best]:.4f}"]
                )
    print(table(["chips, backbone", "suggested", "mIoU there", "mIoU by rule", "best rate", "mIoU there"], rows))
    print_json({"cases": result, "found_over_best": min(case["found_over_best"] for case in result.values())})


if __name__ == "__main__":
    main()
