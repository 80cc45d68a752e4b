"""What it costs that outputs are forced to the disk: chips, a map and polygons with GEOPSP_SYNC=1 and 0."""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from common import measure, medians, option_parser, print_json, table
from rasterio.transform import from_origin

SIDE, SMOKE_SIDE, TILE = 2048, 512, 64

STEPS = ("chips", "map", "polygons")


def make_inputs(folder: Path, side: int) -> None:
    """Write an image, its labels and a saved network."""
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "dtype": "uint8", "height": side, "width": side, "crs": "EPSG:32632"}
    profile |= {"transform": from_origin(600000, 5300000, 1, 1), "tiled": True, "compress": "deflate"}
    classes = np.kron(rng.integers(0, 3, (side // 16, side // 16)), np.ones((16, 16))).astype("uint8")
    with rasterio.open(folder / "labels.tif", "w", count=1, **profile) as dataset:
        dataset.write(classes, 1)
    with rasterio.open(folder / "image.tif", "w", count=3, **profile) as dataset:
        for band in (1, 2, 3):
            dataset.write((classes * 40 + rng.integers(0, 30, classes.shape)).astype("uint8"), band)


def save_network(folder: Path) -> None:
    """Save a tiny network that nobody trained, of chips that are there."""
    from geopsp import PSPNetClassifier, prepare_data

    data = prepare_data(folder / "chips", batch_size=4)
    PSPNetClassifier(data, "tu-test_resnet", encoder_weights=None).save(folder / "model")


def one_run(step: str, folder: str, out: str, sync: str) -> dict[str, Any]:
    """Return the seconds of one step."""
    from geopsp import classify_pixels, export_training_data, raster_to_polygons

    os.environ["GEOPSP_SYNC"] = sync
    place, target = Path(folder), Path(out)
    start = time.perf_counter()
    if step == "chips":
        export_training_data(place / "image.tif", place / "labels.tif", target / "chips", tile_size=TILE)
    elif step == "map":
        classify_pixels(place / "image.tif", place / "model", target / "map.tif", device="cpu")
    else:
        raster_to_polygons(place / "labels.tif", target / "areas.gpkg")
    return {"seconds": time.perf_counter() - start}


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", help="folder on the disk to measure; default: that of temporary files")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(one_run(*options.run)))
        return
    rows, result = [], {}
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        make_inputs(folder, SMOKE_SIDE if options.smoke else SIDE)
        from geopsp import export_training_data

        export_training_data(folder / "image.tif", folder / "labels.tif", folder / "chips", tile_size=TILE)
        save_network(folder)
        for step in STEPS:
            runs: dict[str, list[dict[str, Any]]] = {"0": [], "1": []}
            for number in range(1 + (1 if options.smoke else options.rounds)):  # the first one may have to compile
                for sync, found in runs.items():
                    os.sync()  # what was written before is not waited for
                    out = tempfile.mkdtemp(dir=folder)
                    run = measure(__file__, one_run, step, folder, out, sync, smoke=options.smoke)
                    if number:
                        found.append(run)
            without, synced = (medians(runs[sync])["seconds"] for sync in ("0", "1"))
            rows.append([step, without, synced, synced / without])
            result[step] = synced / without
    print(table(["step", "s without", "s synced", "ratio"], rows))
    print_json(result)


if __name__ == "__main__":
    main()
