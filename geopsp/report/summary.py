"""Descriptions of chips, models and scores, as text and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from geopsp.chips.chip_set import ChipSet, class_rows, describe_skipped
from geopsp.chips.chip_warnings import chip_warnings, describe_labels, lasting_warnings
from geopsp.core.addresses import OutputPath, shown
from geopsp.core.escape import printable, printable_lines
from geopsp.core.legend import BACKGROUND
from geopsp.core.output import atomic_output
from geopsp.core.pixel_values import PixelValues
from geopsp.core.text import format_count, format_pixel_size
from geopsp.models.calibration import calibration_entry
from geopsp.models.model_info import ModelInfo, read_model_info
from geopsp.models.onnx_file import is_onnx, read_onnx

if TYPE_CHECKING:
    from geopsp.training.metrics import Confusion


def describe_chips(chips: ChipSet) -> str:
    """Describe number, size, bands and classes of chips, with the notes and warnings of their export."""
    where = ", ".join(map(shown, chips.folders)) or "Read from images, not exported"
    rows = class_rows(chips)
    has_polygons = any(row["polygons"] for row in rows)
    header = "  classes    code  name             pixels   share   chips" + ("   polygons" if has_polygons else "")
    lines = [
        f"{where}: {format_count(len(chips), 'chip')} of {chips.tile_size} x {chips.tile_size} pixels",
        f"  bands      {', '.join(chips.bands)} ({chips.dtype}{_values(chips.pixel_values)})",
        f"  pixel      {format_pixel_size(*chips.cell_size, chips.units)}",
        f"  labelled   {chips.index['labelled'].mean():.1%} of all pixels; valid {chips.index['valid'].mean():.1%}",
        header,
    ]
    for row in rows:
        line = f"{row['code']:4d}  {row['name']:<12} {row['pixels']:10,d} {row['share']:7.2%} {row['chips']:7d}"
        lines.append(f"             {line}" + (f" {row['polygons']:10,d}" if has_polygons else ""))
    has_background = BACKGROUND in chips.legend.names
    for report in chips.reports:
        lines += [f"  {line}" for line in _report_lines(report, has_background=has_background)]
    return printable_lines([*lines, *(f"  warning    {text}" for text in chip_warnings(chips))])


def write_chip_report(chips: ChipSet, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write the content of `describe_chips` as JSON."""
    with atomic_output(path, overwrite=overwrite) as partial:
        partial.write_text(json.dumps(chip_report(chips), indent=1), encoding="utf-8")
    return OutputPath(path)


def chip_report(chips: ChipSet) -> dict[str, Any]:
    """Return the content of `describe_chips` for JSON."""
    return {
        "folders": list(map(shown, chips.folders)),
        "chips": len(chips),
        "tile_size": chips.tile_size,
        "bands": list(chips.bands),
        "dtype": chips.dtype,
        "cell_size": list(chips.cell_size),
        "units": chips.units,
        "labelled": float(chips.index["labelled"].mean()),
        "valid": float(chips.index["valid"].mean()),
        "classes": class_rows(chips),
        "exports": [{**report, "warnings": lasting_warnings(report)} for report in chips.reports],
        "warnings": chip_warnings(chips),
    }


def _values(values: PixelValues) -> str:
    return "" if values.is_default else f"; {values}"


def _report_lines(report: Mapping[str, Any], *, has_background: bool) -> list[str]:
    """Describe the labels of an export, overlaps, chips left out, and notes."""
    labels = report["labels"]
    lines = [f"labels     {describe_labels(report)}"]
    if report["conflict_pixels"]:
        rule = f"; {labels['priority']}" if labels.get("priority") else ""
        count = report["conflict_pixels"]
        lines.append(
            f"overlaps   {format_count(count, 'pixel lies', 'pixels lie')} in polygons of several classes{rule}"
        )
    left_out = describe_skipped(report)
    lines += [f"left out   {left_out}"] if left_out else []
    if report["empty"]:
        content = "only background" if has_background else "no labels"
        lines.append(f"empty      {format_count(report['empty'], 'chip contains', 'chips contain')} {content}")
    return [*lines, *(f"note       {note}" for note in report.get("notes", []))]


def model_report(path: Path) -> dict[str, Any]:
    """Return the content of `describe_model` for JSON."""
    model = _model(path)
    return {
        "path": shown(path),
        "classifier": model.settings.get("network", "PSPNetClassifier"),
        "network": model.composition,
        "tile_size": model.tile_size,
        "cell_size": list(model.cell_size),
        "units": model.units,
        "bands": list(model.bands),
        "mean": [float(value) for value in model.statistics.mean],
        "std": [float(value) for value in model.statistics.std],
        "dtype": model.dtype,
        "classes": model.legend.to_json(),
        "epochs": len(model.history),
        "encoder_weights": model.settings.get("encoder_weights"),
        "metrics": dict(model.metrics),
        **calibration_entry(model.calibration),
    }


def _model(path: Path) -> ModelInfo:
    """Return what is known of a saved model, or of an ONNX file; no network is built."""
    return read_onnx(path) if is_onnx(path) else read_model_info(path)


def describe_model(path: Path) -> str:
    """Describe architecture, bands, classes and scores of a saved model, or of an ONNX file.

    Raises:
        PackageError: if the model is damaged.
    """
    model = _model(path)
    stats = model.statistics
    bands = [f"{n} ({m:.4g} ± {s:.3g})" for n, m, s in zip(model.bands, stats.mean, stats.std, strict=True)]
    size = format_pixel_size(*model.cell_size, model.units)
    weights = model.settings.get("encoder_weights") or "none (from scratch)"
    lines = [
        f"{shown(path)}: {model.settings.get('network', 'PSPNetClassifier')}",
        f"  network    {model.composition}",
        f"  tile       {model.tile_size} x {model.tile_size} pixels of {size}",
        f"  bands      {', '.join(bands)}, {model.dtype}{_values(model.pixel_values)}",
        "  classes    " + ", ".join(f"{info.code} {info.name}" for info in model.legend),
        f"  trained    {format_count(len(model.history), 'epoch')}, encoder weights: {weights}",
    ]
    if model.metrics.get("miou") is not None:
        lines.append(f"  validation mIoU {model.metrics['miou']:.4f}, accuracy {model.metrics['accuracy']:.4f}")
    if model.calibration is not None:
        lines.append(f"  calibrated {model.calibration.summary}")
    lines += [f"  warning    {text}" for text in model.settings.get("warnings", [])]
    return printable_lines(lines)


def describe_scores(scores: Confusion) -> str:
    """Return mean and per-class scores as a table."""
    table = scores.per_class().rename(index=printable).to_string(float_format=lambda value: f"{value:.4f}")
    lines = [f"mIoU {scores.mean_iou():.4f}, accuracy {scores.accuracy():.4f}", table]
    for words, found in (("as the network gives it", scores.reliability), ("calibrated", scores.calibrated)):
        if found is not None and found.pixels:
            lines.append(
                f"confidence {words}: mean {found.mean_confidence():.4f}, ECE {found.ece():.4f}, NLL {found.nll():.4f}"
            )
    return "\n".join(lines)


def write_scores(scores: Confusion, path: Path, *, overwrite: bool = False) -> None:
    """Write scores and confusion matrix as JSON."""
    with atomic_output(path, overwrite=overwrite) as partial:
        partial.write_text(json.dumps(scores.to_json(), indent=1), encoding="utf-8")
