"""The HTML report of a model: what its folder holds, scores of other chips, and a map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import geopsp
from geopsp.core.html_page import package_text, render_page
from geopsp.core.stac import time_text
from geopsp.core.text import format_count, format_pixel_size
from geopsp.model_report.data_tables import (
    band_panels,
    class_shares,
    facts_of_training,
    repeat_code,
    repeat_command,
    size_text,
    training_curves,
)
from geopsp.model_report.ground_map import ground_panels
from geopsp.model_report.map_panel import MapPanel
from geopsp.model_report.score_tables import score_tables, scores_of_metrics
from geopsp.models.model_info import ModelInfo
from geopsp.models.training_record import ChipScores, TrainingRecord


@dataclass(frozen=True, slots=True, kw_only=True)
class ModelReport:
    """What a report tells."""

    name: str
    """Of the model: its folder, or its class."""

    folder: str = ""
    """Of the model; "" if it is not saved."""

    model: ModelInfo
    record: TrainingRecord | None = None
    run_config: str = ""
    """All options of the command that trained it, as YAML; "" if they are not known."""

    versions: Mapping[str, str]
    """Of the packages that it was trained with, as far as they are known."""

    test: ChipScores | None = None
    """On chips that the user names."""

    panel: MapPanel | None = None


def report_page(report: ModelReport) -> str:
    """Return the page: one file that needs no network."""
    title = f"Model report: {report.name}"
    return render_page(
        "model_report/report.html",
        title=title,
        script=package_text("model_report", "report.js"),
        style=package_text("model_report", "report.css"),
        report=report,
        model=report.model,
        record=report.record,
        panel=report.panel,
        summary=_summary(report.model),
        made=time_text(datetime.now(UTC)).replace("T", " ").replace("Z", " UTC"),
        geopsp_version=geopsp.__version__,
        warnings=_warnings(report),
        missing=_missing(report),
        **_score_values(report),
        **_data_values(report),
    )


def _score_values(report: ModelReport) -> dict[str, Any]:
    legend = report.model.legend
    valid = report.record.scores if report.record and report.record.scores else None
    valid = valid or scores_of_metrics(report.model.metrics, legend)
    found = [each for each in (report.test, valid) if each is not None]
    tables = [score_tables(each, legend) for each in found]
    return {
        "scores": tables[0] if tables else None,
        "other_scores": tables[1] if len(tables) > 1 else None,
        "pictures": found[0].pictures if found else [],
        "legend": list(legend),
    }


def _data_values(report: ModelReport) -> dict[str, Any]:
    record, test = report.record, report.test
    curves = training_curves(report.model.history)
    footprints = test.footprints if test else None
    panels, more = ground_panels(record.footprints if record else None, footprints)
    found: dict[str, Any] = {
        "curves": curves, "ground": panels, "more_ground": more, "footprints": record.footprints if record else None,
        "has_test": test is not None, "classes": [], "bands": [], "num_bands": 0, "facts": [], "inputs": [],
        "repeat": "", "code": "", "config": report.run_config,
    }  # fmt: skip
    if record is not None:
        others = {"test": test} if test else {"valid": record.scores} if record.scores else {}
        found |= {
            "classes": class_shares(record, report.model.legend),
            "bands": band_panels(record, others),
            "num_bands": len(record.bands),
            "facts": facts_of_training(record),
            "code": repeat_code(record, str(report.model.settings.get("network", "")), report.folder),
            "inputs": [(each, size_text(each.size)) for each in record.inputs],
        }
    if report.run_config and report.folder:
        found["repeat"] = repeat_command(report.folder)
    return found


def _summary(model: ModelInfo) -> str:
    size = format_pixel_size(*model.cell_size, model.units)
    epochs = format_count(len(model.history), "epoch")
    return (
        f"{model.settings.get('network', 'PSPNetClassifier')}: {model.composition}. Tiles of {model.tile_size} x "
        f"{model.tile_size} pixels of {size}, {format_count(len(model.bands), 'band')}, "
        f"{format_count(len(model.legend), 'class', 'classes')}, {epochs} trained."
    )


def _warnings(report: ModelReport) -> list[str]:
    given = report.model.settings.get("warnings", [])
    found = [str(text) for text in given] if isinstance(given, list) else []
    record = report.record
    for scores in (report.test, record.scores if record else None):
        found += [f"Scores on {scores.name}: {note}" for note in scores.notes] if scores else []
    return list(dict.fromkeys(found))


def _missing(report: ModelReport) -> list[str]:
    """Return what the report cannot tell, and why."""
    if report.record is None:
        text = (
            "The model holds no training.json, as those of earlier versions and of the Hub: its data, split and calls "
            "are not known. Train it again to see them."
        )
        return [text]
    if report.record.scores is None:
        return ["The model was saved without scores on its validation chips."]
    return []
