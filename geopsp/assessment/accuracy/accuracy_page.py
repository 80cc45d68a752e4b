"""The accuracy of a map as an HTML page: one file, without scripts."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from geopsp.assessment.accuracy.accuracy_text import (
    about_intervals,
    area,
    count_of_units,
    fraction,
    has_intervals,
    hectares,
    rows_of,
)
from geopsp.core.escape import html_text
from geopsp.core.html_page import html_page

if TYPE_CHECKING:
    import pandas as pd

    from geopsp.assessment.accuracy.accuracy_tables import AccuracyTables

ROW_HEIGHT, BAR_WIDTH = 18, 240
"""Of a bar chart, in pixels."""


def accuracy_page(found: AccuracyTables) -> str:
    """Return a page with all results."""
    return html_page(f"Accuracy of {found.map_name}", [accuracy_body(found)])


def accuracy_body(found: AccuracyTables) -> str:
    """Return the content of the page."""
    intervals = f"<br>{about_intervals(found)}" if has_intervals(found) else ""
    unit = "pixels" if found.design == "census" else "points"
    parts = [
        f"<h1>Accuracy of {html_text(found.map_name)}</h1>",
        f"<p>By {html_text(found.reference_name)}: {html_text(count_of_units(found))}<br>",
        f"{html_text(found.method)}{intervals}</p>",
        _warnings(found.warnings),
        f"<p>Overall accuracy <strong>{html_text(fraction(found.overall))}</strong></p>",
        "<h2>Accuracy of the classes</h2>",
        _accuracies(found),
        "<h2>Areas</h2>",
        _areas(found),
        f"<h2>Error matrix</h2>{_matrix(found, found.error_matrix, f'Number of {unit}', '{:,.0f}')}",
    ]
    if not math.isnan(found.total_area):
        parts.append(f"<p></p>{_matrix(found, found.area_shares, 'Estimated shares of the area', '{:.4f}')}")
    if len(found.strata) > 1:
        parts += ["<h2>Strata</h2>", _strata(found.strata)]
    if len(found.zones):
        parts += ["<h2>Zones</h2>", _zones(found)]
    return "\n".join(filter(None, parts))


def _warnings(texts: Sequence[str]) -> str:
    items = "".join(f"<li>{html_text(text)}</li>" for text in texts)
    return f"<h2>Notes</h2><ul>{items}</ul>" if texts else ""


def _name(found: AccuracyTables, name: str) -> str:
    return f"<span class='swatch' style='background:{html_text(found.colors[name])}'></span>{html_text(name)}"


def _accuracies(found: AccuracyTables) -> str:
    heads = ("class", "user's accuracy", "", "producer's accuracy", "", "F1")
    rows = []
    of_users, of_producers, f1 = (rows_of(frame) for frame in (found.users, found.producers, found.f1))
    for name in found.classes:
        users, producers = of_users[name], of_producers[name]
        rows.append(
            [
                _name(found, name), html_text(fraction(users)), interval_bar(users, 1.0, "user's accuracy"),
                html_text(fraction(producers)), interval_bar(producers, 1.0, "producer's accuracy"),
                html_text(fraction(f1[name])),
            ]
        )  # fmt: skip
    return _table(heads, rows, "With standard error and interval; the bars go from 0 to 1.")


def _areas(found: AccuracyTables) -> str:
    numbers = found.areas[["estimate", "upper", "mapped"]].to_numpy().ravel()
    most = max((float(value) for value in numbers if math.isfinite(value)), default=0.0) or 1.0
    rows = []
    for name, row in rows_of(found.areas).items():
        bar = interval_bar(row, most, "area", mapped=float(row["mapped"]))
        rows.append([_name(found, name), hectares(row["mapped"]), html_text(area(row)), bar])
    caption = "Hectares on the ellipsoid. Estimated ones correct what the map has wrong; the line is the mapped area."
    return _table(("class", "mapped", "estimated", ""), rows, caption)


def interval_bar(row: Mapping[str, Any], most: float, what: str, *, mapped: float = math.nan) -> str:
    """Return an SVG of a bar up to an estimate, the interval on it, and a line at the mapped value.

    Args:
        row: estimate, lower and upper; NaN where unknown.
        most: The value at the end of the bar.
        what: Its name for those who do not see it.
        mapped: Where the line is; NaN: none.
    """
    value, lower, upper = (float(row[key]) for key in ("estimate", "lower", "upper"))
    middle, height = ROW_HEIGHT / 2, ROW_HEIGHT
    shapes = [f"<rect width='{BAR_WIDTH}' height='{height}' fill='currentColor' opacity='.07'/>"]
    if math.isfinite(value):
        shapes.append(
            f"<rect width='{_x(value, most)}' y='3' height='{height - 6}' fill='var(--mark, #1f6feb)' opacity='.45'/>"
        )
    if math.isfinite(lower):
        ends = "".join(f"M{_x(end, most)} 4V{height - 4}" for end in (lower, upper))
        shapes.append(
            f"<path d='M{_x(lower, most)} {middle}H{_x(upper, most)}{ends}' stroke='currentColor' stroke-width='1.5' "
            "fill='none'/>"
        )
    if math.isfinite(mapped):
        shapes.append(
            f"<path d='M{_x(mapped, most)} 0V{height}' stroke='currentColor' stroke-width='2' stroke-dasharray='3 2'/>"
        )
    return (
        f"<svg role='img' aria-label=\"{html_text(what)}\" width='{BAR_WIDTH}' height='{height}' "
        f"viewBox='0 0 {BAR_WIDTH} {height}'>{''.join(shapes)}</svg>"
    )


def _x(value: float, most: float) -> str:
    return f"{min(max(value / most, 0), 1) * BAR_WIDTH:.1f}"


def _matrix(found: AccuracyTables, matrix: pd.DataFrame, caption: str, shown: str) -> str:
    """Return an error matrix, coloured by the share of each row: right cells in one colour, wrong ones in another."""
    rows = rows_of(matrix)
    heads = "".join(f"<th scope='col'>{_name(found, name)}</th>" for name in found.classes)
    body = "".join(
        f"<tr><th scope='row'>{_name(found, name)}</th>{''.join(_cells(list(rows[name].values()), at, shown))}</tr>"
        for at, name in enumerate(found.classes)
    )
    return (
        f"<div class='scroll'><table><caption>{caption}; rows: map, columns: reference.</caption>"
        f"<thead><tr><th></th>{heads}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cells(values: Sequence[float], at: int, shown: str) -> Iterator[str]:
    total = sum(values) or 1
    for column, value in enumerate(values):
        color = "31,111,235" if column == at else "214,69,65"
        text = shown.format(value) if value else "·"
        yield f"<td style='background:rgba({color},{0.55 * value / total:.3f})'>{text}</td>"


def _strata(strata: pd.DataFrame) -> str:
    rows = [
        [
            html_text(name), hectares(row["area_ha"]), f"{row['sample_size']:,.0f}", f"{row['labelled']:,.0f}",
            "-" if math.isnan(row["agreement"]) else f"{row['agreement']:.3f}",
        ]
        for name, row in rows_of(strata).items()
    ]  # fmt: skip
    return _table(("stratum", "ha", "points drawn", "labelled", "agreement"), rows, "Agreement of map and reference.")


def _zones(found: AccuracyTables) -> str:
    rows = [[html_text(zone), html_text(fraction(row))] for zone, row in rows_of(found.zones).items()]
    areas = [
        [html_text(row["zone"]), _name(found, row["class"]), html_text(area(row))]
        for row in rows_of(found.zone_areas).values()
    ]
    overall = _table(("zone", "overall accuracy"), rows, "Estimated from the points of each zone alone.")
    return f"{overall}<p></p>{_table(('zone', 'class', 'estimated ha'), areas, 'Areas by zone.')}"


def _table(heads: Sequence[str], rows: Sequence[Sequence[str]], caption: str) -> str:
    """Return a table whose cells are HTML already."""
    head = "".join(f"<th scope='col'>{html_text(text)}</th>" for text in heads)
    body = "".join(
        f"<tr><th scope='row'>{row[0]}</th>{''.join(f'<td>{cell}</td>' for cell in row[1:])}</tr>" for row in rows
    )
    table = f"<table><caption>{caption}</caption><thead><tr>{head}</tr></thead><tbody>{body}</tbody></table>"
    return f"<div class='scroll'>{table}</div>"
