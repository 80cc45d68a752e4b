"""What the fully connected CRF is worth and costs: scores of maps of real scenes with and without, beside PointRend's.

    python benchmarks/crf.py DATA [--only buildings,dubai] [--chips N] [--epochs E] [--side PIXELS] [--work DIR]
    python benchmarks/crf.py --smoke

DATA holds folders `buildings` and `dubai` (see docs/benchmarks.md). Two PSPNets are trained for each data set, without
and with PointRend, on the same random chips; the CRF's parameters are fitted on the validation chips. Mapped and scored
are squares of PIXELS in the middle of scenes that were not trained on. Costs are processor seconds, so that other
programs on the machine disturb them less. Prints a table and, last, one line of JSON. `--smoke` makes up its data, and
starts from random weights.
"""

from __future__ import annotations

import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from common import lite0_weights, option_parser, print_json, table, toy_data

from geopsp import ChipSet, Confusion, CRFOptions, PSPNetClassifier, classify_pixels, export_training_data, prepare_data
from geopsp.core.jit import compile_ahead
from geopsp.core.legend import IGNORE_INDEX
from geopsp.inference.tile_ops import COMPILED
from geopsp.models.mean_field import COMPILED as COMPILED_FOR_CRF
from geopsp.training.metrics import boundary_counts, boundary_width

BACKBONE = "tu-tf_efficientnet_lite0"
HEADER = ["data", "map", "mIoU", "boundary IoU", "CPU s/Mpx", "Mpx/s of the plain map's"]


@dataclass(frozen=True)
class Data:
    """Images with labels, to train and to test on."""

    name: str
    train: tuple[tuple[Path, Path], ...]
    test: tuple[tuple[Path, Path], ...]


def data_sets(folder: Path) -> list[Data]:
    """Return the data sets, split by scene."""
    area = {i: (folder / f"buildings/area{i}.tif", folder / f"buildings/area{i}_buildings.geojson") for i in (1, 4, 5)}
    scene = {i: (folder / f"dubai/scene{i}.tif", folder / f"dubai/scene{i}_labels.tif") for i in (1, 3, 4, 6, 7, 8)}
    return [
        Data("buildings", (area[1], area[4]), (area[5],)),
        Data("dubai", tuple(scene[i] for i in (4, 6, 7, 8)), (scene[1], scene[3])),
    ]


