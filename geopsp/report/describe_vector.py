"""Description of a vector file: its layers, fields and values, and what is no use as labels."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from geopsp.core.escape import printable_lines
from geopsp.core.text import format_count
from geopsp.errors import GeopspError, LabelError
from geopsp.labels.class_field_hint import likely_class_field
from geopsp.raster.open import RASTER_ENDINGS
from geopsp.report.description import ANY_IMAGE, ANY_LABELS, Description, place, place_line, shell_line
from geopsp.vector.open import LAYER_SEPARATOR, VECTOR_ENDINGS
from geopsp.vector.summary import FieldSummary, LayerSummary, summarize_layers

FATES = {
    "without geometry": "left out",
    "empty": "left out",
    "not finite": "left out",
    "invalid": "repaired",
    "points or lines": "left out without --buffer",
}
"""What becomes of such features as labels."""


def describe_vector(path: str | Path) -> Description:
    """Describe the layers of a vector file.

    Raises:
        InputNotFoundError: if there is no such file or layer.
        LabelError: if it is no vector file, or has no layer with geometries.
    """
    layers = summarize_layers(path)
    if not layers:
        raise LabelError(f"{path} has no layer with geometries. Use a file with polygons.")
    lines = [f"{path}: vector file with {format_count(len(layers), 'layer')}"]
    for layer in layers:
        lines += _layer_lines(layer)
    content = {"path": str(path), "layers": [_layer_content(layer) for layer in layers]}
    best = max(layers, key=lambda layer: sum(n for kind, n in layer.geometries.items() if "Polygon" in kind))
    command = shell_line("geopsp", "chips", _image_beside(path)) + f" {_label_options(str(path), best, layers)}"
    return Description("vector", printable_lines(lines), content, f"{command} --out chips")


def labels_beside(path: str | Path) -> str:
    """Return the options of `geopsp chips` for the labels of an image or a folder: a vector file beside it or in it."""
    place = Path(path)
    folders = [place, place.parent] if place.is_dir() else [place.parent]
    for file in [file for folder in folders if folder.is_dir() for file in vector_files(folder)]:
        try:
            layers = summarize_layers(file)
        except GeopspError:
            continue
        if layers:
            return _label_options(str(file), layers[0], layers)
    return f"--labels {ANY_LABELS}"


def vector_files(folder: Path) -> list[Path]:
    """Return the files of a folder that are likely to be vectors."""
    endings = VECTOR_ENDINGS - {".json", ".csv"}
    return sorted(file for file in folder.iterdir() if file.suffix.lower() in endings)


def _label_options(path: str, layer: LayerSummary, layers: list[LayerSummary]) -> str:
    name = path if len(layers) == 1 or LAYER_SEPARATOR in path else f"{path}{LAYER_SEPARATOR}{layer.name}"
    field = likely_class_field([field.name for field in layer.fields], layer.frame)
    return shell_line("--labels", name, *(["--class-field", field] if field else []))


def _image_beside(path: str | Path) -> str:
    folder = Path(str(path).partition(LAYER_SEPARATOR)[0]).parent
    files = sorted(folder.iterdir()) if folder.is_dir() else []
    return next((str(file) for file in files if file.suffix.lower() in RASTER_ENDINGS), ANY_IMAGE)


def _problems(layer: LayerSummary) -> dict[str, int]:
    """Return the numbers of features that are no use as they are."""
    thin = sum(count for kind, count in layer.geometries.items() if "Point" in kind or "Line" in kind)
    return layer.problems | ({"points or lines": thin} if thin else {})


def _layer_lines(layer: LayerSummary) -> list[str]:
    name = f"layer {layer.name}: " if layer.name else ""
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in layer.geometries.items()) or "none"
    lines = [
        f"  {name}{format_count(layer.num_features, 'feature')}"
        + (f" (the first {len(layer.frame):,} were looked at)" if layer.is_sample else ""),
        f"  geometry   {kinds}",
        f"  CRS        {layer.crs or 'none (assign one before use)'}",
    ]
    if layer.bounds:
        left, bottom, right, top = layer.bounds
        lines.append(f"  extent     x {left:.10g} to {right:.10g}, y {bottom:.10g} to {top:.10g}")
    lines += place_line(_degrees(layer))
    lines += [f"  problem    {count:,} {word}: {FATES[word]}" for word, count in _problems(layer).items()]
    return [*lines, *(_field_line(field) for field in layer.fields)]


def _degrees(layer: LayerSummary) -> list[float] | None:
    return place(layer.bounds, layer.frame.crs.to_wkt() if layer.frame.crs else None)


def _field_line(field: FieldSummary) -> str:
    shown = ", ".join(f"{value or '(missing)'} ({count:,})" for value, count in field.frequent.items())
    more = ", ..." if field.num_values > len(field.frequent) else ""
    return f"  field      {field.name} ({field.kind}, {format_count(field.num_values, 'value')}): {shown}{more}"


def _layer_content(layer: LayerSummary) -> dict[str, Any]:
    return {
        "name": layer.name,
        "features": layer.num_features,
        "looked_at": len(layer.frame),
        "geometries": layer.geometries,
        "crs": layer.crs,
        "bounds": layer.bounds and list(layer.bounds),
        "degrees": _degrees(layer),
        "problems": _problems(layer),
        "fields": [
            {"name": field.name, "type": field.kind, "values": field.num_values, "frequent": field.frequent}
            for field in layer.fields
        ],
    }
