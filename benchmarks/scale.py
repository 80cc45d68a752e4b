"""Maps, chips and polygons on a cluster: two workers beside one, and a simulation of up to 10,000 workers.

    python benchmarks/scale.py [--rounds 3] [--storage 2000] [--link 1000] [--smoke]
    python benchmarks/scale.py --steps-only [--rounds 3] [--chips-side 4096] [--polygons-side 8192]

First, measured: a made-up scene of 1024 x 1024 x 3 bytes in 2 x 2 parts, a PSPNet on ResNet-18 with random weights,
tiles of 256. The same parts are made by two Dask workers of one thread, by one of two threads, and by one of one;
rounds alternate, the median counts, workers are warm. All have to make the same bytes. Meaningful on two idle cores.

Chips (256 x 256 of a scene of 4096 x 4096 x 3 bytes with 3,600 parcels) and polygons (of 8192 x 8192 pixels of smoothed
noise, to GeoParquet) are made by two threads of this process and by the two workers, in turn; `--chips-side` and
`--polygons-side` choose other sizes, and `--steps-only` measures nothing else. Beside the seconds the table has the
seconds of processor time, which other work on the machine changes less: those of two threads over those of the cluster
(workers, client, scheduler) say what the cluster adds. The scheduler has a process of its own, as on a real cluster;
with it are the processes that watch the workers. The files have to be the same.

Then, simulated by events, for 1,000,000 x 1,000,000 pixels. Measured here and used there: seconds per tile on one
thread (reading, network, blending, compression, writing and all), how much that varies from part to part, the extra
time of a worker's first part (imports, model), the scheduler's seconds per task, the bytes per pixel read and written,
and the bytes per second at which a client assembles parts. Assumed:

- every worker is one thread of this machine, and none dies; parts are of 8192 x 8192 and are begun in order;
- a part is computed from all tiles that touch it: a tile on a seam is computed once for each part that it touches;
- the scheduler serves one task after another; a worker asks for the next part when one is done;
- all share one storage of `--storage` MB/s in equal shares, none with more than `--link` MB/s; a worker reads and
  writes while it computes, so a part takes the longer of both;
- the client assembles the parts when the last one is there, no faster than the storage allows.

Chips and polygons are simulated by the same events: a task is a run of rows of chips, or four cells, and what this
process does for each task (it numbers and moves chips; it joins, measures and writes polygons) is the time of the
scheduler. Both are what each more square took, beside a run of a quarter of the pixels. Nothing is assembled.

Efficiency is the time of one worker without any of this, and without seams, over the time of all workers together.
Losses are attributed to what a worker waits for; the largest loss is the limit. Prints tables and, last, one line of
JSON. `--smoke` measures one worker of one thread, and simulates ten on a smaller mosaic.
"""

from __future__ import annotations

import heapq
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from statistics import mean, median, pstdev
from typing import Any

import numpy as np
from chips import make_parcels, make_scene
from common import option_parser, print_json, table
from distributed import Client
from polygons import PATTERNS, write_raster

SIDE, SMOKE_SIDE, TILE, PART, BLOCK = 1024, 512, 256, 512, 256
MOSAIC, SMOKE_MOSAIC = 1_000_000, 40_000
WORKERS = (1, 10, 100, 1000, 3000, 10_000)
SMOKE_WORKERS = (1, 10)
TASKS, SMOKE_TASKS = 2000, 50
"""Tasks without work, to time the scheduler."""

CHIPS_SIDE, POLYGONS_SIDE, PARCELS = 4096, 8192, 3600
SMOKE_CHIPS_SIDE, SMOKE_POLYGONS_SIDE, SMOKE_PARCELS = 1024, 1024, 60
CHIPS_PER_TASK, CELLS_PER_TASK, CELL = 1000, 4, 1024
"""Of the simulation, as in `chips.dask_cutter` and `polygons.dask_cells`; side of a cell in pixels."""

