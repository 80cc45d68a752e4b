"""What was found, in words, JSON and HTML."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geopsp.chips.chip_set import MANIFEST as CHIPS_MANIFEST
from geopsp.chips.chip_set import ChipSet, class_pixels
from geopsp.chips.class_balance import class_warnings, is_imbalance
from geopsp.core.bands import has_band_names
from geopsp.core.output import atomic_output
from geopsp.errors import InputNotFoundError
from geopsp.raster.info import read_info as describe_header
from geopsp.raster.legend_io import read_legend
from geopsp.training.metrics import Confusion


def describe_path(path: Path) -> str:
    """A raster, a chip folder or a model, in words a person can use.

    Raises:
        InputNotFoundError: if there is no such file or folder.
        GeopspError: if it is none of them.
    """
    if not path.exists():
        raise InputNotFoundError(f"No such file or folder: {path}. Check the path.")
    if not path.is_dir():
        return describe_raster(path)
    if (path / CHIPS_MANIFEST).exists() or (path / "images").is_dir():
        return describe_chips(ChipSet.open(path))
    return describe_model(path)


def describe_raster(path: Path) -> str:
    """Size, bands, CRS, extent and classes of a raster."""
    source, legend = describe_header(path, needs_crs=False), read_legend(path)
    grid = source.grid
    crs = grid.crs.to_string() if grid.crs else "none: it cannot be used before it has one"
    unit = ("degrees" if grid.crs.is_geographic else grid.crs.linear_units) if grid.crs else "units"
    x, y = grid.cell_size
    left, bottom, right, top = grid.bounds()
    lines = [
        f"{path}: a raster of {grid.width:,} x {grid.height:,} pixels, {len(source.indexes)} bands of {source.dtype}",
        f"  bands      {', '.join(source.bands)}" + ("" if has_band_names(source.bands) else " (unnamed)"),
        f"  CRS        {crs}",
        f"  pixel      {x:g} x {y:g} {unit}" + (", rotated" if grid.transform.b or grid.transform.d else ""),
        f"  extent     x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}",
        f"  nodata     {'none declared' if source.nodata is None else f'{source.nodata:g}'}",
    ]
    if legend:
        lines.append("  classes    " + ", ".join(f"{info.code} {info.name}" for info in legend))
    return "\n".join(lines)


def describe_chips(chips: ChipSet) -> str:
    """Number, size, bands and classes of chips, what was found when they were cut, and what to beware of."""
    x, y = chips.cell_size
    place = ", ".join(map(str, chips.folders)) or "Cut when asked for, in no folder"
    rows = _class_rows(chips)
    drawn = any(row["polygons"] for row in rows)
    heads = "  classes    code  name             pixels   share   chips" + ("   polygons" if drawn else "")
    lines = [
        f"{place}: {len(chips)} chips of {chips.tile_size} x {chips.tile_size} pixels",
        f"  bands      {', '.join(chips.bands)} ({chips.dtype})",
        f"  pixel      {x:g} x {y:g} {chips.units}",
        f"  labelled   {chips.index['labelled'].mean():.1%} of all pixels; valid {chips.index['valid'].mean():.1%}",
        heads,
    ]
    for row in rows:
        line = f"{row['code']:4d}  {row['name']:<12} {row['pixels']:10,d} {row['share']:7.2%} {row['chips']:7d}"
        lines.append(f"             {line}" + (f" {row['polygons']:10,d}" if drawn else ""))
    for report in chips.reports:
        lines += [f"  {line}" for line in _report_lines(report)]
    return "\n".join([*lines, *(f"  warning    {text}" for text in _warnings(chips))])


def write_chip_report(chips: ChipSet, path: str | Path, *, overwrite: bool = False) -> Path:
    """All that `describe_chips` tells, as JSON."""
    content = {
        "folders": list(map(str, chips.folders)),
        "chips": len(chips),
        "tile_size": chips.tile_size,
        "bands": list(chips.bands),
        "dtype": chips.dtype,
        "cell_size": list(chips.cell_size),
        "units": chips.units,
        "labelled": float(chips.index["labelled"].mean()),
        "valid": float(chips.index["valid"].mean()),
        "classes": _class_rows(chips),
        "exports": [{**report, "warnings": _lasting(report)} for report in chips.reports],
        "warnings": _warnings(chips),
    }
    with atomic_output(path, overwrite=overwrite) as partial:
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return Path(path)


def _class_rows(chips: ChipSet) -> list[dict[str, Any]]:
    """Pixels, their share, chips and polygons of each class."""
    counts = class_pixels(chips.index, chips.legend)
    total = max(int(counts.sum()), 1)
    return [
        {
            "code": info.code,
            "name": info.name,
            "pixels": int(own.sum()),
            "share": int(own.sum()) / total,
            "chips": int((own > 0).sum()),
            "polygons": sum(report.get("polygons", {}).get(info.name, 0) for report in chips.reports),
        }
        for info, own in zip(chips.legend, counts.T, strict=True)
    ]


def _warnings(chips: ChipSet) -> list[str]:
    """Those of the exports, and what is out of balance in all of them together."""
    counts = class_pixels(chips.index, chips.legend)
    told = [text for report in chips.reports for text in _lasting(report)]
    return list(dict.fromkeys([*told, *class_warnings(chips.legend, counts.sum(axis=0), (counts > 0).sum(axis=0))]))


def _lasting(report: Mapping[str, Any]) -> list[str]:
    """Warnings of an export that other chips beside its own do not change."""
    return [text for text in report.get("warnings", []) if not is_imbalance(text)]


def _report_lines(report: Mapping[str, Any]) -> list[str]:
    labels = report["labels"]
    polygons = labels.get("polygons") or sum(report.get("polygons", {}).values())
    found = [f"{count:,} {words}" for count, words in (
        (polygons, "polygons"), *((labels.get(key), words) for key, words in (
            ("repaired", "repaired"), ("null", "without geometry"), ("empty", "empty"),
            ("not_polygons", "not polygons"), ("without_class", "without a class"), ("dropped", "dropped")))
    ) if count]  # fmt: skip
    lines = [f"labels     {labels['source']}" + (f": {', '.join(found)}" if found else "")]
    if report["conflict_pixels"]:
        rule = f"; {labels['priority']}" if labels.get("priority") else ""
        lines.append(f"overlaps   {report['conflict_pixels']:,} pixels lie in several classes{rule}")
    reasons = {
        "invalid": "with too few valid pixels", "unlabelled": "with too little labelled", "empty": "without any class",
        "outside": "not wholly inside the area",
    }  # fmt: skip
    left_out = [
        f"{count:,} chips {reasons.get(reason, reason)}" for reason, count in report["skipped"].items() if count
    ]
    lines += [f"left out   {', '.join(left_out)}"] if left_out else []
    if report["empty"]:
        lines.append(f"empty      {report['empty']:,} chips hold no class but background")
    return [*lines, *(f"note       {note}" for note in report.get("notes", []))]


def describe_model(path: Path) -> str:
    """Architecture, bands, classes and scores of a saved model."""
    from geopsp.models.saved_model import load_model

    model = load_model(path)
    stats = model.statistics
    bands = [f"{n} ({m:.4g} ± {s:.3g})" for n, m, s in zip(model.bands, stats.mean, stats.std, strict=True)]
    lines = [
        f"{path}: {model.settings.get('network', 'PSPNetClassifier')}",
        f"  network    {model.composition}",
        f"  tile       {model.tile_size} pixels of {model.cell_size[0]:g} {model.units}",
        f"  bands      {', '.join(bands)}, {model.dtype}",
        "  classes    " + ", ".join(f"{info.code} {info.name}" for info in model.legend),
        f"  trained    {len(model.history)} epochs, encoder from {model.settings.get('encoder_weights') or 'scratch'}",
    ]
    if model.metrics.get("miou") is not None:
        lines.append(f"  validation mIoU {model.metrics['miou']:.4f}, accuracy {model.metrics['accuracy']:.4f}")
    return "\n".join(lines)


def describe_scores(scores: Confusion) -> str:
    """Mean and per-class scores as a table."""
    table = scores.per_class().to_string(float_format=lambda value: f"{value:.4f}")
    return f"mIoU {scores.mean_iou():.4f}, accuracy {scores.accuracy():.4f}\n{table}"


def write_scores(scores: Confusion, path: Path, *, overwrite: bool = False) -> None:
    """The scores and the confusion matrix, as JSON."""
    with atomic_output(path, overwrite=overwrite) as partial:
        partial.write_text(json.dumps(scores.to_json(), indent=1), encoding="utf-8")
