"""The formats that a model can be exported to. Nothing heavy is imported before one is written.

A new format is an entry in `FORMATS` and a module of this folder with a function `write(job, path)`, which takes an
`ExportJob` and writes a temporary file or folder; its options are fields of `ExportOptions`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING

from geopsp.core.owned_files import FolderKind

if TYPE_CHECKING:
    from geopsp.export.export_job import ExportJob


@dataclass(frozen=True, slots=True)
class ExportFormat:
    """A format of exported models."""

    words: str
    """What it is and who reads it, for the help of the shell."""

    module: str
    """Module of this folder that writes it."""

    suffix: str = ""
    """Ending of its file; "": it is a folder."""

    options: tuple[str, ...] = ()
    """Names of the options that it takes, beside `overwrite`."""

    kind: FolderKind | None = None
    """What its folder holds."""

    @property
    def write(self) -> Callable[[ExportJob, Path], None]:
        """The function that writes it."""
        function: Callable[[ExportJob, Path], None] = import_module(f"geopsp.export.{self.module}").write
        return function


NETWORK_OPTIONS = ("precision", "pointrend", "tile_size", "chips", "images")
"""Options of formats that hold the network as an ONNX file."""

ONNX_OPTIONS = (*NETWORK_OPTIONS, "calibrated")

HUB_OPTIONS = (*ONNX_OPTIONS, "onnx", "license")

HUB_FOLDER = FolderKind(
    "model.json",
    ("weights.safetensors", "history.csv", "model.stac.json", "config.json", "README.md", "model.onnx*"),
)
"""The folder of the format "hub"."""

FORMATS: dict[str, ExportFormat] = {
    "onnx": ExportFormat("an ONNX file, for QGIS Deepness and ONNX Runtime", "onnx_file", ".onnx", ONNX_OPTIONS),
    "dlpk": ExportFormat("a deep learning package for ArcGIS Pro 3.3 and later", "dlpk", ".dlpk", NETWORK_OPTIONS),
    "stac": ExportFormat("a STAC Item with the MLM extension, for catalogues", "stac_item", ".json"),
    "hub": ExportFormat("a folder for the Hugging Face Hub, with a model card", "hub", "", HUB_OPTIONS, HUB_FOLDER),
}
"""The formats, by the name that the user gives."""
