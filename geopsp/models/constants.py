"""Tensors that depend on sizes alone: made once, as each costs a GPU several launches in every forward pass."""

from __future__ import annotations

from collections.abc import Callable
from functools import lru_cache

import torch
from torch import Tensor

Build = Callable[..., Tensor]
"""Takes whole numbers, and `device` and `dtype` by name."""


def constant(build: Build, *numbers: int, like: Tensor) -> Tensor:
    """Return `build(*numbers, device=..., dtype=...)` for a tensor's device and type; kept for the next call.

    Nothing is kept while a graph is made or memory is counted, whose tensors hold no numbers.
    """
    if torch.compiler.is_compiling() or type(like) is not Tensor:
        return build(*numbers, device=like.device, dtype=like.dtype)
    return _kept(build, numbers, like.device, like.dtype)


@lru_cache(maxsize=256)
def _kept(build: Build, numbers: tuple[int, ...], device: torch.device, dtype: torch.dtype) -> Tensor:
    with torch.inference_mode(False), torch.no_grad():  # a tensor of inference could not be used in training
        return build(*numbers, device=device, dtype=dtype)
