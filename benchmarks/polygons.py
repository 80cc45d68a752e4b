"""Speed of turning class rasters into polygons, beside rasterio and pyogrio.

    python benchmarks/polygons.py [--rounds 3] [--side 2048] [--simplify 1.5] [--smoke]
        [--scale 100000 [--pattern huge] [--ways plain min_area ...] [--folder FOLDER]]

Two rasters of six classes (smoothed noise cut into bands, deflate, blocks of 512): `noisy`, about 51,000 polygons per
megapixel, and `smooth`, about 3,500. To shapely: `rasterio.features.shapes` and `shapely.geometry.shape` of each, in a
list, beside `trace_raster`, from the file to the geometries. To GeoPackage: `raster_to_polygons`, from file to file,
beside pyogrio's `write_dataframe` of the finished table. Each run is a process of its own, which does a small raster
first, so that nothing is compiled or loaded while the clock runs. Runs alternate, the median counts. `simplify_arcs` of
all arcs is measured beside GEOS's `coverage_simplify` of the polygons, both in processor time.

`--scale` makes rasters of so many pixels on a side, of shapes that cross all seams (or of the noise above, `--pattern
noisy`), and a GeoPackage of each in the ways asked for: `plain`, or with an option. The memory is what a run adds to a
small one: its peak, and without the pages of files that the system may take back. For 100,000, a plain run takes tens
of minutes, and 20 GB for 2.6 million polygons. Prints tables and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import measure, medians, option_parser, peak_mb, print_json, table, watched

CELL, BLOCK, CLASSES = 2.0, 512, 6
ORIGIN = (600_000.0, 5_300_000.0)
CRS = "EPSG:32632"
WARM_UP_SIDE, SMOKE_SIDE = 256, 128
SIMPLIFY = "simplify alone"
PERIOD = 4093
"""Side of the pattern that a huge raster repeats: prime, so that it meets each seam elsewhere."""


@dataclass(frozen=True, slots=True)
class Pattern:
    """Shapes of a made-up class raster."""

    blur: float
    """Standard deviation of the smoothing, in pixels."""

    nodata: float = 0.0
    """Fraction of pixels without data, in patches."""


WAYS: dict[str, dict[str, Any]] = {
    "plain": {},
    "min_area": {"min_area": 20 * CELL**2},
    "fill_holes": {"fill_holes": 20 * CELL**2},
    "both": {"min_area": 20 * CELL**2, "fill_holes": 20 * CELL**2},
    "dissolve": {"dissolve": True},
    "smooth": {"smooth": 3},
    "regularize": {"regularize": True, "keep": [1]},
}
"""Options of `raster_to_polygons`, by name."""


PATTERNS = {"noisy": Pattern(3.02), "smooth": Pattern(5.65), "huge": Pattern(18.0, nodata=0.08)}


def class_codes(pattern: Pattern, height: int, width: int, seed: int = 0) -> np.ndarray:
    """Return (height, width) class codes: bands of smoothed noise, continued across the sides."""
    rng = np.random.default_rng(seed)
    down, across = np.fft.fftfreq(height)[:, None], np.fft.rfftfreq(width)

    def field(blur: float) -> np.ndarray:
        waves = np.fft.rfft2(rng.standard_normal((height, width)))
        return np.fft.irfft2(waves * np.exp(-2 * (np.pi * blur) ** 2 * (down**2 + across**2)), s=(height, width))

    level = field(pattern.blur)
    codes = np.digitize(level, np.quantile(level, np.linspace(0, 1, CLASSES + 1)[1:-1])).astype(np.uint8)
    if pattern.nodata:
        hole = field(5 * pattern.blur)
        codes[hole < np.quantile(hole, pattern.nodata)] = 255
    return codes


def write_raster(path: Path, pattern: Pattern, side: int) -> Path:
    """Write a class raster, one row of blocks at a time; beyond PERIOD pixels it repeats. Return the path."""
    import rasterio
    from rasterio.transform import from_origin
    from rasterio.windows import Window

    period = min(side, PERIOD)
    codes = class_codes(pattern, period, period)
    with rasterio.open(
        path, "w", driver="GTiff", width=side, height=side, count=1, dtype="uint8", crs=CRS, nodata=255, tiled=True,
        transform=from_origin(*ORIGIN, CELL, CELL), blockxsize=BLOCK, blockysize=BLOCK, compress="deflate", zlevel=1,
        SPARSE_OK=True, BIGTIFF="IF_SAFER", num_threads="all_cpus",
    ) as dataset:  # fmt: skip
        columns = np.arange(side) % period
        for row in range(0, side, BLOCK):
            rows = np.arange(row, min(row + BLOCK, side)) % period
            dataset.write(codes[rows[:, None], columns], 1, window=Window(0, row, side, rows.size))
    return path


def to_shapely(raster: str, warm: str) -> dict[str, float]:
    """Return seconds and memory of `trace_raster`: an array of polygons."""
    from geopsp.polygons.borders.trace_raster import trace_raster
    from geopsp.polygons.class_raster import ClassRaster
    from geopsp.polygons.ground_metric import GroundMetric

    def trace(path: str) -> np.ndarray:
        with ClassRaster.open(path) as codes:
            transform, metric = codes.grid.transform, GroundMetric.from_grid(codes.grid)
            return np.concatenate(list(trace_raster(codes, metric, lambda features: features.to_shapely(transform))))

    trace(warm)
    start = time.perf_counter()
    polygons = trace(raster)
    return {"seconds": time.perf_counter() - start, "polygons": len(polygons), "peak_mb": peak_mb()}


def by_rasterio(raster: str, warm: str) -> dict[str, float]:
    """Return seconds and memory of a list of polygons, as users of rasterio make it."""
    import rasterio
    from rasterio.features import shapes
    from shapely.geometry import shape

    def found(path: str) -> list[Any]:
        with rasterio.open(path) as dataset:
            codes = dataset.read(1)
            return [(shape(outline), code) for outline, code in shapes(codes, transform=dataset.transform)]

    found(warm)
    start = time.perf_counter()
    polygons = found(raster)
    return {"seconds": time.perf_counter() - start, "polygons": len(polygons), "peak_mb": peak_mb()}


def to_file(raster: str, warm: str, out: str, simplify: str = "0") -> dict[str, float]:
    """Return seconds and memory of `raster_to_polygons`: a GeoPackage."""
    from pyogrio import read_info

    from geopsp.polygons.raster_to_polygons import raster_to_polygons

    options: dict[str, Any] = {"simplify": float(simplify), "overwrite": True}
    raster_to_polygons(warm, Path(out).with_name("warm.gpkg"), **options)
    Path(out).unlink(missing_ok=True)  # replacing a file waits for the disk, and pyogrio replaces none here
    start = time.perf_counter()
    raster_to_polygons(raster, out, **options)
    seconds, peak = time.perf_counter() - start, peak_mb()
    return {"seconds": seconds, "polygons": read_info(out, layer=Path(out).stem)["features"], "peak_mb": peak}


def by_pyogrio(package: str, out: str) -> dict[str, float]:
    """Return seconds and memory of pyogrio: a GeoPackage of a finished table."""
    from pyogrio import read_dataframe, write_dataframe

    frame = read_dataframe(package, layer=Path(package).stem)
    write_dataframe(frame[:100], Path(out).with_name("first.gpkg"))
    Path(out).unlink(missing_ok=True)
    start = time.perf_counter()
    write_dataframe(frame, out)
    return {"seconds": time.perf_counter() - start, "polygons": len(frame), "peak_mb": peak_mb()}


def simplified(raster: str, warm: str, simplify: str) -> dict[str, float]:
    """Return the processor time of simplifying all borders by `simplify` pixels, by `simplify_arcs` and by GEOS."""
    import rasterio
    import shapely
    from affine import Affine

    from geopsp.core.connected_regions import label_regions
    from geopsp.polygons.borders.rings import build_rings
    from geopsp.polygons.borders.simplify import simplify_arcs
    from geopsp.polygons.borders.topology import build_polygons
    from geopsp.polygons.borders.trace_arcs import trace_arcs

    found: dict[str, float] = {}
    for path in (warm, raster):
        with rasterio.open(path) as dataset:
            labels, count = label_regions(dataset.read(1))
        graph = trace_arcs(labels)
        rings = build_rings(graph, np.arange(-1, count, dtype=np.int32), count)
        polygons = build_polygons(graph.arcs, rings).to_shapely(Affine.identity())
        start = time.process_time()
        arcs = simplify_arcs(graph, rings, float(simplify) ** 2)
        found["ours_s"] = time.process_time() - start
        start = time.process_time()
        by_geos = shapely.coverage_simplify(polygons, float(simplify), simplify_boundary=False)
        found["geos_s"] = time.process_time() - start
    ours = build_polygons(arcs, rings).to_shapely(Affine.identity())
    found["differ"] = int((shapely.normalize(ours) != shapely.normalize(by_geos)).sum())
    return found


def one_way(raster: str, warm: str, out: str, way: str) -> dict[str, float]:
    """Return processor and wall time, and the memory that `raster_to_polygons` adds to a small run."""
    from pyogrio import read_info

    from geopsp.polygons.raster_to_polygons import raster_to_polygons

    raster_to_polygons(warm, Path(out).with_name("warm.gpkg"), overwrite=True, **WAYS[way])
    with watched() as found:
        raster_to_polygons(raster, out, **WAYS[way])
    found["polygons"], found["file_mb"] = (
        read_info(out, layer=Path(out).stem)["features"],
        Path(out).stat().st_size / 2**20,
    )
    Path(out).unlink()
    return found


RUNS = {
    "one_way": one_way,
    "simplified": simplified,
    "to_shapely": to_shapely,
    "by_rasterio": by_rasterio,
    "to_file": to_file,
    "by_pyogrio": by_pyogrio,
}


def one_run(name: str, *arguments: str) -> dict[str, float]:
    return RUNS[name](*arguments)


def alternate(folder: Path, options: argparse.Namespace) -> dict[tuple[str, str], dict[str, float]]:
    """Run all ways in turn; return their medians by raster and way."""
    warm = write_raster(folder / "warm.tif", PATTERNS["noisy"], SMOKE_SIDE if options.smoke else WARM_UP_SIDE)
    run = partial(measure, __file__, one_run, smoke=options.smoke)
    ways: dict[tuple[str, str], Any] = {}
    for name in ("noisy", "smooth"):
        raster, package = write_raster(folder / f"{name}.tif", PATTERNS[name], options.side), folder / f"{name}.gpkg"
        pyogrio_package, simple_package = folder / "pyogrio.gpkg", folder / "simple.gpkg"
        tolerance = str(options.simplify * CELL)
        ways[name, "rasterio and shapely"] = partial(run, "by_rasterio", raster, warm)
        ways[name, "geopsp to shapely"] = partial(run, "to_shapely", raster, warm)
        ways[name, "geopsp to GeoPackage"] = partial(run, "to_file", raster, warm, package)
        ways[name, "pyogrio, table to GeoPackage"] = partial(run, "by_pyogrio", package, pyogrio_package)
        ways[name, "geopsp, simplified"] = partial(run, "to_file", raster, warm, simple_package, tolerance)
        ways[name, SIMPLIFY] = partial(run, "simplified", raster, warm, str(options.simplify))
    runs: dict[tuple[str, str], list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(options.rounds):
        for way, run_way in ways.items():
            runs[way].append(run_way())
        print(f"Round {number + 1} of {options.rounds} done", flush=True)
    return {way: medians(found) for way, found in runs.items()}


def report(ways: dict[tuple[str, str], dict[str, float]], side: int) -> dict[str, Any]:
    """Print a table; return the numbers for the last line."""
    megapixels = side**2 / 1e6
    rows = [
        [name, way, run["seconds"], megapixels / run["seconds"], run["polygons"] / megapixels, run["peak_mb"]]
        for (name, way), run in ways.items()
        if way != SIMPLIFY
    ]
    print(table(["raster", "way", "seconds", "Mpx/s", "polygons per Mpx", "peak MB"], rows))

    simplify = {name: run for (name, way), run in ways.items() if way == SIMPLIFY}
    rows = [[name, run["geos_s"], run["ours_s"], run["differ"]] for name, run in simplify.items()]
    print(table(["raster", "GEOS simplifies in s", "geopsp in s", "polygons that differ"], rows))

    def ratios(ours: str, theirs: str) -> dict[str, float]:
        return {name: ways[name, theirs]["seconds"] / ways[name, ours]["seconds"] for name in ("noisy", "smooth")}

    over_rasterio = ratios("geopsp to shapely", "rasterio and shapely")
    over_pyogrio = ratios("geopsp to GeoPackage", "pyogrio, table to GeoPackage")
    print(f"On {len(os.sched_getaffinity(0))} cores.")
    speeds = {name: megapixels / ways[name, "geopsp, simplified"]["seconds"] for name in over_rasterio}
    return {
        "over_rasterio": min(over_rasterio.values()),
        "gpkg_over_pyogrio": min(over_pyogrio.values()),
        **{f"over_rasterio_{name}": value for name, value in over_rasterio.items()},
        **{f"gpkg_over_pyogrio_{name}": value for name, value in over_pyogrio.items()},
        **{f"simplified_mpx_s_{name}": value for name, value in speeds.items()},
        **{f"simplify_over_geos_{name}": run["geos_s"] / run["ours_s"] for name, run in simplify.items()},
    }


def at_scale(folder: Path, sides: Sequence[int], pattern: str, ways: Sequence[str], *, smoke: bool) -> dict[str, Any]:
    """Measure rasters of so many pixels on a side, once each way; print a table and return its numbers."""
    warm = write_raster(folder / "warm.tif", PATTERNS["noisy"], SMOKE_SIDE if smoke else WARM_UP_SIDE)
    rows, result = [], {}
    for side in sides:
        raster = write_raster(folder / "huge.tif", PATTERNS[pattern], side)
        for way in ways:
            run = measure(__file__, one_run, "one_way", raster, warm, folder / "huge.gpkg", way, smoke=smoke)
            speed = side**2 / 1e6 / run["processor_s"]
            columns = ("seconds", "processor_s", "polygons", "file_mb", "peak_mb", "own_mb")
            rows.append([side, way, *(run[name] for name in columns), speed])
            print(rows[-1], flush=True)
            result |= {f"{way}_{side}_{name}": run[name] for name in columns}
    header = ["side", "way", "seconds", "processor s", "polygons", "file MB", "peak MB", "peak MB without files"]
    print(table([*header, "Mpx per processor s"], rows))
    return result


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3, help="0: the huge raster only")
    parser.add_argument("--side", type=int, default=2048, help="side of the two rasters, in pixels")
    parser.add_argument("--simplify", type=float, default=1.5, help="tolerance in pixels")
    parser.add_argument("--scale", type=int, nargs="+", help="sides of huge rasters, in pixels")
    parser.add_argument("--pattern", choices=PATTERNS, default="huge", help="of the huge rasters")
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=["plain"], help="what is made of them")
    parser.add_argument("--folder", type=Path, help="folder for the huge raster and its polygons, removed at the end")
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(one_run(*options.run)))
        return
    if options.smoke:
        options.rounds, options.side = 1, SMOKE_SIDE
    result: dict[str, Any] = {}
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        if options.rounds:
            result |= report(alternate(Path(folder), options), options.side)
        if options.scale:
            result |= at_scale(Path(folder), options.scale, options.pattern, options.ways, smoke=options.smoke)
    print_json(result)


if __name__ == "__main__":
    main()
