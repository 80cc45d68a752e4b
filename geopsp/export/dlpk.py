"""Write a deep learning package (.dlpk) for ArcGIS Pro.

A package is a ZIP file; all of its files lie at its top:

GeopspClassifier.emd   the model definition, JSON: what ArcGIS reads
GeopspClassifier.py    the Python raster function, as `arcgis_function.py` holds it
model.onnx             the network, as `onnx_file` exports it
README.txt             how to use the package
"""

from __future__ import annotations

import json
import zipfile
from dataclasses import replace
from pathlib import Path
from typing import Any

import geopsp
from geopsp.core.pixel_size import format_size
from geopsp.export import arcgis_function, onnx_file
from geopsp.export.export_job import ExportJob
from geopsp.models.arcgis_package import DEFINITION, OWN_MODEL, OWN_NAME
from geopsp.models.saved_model import TrainedModel

BATCH_SIZE = 4
"""Tiles that the network takes at once, unless the user of the package asks for more."""

DATE = (1980, 1, 1, 0, 0, 0)
"""Of all files in a package: the same model gives the same bytes."""


def write(job: ExportJob, path: Path) -> None:
    """Write the package.

    Raises:
        OptionError, ModelError, ExportError: as `onnx_file.write`.
    """
    network = path.with_name(OWN_MODEL)
    onnx_file.write(replace(job, options=replace(job.options, calibrated=False)), network)  # it gives classes only
    definition = json.dumps(model_definition(job), indent=1, ensure_ascii=False)
    texts = {
        f"{OWN_NAME}{DEFINITION}": definition,
        f"{OWN_NAME}.py": Path(arcgis_function.__file__).read_text(encoding="utf-8"),
        "README.txt": readme(job).replace("\n", "\r\n"),
    }
    with zipfile.ZipFile(path, "w") as archive:
        for name, text in texts.items():
            archive.writestr(_entry(name), text)
        with network.open("rb") as source, archive.open(_entry(OWN_MODEL, network.stat().st_size), "w") as target:
            while block := source.read(2**20):
                target.write(block)
    network.unlink()


def _entry(name: str, size: int = 0) -> zipfile.ZipInfo:
    info = zipfile.ZipInfo(name, DATE)
    info.create_system, info.external_attr, info.file_size = 3, 0o644 << 16, size  # as written by any system
    return info


def model_definition(job: ExportJob) -> dict[str, Any]:
    """Return what the .emd holds: keys that ArcGIS Pro reads, those of the raster function, and where it comes from.

    It has no DataRange, by which Pro would rescale the raster.
    """
    model, size = job.model, job.tile_size
    return {
        "ModelType": "ImageClassification",  # of pixels
        "ModelName": OWN_NAME,
        "InferenceFunction": f"{OWN_NAME}.py",
        "ModelFile": OWN_MODEL,
        "ImageHeight": size,
        "ImageWidth": size,
        "ImageSpaceUsed": "MAP_SPACE",
        "SupportsVariableTileSize": False,
        "Padding": size // 4,
        "BatchSize": BATCH_SIZE,
        "ExtractBands": list(range(len(model.bands))),
        "Bands": list(model.bands),
        "Classes": [{"Value": info.code, "Name": info.name, "Color": list(info.rgb)} for info in model.legend],
        **_cell_sizes(model),
        "Description": _summary(model),
        "Geopsp": {
            "version": geopsp.__version__,
            "fingerprint": model.fingerprint(),
            "cell_size": list(model.cell_size),
            "units": model.units,
            "dtype": model.dtype,
        },
    }


def _cell_sizes(model: TrainedModel) -> dict[str, Any]:
    """Return the cell sizes that ArcGIS compares the raster's with.

    A saved model knows the unit of its pixels, but not their CRS; only degrees say enough, and others are left out.
    """
    if model.units != "degree":
        return {}
    width, height = model.cell_size
    size = {"x": width, "y": height, "spatialReference": {"wkid": 4326, "latestWkid": 4326}}
    return {"MinCellSize": size, "MaxCellSize": size}


def _summary(model: TrainedModel) -> str:
    classes, bands = ", ".join(model.legend.names), ", ".join(model.bands)
    pixels = f"{model.dtype} pixels of {format_size(model.cell_size[1], model.units)}"
    pixels += "" if model.pixel_values.is_default else f", {model.pixel_values}"
    return f"Classifies each pixel as {classes}. Bands, in this order: {bands}. Trained on {pixels}."


def readme(job: ExportJob) -> str:
    """Return the text for whoever finds the package."""
    return f"""{_summary(job.model)}

Network: {job.model.composition}; tiles of {job.tile_size} x {job.tile_size} pixels.
Exported by geopsp {geopsp.__version__}.

In ArcGIS Pro 3.3 or later, with the deep learning libraries installed, run "Classify Pixels Using Deep Learning"
(Image Analyst) with this package as the model definition. The raster needs the bands above as its first ones, in this
order, in the units of the training; if not, use the raster function "Extract Bands" before. Arguments:

  padding                  pixels by which tiles overlap, up to half a tile; more gives smoother borders
  batch_size               tiles that the network takes at once; more is faster on a GPU
  predict_background       False: the likeliest class but the background (if there is one)
  test_time_augmentation   True: the average over eight symmetries of each tile; 8 times slower

Without ArcGIS: unpack this file (it is a ZIP file) and run: geopsp predict {OWN_MODEL} IMAGE --out map.tif
"""
