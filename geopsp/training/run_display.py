"""What is seen of a training run: one live line; in a notebook also a table and a chart of its epochs."""

from __future__ import annotations

import logging
import math
from collections.abc import Iterable, Mapping, Sequence

from geopsp.core.log import LIVE
from geopsp.core.notebook_html import format_score, html_table
from geopsp.core.progress import Bar, open_bar
from geopsp.core.text import format_clock, format_count
from geopsp.training.fit_options import MONITORS
from geopsp.training.loss_range import loss_range

logger = logging.getLogger(__name__)

Row = Mapping[str, float]
"""An epoch in the history."""

LINES = 20
"""Parts of a run after each of which an epoch is printed, beside the first; its history has all."""

LAST_EPOCHS = 10
"""Epochs in the table of a notebook, beside the best one."""

COLUMNS = {"train_loss": "train loss", "valid_loss": "valid loss", "valid_miou": "mIoU", "accuracy": "accuracy"}
"""Columns of the history in that table, and their headings."""

WIDTH, HEIGHT, LEFT, TOP = 260, 110, 40, 18
"""Pixels of the area of a chart, and of the margins for its numbers and its title."""

CHARTS = {"loss": {"train_loss": ("training", "#3b82c4"), "valid_loss": ("validation", "#e07b39")},
          "mIoU": {"valid_miou": ("validation", "#e07b39")}}  # fmt: skip
"""Columns of the history in each chart, with their names and colours."""


class RunDisplay:
    """The progress of a run, from its first epoch until it is closed."""

    def __init__(self, monitor: str) -> None:
        """`monitor`: the score by which an epoch is the best."""
        self.monitor = monitor
        self._bar: Bar | None = None
        self._part = -1

    def begin(self, title: str) -> None:
        """Begin the training or the validation of an epoch."""
        if self._bar is None:
            self._bar = open_bar(title, unit="batches", clock=False)
        else:
            self._bar.begin(title)

    def __call__(self, done: int, total: int, note: str) -> None:
        """Show batches, and what there is to say of them."""
        if self._bar is not None:
            self._bar(done, total, note)

    def epoch(self, title: str, rows: Sequence[Row], over: float, left: str) -> None:
        """Show the last of the epochs; a terminal and a log have lines of some in a long run, the first and last too.

        Args:
            title: Of the epoch.
            rows: The epochs of the run.
            over: Fraction of the run that is over.
            left: Time that is left.
        """
        if self._bar is not None:
            self._bar.details(epoch_charts(rows) + epoch_table(rows, self.monitor))
        row, part = rows[-1], int(LINES * min(over, 1.0))
        if part > self._part:
            self._part = part
            logger.info(
                f"{title}  train loss {row['train_loss']:.4f}  valid loss {row['valid_loss']:.4f}  "
                f"mIoU {row['valid_miou']:.4f}  accuracy {row['accuracy']:.4f}  {left} left",
                extra=LIVE,
            )

    def close(self, rows: Sequence[Row]) -> None:
        """End the live line; a notebook keeps the table and the chart."""
        if self._bar is not None:
            self._bar.close(_summary(rows, self.monitor))
            self._bar = None


def _summary(rows: Sequence[Row], monitor: str) -> str:
    """Return the number of epochs, their time and the best one, in words; "" if there are none."""
    if not rows:
        return ""
    done = f"{format_count(len(rows), 'epoch')} in {format_clock(sum(row['seconds'] for row in rows))}"
    best = best_epoch(rows, monitor)
    return done if best is None else f"{done}; best: epoch {best['epoch']:.0f}, {describe_score(best, monitor)}"


def best_epoch(rows: Sequence[Row], monitor: str) -> Row | None:
    """Return the first epoch with the best score, as checkpoints have it; None if none has a score."""
    sign = -1 if MONITORS[monitor] == "min" else 1
    scored = [row for row in rows if math.isfinite(row[monitor])]
    return max(scored, key=lambda row: sign * row[monitor], default=None)


