"""Speed of training and prediction on a GPU, each beside the bare network in the same precision and batch.

    python benchmarks/gpu.py [--backbone resnet50] [--size 512] [--batch N] [--minutes 8] [--device cuda] [--smoke]

It fits any card: batches are as large as free memory lets them be (at most 16 chips, 64 tiles) and halved where memory
runs out all the same; precisions are float32 and what `precision="auto"` takes here; what is left when the minutes are
over is not begun. Nothing but geopsp is needed, and made-up chips and rasters are written to a temporary folder.

Training: forward, loss, backward and AdamW on tensors that lie on the device, then `fit` from a decoded cache, whose
last epoch counts. Prediction: the network on tensors on the device, then maps of a raster from file to COG, of which
the first does not count and the median of the others does; their speed is that of tiles, which overlap. Last, both
networks compiled, in the faster precision. `--smoke` runs on the CPU, without compilation. Prints tables and, last,
one line of JSON: `fit_over_bare` and `map_over_bare` by precision, and speeds with their batch.
"""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import rasterio
import torch
from common import option_parser, print_json, table
from rasterio.transform import from_origin
from torch import nn

from geopsp import PSPNetClassifier, export_training_data, prepare_data
from geopsp.inference.options import MapSettings
from geopsp.inference.outputs import class_spec
from geopsp.inference.plan_job import plan_job
from geopsp.inference.run_job import run_job
from geopsp.models.build import ModelSpec, build_network
from geopsp.models.device import device_name, pick_device, resolve_precision
from geopsp.models.losses import LossSpec, total_loss
from geopsp.models.memory import free_memory, inference_batch_size, is_out_of_memory, training_batch_size
from geopsp.models.precision import NetworkPrecision, exact_float32, network_autocast
from geopsp.models.saved_model import TrainedModel
from geopsp.raster.scene import Scene

BANDS, WARM_UP_STEPS, MAX_TRAINING_BATCH = 3, 3, 16
STEP_SECONDS = 5.0
"""Seconds in which steps are counted."""

MAPS = 3
"""Maps of which the median counts, after a first one."""

MAX_MAP_SIDE = 12_288
"""Largest side in pixels of the raster that is mapped."""

COMPILE_MINUTES = 2.0
"""Minutes that must be left for a network to be compiled."""


@dataclass
class Bench:
    """What is measured, where, and how long still."""

    device: torch.device
    size: int
    minutes: float
    smoke: bool
    batch: int | None
    start: float = field(default_factory=time.perf_counter)
    result: dict[str, Any] = field(default_factory=dict)

    @property
    def minutes_left(self) -> float:
        return self.minutes - (time.perf_counter() - self.start) / 60

    @property
    def precisions(self) -> list[NetworkPrecision]:
        """Float32, and what is faster here."""
        return list(dict.fromkeys(["fp32", resolve_precision("auto", self.device)]))

    def fitting(self, batch: int, measure: Callable[[int], float]) -> tuple[float, int] | None:
        """Return `measure(batch)` and the batch, which is halved as often as memory runs out; None if nothing fits."""
        while batch:
            try:
                return measure(batch), batch
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            batch //= 2
        return None

    def rate(self, step: Callable[[], Any]) -> float:
        """Return the steps in a second."""
        for _ in range(1 if self.smoke else WARM_UP_STEPS):
            step()
        self._wait()
        start, steps = time.perf_counter(), 0
        while not steps or (time.perf_counter() - start < STEP_SECONDS and not self.smoke):
            for _ in range(1 if self.smoke else 5):
                step()
                steps += 1
            self._wait()
        return steps / (time.perf_counter() - start)

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def bare_training(bench: Bench, spec: ModelSpec, precision: NetworkPrecision, batch: int, *, compiled: bool) -> float:
    """Return the images in a second of training steps on tensors on the device."""
    torch.manual_seed(0)
    network = build_network(spec).to(bench.device).to(memory_format=torch.channels_last).train()
    if compiled:
        network.compile()
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-4, fused=True)
    scaler = torch.amp.GradScaler(bench.device.type, enabled=precision == "fp16")
    shape = (batch, BANDS, bench.size, bench.size)
    image = torch.randn(shape, device=bench.device).contiguous(memory_format=torch.channels_last)
    label = torch.randint(spec.classes, (batch, bench.size, bench.size), device=bench.device)
    valid = torch.ones_like(image[:, :1])

    def step() -> None:
        with network_autocast(precision, bench.device):
            loss = total_loss(network(image, valid), label, valid, LossSpec(), None)
        scaler.scale(loss).backward()
        scaler.step(optimizer)
        scaler.update()
        optimizer.zero_grad()

    return batch * bench.rate(step)


