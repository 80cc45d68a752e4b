"""What any path is (a raster, a vector file, images, masks, chips, a model), and the command that takes it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from geopsp.chips.chip_folder import MANIFEST as CHIPS_MANIFEST
from geopsp.chips.chip_set import ChipSet
from geopsp.core.addresses import remote_address, shown
from geopsp.core.escape import printable_lines
from geopsp.core.paths import is_local
from geopsp.core.remote_input import find_folder
from geopsp.core.text import format_count
from geopsp.errors import GeopspError, InputNotFoundError, LabelError, PackageError, RasterError
from geopsp.models.arcgis_package import find_arcgis_package
from geopsp.models.hub_model import hub_name, local_model
from geopsp.models.onnx_file import SUFFIX, is_onnx
from geopsp.raster.open import RASTER_ENDINGS, open_raster
from geopsp.raster.stac import ENDINGS as STAC_ENDINGS
from geopsp.raster.zarr_store import ZARR_ENDING
from geopsp.report.describe_arcgis import describe_arcgis
from geopsp.report.describe_images import describe_images, image_files
from geopsp.report.describe_raster import describe_container, describe_raster
from geopsp.report.describe_vector import describe_vector, vector_files
from geopsp.report.description import ANY_IMAGE, Description, shell_line
from geopsp.report.summary import chip_report, describe_chips, describe_model, model_report
from geopsp.vector.open import LAYER_SEPARATOR, VECTOR_ENDINGS

MODEL_MANIFEST = "model.json"


ARCGIS_FILES = ("esri_model_definition.emd", "map.txt")
"""Files of a folder of chips that ArcGIS exported."""


STAC_HEAD = 2**16
"""Bytes of a STAC file in which it says its version."""


def describe(paths: Sequence[str]) -> Description:
    """Describe what a user names, and the command that takes it; several paths are images.

    Raises:
        InputNotFoundError: if there is no such file or folder.
        RasterError, LabelError: if a file is neither a raster nor a vector file.
        PackageError: if a folder holds nothing that geopsp knows.
    """
    paths = [f"./{path}" if path.startswith("-") else path for path in paths]  # as commands take it
    if len(paths) > 1:
        return describe_images(paths, shell_line("geopsp", "chips", *paths))
    (path,) = paths
    file = Path(path.partition(LAYER_SEPARATOR)[0])
    if not is_local(path) or LAYER_SEPARATOR in path:
        folder = _copied_folder(path)
        return _describe_file(path) if folder is None else _describe_folder(folder)
    if not os.path.exists(file):  # noqa: PTH110 (False for a name that is too long)
        if any(sign in path for sign in "*?["):
            return describe_images(paths, shell_line("geopsp", "chips", path))
        raise InputNotFoundError(f"No such file or folder: {path}. Check the path.")
    if _is_stac(file):
        return describe_images(paths, shell_line("geopsp", "chips", path))
    if not file.is_dir() or file.suffix.lower() in {".gdb", ".zarr"}:
        return _describe_file(path)
    return _describe_folder(file)


def _copied_folder(path: str) -> Path | None:
    """Return the local copy of a folder of chips or a model in an object store; None for all else."""
    ending = Path(path).suffix.lower()
    if remote_address(path) is None or ending.startswith((*VECTOR_ENDINGS, *RASTER_ENDINGS, SUFFIX, ZARR_ENDING)):
        return None
    return find_folder(path, holding=(CHIPS_MANIFEST, MODEL_MANIFEST, *ARCGIS_FILES))


def _is_stac(file: Path) -> bool:
    """Return True for a STAC Item or ItemCollection, which is GeoJSON too."""
    if file.suffix.lower() not in STAC_ENDINGS or not file.is_file():
        return False
    with file.open("rb") as content:
        return b'"stac_version"' in content.read(STAC_HEAD)


def _describe_file(path: str) -> Description:
    """Describe a model on the Hub, a package of ArcGIS, an ONNX model, a vector file or a raster.

    Of the last two the likelier one is tried first.
    """
    if hub_name(path) is not None:
        return _describe_model(local_model(path), path)
    if package := find_arcgis_package(path):
        return describe_arcgis(package)
    if is_onnx(path):
        return _describe_model(local_model(path), path)
    kinds = [_describe_raster_file, describe_vector]
    if Path(path.partition(LAYER_SEPARATOR)[0]).suffix.lower() in VECTOR_ENDINGS:
        kinds.reverse()
    errors: list[GeopspError] = []
    for describe_kind in kinds:
        try:
            return describe_kind(path)
        except (RasterError, LabelError) as error:
            errors.append(error)
    raise type(errors[0])(f"{path} is neither a raster nor a vector file that can be read. {errors[0]}") from errors[0]


def _describe_raster_file(path: str) -> Description:
    with open_raster(path) as dataset:
        is_container = not dataset.count and dataset.subdatasets
    return describe_container(path) if is_container else describe_raster(path)


def _describe_model(path: Path, name: str = "") -> Description:
    """Describe a model; `name` is what the user calls it, if that is not its path."""
    command = shell_line("geopsp", "predict", name or shown(path), ANY_IMAGE, "--out", "map.tif")
    return Description("model", describe_model(path), model_report(path), command)


def _describe_folder(folder: Path) -> Description:
    if (folder / CHIPS_MANIFEST).exists() or any((folder / name).exists() for name in ARCGIS_FILES):
        chips = ChipSet.open(folder)
        command = shell_line("geopsp", "train", shown(folder), "--out", "model")
        return Description("chips", describe_chips(chips), chip_report(chips), command)
    if (folder / MODEL_MANIFEST).exists():
        return _describe_model(folder)
    if package := find_arcgis_package(folder):
        return describe_arcgis(package)
    if image_files(folder) or any(image_files(each) for each in folder.iterdir() if each.is_dir()):
        return describe_images([str(folder)], shell_line("geopsp", "chips", folder))
    if found := vector_files(folder):
        lines = [f"{folder}: {format_count(len(found), 'vector file')}", *(f"  {file.name}" for file in found)]
        content = {"path": str(folder), "files": [str(file) for file in found]}
        return Description("vectors", printable_lines(lines), content, shell_line("geopsp", "info", found[0]))
    raise PackageError(
        f"{folder} is neither a chip folder ({CHIPS_MANIFEST}) nor a model ({MODEL_MANIFEST}), and holds no images or "
        "vector files. Check the path."
    )
