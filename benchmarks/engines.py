"""Speed of the engines that run the network of a map, and how often they give another class than PyTorch in float32.

    python benchmarks/engines.py [--rounds 5] [--tile 256] [--tiles 4] [--smoke]

PSPNets on ResNet-18 and ResNet-50 (U-Net decoder, output stride 8, three bands, six classes) with random weights, their
last layer scaled so that classes vary. Tiles run as in a map: normalised, one at a time in each of as many threads as
there are cores, up to the logits. The engines take turns in one process, a first pass does not count, and medians over
the rounds count. Beside the time there is the processor time of a tile, which other programs disturb less. OpenVINO
runs the same ONNX file if it is installed; it is no engine of geopsp. Prints a table and, last, one line of JSON.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
from common import option_parser, print_json, table

CLASSES, BANDS = 6, 3
REFERENCE = "torch fp32"
SCALE = 30.0
"""By which the last layer of a random network is multiplied."""

Engine = Callable[[Any, Any], Any]
"""Takes pixels and valid masks of tiles; returns logits."""


def random_model(backbone: str, tile: int) -> Any:
    """Return a PSPNet with random weights whose classes vary."""
    import torch

    from geopsp.core.bands import BandStats
    from geopsp.core.legend import Legend
    from geopsp.models.build import build_network
    from geopsp.models.saved_model import TrainedModel
    from geopsp.models.spec import ModelSpec

    torch.manual_seed(0)
    spec = ModelSpec(backbone, BANDS, CLASSES)
    network = build_network(spec).eval()
    with torch.no_grad():
        for layer in network.decoder.modules():
            if isinstance(layer, torch.nn.Conv2d) and layer.out_channels == CLASSES:
                layer.weight *= SCALE
    mean, m2, low, high = (np.full(BANDS, value) for value in (120.0, 9 * 60.0**2, 0.0, 255.0))
    legend = Legend.from_names({code: f"class {code}" for code in range(CLASSES)})
    names = tuple(f"band_{number}" for number in range(1, BANDS + 1))
    return TrainedModel(
        spec, legend, names, BandStats(9, mean, m2, low, high), "uint8", tile, (1, 1), "metre", network=network
    )


def random_tiles(count: int, size: int) -> tuple[Any, Any]:
    """Return (n, bands, s, s) tiles with fields of 16 pixels and noise, and valid masks with a corner left out."""
    rng = np.random.default_rng(0)
    fields = np.kron(rng.integers(20, 220, (count, BANDS, size // 16, size // 16)), np.ones((16, 16)))
    data = np.clip(fields + rng.normal(0, 12, fields.shape), 1, 255).astype(np.uint8)
    valid = np.ones((count, size, size), bool)
    valid[:, : size // 8, : size // 8] = False
    return data, valid


def engines(model: Any, folder: Path, *, smoke: bool) -> dict[str, Engine]:
    """Return what runs the model, by name."""
    import torch

    from geopsp.export.export_model import export_model
    from geopsp.inference.onnx_engine import Processor
    from geopsp.inference.onnx_predictor import OnnxPredictor
    from geopsp.inference.torch_predictor import TorchPredictor
    from geopsp.models.onnx_file import read_onnx

    cpu, path = torch.device("cpu"), folder / f"{model.spec.backbone}.onnx"
    file = read_onnx(export_model(model, path))
    found: dict[str, Engine] = {
        REFERENCE: TorchPredictor(model, cpu),
        "torch bf16": TorchPredictor(model, cpu, precision="bf16"),
        "ONNX Runtime fp32": OnnxPredictor(file, Processor()),
    }
    if not smoke:  # it takes a minute
        found["torch compiled"] = TorchPredictor(model, cpu, compiled=True)
    if find_spec("openvino") is not None:
        predictor = OnnxPredictor(file, Processor())
        predictor.session = OpenVINO(path)
        found["OpenVINO fp32"] = predictor
    return found


class OpenVINO:
    """An ONNX file in OpenVINO, called as a session of ONNX Runtime: a stream of one thread for each core."""

    def __init__(self, path: Path) -> None:
        import openvino

        cores = os.cpu_count() or 1
        options = {"NUM_STREAMS": cores, "INFERENCE_NUM_THREADS": cores, "INFERENCE_PRECISION_HINT": "f32"}
        self._model = openvino.Core().compile_model(str(path), "CPU", options)
        self._own = threading.local()

    def run(self, _: Any, feed: dict[str, Any]) -> list[Any]:
        if not hasattr(self._own, "request"):
            self._own.request = self._model.create_infer_request()
        return [next(iter(self._own.request.infer(feed).values())).copy()]


def one_round(engine: Engine, data: Any, valid: Any) -> tuple[float, float, Any]:
    """Return seconds, processor seconds and logits of all tiles."""
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        list(pool.map(lambda _: time.sleep(0.01), range(os.cpu_count() or 1)))
        start, cpu = time.perf_counter(), time.process_time()
        logits = list(pool.map(lambda at: engine(data[at : at + 1], valid[at : at + 1]), range(len(data))))
        return time.perf_counter() - start, time.process_time() - cpu, np.concatenate(logits)


def compare(backbone: str, folder: Path, options: argparse.Namespace) -> tuple[list[list[Any]], dict[str, float]]:
    """Measure the engines with one network; return rows of the table, and numbers for the last line."""
    import torch

    model, (data, valid) = random_model(backbone, options.tile), random_tiles(options.tiles, options.tile)
    torch.set_num_threads(1)
    ways = engines(model, folder, smoke=options.smoke)
    runs: dict[str, list[tuple[float, float]]] = {name: [] for name in ways}
    classes: dict[str, Any] = {}
    for name, engine in list(ways.items()):
        try:
            classes[name] = one_round(engine, data, valid)[2].argmax(axis=1)[valid]
        except Exception as error:  # noqa: BLE001 (torch.compile needs a compiler)
            print(f"{name} cannot run: {str(error).splitlines()[0]}", file=sys.stderr)
            del ways[name], runs[name]
    for number in range(options.rounds):
        for name, engine in ways.items():
            runs[name].append(one_round(engine, data, valid)[:2])
        print(f"{backbone}: round {number + 1} of {options.rounds} done", file=sys.stderr, flush=True)
    pixels, reference = data.shape[0] * options.tile**2 / 1e6, classes[REFERENCE]
    share = np.bincount(reference, minlength=CLASSES).max() / reference.size
    print(f"{backbone}: {np.unique(reference).size} classes, the largest {share:.0%} of the pixels", flush=True)
    rows, result = [], {}
    for name, found in runs.items():
        times = [median(run[i] / base[i] for run, base in zip(found, runs[REFERENCE], strict=True)) for i in (0, 1)]
        seconds, processor = (median(run[i] for run in found) for i in (0, 1))
        other = float((classes[name] != reference).mean())
        rows.append([backbone, name, pixels / seconds, 1000 * processor / len(data), 1 / times[1], f"{other:.4%}"])
        result |= {f"{backbone}, {name}": 1 / times[0], f"{backbone}, {name}, by processor time": 1 / times[1]}
        result |= {f"{backbone}, {name}, other classes": other}
    return rows, result


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tile", type=int, default=256, help="side of a tile in pixels")
    parser.add_argument("--tiles", type=int, default=4, help="tiles of a round")
    options = parser.parse_args()
    backbones = ["resnet18", "resnet50"]
    if options.smoke:
        options.rounds, options.tile, options.tiles, backbones = 1, 64, 2, ["tu-test_resnet"]
    rows, result = [], {}
    with tempfile.TemporaryDirectory() as folder:
        for backbone in backbones:
            more_rows, more = compare(backbone, Path(folder), options)
            rows, result = rows + more_rows, result | more
    print(f"{os.cpu_count()} cores")
    print(table(["network", "engine", "Mpx/s", "CPU ms a tile", "times fp32 by CPU", "other classes"], rows))
    print_json(result)


if __name__ == "__main__":
    main()