CLUSTER = """
import sys
import dask
from distributed import LocalCluster
if __name__ == "__main__":
    dask.config.set({"distributed.nanny.pre-spawn-environ.MALLOC_TRIM_THRESHOLD_": None})  # as with scheduler="local"
    workers, threads = map(int, sys.argv[1:])
    options = {"dashboard_address": "127.0.0.1:0", "memory_limit": None, "silence_logs": 50}
    with LocalCluster(n_workers=workers, threads_per_worker=threads, **options) as cluster:
        print(cluster.scheduler_address, flush=True)
        sys.stdin.read()
"""
"""Run in a process of its own: a cluster, until the standard input ends."""

CLUSTERS = {"two workers of one thread": (2, 1), "one worker of two threads": (1, 2), "one of one": (1, 1)}
"""Workers, and threads of each."""


@dataclass(frozen=True)
class Costs:
    """Inputs of the simulation."""

    tile: float
    """Seconds per tile on one thread."""

    spread: float
    """Standard deviation of a part's time over its mean."""

    start: float
    """Seconds before a worker's first part."""

    task: float
    """Seconds of the scheduler per task."""

    read: float
    """Bytes of the images per pixel."""

    written: float
    """Bytes of a part file per pixel."""

    assembly: float
    """Bytes per second at which parts are assembled."""

    storage: float
    """Bytes per second of the storage."""

    link: float
    """Bytes per second of one machine's network."""


@dataclass(frozen=True)
class StepCosts:
    """Chips or polygons, measured."""

    threads: float
    """Seconds of two threads of this process."""

    cluster: float
    """Seconds of two workers of one thread."""

    processor: float
    """Seconds of processor time of two threads."""

    workers: float
    """The same of the workers."""

    client: float
    """The same of this process, while workers work."""

    scheduler: float
    """The same of the scheduler."""

    start: float
    """Extra seconds of the first time."""

    squares: int
    """Squares of 256 x 256 pixels that were done: chips, or sixteenths of cells."""

    read: float
    """Bytes of the input per pixel."""

    written: float
    """Bytes of the result per pixel."""

    workers_per_square: float
    """Seconds of processor time of the workers for each more square."""

    client_per_square: float
    """The same of this process."""

    def beside(self, smaller: StepCosts) -> StepCosts:
        """Return the costs with those of each more square, by a smaller run: without what every run takes."""
        more = self.squares - smaller.squares
        workers, client = self.workers - smaller.workers, self.client - smaller.client
        return replace(self, workers_per_square=max(workers / more, 1e-6), client_per_square=max(client / more, 1e-6))

    @property
    def efficiency(self) -> float:
        """Processor time of two threads over that of the cluster."""
        return self.processor / (self.workers + self.client + self.scheduler)


@dataclass
class Storage:
    """A storage that serves all transfers at once, in equal shares.

    `flow` is the bytes that a transfer begun at time 0 would have moved by now; a transfer is done when `flow` has
    risen by its own bytes.
    """

    total: float
    each: float
    clock: float = 0.0
    flow: float = 0.0
    transfers: list[tuple[float, int, int]] = field(default_factory=list)
    """Heap of (flow at the end, part, worker)."""

    @property
    def rate(self) -> float:
        """Bytes per second of each transfer."""
        return min(self.each, self.total / max(len(self.transfers), 1))

    @property
    def next_end(self) -> float:
        """Time at which the first transfer is done, if no other begins."""
        return self.clock + (self.transfers[0][0] - self.flow) / self.rate if self.transfers else float("inf")

    def advance(self, now: float) -> None:
        self.flow += (now - self.clock) * self.rate
        self.clock = now

    def begin(self, now: float, size: float, worker: int, part: int) -> None:
        self.advance(now)
        heapq.heappush(self.transfers, (self.flow + size, part, worker))

    def finish(self, now: float) -> tuple[int, int]:
        """Return the worker and the part of the transfer that ends now."""
        self.advance(now)
        _, part, worker = heapq.heappop(self.transfers)
        return worker, part


