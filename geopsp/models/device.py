"""Devices and numeric precision."""

from __future__ import annotations

import logging
import os
import platform
import shutil
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from functools import cache
from importlib.util import find_spec
from typing import Any, Literal

import torch

from geopsp.core.text import format_count, format_error
from geopsp.errors import ModelError

logger = logging.getLogger(__name__)

FLOAT16_CAPABILITY = 7
"""First compute capability with tensor cores, which make float16 fast."""


CHANNELS_LAST_CAPABILITY = 8
"""First compute capability on which channels_last is fast in float32, too: there convolutions use TF32."""


def pick_device(name: str | None = None) -> torch.device:
    """Return the device of that name; None: the first GPU that this torch can use, else the CPU.

    Raises:
        ModelError: if a device that was asked for cannot be used.
    """
    if name is None:
        found = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
        gpu = next((gpu for gpu, is_there in found.items() if is_there), "cpu")
        try:
            return _checked_device(gpu)
        except ModelError as error:
            _warn_once(f"{error} Computing on the CPU instead.")
    return _checked_device(name or "cpu")


def _checked_device(name: str) -> torch.device:
    try:
        device = torch.device(name)
        if name == "cuda":
            _use_own_gpu()
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(
            f"Cannot use the device {name!r}: {format_error(error)}. Use 'cpu', 'cuda' or 'mps'."
        ) from error
    return device


def _use_own_gpu() -> None:
    """Make the GPU of this process "cuda" where several processes share a machine, so that none touches the first."""
    ranks = (os.environ.get(name) for name in ("LOCAL_RANK", "SLURM_LOCALID"))
    rank = next((rank for rank in ranks if rank is not None), "0")
    if rank != "0" and rank.isdecimal() and int(rank) < torch.cuda.device_count():
        torch.cuda.set_device(int(rank))


@cache
def _warn_once(text: str) -> None:
    logger.warning(text)


def has_bfloat16(device: torch.device) -> bool:
    """Return True if training and scoring use bfloat16 on the device: on GPUs that have it in hardware."""
    if device.type != "cuda":
        return False
    current: AbstractContextManager[Any] = nullcontext() if device.index is None else torch.cuda.device(device)
    with current:  # torch tells of the current device alone
        in_hardware: bool = torch.cuda.is_bf16_supported(including_emulation=False)
    return in_hardware


def memory_format(device: torch.device, *, half: bool) -> torch.memory_format:
    """Return the layout in which convolutions are fast: channels_last, but for float32 on GPUs without TF32.

    Args:
        device: Where the network runs.
        half: True for bfloat16 and float16.
    """
    if device.type == "cuda" and not half and not torch.version.hip:
        capability = torch.cuda.get_device_capability(device)[0]
        return torch.channels_last if capability >= CHANNELS_LAST_CAPABILITY else torch.contiguous_format
    return torch.channels_last


def has_float16_only(device: torch.device) -> bool:
    """Return True for GPUs that compute float16 fast, but not bfloat16: NVIDIA's of compute capability 7, e.g. T4."""
    if device.type != "cuda" or torch.version.hip or has_bfloat16(device):
        return False
    return torch.cuda.get_device_capability(device)[0] >= FLOAT16_CAPABILITY


def half_type(device: torch.device) -> torch.dtype:
    """Return the half precision in which a GPU trains: float16 where it has no bfloat16."""
    return torch.float16 if has_float16_only(device) else torch.bfloat16


def autocast(device: torch.device) -> torch.autocast:
    """Return the context manager of mixed precision on the device."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))


def device_name(device: torch.device) -> str:
    """Return the name of the device for messages."""
    if device.type == "cuda":
        return f"GPU {torch.cuda.get_device_name(device)}"
    if device.type == "mps":
        return "Apple GPU"
    return f"CPU ({format_count(torch.get_num_threads(), 'thread')})"


def resolve_precision(
    precision: Literal["auto", "fp32", "bf16", "fp16"], device: torch.device
) -> Literal["fp32", "bf16", "fp16"]:
    """Return the precision of inference; "auto" is bf16 where the device has it in hardware, or fp16, else fp32."""
    if precision != "auto":
        return precision
    if _cpu_has_bfloat16() if device.type == "cpu" else has_bfloat16(device):
        return "bf16"
    return "fp16" if has_float16_only(device) else "fp32"


def has_compiler() -> bool:
    """Return True if `torch.compile` can make code for a GPU here: with Triton, and a C compiler for its launchers."""
    compiler = os.environ.get("CC") or shutil.which("cc") or shutil.which("gcc") or shutil.which("clang")
    return find_spec("triton") is not None and bool(compiler)


def _cpu_has_bfloat16() -> bool:
    """Return True for AVX512_BF16, AMX and ARM's BF16; False if this torch cannot tell."""
    if platform.machine().lower() in {"aarch64", "arm64"}:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 (elsewhere this says yes to AVX512 alone)
    capabilities: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(capabilities.get(name, False) for name in ("avx512_bf16", "amx_bf16"))
