"""Speed of training and prediction on a GPU beside the bare network, with and without bfloat16 and compilation.

    python benchmarks/gpu.py [--backbone resnet50] [--size 512] [--batch 16] [--steps 20] [--device cuda] [--smoke]

Training: forward, loss, backward and step on tensors that lie on the device, each variant in turn (bfloat16,
channels_last, compiled); then `fit` on as many made-up chips from a decoded cache, which is what loading costs.
Prediction: the bare network, and maps of the same raster, from file to COG, with the network in batches as large. Each
with the peak of the device's memory. `--smoke` runs on the CPU, without compilation. Prints tables and, last, one line
of JSON; `map_over_bare` is the warm map's speed in tiles over that of the bare network in the same precision.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import rasterio
import torch
from common import option_parser, print_json, table
from rasterio.transform import from_origin
from torch import Tensor, nn

from geopsp import PSPNetClassifier, export_training_data, prepare_data
from geopsp.inference.options import MapSettings
from geopsp.inference.outputs import class_spec
from geopsp.inference.plan_job import plan_job
from geopsp.inference.run_job import run_job
from geopsp.models.build import ModelSpec, build_network
from geopsp.models.device import device_name, pick_device, resolve_precision
from geopsp.models.losses import LossSpec, total_loss
from geopsp.models.saved_model import TrainedModel
from geopsp.raster.scene import Scene

CLASSES, BANDS, WARM_UP_STEPS = 8, 3, 3


def timed(step: Callable[[], Any], steps: int, device: torch.device) -> tuple[float, float]:
    """Return the seconds of a step, and the peak memory in GB."""
    for _ in range(min(WARM_UP_STEPS, steps)):
        step()
    synchronize(device)
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    start = time.perf_counter()
    for _ in range(steps):
        step()
    synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) / 1e9 if device.type == "cuda" else float("nan")
    return (time.perf_counter() - start) / steps, peak


def synchronize(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextmanager
def built_network(spec: ModelSpec, device: torch.device, *, last: bool, compiled: bool) -> Iterator[nn.Module]:
    """Yield a network with random weights, channels_last or compiled if wanted."""
    torch.manual_seed(0)
    network = build_network(spec).to(device)
    if last:
        network.to(memory_format=torch.channels_last)
    if compiled:
        network.compile()
    yield network
    torch.compiler.reset()


def variants(options: argparse.Namespace) -> Iterator[tuple[bool, bool, bool]]:
    """Yield all combinations of bfloat16, channels_last and compiled."""
    yield from product((False, True), (False, True), (False,) if options.smoke else (False, True))


def training(
    spec: ModelSpec, image: Tensor, label: Tensor, options: argparse.Namespace
) -> tuple[list[list[Any]], dict[str, float]]:
    """Return a table and the images per second of training steps of each variant."""
    rows, result = [], {}
    valid = torch.ones_like(image[:, :1])
    for bf16, last, compiled in variants(options):
        with built_network(spec, image.device, last=last, compiled=compiled) as network:
            network.train()
            optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
            batch = image.contiguous(memory_format=torch.channels_last) if last else image

            def step(network=network, optimizer=optimizer, batch=batch, bf16=bf16) -> None:
                with torch.autocast(image.device.type, torch.bfloat16, enabled=bf16):
                    loss = total_loss(network(batch, valid), label, valid, LossSpec(), None)
                loss.backward()
                optimizer.step()
                optimizer.zero_grad()

            seconds, peak = timed(step, options.steps, image.device)
        rows.append([*variant_name(bf16, last, compiled), len(image) / seconds, peak])
        result["train " + " ".join(variant_name(bf16, last, compiled))] = len(image) / seconds
    return rows, result


def prediction(spec: ModelSpec, image: Tensor, options: argparse.Namespace) -> tuple[list[list[Any]], dict[str, float]]:
    """Return a table and the megapixels per second of the network of each variant."""
    rows, result = [], {}
    valid = torch.ones_like(image[:, :1])
    for bf16, last, compiled in variants(options):
        with built_network(spec, image.device, last=last, compiled=compiled) as network, torch.inference_mode():
            network.eval()
            batch = image.contiguous(memory_format=torch.channels_last) if last else image

            def step(network=network, batch=batch, bf16=bf16) -> None:
                with torch.autocast(image.device.type, torch.bfloat16, enabled=bf16):
                    network(batch, valid)

            seconds, peak = timed(step, options.steps, image.device)
        speed = image.shape[0] * image.shape[2] * image.shape[3] / seconds / 1e6
        rows.append([*variant_name(bf16, last, compiled), speed, peak])
        result["predict " + " ".join(variant_name(bf16, last, compiled))] = speed
    return rows, result


def variant_name(bf16: bool, last: bool, compiled: bool) -> list[str]:
    return [
        "bf16" if bf16 else "fp32",
        "channels_last" if last else "contiguous",
        "compiled" if compiled else "eager",
    ]


def end_to_end(options: argparse.Namespace, work: Path) -> tuple[list[list[Any]], dict[str, float]]:
    """Measure `fit` on chips from a cache, and maps from file to COG."""
    image, labels = make_images(work, options.size, options.batch * 12)
    export_training_data(image, labels, work / "chips", tile_size=options.size)
    data = prepare_data(work / "chips", None, 0.1, options.batch, cache=work / "cache")
    model = PSPNetClassifier(data, options.backbone, encoder_weights=None, device=options.device)
    rows, result = [], {}
    for compiled in (False,) if options.smoke else (False, True):
        model.fit(2 if options.smoke else 3, 1e-4, checkpoint=False, compiled=compiled)
        last = model.model.history[-1]
        name = f"fit {'compiled' if compiled else 'eager'}"
        result[name] = last["images"] / last["train_seconds"]
        rows.append([name, "images/s", result[name]])
    map_rows, map_result = maps(Scene.open(image), model.model, options, work)
    return rows + map_rows, result | map_result


def maps(
    scene: Scene, model: TrainedModel, options: argparse.Namespace, work: Path
) -> tuple[list[list[Any]], dict[str, float]]:
    """Measure the same map twice, cold and warm; the speed also in the pixels of tiles, which overlap."""
    bf16 = resolve_precision("auto", pick_device(options.device)) == "bf16"
    settings = MapSettings(batch_size=options.batch)
    rows, result = [], {}
    for name in ("first", "warm"):
        start = time.perf_counter()
        job = plan_job(scene, model, [class_spec(work / f"{name}.tif", model.legend)], settings, bf16=bf16)
        run_job(job, model, device=options.device)
        seconds = time.perf_counter() - start
        result[f"map, {name}"] = scene.grid.width * scene.grid.height / seconds / 1e6
        result[f"map, {name}, tiles"] = len(job.tiles) * options.size**2 / seconds / 1e6
        rows += [[way, "Mpx/s", result[way]] for way in (f"map, {name}", f"map, {name}, tiles")]
    return rows, result


def make_images(work: Path, size: int, chips: int) -> tuple[Path, Path]:
    """Write a raster of noise over two brightness levels, and the levels as its labels."""
    side = int(np.ceil(np.sqrt(chips)))
    rng = np.random.default_rng(0)
    codes = np.kron(rng.integers(1, 3, (side * 4, side * 4), dtype=np.uint8), np.ones((size // 4, size // 4), np.uint8))
    pixels = rng.integers(0, 60, (BANDS, *codes.shape), dtype=np.uint8) + 60 * codes
    for name, data in (("image.tif", pixels), ("labels.tif", codes[None])):
        with rasterio.open(
            work / name, "w", driver="GTiff", dtype="uint8", count=len(data), height=data.shape[1], width=data.shape[2],
            crs="EPSG:32632", transform=from_origin(600000, 5300000, 1, 1), tiled=True,
        ) as file:  # fmt: skip
            file.write(data)
    return work / "image.tif", work / "labels.tif"


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, default=16)
    parser.add_argument("--steps", type=int, default=20)
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if options.smoke:
        options.backbone, options.size, options.batch, options.steps, options.device = "tu-test_resnet", 32, 2, 1, "cpu"
    device = pick_device(options.device)
    print(f"{device_name(device)}, torch {torch.__version__}, {options.backbone}, {options.batch} x {options.size}²")
    spec = ModelSpec(options.backbone, BANDS, CLASSES)
    image = torch.randn(options.batch, BANDS, options.size, options.size, device=device)
    label = torch.randint(CLASSES, (options.batch, options.size, options.size), device=device)
    header = ["precision", "layout", "mode"]
    rows, result = training(spec, image, label, options)
    print(table([*header, "training, images/s", "peak, GB"], rows), flush=True)
    rows, predicted = prediction(spec, image, options)
    print(table([*header, "network alone, Mpx/s", "peak, GB"], rows), flush=True)
    with tempfile.TemporaryDirectory() as scratch:
        rows, whole = end_to_end(options, Path(scratch))
    print(table(["end to end", "unit", "speed"], rows))
    result |= predicted | whole
    precision = "bf16" if device.type == "cuda" else "fp32"
    for mode in ("eager",) if options.smoke else ("eager", "compiled"):
        result[f"loader_efficiency {mode}"] = result[f"fit {mode}"] / result[f"train {precision} channels_last {mode}"]
    map_precision = resolve_precision("auto", device)
    result["map_over_bare"] = result["map, warm, tiles"] / result[f"predict {map_precision} channels_last eager"]
    print_json(result)


if __name__ == "__main__":
    main()
