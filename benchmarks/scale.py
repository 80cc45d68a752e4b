"""Many machines: two workers against one, and a simulation of up to 10,000 on a mosaic of 1,000,000 x 1,000,000 pixels.

    python benchmarks/scale.py [--rounds 3] [--storage 2000] [--link 1000]

First, measured: a made-up scene of 1024 x 1024 x 3 bytes in 2 x 2 parts, a PSPNet on ResNet-18 with random weights,
tiles of 256. The same parts are made by two Dask workers of one thread, by one of two threads, and by one of one;
rounds alternate, the median counts, workers are warm. All have to make the same bytes. Meaningful on two quiet cores.

Then, simulated by events. Measured here and put in: seconds a tile on one thread (reading, network, blending,
deflating, writing and all), how much that varies from part to part, the surplus of a worker's first part (imports,
model), the scheduler's seconds a task, the bytes a pixel read and written, and the bytes a second at which a client
puts parts together. Assumed:

- every worker is one thread of this machine, and none dies; parts are of 8192 x 8192 and are begun in order;
- a part is computed from all tiles that touch it: one at a seam is computed for each part that it touches;
- the scheduler serves one task after another; a worker asks for the next part when one is done;
- all share one storage of `--storage` MB/s in equal shares, none with more than `--link` MB/s; reading and writing go
  on while a worker computes, so a part takes the longer of both;
- the client puts the parts together when the last one is there, no faster than the storage gives and takes.

Efficiency is the time of one worker without any of this, and without seams, over the time of all workers together.
What is lost is put down to what a worker waits for; the largest loss is the limit.
"""

from __future__ import annotations

import argparse
import heapq
import random
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field
from logging import CRITICAL
from pathlib import Path
from statistics import mean, median, pstdev
from typing import Any

import numpy as np
from chips import make_scene
from common import finish, table
from distributed import Client, LocalCluster

SIDE, TILE, PART, BLOCK = 1024, 256, 512, 256
MOSAIC = 1_000_000
WORKERS = (1, 10, 100, 1000, 3000, 10_000)
TASKS = 2000
"""Of nothing, to time the scheduler."""


@dataclass(frozen=True)
class Costs:
    """What the simulation is fed with."""

    tile: float
    """Seconds on one thread."""

    spread: float
    """Standard deviation of a part's time over its mean."""

    start: float
    """Seconds before a worker's first part."""

    task: float
    """Seconds of the scheduler."""

    read: float
    """Bytes of the images for each pixel."""

    written: float
    """Bytes of a part file for each pixel."""

    assembly: float
    """Bytes a second."""

    storage: float
    """Bytes a second, of all."""

    link: float
    """Bytes a second, of one machine."""


@dataclass
class Storage:
    """Serves all transfers at once, in equal shares.

    `flow` is what a transfer that began at 0 would have had by now; one is done when it has risen by its bytes.
    """

    total: float
    each: float
    clock: float = 0.0
    flow: float = 0.0
    ends: list[tuple[float, int, int]] = field(default_factory=list)

    @property
    def rate(self) -> float:
        """Bytes a second for each."""
        return min(self.each, self.total / max(len(self.ends), 1))

    @property
    def next(self) -> float:
        """When the first is done, if no other begins."""
        return self.clock + (self.ends[0][0] - self.flow) / self.rate if self.ends else float("inf")

    def advance(self, now: float) -> None:
        self.flow += (now - self.clock) * self.rate
        self.clock = now

    def begin(self, now: float, size: float, worker: int, part: int) -> None:
        self.advance(now)
        heapq.heappush(self.ends, (self.flow + size, part, worker))

    def finish(self, now: float) -> tuple[int, int]:
        """The worker and the part whose transfer is done now."""
        self.advance(now)
        _, part, worker = heapq.heappop(self.ends)
        return worker, part


