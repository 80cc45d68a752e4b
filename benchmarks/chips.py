"""Chips a second against a plain loop, reads of each block, and peak memory at any size.

    python benchmarks/chips.py [--rounds 3] [--large]

The plain loop is what a careful user of rasterio writes: one thread, windows read, shapes found by a spatial index and
burned, two deflated GeoTIFFs a chip. Both cut the same 256 chips of 256 x 256 from a scene of 4096 x 4096 x 3 bytes
(deflate, blocks of 512) with 3,600 parcels. Each run is a process of its own, which does the job twice: the first time
is not counted (imports, first looks at files). Runs alternate, the median counts. `--large` adds what takes minutes to
make: a sparse raster of 100,000 x 100,000 pixels, and two million polygons.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path
from statistics import median
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio
import shapely
from common import finish, table
from rasterio.features import rasterize
from rasterio.transform import from_origin
from rasterio.windows import Window

SIDE, TILE, BLOCK, CELL = 4096, 256, 512, 0.5
ORIGIN = (500_000.0, 4_600_000.0)
CRS = "EPSG:32630"
HUGE, WIDE = 100_000, 1000
"""Side of the sparse raster, and of the lattice on which two polygons lie at each place: two million."""


def make_scene(path: Path, side: int, *, filled: int | None = None) -> None:
    """Smooth ground with noise, in the upper left `filled` pixels; the rest is never written."""
    rng = np.random.default_rng(0)
    coarse = rng.random((3, 17, 17)) * 200
    base = np.kron(coarse[:, :16, :16], np.ones((1, BLOCK // 16, BLOCK // 16)))
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=3, dtype="uint8", crs=CRS, tiled=True,
        nodata=0 if filled else None,
        transform=from_origin(*ORIGIN, CELL, CELL), blockxsize=BLOCK, blockysize=BLOCK, compress="deflate",
        photometric="rgb", SPARSE_OK=True, BIGTIFF="IF_SAFER",
    ) as dataset:  # fmt: skip
        for row in range(0, filled or side, BLOCK):
            for col in range(0, filled or side, BLOCK):
                pixels = (base + rng.integers(1, 40, base.shape)).astype("uint8")
                dataset.write(pixels, window=Window(col, row, BLOCK, BLOCK))


def make_parcels(path: Path, side: int, count: int) -> None:
    """Voronoi cells with six classes."""
    rng = np.random.default_rng(0)
    frame = shapely.box(0, 0, side * CELL, side * CELL)
    cells = shapely.voronoi_polygons(shapely.multipoints(rng.random((count, 2)) * side * CELL), extend_to=frame)
    shapes = shapely.intersection(np.array(list(cells.geoms)), frame)
    shapes = shapely.transform(shapes, lambda xy: xy * [1, -1] + ORIGIN)
    kinds = rng.integers(1, 7, len(shapes))
    gpd.GeoDataFrame({"class": kinds}, geometry=shapes, crs=CRS).to_file(path)


def make_squares(path: Path, side: int, per_side: int) -> None:
    """Two squares in each cell of a grid over the whole raster, written in parts."""
    step = side * CELL / per_side
    for part, rows in enumerate(np.array_split(np.arange(per_side), 8)):
        y, x = (v.ravel() * step for v in np.meshgrid(rows, np.arange(per_side), indexing="ij"))
        left, top = ORIGIN[0] + x, ORIGIN[1] - y
        large = shapely.box(left, top - 0.8 * step, left + 0.8 * step, top)
        small = shapely.box(left + 0.2 * step, top - 0.5 * step, left + 0.5 * step, top - 0.2 * step)
        frame = gpd.GeoDataFrame({"class": np.repeat([1, 2], len(x))}, geometry=np.concatenate([large, small]), crs=CRS)
        pyogrio.write_dataframe(frame, path, append=part > 0)


def plain_loop(image: Path, labels: Path, out: Path) -> int:
    """Chips cut with rasterio alone."""
    frame = gpd.read_file(labels)
    tree = frame.sindex
    for name in ("images", "labels"):
        (out / name).mkdir(parents=True)
    done = 0
    with rasterio.open(image) as source:
        for row in range(0, source.height, TILE):
            for col in range(0, source.width, TILE):
                window = Window(col, row, TILE, TILE)
                pixels, transform = source.read(window=window), source.window_transform(window)
                hits = frame.iloc[tree.query(shapely.box(*rasterio.windows.bounds(window, source.transform)))]
                pairs = list(zip(hits.geometry, hits["class"], strict=True))
                codes = np.zeros((TILE, TILE), "uint8")
                if pairs:
                    codes = rasterize(pairs, (TILE, TILE), transform=transform, dtype="uint8")
                profile = {"driver": "GTiff", "width": TILE, "height": TILE, "dtype": "uint8", "crs": source.crs}
                profile |= {"transform": transform, "compress": "deflate"}
                for name, data in (("images", pixels), ("labels", codes[None])):
                    with rasterio.open(out / name / f"{done:06d}.tif", "w", count=len(data), **profile) as chip:
                        chip.write(data)
                done += 1
    return done


def ours(image: Path, labels: Path, out: Path, stride: int, workers: int | None = None) -> dict[str, Any]:
    """Chips cut by geopsp, and how often each block of the image is read."""
    from geopsp import Scene, export_training_data

    windows: list[Any] = []
    plain = Scene.read

    def noted(scene: Any, window: Any = None) -> Any:
        windows.append(window)
        return plain(scene, window)

    if stride < TILE:
        Scene.read = noted  # type: ignore[method-assign]
    chips = export_training_data(image, labels, out, "class", TILE, stride, workers=workers)
    Scene.read = plain  # type: ignore[method-assign]
    reads = Counter(
        (row, col)
        for window in windows
        for row in range(window.row // BLOCK, -(-window.row_stop // BLOCK))
        for col in range(window.col // BLOCK, -(-window.col_stop // BLOCK))
    )
    return {"chips": len(chips), "reads": max(reads.values(), default=0)}


def one_run(name: str, image: Path, labels: Path, folder: Path) -> dict[str, Any]:
    """What a process of its own measures."""
    for number in range(1 if "huge" in image.name else 2):
        out = folder / str(number)  # a new one: what is deleted burdens the disk for a while
        start = time.perf_counter()
        if name == "plain loop":
            found: dict[str, Any] = {"chips": plain_loop(image, labels, out)}
        else:
            stride, workers = TILE // 2 if "half" in name else TILE, 1 if "one thread" in name else None
            found = ours(image, labels, out, stride, workers)
        seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {**found, "seconds": seconds, "peak_mb": peak}


def measure(name: str, image: Path, labels: Path, folder: Path) -> dict[str, Any]:
    out = tempfile.mkdtemp(dir=folder)
    command = [sys.executable, __file__, "--run", name, str(image), str(labels), out]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


def large(folder: Path) -> list[tuple[str, dict[str, Any]]]:
    """Peak memory at sizes that would not fit, next to the small scene."""
    huge, many = folder / "huge.tif", folder / "many.gpkg"
    make_scene(huge, HUGE, filled=SIDE)
    make_squares(many, HUGE, WIDE)
    few = folder / "parcels.gpkg"
    return [
        ("sparse 100,000 x 100,000, 3,600 parcels", measure("ours", huge, few, folder)),
        ("sparse 100,000 x 100,000, two million polygons", measure("ours", huge, many, folder)),
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--run", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        name, *paths = options.run
        print(json.dumps(one_run(name, *map(Path, paths))))
        return
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        image, labels = folder / "scene.tif", folder / "parcels.gpkg"
        make_scene(image, SIDE)
        make_parcels(labels, SIDE, 3600)
        names = ["plain loop", "ours", "ours, one thread", "ours, half a tile's stride"]
        runs = {name: [] for name in names}
        for _ in range(options.rounds):
            for name in names:
                runs[name].append(measure(name, image, labels, folder))
        middle = {name: {key: median(run[key] for run in found) for key in found[0]} for name, found in runs.items()}
        rest = large(folder) if options.large else []
    report(middle, rest)


def report(middle: dict[str, dict[str, Any]], rest: list[tuple[str, dict[str, Any]]]) -> None:
    rows = []
    for name, run in [*middle.items(), *rest]:
        rows.append([name, round(run["chips"]), run["seconds"], run["chips"] / run["seconds"], round(run["peak_mb"])])
    print(table(["way", "chips", "s", "chips/s", "peak MB"], rows))
    plain, fast = middle["plain loop"], middle["ours"]
    result = {
        "over_plain_loop": plain["seconds"] / fast["seconds"],
        "one_thread_over_plain_loop": plain["seconds"] / middle["ours, one thread"]["seconds"],
        "reads_of_a_block": middle["ours, half a tile's stride"]["reads"],
        "peak_mb": round(fast["peak_mb"]),
    }
    finish(result | {f"peak_mb, {name}": round(run["peak_mb"]) for name, run in rest})


if __name__ == "__main__":
    main()
