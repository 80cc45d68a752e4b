"""How much slower a map is made than its network alone would be, and how other packages fare.

    python benchmarks/predict.py [--rounds 3] [--peers] [--peers-folder FOLDER] [--large] [--speedups]

From a file of bytes (three bands, deflate, blocks of 512) to a COG of six classes, in tiles of 512 that overlap by 64,
beside the bare network over as many tiles of one tensor: a PSPNet on ResNet-18 with random weights on 2048 x 2048, and
a network of one convolution, so that all the rest is what costs, on 4096 x 4096. The bare network runs in batches of
four on all threads, contiguous and channels_last; of the PSPNet the quicker counts, of the one convolution contiguous.
Each run is a process of its own; a first pass in it is not counted, with the PSPNet over 1024 x 1024 only. Runs
alternate, the median counts. `--peers` adds those of peers.py to the same rounds, `--large` a sparse raster of
100,000 x 100,000 pixels with the light network, `--speedups` what each way to run the PSPNet quicker saves, and how
many pixels of the map it leaves as they are: there it is trained for a few seconds, to have an opinion.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from common import finish, medians, own_process, peak_mb, table

TILE, OVERLAP, BATCH, CLASSES, HUGE = 512, 64, 4, 6, 100_000
MEAN, STD = 120.0, 60.0
SIDES = {"light": 4096, "resnet18": 2048}
WARM = {"light": 4096, "resnet18": 1024}
"""Side of the scene of the first pass."""

LAYOUTS = {"contiguous": "contiguous_format", "channels_last": "channels_last"}
VARIANTS = {
    "plain": (),
    "exact low-rank pyramid": ("pyramid",),
    "channels_last": ("pyramid", "channels_last"),
    "compile": ("pyramid", "channels_last", "compile"),
    "bf16": ("pyramid", "channels_last", "bf16"),
    "compile, bf16": ("pyramid", "channels_last", "compile", "bf16"),
}
SHOWN, LESSONS = 8, 20
"""Tiles that a variant is timed on, and steps of the training before."""


def tiles(side: int) -> int:
    """How many cover a square scene."""
    from geopsp.core.grid import tile_starts

    return len(tile_starts(side, size=TILE, overlap=OVERLAP)) ** 2


def trained(name: str) -> Any:
    """A model with random weights."""
    import torch

    from geopsp.core.bands import BandStats
    from geopsp.core.legend import Legend
    from geopsp.models.build import ModelSpec, build_network
    from geopsp.models.saved_model import TrainedModel

    class Light(torch.nn.Conv2d):
        def forward(self, image: torch.Tensor, valid: torch.Tensor | None = None) -> torch.Tensor:
            return super().forward(image)

    torch.manual_seed(0)
    spec = ModelSpec("resnet18", 3, CLASSES)
    network = Light(3, CLASSES, 3, padding=1) if name == "light" else build_network(spec)
    legend = Legend.from_names({code: f"class {code}" for code in range(CLASSES)})
    mean, m2, low, high = (np.full(3, value) for value in (MEAN, 9 * STD**2, 0.0, 255.0))
    statistics = BandStats(9, mean, m2, low, high)
    bands = ("band_1", "band_2", "band_3")
    return TrainedModel(spec, network.eval(), legend, bands, statistics, "uint8", TILE, (0.5, 0.5), "metre")


def map_scene(model: Any, scene: Path, out: Path) -> float:
    """Seconds from a file to a COG."""
    from geopsp.inference.job import plan_job
    from geopsp.inference.options import MapSettings
    from geopsp.inference.outputs import classes
    from geopsp.inference.run_job import run_job
    from geopsp.raster.scene import Scene

    start = time.perf_counter()
    wanted = [classes(out, model.legend)]
    run_job(plan_job(Scene.open(scene), model, wanted, MapSettings(padding=OVERLAP)), model)
    return time.perf_counter() - start


def ours(name: str, folder: str, scene: str = "") -> dict[str, float]:
    """The map, after a first pass unless the scene is another one than the network's own."""
    work, model = Path(tempfile.mkdtemp(dir=folder)), trained(name)
    if not scene:
        map_scene(model, Path(folder) / f"{WARM[name]}.tif", work / "warm.tif")
    seconds = map_scene(model, Path(folder) / (scene or f"{SIDES[name]}.tif"), work / "map.tif")
    return {"seconds": seconds, "peak_mb": peak_mb()}


