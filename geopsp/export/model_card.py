"""The model card of a model: the README that the Hugging Face Hub shows, made of what the model knows of itself."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCardData

from geopsp.core.escape import markdown_text as md
from geopsp.core.stac import plain_name
from geopsp.core.text import format_count, format_pixel_size
from geopsp.models.model_info import ModelInfo
from geopsp.models.saved_model import TrainedModel
from geopsp.models.stac_item import ARCHITECTURES
from geopsp.models.training_area import known_area

UNKNOWN = "unknown"
"""The Hub's word for a licence that nobody stated."""

TASK = "image-segmentation"

SCORES = {"miou": ("mean_iou", "Mean IoU"), "accuracy": ("accuracy", "Accuracy"), "dice": ("f1", "Mean F1")}
"""The Hub's metrics and their words, by the names of scores."""

CLASS_SCORES = ("iou", "f1", "precision", "recall")


def model_card(model: TrainedModel, repository: str, *, license_id: str | None, onnx: bool) -> str:
    """Return the card: a header in YAML, and a page in Markdown in which names of others are escaped.

    Args:
        model: The model.
        repository: OWNER/NAME on the Hub.
        license_id: The Hub's word for its licence; None: nobody stated it.
        onnx: True if there is an ONNX file.
    """
    name = repository.rpartition("/")[2]
    sections = [
        f"# {md(name)}",
        _summary(model),
        f"## Classes\n\n{_classes(model)}",
        f"## Input\n\n{_input(model)}",
        f"## Training\n\n{_training(model)}",
        f"## Limits\n\n{_limits(model)}",
        f"## Use\n\n{_use(repository, onnx=onnx)}",
        f"## Licence\n\n{_licence(license_id)}",
    ]
    header = _header(model, name, license_id or UNKNOWN)
    return f"---\n{header.to_yaml()}\n---\n\n" + "\n\n".join(sections) + "\n"


def _header(model: TrainedModel, name: str, license_id: str) -> ModelCardData:
    results = [
        EvalResult(
            task_type=TASK,
            dataset_type="geopsp-chips",
            dataset_name="Validation chips of the training",
            metric_type=metric,
            metric_name=words,
            metric_value=value,
        )
        for score, (metric, words) in SCORES.items()
        if (value := _number(model.metrics.get(score))) is not None
    ]
    tags = ["geopsp", "remote-sensing", "semantic-segmentation", "land-cover", "earth-observation"]
    return ModelCardData(
        library_name="geopsp",
        pipeline_tag=TASK,
        license=license_id,
        tags=[*tags, plain_name(_architecture(model)).lower()],
        metrics=[result.metric_type for result in results] or None,
        model_name=name if results else None,
        eval_results=results or None,
    )


def _architecture(model: TrainedModel | ModelInfo) -> str:
    return ARCHITECTURES.get(str(model.settings.get("network")), "PSPNet")


def _summary(model: TrainedModel) -> str:
    names = ", ".join(md(info.name) for info in model.legend)
    size = format_pixel_size(*model.cell_size, model.units)
    return (
        f"{_architecture(model)} that maps {names} in images of {len(model.bands)} bands with pixels of {md(size)}. "
        f"Made with geopsp. Network: {md(model.composition)}; {model.size.parameters / 1e6:.1f} M parameters."
    )


def _classes(model: TrainedModel) -> str:
    """Return a table of the classes with their scores on the validation chips, where the model knows them."""
    per_class = model.metrics.get("per_class")
    scores: Mapping[str, Any] = per_class if isinstance(per_class, Mapping) else {}
    rows = []
    for info in model.legend:
        found = scores.get(info.name)
        found = found if isinstance(found, Mapping) else {}
        values = [_score(found.get(score)) for score in CLASS_SCORES]
        rows.append([str(info.code), md(info.name), f"`{info.color}`", *values])
    table = _table(("value", "class", "colour", "IoU", "F1", "precision", "recall"), rows)
    overall = [
        f"{words} {value:.4f}" for score, (_, words) in SCORES.items()
        if (value := _number(model.metrics.get(score))) is not None
    ]  # fmt: skip
    told = f"{', '.join(overall)}, on the validation chips." if overall else "The model was not scored."
    calibrated = "" if model.calibration is None else f" Probabilities are calibrated: {md(model.calibration.summary)}."
    return f"{table}\n\n{told}{calibrated}"


