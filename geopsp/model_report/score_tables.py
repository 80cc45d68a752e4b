"""Scores as tables of the report: headline, classes, confusion matrix, reliability."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from markupsafe import Markup
from numpy.typing import NDArray

from geopsp.core.class_scores import class_scores
from geopsp.core.legend import Legend
from geopsp.core.text import format_count
from geopsp.model_report.charts import reliability_chart, score_bar
from geopsp.models.training_record import ChipScores

MISSING = "–"

MAX_MATRIX = 30
"""Classes of the confusion matrix that is shown: those with the most labelled pixels."""

Interval = Sequence[float] | None


@dataclass(frozen=True, slots=True)
class Score:
    """A score with its interval, as text and as a bar."""

    label: str
    value: str
    interval: str
    bar: Markup


@dataclass(frozen=True, slots=True)
class ClassRow:
    """Scores of a class."""

    name: str
    color: str
    pixels: int
    scores: tuple[Score, ...]


@dataclass(frozen=True, slots=True)
class Cell:
    """A cell of the confusion matrix."""

    count: int
    share: float
    """Of the pixels of the true class."""

    is_right: bool


@dataclass(frozen=True, slots=True)
class ScoreTables:
    """What the report tells of scores on some chips."""

    name: str
    chips: int
    about: str
    """How the intervals were made."""

    headline: tuple[Score, ...]
    classes: tuple[ClassRow, ...]
    matrix: tuple[tuple[ClassRow, tuple[Cell, ...]], ...]
    """Rows of the confusion matrix."""

    charts: tuple[Mapping[str, Any], ...]
    """Of reliability: name, picture and numbers."""


def score_tables(scores: ChipScores, legend: Legend) -> ScoreTables:
    """Return scores as tables."""
    matrix = np.array(scores.confusion, float).reshape(len(legend), len(legend))
    found = class_scores(matrix)
    number = len(legend)
    intervals: list[Interval] = [*scores.intervals] or [None] * (2 + 3 * number)
    boundary = _boundary(scores, number)
    known = boundary[np.isfinite(boundary)]
    headline = [
        _score("mean IoU", found[0], intervals[0]),
        _score("accuracy", found[1], intervals[1]),
        *([_score("mean boundary IoU", float(known.mean()), None)] if known.size else []),
    ]
    if scores.reliability:
        last = scores.reliability[-1]
        headline.append(Score("calibration error (ECE)", f"{last.ece:.3f}", last.name, Markup("")))
    rows = tuple(
        ClassRow(
            info.name, info.color, int(matrix[at].sum()),
            (
                *(
                    _score(label, found[2 + part * number + at], intervals[2 + part * number + at], info.name)
                    for part, label in enumerate(("IoU", "precision", "recall"))
                ),
                _score("boundary IoU", float(boundary[at]), None, info.name),
            ),
        )
        for at, info in enumerate(legend)
    )  # fmt: skip
    largest = np.sort(np.argsort(-matrix.sum(axis=1), kind="stable")[:MAX_MATRIX]).tolist()
    return ScoreTables(
        name=scores.name,
        chips=scores.chips,
        about=_about(scores),
        headline=tuple(headline),
        classes=rows,
        matrix=tuple((rows[at], _cells(scores.confusion[at], at, largest)) for at in largest),
        charts=tuple(_reliability(scores)),
    )


def _score(label: str, value: float, interval: Interval, of: str = "") -> Score:
    if not np.isfinite(value):
        return Score(label, MISSING, "", Markup(""))
    words = "" if interval is None else f"{interval[0]:.3f} to {interval[1]:.3f}"
    spoken = f"{label}{f' of {of}' if of else ''}: {value:.3f}{f', interval {words}' if words else ''}"
    return Score(label, f"{value:.3f}", words, score_bar(float(value), interval, spoken))


def _boundary(scores: ChipScores, number: int) -> NDArray[np.float64]:
    """Return the boundary IoU of each class; NaN where it is not known."""
    counts = np.array(scores.boundary if scores.boundary is not None else [[0, 0]] * number, float).reshape(number, 2)
    iou: NDArray[np.float64] = np.divide(
        counts[:, 0], counts[:, 1], out=np.full(number, np.nan), where=counts[:, 1] > 0
    )
    return iou


def _cells(row: Sequence[int], at: int, columns: Sequence[int]) -> tuple[Cell, ...]:
    total = sum(row) or 1
    return tuple(Cell(row[column], row[column] / total, column == at) for column in columns)


def _about(scores: ChipScores) -> str:
    if not any(scores.intervals):
        return "No intervals are known."
    level = f"{scores.confidence_level:.0%}".replace("%", " %")
    return (
        f"Lines on bars are {level} intervals: {format_count(scores.blocks, 'block')} ({scores.block_words}) were "
        "resampled as a whole, because neighbouring pixels are alike (BCa bootstrap)."
    )


def _reliability(scores: ChipScores) -> list[Mapping[str, Any]]:
    found: list[Mapping[str, Any]] = []
    for entry in scores.reliability:
        pixels = sum(each.pixels for each in entry.bins) or 1
        bins = [(each.low, each.high, each.accuracy, each.pixels / pixels) for each in entry.bins]
        numbers = {
            "mean confidence": entry.mean_confidence, "ECE": entry.ece, "MCE": entry.mce, "NLL": entry.nll,
            "Brier": entry.brier,
        }  # fmt: skip
        found.append(
            {
                "name": entry.name,
                "picture": reliability_chart(entry.name, bins, entry.ece),
                "numbers": {name: f"{value:.4f}" for name, value in numbers.items()},
            }
        )
    return found


def scores_of_metrics(metrics: Mapping[str, Any], legend: Legend) -> ChipScores | None:
    """Return what the scores in a manifest tell, without intervals; None if they tell nothing."""
    try:
        rows = metrics["confusion"]["rows_true"]
        if metrics["confusion"]["classes"] != legend.names:
            return None
        return ChipScores(
            name="the validation chips", chips=0, confusion=rows, blocks=0, block_words="", intervals=[],
            confidence_level=0.95,
        )  # fmt: skip
    except (KeyError, TypeError, ValueError):
        return None