def simulate(workers: int, parts: list[tuple[int, int]], costs: Costs, tiles: int, seed: int = 0) -> dict[str, Any]:
    """Hours and losses.

    Args:
        workers: How many.
        parts: (tiles, pixels) of each.
        costs: As measured.
        tiles: Of the whole map, each once.
        seed: Of how times vary.
    """
    rng, storage = random.Random(seed), Storage(costs.storage, costs.link)
    free = served = 0.0
    waited = {"scheduler": 0.0, "storage": 0.0, "start-up": 0.0}
    events: list[tuple[float, int, str, int, int]] = [(0.0, n, "ask", n, -1) for n in range(workers)]
    computed: dict[int, float] = {}
    moved: dict[int, float] = {}
    last = [0.0] * workers
    given = 0

    def over(worker: int, part: int) -> None:
        """A part is done when it is computed and its bytes have moved."""
        if part in computed and part in moved:
            done = max(computed[part], moved.pop(part))
            waited["storage"] += done - computed.pop(part)
            last[worker] = done
            heapq.heappush(events, (done, worker, "ask", worker, -1))

    while events or storage.ends:
        if storage.next <= (events[0][0] if events else float("inf")):
            now = storage.next
            worker, part = storage.finish(now)
            moved[part] = now
            over(worker, part)
            continue
        now, _, kind, worker, part = heapq.heappop(events)
        if kind == "ask" and given < len(parts):
            free = max(free, now) + costs.task
            served += costs.task
            waited["scheduler"] += free - now
            late = 0.0 if last[worker] else costs.start
            waited["start-up"] += late
            heapq.heappush(events, (free + late, worker, "begin", worker, given))
            given += 1
        elif kind == "begin":
            count, pixels = parts[part]
            storage.begin(now, pixels * (costs.read * count * TILE**2 / pixels + costs.written), worker, part)
            seconds = max(0.1, rng.gauss(1, costs.spread)) * count * costs.tile
            heapq.heappush(events, (now + seconds, worker, "computed", worker, part))
        elif kind == "computed":
            computed[part] = now
            over(worker, part)
    made, size = max(last), sum(pixels for _, pixels in parts) * costs.written
    together = size / min(costs.assembly, costs.storage / 2, costs.link / 2)
    ideal, whole = tiles * costs.tile, made + together
    losses = {name: seconds / ideal for name, seconds in waited.items()} | {
        "seams": sum(count for count, _ in parts) / tiles - 1,
        "last parts": sum(made - end for end in last) / ideal,
        "assembly": together * workers / ideal,
    }
    return {
        "hours": whole / 3600,
        "parts": made / 3600,
        "assembly": together / 3600,
        "efficiency": ideal / (workers * whole),
        "scheduler": served / made,
        "losses": losses,
        "limit": max(losses, key=lambda name: losses[name]),
    }


