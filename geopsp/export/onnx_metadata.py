"""Metadata of an exported ONNX file: what QGIS Deepness reads of it, and what geopsp needs to use it as a model."""

from __future__ import annotations

import json
import math
from typing import Any

import geopsp
from geopsp.core.pixel_size import metres_of
from geopsp.export.export_job import ExportJob
from geopsp.models.saved_model import TrainedModel, model_manifest

FORMAT_VERSION = "1"
"""Of the keys that begin with geopsp_."""

OVERLAP = 25
"""Overlap of tiles in Deepness, in percent of a tile, as in our own maps: a quarter."""

METRES_PER_DEGREE = 111_319.49079327358
"""What QGIS takes for a degree, at the equator: Deepness turns our resolution back into degrees with it."""


def onnx_metadata(job: ExportJob, opset: int) -> dict[str, str]:
    """Return all entries of the file's metadata, as texts.

    `geopsp_manifest` is the `model.json` of the model; `geopsp_export` tells how it was exported.
    """
    model, options = job.model, job.options
    export = {
        "tile_size": job.tile_size,
        "precision": options.precision,
        "pointrend": options.pointrend and model.spec.pointrend,
        "opset": opset,
        "zero_is_nodata": True,
        **({} if job.calibration is None else {"calibrated": job.calibration.words}),
        "weights_fingerprint": model.fingerprint(),
        "geopsp": geopsp.__version__,
    }
    own = {"geopsp_version": FORMAT_VERSION, "geopsp_manifest": json.dumps(model_manifest(model))}
    return deepness_metadata(model, job.tile_size) | own | {"geopsp_export": json.dumps(export)}


def deepness_metadata(model: TrainedModel, tile_size: int) -> dict[str, str]:
    """Return what QGIS Deepness reads, each value as JSON.

    Deepness divides pixels of any type by 255. Its standardisation is set such that it undoes this. Thresholds are 0,
    so that the likeliest class is shown.
    """
    bands = len(model.bands)
    entries: dict[str, Any] = {
        "model_type": "Segmentor",
        "class_names": {str(channel): info.name for channel, info in enumerate(model.legend)},
        "tile_size": tile_size,
        "tiles_size": tile_size,  # as its documentation calls it
        "tiles_overlap": OVERLAP,
        "standardization_mean": [0.0] * bands,
        "standardization_std": [1 / 255] * bands,
        "seg_thresh": 0.0,
        "seg_small_segment": 0,
    }
    resolution = centimetres_per_pixel(model)
    entries |= {} if resolution is None else {"resolution": resolution}
    return {name: json.dumps(value) for name, value in entries.items()}


def centimetres_per_pixel(model: TrainedModel) -> float | None:
    """Return the pixel size of the training in centimetres; None if its unit is unknown.

    Pixels that are not square have one of the same area. Degrees count as at the equator, as QGIS counts them.
    """
    metres = METRES_PER_DEGREE if model.units == "degree" else metres_of(model.units, None)
    return None if metres is None else 100 * metres * math.sqrt(abs(model.cell_size[0] * model.cell_size[1]))
