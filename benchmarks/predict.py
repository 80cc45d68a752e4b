"""Speed of classifying a scene beside the network alone, and beside other packages.

    python benchmarks/predict.py [--rounds 3] [--peers] [--peers-folder FOLDER] [--large] [--speedups]
        [--precisions] [--only-precisions] [--smoke]

From a file of bytes (three bands, deflate, blocks of 512) to a COG of six classes, in tiles of 512 that overlap by 64,
beside the bare network over as many tiles of one tensor: a PSPNet on ResNet-18 with random weights on 2048 x 2048, and
a network of one convolution, so that all the rest is what costs, on 4096 x 4096. The bare network runs in batches of
four on all threads, contiguous and channels_last; of the PSPNet the faster counts, of the one convolution contiguous.
Each run is a process of its own; a first pass in it does not count, with the PSPNet over 1024 x 1024 only. Runs
alternate, the median counts. `--peers` adds those of peers.py to the same rounds, `--large` a sparse raster of 100,000
x 100,000 pixels with the light network, `--speedups` what each way to run the PSPNet faster saves, and how many pixels
of the map it leaves unchanged: there the network is trained for a few seconds, so that its classes are not random.
`--precisions` adds what users run: `classify_pixels` with `precision="auto"`, and with fp32 if that is another one, of
PSPNets with a U-Net decoder on ResNet-18 and ResNet-50, each beside its bare network in the same precision and
channels_last; by the clock, and by processor time, which a busy machine does not change. Prints tables and, last, one
line of JSON.
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
from common import measure, medians, option_parser, peak_mb, print_json, table

TILE, OVERLAP, BATCH, CLASSES, HUGE = 512, 64, 4, 6, 100_000
MEAN, STD = 120.0, 60.0
SIDES = {"light": 4096, "resnet18": 2048}
"""Side of the scene of each network in pixels."""

WARM_UP_SIDES = {"light": 4096, "resnet18": 1024}
"""Side of the scene of the first pass."""

PUBLIC_SIDES = {"resnet18": 2048, "resnet50": 1024}
"""Side of the scene of each network with `--precisions`."""

SMOKE_SIDES = {"light": 512, "resnet18": 512}

LAYOUTS = {"contiguous": "contiguous_format", "channels_last": "channels_last"}
VARIANTS = {
    "plain": (),
    "exact low-rank pyramid": ("pyramid",),
    "channels_last": ("pyramid", "channels_last"),
    "compile": ("pyramid", "channels_last", "compile"),
    "bf16": ("pyramid", "channels_last", "bf16"),
    "compile, bf16": ("pyramid", "channels_last", "compile", "bf16"),
}
NUM_TILES, TRAINING_STEPS = 8, 20
"""Tiles that a variant is timed on, and steps of the training before."""


def count_tiles(side: int) -> int:
    """Return the number of tiles that cover a square scene."""
    from geopsp.core.grid import tile_starts

    return len(tile_starts(side, size=TILE, overlap=OVERLAP)) ** 2


def random_model(name: str) -> Any:
    """Return a model with random weights."""
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
    return TrainedModel(spec, legend, bands, statistics, "uint8", TILE, (0.5, 0.5), "metre", network=network.eval())


def map_scene(model: Any, scene: Path, out: Path) -> float:
    """Return the seconds from the scene's file to a COG."""
    from geopsp.inference.options import MapSettings
    from geopsp.inference.outputs import class_spec
    from geopsp.inference.plan_job import plan_job
    from geopsp.inference.run_job import run_job
    from geopsp.raster.scene import Scene

    start = time.perf_counter()
    outputs = [class_spec(out, model.legend)]
    run_job(plan_job(Scene.open(scene), model, outputs, MapSettings(padding=OVERLAP)), model)
    return time.perf_counter() - start


