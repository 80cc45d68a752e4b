"""Run a case, and hold what comes of it to the three outcomes that are allowed.

right        the answer is the oracle's
warned       the same, and what was assumed is said
refused      one clear line that names a file or an option; nothing is left behind

In each of them all inputs are the same bytes as before. Anything else fails.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from click.testing import CliRunner

from geopsp.cli.commands import main
from geopsp.core.log import handler
from geopsp.errors import GeopspError

MAX_LENGTH, MAX_LINES = 1200, 4
"""Of the text of a refusal."""


@dataclass
class Desk:
    """Where a case works: a folder of inputs, which nobody may change, and one of outputs."""

    inputs: Path
    outputs: Path
    said: list[str] = field(default_factory=list)
    """All that was logged or printed."""

    warnings: list[str] = field(default_factory=list)

    @classmethod
    def at(cls, folder: Path) -> Desk:
        for name in ("in", "out"):
            (folder / name).mkdir()
        return cls(folder / "in", folder / "out")

    @property
    def text(self) -> str:
        return "\n".join(self.said)


@dataclass(frozen=True)
class Expected:
    """What is allowed beside the right answer."""

    refusable: str = ""
    """Why the input may be refused; "": it must work."""

    says: Sequence[str] = ()
    """Patterns of what must be said if it is accepted."""

    leaves: Sequence[str] = ()
    """Files in the folder of outputs that lay there before and must stay."""


def judge(desk: Desk, act: Callable[[], Any], check: Callable[[Any], None], expected: Expected) -> str:
    """Run `act`, hand its result to `check`, and return the outcome; fail if it is none of those allowed."""
    before, bait = snapshot(desk.inputs), snapshot(desk.outputs)
    refusal = None
    with listening(desk):
        try:
            result = act()
        except GeopspError as error:
            refusal = str(error)
        except RefusedError as error:
            refusal = str(error)
    assert snapshot(desk.inputs) == before, "inputs changed: " + changes(before, snapshot(desk.inputs))
    after = snapshot(desk.outputs)
    assert {name: after.get(name) for name in bait} == bait, "files of the user changed: " + changes(bait, after)
    if refusal is not None:
        require_clear(refusal)
        assert after == bait, f"left behind after {refusal!r}: {changes(bait, after)}"
        assert expected.refusable, f"refused, but must work: {refusal}"
        return "refused"
    left = [name for name in after if ".partial" in name or name.endswith(".lock")]
    assert not left, f"left behind after success: {left}"
    check(result)
    for pattern in expected.says:
        assert re.search(pattern, desk.text, re.IGNORECASE | re.DOTALL), f"not said: {pattern}\nsaid: {desk.text}"
    return "warned" if expected.says or desk.warnings else "right"


class RefusedError(Exception):
    """The shell refused."""


def shell(desk: Desk, *args: Any) -> str:
    """Run a command in this process and return what it prints."""
    result = CliRunner().invoke(main, [str(arg) for arg in args], catch_exceptions=False)
    if result.exit_code == 0:
        desk.said.append(result.output)
        desk.warnings += re.findall(r"^Warning: .*$|^  warning .*$", result.output, re.MULTILINE)
        return result.output
    errors = re.split(r"^(?=Error: |Usage: )", result.output, flags=re.MULTILINE)[1:]
    raise RefusedError("".join(errors).strip() or f"exit code {result.exit_code} without a word: {result.output!r}")


def require_clear(text: str) -> None:
    """Check that a refusal is one clear line."""
    assert text.strip(), "refused without a word"
    assert "Traceback" not in text, text
    assert len(text) <= MAX_LENGTH, f"{len(text)} characters: {text}"
    assert text.count("\n") < MAX_LINES, text
    assert re.search(r"`\w+|--\w+|\w\.\w+|/\w|GeoDataFrame|class|field|chip", text), (
        f"names neither file nor option: {text}"
    )


def snapshot(folder: Path) -> dict[str, str]:
    """Return the SHA-256 of all files below a folder."""
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    } | {f"{path.relative_to(folder).as_posix()}/": "" for path in folder.rglob("*") if path.is_dir()}


def changes(before: dict[str, str], after: dict[str, str]) -> str:
    return ", ".join(
        f"{'removed' if name not in after else 'new' if name not in before else 'changed'} {name!r}"
        for name in sorted({*before, *after})
        if before.get(name) != after.get(name)
    )


@contextmanager
def listening(desk: Desk) -> Iterator[None]:
    """Collect what geopsp logs."""

    class Ear(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            desk.said.append(record.getMessage())
            if record.levelno >= logging.WARNING:
                desk.warnings.append(record.getMessage())

    ear, logger = Ear(), logging.getLogger("geopsp")
    printed, handler.always = handler.always, False
    logger.addHandler(ear)
    try:
        yield
    finally:
        logger.removeHandler(ear)
        handler.always = printed
