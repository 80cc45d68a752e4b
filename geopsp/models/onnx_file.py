"""A model in an ONNX file that geopsp exported, read as data and run by ONNX Runtime. Nothing here needs torch."""

from __future__ import annotations

import hashlib
import threading
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from geopsp.core.documents import DocumentError, parse_json, read_bytes
from geopsp.core.schema import MAX_TILE, Name, Schema, Sha256, require_fit
from geopsp.core.text import format_count, format_error
from geopsp.errors import GeopspError, InputNotFoundError, ModelError, OptionError, PackageError
from geopsp.models.manifest import check_manifest
from geopsp.models.model_info import ModelInfo
from geopsp.models.onnx_proto import OnnxHeader, TensorSpec, read_header

SUFFIX = ".onnx"

INPUT, OUTPUT = "image", "probabilities"
"""Names in the graph."""

UNCALIBRATED = "uncalibrated"
"""A tensor in the graph of a calibrated file: the probabilities of the network itself."""

SHOWN = b"\x3a\x10\x62\x0e\x0a\x0c" + UNCALIBRATED.encode()
"""What makes it an output where it stands after a file: protocol buffers one after another are merged to one. A model
(field 7: the graph) with a graph (field 12: an output) with an output (field 1: its name)."""

VERSION_KEY, MANIFEST_KEY, EXPORT_KEY = "geopsp_version", "geopsp_manifest", "geopsp_export"
"""Metadata of the file."""

READABLE_VERSION = "1"

OPSETS, IR_VERSIONS = range(16, 24), range(7, 12)
"""Versions of ONNX's operators and files that are read."""

MAX_BYTES = 2**31 - 1
"""Size of a file: protocol buffers cannot be larger."""

AGAIN = "Export the saved model again with `geopsp export`"

RUNTIME = "onnxruntime"


class ExportEntry(Schema):
    """How a model was exported."""

    tile_size: Annotated[int, Field(ge=16, le=MAX_TILE)]
    precision: Name
    pointrend: bool
    opset: int
    zero_is_nodata: Literal[True]
    weights_fingerprint: Sha256
    geopsp: Name
    calibrated: Name | None = None
    """How its probabilities are calibrated; None: they are not."""


@dataclass(slots=True, eq=False, kw_only=True)
class OnnxModel(ModelInfo):
    """A model in an ONNX file: what a map needs to know of it, and the file's bytes. `tile_size` is the file's."""

    path: Path
    content: bytes
    sha256: str
    """Of the file."""

    export: dict[str, Any]
    """How it was exported; see `ExportEntry`."""

    exported_here: bool = False
    """True if the file was made of a saved model for a map, so that its weights identify it, not its bytes."""

    batch_bytes: dict[int, int] = field(default_factory=dict)
    """Memory that a batch of so many tiles takes, once it was measured."""

    _sessions: list[Any] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def composition(self) -> str:
        """The parts of the network, in words."""
        words = self.spec.words if self.export["pointrend"] else self.spec.words.replace(", PointRend", "")
        return f"{words}; ONNX, {self.export['precision']}"

    @property
    def summary(self) -> str:
        """Parts, size, bands, classes and training, in one line."""
        bands, epochs = format_count(self.spec.bands, "band"), format_count(len(self.history), "epoch")
        return (
            f"{self.composition}; {len(self.content) / 1e6:.1f} MB; {bands}, {self.spec.classes} classes, tiles of "
            f"{self.tile_size}; {epochs} trained"
        )

    def fingerprint(self) -> str:
        """Return the SHA-256 of the file, or of the saved model that it was made of for a map."""
        return str(self.export["weights_fingerprint"]) if self.exported_here else self.sha256

    @property
    def network_output(self) -> str:
        """The name of the output with the probabilities of the network itself, which maps are made of.

        They are calibrated after tiles are blended, so that the classes of a map do not depend on it.
        """
        return UNCALIBRATED if self.export.get("calibrated") else OUTPUT

    def session(self) -> Any:
        """Return the file in ONNX Runtime, on the CPU, opened once: each call of its `run` takes one thread.

        Raises:
            OptionError: if ONNX Runtime is not installed.
            ModelError: if it cannot run the file.
        """
        with self._lock:
            if not self._sessions:
                self._sessions.append(_open_session(self))
            return self._sessions[0]


def read_onnx(path: str | Path) -> OnnxModel:
    """Read an ONNX file that geopsp exported. It is checked, but not run; no other file is opened.

    Raises:
        InputNotFoundError: if there is no such file.
        PackageError: if it is no ONNX file, is damaged, or geopsp did not export it.
    """
    path = Path(path)
    try:
        content = read_bytes(path, max_bytes=MAX_BYTES)
        header = read_header(content)
    except FileNotFoundError:
        raise InputNotFoundError(f"No such file: {path}. Export a saved model with `geopsp export` first.") from None
    except (OSError, DocumentError) as error:
        raise PackageError(f"Cannot read {path} as an ONNX file: {format_error(error)}. {AGAIN}.") from error
    try:
        _require_own(header)
        _require_safe(header)
        export = _metadata(header, EXPORT_KEY)
        require_fit(export, ExportEntry)
        manifest = check_manifest(_metadata(header, MANIFEST_KEY), "its manifest", "it", AGAIN)
        info = ModelInfo.from_manifest(manifest)
        _require_shapes(header, info, export["tile_size"])
    except (GeopspError, DocumentError, KeyError, TypeError, ValueError) as error:
        reason = format_error(error).rstrip(".")
        remedy = "" if AGAIN in reason else f" {AGAIN}."
        raise PackageError(f"{path} cannot be used as a model: {reason}.{remedy}") from error
    entries = info.entries() | {"tile_size": export["tile_size"]}
    return OnnxModel(path=path, content=content, sha256=hashlib.sha256(content).hexdigest(), export=export, **entries)


