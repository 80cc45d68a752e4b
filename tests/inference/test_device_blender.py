"""What a GPU does for a map, on tensors of the CPU, on tensors without numbers, and counted."""

from __future__ import annotations

from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from inference_common import CLASSES, CPU, plain_normalization, torch_ops, trained_model
from pipeline_common import Noisy, holes, joined, pipeline_of, raster
from torch import nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from geopsp.core.bands import Normalization
from geopsp.core.grid import Window
from geopsp.errors import ModelError
from geopsp.inference import batch_ring, outputs, pipeline, predict_parts, torch_predictor
from geopsp.inference.batch_ring import SLOTS, BatchRing
from geopsp.inference.confidence import ConfidenceRules, MapRows
from geopsp.inference.device_blender import DeviceBlender, ScoredBatch
from geopsp.inference.kernels_torch import TorchOps
from geopsp.inference.options import MapSettings
from geopsp.inference.tile_batch import Batch, Tile
from geopsp.inference.tile_plan import TilePlan
from geopsp.inference.torch_engine import MIN_COMPILED_TILES, TorchEngine
from geopsp.inference.torch_predictor import TorchPredictor, network_thread
from geopsp.models.calibration import Calibration
from geopsp.models.crf import CRFParameters

CUDA = torch.device("cuda")
ALL = ("probabilities", "confidence", "disagreement")
WAITING = {"_local_scalar_dense", "nonzero", "is_nonzero", "equal", "masked_select", "unique"}
"""Operations for which the processor waits for a GPU."""


def noise(seed, height=141, width=173):
    rng = np.random.default_rng(seed)
    data = rng.integers(1, 200, (height, width)).astype(np.uint8)
    data[holes(rng, height, width, "wedge")] = 0
    return data


class Fixed(nn.Module):
    """Gives logits that were computed before, so that all operations that are counted are the map's."""

    def __init__(self, batch_size, size):
        super().__init__()
        self.logits = torch.randn(batch_size, CLASSES, size, size)

    def forward(self, image, valid=None):
        return self.logits


class Inline:
    """An executor that computes at once, in this thread."""

    def submit(self, work, *arguments):
        future = Future()
        future.set_result(work(*arguments))
        return future


@contextmanager
def inline(self, count):
    yield Inline()


class Recorder(TorchDispatchMode):
    """All operations but views; copies between devices for which the processor waits."""

    def __init__(self):
        super().__init__()
        self.names, self.blocking = [], []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        found = func(*args, **(kwargs or {}))
        if not func.is_view and not name.startswith(("empty", "detach")):
            self.names.append(name)
        if name == "copy_" and args[0].device != args[1].device and not (len(args) > 2 and args[2]):
            self.blocking.append(name)
        if name == "_to_copy" and found.device.type == "cpu" and args[0].device.type != "cpu":
            self.blocking.append(name)
        return found


@pytest.mark.parametrize("wants", [(), ALL])
def test_few_operations_a_tile_and_none_that_waits(wants, monkeypatch):
    """Beside the network; the tile's share of what is done once for a batch and for a row of tiles is counted, too."""
    monkeypatch.setattr(TorchPredictor, "threads", inline)
    with raster(noise(0, 400, 600), nodata=0) as scene:
        made = pipeline_of(scene, size=64, overlap=16, batch_size=8, network=Fixed(8, 64), wants=wants, ops=torch_ops())
        with Recorder() as seen:
            joined(made)
        tiles = made.tiles.count(scene.grid.window)
    assert len(seen.names) / tiles <= (8 if not wants else 16)
    assert not WAITING & set(seen.names)
    per_tile = seen.names.count("addcmul_")
    assert per_tile <= tiles, "one sum a tile"


class FakeCuda:
    """Streams and events, which remember what was asked of them, in one list."""

    def __init__(self, monkeypatch):
        self.calls = []
        for name in ("Stream", "Event"):
            monkeypatch.setattr(torch.cuda, name, lambda *_, name=name: Named(name.lower(), self.calls))
        monkeypatch.setattr(torch.cuda, "current_stream", lambda device=None: Named("computing", self.calls))
        monkeypatch.setattr(torch.cuda, "stream", self._within)
        monkeypatch.setattr(torch.Tensor, "record_stream", lambda tensor, stream: self.calls.append("kept"))

    @contextmanager
    def _within(self, stream):
        self.calls.append("begin")
        yield
        self.calls.append("end")


