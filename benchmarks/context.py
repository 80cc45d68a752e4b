"""Effect of pyramid pooling on classes that only context tells apart: boats and cars of the sample data.

    python benchmarks/context.py [--epochs N] [--seeds 0,1] [--only NAMES] [--smoke]

Trains the same network with pyramid sizes (1, 2, 3, 6) and with none, on the same chips, for the same epochs, and
scores both on the held-out scene. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import option_parser, print_json, table

from geopsp import PSPNetClassifier, prepare_data
from geopsp.cli.demo import (
    BATCH_SIZE,
    EPOCHS,
    OUTPUT_STRIDE,
    SCENES,
    SIMILAR_CLASSES,
    TEST,
    export_sample,
    find_sample_data,
)
from geopsp.models.build import PYRAMID_SIZES

NETWORKS = {
    "pyramid, U-Net": {"pyramid_sizes": PYRAMID_SIZES, "use_unet": True},
    "no pyramid, U-Net": {"pyramid_sizes": (), "use_unet": True},
    "pyramid, plain": {"pyramid_sizes": PYRAMID_SIZES, "use_unet": False},
    "no pyramid, plain": {"pyramid_sizes": (), "use_unet": False},
}


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", default="42")
    parser.add_argument("--only", default=",".join(NETWORKS).replace(", ", "+"), help="NAME+NAME,NAME+NAME ...")
    options = parser.parse_args()
    if options.smoke:
        options.epochs, options.only = 1, "pyramid+plain"
    names = [name for name in NETWORKS if name.replace(", ", "+") in options.only.split(",")]
    sample, rows, result = find_sample_data(None), [], {}
    with tempfile.TemporaryDirectory() as scratch:
        test = export_sample(sample, (TEST,), "test_labels.gpkg", Path(scratch) / "test")
        chips = test if options.smoke else export_sample(sample, SCENES, "labels.gpkg", Path(scratch) / "chips")
        for name in names:
            scores = []
            for seed in map(int, options.seeds.split(",")):
                data = replace(prepare_data(chips.folders, batch_size=BATCH_SIZE), seed=seed)
                if options.smoke:
                    data = replace(data, train_rows=data.train_rows[:8], valid_rows=data.valid_rows[:2])
                model = PSPNetClassifier(
                    data, "resnet18", encoder_weights=None, class_balancing=True, output_stride=OUTPUT_STRIDE,
                    **NETWORKS[name],
                )  # fmt: skip
                model.fit(options.epochs)
                found = model.evaluate(test)
                iou = dict(zip(found.legend.names, found.iou(), strict=True))
                ious = [iou[name] for name in SIMILAR_CLASSES]
                scores.append([found.mean_iou(), *ious, found.confused(*SIMILAR_CLASSES)])
            mean, spread = np.mean(scores, axis=0), np.std(scores, axis=0)
            rows.append([name, *(f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True))])
            result |= {f"{name}: miou": float(mean[0]), f"{name}: boat/car confused": float(mean[3])}
    print(table(["network", "mIoU", "boat IoU", "car IoU", "boat/car confused"], rows))
    print_json(result)


if __name__ == "__main__":
    main()