@dataclass
class Simulation:
    """Workers that ask a scheduler for parts, compute them, and move their bytes, event by event."""

    workers: int
    parts: list[tuple[int, int]]
    """(tiles, pixels) of each."""

    costs: Costs
    seed: int = 0

    def __post_init__(self) -> None:
        self.rng, self.storage = random.Random(self.seed), Storage(self.costs.storage, self.costs.link)
        self.scheduler_free = self.scheduler_busy = 0.0
        self.waited = {"scheduler": 0.0, "storage": 0.0, "start-up": 0.0}
        self.events: list[tuple[float, int, str, int, int]] = [(0.0, n, "ask", n, -1) for n in range(self.workers)]
        self.computed: dict[int, float] = {}
        self.moved: dict[int, float] = {}
        self.last_end = [0.0] * self.workers
        self.next_part = 0

    def run(self) -> None:
        """Handle all events, until every part is done."""
        while self.events or self.storage.transfers:
            now = self.storage.next_end
            if now <= (self.events[0][0] if self.events else float("inf")):
                worker, part = self.storage.finish(now)
                self.moved[part] = now
                self._end_part(worker, part)
                continue
            now, _, kind, worker, part = heapq.heappop(self.events)
            if kind == "ask" and self.next_part < len(self.parts):
                self._give_part(now, worker)
            elif kind == "begin":
                self._begin_part(now, worker, part)
            elif kind == "computed":
                self.computed[part] = now
                self._end_part(worker, part)

    def _give_part(self, now: float, worker: int) -> None:
        self.scheduler_free = max(self.scheduler_free, now) + self.costs.task
        self.scheduler_busy += self.costs.task
        self.waited["scheduler"] += self.scheduler_free - now
        start = 0.0 if self.last_end[worker] else self.costs.start
        self.waited["start-up"] += start
        heapq.heappush(self.events, (self.scheduler_free + start, worker, "begin", worker, self.next_part))
        self.next_part += 1

    def _begin_part(self, now: float, worker: int, part: int) -> None:
        tiles, pixels = self.parts[part]
        self.storage.begin(now, self.costs.read * tiles * TILE**2 + self.costs.written * pixels, worker, part)
        seconds = max(0.1, self.rng.gauss(1, self.costs.spread)) * tiles * self.costs.tile
        heapq.heappush(self.events, (now + seconds, worker, "computed", worker, part))

    def _end_part(self, worker: int, part: int) -> None:
        """End a part if it is computed and its bytes have moved."""
        if part in self.computed and part in self.moved:
            end = max(self.computed[part], self.moved.pop(part))
            self.waited["storage"] += end - self.computed.pop(part)
            self.last_end[worker] = end
            heapq.heappush(self.events, (end, worker, "ask", worker, -1))


def simulate(workers: int, parts: list[tuple[int, int]], costs: Costs, tiles: int) -> dict[str, Any]:
    """Return hours, efficiency and losses.

    Args:
        workers: How many.
        parts: (tiles, pixels) of each part.
        costs: As measured.
        tiles: Tiles of the whole map, each counted once.
    """
    simulation = Simulation(workers, parts, costs)
    simulation.run()
    parts_time = max(simulation.last_end)
    size = sum(pixels for _, pixels in parts) * costs.written
    assembles = costs.assembly < float("inf")
    assembly_time = size / min(costs.assembly, costs.storage / 2, costs.link / 2) if assembles else 0.0
    ideal, total = tiles * costs.tile, parts_time + assembly_time
    losses = {name: seconds / ideal for name, seconds in simulation.waited.items()} | {
        "seams": sum(count for count, _ in parts) / tiles - 1,
        "last parts": sum(parts_time - end for end in simulation.last_end) / ideal,
        "assembly": assembly_time * workers / ideal,
    }
    return {
        "hours": total / 3600,
        "assembly": assembly_time / 3600,
        "efficiency": ideal / (workers * total),
        "scheduler": simulation.scheduler_busy / parts_time,
        "losses": losses,
        "limit": max(losses, key=lambda name: losses[name]),
    }


