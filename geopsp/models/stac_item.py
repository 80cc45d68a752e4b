"""STAC Items of models, with the Machine Learning Model extension (MLM): what a catalogue must know to find them.

Source: STAC 1.1.0, MLM 1.5.2.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from geopsp.core.bands import BandStats, Normalization
from geopsp.core.legend import Legend
from geopsp.core.pixel_size import metres_of
from geopsp.core.pixel_values import PixelValues
from geopsp.core.stac import class_objects, file_fields, item, plain_name, relative_href, time_fields, time_text
from geopsp.models.manifest import HISTORY, MANIFEST, MODEL_ITEM, WEIGHTS
from geopsp.models.training_area import known_area

ARCHITECTURES = {
    "PSPNetClassifier": "PSPNet", "UnetClassifier": "U-Net", "DeepLab": "DeepLab", "FCNClassifier": "FCN",
}  # fmt: skip
"""Names of architectures in the literature, by the names of classifiers."""

SEMVER = re.compile(r"(0|[1-9]\d*)(\.(0|[1-9]\d*)){2}(-[0-9A-Za-z.-]+)?(\+[0-9A-Za-z.-]+)?")
"""The versions that MLM takes. Source: https://semver.org"""

MIN_NAME = 3
"""Characters of a name in MLM."""

RUN_OPTIONS = ("lr", "epochs", "minutes", "precision", "one_cycle", "accumulate", "clip", "ema", "monitor")
"""Options of a training that its Item tells."""

CALIBRATION = ("method", "temperature", "ece_before", "ece_after")
"""What an Item tells of the calibration."""

TASK = "semantic-segmentation"


@dataclass(frozen=True, slots=True)
class NetworkSize:
    """How large a network is."""

    parameters: int

    memory: int
    """Bytes of all tensors."""


def write_model_item(folder: Path, manifest: Mapping[str, Any], size: NetworkSize, *, words: str) -> None:
    """Write the Item of a model into its folder, whose other files are complete.

    Args:
        folder: Its name is the model's.
        manifest: Of the model.
        size: Of its network.
        words: The composition of the network.
    """
    content = model_item(folder, manifest, size, words=words)
    (folder / MODEL_ITEM).write_text(item_text(content), encoding="utf-8")


def item_text(content: Mapping[str, Any]) -> str:
    """Return an Item as the text of its file."""
    return json.dumps(content, indent=1, allow_nan=False)


def model_item(
    folder: Path, manifest: Mapping[str, Any], size: NetworkSize, *, words: str, to_folder: str = ""
) -> dict[str, Any]:
    """Return the Item of a model folder.

    Args:
        folder: With the model's files.
        manifest: Of the model.
        size: Of its network.
        words: The composition of the network.
        to_folder: Address of the folder from where the Item will lie, with a slash; "": there.
    """
    name = model_name(folder.name)
    bands = _named_bands(manifest)
    weights = {
        **_asset(folder / WEIGHTS, to_folder, "Weights of the network", ["mlm:model", "mlm:weights", "data"]),
        "type": "application/octet-stream; application=safetensors; framework=pytorch",
        "mlm:artifact_type": "safetensors.torch.save_file",
        "bands": bands,
    }
    about = {
        **_asset(folder / MANIFEST, to_folder, "Architecture, classes, bands and scores", ["metadata"]),
        "type": "application/json",
    }
    assets = {"weights": weights, "manifest": about}
    if (folder / HISTORY).is_file():
        history = _asset(folder / HISTORY, to_folder, "Losses and scores by epoch", ["metadata"])
        assets["history"] = {**history, "type": "text/csv"}
    version = str(manifest.get("made_with", {}).get("torch", ""))
    properties = {
        **_properties(name, manifest, words),
        **_framework("PyTorch", version),
        "mlm:total_parameters": size.parameters,
        "mlm:memory_size": size.memory,
        "mlm:input": [_image_input(manifest, scaled=True), _mask_input(manifest)],
        "mlm:output": [_output(manifest, "logits", "torch.softmax")],
    }
    return _item(name, manifest, properties, assets)


def onnx_item(
    file: Path, manifest: Mapping[str, Any], *, version: str = "", words: str = "", name: str | None = None
) -> dict[str, Any]:
    """Return the Item of an ONNX file, which takes raw pixels: it lies beside the file.

    Args:
        file: The file.
        manifest: Of the model that it was made of.
        version: Of the onnx package that wrote it.
        words: The composition of the network.
        name: Of the model; None: that of the file.
    """
    name = model_name(name or file.stem)
    model = {
        **_asset(file, "", "The network as ONNX, with normalisation inside", ["mlm:model", "mlm:compiled", "data"]),
        "type": "application/octet-stream; framework=onnx",
        "mlm:artifact_type": "onnx",
        "bands": _named_bands(manifest),
    }
    properties = {
        **_properties(name, manifest, words),
        **_framework("ONNX", version),
        "mlm:input": [_image_input(manifest, scaled=False)],
        "mlm:output": [_output(manifest, "probabilities", "numpy.argmax")],
    }
    return _item(f"{name}-onnx", manifest, properties, {"model": model})


def model_name(text: str) -> str:
    """Return a name as MLM takes it: ASCII, a letter first, a letter or digit last, three characters at least."""
    name = plain_name(text)
    if len(name) < MIN_NAME or not name[0].isalpha():
        name = f"model_{name}".strip("_.-")
    return name


