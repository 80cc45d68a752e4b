"""Damaged files of every format, through every command that reads it: right, or one clear line.

A case is named by its format, its damage, a seed and the command, e.g. `cog-flip-12-predict`, and runs alone with
`pytest tests/fuzz -m 'slow or not slow' -k cog-flip-12-predict`.
"""

from __future__ import annotations

import hashlib
import os
import random
import shutil
import zlib
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from fuzz.fuzz_cases import TARGETS, Case, Command, cases
from fuzz.fuzz_mutations import NEEDS_TORCH
from fuzz.fuzz_server import Outcome, Server

PER_TARGET = int(os.environ.get("GEOPSP_FUZZ_CASES", "52"))
"""Cases of each format; `make test` runs one."""

MAX_LINE, MAX_LINES = 2000, 40


class World:
    """Undamaged inputs, and a folder to damage copies of them, always the same: half-made outputs know their place."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self.place, self.source = server.scratch / "case", server.scratch / "world"
        self.place.mkdir()
        made = self.server.run(self.place, call="fuzz.fuzz_world:make", seconds=300)
        assert made.code == 0, made.text
        self.place.rename(self.source)
        self._expected: dict[tuple[str, str], bytes] = {}

    def prepare(self, command: Command) -> None:
        shutil.rmtree(self.place, ignore_errors=True)
        self.place.mkdir()
        for name in dict.fromkeys(command.needs):
            source, target = self.source / name, self.place / ("out" if name == "half" else name)
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_dir():
                shutil.copytree(source, target)
            else:
                shutil.copy2(source, target)
        (self.place / "out").mkdir(exist_ok=True)

    def damage(self, case: Case, command: Command) -> None:
        target = TARGETS[case.target]
        rng = random.Random(zlib.crc32(f"{case.target} {case.mutation} {case.seed}".encode()))
        names = [name.replace("half/", "out/") for name in target.files]
        files = sorted(path for name in names for path in self.place.glob(name))
        path = rng.choice(files)
        if case.mutation in NEEDS_TORCH:
            made = self.server.run(
                self.place, call="fuzz.test_fuzz:damage_here", given=[case.target, case.mutation, case.seed, str(path)]
            )
            assert made.code == 0, made.text
            return
        mutation = target.mutations.get(case.mutation) or target.own[case.mutation]
        mutation(path, rng)

    def run(self, command: Command) -> Outcome:
        return self.server.run(self.place, args=list(command.args))

    def expected(self, target: str, name: str) -> bytes:
        """What comes out of undamaged inputs."""
        if (target, name) not in self._expected:
            command = TARGETS[target].commands[name]
            self.prepare(command)
            outcome = self.run(command)
            assert outcome.code == 0, outcome.text
            self._expected[target, name] = content(self.place / command.out)
        return self._expected[target, name]


def damage_here(target: str, mutation: str, seed: int, path: str) -> None:
    rng = random.Random(zlib.crc32(f"{target} {mutation} {seed}".encode()))
    TARGETS[target].own[mutation](Path(path), rng)


def content(path: Path) -> bytes:
    """The pixels of a map."""
    import rasterio

    with rasterio.open(path) as dataset:
        return bytes(dataset.read().tobytes())


def state(folder: Path) -> dict[str, str]:
    """Every file in a folder, by what it holds."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink():
            found[name] = f"link to {path.readlink()}"
        elif path.is_file() and not name.startswith(".") and not path.name.endswith(".lock"):
            found[name] = hashlib.sha256(path.read_bytes()).hexdigest()
    return found


def problems(command: Command, outcome: Outcome, before: dict[str, str], after: dict[str, str]) -> Iterator[str]:
    """Yield what must not be."""
    if outcome.stopped:
        yield f"stopped: {outcome.stopped}"
    elif outcome.code not in {0, 2}:
        yield f"exit status {outcome.code}"
    if "Traceback" in outcome.text:
        yield "a traceback"
    is_written = any(name == command.out or name.startswith(f"{command.out}/") for name in after)
    if command.out and is_written != (outcome.code == 0):
        yield f"{command.out} was {'' if is_written else 'not '}written"
    if outcome.code == 2:
        yield from bad_words(outcome.text.splitlines())
    ours = ("out/.partial", "cache/") + (command.changes if not outcome.code or command.until_error else ())
    if changed := [name for name in before if before[name] != after.get(name) and not name.startswith(ours)]:
        yield f"changed: {', '.join(changed)}"


def bad_words(lines: list[str]) -> Iterator[str]:
    """Yield what is wrong with the output of a command that tells an error."""
    errors = [line for line in lines if line.startswith(("Error: ", "Usage: "))]
    longest = max(map(len, lines), default=0)
    if len(errors) != 1:
        yield f"{len(errors)} lines of errors"
    if len(lines) > MAX_LINES or longest > MAX_LINE:
        yield f"{len(lines)} lines, the longest of {longest} characters"


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    with closing(Server(tmp_path_factory.mktemp("fuzz"))) as server:
        yield World(server)


SAMPLED = set(map(str, list(cases(52))[::53]))
"""Of the first format the first case, of the second one the second, and so on: damages and commands of all kinds."""


@pytest.mark.parametrize(
    "case",
    [
        pytest.param(each, id=str(each), marks=[] if str(each) in SAMPLED else pytest.mark.slow)
        for each in cases(PER_TARGET)
    ],
)
def test_damage_is_survived(world: World, case: Case) -> None:
    target = TARGETS[case.target]
    command = target.commands[case.command]
    expected = world.expected(case.target, case.command) if target.exact and command.out.endswith(".tif") else None
    world.prepare(command)
    world.damage(case, command)
    before = state(world.place)
    outcome = world.run(command)
    found = list(problems(command, outcome, before, state(world.place)))
    if outcome.code == 0 and expected is not None and content(world.place / command.out) != expected:
        found.append("another map than without the damage")
    assert not found, f"{'; '.join(found)}\n{outcome.text[-3000:]}"


@pytest.mark.parametrize("target", TARGETS)
@pytest.mark.slow
def test_undamaged_inputs_work(world: World, target: str) -> None:
    for name, command in TARGETS[target].commands.items():
        world.prepare(command)
        outcome = world.run(command)
        assert outcome.code == 0, (name, outcome.text)