def bare_prediction(bench: Bench, network: nn.Module, precision: NetworkPrecision, batch: int) -> float:
    """Return the megapixels in a second of the network on tensors on the device."""
    shape = (batch, BANDS, bench.size, bench.size)
    image = torch.randn(shape, device=bench.device).contiguous(memory_format=torch.channels_last)
    valid = torch.ones_like(image[:, :1])

    def step() -> None:
        with torch.inference_mode(), network_autocast(precision, bench.device):
            network(image, valid)

    if precision == "fp32":  # as maps have it
        with exact_float32(bench.device):
            return batch * bench.size**2 * bench.rate(step) / 1e6
    return batch * bench.size**2 * bench.rate(step) / 1e6


def training(bench: Bench, model: PSPNetClassifier, work: Path) -> list[list[Any]]:
    """Measure steps and `fit` in each precision; return rows of a table."""
    spec, rows = model.model.spec, []
    wanted = bench.batch or min(
        MAX_TRAINING_BATCH,
        training_batch_size(build_network(spec), bands=BANDS, size=bench.size, chips=10**6, device=bench.device),
    )
    for precision in bench.precisions:
        bare = bench.fitting(wanted, lambda n, p=precision: bare_training(bench, spec, p, n, compiled=False))
        if bare is None:
            rows.append(["training", precision, 1, "does not fit", "", ""])
            continue
        bench.result[f"train {precision}"], bench.result[f"train batch {precision}"] = bare
        try:
            speed = fit_speed(bench, precision, bare[1], model, work)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            speed = float("nan")
        bench.result[f"fit {precision}"], bench.result[f"fit_over_bare {precision}"] = speed, speed / bare[0]
        rows.append(["training, images/s", precision, bare[1], bare[0], speed, speed / bare[0]])
    return rows


def fit_speed(bench: Bench, precision: NetworkPrecision, batch: int, model: PSPNetClassifier, work: Path) -> float:
    """Return the images in a second of the last epoch of `fit`."""
    data = prepare_data(work / "chips", None, 0.1, batch, cache=work / "cache")
    classifier = PSPNetClassifier(data, model.model.spec.backbone, encoder_weights=None, device=str(bench.device))
    classifier.fit(2 if bench.smoke else 3, 1e-4, checkpoint=False, precision=precision)
    last = classifier.model.history[-1]
    return float(last["images"] / last["train_seconds"])


def prediction(bench: Bench, model: TrainedModel, work: Path) -> list[list[Any]]:
    """Measure the network and maps in each precision; return rows of a table."""
    network, rows = model.network.to(bench.device).to(memory_format=torch.channels_last).eval(), []
    for precision in bench.precisions:
        wanted, _ = inference_batch_size(
            network, bands=BANDS, classes=len(model.legend), size=bench.size, device=bench.device,
            batch_size=bench.batch, precision=precision,
        )  # fmt: skip
        bare = bench.fitting(wanted, lambda n, p=precision: bare_prediction(bench, network, p, n))
        if bare is None:
            rows.append(["prediction", precision, 1, "does not fit", "", ""])
            continue
        speed = map_speed(bench, model, precision, bare[1], work, compiled=False)
        bench.result[f"predict {precision}"], bench.result[f"predict batch {precision}"] = bare
        bench.result[f"map {precision}"], bench.result[f"map_over_bare {precision}"] = speed, speed / bare[0]
        rows.append(["prediction, Mpx/s", precision, bare[1], bare[0], speed, speed / bare[0]])
    return rows


def map_speed(
    bench: Bench, model: TrainedModel, precision: NetworkPrecision, batch: int, work: Path, *, compiled: bool
) -> float:
    """Return the megapixels in a second of maps, in the pixels of their tiles."""
    scene, speeds = Scene.open(work / "scene.tif"), []
    settings = MapSettings(batch_size=batch, precision=precision, compiled=compiled)
    for number in range(1 if bench.smoke else MAPS + 1):
        out = work / f"{precision}-{compiled}-{number}.tif"
        job = plan_job(scene, model, [class_spec(out, model.legend)], settings, device=bench.device)
        start = time.perf_counter()
        run_job(job, model, device=str(bench.device))
        speeds.append(len(job.tiles) * bench.size**2 / (time.perf_counter() - start) / 1e6)
        out.unlink()
    return median(speeds[1:] or speeds)


