"""Progress of long work: a live line in a terminal or notebook, sparse dated lines in a log, JSON for programs."""

from __future__ import annotations

import logging
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from geopsp.core.escape import html_text, printable
from geopsp.core.live_output import LiveOutput
from geopsp.core.log import LIVE, console, in_notebook, is_main_process
from geopsp.core.progress_json import json_progress, wants_json
from geopsp.core.text import format_clock

logger = logging.getLogger(__name__)

LOG_SECONDS = 30.0
"""Seconds at least between two lines of long work in a log."""


MAX_LOG_SECONDS = 600.0
"""Seconds after which a log has another line, even if a fifth of the work takes longer."""


NOTEBOOK_SECONDS = 0.25
"""Seconds between two states of a bar in a notebook; shorter work has none."""


class Progress(Protocol):
    """Callback after each step, with the steps done, the steps in total, and a remark to show."""

    def __call__(self, done: int, total: int, note: str = "", /) -> None: ...


class Bar:
    """Progress that is shown, with the time left; this one shows nothing."""

    def __init__(self, title: str, unit: str = "", *, gap: float = LOG_SECONDS, clock: bool = True) -> None:
        """Take what `progress_bar` takes."""
        self.unit, self.gap, self.clock = unit, gap, clock
        self.begin(title)

    def begin(self, title: str) -> None:
        """Begin the work, or another phase of it."""
        self.title, self.done, self.total = printable(title), 0, 0
        self._first: tuple[int, float] | None = None

    def __call__(self, done: int, total: int, note: str = "", /) -> None:
        self.done, self.total, now = done, total, time.monotonic()
        if self._first is None:
            self._first = done, now  # a resumed run begins in the middle
        self._show(f"{done:,} of {total:,} {self.unit}".rstrip(), self._remark(note, now))

    def _remark(self, note: str, now: float) -> str:
        assert self._first is not None
        steps, seconds = self.done - self._first[0], now - self._first[1]
        left = f"{format_clock(seconds / steps * (self.total - self.done))} left" if self.clock and steps > 0 else ""
        return ", ".join(filter(None, (printable(note), left)))

    def _show(self, steps: str, remark: str) -> None:
        """Show the steps and what there is to say of them."""

    def details(self, html: str) -> None:
        """Show HTML below the bar, in a notebook."""

    def close(self, summary: str = "") -> None:
        """Show no more; in a notebook, the summary or what was done last stays."""


class _TerminalBar(Bar):
    """A line that is drawn anew and vanishes at the end; messages appear above it."""

    def __init__(self, title: str, unit: str = "", *, gap: float = LOG_SECONDS, clock: bool = True) -> None:
        from rich.progress import BarColumn, Progress, TextColumn

        texts = (
            TextColumn(f"{{task.{name}}}", markup=False) for name in ("description", "fields[steps]", "fields[note]")
        )
        name, steps, note = texts
        self._bar = Progress(name, BarColumn(), steps, note, console=console(), transient=True)
        self._task = self._bar.add_task("", total=None, steps="", note="")
        super().__init__(title, unit, gap=gap, clock=clock)
        self._bar.start()

    def begin(self, title: str) -> None:
        super().begin(title)
        self._bar.reset(self._task, total=None, description=self.title, steps="", note="")

    def _show(self, steps: str, remark: str) -> None:
        self._bar.update(self._task, completed=self.done, total=self.total, steps=steps, note=remark)

    def close(self, summary: str = "") -> None:
        self._bar.stop()


class _NotebookBar(Bar):
    """An output that is replaced as work goes on; in the end it is one line, in a saved notebook too."""

    def __init__(self, title: str, unit: str = "", *, gap: float = LOG_SECONDS, clock: bool = True) -> None:
        self._output, self._details, self._steps = LiveOutput(), "", ""
        self._begun = self._shown = time.monotonic()
        super().__init__(title, unit, gap=gap, clock=clock)

    def _show(self, steps: str, remark: str) -> None:
        self._steps = steps
        if time.monotonic() - self._shown >= NOTEBOOK_SECONDS:
            text = " \N{MIDDLE DOT} ".join(filter(None, (steps, remark)))
            bar = f"<progress value='{self.done}' max='{max(self.total, 1)}' style='width:14em'></progress>"
            self._replace(f"{html_text(self.title)} {bar} {html_text(text)}", f"{self.title}: {text}")

    def details(self, html: str) -> None:
        self._details = html
        self._replace(html_text(self.title), self.title)

    def _replace(self, html: str, text: str) -> None:
        self._output.show(f"<div>{html}</div>{self._details}", text)
        self._shown = time.monotonic()

    def close(self, summary: str = "") -> None:
        seconds = time.monotonic() - self._begun
        if summary or seconds >= NOTEBOOK_SECONDS:
            text = summary or f"{self.title}: {self._steps or 'done'}, {format_clock(seconds)}"
            self._replace(html_text(text), text)


class _LogLines(Bar):
    """A line after each fifth of the work, or after some minutes, but never many."""

    def begin(self, title: str) -> None:
        super().begin(title)
        self._fifths, self._last = 0, time.monotonic()

    def _show(self, steps: str, remark: str) -> None:
        fifths, seconds = 5 * self.done // max(self.total, 1), time.monotonic() - self._last
        if seconds >= MAX_LOG_SECONDS or (fifths > self._fifths and seconds >= self.gap):
            self._fifths, self._last = fifths, self._last + seconds
            logger.info(f"{self.title}: {', '.join(filter(None, (steps, remark)))}", extra=LIVE)


class _JsonLines(Bar):
    """Lines for a program that started geopsp."""

    def begin(self, title: str) -> None:
        super().begin(title)
        self._write = json_progress(self.title)

    def __call__(self, done: int, total: int, note: str = "", /) -> None:
        self._write(done, total, note)


def open_bar(title: str, *, gap: float = LOG_SECONDS, unit: str = "", clock: bool = True) -> Bar:
    """Return a bar as `progress_bar` yields it, to be closed."""
    if not (is_main_process() and logger.isEnabledFor(logging.INFO)):
        kind: type[Bar] = Bar
    elif wants_json():
        kind = _JsonLines
    elif in_notebook():
        kind = _NotebookBar
    else:
        kind = _TerminalBar if console().is_terminal else _LogLines
    return kind(title, unit, gap=gap, clock=clock)


@contextmanager
def progress_bar(title: str, *, gap: float = LOG_SECONDS, unit: str = "", clock: bool = True) -> Iterator[Progress]:
    """Yield a callback that draws a bar; in a log, it writes a line every fifth, at least `gap` seconds apart.

    Where the level of the logger "geopsp" is above INFO, nothing is shown.

    Args:
        title: Shown before the bar.
        gap: Minimum number of seconds between two lines in a log.
        unit: Name of the steps in the plural, e.g. "batches".
        clock: False to show no time, if the remarks contain it.
    """
    bar = open_bar(title, gap=gap, unit=unit, clock=clock)
    try:
        yield bar
    finally:
        bar.close()