def _require_own(header: OnnxHeader) -> None:
    """Check that geopsp exported the file.

    Raises:
        DocumentError: if not; it says which inputs the file has, and what is needed.
    """
    found = header.metadata.get(VERSION_KEY)
    if found == READABLE_VERSION:
        return
    if found is not None:
        raise DocumentError(f"it has the format {found[:100]!r}, but this geopsp reads {READABLE_VERSION!r}. Upgrade")
    names = [f"the {words} {', '.join(map(str, specs[:5])) or 'none'}" for words, specs in _sides(header)]
    raise DocumentError(
        f"geopsp did not export it. It has {' and '.join(names)}; needed are one input "
        f"{INPUT!r} (float32, batch x bands x size x size), one output {OUTPUT!r} and geopsp's metadata, which name "
        "classes, bands and pixel size"
    )


def _sides(header: OnnxHeader) -> list[tuple[str, list[TensorSpec]]]:
    return [("inputs", header.inputs), ("outputs", header.outputs)]


def _require_safe(header: OnnxHeader) -> None:
    """Check that a file is complete in itself and of a known version, with standard operators and no loops.

    Raises:
        DocumentError: if not.
    """
    if header.external:
        raise DocumentError("its weights lie in other files, which it names, but must lie in it")
    if header.nested:
        raise DocumentError("it has loops, branches or functions, which no exported model has")
    if header.ir_version not in IR_VERSIONS:
        known = f"{IR_VERSIONS[0]} to {IR_VERSIONS[-1]}"
        raise DocumentError(f"its file format is IR version {header.ir_version}, but {known} can be read")
    if set(header.opsets) != {""} or header.opsets[""] not in OPSETS:
        found = ", ".join(f"{domain or 'ONNX'} {version}" for domain, version in header.opsets.items())
        raise DocumentError(
            f"its operators are those of {found}, but must be of ONNX {OPSETS[0]} to {OPSETS[-1]} (the opset)"
        )
    if foreign := sorted(name for name in header.operators if "." in name):
        raise DocumentError(f"it has the operator {foreign[0][:100]!r}, which is none of ONNX's own")


def _metadata(header: OnnxHeader, key: str) -> Any:
    """Return the parsed JSON of an entry of the metadata.

    Raises:
        DocumentError: if it is missing, or no JSON.
    """
    if key not in header.metadata:
        raise DocumentError(f"its metadata lack {key}")
    try:
        return parse_json(header.metadata[key], allow_nan=True)  # scores of absent classes are NaN
    except DocumentError as error:
        raise DocumentError(f"its metadata {key} cannot be read, as {error}") from None


def _require_shapes(header: OnnxHeader, info: ModelInfo, size: int) -> None:
    """Check that the graph takes and gives what the metadata say.

    Raises:
        DocumentError: if not.
    """
    wanted = ((INPUT, len(info.bands), "inputs", header.inputs), (OUTPUT, len(info.legend), "outputs", header.outputs))
    for name, count, words, found in wanted:
        fits = len(found) == 1 and (found[0].name, found[0].dtype) == (name, "float32")
        if not fits or found[0].shape[1:] != (count, size, size) or isinstance(found[0].shape[0], int):
            have = ", ".join(map(str, found[:5])) or "none"
            needed = TensorSpec(name, "float32", ("batch", count, size, size))
            raise DocumentError(f"it has the {words} {have}, but must have {needed}, as its metadata say")


def require_runtime() -> Any:
    """Return the package onnxruntime.

    Raises:
        OptionError: if it is not installed.
    """
    try:
        import onnxruntime
    except ImportError:
        raise OptionError(
            f"Maps with an ONNX model need {RUNTIME}, which is not installed. Run: pip install {RUNTIME}"
        ) from None
    return onnxruntime


def _open_session(model: OnnxModel) -> Any:
    runtime = require_runtime()
    options = runtime.SessionOptions()
    options.intra_op_num_threads = options.inter_op_num_threads = 1
    options.log_severity_level = 4  # its errors are raised, too
    try:
        content = model.content + (SHOWN if model.network_output == UNCALIBRATED else b"")
        session = runtime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
        shapes = [(each.name, each.shape[1:]) for each in (*session.get_inputs(), *session.get_outputs()[:1])]
    except Exception as error:
        raise ModelError(
            f"ONNX Runtime {runtime.__version__} cannot run {model.path}: {format_error(error)}. {AGAIN}, or install "
            f"another version of {RUNTIME}."
        ) from error
    sides = [model.tile_size] * 2
    if shapes != [(INPUT, [len(model.bands), *sides]), (OUTPUT, [len(model.legend), *sides])]:
        raise ModelError(f"ONNX Runtime finds other inputs and outputs in {model.path} than its header has. {AGAIN}.")
    return session


def is_onnx(path: str | Path) -> bool:
    """Return whether a path is that of an ONNX file, by its name."""
    return Path(path).suffix.lower() == SUFFIX


def available_providers() -> list[str]:
    """Return what ONNX Runtime can compute with here, e.g. ["CUDA", "CPU"]."""
    import onnxruntime

    return [name.removesuffix("ExecutionProvider") for name in onnxruntime.get_available_providers()]
