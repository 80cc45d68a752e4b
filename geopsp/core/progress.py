"""Progress of long work: a bar in a terminal or notebook, plain lines in a log file, JSON for programs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from geopsp.core.escape import printable
from geopsp.core.log import console, is_main_process
from geopsp.core.progress_json import json_progress, wants_json

LOG_SECONDS = 30.0
"""Seconds between two lines of long work in a log file."""


class Progress(Protocol):
    """Callback after each step, with the steps done, the steps in total, and a remark to show."""

    def __call__(self, done: int, total: int, note: str = "", /) -> None: ...


@contextmanager
def progress_bar(title: str, *, gap: float = 0.0, unit: str = "", clock: bool = True) -> Iterator[Progress]:
    """Yield a callback that draws a bar; in a log file, it prints a line every fifth, at least `gap` seconds apart.

    Where the level of the logger "geopsp" is above INFO, nothing is shown.

    Args:
        title: Shown before the bar.
        gap: Minimum number of seconds between two lines in a log file.
        unit: Name of the steps in the plural, e.g. "batches".
        clock: False to show no time, if the remarks contain it.
    """
    title = printable(title)
    if not logging.getLogger("geopsp").isEnabledFor(logging.INFO):
        yield lambda *_: None
    elif wants_json():
        yield json_progress(title)
    elif is_main_process() and (console().is_terminal or console().is_jupyter):
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        name, note = (TextColumn(text, markup=False) for text in ("{task.description}", "{task.fields[note]}"))
        count = [MofNCompleteColumn(), *([TextColumn(unit)] if unit else [])]
        time_left = [TimeRemainingColumn()] if clock else []
        columns = (name, BarColumn(), *count, *time_left, note)
        with Bar(*columns, console=console(), transient=True) as bar:
            task = bar.add_task(title, total=None, note="")
            yield lambda done, total, note="": bar.update(task, completed=done, total=total, note=printable(note))
    else:
        yield _print_fifths(title, gap, unit, clock=clock)


def _print_fifths(title: str, gap: float, unit: str, *, clock: bool) -> Progress:
    start = last = time.monotonic()
    printed = 0

    def report(done: int, total: int, note: str = "", /) -> None:
        nonlocal printed, last
        fifth, now = 5 * done // total, time.monotonic()
        if fifth > printed and now - last >= gap:
            printed, last = fifth, now
            if is_main_process():
                steps = f"{done} of {total} {unit}".rstrip()
                remarks = [f"{now - start:.0f} s"] if clock else []
                console().print(f"{title}: {', '.join([steps, *remarks, *filter(None, [printable(note)])])}")

    return report
