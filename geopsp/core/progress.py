"""What long work says while it runs: a bar in a terminal or a notebook, plain lines in a log."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any, Protocol


class Progress(Protocol):
    """Told after each step how many of how many are done, and what else is worth a word."""

    def __call__(self, done: int, total: int, note: str = "", /) -> None: ...


def leads() -> bool:
    """True but in the second and later processes of a run on several devices, which neither speak nor write.

    Launchers tell each process its place: torchrun and Lightning by RANK or LOCAL_RANK, Slurm by SLURM_PROCID.
    """
    places = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))
    return next((place for place in places if place is not None), "0") == "0"


@cache
def console() -> Any:
    """The console that notes go to: standard error, so that results can be piped."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Prints a note."""
    if leads():
        console().print(text, markup=False)


@contextmanager
def shown(title: str, *, gap: float = 0.0) -> Iterator[Progress]:
    """A progress callback that shows a bar, or in a log a line at each fifth of the work, `gap` seconds apart."""
    if leads() and (console().is_terminal or console().is_jupyter):
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        note = TextColumn("{task.fields[note]}")
        columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note)
        with Bar(*columns, console=console(), transient=True) as bar:
            task = bar.add_task(title, total=None, note="")
            yield lambda done, total, note="": bar.update(task, completed=done, total=total, note=note)
    else:
        yield _lines(title, gap)


def _lines(title: str, gap: float) -> Progress:
    start = last = time.monotonic()
    told = 0

    def tell(done: int, total: int, note: str = "", /) -> None:
        nonlocal told, last
        fifth, now = 5 * done // total, time.monotonic()
        if fifth > told and now - last >= gap:
            told, last = fifth, now
            say(f"{title}: {done} of {total}, {now - start:.0f} s{note and ', '}{note}")

    return tell
