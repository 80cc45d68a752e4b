"""Checks of a weight file before the network that it is for is built: names, shapes and types of its tensors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from torch import Tensor
from torch.overrides import TorchFunctionMode

from geopsp.models.build import build_network
from geopsp.models.spec import ModelSpec

DTYPES = {
    "F64": torch.float64, "F32": torch.float32, "F16": torch.float16, "BF16": torch.bfloat16, "I64": torch.int64,
    "I32": torch.int32, "I16": torch.int16, "I8": torch.int8, "U8": torch.uint8, "BOOL": torch.bool,
}  # fmt: skip
"""Types of tensors by their names in safetensors."""

COMPUTED = (torch.linspace, torch.arange)
"""Functions whose small results constructors of networks compute with."""


class _ComputedOnCPU(TorchFunctionMode):
    """Lets constructors compute with numbers while their weights have no memory."""

    def __torch_function__(
        self, func: Callable[..., Any], types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        more = {"device": "cpu"} if func in COMPUTED else {}
        return func(*args, **{**more, **(kwargs or {})})


def require_fitting_weights(spec: ModelSpec, path: Path) -> None:
    """Compare the header of a weight file with a network whose tensors take no memory.

    Raises:
        SafetensorError: if it is no weight file.
        ModelError: if there is no such network.
        ValueError, RuntimeError: if tensors are missing, or have another shape or type.
    """
    with torch.random.fork_rng(devices=[]), torch.device("meta"), _ComputedOnCPU():
        network = build_network(spec)
    needed = {name: tensor.dtype for name, tensor in network.state_dict().items()}
    with safe_open(path, framework="pt") as file:
        names = list(file.keys())
        if len(names) != len(needed):
            raise ValueError(f"{path.name} holds {len(names):,} tensors, but the network has {len(needed):,}")
        slices = {name: file.get_slice(name) for name in names}
        state = {
            name: torch.empty(each.get_shape(), dtype=DTYPES.get(each.get_dtype(), torch.uint8), device="meta")
            for name, each in slices.items()
        }
    network.load_state_dict(state, assign=True)
    for name, tensor in network.state_dict().items():
        if tensor.dtype != needed[name]:
            raise ValueError(
                f"{name} in {path.name} is {tensor.dtype}, but must be {needed[name]}".replace("torch.", "")
            )


def require_finite(state: Mapping[str, Tensor]) -> None:
    """Check that weights are numbers with which a network computes, and variances not negative.

    Raises:
        ValueError: if one is not.
    """
    for name, tensor in state.items():
        if tensor.is_floating_point() and not torch.isfinite(tensor).all():
            raise ValueError(f"{name} holds NaN or infinite weights: the training failed, or the file is damaged")
        if name.endswith("running_var") and bool((tensor < 0).any()):
            raise ValueError(f"{name} holds negative variances")