def _input(model: TrainedModel) -> str:
    rows = [
        [str(number), md(band), f"{mean:.4g}", f"{std:.4g}"]
        for number, (band, mean, std) in enumerate(
            zip(model.bands, model.statistics.mean, model.statistics.std, strict=True), start=1
        )
    ]
    size = md(format_pixel_size(*model.cell_size, model.units))
    values = "" if model.pixel_values.is_default else f" Values are {md(str(model.pixel_values))}."
    return (
        f"{_table(('band', 'name', 'mean', 'standard deviation'), rows)}\n\nPixels of {size}, {model.dtype}, in tiles "
        f"of {model.tile_size} x {model.tile_size}.{values} geopsp normalises them by these statistics of the training."
    )


def _training(model: TrainedModel) -> str:
    area, weights = known_area(model.settings), model.settings.get("encoder_weights")
    lines = [f"{format_count(len(model.history), 'epoch')}"]
    lines.append(f"encoder weights: {md(Path(weights).name) if isinstance(weights, str) else 'none, from scratch'}")
    if "chips" in area:
        lines.append(f"{format_count(area['chips'], 'training chip')}")
    if "bbox" in area:
        west, south, east, north = area["bbox"]
        lines.append(f"ground: {west:.4f} to {east:.4f} degrees of longitude, {south:.4f} to {north:.4f} of latitude")
    if "start" in area:
        lines.append(f"images of {area['start'][:10]} to {area['end'][:10]}")
    if "gsd" in area:
        lines.append(f"pixels of {area['gsd']:g} m on the ground")
    return "\n".join(f"- {line}" for line in lines)


def _limits(model: TrainedModel) -> str:
    lines = [
        "Images of other sensors, seasons, regions or pixel sizes give worse maps than the scores say.",
        "Score the model on labels of your own before you trust its maps: `geopsp evaluate`.",
        "geopsp refuses pixels that are more than 4 times larger or smaller.",
        "Every pixel gets one of the classes above, whatever it shows.",
    ]
    warnings = model.settings.get("warnings")
    texts = warnings if isinstance(warnings, Sequence) and not isinstance(warnings, str) else []
    lines += [f"Warned of in the training: {md(text)}" for text in texts if isinstance(text, str)]
    return "\n".join(f"- {line}" for line in lines)


def _use(repository: str, *, onnx: bool) -> str:
    kind = "PixelClassifier"
    text = (
        f"```sh\npip install geopsp\ngeopsp predict hf://{repository} IMAGE.tif --out map.tif\n```\n\n"
        f"```python\nfrom geopsp import {kind}, classify_pixels\n\n"
        f'model = {kind}.from_model("hf://{repository}")\nclassify_pixels("IMAGE.tif", model, "map.tif")\n```\n\n'
        "The files are data: safe tensors and JSON; nothing of them is executed. `model.stac.json` describes the model "
        "for catalogues (STAC, MLM extension)."
    )
    if onnx:
        text += (
            " `model.onnx` takes raw pixels and gives probabilities, for ONNX Runtime and QGIS Deepness, and for "
            "`geopsp predict model.onnx`, which needs no PyTorch."
        )
    return text


def _licence(license_id: str | None) -> str:
    if license_id is None:
        return "Unknown: whoever published the model did not state a licence. Ask before you use it."
    return f"{md(license_id)}."


def _number(value: Any) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    return round(float(value), 4) if is_number and math.isfinite(value) else None


def _score(value: Any) -> str:
    found = _number(value)
    return "" if found is None else f"{found:.4f}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
