"""Time and memory of drawing a sample, beside one read of the map by rasterio.

    python benchmarks/sample.py [--size 10000] [--repeats 3] [--folder FOLDER] [--smoke]

A map of four classes, patches of 20 x 20 pixels, compressed, in tiles of 512 pixels. It is drawn from with its class
tag, in two passes, and without, in three; and from a map of four times the height, for the memory. rasterio reads the
same file in as many threads, strip by strip. Each run is a process of its own, the median counts; compiling is done
before. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import json
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
from affine import Affine
from common import measure, medians, option_parser, peak_mb, print_json, table
from rasterio.windows import Window

from geopsp.core.legend import CLASSES_TAG, Legend
from geopsp.core.parallel import cpu_count

LEGEND = Legend.from_names({0: "background", 1: "water", 2: "forest", 3: "building"})
SHARES = [0.5, 0.1, 0.39, 0.01]
PATCH, BLOCK = 20, 512


def write_map(path: Path, width: int, height: int, *, ours: bool) -> None:
    """Write a map of random patches, a row of blocks at a time."""
    rng = np.random.default_rng(0)
    profile = {
        "driver": "GTiff", "width": width, "height": height, "count": 1, "dtype": "uint8", "crs": "EPSG:32633",
        "transform": Affine(10, 0, 300_000, 0, -10, 5_600_000), "nodata": 255, "tiled": True, "blockxsize": BLOCK,
        "blockysize": BLOCK, "compress": "deflate", "num_threads": "all_cpus",
    }  # fmt: skip
    with rasterio.open(path, "w", **profile) as dataset:
        for row in range(0, height, BLOCK):
            rows = min(BLOCK, height - row)
            patches = rng.choice(4, p=SHARES, size=(-(-rows // PATCH), -(-width // PATCH))).astype(np.uint8)
            codes = patches.repeat(PATCH, 0)[:rows].repeat(PATCH, 1)[:, :width]
            dataset.write(codes, 1, window=Window(0, row, width, rows))
        if ours:
            dataset.update_tags(**{CLASSES_TAG: json.dumps(LEGEND.to_json())})


def run(way: str, path: str, out: str) -> dict[str, Any]:
    """Read the map, or draw from it, and return the seconds and the peak memory."""
    if way == "read":
        start = time.perf_counter()
        read_map(path)
    else:
        from geopsp import draw_sample
        from geopsp.assessment.sampling.draw_sample import COMPILED
        from geopsp.core.jit import compile_ahead

        compile_ahead(COMPILED)
        start = time.perf_counter()
        draw_sample(path, out, size=1000, overwrite=True)
    return {"seconds": time.perf_counter() - start, "peak_mb": peak_mb()}


def read_map(path: str) -> None:
    """Read all pixels by rasterio, in threads that have the file open each."""
    local = threading.local()

    def read(row: int) -> None:
        if not hasattr(local, "dataset"):
            local.dataset = rasterio.open(path)
        local.dataset.read(1, window=Window(0, row, local.dataset.width, min(BLOCK, local.dataset.height - row)))

    with rasterio.open(path) as dataset, ThreadPoolExecutor(cpu_count()) as pool:
        list(pool.map(read, range(0, dataset.height, BLOCK)))


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--size", type=int, default=10_000)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="for the maps; default: a temporary one")
    options = parser.parse_args()
    size, repeats = (600, 1) if options.smoke else (options.size, options.repeats)
    with tempfile.TemporaryDirectory(dir=options.folder) as name:
        folder = Path(name)
        maps = {"ours": (size, True), "others": (size, False), "high": (4 * size, True)}
        for kind, (height, ours) in maps.items():
            write_map(folder / f"{kind}.tif", size, height, ours=ours)
        ways = {"read": ("read", "ours"), **{kind: ("draw", kind) for kind in maps}}
        found = {
            key: medians([
                measure(__file__, run, way, folder / f"{kind}.tif", folder / "points.gpkg", smoke=options.smoke)
                for _ in range(repeats)
            ])
            for key, (way, kind) in ways.items()
        }  # fmt: skip
    words = {
        "read": "rasterio reads it once", "ours": "sample of a map of geopsp", "others": "sample of a map of others",
        "high": "sample of four times the height",
    }  # fmt: skip
    rows = [
        [words[key], each["seconds"], each["seconds"] / found["read"]["seconds"], f"{each['peak_mb']:.0f}"]
        for key, each in found.items()
    ]
    print(f"{size:,} x {size:,} pixels, {cpu_count()} threads\n")
    print(table(["", "s", "times one read", "peak MB"], rows))
    one_read, peak = found["read"]["seconds"], found["ours"]["peak_mb"]
    result = {f"{kind}_times_one_read": found[kind]["seconds"] / one_read for kind in ("ours", "others")}
    print_json(result | {"memory_of_four_times_the_height": found["high"]["peak_mb"] / peak})


if __name__ == "__main__":
    if "--run" in sys.argv:
        print(json.dumps(run(*sys.argv[2:])))
    else:
        main()
