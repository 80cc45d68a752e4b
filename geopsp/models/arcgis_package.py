"""What a deep learning package of ArcGIS (.dlpk, .emd, or a folder with an .emd) is, told by its model definition.

Nothing is extracted, and weights are never opened: those of arcgis.learn are pickle files, which run code.
"""

from __future__ import annotations

import os
import stat
import struct
import zipfile
import zlib
from dataclasses import dataclass
from io import SEEK_END, BufferedReader
from pathlib import Path, PurePosixPath
from typing import Annotated, Any

from pydantic import Field

from geopsp.core.documents import (
    MAX_SETTINGS_BYTES,
    DocumentError,
    is_regular,
    open_regular,
    parse_json,
    read_json,
)
from geopsp.core.schema import MAX_BANDS, Schema, require_fit
from geopsp.core.text import format_count, format_error
from geopsp.errors import PackageError

PACKAGE, DEFINITION = ".dlpk", ".emd"

CHIPS_DEFINITION = "esri_model_definition.emd"
"""Beside chips that ArcGIS exported; of no model."""

OWN_NAME = "GeopspClassifier"
"""`ModelName` in packages that geopsp exports, name of their raster function and of its class."""

OWN_MODEL = "model.onnx"

MAX_FILES = 10_000

MAX_DIRECTORY_BYTES = 4 * 2**20
"""Size of a package's list of files."""

MAX_UNPACKED_BYTES = 32 * 2**30

PICKLES = {".pth", ".pt", ".pkl", ".pickle", ".bin", ".ckpt"}

BAD_ZIP = (
    zipfile.BadZipFile, zlib.error, struct.error, EOFError, NotImplementedError, RuntimeError, ValueError, OverflowError
)  # fmt: skip
"""Errors of reading a damaged ZIP file."""

BROKEN = "Copy it again"

Text = Annotated[str, Field(max_length=1000)]


class ClassRow(Schema):
    """A class of a model definition."""

    value: Annotated[int | str | None, Field(alias="Value")] = None
    name: Annotated[Text | int | None, Field(alias="Name")] = None


class ModelDefinition(Schema):
    """Those entries of an .emd that tell what a model is."""

    name: Annotated[Text | None, Field(alias="ModelName")] = None
    kind: Annotated[Text | None, Field(alias="ModelType")] = None
    file: Annotated[Text | None, Field(alias="ModelFile")] = None
    parameters: Annotated[dict[str, Any] | None, Field(alias="ModelParameters")] = None
    classes: Annotated[list[ClassRow] | None, Field(alias="Classes", max_length=65536)] = None
    extract_bands: Annotated[list[int | Text] | None, Field(alias="ExtractBands", max_length=MAX_BANDS)] = None
    bands: Annotated[list[Text | int] | Text | None, Field(alias="Bands", max_length=MAX_BANDS)] = None
    height: Annotated[int | float | Text | None, Field(alias="ImageHeight")] = None


@dataclass(frozen=True, slots=True)
class ArcgisPackage:
    """A model of ArcGIS, as its definition describes it."""

    path: Path
    definition: ModelDefinition

    @property
    def is_ours(self) -> bool:
        """True for a package that geopsp exported."""
        return self.definition.name == OWN_NAME

    @property
    def backbone(self) -> str | None:
        found = (self.definition.parameters or {}).get("backbone")
        return found[:100] if isinstance(found, str) and found else None

    @property
    def classes(self) -> list[str]:
        """Value and name of each class."""
        rows = self.definition.classes or []
        return [" ".join(str(part) for part in (row.value, row.name) if part is not None) for row in rows]

    @property
    def bands(self) -> list[str]:
        """Names of the bands, else their numbers from 1."""
        definition = self.definition
        if isinstance(definition.bands, list) and definition.bands:
            return [str(band) for band in definition.bands]
        found = definition.extract_bands or []
        return [str(band + 1) if isinstance(band, int) else band for band in found]

    @property
    def title(self) -> str:
        """What it is, in a few words."""
        if self.is_ours:
            return "a deep learning package for ArcGIS Pro, exported by geopsp"
        name = self.definition.name or self.definition.kind or "unnamed"
        backbone = f", backbone {self.backbone}" if self.backbone else ""
        return f"a model of ArcGIS ({name}{backbone})"

    @property
    def advice(self) -> str:
        """Why geopsp does not load it, and what to do."""
        if self.is_ours:
            return f"Unpack it (it is a ZIP file) and use the {OWN_MODEL} inside: geopsp predict {OWN_MODEL} IMAGE"
        file = self.definition.file or ""
        weights = "Its weights" + (f" ({PurePosixPath(file).name})" if file else "")
        is_pickle = not file or Path(file).suffix.lower() in PICKLES
        reason = "are pickled, which can run code" if is_pickle else "belong to another program's network"
        return (
            f"{weights} {reason}; geopsp never loads such files. Export its training data as Classified Tiles from "
            "ArcGIS, and train on them: geopsp train CHIPS --out MODEL"
        )


