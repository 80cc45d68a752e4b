"""Makes maps in processes that are killed, run out of disk, or are measured.

kill_maps.py MODE FOLDER [KILLS], or kill_maps.py make IMAGE OUT, where OUT is a folder or an address.
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import sys
import time
from functools import partial
from pathlib import Path

import numpy as np
import rasterio
import torch
from inference_common import CLASSES, trained_model
from processes import ended, in_child
from rasterio.transform import from_origin
from torch import nn

from geopsp.core.addresses import local_path
from geopsp.errors import OutputError
from geopsp.inference import outputs, predict_parts, run_job
from geopsp.inference.options import MapSettings
from geopsp.inference.plan_job import plan_job
from geopsp.inference.resources import Resources
from geopsp.raster.scene import Scene


class Bands(nn.Module):
    """Classes by brightness, at hardly any cost, and tiles that disagree."""

    def forward(self, image, valid=None):
        level = image[:, :1] / 50 + image.mean(dim=(1, 2, 3), keepdim=True) / 100
        return -((level - torch.arange(CLASSES).view(1, -1, 1, 1)) ** 2)


def make_image(path: Path, height: int, width: int) -> Path:
    rng = np.random.default_rng(0)
    profile = {"driver": "GTiff", "dtype": "uint8", "count": 1, "height": height, "width": width, "crs": "EPSG:32632"}
    place = from_origin(601234, 5301717, 2, 2)
    with rasterio.open(path, "w", tiled=True, compress="deflate", nodata=0, transform=place, **profile) as dataset:
        tile = rng.integers(1, 250, (1, 256, 256)).astype(np.uint8)
        for row in range(0, height, 256):
            for col in range(0, width, 256):
                window = rasterio.windows.Window(col, row, min(256, width - col), min(256, height - row))
                dataset.write(tile[:, : window.height, : window.width], window=window)
    return path


def make(
    image: Path,
    out: Path,
    *,
    size: int = 32,
    side: int = 64,
    block: int = 32,
    sieve: int = 5,
    all_classes: bool = False,
) -> None:
    torch.set_num_threads(1)
    model = trained_model(size=size, network=Bands())
    wanted = [
        outputs.class_spec(out / "map.tif", model.legend),
        outputs.fraction_spec("confidence", out / "confidence.tif"),
    ]
    wanted += [outputs.probability_spec(out / "p.tif", model.legend)] if all_classes else []
    job = plan_job(
        Scene.open(image), model, wanted, MapSettings(sieve=sieve, padding=size // 16), part_side=side, block=block
    )
    run_job.run_job(job, model, resources=Resources(torch.device("cpu"), batch_size=2, threads=2))


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir()) if not path.name.endswith(".lock")}


def prepared(folder: Path) -> tuple[Path, Path, float]:
    """An image, a map of it, and the seconds that it took."""
    image, whole = make_image(folder / "image.tif", 300, 400), folder / "whole"
    whole.mkdir()
    start = time.monotonic()
    assert ended(in_child(lambda: make(image, whole))) == 0
    return image, whole, time.monotonic() - start


def kill(folder: Path, most: int) -> dict[str, object]:
    """Kills at random moments until a run ends before it is killed."""
    image, whole, seconds = prepared(folder)
    expected, dice = contents(whole), random.Random(0)
    kills = half = 0
    out = folder / "out"
    while kills < most:
        out.mkdir(exist_ok=True)
        pid = in_child(partial(make, image, out))
        time.sleep(dice.uniform(0.05, 0.9) * seconds)
        os.kill(pid, signal.SIGKILL)
        if ended(pid) == 0:
            seconds *= 0.8  # that was too late: the first run may have had to wait for others
        else:
            kills += 1
            seconds *= 1.1
            half += (out / "map.tif").exists() and (out / "map.tif").read_bytes() != expected["map.tif"]
        if (out / "map.tif").exists() and not (out / ".partial-map.tif").exists():
            if contents(out) != expected:
                return {"kills": kills, "half": half, "same": False}
            out = folder / f"out{kills}"
    out.mkdir(exist_ok=True)
    if not (out / "map.tif").exists() or (out / ".partial-map.tif").exists():
        assert ended(in_child(lambda: make(image, out))) == 0
    return {"kills": kills, "half": half, "same": contents(out) == expected}


def full(folder: Path) -> dict[str, object]:
    """Files may not grow beyond a limit, which rises from run to run."""
    image, whole, _ = prepared(folder)
    out, errors, half = folder / "out", [], 0
    out.mkdir()
    for limit in (500, 3000, 12_000, 30_000, None):
        told = folder / f"told{limit}"

        def limited(limit=limit, told=told):
            if limit is not None:
                resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))
            try:
                make(image, out)
            except OutputError as error:
                resource.setrlimit(resource.RLIMIT_FSIZE, (2000, limit)) if limit and limit > 2000 else None
                os.write(2, f"{error}\n".encode())
                raise

        read, write = os.pipe()

        def child(limited=limited, read=read, write=write):
            os.close(read)
            os.dup2(write, 2)
            limited()

        pid = in_child(child)
        os.close(write)
        with os.fdopen(read, "rb") as stream:
            text = stream.read().decode()
        code = ended(pid)
        if code == 3:
            errors.append(text)
            half += (out / "map.tif").exists()
        elif code:
            raise SystemExit(f"limit {limit}: {code}: {text}")
        else:
            break
    return {"errors": errors, "half": half, "same": contents(out) == contents(whole)}


def memory(folder: Path) -> dict[str, object]:
    """MB at the peak, for a small map, a tall one and a wide one."""
    found = {}
    sizes = (("first", 300, 300), ("small", 768, 2048), ("tall", 16_384, 768), ("wide", 768, 16_384))
    for name, height, width in sizes:  # the first one may have to compile
        image, out, read_write = make_image(folder / f"{name}.tif", height, width), folder / name, os.pipe()
        out.mkdir()

        def measured(image=image, out=out, write=read_write[1]):
            make(image, out, size=256, side=1024, block=256, sieve=0, all_classes=True)
            os.write(write, str(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e3).encode())

        assert ended(in_child(measured)) == 0
        found[name] = float(os.read(read_write[0], 99))
    return found


if __name__ == "__main__":
    predict_parts.GDAL_CACHE_BYTES = run_job.GDAL_CACHE_BYTES = 2**21
    mode, place = sys.argv[1], Path(sys.argv[2])
    if mode == "make":
        make(place, local_path(sys.argv[3]))
        sys.exit()
    result = {
        "kill": lambda: kill(place, int(sys.argv[3])),
        "full": lambda: full(place),
        "memory": lambda: memory(place),
    }
    sys.stdout.write(json.dumps(result[mode]()))
