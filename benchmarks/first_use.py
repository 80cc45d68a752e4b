"""Time of the first `geopsp polygonize` and `geopsp predict` after installation, beside every later one.

    python benchmarks/first_use.py [--rounds 1] [--smoke]

numba compiles a function when it is first called, and keeps the machine code on disk for later processes. Each round
runs each command in new processes: first with an empty NUMBA_CACHE_DIR (cold), then with the one that this run filled
(warm). `polygonize` takes the labels of the sample data's test scene as a class raster, `predict` the scene itself and
a small PSPNet with random weights. Python and the libraries are in the file cache of the system. The median counts. On
a busy machine compare the CPU seconds. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import rasterio
from common import medians, option_parser, print_json, table

from geopsp.core.sample_data import TEST, find_sample_data

TILE = 128
SMOKE_SIDE = 96
IMPORTS = "import geopsp.inference.run_job, geopsp.polygons.raster_to_polygons"


def write_inputs(folder: Path, size: int | None) -> None:
    """Write scene.tif, its labels as the class raster classes.tif, and the folder of a model.

    Args:
        folder: Where.
        size: Side of the upper left part of the scene that is used; None: the whole scene.
    """
    from geopsp import Scene
    from geopsp.core.grid import Window
    from geopsp.labels.read_labels import read_labels

    sample = find_sample_data()
    scene = Scene.open(sample / TEST)
    grid = scene.grid if size is None else scene.grid.crop(Window(0, 0, size, size))
    codes = read_labels(f"{sample / 'test_labels.gpkg'}|layername=landcover", class_field="landcover").burn(grid).codes
    with rasterio.open(sample / TEST) as source:
        profile = source.profile | {"width": grid.width, "height": grid.height}
        with rasterio.open(folder / "scene.tif", "w", **profile) as target:
            target.write(source.read(window=((0, grid.height), (0, grid.width))))
            target.descriptions = source.descriptions
    profile |= {"count": 1, "dtype": "uint8", "nodata": 255, "photometric": "minisblack"}
    with rasterio.open(folder / "classes.tif", "w", **profile) as target:
        target.write(codes, 1)
    save_random_model(scene, folder / "model")


def save_random_model(scene: Any, folder: Path) -> None:
    """Save a PSPNet with random weights for the bands of a scene."""
    import numpy as np
    import torch

    from geopsp.core.bands import BandStats
    from geopsp.core.legend import Legend
    from geopsp.models.build import ModelSpec, build_network
    from geopsp.models.saved_model import TrainedModel, save_model

    torch.manual_seed(0)
    count = len(scene.bands)
    legend = Legend.from_names({code: f"class {code}" for code in range(6)})
    spec = ModelSpec("resnet18", count, 6, decoder="plain")
    mean, m2, low, high = (np.full(count, value) for value in (1000.0, 9 * 500.0**2, 0.0, 10_000.0))
    statistics = BandStats(9, mean, m2, low, high)
    network = build_network(spec).eval()
    save_model(
        TrainedModel(
            spec, legend, scene.bands, statistics, str(scene.dtype), TILE, scene.cell_size, "metre", network=network
        ),
        folder,
    )


def run_command(arguments: tuple[str | Path, ...], cache: Path) -> dict[str, float]:
    """Run geopsp with a cache folder; return wall and CPU seconds, and what the cache holds afterwards.

    CPU seconds are those of the command and of the processes that it starts to compile.
    """
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    command = [sys.executable, "-m", "geopsp.cli", *map(str, arguments), "--overwrite"]
    environment = os.environ | {"NUMBA_CACHE_DIR": str(cache)}
    done = subprocess.run(command, check=False, capture_output=True, text=True, env=environment)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{done.stderr}")
    cpu = (after.ru_utime - before.ru_utime) + (after.ru_stime - before.ru_stime)
    functions, versions = (len(list(cache.rglob(pattern))) for pattern in ("*.nbi", "*.nbc"))
    return {"wall": wall, "cpu": cpu, "functions": functions, "versions": versions}


def cold_and_warm(arguments: tuple[str | Path, ...], folder: Path) -> dict[str, dict[str, float]]:
    """Run a command with an empty cache and again with the cache that it filled."""
    cache = Path(tempfile.mkdtemp(dir=folder))
    found = {"cold": run_command(arguments, cache), "warm": run_command(arguments, cache)}
    if not found["cold"]["functions"]:
        raise SystemExit(f"Nothing was compiled into {cache}. Does NUMBA_CACHE_DIR still choose the cache?")
    return found


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=1)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        write_inputs(folder, SMOKE_SIDE if options.smoke else None)
        subprocess.run([sys.executable, "-c", IMPORTS], check=True)  # files come into the system's cache
        commands: dict[str, tuple[str | Path, ...]] = {
            "polygonize": ("polygonize", folder / "classes.tif", "--out", folder / "polygons.gpkg")
        }
        if not options.smoke:
            commands["predict"] = ("predict", folder / "model", folder / "scene.tif", "--out", folder / "map.tif")
        runs: dict[str, list[dict[str, dict[str, float]]]] = {name: [] for name in commands}
        for _ in range(1 if options.smoke else options.rounds):
            for name, arguments in commands.items():
                runs[name].append(cold_and_warm(arguments, folder))
    ways = {(name, cache): medians([run[cache] for run in runs[name]]) for name in runs for cache in ("cold", "warm")}
    rows = [
        [f"geopsp {name}", cache, way["wall"], way["cpu"], round(way["functions"]), round(way["versions"])]
        for (name, cache), way in ways.items()
    ]
    print(table(["command", "cache", "wall s", "CPU s", "functions compiled", "versions of them"], rows))
    print_json({f"{name}, {cache}, {key}": value for (name, cache), way in ways.items() for key, value in way.items()})


if __name__ == "__main__":
    main()
