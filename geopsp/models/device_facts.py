"""What the devices of this machine can do, for reports."""

from __future__ import annotations

from typing import Any

import torch

from geopsp.models.device import device_name, has_bfloat16, has_float16_only, resolve_precision


def device_facts() -> list[dict[str, Any]]:
    """Return name, memory in bytes and fast types of numbers of each device, the CPU last."""
    found = [_gpu(number) for number in range(torch.cuda.device_count())] if torch.cuda.is_available() else []
    if torch.backends.mps.is_available():
        found.append({"device": "mps", "name": device_name(torch.device("mps")), "fast": []})
    cpu = torch.device("cpu")
    fast = ["bf16"] if resolve_precision("auto", cpu) == "bf16" else []
    return [*found, {"device": "cpu", "name": device_name(cpu), "fast": fast}]


def torch_build() -> str:
    """Return what torch was built for: "CUDA 12.8", "ROCm 6.4" or "CPU"."""
    if torch.version.hip:
        return f"ROCm {torch.version.hip}"
    return f"CUDA {torch.version.cuda}" if torch.version.cuda else "CPU"


def _gpu(number: int) -> dict[str, Any]:
    device = torch.device("cuda", number)
    free, total = torch.cuda.mem_get_info(device)
    fast = ["bf16", "fp16"] if has_bfloat16(device) else ["fp16"] if has_float16_only(device) else []
    capability = ".".join(map(str, torch.cuda.get_device_capability(device)))
    return {
        "device": f"cuda:{number}", "name": device_name(device), "capability": capability, "memory": total,
        "free": free, "fast": fast,
    }  # fmt: skip
