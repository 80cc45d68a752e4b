"""What objects show in a notebook: short tables and class swatches, in the colours of its light or dark theme."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Protocol

from geopsp.core.escape import html_text


class Swatch(Protocol):
    """A name with a colour, #rrggbb, such as a class."""

    @property
    def name(self) -> str: ...

    @property
    def color(self) -> str: ...


Cell = str | Swatch
"""A text, or a class, which is shown with its colour."""

MAX_ROWS = 20
"""Rows of a table; further ones are only counted."""

LINE = "1px solid rgba(128, 128, 128, .5)"
TABLE = "border-collapse:collapse;margin:.3em 0;font-variant-numeric:tabular-nums"


def class_swatch(info: Swatch) -> str:
    """Return the colour and the name of a class."""
    look = f"border:{LINE};background:{html_text(info.color)}"
    box = f"display:inline-block;width:.8em;height:.8em;margin-right:.4em;{look}"
    return f'<span style="{box}"></span>{html_text(info.name)}'


def class_swatches(classes: Sequence[Swatch]) -> str:
    """Return the colours and names of classes in one line."""
    shown = [f'<span style="white-space:nowrap">{class_swatch(info)}</span>' for info in classes[:MAX_ROWS]]
    more = [f"and {len(classes) - MAX_ROWS} more"] if len(classes) > MAX_ROWS else []
    return "\N{EN SPACE} ".join([*shown, *more])


def html_facts(facts: Mapping[str, str | Sequence[Swatch]]) -> str:
    """Return names and values, one below the other; classes as swatches."""
    cells = {
        name: html_text(value) if isinstance(value, str) else class_swatches(value) for name, value in facts.items()
    }
    style = "text-align:left;padding:.1em .8em .1em 0;vertical-align:top"
    head = f'<th scope="row" style="{style};font-weight:600">'
    rows = (f'<tr>{head}{html_text(name)}</th><td style="{style}">{value}</td></tr>' for name, value in cells.items())
    return f'<table style="{TABLE}"><tbody>{"".join(rows)}</tbody></table>'


def html_table(header: Sequence[str], rows: Iterable[Sequence[Cell]], *, shades: Iterable[Sequence[float]] = ()) -> str:
    """Return a table; its first column is aligned left, the others right.

    Args:
        header: A text for each column.
        rows: Cells for each column. Only the first `MAX_ROWS` are shown.
        shades: Opacity of the background of each cell but the first, 0 to 1, for each row; none: no background.
    """
    rows, shades = list(rows), list(shades)
    lines = [_row(row, shades[number] if shades else ()) for number, row in enumerate(rows[:MAX_ROWS])]
    if len(rows) > MAX_ROWS:
        lines.append(_row([f"... and {len(rows) - MAX_ROWS:,} more", *[""] * (len(header) - 1)], ()))
    head = "".join(
        f'<th scope="col" style="padding:.1em .6em;border-bottom:{LINE};text-align:{_side(column)}">{_cell(text)}</th>'
        for column, text in enumerate(header)
    )
    return f'<table style="{TABLE}"><thead><tr>{head}</tr></thead><tbody>{"".join(lines)}</tbody></table>'


def _row(cells: Sequence[Cell], shades: Sequence[float]) -> str:
    backgrounds = ["", *(f";background:rgba(64, 128, 220, {0.75 * shade:.3f})" for shade in shades)]
    backgrounds += [""] * (len(cells) - len(backgrounds))
    found = (
        f'<td style="padding:.1em .6em;text-align:{_side(column)}{background}">{_cell(cell)}</td>'
        for column, (cell, background) in enumerate(zip(cells, backgrounds, strict=True))
    )
    return f"<tr>{''.join(found)}</tr>"


def _side(column: int) -> str:
    return "right" if column else "left"


def _cell(cell: Cell) -> str:
    return html_text(cell) if isinstance(cell, str) else class_swatch(cell)


def html_block(title: str, *parts: str) -> str:
    """Return a title above parts of HTML, whose texts are escaped already."""
    return f'<div><div style="font-weight:600">{html_text(title)}</div>{"".join(parts)}</div>'


def format_score(score: float | None) -> str:
    """Return a score with three decimals; a dash where there is none."""
    return "\N{EN DASH}" if score is None or math.isnan(score) else f"{score:.3f}"
