"""Speed of cutting chips beside a plain loop, reads of each block, and peak memory at any size.

    python benchmarks/chips.py [--rounds 3] [--large] [--smoke]

The plain loop is what a careful user of rasterio writes: one thread, windows read, polygons found by a spatial index
and rasterized, two deflated GeoTIFFs per chip. Both cut the same 256 chips of 256 x 256 from a scene of 4096 x 4096 x 3
bytes (deflate, blocks of 512) with 3,600 parcels. Each run is a process of its own, which does the job twice: the first
time does not count (imports, file caches). Runs alternate, the median counts. `--large` adds what takes minutes to
make: a sparse raster of 100,000 x 100,000 pixels, and two million polygons. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
import time
from collections import Counter
from pathlib import Path
from typing import Any

import geopandas as gpd
import numpy as np
import pyogrio
import rasterio
import shapely
from common import measure, medians, option_parser, peak_mb, print_json, table
from rasterio.features import rasterize
from rasterio.transform import from_origin
from rasterio.windows import Window

SIDE, TILE, BLOCK, CELL = 4096, 256, 512, 0.5
ORIGIN = (500_000.0, 4_600_000.0)
CRS = "EPSG:32630"
HUGE, SQUARES = 100_000, 1000
"""Side of the sparse raster in pixels; squares along that side, two in each cell: two million polygons."""


SMOKE_SIDE, SMOKE_TILE = 512, 128


def make_scene(path: Path, side: int, *, filled: int | None = None) -> None:
    """Write a scene of smooth noise in the upper left `filled` pixels; the rest is sparse.

    Args:
        path: Of the GeoTIFF.
        side: In pixels, a multiple of 512.
        filled: The same of what is written; None: all.
    """
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
    """Write Voronoi cells of six classes over the whole scene."""
    rng = np.random.default_rng(0)
    frame = shapely.box(0, 0, side * CELL, side * CELL)
    cells = shapely.voronoi_polygons(shapely.multipoints(rng.random((count, 2)) * side * CELL), extend_to=frame)
    shapes = shapely.intersection(np.array(list(cells.geoms)), frame)
    shapes = shapely.transform(shapes, lambda xy: xy * [1, -1] + ORIGIN)
    kinds = rng.integers(1, 7, len(shapes))
    gpd.GeoDataFrame({"class": kinds}, geometry=shapes, crs=CRS).to_file(path)


def make_squares(path: Path, side: int, per_side: int) -> None:
    """Write two squares in each cell of a grid over the whole scene, an eighth at a time."""
    step = side * CELL / per_side
    for part, rows in enumerate(np.array_split(np.arange(per_side), 8)):
        y, x = (v.ravel() * step for v in np.meshgrid(rows, np.arange(per_side), indexing="ij"))
        left, top = ORIGIN[0] + x, ORIGIN[1] - y
        large = shapely.box(left, top - 0.8 * step, left + 0.8 * step, top)
        small = shapely.box(left + 0.2 * step, top - 0.5 * step, left + 0.5 * step, top - 0.2 * step)
        frame = gpd.GeoDataFrame({"class": np.repeat([1, 2], len(x))}, geometry=np.concatenate([large, small]), crs=CRS)
        pyogrio.write_dataframe(frame, path, append=part > 0)


def plain_loop(image: Path, labels: Path, out: Path, tile: int) -> int:
    """Cut chips with rasterio alone; return how many."""
    frame = gpd.read_file(labels)
    tree = frame.sindex
    for name in ("images", "labels"):
        (out / name).mkdir(parents=True)
    done = 0
    with rasterio.open(image) as source:
        for row in range(0, source.height, tile):
            for col in range(0, source.width, tile):
                window = Window(col, row, tile, tile)
                pixels, transform = source.read(window=window), source.window_transform(window)
                hits = frame.iloc[tree.query(shapely.box(*rasterio.windows.bounds(window, source.transform)))]
                pairs = list(zip(hits.geometry, hits["class"], strict=True))
                codes = np.zeros((tile, tile), "uint8")
                if pairs:
                    codes = rasterize(pairs, (tile, tile), transform=transform, dtype="uint8")
                profile = {"driver": "GTiff", "width": tile, "height": tile, "dtype": "uint8", "crs": source.crs}
                profile |= {"transform": transform, "compress": "deflate"}
                for name, data in (("images", pixels), ("labels", codes[None])):
                    with rasterio.open(out / name / f"{done:06d}.tif", "w", count=len(data), **profile) as chip:
                        chip.write(data)
                done += 1
    return done


def ours(image: Path, labels: Path, out: Path, tile: int, *, half: bool, workers: int | None) -> dict[str, Any]:
    """Cut chips with geopsp; count the reads of each block of the image where chips overlap by half."""
    from geopsp import Scene, export_training_data

    windows: list[Any] = []
    read = Scene.read

    def recording_read(scene: Any, window: Any = None) -> Any:
        windows.append(window)
        return read(scene, window)

    if half:
        Scene.read = recording_read  # type: ignore[method-assign]
    chips = export_training_data(image, labels, out, "class", tile, tile // 2 if half else tile, workers=workers)
    Scene.read = read  # type: ignore[method-assign]
    reads = Counter(
        (row, col)
        for window in windows
        for row in range(window.row // BLOCK, -(-window.row_stop // BLOCK))
        for col in range(window.col // BLOCK, -(-window.col_stop // BLOCK))
    )
    return {"chips": len(chips), "reads": max(reads.values(), default=0)}


def one_run(name: str, image: str, labels: str, folder: str, tile: str) -> dict[str, Any]:
    """Return the chips, the seconds and the peak memory of one way to cut them."""
    out = Path(tempfile.mkdtemp(dir=folder))
    for number in range(1 if "huge" in Path(image).name else 2):
        start = time.perf_counter()
        paths = Path(image), Path(labels), out / str(number)  # a new folder: deleting the old one keeps the disk busy
        if name == "plain loop":
            found: dict[str, Any] = {"chips": plain_loop(*paths, int(tile)), "reads": 0}
        else:
            found = ours(*paths, int(tile), half="half" in name, workers=1 if "one thread" in name else None)
        seconds = time.perf_counter() - start
    return {**found, "seconds": seconds, "peak_mb": peak_mb()}


def large(folder: Path, labels: Path) -> dict[str, dict[str, Any]]:
    """Measure a raster and polygons that would not fit into memory."""
    huge, many = folder / "huge.tif", folder / "many.gpkg"
    make_scene(huge, HUGE, filled=SIDE)
    make_squares(many, HUGE, SQUARES)
    return {
        f"sparse 100,000 x 100,000, {name}": measure(__file__, one_run, "ours", huge, path, folder, str(TILE))
        for name, path in (("3,600 parcels", labels), ("two million polygons", many))
    }


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--run", nargs=5, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(one_run(*options.run)))
        return
    side, tile, parcels = (SMOKE_SIDE, SMOKE_TILE, 60) if options.smoke else (SIDE, TILE, 3600)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        image, labels = folder / "scene.tif", folder / "parcels.gpkg"
        make_scene(image, side)
        make_parcels(labels, side, parcels)
        names = ["plain loop", "ours", "ours, one thread", "ours, half a tile's stride"]
        runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
        for _ in range(1 if options.smoke else options.rounds):
            for name, found in runs.items():
                arguments = (name, image, labels, folder, str(tile))
                found.append(measure(__file__, one_run, *arguments, smoke=options.smoke))
        ways = {name: medians(found) for name, found in runs.items()}
        report(ways, large(folder, labels) if options.large else {})


def report(ways: dict[str, dict[str, Any]], large_ways: dict[str, dict[str, Any]]) -> None:
    rows = [
        [name, round(way["chips"]), way["seconds"], way["chips"] / way["seconds"], round(way["peak_mb"])]
        for name, way in (ways | large_ways).items()
    ]
    print(table(["way", "chips", "s", "chips/s", "peak MB"], rows))
    plain, fast = ways["plain loop"], ways["ours"]
    result = {
        "over_plain_loop": plain["seconds"] / fast["seconds"],
        "one_thread_over_plain_loop": plain["seconds"] / ways["ours, one thread"]["seconds"],
        "reads_of_a_block": ways["ours, half a tile's stride"]["reads"],
        "peak_mb": round(fast["peak_mb"]),
    }
    print_json(result | {f"peak_mb, {name}": round(way["peak_mb"]) for name, way in large_ways.items()})


if __name__ == "__main__":
    main()
