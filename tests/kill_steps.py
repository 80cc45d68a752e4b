"""Kills all steps at random moments: kill_steps.py FOLDER SEED STEP:SIGKILLS:SIGNALS ...

A step is run again after each kill, until it ends. SIGNALS are SIGTERM and SIGINT in turn. Ends with a line of JSON.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import sys
import time
from functools import partial
from pathlib import Path

import steps
from processes import ended, in_child


def quiet(step: steps.Step, more: str) -> None:
    """Run a step; an error ends the process with its exit status."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    code, said = steps.run(step, more)
    if code:
        os.write(2, said.encode())
        os._exit(code)


def run_to_end(step: steps.Step) -> float:
    """Run a step as often as a user would who reads its messages; return the seconds."""
    start = time.monotonic()
    for more in ("", step.again, "--overwrite"):
        if not more and Path("new/model.run/run.json").exists():
            continue  # the shell says: use --resume
        if ended(in_child(partial(quiet, step, more))) == 0:
            return time.monotonic() - start
    raise SystemExit(f"{step.name} does not end")


def reset(world: Path, place: Path) -> None:
    os.chdir(world)
    shutil.rmtree(place, ignore_errors=True)
    shutil.copytree(world / "inputs", place)
    (place / "new").mkdir()
    os.chdir(place)


def kill(world: Path, step: steps.Step, signals: list[int], dice: random.Random) -> dict[str, object]:
    """Send a signal at a random moment of each of so many runs."""
    place = world / "place"
    reset(world, place)
    before = steps.contents(place)
    seconds = run_to_end(step)
    wanted = steps.outputs(step, steps.contents(place))
    reset(world, place)
    sent = finished = 0
    while sent < len(signals):
        more = step.again if Path("new/model.run/run.json").exists() else ""
        pid = in_child(partial(quiet, step, more))
        time.sleep(dice.uniform(0.02, 1) * seconds)
        os.kill(pid, signals[sent])
        sent += 1
        ended(pid)
        files = steps.contents(place)
        lost = [path for path, content in steps.others(step, before).items() if files.get(path) != content]
        if lost:
            return {"sent": sent, "lost": lost}
        if steps.outputs(step, files).keys() >= wanted.keys():
            finished += 1
            seconds *= 0.9  # that was too late
            if steps.outputs(step, files) == wanted and not _work(files):
                reset(world, place)
    run_to_end(step)
    files = steps.contents(place)
    found = steps.outputs(step, files)
    return {
        "sent": sent, "finished": finished, "work left": _work(files),
        "differing": sorted(path for path in wanted.keys() | found.keys() if wanted.get(path) != found.get(path)),
        "changed": [path for path, content in steps.others(step, files).items() if before.get(path) != content],
    }  # fmt: skip


def _work(files: dict[str, bytes]) -> list[str]:
    return [path for path in files if "/." in path and not path.endswith(("/.geopsp-files", ".lock"))]


if __name__ == "__main__":
    world, dice = Path(sys.argv[1]), random.Random(int(sys.argv[2]))
    needs_model = any(" model " in f" {steps.STEPS[text.split(':')[0]].command} " for text in sys.argv[3:])
    assert ended(in_child(partial(steps.prepare, world / "inputs", with_model=needs_model))) == 0
    import geopsp.chips.export_training_data  # (children need not load what most of them need)
    import geopsp.polygons.raster_to_polygons

    if needs_model:
        import torch

        import geopsp.training.classifier  # noqa: F401

        torch.set_num_threads(1)
    result = {}
    for text in sys.argv[3:]:
        name, kills, others = text.split(":")
        signals = [signal.SIGKILL] * int(kills) + [signal.SIGTERM, signal.SIGINT] * (int(others) // 2)
        dice.shuffle(signals)
        result[name] = kill(world, steps.STEPS[name], signals, dice)
    sys.stdout.write(json.dumps(result))