def middle(image: Path, side: int) -> tuple[float, float, float, float]:
    """Return the extent of a square of so many pixels around the valid pixels' middle."""
    with rasterio.open(image) as dataset:
        factor = max(1, max(dataset.shape) // 512)
        shape = (dataset.height // factor, dataset.width // factor)
        rows, cols = np.nonzero(dataset.dataset_mask(out_shape=shape))
        x, y = dataset.transform @ (np.median(cols) * factor, np.median(rows) * factor)
        half = side / 2 * dataset.res[0]
        box = dataset.bounds
    return max(x - half, box.left), max(y - half, box.bottom), min(x + half, box.right), min(y + half, box.top)


def train(data: Data, work: Path, options: Any, weights: Path | None, *, pointrend: bool) -> PSPNetClassifier:
    """Train a PSPNet on random chips of the training images."""
    folders = [work / data.name / image.stem for image, _ in data.train]
    for (image, labels), folder in zip(data.train, folders, strict=True):
        if not folder.exists():
            count = max(1, options.chips // len(folders))
            export_training_data(image, labels, folder, tile_size=options.size, grid=False, random_chips=count)
    chips = prepare_data(folders, batch_size=8, val_split_pct=0.2)
    network = {"backbone": BACKBONE, "output_stride": 16, "encoder_weights": weights and str(weights)}
    model = PSPNetClassifier(chips, pointrend=pointrend, **network)
    model.fit(options.epochs, lr=1e-3, monitor="valid_miou")
    return model


def score(maps: list[Path], tests: list[ChipSet], model: PSPNetClassifier) -> Confusion:
    """Compare maps with the labels of test chips."""
    legend = model.model.legend
    found, boundary = Confusion(legend), torch.zeros(len(legend), 2, dtype=torch.int64)
    index = np.full(256, IGNORE_INDEX, np.uint8)
    index[list(legend.codes)] = np.arange(len(legend))
    for path, chips in zip(maps, tests, strict=True):
        with rasterio.open(path) as dataset:
            for label in chips.with_legend(legend).index["label"]:
                with rasterio.open(label) as chip:
                    window = dataset.window(*chip.bounds).round_lengths().round_offsets()
                    truth = index[chip.read(1)]
                    predicted = index[dataset.read(1, window=window, boundless=True, fill_value=IGNORE_INDEX)]
                found.add(truth, predicted)
                pair = (torch.from_numpy(each.astype(np.int64))[None] for each in (truth, predicted))
                boundary += boundary_counts(*pair, len(legend), boundary_width(truth.shape[-1]))
    found.boundary = boundary.numpy()
    return found


def run(data: Data, work: Path, options: Any, weights: Path | None) -> list[list[Any]]:
    """Train, fit, map and score one data set; return a row for each kind of map."""
    tests, extents = [], [middle(image, options.side) for image, _ in data.test]
    for (image, labels), extent in zip(data.test, extents, strict=True):
        folder = work / data.name / f"test-{image.stem}"
        if not folder.exists():
            export_training_data(image, labels, folder, tile_size=options.size, extent=extent)
        tests.append(ChipSet.open(folder))
    plain = train(data, work, options, weights, pointrend=False)
    fitted = plain.fit_crf()
    print({name: value for name, value in fitted.items() if value is not None}, flush=True)
    kinds: dict[str, bool | CRFOptions] = {
        "plain": False, "CRF, fitted": True, "CRF, defaults": CRFOptions(**options.defaults), "PointRend": False,
    }  # fmt: skip
    rows: list[list[Any]] = []
    for kind, crf in kinds.items():
        model = train(data, work, options, weights, pointrend=True) if kind == "PointRend" else plain
        maps, seconds, pixels = [], 0.0, 0
        warm = middle(data.test[0][0], options.size)  # the first map of a process is slower
        classify_pixels(data.test[0][0], model, work / data.name / "warm.tif", extent=warm, crf=crf, overwrite=True)
        for (image, _), extent in zip(data.test, extents, strict=True):
            maps.append(work / data.name / f"{kind}-{image.stem}.tif")
            start = time.process_time()
            classify_pixels(image, model, maps[-1], extent=extent, crf=crf, overwrite=True)
            seconds += time.process_time() - start
            with rasterio.open(maps[-1]) as dataset:
                pixels += dataset.width * dataset.height
        scores, cost = score(maps, tests, model), seconds / pixels * 1e6
        ratio = rows[0][4] / cost if rows else 1.0
        rows.append([data.name, kind, scores.mean_iou(), scores.mean_boundary_iou(), cost, ratio])
        print(table(HEADER, rows[-1:]), flush=True)
    return rows


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("data", type=Path, nargs="?")
    parser.add_argument("--only", default="buildings,dubai")
    parser.add_argument("--chips", type=int, default=160, help="random chips to train on")
    parser.add_argument("--epochs", type=int, default=2)
    parser.add_argument("--side", type=int, default=1536, help="side of the square that is mapped, in pixels")
    parser.add_argument("--size", type=int, default=256, help="side of a chip, in pixels")
    parser.add_argument("--work", type=Path, help="folder for chips and maps; default: a temporary one")
    options = parser.parse_args()
    if options.data is None and not options.smoke:
        parser.error("DATA is missing: the folder of the real imagery.")
    compile_ahead((*COMPILED, *COMPILED_FOR_CRF))
    options.defaults = {
        "appearance_weight": 4.0, "appearance_sigma": 4.0, "color_sigma": 0.3, "smoothness_weight": 1.0,
        "smoothness_sigma": 1.0, "iterations": 5,
    }  # fmt: skip
    with tempfile.TemporaryDirectory() as scratch:
        work = options.work or Path(scratch)
        work.mkdir(parents=True, exist_ok=True)
        chosen = options.only.split(",")
        if options.smoke:
            options.data = toy_data(work / "toy", ("area1", "area4", "area5"))
            options.chips, options.epochs, options.side, options.size, chosen = 8, 1, 96, 32, ["buildings"]
        weights = None if options.smoke else lite0_weights(work)
        rows = []
        for data in data_sets(options.data):
            if data.name in chosen:
                rows += run(data, work, options, weights)
                print(table(HEADER, rows[-4:]), flush=True)
        print(f"\nEncoder weights: {'ImageNet (lite0)' if weights else 'none'}")
        print(table(HEADER, rows))
        names = {"plain": "plain", "CRF, fitted": "crf", "CRF, defaults": "default_crf", "PointRend": "pointrend"}
        print_json({f"{row[0]}_{names[row[1]]}_boundary_miou": row[3] for row in rows})


if __name__ == "__main__":
    main()