def bare(name: str, layout: str) -> dict[str, float]:
    """The network alone, over as many tiles."""
    import torch

    import geopsp.inference.run_job  # noqa: F401 (what it takes in memory is not the map's)

    memory = getattr(torch, LAYOUTS[layout])
    network = trained(name).network.to(memory_format=memory)
    image = torch.randn(BATCH, 3, TILE, TILE).to(memory_format=memory)
    with torch.inference_mode():
        for _ in range(16 if name == "light" else 1):
            network(image)
        start = time.perf_counter()
        for first in range(0, (count := tiles(SIDES[name])), BATCH):
            network(image[: count - first])
    return {"seconds": time.perf_counter() - start, "peak_mb": peak_mb()}


def patches(scene: str) -> Any:
    """(n, 3, s, s) normalised tiles, and what there is to see in each pixel: the brightest band, and if much so."""
    import rasterio
    import torch

    with rasterio.open(scene) as file:
        pixels = torch.from_numpy(file.read(window=((0, TILE), (0, SHOWN // 2 * TILE)))).float()
    image = torch.stack([*pixels.split(TILE, dim=2), *pixels.flip(0).split(TILE, dim=2)])
    ground = torch.nn.functional.avg_pool2d(image, 32).repeat_interleave(32, 2).repeat_interleave(32, 3)
    top = ground.max(dim=1)
    return (image - MEAN) / STD, top.indices + 3 * (top.values > 160)


def teach(scene: str, weights: str) -> dict[str, float]:
    """Weights of a network that was trained for a moment."""
    import torch

    image, label = patches(scene)
    network = trained("resnet18").network.train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    rng = np.random.default_rng(0)
    for _ in range(LESSONS):
        row, col = rng.integers(0, TILE - 128, 2)
        cut = (..., slice(row, row + 128), slice(col, col + 128))
        loss = torch.nn.functional.cross_entropy(network(image[cut]).logits, label[cut])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.save(network.state_dict(), weights)
    return {"loss": loss.item()}


def variant(name: str, scene: str, weights: str, out: str) -> dict[str, float]:
    """Seconds that the trained network takes for SHOWN tiles, run so; the likeliest classes are saved."""
    import torch
    from ppm import joined

    ways = VARIANTS[name]
    image, label = patches(scene)
    network = trained("resnet18").network
    network.load_state_dict(torch.load(weights, weights_only=True))
    if "pyramid" not in ways:
        network.context.forward = partial(joined, network.context)
    if "channels_last" in ways:
        network, image = network.to(memory_format=torch.channels_last), image.to(memory_format=torch.channels_last)
    run = torch.compile(network) if "compile" in ways else network
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled="bf16" in ways):
        run(image[:BATCH])
        start = time.perf_counter()
        logits = torch.cat([run(batch).float() for batch in image.split(BATCH)])
        seconds = time.perf_counter() - start
    index = logits.max(dim=1).indices
    np.save(out, index.numpy().astype(np.uint8))
    return {"seconds": seconds, "right": (index == label).float().mean().item()}


RUNS = {"ours": ours, "bare": bare, "teach": teach, "variant": variant}


def measure(*arguments: str | Path) -> dict[str, float]:
    """What a process of its own measures."""
    return own_process(sys.executable, __file__, "--run", *arguments)


def speedups(folder: Path, rounds: int) -> dict[str, Any]:
    """A table of the ways to run the PSPNet, and the numbers for the last line."""
    from geopsp.models.device import resolve_precision

    scene, weights = folder / f"{SIDES['light']}.tif", folder / "weights.pt"
    measure("teach", scene, weights)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        for name, found in runs.items():
            found.append(measure("variant", name, scene, weights, folder / f"{name}.npy"))
    middle = {name: medians(found) for name, found in runs.items()}
    plain = np.load(folder / "plain.npy")
    same = {name: float((np.load(folder / f"{name}.npy") == plain).mean()) for name in VARIANTS}
    gain = {name: middle["plain"]["seconds"] / run["seconds"] for name, run in middle.items()}
    rows = [
        [name, run["seconds"] / SHOWN, gain[name], f"{same[name]:.5%}", run["right"]] for name, run in middle.items()
    ]
    print(table(["PSPNet, ResNet-18", "s a tile", "times faster", "pixels as plain", "pixels right"], rows))
    import torch

    if resolve_precision("auto", torch.device("cpu")) == "fp32":
        print("This processor has no bfloat16: it is emulated here, and not used unless asked for.")
    changed = {f"changed pixels a million, {name}": (1 - share) * 1e6 for name, share in same.items()}
    return {f"times faster, {name}": value for name, value in gain.items()} | changed


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--peers-folder", type=Path, help="where their environment is, or shall be")
    parser.add_argument("--peers-python", help="what makes it, from 3.12 on; the default is this one")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--speedups", action="store_true")
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        name, *rest = options.run
        print(json.dumps(RUNS[name](*rest)))
        return
    from chips import make_scene

    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        for side in {*SIDES.values(), *WARM.values()}:
            make_scene(folder / f"{side}.tif", side)
        middle = alternate(folder, options)
        result = report(middle)
        if options.peers:
            result |= beside_peers(middle)
        if options.large:
            result |= large(folder, middle)
        if options.speedups:
            result |= speedups(folder, options.rounds)
    finish(result)


def alternate(folder: Path, options: argparse.Namespace) -> dict[tuple[str, str], dict[str, float]]:
    """Medians by network and way."""
    import peers

    ways: dict[tuple[str, str], Any] = {}
    for name in SIDES:
        ways[name, "ours"] = partial(measure, "ours", name, folder)
        ways |= {(name, layout): partial(measure, "bare", name, layout) for layout in LAYOUTS}
    if options.peers:
        python = peers.environment(options.peers_folder, options.peers_python)
        scene = folder / f"{SIDES['light']}.tif"
        ways |= {("light", name): partial(peers.measure, name, python, scene, folder) for name in peers.PEERS}
    runs: dict[tuple[str, str], list[dict[str, float]]] = {way: [] for way in ways}
    for number in range(options.rounds):
        for way, run in ways.items():
            runs[way].append(run())
        print(f"Round {number + 1} of {options.rounds} done", file=sys.stderr, flush=True)
    return {way: medians(found) for way, found in runs.items()}


def report(middle: dict[tuple[str, str], dict[str, float]]) -> dict[str, Any]:
    rows = []
    for (name, way), run in middle.items():
        words = f"bare, {way}" if way in LAYOUTS else way
        rows.append([name, words, run["seconds"], SIDES[name] ** 2 / 1e6 / run["seconds"], round(run["peak_mb"])])
    print(f"{os.cpu_count()} cores")
    print(table(["network", "way", "s", "Mpx/s", "peak MB"], rows), flush=True)
    best = min(LAYOUTS, key=lambda layout: middle["resnet18", layout]["seconds"])
    seconds = {way: run["seconds"] for way, run in middle.items()}
    return {
        "over_bare_network": seconds["resnet18", best] / seconds["resnet18", "ours"],
        "bare_network": best,
        "light_over_bare": seconds["light", "contiguous"] / seconds["light", "ours"],
        "light_over_bare, channels_last": seconds["light", "channels_last"] / seconds["light", "ours"],
        "peak_mb": round(middle["light", "ours"]["peak_mb"]),
    }


def beside_peers(middle: dict[tuple[str, str], dict[str, float]]) -> dict[str, Any]:
    others = {way: run for (_, way), run in middle.items() if way not in ("ours", *LAYOUTS)}
    best = min(others, key=lambda name: others[name]["seconds"])
    mine, least = middle["light", "ours"], min(run["peak_mb"] for run in others.values())
    return {
        "best_peer": best,
        "over_best_peer": others[best]["seconds"] / mine["seconds"],
        "memory_of_least_peer": mine["peak_mb"] / least,
    }


def large(folder: Path, middle: dict[tuple[str, str], dict[str, float]]) -> dict[str, Any]:
    """Once, and no first pass."""
    from chips import make_scene

    make_scene(folder / "huge.tif", HUGE, filled=4096)
    run = measure("ours", "light", folder, "huge.tif")
    own = middle["light", "contiguous"]["peak_mb"]
    rows = [["the network alone", "", round(own), ""]]
    for words, its in (("4096 x 4096", middle["light", "ours"]), ("100,000 x 100,000, sparse", run)):
        rows.append([words, its["seconds"], round(its["peak_mb"]), round(its["peak_mb"] - own)])
    print(table(["light network", "s", "peak MB", "above the network's own"], rows), flush=True)
    return {"large_seconds": run["seconds"], "large_mb_above_model": round(run["peak_mb"] - own)}


if __name__ == "__main__":
    main()
