"""What tests of exported models share."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from geopsp.core.bands import BandStats
from geopsp.core.legend import Legend
from geopsp.models.build import ModelSpec, build_network
from geopsp.models.losses import LossSpec
from geopsp.models.saved_model import TrainedModel

SIZE = 64
SPREAD = 3.0


def random_model(
    spec: ModelSpec, *, size: int = SIZE, losses: LossSpec | None = None, dtype: str = "uint16", **parts: Any
) -> TrainedModel:
    """A model with random weights whose classes vary: the logits of untrained networks hardly do."""
    torch.manual_seed(0)
    network = build_network(spec).train()
    with torch.no_grad():
        for _ in range(2):
            network(torch.randn(2, spec.bands, size, size))  # running statistics that are not the initial ones
        spread_logits(network.eval(), torch.randn(2, spec.bands, size, size))
    pixels = (
        np.random.default_rng(0).integers(1, 3000 if dtype == "uint16" else 256, (spec.bands, 64, 64)).astype(dtype)
    )
    return TrainedModel(
        spec=spec,
        network=network,
        legend=Legend.from_names({code: f"class {code}" for code in range(spec.classes)}),
        bands=tuple(f"band_{number + 1}" for number in range(spec.bands)),
        statistics=BandStats.from_array(pixels, np.ones((64, 64), bool)),
        dtype=dtype,
        tile_size=size,
        cell_size=(2.0, 2.0),
        units="metre",
        losses=losses or LossSpec(),
        **parts,
    )


def spread_logits(network: nn.Module, image: Tensor) -> None:
    """Scale the last layers so that the logits of each class have mean 0, and all a standard deviation of `SPREAD`."""
    for module in filter(None, (network.decoder, network.pointrend and network.pointrend.head)):
        found: list[Tensor] = []
        hook = module.register_forward_hook(
            lambda _, __, output, found=found: found.append(output[0] if isinstance(output, tuple) else output)
        )
        network(image)
        hook.remove()
        logits = found[0].transpose(0, 1).flatten(1)  # classes, all pixels
        mean = logits.mean(dim=1)
        factor = SPREAD / (logits - mean[:, None]).std()
        layers = list(module.classify) if isinstance(module.classify, nn.ModuleList) else [module.classify]
        for layer in layers:
            layer.weight.mul_(factor)
            layer.bias.mul_(factor)
        layers[0].bias.sub_(mean * factor)


def run_onnx(path: Path, pixels: NDArray[Any]) -> NDArray[np.float32]:
    """What ONNX Runtime makes of (n, bands, s, s) raw pixels."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (result,) = session.run(["probabilities"], {"image": pixels.astype(np.float32)})
    return result
