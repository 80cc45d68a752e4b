"""What pyramid pooling is for: boats and cars of the sample data, with and without it.

    python benchmarks/context.py [--epochs N] [--seeds 0,1] [--work DIR]

Trains the same network with pyramid sizes (1, 2, 3, 6) and with none, on the same chips, for the same epochs, and
scores both on the held-out scene. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from common import finish, table

from geopsp import PSPNetClassifier, prepare_data
from geopsp.cli.demo import ALIKE, BATCH, EPOCHS, OUTPUT_STRIDE, RATE, SCENES, TEST, export_sample, find_sample_data
from geopsp.models.build import PYRAMID_SIZES

NETWORKS = {
    "pyramid, U-Net": {"pyramid_sizes": PYRAMID_SIZES, "use_unet": True},
    "no pyramid, U-Net": {"pyramid_sizes": (), "use_unet": True},
    "pyramid, plain": {"pyramid_sizes": PYRAMID_SIZES, "use_unet": False},
    "no pyramid, plain": {"pyramid_sizes": (), "use_unet": False},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=EPOCHS)
    parser.add_argument("--seeds", default="42")
    parser.add_argument("--only", default=",".join(NETWORKS).replace(", ", "+"))
    options = parser.parse_args()
    sample, rows, result = find_sample_data(None), [], {}
    with tempfile.TemporaryDirectory() as scratch:
        chips = export_sample(sample, SCENES, "labels.gpkg", Path(scratch) / "chips")
        test = export_sample(sample, (TEST,), "test_labels.gpkg", Path(scratch) / "test")
        for name, shape in NETWORKS.items():
            if name.replace(", ", "+") not in options.only.split(","):
                continue
            found = []
            for seed in map(int, options.seeds.split(",")):
                data = replace(prepare_data(chips.folders, batch_size=BATCH), seed=seed)
                model = PSPNetClassifier(
                    data,
                    "resnet18",
                    encoder_weights=None,
                    class_balancing=True,
                    output_stride=OUTPUT_STRIDE,
                    **shape,
                )
                model.fit(options.epochs, RATE, monitor="valid_miou")
                scores = model.evaluate(test)
                iou = dict(zip(scores.legend.names, scores.iou(), strict=True))
                found.append([scores.mean_iou(), iou[ALIKE[0]], iou[ALIKE[1]], scores.confused(*ALIKE)])
            mean, spread = np.mean(found, axis=0), np.std(found, axis=0)
            rows.append([name, *(f"{m:.3f} ± {s:.3f}" for m, s in zip(mean, spread, strict=True))])
            result |= {f"{name}: miou": float(mean[0]), f"{name}: boat/car confused": float(mean[3])}
    print(table(["network", "mIoU", "boat IoU", "car IoU", "boat/car confused"], rows))
    finish(result)


if __name__ == "__main__":
    main()
