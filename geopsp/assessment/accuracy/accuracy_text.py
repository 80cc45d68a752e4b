"""The accuracy of a map as lines of text, and as rows of one table."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from geopsp.core.escape import printable, printable_lines
from geopsp.core.text import format_count

if TYPE_CHECKING:
    import pandas as pd

    from geopsp.assessment.accuracy.accuracy_tables import AccuracyTables

UNKNOWN = "-"


WIDEST_NAME = 24
"""Characters of a class name in a table of text."""


def accuracy_text(found: AccuracyTables) -> str:
    """Return all results as text."""
    lines = [
        f"{found.map_name} by {found.reference_name}",
        f"  {found.method}",
        f"  {count_of_units(found)}",
        *([f"  {about_intervals(found)}"] if has_intervals(found) else []),
        "",
        f"Overall accuracy  {fraction(found.overall)}",
        "",
        *_class_table(found),
        "",
        f"Error matrix (rows: map, columns: reference; {'pixels' if found.design == 'census' else 'points'})",
        *_matrix(found.error_matrix),
    ]
    if len(found.strata) > 1:
        lines += ["", *_strata(found.strata)]
    if len(found.zones):
        lines += ["", "Overall accuracy by zone"]
        lines += [f"  {_short(zone):<{WIDEST_NAME}}  {fraction(row)}" for zone, row in rows_of(found.zones).items()]
    return printable_lines(lines)


def rows_of(frame: pd.DataFrame) -> dict[str, dict[str, Any]]:
    """Return the rows of a frame by name."""
    columns = [str(name) for name in frame.columns]
    cells = frame.to_numpy(object).tolist()
    return {str(name): dict(zip(columns, row, strict=True)) for name, row in zip(frame.index, cells, strict=True)}


def has_intervals(found: AccuracyTables) -> bool:
    """Return True if standard errors are estimated."""
    return found.design not in {"unknown", "census"}


def about_intervals(found: AccuracyTables) -> str:
    """Return what the numbers behind an estimate are."""
    return f"Estimates with ± standard error and confidence interval ({100 * found.confidence_level:.10g} %)."


def count_of_units(found: AccuracyTables) -> str:
    """Return how many points or pixels there are, in words."""
    if found.design == "census":
        return f"{format_count(found.num_points, 'pixel')}, {hectares(found.total_area)} ha"
    missing = f", {found.num_unlabelled:,} more without a label" if found.num_unlabelled else ""
    area = "" if math.isnan(found.total_area) else f"; they stand for {hectares(found.total_area)} ha"
    return f"{format_count(found.num_points, 'labelled point')}{missing}{area}"


def fraction(row: Mapping[str, Any] | pd.Series) -> str:
    """Return an accuracy with standard error and interval: "0.947 +- 0.009 (0.928 to 0.965)"."""
    return _estimate(row, lambda value: f"{value:.3f}")


def area(row: Mapping[str, Any] | pd.Series) -> str:
    """Return hectares with standard error and interval."""
    return _estimate(row, hectares)


def hectares(value: float) -> str:
    """Return hectares with as many decimals as they need."""
    return UNKNOWN if math.isnan(value) else f"{value:,.0f}" if value >= 1000 else f"{value:,.4g}"


def _estimate(row: Mapping[str, Any] | pd.Series, shown: Any) -> str:
    value, error = row["estimate"], row["standard_error"]
    if math.isnan(value):
        return UNKNOWN
    if math.isnan(error):
        return str(shown(value))
    return f"{shown(value)} ± {shown(error)} ({shown(row['lower'])} to {shown(row['upper'])})"


def _short(name: str) -> str:
    name = printable(name)
    return name if len(name) <= WIDEST_NAME else f"{name[: WIDEST_NAME - 1]}…"


def _class_table(found: AccuracyTables) -> list[str]:
    """Return a table of the classes: accuracies, hectares in the map and estimated ones."""
    rows = [["class", "user's accuracy", "producer's accuracy", "mapped ha", "estimated ha"]]
    users, producers = rows_of(found.users), rows_of(found.producers)
    for name, areas in rows_of(found.areas).items():
        accuracies = fraction(users[name]), fraction(producers[name])
        rows.append([_short(name), *accuracies, hectares(areas["mapped"]), area(areas)])
    return _aligned(rows)


def _matrix(matrix: pd.DataFrame) -> list[str]:
    names = [_short(str(name)) for name in matrix.columns]
    cells = [[f"{value:,}" for value in row] for row in matrix.to_numpy().tolist()]
    return _aligned([["", *names], *([name, *row] for name, row in zip(names, cells, strict=True))], right=True)


def _strata(strata: pd.DataFrame) -> list[str]:
    rows = [["stratum", "ha", "points drawn", "labelled", "agreement"]]
    for name, row in rows_of(strata).items():
        agreement = UNKNOWN if math.isnan(row["agreement"]) else f"{row['agreement']:.3f}"
        drawn, labelled = f"{row['sample_size']:,.0f}", f"{row['labelled']:,.0f}"
        rows.append([_short(name), hectares(row["area_ha"]), drawn, labelled, agreement])
    return _aligned(rows, right=True)


def _aligned(rows: list[list[str]], *, right: bool = False) -> list[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    return [
        ("  " + "  ".join(
            f"{cell:>{width}}" if right and at else f"{cell:<{width}}"
            for at, (cell, width) in enumerate(zip(row, widths, strict=True))
        )).rstrip()
        for row in rows
    ]  # fmt: skip


def accuracy_rows(found: AccuracyTables) -> list[dict[str, Any]]:
    """Return one row per number, with the names of its columns."""
    return [
        {"measure": "", "class": "", "reference_class": "", "zone": "", "unit": "", "estimate": math.nan,
         "standard_error": math.nan, "lower": math.nan, "upper": math.nan} | row
        for row in _rows(found)
    ]  # fmt: skip


def _rows(found: AccuracyTables) -> Iterator[dict[str, Any]]:
    share, hectare = {"unit": "fraction"}, {"unit": "ha"}
    yield {"measure": "overall accuracy", **share, **rows_of(found.overall.to_frame().T)["overall accuracy"]}
    accuracies = {"user's accuracy": found.users, "producer's accuracy": found.producers, "F1": found.f1}
    for measure, frame in accuracies.items():
        for name, row in rows_of(frame).items():
            yield {"measure": measure, "class": name, **share, **row}
    for name, values in rows_of(found.areas).items():
        mapped = values.pop("mapped")
        yield {"measure": "area", "class": name, **hectare, **values}
        yield {"measure": "mapped area", "class": name, **hectare, "estimate": mapped}
    unit = {"unit": "pixels" if found.design == "census" else "points"}
    for measure, matrix, kind in (("error matrix", found.error_matrix, unit), ("area share", found.area_shares, share)):
        for name, cells in rows_of(matrix).items():
            for other, value in cells.items():
                cell = {"class": name, "reference_class": other, "estimate": float(value)}
                yield {"measure": measure, **cell, **kind}
    for zone, row in rows_of(found.zones).items():
        estimates = {key: row[key] for key in ("estimate", "standard_error", "lower", "upper")}
        yield {"measure": "overall accuracy", "zone": zone, **share, **estimates}
    for row in rows_of(found.zone_areas).values():
        yield {"measure": "area", **hectare, **row}