def _item(
    name: str, manifest: Mapping[str, Any], properties: Mapping[str, Any], assets: dict[str, Any]
) -> dict[str, Any]:
    area = known_area(manifest["settings"])
    place = {"geometry": area["geometry"], "bbox": area["bbox"]} if {"geometry", "bbox"} <= set(area) else None
    name = f"{name}-{manifest['weights_sha256'][:8]}"
    return item(name, properties, assets, extensions=("mlm", "file", "classification"), place=place)


def _asset(path: Path, to_folder: str, title: str, roles: list[str]) -> dict[str, Any]:
    href = to_folder + relative_href(path.name).removeprefix("./") if to_folder else relative_href(path.name)
    return {"href": href, "title": title, "roles": roles, **file_fields(path)}


def _framework(name: str, version: str) -> dict[str, str]:
    return {"mlm:framework": name} | ({"mlm:framework_version": version} if SEMVER.fullmatch(version) else {})


def _properties(name: str, manifest: Mapping[str, Any], words: str) -> dict[str, Any]:
    """Return the properties that do not depend on the file in which the network is stored."""
    settings, now = manifest["settings"], datetime.now(UTC)
    area = known_area(settings)
    gsd = area.get("gsd") or _metres(manifest)
    weights, batch = settings.get("encoder_weights"), settings.get("batch_size")
    return {
        **time_fields(area.get("start"), area.get("end"), now),
        "created": time_text(now),
        "title": name,
        **({"description": words} if words else {}),
        **({"gsd": gsd} if gsd else {}),
        "bands": _named_bands(manifest),
        "mlm:name": name,
        "mlm:architecture": ARCHITECTURES.get(str(settings.get("network")), "PSPNet"),
        "mlm:tasks": [TASK],
        "mlm:pretrained": isinstance(weights, str),
        "mlm:pretrained_source": weights if isinstance(weights, str) else None,
        **({"mlm:batch_size_suggestion": batch} if type(batch) is int and batch > 0 else {}),
        "mlm:accelerator": None,
        "mlm:accelerator_constrained": False,
        "mlm:hyperparameters": _hyperparameters(manifest),
    }


def _metres(manifest: Mapping[str, Any]) -> float | None:
    """Return the height of a pixel in metres; of degrees along a meridian; None if the unit is unknown."""
    unit = metres_of(manifest["units"], "EPSG:4326")
    return None if unit is None else float(f"{manifest['cell_size'][1] * unit:.6g}")


def _hyperparameters(manifest: Mapping[str, Any]) -> dict[str, Any]:
    """Return the parts of the network, the losses and the options of the last training."""
    settings = manifest["settings"]
    runs = settings.get("runs")
    last = runs[-1] if isinstance(runs, list) and runs and isinstance(runs[-1], Mapping) else {}
    found = {f"architecture.{name}": value for name, value in manifest["architecture"].items()}
    found |= {f"losses.{name}": value for name, value in manifest["losses"].items()}
    found |= {f"training.{name}": last.get(name) for name in RUN_OPTIONS}
    found |= {"training.epochs_total": len(manifest["history"])}
    calibration = manifest.get("calibration") or {}
    found |= {f"calibration.{name}": calibration.get(name) for name in CALIBRATION}
    found |= {f"training.{name}": settings.get(name) for name in ("seed", "batch_size")}
    return {name: value for name, value in found.items() if _is_plain(value) and value != []}


def _is_plain(value: Any) -> bool:
    """True for texts, finite numbers and lists of them."""
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    return isinstance(value, str | int) or (isinstance(value, float) and abs(value) < float("inf"))


def _named_bands(manifest: Mapping[str, Any]) -> list[dict[str, str]]:
    return [{"name": band} for band in manifest["bands"]]


def _array(shape: list[int], order: list[str]) -> dict[str, Any]:
    return {"shape": shape, "dim_order": order, "data_type": "float32"}


def _image_input(manifest: Mapping[str, Any], *, scaled: bool) -> dict[str, Any]:
    """Return the input of pixels; `scaled` says whether the caller must normalise them."""
    size, bands = manifest["tile_size"], list(manifest["bands"])
    normalization = Normalization.from_stats(BandStats.from_json(manifest["statistics"]))
    scaling = [
        {"type": "z-score", "mean": float(mean), "stddev": float(std)}
        for mean, std in zip(normalization.mean, normalization.std, strict=True)
    ]
    values = PixelValues.from_json(manifest.get("pixel_values"))
    invalid = "0 where invalid, after scaling" if scaled else "0 in every band where invalid"
    return {
        "name": "image",
        "description": f"Pixels, {'as stored' if values.is_default else values}, of {manifest['dtype']}; {invalid}.",
        "bands": bands,
        "input": _array([-1, len(bands), size, size], ["batch", "bands", "height", "width"]),
        "value_scaling": scaling if scaled else None,
        "resize_type": None,
        "pre_processing_function": None,
    }


def _mask_input(manifest: Mapping[str, Any]) -> dict[str, Any]:
    size = manifest["tile_size"]
    return {
        "name": "valid",
        "description": "1 where the pixel is valid, else 0.",
        "bands": [],
        "input": _array([-1, 1, size, size], ["batch", "channel", "height", "width"]),
        "value_scaling": None,
        "resize_type": None,
        "pre_processing_function": None,
    }


def _output(manifest: Mapping[str, Any], name: str, function: str) -> dict[str, Any]:
    legend, size = Legend.from_json(manifest["classes"]), manifest["tile_size"]
    return {
        "name": name,
        "description": "A channel for each class, in the order of the classes; their values are those in maps.",
        "tasks": [TASK],
        "result": _array([-1, len(legend), size, size], ["batch", "class", "height", "width"]),
        "classification:classes": class_objects(legend),
        "post_processing_function": {"format": "python", "expression": function},
    }