def compilation(bench: Bench, model: TrainedModel, work: Path) -> list[list[Any]]:
    """Measure both networks compiled, in the faster precision, while there is time; return rows of a table."""
    precision, rows = bench.precisions[-1], []
    result = bench.result
    if bench.minutes_left > COMPILE_MINUTES and f"train {precision}" in result:
        batch = result[f"train batch {precision}"]
        found = bench.fitting(batch, lambda n: bare_training(bench, model.spec, precision, n, compiled=True))
        if found is not None and found[1] == batch:
            result["train compiled"] = found[0]
            rows.append(["a training step", precision, batch, found[0] / result[f"train {precision}"]])
        torch.compiler.reset()
    if bench.minutes_left > COMPILE_MINUTES and f"predict {precision}" in result:
        batch = result[f"predict batch {precision}"]
        speed = map_speed(bench, model, precision, batch, work, compiled=True)
        result["map compiled"] = speed
        rows.append(["a map", precision, batch, speed / result[f"map {precision}"]])
    return rows


def write_image(path: Path, side: int, size: int) -> Path:
    """Write a raster of noise over two brightness levels, and beside it, as labels-NAME, the levels."""
    rng = np.random.default_rng(0)
    cells = rng.integers(1, 3, (-(-side * 4 // size),) * 2, dtype=np.uint8)
    codes = np.kron(cells, np.ones((size // 4, size // 4), np.uint8))[:side, :side]
    noise = rng.integers(0, 60, (BANDS, size, size), dtype=np.uint8)
    repeats = -(-side // size)
    pixels = np.tile(noise, (1, repeats, repeats))[:, :side, :side] + 60 * codes
    for name, data in ((path.name, pixels), (f"labels-{path.name}", codes[None])):
        with rasterio.open(
            path.with_name(name), "w", driver="GTiff", dtype="uint8", count=len(data), height=side, width=side,
            crs="EPSG:32632", transform=from_origin(600000, 5300000, 1, 1), tiled=True, blockxsize=256, blockysize=256,
        ) as file:  # fmt: skip
            file.write(data)
    return path


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--backbone", default="resnet50")
    parser.add_argument("--size", type=int, default=512)
    parser.add_argument("--batch", type=int, help="of training and prediction; default: as large as fits")
    parser.add_argument("--minutes", type=float, default=8.0, help="in all, about")
    parser.add_argument("--device", default="cuda")
    options = parser.parse_args()
    if options.smoke:
        options.backbone, options.size, options.batch, options.device = "tu-test_resnet", 32, 2, "cpu"
    run(options)


def run(options: argparse.Namespace) -> None:
    """Measure all, print tables and the line of JSON."""
    device = pick_device(options.device)
    bench = Bench(device, options.size, options.minutes, options.smoke, options.batch)
    print(
        f"{device_name(device)}, {free_memory(device) / 2**30:.0f} GiB free, torch {torch.__version__}, "
        f"{options.backbone}, {options.size} x {options.size}, {' and '.join(bench.precisions)}",
        flush=True,
    )
    bench.result["device"] = device_name(device)
    with tempfile.TemporaryDirectory() as scratch:
        work = Path(scratch)
        chips_side = options.size * (5 if options.smoke else 14)
        export_training_data(
            write_image(work / "chips.tif", chips_side, options.size), work / "labels-chips.tif", work / "chips",
            tile_size=options.size,
        )  # fmt: skip
        data = prepare_data(work / "chips", None, 0.1, options.batch or 2, cache=work / "cache")
        classifier = PSPNetClassifier(data, options.backbone, encoder_weights=None, device=options.device)
        header = ["what", "precision", "batch", "bare network", "geopsp", "geopsp / bare"]
        print(table(header, training(bench, classifier, work)), flush=True)
        write_image(work / "scene.tif", min(MAX_MAP_SIDE, options.size * (5 if options.smoke else 24)), options.size)
        print(table(header, prediction(bench, classifier.model, work)), flush=True)
        if not options.smoke and device.type == "cuda":
            rows = compilation(bench, classifier.model, work)
            print(table(["compiled", "precision", "batch", "times as fast"], rows), flush=True)
    print_json(bench.result | {"minutes": options.minutes - bench.minutes_left})


if __name__ == "__main__":
    main()
