"""What a machine can hold: tiles at a time, threads, and the precision that serves."""

from __future__ import annotations

import platform
import weakref
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geopsp.machine import cores
from geopsp.maps.settings import Precision
from geopsp.memory import SHARE, free, power_of_two
from geopsp.models.build import has_bfloat16

WAITING = 2
"""Batches a thread whose pixels and results are held beside the one that it computes."""


def resolve(precision: Precision, device: torch.device) -> Literal["bf16", "fp32"]:
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


def batch_and_threads(
    network: nn.Module,
    *,
    bands: int,
    classes: int,
    size: int,
    device: torch.device,
    batch_size: int | None = None,
    bf16: bool = False,
) -> tuple[int, int]:
    """Tiles at a time, and threads that each compute so many.

    On the CPU a thread computes one tile at a time, and there are as many threads as cores, fewer if memory is short.
    Elsewhere one thread computes the largest power of two, at most 64, that fits.

    Args:
        network: Moved to the device.
        bands: That it takes.
        classes: That it tells apart.
        size: Side of a tile.
        device: Where it computes.
        batch_size: Tiles at a time; None: what fits.
        bf16: True if it computes in bfloat16.
    """
    network.to(device).eval()
    waiting = WAITING * 4 * (bands + classes) * size**2
    if device.type == "cpu":
        batch = batch_size or 1
        each = forward_bytes(network, batch, bands=bands, size=size, device=device, bf16=bf16) + batch * waiting
        return batch, max(1, min(cores(), int(SHARE * free(device) / each)))
    if batch_size:
        return batch_size, 1
    one, two = (forward_bytes(network, n, bands=bands, size=size, device=device, bf16=bf16) for n in (1, 2))
    return power_of_two(SHARE * free(device) / (max(two - one, 0) + waiting)), 1


def forward_bytes(
    network: nn.Module, batch: int, *, bands: int, size: int, device: torch.device, bf16: bool = False
) -> int:
    """Most bytes that live at once, beside the weights, from a batch of tiles to its probabilities.

    On a GPU as measured, workspaces and all; elsewhere as the shapes tell, without computing anything.
    """
    known, shape = _KNOWN.setdefault(network, {}), (batch, bands, size, str(device), bf16)
    if shape not in known:
        measure = _on_gpu if device.type == "cuda" else _by_shapes
        known[shape] = measure(network, batch, bands, size, device, bf16)
    return known[shape]


_KNOWN: weakref.WeakKeyDictionary[nn.Module, dict[tuple[int, int, int, str, bool], int]] = weakref.WeakKeyDictionary()
"""What was found before: by the shapes takes half a second."""


def _on_gpu(network: nn.Module, batch: int, bands: int, size: int, device: torch.device, bf16: bool) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    _forward(network, batch, bands, size, device, bf16)
    return int(torch.cuda.max_memory_allocated(device)) - before


def _by_shapes(network: nn.Module, batch: int, bands: int, size: int, device: torch.device, bf16: bool) -> int:
    live = _Live()
    with FakeTensorMode(allow_non_fake_inputs=True), live:
        _forward(network, batch, bands, size, device, bf16)
    return live.peak


@torch.no_grad()  # inference_mode hides autocast from FakeTensorMode
def _forward(network: nn.Module, batch: int, bands: int, size: int, device: torch.device, bf16: bool) -> None:
    image = torch.zeros(batch, bands, size, size, device=device)
    valid = torch.ones(batch, 1, size, size, device=device)
    with torch.autocast(device.type, torch.bfloat16, enabled=bf16):
        logits: Tensor = network(image.contiguous(memory_format=torch.channels_last), valid)
    logits.float().softmax(dim=1).to(torch.int32)


class _Live(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of all tensors made inside it that are still alive, and their largest sum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self.now = 0
        self._known: set[int] = set()

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        made = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(made):
            if isinstance(tensor, Tensor):
                self._count(tensor.untyped_storage())
        return made

    def _count(self, storage: torch.UntypedStorage) -> None:
        name, size = id(storage), storage.nbytes()
        if name not in self._known:
            self._known.add(name)
            self.now += size
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._forget, name, size)

    def _forget(self, name: int, size: int) -> None:
        self._known.discard(name)
        self.now -= size
