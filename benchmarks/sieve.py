"""Speed and memory of the sieve on noise of growing area, beside GDAL's.

    python benchmarks/sieve.py [--sides 5000 10000 20000] [--gdal-up-to 10000] [--size 20] [--smoke]

The raster is noise of six classes, about 51,000 regions per megapixel, most of them small. `sieve_regions` takes it
from a mapped file, as a map's sieve does; GDAL's `sieve` takes it from a GeoTIFF and gives an array. Each run is a
process of its own, which sieves a small array first. The memory is what the run adds to that: its peak, and without the
pages of files that the system may take back. Growth is the ratio of the memory of the largest raster to that of the
smallest. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import json
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import measure, option_parser, print_json, table, watched
from polygons import PATTERNS, write_raster

SMALL = np.random.default_rng(0).integers(1, 3, (64, 64)).astype(np.uint8)


def ours(raster: str, size: str) -> dict[str, float]:
    """Measure `sieve_regions`, without reading the raster."""
    import rasterio

    from geopsp.core.disk_array import DiskArray
    from geopsp.raster.cog.sieve_regions import sieve_regions

    def to_disk(codes: Any, shape: tuple[int, int], folder: Path) -> DiskArray:
        array = DiskArray(folder / "codes", np.uint8, shape)
        for row, rows in codes:
            array.array[row : row + len(rows)] = rows
            array.release()
        return array

    with tempfile.TemporaryDirectory() as folder:
        sieve_regions(to_disk([(0, SMALL)], SMALL.shape, Path(folder)), 2, Path(folder))
    with tempfile.TemporaryDirectory() as name, rasterio.open(raster) as dataset:
        folder = Path(name)
        blocks = ((window.row_off, dataset.read(1, window=window) + 1) for window in row_windows(dataset))
        codes = to_disk(blocks, dataset.shape, folder)
        with watched() as found:
            sieve_regions(codes, int(size), folder)
        found["disk_bytes_per_pixel"] = sum(path.stat().st_size for path in folder.iterdir()) / codes.array.size
        found["checksum"] = sum(int(codes.array[row : row + 512].sum()) for row in range(0, dataset.height, 512))
    return found


def by_gdal(raster: str, size: str) -> dict[str, float]:
    """Measure GDAL's sieve from a file to an array."""
    import rasterio
    from rasterio.features import sieve

    sieve(SMALL, 2)
    with rasterio.open(raster) as dataset, watched() as found:
        codes = sieve(rasterio.band(dataset, 1), int(size))
    found["checksum"] = int(codes.sum()) + codes.size
    return found


def row_windows(dataset: Any) -> Iterator[Any]:
    from rasterio.windows import Window

    for row in range(0, dataset.height, 512):
        yield Window(0, row, dataset.width, min(512, dataset.height - row))


RUNS = {"ours": ours, "by_gdal": by_gdal}


def one_run(name: str, *arguments: str) -> dict[str, float]:
    return RUNS[name](*arguments)


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--sides", type=int, nargs="+", default=[5000, 10_000, 20_000], help="in pixels")
    parser.add_argument("--gdal-up-to", type=int, default=10_000, help="largest side that GDAL sieves, too")
    parser.add_argument("--size", type=int, default=20, help="smaller regions are merged, in pixels")
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(one_run(*options.run)))
        return
    if options.smoke:
        options.sides = [64, 128]
    run = partial(measure, __file__, one_run, smoke=options.smoke)
    found: dict[tuple[str, int], dict[str, float]] = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in options.sides:
            raster = write_raster(Path(folder) / f"{side}.tif", PATTERNS["noisy"], side)
            for name in RUNS if side <= options.gdal_up_to else ("ours",):
                found[name, side] = run(name, raster, str(options.size))
            raster.unlink()
            assert len({each["checksum"] for (_, at), each in found.items() if at == side}) == 1, "results differ"
    print(
        table(
            ["way", "side", "processor s", "Mpx per processor s", "peak MB", "peak MB without files"],
            [
                [name, side, run["processor_s"], side**2 / 1e6 / run["processor_s"], run["peak_mb"], run["own_mb"]]
                for (name, side), run in found.items()
            ],
        )
    )
    first, last = options.sides[0], options.sides[-1]
    both = max((side for name, side in found if name == "by_gdal"), default=first)
    print_json(
        {
            "memory_growth": found["ours", last]["peak_mb"] / max(1.0, found["ours", first]["peak_mb"]),
            "area_growth": (last / first) ** 2,
            "peak_mb": found["ours", last]["peak_mb"],
            "disk_bytes_per_pixel": found["ours", last]["disk_bytes_per_pixel"],
            "gdal_mb_over_ours": found["by_gdal", both]["peak_mb"] / max(1.0, found["ours", both]["peak_mb"]),
            "gdal_time_over_ours": found["by_gdal", both]["processor_s"] / found["ours", both]["processor_s"],
        }
    )


if __name__ == "__main__":
    main()
