"""A disk that fails anywhere costs no file of the user, leaves nothing half done, and changes no later result."""

from __future__ import annotations

import shutil

import pytest
import steps
from common import slow
from fault_layer import faults

QUICK = [
    ("export", "rename", 2), ("export", "write", 3000), slow("append", "rename", -2), ("append", "sync", 1),
    ("predict", "rename", -3), ("predict", "write", 900), ("polygonize shp", "rename", -2),
    ("polygonize gpkg", "sync", 1), ("polygonize geojson", "write", 2000),
    slow("evaluate", "write", 100), ("export as JPEG", "mkdir", 3),
]  # fmt: skip
"""Step, fault, and which call of its kind fails (negative: from the last one on), or how many bytes a file may have."""


@pytest.fixture(scope="module")
def world(tmp_path_factory):
    """The inputs of all steps."""
    folder = tmp_path_factory.mktemp("steps")
    steps.prepare(folder / "inputs")
    return folder


@pytest.fixture
def place(world, monkeypatch):
    """The folder in which all steps run: what they write depends on its name."""
    new_place(world)
    monkeypatch.chdir(world / "place")
    return world / "place"


def new_place(world):
    """Put the inputs into the place, and nothing else."""
    place = world / "place"
    place.mkdir(exist_ok=True)
    for path in place.iterdir():
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    shutil.copytree(world / "inputs", place, dirs_exist_ok=True)
    (place / "new").mkdir()


EXPECTED = {}


def expected(world, place, step):
    """Return what the step gives, and how often each fault can strike."""
    if step.name not in EXPECTED:
        with faults("rename", 0) as renames, faults("sync", 0) as syncs, faults("mkdir", 0) as folders:
            code, said = steps.run(step)
        assert code == 0, said
        counts = {"rename": renames.count, "sync": syncs.count, "mkdir": folders.count}
        EXPECTED[step.name] = steps.outputs(step, steps.contents(place)), counts
        new_place(world)
    return EXPECTED[step.name]


def check(world, place, name, kind, number):
    """Break a step off, look at what is there, and run it once more."""
    step = steps.STEPS[name]
    wanted, counts = expected(world, place, step)
    number = counts[kind] + 1 + number if number < 0 else number
    before = steps.contents(place)
    with faults(kind, number):
        code, said = steps.run(step)
    after = steps.contents(place)
    assert all(after.get(path) == content for path, content in steps.others(step, before).items())
    assert all("/." in path for path in steps.others(step, after) if path not in before), "work to go on from"
    old = steps.outputs(step, before)
    for path, content in steps.outputs(step, after).items():
        in_work = "/." in path or path.endswith("ledger.jsonl")
        assert in_work or content in {wanted[path], old.get(path)}, path
    if code:
        assert code == 2, said
        assert said.strip().splitlines()[-1].startswith("Error: "), said
        code, said = steps.run(step, step.again if (place / "new/model.run/run.json").exists() else "")
        if code and "already exist" in said:
            code, said = steps.run(step, "--overwrite")
        assert code == 0, said
    last = steps.contents(place)
    assert steps.outputs(step, last) == wanted
    assert not [path for path in last if "/." in path and not path.endswith("/.geopsp-files")], "no work is left"
    assert steps.others(step, last) == steps.others(step, before)


@pytest.mark.parametrize(("name", "kind", "number"), QUICK)
def test_a_fault_costs_nothing(world, place, name, kind, number):
    check(world, place, name, kind, number)


@pytest.mark.slow
@pytest.mark.parametrize("name", list(steps.STEPS))
@pytest.mark.parametrize("kind", ["rename", "sync", "mkdir", "write"])
def test_no_fault_of_any_step_costs_anything(world, place, name, kind):
    _, counts = expected(world, place, steps.STEPS[name])
    numbers = [0, 10, 100, 500, 1000, 3000, 10_000, 30_000]
    if kind != "write":
        numbers = sorted({*range(1, min(counts[kind], 12) + 1), *range(max(1, counts[kind] - 12), counts[kind] + 1)})
    for number in numbers:
        new_place(world)
        check(world, place, name, kind, number)
