"""Data and training as tables and charts of the report: classes, bands, curves, inputs, options."""

from __future__ import annotations

import math
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from markupsafe import Markup

from geopsp.core.legend import Legend
from geopsp.core.text import format_duration
from geopsp.model_report.charts import Curve, curves_chart, histogram_chart
from geopsp.models.training_record import ChipScores, TrainingRecord

MAX_BANDS = 24
"""Histograms that are shown."""

MAX_EPOCHS = 2000
"""Epochs of a curve; of more, evenly spread ones."""


@dataclass(frozen=True, slots=True)
class ClassShare:
    """How many labelled pixels and chips of both parts a class has."""

    name: str
    color: str
    train_pixels: int
    train_share: float
    train_chips: int
    valid_pixels: int
    valid_share: float
    valid_chips: int


@dataclass(frozen=True, slots=True)
class BandPanel:
    """The histogram of a band."""

    name: str
    picture: Markup


def class_shares(record: TrainingRecord, legend: Legend) -> list[ClassShare]:
    """Return the classes with their shares of the labelled pixels."""
    colors = {info.name: info.color for info in legend}
    train = sum(each.train_pixels for each in record.classes) or 1
    valid = sum(each.valid_pixels for each in record.classes) or 1
    return [
        ClassShare(
            each.name, colors.get(each.name, "#888888"), each.train_pixels, each.train_pixels / train,
            each.train_chips, each.valid_pixels, each.valid_pixels / valid, each.valid_chips,
        )
        for each in record.classes
    ]  # fmt: skip


def band_panels(record: TrainingRecord, others: Mapping[str, ChipScores]) -> list[BandPanel]:
    """Return histograms of the training pixels and, as lines, of other chips.

    Args:
        record: Of the training.
        others: By class of the style sheet.
    """
    panels = []
    for number, band in enumerate(record.bands[:MAX_BANDS]):
        lines = [
            (color, scores.bands[number])
            for color, scores in others.items()
            if number < len(scores.bands) and len(scores.bands[number]) == len(band.counts)
        ]
        panels.append(BandPanel(band.band, histogram_chart(band.band, band.low, band.high, band.counts, lines)))
    return panels


def training_curves(history: Sequence[Mapping[str, Any]]) -> list[Mapping[str, Any]]:
    """Return charts of loss, mean IoU and learning rate by epoch, each with a title and its curves."""
    rows = history
    if len(rows) > MAX_EPOCHS:
        step = len(rows) / MAX_EPOCHS
        rows = [history[int(number * step)] for number in range(MAX_EPOCHS)]

    def values(name: str) -> list[float | None]:
        return [value if (value := _number(row.get(name))) is not None else None for row in rows]

    charts = (
        ("Loss", None, True, (("training", "train", "train_loss"), ("validation", "valid", "valid_loss"))),
        ("Mean IoU, validation", 1.0, False, (("validation", "valid", "valid_miou"),)),
        ("Learning rate", None, False, (("learning rate", "train", "lr"),)),
    )
    found: list[Mapping[str, Any]] = []
    for title, top, cut, lines in charts:
        curves = [Curve(name, color, values(key)) for name, color, key in lines]
        curves = [curve for curve in curves if any(value is not None for value in curve.values)]
        if curves:
            picture = curves_chart(title, curves, top=top, cut=cut)
            names = [(curve.name, curve.color) for curve in curves] if len(curves) > 1 else []
            found.append({"title": title, "picture": picture, "names": names})
    return found


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None


def facts_of_training(record: TrainingRecord) -> list[tuple[str, str]]:
    """Return when, how long and on what a model was trained."""
    return [
        ("trained", record.created.replace("T", " ").replace("Z", " UTC")),
        ("time", format_duration(record.seconds)),
        ("device", record.device),
        ("system", record.platform),
        ("working folder", record.working_folder),
    ]


def repeat_code(record: TrainingRecord, network: str, folder: str) -> str:
    """Return the Python code that trains a model again."""
    again = f"{folder.rstrip('/')}-2"
    saved = [f"model.save({again!r})"] if folder else []
    return "\n".join([f"from geopsp import {network}, prepare_data", "", *record.code, *saved]) if record.code else ""


def repeat_command(name: str) -> str:
    """Return the command that trains a model again, from the options in its folder."""
    return shlex.join(["geopsp", "train", "--config", name, "--out", f"{name.rstrip('/')}-2"])


def size_text(size: int) -> str:
    """Return bytes as text: "12 kB", "1.2 MB"."""
    if size < 1e5:
        return f"{size / 1e3:,.0f} kB"
    return f"{size / 1e6:,.1f} MB" if size < 1e9 else f"{size / 1e9:,.1f} GB"
