"""The network as an ONNX graph: raw pixels in, probabilities out.

One input, `image`: float32 (batch, bands, s, s), pixel values as in the training images, in the model's band order. A
pixel is invalid if it is 0 in all bands or not finite in one. One output, `probabilities`: float32 (batch, classes, s,
s), in the order of the legend; 0 for classes that were ignored in training. They are calibrated if the model is,
unless the options say no; then the graph has a tensor `UNCALIBRATED` on the way, which geopsp's own maps are made of.
"""

from __future__ import annotations

import copy
import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

import geopsp
from geopsp.core.text import format_error
from geopsp.errors import ExportError
from geopsp.export.export_job import ExportJob
from geopsp.models.calibration import Calibration
from geopsp.models.calibration_torch import scaled_softmax
from geopsp.models.onnx_file import UNCALIBRATED
from geopsp.models.saved_model import TrainedModel
from geopsp.models.spec import check_tile_size

INPUT, OUTPUT = "image", "probabilities"

OPSET = 18
"""What torch's functions are written for. Readers of older versions of ONNX Runtime know up to 20."""

IR_VERSION = 8
"""Nothing in the file is newer, and it opens in ONNX Runtime from 1.14 on."""

MAX_BYTES = 2**31 - 2**20
"""Largest file: protobuf allows 2 GiB."""

HALF_MAX = 65504.0