class Named:
    def __init__(self, name, calls):
        self.name, self.calls = name, calls

    def __getattr__(self, name):
        return lambda *arguments: self.calls.append(f"{self.name}.{name}")


def test_on_a_gpu_nothing_reads_what_is_not_there_yet(monkeypatch):
    """Tensors without numbers: what had to wait for one would fail; copies to the main memory are asked for only."""
    FakeCuda(monkeypatch)
    plan, window = TilePlan(112, 160, 64, 16), Window(0, 0, 112, 160)
    legend = trained_model().legend
    rules = ConfidenceRules(Calibration("temperature", 1.3), (), (100,) * CLASSES, None)
    rasters = [outputs.class_spec("m.tif", legend), outputs.probability_spec("p.tif", legend)]
    rasters += [outputs.fraction_spec(name, f"{name}.tif") for name in ("confidence", "disagreement")]
    tiles = [Window(col, row, 64, 64) for row, cols in plan.tiles(window) for col in cols]
    loaded = SimpleNamespace(load=lambda data, *_: (torch.zeros(len(data), 2, 64, 64, device="cuda"), None))
    predictor, rows = SimpleNamespace(ops=loaded), 0
    predictor.logits = lambda data, valid: torch.zeros(len(data), CLASSES, 64, 64, device="cuda")
    with FakeTensorMode(allow_non_fake_inputs=True), Recorder() as seen:
        ops = TorchOps(CUDA, plain_normalization())
        for down, across in {plan.edges(tile.row, tile.col) for tile in tiles}:
            ops.weights(down, across)
        limits = np.zeros(256, np.uint8)
        limits[:CLASSES] = rules.limits
        for table in (legend.indices_to_codes(np.arange(256, dtype=np.uint8)), limits):
            ops._table(table)
        for numbers in rules.coefficients(CLASSES):
            ops._table(numbers)
        blender = DeviceBlender(plan, window, CLASSES, ops, needs_agreement=True, image_bands=2)
        seen.blocking.clear()
        for start in range(0, len(tiles), 4):
            chosen = tiles[start : start + 4]
            predictor = SimpleNamespace(
                logits=lambda data, valid: torch.zeros(len(data), CLASSES, 64, 64, device="cuda")
            )
            predictor.ops = SimpleNamespace(load=lambda *_: (torch.zeros(4, 2, 64, 64, device="cuda"), None))
            batch = Batch([Tile(tile, None, None) for tile in chosen], 0)
            scored = ScoredBatch(predictor, batch, needs_images=True)
            valid = [np.ones((64, 64), bool)] * len(chosen)
            for count, found in blender.add(chosen, valid, scored._scores, scored.images):
                rows += count
                for spec in rasters:
                    outputs.encode_output(spec, MapRows(found, rules), legend)
        rows += sum(count for count, _ in blender.finish_rows(window.row_stop))
    assert rows == 160
    assert blender.sums.device.type == "cuda"
    assert seen.names.count("copy_") > 10
    assert not seen.blocking
    assert not WAITING & set(seen.names)


