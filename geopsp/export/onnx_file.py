"""Write a model as one ONNX file, checked beside the network before it appears."""

from __future__ import annotations

import logging
from pathlib import Path

from geopsp.core.extras import require_packages
from geopsp.core.text import format_error
from geopsp.errors import ExportError
from geopsp.export.check_tiles import RawTiles, drawn_tiles, folder_tiles, image_tiles
from geopsp.export.export_job import ExportJob
from geopsp.export.onnx_graph import MAX_BYTES, OPSET, onnx_model
from geopsp.export.onnx_metadata import onnx_metadata
from geopsp.export.onnx_parity import Parity, compare_with_network, require_parity

logger = logging.getLogger(__name__)

PACKAGES = ("onnx", "onnxscript", "onnxruntime")


def write(job: ExportJob, path: Path) -> None:
    """Write the file.

    Raises:
        OptionError: if a package is missing.
        ModelError: if the network cannot take such tiles.
        ExportError: if the network cannot be exported, or the file gives other results.
    """
    require_packages("Exporting to ONNX", PACKAGES, "onnx")
    import onnx

    tiles = _check_tiles(job)
    shown = tiles.take(job.tile_size)
    proto = onnx_model(job)
    onnx.helper.set_model_props(proto, onnx_metadata(job, OPSET))
    if proto.ByteSize() >= MAX_BYTES:
        raise ExportError(f"The file would have {proto.ByteSize() / 1e9:.1f} GB, but ONNX files hold less than 2 GB.")
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ExportError(f"The exporter wrote a file that is not valid ONNX: {format_error(error)}.") from error
    path.write_bytes(proto.SerializeToString())
    precision, pointrend = job.options.precision, job.options.pointrend
    parity = compare_with_network(
        path, job.model, shown, precision=precision, pointrend=pointrend, calibration=job.calibration
    )
    require_parity(parity, precision)
    _report(path, tiles, parity)


def _check_tiles(job: ExportJob) -> RawTiles:
    if job.options.chips is not None:
        return folder_tiles(job.model, job.options.chips)
    if job.options.images is not None:
        return image_tiles(job.model, job.options.images)
    return job.validation or drawn_tiles(job.model)


def _report(path: Path, tiles: RawTiles, parity: Parity) -> None:
    size = path.stat().st_size / 1e6
    logger.info(f"{path.name}, {size:.1f} MB, checked in ONNX Runtime on {tiles.source}: {parity}.")
    if parity.dark:
        share = 100 * parity.dark / (parity.pixels + parity.dark)
        logger.warning(
            f"{share:.2g} % of the valid pixels of the {tiles.source} are 0 in all bands. An exported file takes such "
            "pixels for nodata, and maps of it can differ there."
        )
