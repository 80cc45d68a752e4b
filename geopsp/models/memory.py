"""How many chips fit into memory at a time."""

from __future__ import annotations

import weakref
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import psutil
import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geopsp.core.parallel import cpu_count
from geopsp.errors import TrainingError
from geopsp.models.device import autocast
from geopsp.models.network import SegmentationNetwork, TrainingOutput


@contextmanager
def memory_errors() -> Iterator[None]:
    """A GPU's memory that runs out is said in our words."""
    try:
        yield
    except torch.OutOfMemoryError as error:
        raise TrainingError(
            "The GPU's memory is too small for this batch. Lower batch_size (--batch-size) or chip_size, "
            "or take a smaller backbone."
        ) from error


LARGEST = 64


MIN_STEPS = 10
"""An epoch keeps at least so many steps."""


USABLE_FRACTION = 0.8
"""Of the free memory that may be used."""


WEIGHT_COPIES = 4
"""Weights, gradients and two moments of AdamW."""


def training_batch_size(
    network: SegmentationNetwork, *, bands: int, size: int, chips: int, device: torch.device
) -> int:
    """The largest power of two, at most 64, with which a training step fits and an epoch of `chips` has ten steps."""
    one, two = (step_bytes(network, torch.zeros(n, bands, size, size), device) for n in (1, 2))
    room = USABLE_FRACTION * free_memory(device) - WEIGHT_COPIES * weight_bytes(network)
    return power_of_two(min(room / max(two - one, 1), chips // MIN_STEPS))


def power_of_two(most: float) -> int:
    """The largest power of two up to `most` and LARGEST; at least 1."""
    return 1 << (max(1, int(min(LARGEST, most))).bit_length() - 1)


def weight_bytes(network: nn.Module) -> int:
    """What the weights take."""
    return sum(p.numel() * p.element_size() for p in network.parameters())


def step_bytes(network: SegmentationNetwork, image: Tensor, device: torch.device) -> int:
    """Bytes of memory that a training step takes for these images, (n, bands, h, w).

    Raises:
        TrainingError: if they do not fit.
    """
    state = {name: value.clone() for name, value in network.state_dict().items()}
    training = network.training
    network.to(device).train()
    try:
        with memory_errors():
            found = (
                _step_peak_on_gpu(network, image.to(device))
                if device.type == "cuda"
                else _saved(network, image.to(device))
            )
    finally:
        network.zero_grad()
        network.cpu().train(training).load_state_dict(state)
    return found


def _step_peak_on_gpu(network: SegmentationNetwork, image: Tensor) -> int:
    """The peak of a whole step, workspaces and all."""
    torch.cuda.reset_peak_memory_stats(image.device)
    before = torch.cuda.memory_allocated(image.device)
    with autocast(image.device):
        _total(network(image)).backward()  # type: ignore[no-untyped-call]
    return int(torch.cuda.max_memory_allocated(image.device)) - before


def _saved(network: nn.Module, image: Tensor) -> int:
    """What the forward pass keeps for the backward one; a tensor kept twice counts once."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(image)
        _total(output)
    return sum(kept.values())


def _total(output: TrainingOutput) -> Tensor:
    """A number that depends on all that is trained."""
    parts = [output.logits, output.aux, output.point_logits]
    return torch.stack([part.float().logsumexp(dim=1).sum() for part in parts if part is not None]).sum()


def free_memory(device: torch.device) -> float:
    """Bytes of memory that are free where the device computes."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return float(psutil.virtual_memory().available)


WAITING = 2
"""Batches a thread whose pixels and results are held beside the one that it computes."""


def inference_batch_size(
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
        return batch, max(1, min(cpu_count(), int(USABLE_FRACTION * free_memory(device) / each)))
    if batch_size:
        return batch_size, 1
    one, two = (forward_bytes(network, n, bands=bands, size=size, device=device, bf16=bf16) for n in (1, 2))
    return power_of_two(USABLE_FRACTION * free_memory(device) / (max(two - one, 0) + waiting)), 1


def forward_bytes(
    network: nn.Module, batch: int, *, bands: int, size: int, device: torch.device, bf16: bool = False
) -> int:
    """Most bytes that live at once, beside the weights, from a batch of tiles to its probabilities.

    On a GPU as measured, workspaces and all; elsewhere as the shapes tell, without computing anything.
    """
    known, shape = _KNOWN.setdefault(network, {}), (batch, bands, size, str(device), bf16)
    if shape not in known:
        measure = _forward_peak_on_gpu if device.type == "cuda" else _by_shapes
        known[shape] = measure(network, batch, bands, size, device, bf16)
    return known[shape]


_KNOWN: weakref.WeakKeyDictionary[nn.Module, dict[tuple[int, int, int, str, bool], int]] = weakref.WeakKeyDictionary()
"""What was found before: by the shapes takes half a second."""


def _forward_peak_on_gpu(
    network: nn.Module, batch: int, bands: int, size: int, device: torch.device, bf16: bool
) -> int:
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    _forward(network, batch, bands, size, device, bf16)
    return int(torch.cuda.max_memory_allocated(device)) - before


def _by_shapes(network: nn.Module, batch: int, bands: int, size: int, device: torch.device, bf16: bool) -> int:
    live = _PeakMemory()
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


class _PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
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