def find_arcgis_package(path: str | Path) -> ArcgisPackage | None:
    """Read the definition of a package; None for anything else, as for chips that ArcGIS exported.

    Raises:
        PackageError: if it is damaged or hostile.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    try:
        if path.is_dir():
            content = _from_folder(path)
        elif suffix in {PACKAGE, DEFINITION} and os.path.lexists(path):
            content = _from_package(path) if suffix == PACKAGE else read_json(path, max_bytes=MAX_SETTINGS_BYTES)
        else:
            return None
        if content is None or (suffix != PACKAGE and isinstance(content, dict) and "MetaDataMode" in content):
            return None
        require_fit(content, ModelDefinition)
    except (DocumentError, OSError) as error:
        raise PackageError(f"Cannot read {path}: {format_error(error)}. {BROKEN}.") from error
    return ArcgisPackage(path, ModelDefinition.model_validate(content))


def require_no_arcgis_package(path: str | Path) -> None:
    """Check that a path is no model of ArcGIS.

    Raises:
        PackageError: that says what it is and what to do, if it is one.
    """
    if package := find_arcgis_package(path):
        classes = ", ".join(package.classes[:20]) + (" ..." if len(package.classes) > 20 else "")
        classes = "" if package.is_ours else classes
        about = f" with {format_count(len(package.classes), 'class', 'classes')} ({classes})" if classes else ""
        bands = package.bands
        about += f" and {format_count(len(bands), 'band')}" if bands and about else ""
        raise PackageError(f"{path} is {package.title}{about[:500]}. {package.advice}.")


def _from_folder(folder: Path) -> Any:
    """Return the content of the model definition in a folder; None if there is none."""
    found = sorted(file for file in folder.glob(f"*{DEFINITION}") if file.name != CHIPS_DEFINITION)
    return read_json(found[0], max_bytes=MAX_SETTINGS_BYTES) if found and is_regular(found[0]) else None


def _from_package(path: Path) -> Any:
    with open_regular(path) as file:
        _require_short_directory(file)
        try:
            with zipfile.ZipFile(file) as archive:
                _require_harmless(archive.infolist())
                return parse_json(_definition_bytes(archive))
        except DocumentError:
            raise
        except BAD_ZIP as error:
            raise DocumentError(f"it is no ZIP file, or damaged: {format_error(error)}") from error


def _require_short_directory(file: BufferedReader) -> None:
    """Check the size of the list of files, which zipfile reads whole."""
    size = file.seek(0, SEEK_END)
    file.seek(max(0, size - 2**16 - 22))
    tail = file.read()
    end = tail.rfind(b"PK\x05\x06", 0, max(0, len(tail) - 18))
    if end < 0:
        raise DocumentError("it is no ZIP file")
    (length,) = struct.unpack_from("<I", tail, end + 12)
    if length > MAX_DIRECTORY_BYTES or tail[max(0, end - 20) : end].startswith(b"PK\x06\x07"):
        raise DocumentError("its list of files is too long for a package")


def _require_harmless(files: list[zipfile.ZipInfo]) -> None:
    """Check names, kinds and sizes of files."""
    if len(files) > MAX_FILES:
        raise DocumentError(f"it holds {len(files):,} files, but may hold {MAX_FILES:,}")
    for info in files:
        parts = info.filename.replace("\\", "/").split("/")
        if ".." in parts or not parts[0] or ":" in parts[0]:
            raise DocumentError(f"it holds a file that would lie outside of it: {info.filename[:200]!r}")
        if stat.S_ISLNK(info.external_attr >> 16):
            raise DocumentError(f"it holds a link: {info.filename[:200]!r}")
    if sum(info.file_size for info in files) > MAX_UNPACKED_BYTES:
        raise DocumentError(f"its files have more than {MAX_UNPACKED_BYTES / 1e9:,.0f} GB unpacked")


def _definition_bytes(archive: zipfile.ZipFile) -> bytes:
    """Read the one model definition of a package."""
    found = [info for info in archive.infolist() if "/" not in info.filename and _is_definition(info.filename)]
    if len(found) != 1:
        raise DocumentError(f"it holds {format_count(len(found), f'{DEFINITION} file')} at its top, but must hold one")
    (info,) = found
    if info.flag_bits & 1 or info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise DocumentError(f"{info.filename[:200]!r} is encrypted, or packed in an unusual way")
    with archive.open(info) as file:
        content = file.read(MAX_SETTINGS_BYTES + 1)
    if len(content) > MAX_SETTINGS_BYTES:
        raise DocumentError(f"{info.filename[:200]!r} has more than {MAX_SETTINGS_BYTES / 1e6:,.0f} MB")
    return content


def _is_definition(name: str) -> bool:
    return name.lower().endswith(DEFINITION)