def describe_score(row: Row, monitor: str) -> str:
    """Return the monitored score of an epoch in words, e.g. "mIoU 0.512"."""
    return f"{COLUMNS.get(monitor, monitor)} {row[monitor]:.3f}"


def epoch_table(rows: Sequence[Row], monitor: str) -> str:
    """Return HTML of the last epochs, and of the best one."""
    best, last = best_epoch(rows, monitor), list(rows[-LAST_EPOCHS:])
    shown = last if best is None or best in last else [best, *last]
    cells = [
        [f"{row['epoch']:.0f}{' (best)' if row is best else ''}", *(format_score(row[name]) for name in COLUMNS),
         format_clock(row["seconds"])]
        for row in shown
    ]  # fmt: skip
    return html_table(["epoch", *COLUMNS.values(), "time"], cells)


def epoch_charts(rows: Sequence[Row]) -> str:
    """Return SVG charts of the losses and the mIoU by epoch; "" before there are two epochs."""
    if len(rows) < 2:
        return ""
    charts, span = [], (rows[0]["epoch"], rows[-1]["epoch"])
    for title, curves in CHARTS.items():
        values = [row[name] for name in curves for row in rows]
        low, high = (0.0, 1.0) if title == "mIoU" else loss_range(values)
        lines = [
            f'<polyline points="{_points([row[name] for row in rows], low, high)}" fill="none" stroke="{color}" '
            'stroke-width="1.5"/>'
            for name, (_, color) in curves.items()
        ]
        words = "; ".join(f"{name} {rows[-1][column]:.3f}" for column, (name, _) in curves.items())
        charts.append(_chart(title, lines, (low, high), curves.values(), f"{title} by epoch; last {words}", span))
    return f'<div style="display:flex;flex-wrap:wrap">{"".join(charts)}</div>'


def _points(values: Sequence[float], low: float, high: float) -> str:
    """Return the points of a curve in the area of a chart; values beyond the range lie on its edge."""
    step = WIDTH / (len(values) - 1)
    heights = [min(max((value - low) / (high - low), 0.0), 1.0) for value in values]
    return " ".join(
        f"{LEFT + number * step:.1f},{TOP + HEIGHT * (1 - height):.1f}"
        for number, height in enumerate(heights)
        if math.isfinite(height)
    )


def _chart(
    title: str, lines: Sequence[str], limits: tuple[float, float], names: Iterable[tuple[str, str]], words: str,
    epochs: tuple[float, float],
) -> str:  # fmt: skip
    """Return a chart with its axes, in the colour of the text around it; `words` say what it shows."""
    right, bottom = LEFT + WIDTH, TOP + HEIGHT
    texts = [
        (LEFT - 4, bottom, "end", f"{limits[0]:.3g}"), (LEFT - 4, TOP + 8, "end", f"{limits[1]:.3g}"),
        (LEFT, bottom + 14, "start", f"epoch {epochs[0]:.0f}"), (right, bottom + 14, "end", f"{epochs[1]:.0f}"),
        (LEFT, TOP - 6, "start", title),
    ]  # fmt: skip
    labels = [f'<text x="{x}" y="{y}" text-anchor="{anchor}">{text}</text>' for x, y, anchor, text in texts]
    keys = [
        f'<text x="{right - 80 * number}" y="{TOP - 6}" text-anchor="end" style="fill:{color}">{name}</text>'
        for number, (name, color) in enumerate(names)
    ]
    axes = f'<path d="M{LEFT} {TOP}V{bottom}H{right}" fill="none" stroke="currentColor" stroke-opacity=".4"/>'
    size = f'width="{right + 20}" height="{bottom + 20}"'
    return (
        f'<svg role="img" aria-label="{words}" {size} style="font:11px sans-serif;fill:currentColor">'
        f"{axes}{''.join(lines)}{''.join(labels + keys)}</svg>"
    )