def mosaic() -> tuple[list[tuple[int, int]], int]:
    """(tiles, pixels) of each part of the mosaic, and all tiles, each once."""
    from geopsp.inference.tile_plan import TilePlan
    from geopsp.raster.cog.part_grid import PartGrid

    plan, grid = TilePlan(MOSAIC, MOSAIC, TILE, TILE // 4), PartGrid(MOSAIC, MOSAIC)
    rows, cols = grid.shape
    down = [grid.part(number) for number in range(rows)]
    across = [grid.part(number * rows) for number in range(cols)]
    one = plan.count(down[0].window)
    tall, wide = ([plan.count(part.window) for part in parts] for parts in (down, across))
    sizes = [
        (high * broad // one, below.window.height * beside.window.width)
        for broad, beside in zip(wide, across, strict=True)
        for high, below in zip(tall, down, strict=True)
    ]
    return sizes, len(plan)


def new_job(scene: Path, out: Path) -> Any:
    """A job that has begun, with its model in its folder."""
    import torch

    from geopsp import Scene
    from geopsp.core.bands import BandStats
    from geopsp.core.legend import Legend
    from geopsp.inference import outputs as products
    from geopsp.inference.job import plan_job
    from geopsp.inference.options import MapSettings
    from geopsp.models.build import ModelSpec, build_network
    from geopsp.models.saved_model import TrainedModel, save_model

    torch.manual_seed(0)
    legend = Legend.from_names({code: f"class {code}" for code in range(6)})
    spec = ModelSpec("resnet18", 3, 6, decoder="plain")
    network = build_network(spec).eval()
    statistics = BandStats(9, np.full(3, 110.0), np.full(3, 9 * 55.0**2), np.zeros(3), np.full(3, 255.0))
    image = Scene.open(scene)
    model = TrainedModel(spec, network, legend, image.bands, statistics, "uint8", TILE, image.cell_size, "metre")
    job = plan_job(
        image, model, [products.classes(out, legend)], MapSettings(batch_size=1), part_side=PART, block=BLOCK
    )
    job.begin(1)
    save_model(model, job.model_folder)
    return job


def remade(job: Any, client: Client) -> float:
    """Seconds in which the workers make all parts."""
    from geopsp.maps.cluster import make_parts

    for path in job.part_path(job.products[0], 0).parent.iterdir():
        path.unlink()
    start = time.perf_counter()
    make_parts(job, range(len(job.parts)), client)
    return time.perf_counter() - start


def contents(job: Any) -> list[bytes]:
    return [path.read_bytes() for path in sorted(job.part_path(job.products[0], 0).parent.iterdir())]


def clusters(job: Any, rounds: int) -> tuple[dict[str, float], float, float]:
    """Seconds of each arrangement, the first part's surplus, and the scheduler's seconds a task."""
    shapes = {"two workers of one thread": (2, 1), "one worker of two threads": (1, 2), "one of one": (1, 1)}
    runs: dict[str, list[float]] = {name: [] for name in shapes}
    with ExitStack() as stack:
        clients = {name: started(stack, *shape) for name, shape in shapes.items()}
        first = {name: remade(job, client) for name, client in clients.items()}
        known = contents(job)
        for _ in range(rounds):
            for name, client in clients.items():
                runs[name].append(remade(job, client))
                if contents(job) != known:
                    raise SystemExit(f"{name}: other bytes than before. This is a mistake of ours.")
        task = median(seconds_a_task(clients["two workers of one thread"]) for _ in range(3))
    seconds = {name: median(found) for name, found in runs.items()}
    return seconds, max(0.0, first["one of one"] - seconds["one of one"]), task


def started(stack: ExitStack, workers: int, threads: int) -> Client:
    """A client of a cluster of this machine."""
    cluster = LocalCluster(
        n_workers=workers,
        threads_per_worker=threads,
        dashboard_address="127.0.0.1:0",
        memory_limit=None,
        silence_logs=CRITICAL,
    )
    return stack.enter_context(Client(stack.enter_context(cluster), set_as_default=False))


def seconds_a_task(client: Client) -> float:
    start = time.perf_counter()
    futures = client.map(int, range(TASKS), pure=False)
    client.gather(futures)
    return (time.perf_counter() - start) / TASKS


def alone(job: Any) -> tuple[float, float]:
    """Seconds a tile in this process on one thread, and how much they vary from part to part."""
    from geopsp.inference.predict_parts import predict_part

    found = []
    for number in [0, *range(len(job.parts))]:  # the first one warms up
        for path in job.part_path(job.products[0], 0).parent.glob(f"{number:06d}.*"):
            path.unlink()
        start = time.perf_counter()
        tiles = predict_part(job, number, device="cpu")
        found.append((time.perf_counter() - start) / tiles)
    return mean(found[1:]), pstdev(found[1:]) / mean(found[1:])


def assembly_rate(job: Any, folder: Path) -> float:
    """Bytes a second at which parts of noise, 50 MB together, become one raster."""
    from geopsp.core.grid import Window
    from geopsp.raster.cog.assemble import assemble
    from geopsp.raster.cog.part_file import PartWriter
    from geopsp.raster.cog.part_grid import PartGrid

    product, side = job.products[0], 8192
    parts = PartGrid(2 * side, side)
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


def measure(folder: Path, rounds: int, *, storage: float, link: float) -> tuple[dict[str, float], Costs]:
    """Seconds of each arrangement of workers, and what the simulation needs."""
    image = folder / "scene.tif"
    make_scene(image, SIDE)
    job = new_job(image, folder / "map.tif")
    tile, spread = alone(job)
    seconds, start, task = clusters(job, rounds)
    written = sum(map(len, contents(job))) / SIDE**2
    rate = assembly_rate(job, folder)
    return seconds, Costs(tile, spread, start, task, image.stat().st_size / SIDE**2, written, rate, storage, link)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--storage", type=float, default=2000, help="MB/s of the storage that all share")
    parser.add_argument("--link", type=float, default=1000, help="MB/s of one machine's network")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        seconds, costs = measure(
            Path(folder), options.rounds, storage=options.storage * 1e6, link=options.link * 1e6
        )  # fmt: skip
    report(seconds, costs)


def report(seconds: dict[str, float], costs: Costs) -> None:
    pixels = SIDE**2 / 1e6
    print(table(["workers", "s", "Mpx/s"], [[name, took, pixels / took] for name, took in seconds.items()]))
    rows = [
        ["s a tile", costs.tile],
        ["spread of a part", costs.spread],
        ["s before the first part", costs.start],
        ["ms of the scheduler a task", costs.task * 1e3],
        ["bytes read a pixel", costs.read],
        ["bytes written a pixel", costs.written],
        ["MB/s put together", costs.assembly / 1e6],
    ]
    print(f"\n{table(['measured', ''], rows)}\n")
    parts, tiles = mosaic()
    runs = {workers: simulate(workers, parts, costs, tiles) for workers in WORKERS}
    losses = list(runs[1]["losses"])
    header = ["workers", "hours", "of which assembly", "efficiency", "scheduler busy", *losses, "limit"]
    print(f"{MOSAIC:,} x {MOSAIC:,} pixels, {len(parts):,} parts; losses as shares of the work itself")
    print(
        table(
            header,
            [
                [f"{workers:,}", run["hours"], run["assembly"], run["efficiency"], run["scheduler"],
                 *run["losses"].values(), run["limit"]]
                for workers, run in runs.items()
            ],
        )
    )  # fmt: skip
    two, one, single = seconds.values()
    finish(
        {
            "two_workers_over_one_of_two_threads": one / two,
            "two_workers_over_one_of_one": single / two,
            "same_bytes": True,
        }
        | {f"hours_{workers}": run["hours"] for workers, run in runs.items()}
        | {f"efficiency_{workers}": run["efficiency"] for workers, run in runs.items()}
        | {f"limit_{workers}": run["limit"] for workers, run in runs.items()}
        | {"task_ms": costs.task * 1e3, "assembly_mb_s": costs.assembly / 1e6}
    )


if __name__ == "__main__":
    main()
