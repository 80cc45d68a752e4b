"""What long work says while it runs: a bar in a terminal or a notebook, plain lines in a log."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache
from typing import Any

Progress = Callable[[int, int], None]
"""Told after each step how many of how many are done."""


@cache
def console() -> Any:
    """The console that notes go to: standard error, so that results can be piped."""
    from rich.console import Console

    return Console(stderr=True, highlight=False, soft_wrap=True)


def say(text: str) -> None:
    """Prints a note."""
    console().print(text, markup=False)


@contextmanager
def shown(title: str) -> Iterator[Progress]:
    """A progress callback that shows a bar, or in a log a line at each fifth of the work."""
    if console().is_terminal or console().is_jupyter:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
        with Bar(*columns, console=console(), transient=True) as bar:
            task = bar.add_task(title, total=None)
            yield lambda done, total: bar.update(task, completed=done, total=total)
    else:
        yield _lines(title)


def _lines(title: str) -> Progress:
    start, told = time.monotonic(), 0

    def tell(done: int, total: int) -> None:
        nonlocal told
        fifth = 5 * done // total
        if fifth > told:
            told = fifth
            say(f"{title}: {done} of {total}, {time.monotonic() - start:.0f} s")

    return tell
