"""Devices and numeric precision."""

from __future__ import annotations

import platform
from collections.abc import Mapping
from typing import Any, Literal

import torch

from geopsp.errors import ModelError


def pick_device(name: str | None = None) -> torch.device:
    """The device asked for, else the first GPU, else the CPU.

    Raises:
        ModelError: if there is no such device.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).cpu()
    except (RuntimeError, AssertionError, NotImplementedError) as error:
        raise ModelError(f"The device {name!r} cannot be used ({error}). Use 'cpu' or 'cuda'.") from error
    return device


def has_bfloat16(device: torch.device) -> bool:
    """True if networks run in bfloat16 there: on GPUs that have it in hardware."""
    return device.type == "cuda" and torch.cuda.is_bf16_supported(including_emulation=False)


def autocast(device: torch.device) -> torch.autocast:
    """The precision in which networks run on the device."""
    return torch.autocast(device.type, torch.bfloat16, enabled=has_bfloat16(device))


def device_name(device: torch.device) -> str:
    """The device as a person would call it."""
    if device.type == "cuda":
        return f"GPU {torch.cuda.get_device_name(device)}"
    return "Apple GPU" if device.type == "mps" else f"CPU, {torch.get_num_threads()} threads"


def resolve_precision(precision: Precision, device: torch.device) -> Literal["bf16", "fp32"]:
    """The precision asked for; of "auto", bf16 where the device multiplies it in hardware."""
    if precision != "auto":
        return precision
    serves = _cpu_has_bfloat16() if device.type == "cpu" else has_bfloat16(device)
    return "bf16" if serves else "fp32"


def _cpu_has_bfloat16() -> bool:
    """True for AVX512_BF16, AMX and ARM's BF16; False where torch is too old to tell."""
    if platform.machine().lower() in {"aarch64", "arm64"}:
        return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())  # noqa: SLF001 (elsewhere this says yes to AVX512 alone)
    told: Mapping[str, Any] = getattr(torch.cpu, "get_capabilities", dict)()
    return any(told.get(name, False) for name in ("avx512_bf16", "amx_bf16"))


Precision = Literal["auto", "fp32", "bf16"]