def test_a_batch_is_sent_on_a_stream_of_its_own(monkeypatch):
    """After the buffer's last batch has been read, and before what is computed next."""
    cuda = FakeCuda(monkeypatch)
    allocated = []
    empty = torch.empty

    def pinned(*shape, **options):
        allocated.append(options.pop("pin_memory", False))
        return empty(*shape, **options)

    monkeypatch.setattr(batch_ring.torch, "empty", pinned)
    monkeypatch.setattr(
        torch.Tensor, "to", lambda tensor, device, **options: cuda.calls.append(options) or tensor.clone()
    )
    ring = BatchRing(CUDA)
    tile, valid = np.full((2, 8, 8), 7, np.uint16), np.ones((8, 8), bool)
    for _ in range(SLOTS + 1):
        pixels, known = ring.send([tile, tile], [valid, valid], 3)
    assert (pixels[:2] == 7).all()
    assert pixels.dtype == torch.uint16
    assert known.sum() == 2 * 64
    once = [
        "event.synchronize", "begin", {"non_blocking": True}, "event.record", "end", "computing.wait_event", "kept",
    ]  # fmt: skip
    assert cuda.calls == once * (SLOTS + 1)
    assert all(allocated)
    assert len(allocated) == 2 * SLOTS, "buffers are made once"


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "int32", "uint32", "float16", "float32", "float64"])
def test_what_is_sent_stays_when_its_buffer_is_used_again(dtype):
    rng, ring = np.random.default_rng(0), BatchRing(CPU)
    batches = [rng.integers(0, 200, (2, 3, 5, 5)).astype(dtype) for _ in range(2 * SLOTS)]
    sent = [ring.send(list(batch), list(batch[:, 0] > 90), 2 + number % 2) for number, batch in enumerate(batches)]
    for number, (batch, (pixels, valid)) in enumerate(zip(batches, sent, strict=True)):
        assert len(pixels) == len(valid) == 2 + number % 2
        assert np.array_equal(pixels[:2].float(), batch.astype(np.float32))
        assert np.array_equal(valid[:2], batch[:, 0] > 90)
        assert not valid[2:].any()


def test_nodata_of_any_size_leaves_no_trace():
    data = np.full((1, 4, 4), 50.0)
    data[0, 0] = np.nan, np.inf, 1e300, -1e300
    valid = np.ones((4, 4), bool)
    valid[0] = False
    ops = torch_ops(Normalization(np.full(1, 10, np.float32), np.full(1, 4, np.float32)))
    image, mask = ops.load([data], [valid], 2)
    assert (image[0, 0, 0] == 0).all()
    assert (image[0, 0, 1:] == 10).all()
    assert (image[1] == 0).all()
    assert mask.sum() == 12
    assert image.is_contiguous(memory_format=torch.channels_last)


def test_the_next_batch_is_asked_for_before_the_last_is_looked_at(monkeypatch):
    monkeypatch.setattr(TorchPredictor, "threads", inline)
    order, computed, looked = [], ScoredBatch.__init__, ScoredBatch.scores

    def begin(self, *arguments, **options):
        order.append("begin")
        computed(self, *arguments, **options)

    def look(self):
        order.append("look")
        return looked(self)

    monkeypatch.setattr(ScoredBatch, "__init__", begin)
    monkeypatch.setattr(ScoredBatch, "scores", look)
    with raster(noise(1), nodata=0) as scene:
        joined(pipeline_of(scene, size=32, batch_size=4, ops=torch_ops()))
    begun = np.cumsum([what == "begin" for what in order])
    seen = np.cumsum([what == "look" for what in order])
    assert (begun - seen)[:-3].min() >= 1 or len(order) < 8
    assert (begun - seen).max() == 3, "and what waits is bounded"


class Overflowing(Noisy):
    """A network that float16 is too small for."""

    def forward(self, image, valid=None):
        logits = super().forward(image, valid).float()
        half = torch.is_autocast_enabled("cpu") and torch.get_autocast_dtype("cpu") == torch.float16
        return torch.where(image.amax(dim=(1, 2, 3), keepdim=True) > 197, torch.inf, logits) if half else logits


@pytest.mark.parametrize("ops", [None, torch_ops()])
def test_where_float16_is_too_small_it_is_float32(ops):
    torch.manual_seed(0)
    network = Overflowing()
    options = {"size": 64, "network": network, "batch_size": 2, "ops": ops}
    with raster(noise(2), nodata=0) as scene:
        exact, half = (joined(pipeline_of(scene, **options, precision=name)) for name in ("fp32", "fp16"))
        assert (exact["classes"] != half["classes"]).mean() < 0.02

        class Broken(nn.Module):
            def forward(self, image, valid=None):
                return torch.full((len(image), CLASSES, 64, 64), torch.nan)

        for precision in ("fp32", "fp16"):
            with pytest.raises(ModelError, match="not finite"):
                joined(pipeline_of(scene, **options | {"network": Broken()}, precision=precision))


