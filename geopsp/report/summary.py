"""Descriptions of rasters, chips, models and scores, as text and JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from geopsp.chips.chip_set import MANIFEST as CHIPS_MANIFEST
from geopsp.chips.chip_set import ChipSet, class_pixels
from geopsp.chips.class_balance import class_warnings, is_imbalance, warning_text
from geopsp.core.bands import has_band_names
from geopsp.core.legend import BACKGROUND
from geopsp.core.output import atomic_output
from geopsp.core.text import format_count, format_pixel_size
from geopsp.errors import InputNotFoundError, PackageError, RasterError
from geopsp.raster.info import read_info
from geopsp.raster.legend_io import read_legend
from geopsp.training.metrics import Confusion

LABEL_COUNTS = {
    "repaired": "repaired", "null": "without geometry", "empty": "empty", "not_polygons": "not polygons",
    "without_class": "without a class", "dropped": "dropped", "not_finite": "with infinite or NaN coordinates",
}  # fmt: skip
"""Words for the counts of labels in a report."""


SKIP_REASONS = {
    "invalid": "with too few valid pixels", "unlabelled": "with too few labelled pixels",
    "empty": "without any class", "outside": "not completely inside the area of interest",
}  # fmt: skip
"""Words for the reasons to skip a chip."""


def describe_path(path: Path) -> str:
    """Describe a raster, a chip folder or a model.

    Raises:
        InputNotFoundError: if there is no such file or folder.
        RasterError: if it is a file, but no raster.
        PackageError: if it is a folder, but has neither chips nor a model.
    """
    if not path.exists():
        raise InputNotFoundError(f"No such file or folder: {path}. Check the path.")
    if not path.is_dir():
        try:
            return describe_raster(path)
        except RasterError as error:
            raise RasterError(
                f"{error} geopsp info describes rasters, chip folders and models; for a vector file use ogrinfo."
            ) from error
    if (path / CHIPS_MANIFEST).exists() or (path / "images").is_dir():
        return describe_chips(ChipSet.open(path))
    return describe_model(path)


def describe_raster(path: Path) -> str:
    """Describe size, bands, CRS, extent and classes of a raster."""
    info, legend = read_info(path, needs_crs=False), read_legend(path)
    grid = info.grid
    left, bottom, right, top = grid.bounds()
    size, bands = format_pixel_size(*grid.cell_size, grid.unit), format_count(len(info.indexes), "band")
    lines = [
        f"{path}: raster of {grid.width:,} x {grid.height:,} pixels, {bands} of {info.dtype}",
        f"  bands      {', '.join(info.bands)}" + ("" if has_band_names(info.bands) else " (unnamed)"),
        f"  CRS        {grid.crs.to_string() if grid.crs else 'none (assign one before use)'}",
        f"  pixel      {size}" + (", rotated" if grid.transform.b or grid.transform.d else ""),
        f"  extent     x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}",
        f"  nodata     {'none declared' if info.nodata is None else f'{info.nodata:g}'}",
    ]
    if legend:
        lines.append("  classes    " + ", ".join(f"{info.code} {info.name}" for info in legend))
    return "\n".join(lines)


def describe_chips(chips: ChipSet) -> str:
    """Describe number, size, bands and classes of chips, with the notes and warnings of their export."""
    where = ", ".join(map(str, chips.folders)) or "Read from images, not exported"
    rows = _class_rows(chips)
    has_polygons = any(row["polygons"] for row in rows)
    header = "  classes    code  name             pixels   share   chips" + ("   polygons" if has_polygons else "")
    lines = [
        f"{where}: {format_count(len(chips), 'chip')} of {chips.tile_size} x {chips.tile_size} pixels",
        f"  bands      {', '.join(chips.bands)} ({chips.dtype})",
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
    return "\n".join([*lines, *(f"  warning    {text}" for text in _warnings(chips))])


def write_chip_report(chips: ChipSet, path: str | Path, *, overwrite: bool = False) -> Path:
    """Write the content of `describe_chips` as JSON."""
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
        "exports": [{**report, "warnings": _lasting_warnings(report)} for report in chips.reports],
        "warnings": _warnings(chips),
    }
    with atomic_output(path, overwrite=overwrite) as partial:
        partial.write_text(json.dumps(content, indent=1), encoding="utf-8")
    return Path(path)


def _class_rows(chips: ChipSet) -> list[dict[str, Any]]:
    """Return the number of pixels, their fraction, the chips and the polygons of each class."""
    counts = class_pixels(chips.index, chips.legend)
    total = max(int(counts.sum()), 1)
    return [
        {
            "code": info.code,
            "name": info.name,
            "pixels": int(pixels.sum()),
            "share": int(pixels.sum()) / total,
            "chips": int((pixels > 0).sum()),
            "polygons": sum(report.get("polygons", {}).get(info.name, 0) for report in chips.reports),
        }
        for info, pixels in zip(chips.legend, counts.T, strict=True)
    ]


def _warnings(chips: ChipSet) -> list[str]:
    """Return the warnings of the exports, and those on class balance for all chips together."""
    counts = class_pixels(chips.index, chips.legend)
    texts = [text for report in chips.reports for text in _lasting_warnings(report)]
    balance = class_warnings(chips.legend, counts.sum(axis=0), (counts > 0).sum(axis=0))
    return list(dict.fromkeys([*texts, *map(warning_text, balance)]))


def _lasting_warnings(report: Mapping[str, Any]) -> list[str]:
    """Return the texts of the warnings of an export but those on class balance, which other chips may change."""
    return [warning_text(warning) for warning in report.get("warnings", []) if not is_imbalance(warning)]


def _report_lines(report: Mapping[str, Any], *, has_background: bool) -> list[str]:
    """Describe the labels of an export, overlaps, chips left out, and notes."""
    labels = report["labels"]
    polygons = labels.get("polygons") or sum(report.get("polygons", {}).values())
    counts = [format_count(polygons, "polygon")] if polygons else []
    counts += [f"{labels[key]:,} {words}" for key, words in LABEL_COUNTS.items() if labels.get(key)]
    lines = [f"labels     {labels['source']}" + (f": {', '.join(counts)}" if counts else "")]
    if report["conflict_pixels"]:
        rule = f"; {labels['priority']}" if labels.get("priority") else ""
        count = report["conflict_pixels"]
        lines.append(
            f"overlaps   {format_count(count, 'pixel lies', 'pixels lie')} in polygons of several classes{rule}"
        )
    left_out = [
        f"{format_count(count, 'chip')} {SKIP_REASONS.get(reason, reason)}"
        for reason, count in report["skipped"].items()
        if count
    ]
    lines += [f"left out   {', '.join(left_out)}"] if left_out else []
    if report["empty"]:
        content = "only background" if has_background else "no labels"
        lines.append(f"empty      {format_count(report['empty'], 'chip contains', 'chips contain')} {content}")
    return [*lines, *(f"note       {note}" for note in report.get("notes", []))]


def describe_model(path: Path) -> str:
    """Describe architecture, bands, classes and scores of a saved model.

    Raises:
        PackageError: if the folder holds no model.
    """
    from geopsp.models.saved_model import MANIFEST, load_model

    if not (path / MANIFEST).exists():
        images = sum(file.suffix.lower() in {".tif", ".tiff"} for file in path.iterdir())
        found = f" It contains {format_count(images, 'GeoTIFF')}: train on the folder with `labels`." if images else ""
        raise PackageError(f"{path} is neither a chip folder ({CHIPS_MANIFEST}) nor a model ({MANIFEST}).{found}")
    model = load_model(path)
    stats = model.statistics
    bands = [f"{n} ({m:.4g} ± {s:.3g})" for n, m, s in zip(model.bands, stats.mean, stats.std, strict=True)]
    size = format_pixel_size(*model.cell_size, model.units)
    weights = model.settings.get("encoder_weights") or "none (from scratch)"
    lines = [
        f"{path}: {model.settings.get('network', 'PSPNetClassifier')}",
        f"  network    {model.composition}",
        f"  tile       {model.tile_size} x {model.tile_size} pixels of {size}",
        f"  bands      {', '.join(bands)}, {model.dtype}",
        "  classes    " + ", ".join(f"{info.code} {info.name}" for info in model.legend),
        f"  trained    {format_count(len(model.history), 'epoch')}, encoder weights: {weights}",
    ]
    if model.metrics.get("miou") is not None:
        lines.append(f"  validation mIoU {model.metrics['miou']:.4f}, accuracy {model.metrics['accuracy']:.4f}")
    return "\n".join(lines)


def describe_scores(scores: Confusion) -> str:
    """Return mean and per-class scores as a table."""
    table = scores.per_class().to_string(float_format=lambda value: f"{value:.4f}")
    return f"mIoU {scores.mean_iou():.4f}, accuracy {scores.accuracy():.4f}\n{table}"


def write_scores(scores: Confusion, path: Path, *, overwrite: bool = False) -> None:
    """Write scores and confusion matrix as JSON."""
    with atomic_output(path, overwrite=overwrite) as partial:
        partial.write_text(json.dumps(scores.to_json(), indent=1), encoding="utf-8")