def ours(name: str, scene: str, warm_up: str = "") -> dict[str, float]:
    """Return seconds and memory of a map, after a first pass over another scene."""
    model = random_model(name)
    with tempfile.TemporaryDirectory(dir=Path(scene).parent) as folder:
        if warm_up:
            map_scene(model, Path(warm_up), Path(folder) / "warm_up.tif")
        seconds = map_scene(model, Path(scene), Path(folder) / "map.tif")
    return {"seconds": seconds, "peak_mb": peak_mb()}


def bare(name: str, layout: str, side: str) -> dict[str, float]:
    """Return seconds and memory of the network alone, over as many tiles as cover a scene."""
    import torch

    import geopsp.inference.run_job  # noqa: F401 (its memory is not the map's)

    memory_format, count = getattr(torch, LAYOUTS[layout]), count_tiles(int(side))
    network = random_model(name).network.to(memory_format=memory_format)
    image = torch.randn(min(BATCH, count), 3, TILE, TILE).to(memory_format=memory_format)
    with torch.inference_mode():
        for _ in range(min(16 if name == "light" else 1, count - 1)):
            network(image)
        start = time.perf_counter()
        for first in range(0, count, BATCH):
            network(image[: count - first])
    return {"seconds": time.perf_counter() - start, "peak_mb": peak_mb()}