def mosaic(side: int) -> tuple[list[tuple[int, int]], int]:
    """Return (tiles, pixels) of each part of the mosaic, and the number of all tiles, each counted once."""
    from geopsp.inference.tile_plan import TilePlan
    from geopsp.raster.cog.part_grid import PartGrid

    plan, grid = TilePlan(side, side, TILE, TILE // 4), PartGrid(side, side)
    rows, cols = grid.shape
    first_column = [grid.part(number) for number in range(rows)]
    first_row = [grid.part(number * rows) for number in range(cols)]
    one = plan.count(first_column[0].window)
    down, across = ([plan.count(part.window) for part in parts] for parts in (first_column, first_row))
    sizes = [
        (high * broad // one, below.window.height * beside.window.width)
        for broad, beside in zip(across, first_row, strict=True)
        for high, below in zip(down, first_column, strict=True)
    ]
    return sizes, len(plan)


def new_job(scene: Path, out: Path) -> Any:
    """Return a map job that has begun, with its model in its folder."""
    import torch

    from geopsp import Scene
    from geopsp.core.bands import BandStats
    from geopsp.core.legend import Legend
    from geopsp.inference import outputs
    from geopsp.inference.options import MapSettings
    from geopsp.inference.plan_job import plan_job
    from geopsp.models.build import ModelSpec, build_network
    from geopsp.models.saved_model import TrainedModel, save_model

    torch.manual_seed(0)
    legend = Legend.from_names({code: f"class {code}" for code in range(6)})
    spec = ModelSpec("resnet18", 3, 6, decoder="plain")
    network = build_network(spec).eval()
    statistics = BandStats(9, np.full(3, 110.0), np.full(3, 9 * 55.0**2), np.zeros(3), np.full(3, 255.0))
    image = Scene.open(scene)
    model = TrainedModel(
        spec, legend, image.bands, statistics, "uint8", TILE, image.cell_size, "metre", network=network
    )
    job = plan_job(
        image, model, [outputs.class_spec(out, legend)], MapSettings(batch_size=1), part_side=PART, block=BLOCK
    )
    job.begin(1)
    save_model(model, job.model_folder)
    return job


def seconds_on_cluster(job: Any, client: Client) -> float:
    """Return the seconds in which the workers of a cluster make all parts anew."""
    from geopsp.inference.dask_workers import parts_on_cluster

    for path in part_files(job):
        path.unlink()
    start = time.perf_counter()
    with parts_on_cluster(job, range(len(job.parts)), client, packages=()) as collect:
        collect(None)
    return time.perf_counter() - start


def part_files(job: Any) -> list[Path]:
    folder = job.part_path(job.rasters[0], 0).parent
    return sorted(path for path in folder.iterdir() if path.name[0] != ".")


def part_bytes(job: Any) -> list[bytes]:
    return [path.read_bytes() for path in part_files(job)]


def measure_clusters(
    job: Any, folder: Path, rounds: int, clusters: dict[str, tuple[int, int]], sides: tuple[int, int], *, smoke: bool
) -> tuple[dict[str, float], float, float, dict[str, StepCosts]]:
    """Return what was measured on clusters.

    Returns:
        The seconds on each cluster, the extra seconds of the first part, the scheduler's seconds per task, and the
        costs of chips and polygons on the first cluster.
    """
    runs: dict[str, list[float]] = {name: [] for name in clusters}
    with ExitStack() as stack:
        clients = {name: start_cluster(stack, *shape) for name, shape in clusters.items()}
        first = {name: seconds_on_cluster(job, client) for name, client in clients.items()}
        expected = part_bytes(job)
        for _ in range(rounds):
            for name, client in clients.items():
                runs[name].append(seconds_on_cluster(job, client))
                if part_bytes(job) != expected:
                    raise SystemExit(f"{name}: other bytes than before. This is a bug in geopsp.")
        client, tasks = next(iter(clients.values())), SMOKE_TASKS if smoke else TASKS
        task = median(seconds_per_task(client, tasks) for _ in range(3))
        steps = measure_steps(client, folder, rounds, sides)
    seconds = {name: median(found) for name, found in runs.items()}
    return seconds, max(0.0, first["one of one"] - seconds["one of one"]), task, steps


def start_cluster(stack: ExitStack, workers: int, threads: int) -> Client:
    """Return a client of a new cluster on this machine, whose scheduler has a process of its own."""
    command = [sys.executable, "-c", CLUSTER, str(workers), str(threads)]
    process = stack.enter_context(subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True))
    assert process.stdin is not None
    assert process.stdout is not None
    stack.callback(process.stdin.close)
    client = Client(process.stdout.readline().strip(), set_as_default=False)
    stack.callback(client.close)
    return client


def seconds_per_task(client: Client, tasks: int) -> float:
    start = time.perf_counter()
    futures = client.map(int, range(tasks), pure=False)
    client.gather(futures)
    return (time.perf_counter() - start) / tasks


def measure_steps(client: Client, folder: Path, rounds: int, sides: tuple[int, int]) -> dict[str, StepCosts]:
    """Return what chips and polygons cost here and on the cluster; `sides` are those of their rasters, in pixels."""
    from geopsp import export_training_data, raster_to_polygons

    def chips(image: Path, out: Path, client: Client | None) -> None:
        threads = {"workers": 2} if client is None else {"client": client}
        export_training_data(image, labels, out, "class", TILE, **threads)

    def polygons(image: Path, out: Path, client: Client | None) -> None:
        raster_to_polygons(image, out.with_suffix(".parquet"), client=client)

    labels, found = folder / "parcels.gpkg", {}
    side, map_side = sides
    make_parcels(labels, side, PARCELS if side > SMOKE_CHIPS_SIDE else SMOKE_PARCELS)
    for name, step, whole in (("chips", chips, side), ("polygons", polygons, map_side)):
        sizes = []
        for pixels in (whole // 2, whole):
            image = folder / f"{name}-{pixels}.tif"
            if name == "chips":
                make_scene(image, pixels)
            else:
                write_raster(image, PATTERNS["smooth"], pixels)
            place = folder / f"{name}-{pixels}"
            sizes.append(measure_step(partial(step, image), client, place, rounds, side=pixels, image=image))
        found[name] = sizes[1].beside(sizes[0])
    return found


def measure_step(
    step: Callable[[Path, Client | None], None], client: Client, folder: Path, rounds: int, *, side: int, image: Path
) -> StepCosts:
    """Return what a step costs; the first time on each side does not count, but for `start`."""
    folder.mkdir()
    runs: dict[str, list[tuple[float, ...]]] = {"threads": [], "cluster": []}
    for number in range(rounds + 1):
        for name, found in runs.items():
            found.append(timed(step, folder / f"{name}-{number}", client if name == "cluster" else None, client))
    written = [written_by(folder, name) for name in runs]
    if written[0] != written[1]:
        raise SystemExit(f"{folder.name}: other bytes on the cluster. This is a bug in geopsp.")
    (threads, processor, *_), (cluster, own, workers, scheduler) = (
        np.median(found[1:], axis=0).tolist() for found in runs.values()
    )
    squares, size = (side // TILE) ** 2, sum(map(len, written[0].values()))
    return StepCosts(
        threads, cluster, processor, workers, own, scheduler, max(0.0, runs["cluster"][0][0] - cluster), squares,
        image.stat().st_size / side**2, size / side**2, workers / squares, own / squares,
    )  # fmt: skip


def timed(
    step: Callable[[Path, Client | None], None], out: Path, used: Client | None, client: Client
) -> tuple[float, ...]:
    """Return the seconds, and the seconds of processor time of this process, of all workers and of the scheduler."""

    def others() -> tuple[float, float]:
        return sum(client.run(time.process_time).values()), client.run_on_scheduler(time.process_time)

    before, own, start = others(), time.process_time(), time.perf_counter()
    step(out, used)
    seconds, own = time.perf_counter() - start, time.process_time() - own
    return seconds, own, *(now - then for now, then in zip(others(), before, strict=True))


def written_by(folder: Path, name: str) -> dict[str, bytes]:
    """Return the files of the last run, by path."""
    results = [path for path in folder.glob(f"{name}-*") if path.suffix in {"", ".parquet"}]  # without styles
    found = max(results, key=lambda path: int(path.stem.rpartition("-")[2]))
    paths = [found] if found.is_file() else [path for path in found.rglob("*") if path.is_file()]
    return {"" if found.is_file() else str(path.relative_to(found)): path.read_bytes() for path in paths}


def step_parts(name: str, side: int) -> list[tuple[int, int]]:
    """Return (squares, pixels) of each task of chips or polygons on a square of pixels."""
    squares, each = (side // TILE) ** 2, CHIPS_PER_TASK if name == "chips" else CELLS_PER_TASK * (CELL // TILE) ** 2
    return [(each, each * TILE**2)] * -(-squares // each)


def step_costs(name: str, step: StepCosts, costs: Costs) -> Costs:
    """Return the inputs of the simulation of chips or polygons; the spread and the storage are those of maps."""
    squares = step_parts(name, TILE)[0][0]
    return replace(
        costs, tile=step.workers_per_square, task=costs.task + squares * step.client_per_square,
        start=step.start, read=step.read, written=step.written, assembly=float("inf"),
    )  # fmt: skip


def seconds_per_tile(job: Any) -> tuple[float, float]:
    """Return the seconds per tile in this process on one thread, and how much they vary from part to part."""
    from geopsp.inference.predict_parts import predict_part

    seconds = []
    for number in [0, *range(len(job.parts))]:  # the first one warms up
        for path in job.part_path(job.rasters[0], 0).parent.glob(f"{number:06d}.*"):
            path.unlink()
        start = time.perf_counter()
        tiles = predict_part(job, number, device="cpu")
        seconds.append((time.perf_counter() - start) / tiles)
    return mean(seconds[1:]), pstdev(seconds[1:]) / mean(seconds[1:])


def assembly_rate(job: Any, folder: Path, side: int) -> float:
    """Return the bytes per second at which two parts of noise become one raster."""
    from geopsp.core.grid import Window
    from geopsp.raster.cog.assemble import assemble
    from geopsp.raster.cog.part_file import PartWriter
    from geopsp.raster.cog.part_grid import PartGrid

    product = job.rasters[0]
    parts = PartGrid(2 * side, side, side, side)
    noise = np.random.default_rng(0).integers(0, 6, (1, 512, side), np.uint8)
    with ThreadPoolExecutor(2) as pool:
        for number in range(len(parts)):
            with PartWriter(
                folder / str(number), side, side, product, block=parts.block, levels=parts.levels, pool=pool
            ) as writer:
                for _ in range(side // 512):
                    writer.append(noise)
        grid = job.scene.grid.crop(Window(0, 0, parts.width, parts.height))
        start = time.perf_counter()
        assemble(product, grid, parts, lambda number: folder / str(number), folder / "all.tif", tags={}, pool=pool)
    return sum((folder / str(number)).stat().st_size for number in range(len(parts))) / (time.perf_counter() - start)


def measure(
    folder: Path, sides: tuple[int, int], *, rounds: int, storage: float, link: float, smoke: bool
) -> tuple[dict[str, float], Costs, dict[str, StepCosts]]:
    """Return the seconds on each cluster, the inputs of the simulation, and the costs of chips and polygons."""
    image, side = folder / "scene.tif", SMOKE_SIDE if smoke else SIDE
    make_scene(image, side)
    job = new_job(image, folder / "map.tif")
    tile, spread = seconds_per_tile(job)
    clusters = {"one of one": CLUSTERS["one of one"]} if smoke else CLUSTERS
    seconds, start, task, steps = measure_clusters(job, folder, rounds, clusters, sides, smoke=smoke)
    written = sum(map(len, part_bytes(job))) / side**2
    rate = assembly_rate(job, folder, 1024 if smoke else 8192)
    costs = Costs(tile, spread, start, task, image.stat().st_size / side**2, written, rate, storage, link)
    return seconds, costs, steps


def main() -> None:
    parser = option_parser(__doc__)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--storage", type=float, default=2000, help="MB/s of the storage that all share")
    parser.add_argument("--link", type=float, default=1000, help="MB/s of one machine's network")
    parser.add_argument("--chips-side", type=int, default=CHIPS_SIDE, help="of the scene, in pixels")
    parser.add_argument("--polygons-side", type=int, default=POLYGONS_SIDE, help="of the class raster, in pixels")
    parser.add_argument("--steps-only", action="store_true", help="chips and polygons alone, without the simulation")
    options = parser.parse_args()
    rounds = 1 if options.smoke else options.rounds
    smoke_sides = SMOKE_CHIPS_SIDE, SMOKE_POLYGONS_SIDE
    sides = smoke_sides if options.smoke else (options.chips_side, options.polygons_side)
    if options.steps_only:
        main_of_steps(sides, rounds)
        return
    storage, link = options.storage * 1e6, options.link * 1e6
    with tempfile.TemporaryDirectory() as folder:
        seconds, costs, steps = measure(
            Path(folder), sides, rounds=rounds, storage=storage, link=link, smoke=options.smoke
        )
    print_measured(seconds, costs, SMOKE_SIDE if options.smoke else SIDE)
    side, workers = (SMOKE_MOSAIC, SMOKE_WORKERS) if options.smoke else (MOSAIC, WORKERS)
    runs = print_simulated("maps", costs, *mosaic(side), workers)
    print_steps(steps)
    step_runs = {
        name: print_simulated(name, step_costs(name, step, costs), step_parts(name, side), (side // TILE) ** 2, workers)
        for name, step in steps.items()
    }
    result: dict[str, Any] = {"same_bytes": True}
    if not options.smoke:
        two, one, single = seconds.values()
        result |= {"two_workers_over_one_of_two_threads": one / two, "two_workers_over_one_of_one": single / two}
    for name in ("hours", "efficiency", "limit"):
        result |= {f"{name}_{count}": run[name] for count, run in runs.items()}
    result |= efficiencies(steps)
    for name in steps:
        result |= {f"{name}_efficiency_{count}": run["efficiency"] for count, run in step_runs[name].items()}
    print_json(result | {"task_ms": costs.task * 1e3, "assembly_mb_s": costs.assembly / 1e6})


def main_of_steps(sides: tuple[int, int], rounds: int) -> None:
    """Measure chips and polygons, and print it."""
    with tempfile.TemporaryDirectory() as folder, ExitStack() as stack:
        client = start_cluster(stack, *next(iter(CLUSTERS.values())))
        steps = measure_steps(client, Path(folder), rounds, sides)
    print_steps(steps)
    print_json({"same_bytes": True} | efficiencies(steps))


def efficiencies(steps: dict[str, StepCosts]) -> dict[str, float]:
    """Return what two threads take over what two workers take, of seconds and of processor time."""
    found = {f"{name}_two_threads_over_two_workers": step.threads / step.cluster for name, step in steps.items()}
    return found | {f"{name}_the_same_of_processor_time": step.efficiency for name, step in steps.items()}


def print_measured(seconds: dict[str, float], costs: Costs, side: int) -> None:
    pixels = side**2 / 1e6
    print(table(["workers", "s", "Mpx/s"], [[name, found, pixels / found] for name, found in seconds.items()]))
    rows = [
        ["s per tile", costs.tile],
        ["spread of a part", costs.spread],
        ["s before the first part", costs.start],
        ["ms of the scheduler per task", costs.task * 1e3],
        ["bytes read per pixel", costs.read],
        ["bytes written per pixel", costs.written],
        ["MB/s assembled", costs.assembly / 1e6],
    ]
    print(f"\n{table(['measured', ''], rows)}\n")


def print_steps(steps: dict[str, StepCosts]) -> None:
    header = [
        "", "s, two threads", "s, two workers", "processor s, threads", "workers", "client", "scheduler",
        "threads/cluster", "ms of client per 256 x 256", "ms of workers",
    ]  # fmt: skip
    rows = [
        [name, step.threads, step.cluster, step.processor, step.workers, step.client, step.scheduler, step.efficiency,
         1e3 * step.client_per_square, 1e3 * step.workers_per_square]
        for name, step in steps.items()
    ]  # fmt: skip
    print(f"\n{table(header, rows)}\n")


def print_simulated(
    name: str, costs: Costs, parts: list[tuple[int, int]], tiles: int, workers: tuple[int, ...]
) -> dict[int, dict[str, Any]]:
    """Print a table of the simulation; return it by number of workers. Arguments as `simulate`."""
    runs = {count: simulate(count, parts, costs, tiles) for count in workers}
    losses = list(runs[1]["losses"])
    header = ["workers", "hours", "of which assembly", "efficiency", "scheduler busy", *losses, "limit"]
    rows = [
        [f"{count:,}", run["hours"], run["assembly"], run["efficiency"], run["scheduler"], *run["losses"].values(),
         run["limit"]]
        for count, run in runs.items()
    ]  # fmt: skip
    pixels = sum(size for _, size in parts)
    print(f"{name}: {pixels:.3g} pixels, {len(parts):,} tasks; losses as fractions of the work itself")
    print(table(header, rows))
    return runs


if __name__ == "__main__":
    main()