class ExportedNetwork(nn.Module):
    """A trained network between raw pixels and probabilities, on the CPU."""

    mean: Tensor
    scale: Tensor
    excluded: Tensor
    weights: Tensor
    biases: Tensor

    def __init__(
        self, model: TrainedModel, *, half: bool, pointrend: bool, calibration: Calibration | None = None
    ) -> None:
        """Copy the network.

        Args:
            model: The model.
            half: True computes in float16, but for normalisation, PointRend and softmax.
            pointrend: False leaves PointRend out.
            calibration: Of the probabilities; None: they are those of the network.
        """
        super().__init__()
        network = copy.deepcopy(model.network).cpu().to(memory_format=torch.contiguous_format).eval()
        network.aux = None
        if not pointrend:
            network.pointrend = None
        self.network = as_half(network) if half else network.float()
        self.half_precision = half
        normalization = model.normalization
        self.register_buffer("mean", torch.from_numpy(normalization.mean)[None, :, None, None])
        self.register_buffer("scale", torch.from_numpy(1 / normalization.std)[None, :, None, None])
        excluded = torch.zeros(1, len(model.legend), 1, 1)
        excluded[:, list(model.excluded_channels())] = -torch.inf
        self.register_buffer("excluded", excluded)
        self.calibrated = calibration is not None
        if calibration is not None:
            weights, biases = (torch.from_numpy(line) for line in calibration.coefficients(len(model.legend)))
            self.register_buffer("weights", weights[None, :, None, None])
            self.register_buffer("biases", biases[None, :, None, None] + excluded)

    def forward(self, image: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """(n, bands, s, s) raw pixels -> (n, classes, s, s) probabilities; calibrated, and before that."""
        finite = (image.abs() < torch.inf).all(dim=1, keepdim=True)  # n 1 s s; NaN is not below
        valid = finite & (image != 0).any(dim=1, keepdim=True)
        pixels = (torch.where(valid, image, 0.0) - self.mean) * self.scale
        mask = valid.to(pixels.dtype)
        pixels = pixels * mask
        if self.half_precision:
            pixels = pixels.clamp(-HALF_MAX, HALF_MAX).half()
        logits = self.network(pixels, mask).float()
        probabilities: Tensor = (logits + self.excluded).softmax(dim=1)
        if not self.calibrated:
            return probabilities
        return scaled_softmax(probabilities, self.weights, self.biases, dim=1), probabilities


class Float32Norm(nn.Module):
    """A norm that is computed in float32 among layers of float16: the squares of its means would overflow."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.norm = norm.float()

    def forward(self, x: Tensor, *args: Any, **options: Any) -> Tensor:
        return self.norm(x.float(), *args, **options).to(x.dtype)  # type: ignore[no-any-return]


def as_half(network: nn.Module) -> nn.Module:
    """Turn a network to float16, but for PointRend and the norms that compute means."""
    network = network.half()
    if getattr(network, "pointrend", None) is not None:
        network.pointrend.float()
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.GroupNorm | nn.LayerNorm) and not isinstance(module, Float32Norm):
                setattr(module, name, Float32Norm(child))
    return network


def onnx_model(job: ExportJob) -> Any:
    """Return the network as an `onnx.ModelProto` without metadata.

    Raises:
        ModelError: if the network cannot take such tiles.
        ExportError: if it cannot be exported, or is too large.
    """
    model, options, size = job.model, job.options, job.tile_size
    check_tile_size(size, output_stride=model.spec.output_stride)
    half = options.precision == "fp16"
    _require_small(model, half=half)
    calibration = job.calibration
    module = ExportedNetwork(model, half=half, pointrend=options.pointrend, calibration=calibration).eval()
    example = torch.ones(2, len(model.bands), size, size)
    try:
        with _quiet(), torch.no_grad():
            program = torch.onnx.export(
                module,
                (example,),
                dynamo=True,
                external_data=False,
                opset_version=OPSET,
                dynamic_shapes={"image": {0: torch.export.Dim("batch")}},
                input_names=[INPUT],
                output_names=[OUTPUT] if calibration is None else [OUTPUT, UNCALIBRATED],
                verbose=False,
            )
        assert program is not None
        proto = program.model_proto
        del proto.graph.output[1:]  # `UNCALIBRATED` stays as a tensor of the graph
    except Exception as error:  # the exporter raises what its many parts raise
        raise ExportError(
            f"The network ({model.composition}) cannot be exported to ONNX: {_reason(error)}. Train with another "
            "`backbone`, or use the model with geopsp."
        ) from error
    _require_readable(proto, model)
    proto.ir_version = IR_VERSION
    proto.producer_name, proto.producer_version = "geopsp", geopsp.__version__
    proto.doc_string = model.summary
    _strip_traces(proto)
    return proto


def _strip_traces(proto: Any) -> None:
    """Delete what the exporter notes of its own work, which names files and folders of this machine."""
    graph = proto.graph
    for part in (graph, *graph.node, *graph.initializer, *graph.input, *graph.output, *graph.value_info):
        del part.metadata_props[:]
        part.doc_string = ""


def _require_small(model: TrainedModel, *, half: bool) -> None:
    weights = sum(tensor.numel() for tensor in model.network.state_dict().values()) * (2 if half else 4)
    if weights >= MAX_BYTES:
        hint = "" if half else "Use `precision='fp16'`, or a"
        raise ExportError(
            f"The weights have {weights / 1e9:.1f} GB, but an ONNX file holds less than 2 GB. {hint or 'Use a'} "
            "smaller backbone."
        )


def _require_readable(proto: Any, model: TrainedModel) -> None:
    """Check that the exporter kept to what was asked for; where it cannot, it writes something else without a word."""
    batch = proto.graph.input[0].type.tensor_type.shape.dim[0]
    if not batch.dim_param:
        raise ExportError(
            f"The network ({model.composition}) cannot be exported to ONNX: its layers fix the number of tiles in a "
            "batch. Train with another `backbone`, or use the model with geopsp."
        )
    opsets = {entry.domain: entry.version for entry in proto.opset_import}
    if opsets.get("") != OPSET or set(opsets) - {""} or proto.functions:
        raise ExportError(
            f"The exporter of torch {torch.__version__} wrote operators of {opsets}, but the file must have those of "
            f"ONNX {OPSET} only. Install other versions of torch and onnxscript."
        )


def _reason(error: BaseException) -> str:
    """Return the innermost reason of an error of the exporter, whose own message is a page."""
    while error.__cause__ is not None:
        error = error.__cause__
    first = next((line.strip() for line in str(error).splitlines() if line.strip()), "")
    return f"{type(error).__name__}: {format_error(Exception(first))}" if first else type(error).__name__


@contextmanager
def _quiet() -> Iterator[None]:
    """Keep the exporter's messages and warnings, which are about its own parts, from the user."""
    loggers = [logging.getLogger(name) for name in ("torch.onnx", "torch.export", "onnxscript", "onnx_ir")]
    levels = [each.level for each in loggers]
    try:
        for each in loggers:
            each.setLevel(logging.CRITICAL)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)