def test_a_crf_is_given_the_same():
    """The normalised image, the sums of all pixels and where there is data."""
    found = []
    with raster(noise(3, 70, 80), nodata=0) as scene:
        for ops in (None, torch_ops()):
            torch.manual_seed(0)
            made = replace(pipeline_of(scene, size=32, network=Noisy(), ops=ops), crf=CRFParameters(iterations=1))
            found.append(joined(made)["classes"])
    assert np.array_equal(*found)


def test_one_thread_starts_all_networks_of_a_device():
    """cuDNN keeps its plans by thread."""
    predictor = TorchPredictor(trained_model(), CPU, ops=torch_ops())
    predictor.device, names = torch.device("meta"), set()
    before = torch.get_num_threads()
    try:
        for count in (1, 3):
            with predictor.threads(count) as pool:
                assert pool is network_thread(torch.device("meta"))
                assert torch.get_num_threads() == before
                names |= {pool.submit(torch_predictor.torch.get_num_threads).result()}
        assert network_thread(torch.device("cuda:1")) is not pool
    finally:
        network_thread.cache_clear()


@pytest.mark.parametrize(("cores", "readers"), [(1, 2), (4, 2), (8, 6), (64, 8)])
def test_readers_are_all_cores_but_two_where_a_device_computes(cores, readers, monkeypatch):
    monkeypatch.setattr(pipeline, "cpu_count", lambda: cores)
    assert pipeline.num_readers(torch.device("meta")) == readers
    assert pipeline.num_readers(CPU) == 2


@pytest.mark.parametrize(("device", "threads"), [("cpu", False), ("meta", True)])
def test_a_worker_with_a_gpu_compresses_on_all_cores(device, threads, monkeypatch, tmp_path):
    pools = []
    predictor = SimpleNamespace(device=torch.device(device))
    monkeypatch.setattr(predict_parts._WORKER_MODEL, "predictor", lambda job, device: predictor)
    monkeypatch.setattr(predict_parts, "_pipeline", lambda *_: None)
    monkeypatch.setattr(predict_parts, "_predict_run", lambda *given: pools.append(given[4]) or 1)
    parts = SimpleNamespace(part=lambda number: None)
    job = SimpleNamespace(has=lambda number: False, parts=parts, folder=tmp_path)
    assert predict_parts.predict_part(job, 0) == 1
    assert (pools[0] is not None) == threads


@pytest.mark.parametrize(
    ("asked", "device", "tiles", "compiler", "expected"),
    [
        (None, CUDA, MIN_COMPILED_TILES, True, True),
        (None, CUDA, MIN_COMPILED_TILES - 1, True, False),
        (None, CUDA, MIN_COMPILED_TILES, False, False),
        (None, CPU, MIN_COMPILED_TILES, True, False),
        (True, CPU, 1, False, True),
        (False, CUDA, MIN_COMPILED_TILES, True, False),
    ],
)
def test_large_maps_on_a_gpu_are_compiled(asked, device, tiles, compiler, expected, monkeypatch):
    monkeypatch.setattr("geopsp.inference.torch_engine.has_compiler", lambda: compiler)
    assert TorchEngine().compiles(MapSettings(compiled=asked), device, tiles) is expected


def test_what_cannot_be_compiled_runs_as_it_is(monkeypatch, caplog):
    class CompilerError(RuntimeError):
        __module__ = "torch._inductor.exc"

    def compiling(network):
        def run(image, mask):
            raise error

        return run

    monkeypatch.setattr(torch, "compile", compiling)
    model, tile = trained_model(), np.ones((1, 32, 32), np.uint8)
    error = CompilerError("no C compiler found")
    found = TorchPredictor(model, CPU, compiled=True)([tile], [tile[0] > 0])
    assert np.array_equal(found, TorchPredictor(model, CPU)([tile], [tile[0] > 0]))
    assert "cannot be compiled here" in caplog.text
    error = RuntimeError("shapes differ")
    with pytest.raises(RuntimeError, match="shapes differ"):
        TorchPredictor(model, CPU, compiled=True)([tile], [tile[0] > 0])