def labelled_tiles(scene: str) -> Any:
    """Return (n, 3, s, s) normalised tiles, and classes by the brightest band and by how bright it is."""
    import rasterio
    import torch

    with rasterio.open(scene) as file:
        pixels = torch.from_numpy(file.read(window=((0, TILE), (0, NUM_TILES // 2 * TILE)))).float()
    image = torch.stack([*pixels.split(TILE, dim=2), *pixels.flip(0).split(TILE, dim=2)])
    smooth = torch.nn.functional.avg_pool2d(image, 32).repeat_interleave(32, 2).repeat_interleave(32, 3)
    brightest = smooth.max(dim=1)
    return (image - MEAN) / STD, brightest.indices + 3 * (brightest.values > 160)


def train_briefly(scene: str, weights: str) -> dict[str, float]:
    """Write the weights of a network after a few steps of training."""
    import torch

    image, label = labelled_tiles(scene)
    network = random_model("resnet18").network.train()
    optimizer = torch.optim.AdamW(network.parameters(), 1e-3)
    rng = np.random.default_rng(0)
    for _ in range(TRAINING_STEPS):
        row, col = rng.integers(0, TILE - 128, 2)
        crop = (..., slice(row, row + 128), slice(col, col + 128))
        loss = torch.nn.functional.cross_entropy(network(image[crop]).logits, label[crop])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    torch.save(network.state_dict(), weights)
    return {"loss": loss.item()}


def variant(name: str, scene: str, weights: str, out: str) -> dict[str, float]:
    """Return the seconds of a variant of the trained network for NUM_TILES tiles; write the most probable classes."""
    import torch
    from ppm import concatenated

    changes = VARIANTS[name]
    image, label = labelled_tiles(scene)
    network = random_model("resnet18").network
    network.load_state_dict(torch.load(weights, weights_only=True))
    if "pyramid" not in changes:
        network.context.forward = partial(concatenated, network.context)
    if "channels_last" in changes:
        network, image = network.to(memory_format=torch.channels_last), image.to(memory_format=torch.channels_last)
    run = torch.compile(network) if "compile" in changes else network
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16, enabled="bf16" in changes):
        run(image[:BATCH])
        start = time.perf_counter()
        logits = torch.cat([run(batch).float() for batch in image.split(BATCH)])
        seconds = time.perf_counter() - start
    index = logits.max(dim=1).indices
    np.save(out, index.numpy().astype(np.uint8))
    return {"seconds": seconds, "correct": (index == label).float().mean().item()}


def saved_model(backbone: str, folder: Path) -> Path:
    """Save a PSPNet with a U-Net decoder and random weights; return its folder."""
    import torch

    from geopsp.models.build import ModelSpec, build_network
    from geopsp.models.saved_model import save_model

    model = random_model("light")
    torch.manual_seed(0)
    model.spec = ModelSpec(backbone, 3, CLASSES, decoder="unet")
    model.network = build_network(model.spec).eval()
    save_model(model, folder)
    return folder


def public_call(model: str, precision: str, scene: str, warm_up: str) -> dict[str, float]:
    """Return the seconds of `classify_pixels` by the clock and by processor time, after a first pass."""
    from geopsp import PixelClassifier, classify_pixels

    classifier = PixelClassifier.from_model(model)
    with tempfile.TemporaryDirectory(dir=Path(scene).parent) as folder:
        for name, image in (("warm_up", warm_up), ("map", scene)):
            start, busy = time.perf_counter(), time.process_time()
            classify_pixels(image, classifier, Path(folder) / f"{name}.tif", padding=OVERLAP, precision=precision)
    return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - busy}


def bare_call(model: str, precision: str, side: str) -> dict[str, float]:
    """Return the seconds of the network alone, over as many tiles as cover a scene."""
    import torch

    from geopsp.models.precision import network_autocast
    from geopsp.models.saved_model import load_model

    count, cpu = count_tiles(int(side)), torch.device("cpu")
    network = load_model(model).network.to(memory_format=torch.channels_last).eval()
    image = torch.randn(min(BATCH, count), 3, TILE, TILE).to(memory_format=torch.channels_last)
    with torch.inference_mode(), network_autocast(precision, cpu):
        network(image[:1])
        start, busy = time.perf_counter(), time.process_time()
        for first in range(0, count, BATCH):
            network(image[: count - first])
    return {"seconds": time.perf_counter() - start, "cpu_seconds": time.process_time() - busy}


def precisions(folder: Path, rounds: int, *, smoke: bool) -> dict[str, Any]:
    """Print a table of maps as users make them beside bare networks; return the numbers for the last line."""
    import torch
    from chips import make_scene

    from geopsp.models.device import resolve_precision

    auto = resolve_precision("auto", torch.device("cpu"))
    if auto == "fp32":
        print("This processor has no bfloat16, so `auto` is fp32, and there are no rows of bf16.")
    sides = {"tu-test_resnet": TILE} if smoke else PUBLIC_SIDES
    runs: dict[tuple[str, str, str], list[dict[str, float]]] = {}
    for backbone, side in sides.items():
        model = saved_model(backbone, folder / backbone)
        scene, warm_up = (folder / f"{backbone}-{name}.tif" for name in ("scene", "warm-up"))
        make_scene(scene, side)
        make_scene(warm_up, TILE)
        for _ in range(rounds):
            for precision in dict.fromkeys(["fp32", auto]):
                asked = "auto" if precision == auto else precision
                ours = measure(__file__, one_run, "public_call", model, asked, scene, warm_up, smoke=smoke)
                alone = measure(__file__, one_run, "bare_call", model, precision, str(side), smoke=smoke)
                runs.setdefault((backbone, precision, "classify_pixels"), []).append(ours)
                runs.setdefault((backbone, precision, "bare network"), []).append(alone)
    ways = {way: medians(found) for way, found in runs.items()}
    rows = [
        [*way, sides[way[0]] ** 2 / 1e6 / run["seconds"], run["seconds"], run["cpu_seconds"]]
        for way, run in ways.items()
    ]
    print(table(["network", "precision", "way", "Mpx/s", "s", "processor s"], rows), flush=True)
    return _precision_ratios(ways)


def _precision_ratios(ways: dict[tuple[str, str, str], dict[str, float]]) -> dict[str, float]:
    found = {}
    for backbone, precision in dict.fromkeys((backbone, precision) for backbone, precision, _ in ways):
        ours, alone = (ways[backbone, precision, way] for way in ("classify_pixels", "bare network"))
        name = f"public_over_bare {backbone} {precision}"
        found[name] = alone["seconds"] / ours["seconds"]
        found[f"{name}, processor time"] = alone["cpu_seconds"] / ours["cpu_seconds"]
        if precision == "bf16":
            slow = ways[backbone, "fp32", "classify_pixels"]
            found[f"bf16_over_fp32 {backbone}"] = slow["seconds"] / ours["seconds"]
    return found


RUNS = {
    "public_call": public_call,
    "bare_call": bare_call,
    "ours": ours,
    "bare": bare,
    "train_briefly": train_briefly,
    "variant": variant,
}


def one_run(name: str, *arguments: str) -> dict[str, float]:
    return RUNS[name](*arguments)


def speedups(folder: Path, scene: Path, rounds: int) -> dict[str, Any]:
    """Print a table of the ways to run the PSPNet; return the numbers for the last line."""
    import torch

    from geopsp.models.device import resolve_precision

    weights = folder / "weights.pt"
    measure(__file__, one_run, "train_briefly", scene, weights)
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in VARIANTS}
    for _ in range(rounds):
        for name, found in runs.items():
            found.append(measure(__file__, one_run, "variant", name, scene, weights, folder / f"{name}.npy"))
    variants = {name: medians(found) for name, found in runs.items()}
    plain = np.load(folder / "plain.npy")
    same = {name: float((np.load(folder / f"{name}.npy") == plain).mean()) for name in VARIANTS}
    gain = {name: variants["plain"]["seconds"] / run["seconds"] for name, run in variants.items()}
    rows = [
        [name, run["seconds"] / NUM_TILES, gain[name], f"{same[name]:.5%}", run["correct"]]
        for name, run in variants.items()
    ]
    print(table(["PSPNet, ResNet-18", "s per tile", "times faster", "pixels unchanged", "pixels correct"], rows))
    if resolve_precision("auto", torch.device("cpu")) == "fp32":
        print("This processor has no bfloat16: it is emulated here, and only used if asked for.")
    changed = {f"changed pixels a million, {name}": (1 - share) * 1e6 for name, share in same.items()}
    return {f"times faster, {name}": value for name, value in gain.items()} | changed


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--peers", action="store_true")
    parser.add_argument("--peers-folder", type=Path, help="the environment of the peers; made if there is none")
    parser.add_argument("--peers-python", help="the Python to make it with, 3.12 or later; default: this one")
    parser.add_argument("--large", action="store_true")
    parser.add_argument("--speedups", action="store_true")
    parser.add_argument("--precisions", action="store_true")
    parser.add_argument("--only-precisions", action="store_true", help="nothing else")
    parser.add_argument("--run", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.run:
        print(json.dumps(one_run(*options.run)))
        return
    if options.only_precisions:
        with tempfile.TemporaryDirectory() as temporary:
            print_json(precisions(Path(temporary), options.rounds, smoke=options.smoke))
        return
    from chips import make_scene

    sides, warm_up_sides = (SMOKE_SIDES, {}) if options.smoke else (SIDES, WARM_UP_SIDES)
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        scenes = {side: folder / f"{side}.tif" for side in {*sides.values(), *warm_up_sides.values()}}
        for side, path in scenes.items():
            make_scene(path, side)
        light = scenes[sides["light"]]
        networks = {name: (side, scenes[side], scenes.get(warm_up_sides.get(name, 0))) for name, side in sides.items()}
        ways = alternate(networks, options)
        result = report(ways, sides)
        if options.peers:
            result |= beside_peers(ways)
        if options.large:
            result |= large(folder, ways)
        if options.speedups:
            result |= speedups(folder, light, options.rounds)
        if options.precisions:
            result |= precisions(folder, options.rounds, smoke=options.smoke)
    print_json(result)


def alternate(
    networks: dict[str, tuple[int, Path, Path | None]], options: argparse.Namespace
) -> dict[tuple[str, str], dict[str, float]]:
    """Run all ways in turn; return their medians by network and way.

    Args:
        networks: By name: side of the scene in pixels, scene, scene of the first pass.
        options: Of the command line.
    """
    import peers

    run = partial(measure, __file__, one_run, smoke=options.smoke)
    ways: dict[tuple[str, str], Any] = {}
    for name, (side, scene, warm_up) in networks.items():
        ways[name, "ours"] = partial(run, "ours", name, scene, *([warm_up] if warm_up else []))
        ways |= {(name, layout): partial(run, "bare", name, layout, str(side)) for layout in LAYOUTS}
    if options.peers:
        python = peers.environment(options.peers_folder, options.peers_python)
        scene = networks["light"][1]
        ways |= {("light", name): partial(peers.measure, name, python, scene, scene.parent) for name in peers.PEERS}
    runs: dict[tuple[str, str], list[dict[str, float]]] = {way: [] for way in ways}
    rounds = 1 if options.smoke else options.rounds
    for number in range(rounds):
        for way, run_way in ways.items():
            runs[way].append(run_way())
        print(f"Round {number + 1} of {rounds} done", file=sys.stderr, flush=True)
    return {way: medians(found) for way, found in runs.items()}


def report(ways: dict[tuple[str, str], dict[str, float]], sides: dict[str, int]) -> dict[str, Any]:
    """Print a table; return the numbers for the last line."""
    rows = []
    for (name, way), run in ways.items():
        words = f"bare, {way}" if way in LAYOUTS else way
        rows.append([name, words, run["seconds"], sides[name] ** 2 / 1e6 / run["seconds"], round(run["peak_mb"])])
    print(f"{os.cpu_count()} cores")
    print(table(["network", "way", "s", "Mpx/s", "peak MB"], rows), flush=True)
    best = min(LAYOUTS, key=lambda layout: ways["resnet18", layout]["seconds"])
    seconds = {way: run["seconds"] for way, run in ways.items()}
    return {
        "over_bare_network": seconds["resnet18", best] / seconds["resnet18", "ours"],
        "bare_network": best,
        "light_over_bare": seconds["light", "contiguous"] / seconds["light", "ours"],
        "light_over_bare, channels_last": seconds["light", "channels_last"] / seconds["light", "ours"],
        "peak_mb": round(ways["light", "ours"]["peak_mb"]),
    }


def beside_peers(ways: dict[tuple[str, str], dict[str, float]]) -> dict[str, Any]:
    """Return the numbers of the fastest peer for the last line."""
    peers = {way: run for (_, way), run in ways.items() if way not in ("ours", *LAYOUTS)}
    best = min(peers, key=lambda name: peers[name]["seconds"])
    ours_light, least_mb = ways["light", "ours"], min(run["peak_mb"] for run in peers.values())
    return {
        "best_peer": best,
        "over_best_peer": peers[best]["seconds"] / ours_light["seconds"],
        "memory_of_least_peer": ours_light["peak_mb"] / least_mb,
    }


def large(folder: Path, ways: dict[tuple[str, str], dict[str, float]]) -> dict[str, Any]:
    """Measure a sparse raster, once, without a first pass."""
    from chips import make_scene

    make_scene(folder / "huge.tif", HUGE, filled=4096)
    huge = measure(__file__, one_run, "ours", "light", folder / "huge.tif")
    network_mb = ways["light", "contiguous"]["peak_mb"]
    rows = [["the network alone", "", round(network_mb), ""]]
    for words, run in (("4096 x 4096", ways["light", "ours"]), ("100,000 x 100,000, sparse", huge)):
        rows.append([words, run["seconds"], round(run["peak_mb"]), round(run["peak_mb"] - network_mb)])
    print(table(["light network", "s", "peak MB", "above the network's own"], rows), flush=True)
    return {"large_seconds": huge["seconds"], "large_mb_above_model": round(huge["peak_mb"] - network_mb)}


if __name__ == "__main__":
    main()
