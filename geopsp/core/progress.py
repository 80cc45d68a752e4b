"""Progress of long work: a bar in a terminal or notebook, plain lines in a log file."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from geopsp.core.log import console, is_main_process


class Progress(Protocol):
    """Callback after each step, with the steps done, the steps in total, and a remark to show."""

    def __call__(self, done: int, total: int, note: str = "", /) -> None: ...


@contextmanager
def progress_bar(title: str, *, gap: float = 0.0) -> Iterator[Progress]:
    """Yield a callback that draws a bar; in a log file, it prints a line every fifth, at least `gap` seconds apart."""
    if is_main_process() and (console().is_terminal or console().is_jupyter):
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        note = TextColumn("{task.fields[note]}")
        columns = (TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(), note)
        with Bar(*columns, console=console(), transient=True) as bar:
            task = bar.add_task(title, total=None, note="")
            yield lambda done, total, note="": bar.update(task, completed=done, total=total, note=note)
    else:
        yield _print_fifths(title, gap)


def _print_fifths(title: str, gap: float) -> Progress:
    start = last = time.monotonic()
    printed = 0

    def report(done: int, total: int, note: str = "", /) -> None:
        nonlocal printed, last
        fifth, now = 5 * done // total, time.monotonic()
        if fifth > printed and now - last >= gap:
            printed, last = fifth, now
            if is_main_process():
                console().print(f"{title}: {done} of {total}, {now - start:.0f} s{note and ', '}{note}", markup=False)

    return report
