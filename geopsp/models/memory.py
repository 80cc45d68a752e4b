"""Memory of a training step and of a forward pass, and the batch size that fits."""

from __future__ import annotations

import weakref
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from geopsp.core.free_memory import available_memory
from geopsp.core.parallel import cpu_count
from geopsp.errors import TrainingError
from geopsp.models.device import autocast, memory_format
from geopsp.models.network import SegmentationNetwork, TrainingOutput
from geopsp.models.precision import NetworkPrecision, network_autocast

MAX_BATCH_SIZE = 64


MIN_STEPS = 10
"""Steps that an epoch keeps at least."""


USABLE_FRACTION = 0.8
"""Share of the free memory that is used."""


WEIGHT_COPIES = 4
"""Weights, gradients and two moments of AdamW."""


WAITING_BATCHES = 2
"""Batches for each thread whose pixels and scores are in memory beside the one that is computed."""


OUT_OF_MEMORY = (
    "out of memory", "can't allocate memory", "cannot allocate memory", "not enough memory",
    "cudnn_status_alloc_failed", "allocation_failed", "cudnn_status_not_supported", "unable to find an engine",
    "cublas_status_alloc_failed", "cublas_status_not_initialized", "cusolver_status_alloc_failed",
    "miopenstatusallocfailed", "hipblas_status_alloc_failed", "nvml_success == r",
)  # fmt: skip
"""Words, in lower case, of errors of torch and its libraries where memory runs out.

Only torch's own allocator has an error class for this. cuDNN finds no engine, or takes the call for unsupported, where
its workspace does not fit; cuBLAS cannot be initialised. Sources: lightning.pytorch.utilities.memory.is_oom_error and
accelerate.utils.should_reduce_batch_size.
"""


def is_out_of_memory(error: BaseException) -> bool:
    """Return True if the error says that the memory of a device, or of the machine, is too small."""
    if isinstance(error, torch.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError | OSError) and any(words in str(error).lower() for words in OUT_OF_MEMORY)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Turn errors of memory that runs out into a TrainingError."""
    try:
        yield
    except Exception as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            "The GPU's memory is too small for this batch. Lower `batch_size` or `chip_size`, or use a smaller "
            "backbone."
        ) from error


def power_of_two(limit: float) -> int:
    """Return the largest power of two up to `limit` and `MAX_BATCH_SIZE`; at least 1."""
    return 1 << (max(1, int(min(MAX_BATCH_SIZE, limit))).bit_length() - 1)


def weight_bytes(network: nn.Module) -> int:
    """Return the bytes of all weights."""
    return sum(p.numel() * p.element_size() for p in network.parameters())


def free_memory(device: torch.device) -> float:
    """Return the free bytes of the device's memory; what torch's allocator keeps for later is free, too."""
    if device.type == "cuda":
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return float(torch.cuda.mem_get_info(device)[0] + kept)
    return float(available_memory())


def peak_gpu_bytes(device: torch.device, compute: Callable[[], object]) -> int:
    """Run `compute` and return the most bytes that it allocates on the GPU at a time."""
    torch.cuda.reset_peak_memory_stats(device)
    before = torch.cuda.memory_allocated(device)
    compute()
    return int(torch.cuda.max_memory_allocated(device)) - before


# A training step


def training_batch_size(
    network: SegmentationNetwork, *, bands: int, size: int, chips: int, device: torch.device
) -> int:
    """Return the largest power of two, at most 64, for which a step fits and an epoch of `chips` has ten steps."""
    one, two = (step_bytes(network, torch.zeros(n, bands, size, size), device) for n in (1, 2))
    room = USABLE_FRACTION * free_memory(device) - WEIGHT_COPIES * weight_bytes(network)
    return power_of_two(min(room / max(two - one, 1), chips // MIN_STEPS))


def step_bytes(network: SegmentationNetwork, image: Tensor, device: torch.device) -> int:
    """Return the bytes that a training step on these images, (n, bands, h, w), needs beside the weights.

    On a GPU it is measured; elsewhere it is what the forward pass keeps for the backward pass.

    Raises:
        TrainingError: if a GPU's memory is too small.
    """
    with restored(network), memory_errors():
        network.to(device).train()
        images = image.to(device)
        if device.type == "cuda":
            return peak_gpu_bytes(device, lambda: _step(network, images))
        return _saved_activation_bytes(network, images)


@contextmanager
def restored(network: nn.Module) -> Iterator[None]:
    """Put a network back afterwards as it was: weights, running statistics, mode, without gradients, on the CPU."""
    state, training = {name: value.clone() for name, value in network.state_dict().items()}, network.training
    try:
        yield
    finally:
        network.zero_grad()
        network.cpu().train(training).load_state_dict(state)


def _step(network: SegmentationNetwork, image: Tensor) -> None:
    with autocast(image.device):
        _stand_in_loss(network(image)).backward()  # type: ignore[no-untyped-call]


def _saved_activation_bytes(network: nn.Module, image: Tensor) -> int:
    """Return the bytes that the forward pass keeps for the backward pass; a tensor that is kept twice counts once."""
    kept: dict[int, int] = {}
    weights = {p.untyped_storage().data_ptr() for p in network.parameters()}

    def keep(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            kept[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        output = network(image)
        _stand_in_loss(output)
    return sum(kept.values())


def _stand_in_loss(output: TrainingOutput) -> Tensor:
    """Return a scalar that depends on all outputs that are trained."""
    parts = [output.logits, output.aux, output.point_logits]
    return torch.stack([part.float().logsumexp(dim=1).sum() for part in parts if part is not None]).sum()


# A forward pass


def inference_batch_size(
    network: nn.Module,
    *,
    bands: int,
    classes: int,
    size: int,
    device: torch.device,
    batch_size: int | None = None,
    precision: NetworkPrecision = "fp32",
) -> tuple[int, int]:
    """Return the tiles of a batch, and the number of threads that each compute one batch at a time.

    On the CPU a batch has one tile, and there are as many threads as cores, or fewer if memory is short. On other
    devices one thread computes the largest power of two, at most 64, that fits.

    Args:
        network: It is moved to the device.
        bands: Bands of its input.
        classes: Classes of its output.
        size: Side of a tile, in pixels.
        device: Device that computes.
        batch_size: Tiles of a batch; None: as many as fit.
        precision: Of the network.
    """
    network.to(device).eval()
    waiting = WAITING_BATCHES * 4 * (bands + classes) * size**2
    if device.type == "cpu":
        batch = batch_size or 1
        each = (
            forward_bytes(network, batch, bands=bands, size=size, device=device, precision=precision) + batch * waiting
        )
        return batch, max(1, min(cpu_count(), int(USABLE_FRACTION * free_memory(device) / each)))
    if batch_size:
        return batch_size, 1
    one, two = (forward_bytes(network, n, bands=bands, size=size, device=device, precision=precision) for n in (1, 2))
    return power_of_two(USABLE_FRACTION * free_memory(device) / (max(two - one, 0) + waiting)), 1


def forward_bytes(
    network: nn.Module,
    batch: int,
    *,
    bands: int,
    size: int,
    device: torch.device,
    precision: NetworkPrecision = "fp32",
) -> int:
    """Return the most bytes in use at a time, beside the weights, from a batch of tiles to its probabilities.

    On a GPU it is measured; elsewhere it is derived from the shapes, without computing anything.
    """
    known, shape = _FORWARD_BYTES.setdefault(network, {}), (batch, bands, size, str(device), precision)
    if shape not in known:
        if device.type == "cuda":
            known[shape] = peak_gpu_bytes(device, lambda: _forward(network, batch, bands, size, device, precision))
        else:
            known[shape] = _forward_bytes_by_shapes(network, batch, bands, size, device, precision)
    return known[shape]


_FORWARD_BYTES: weakref.WeakKeyDictionary[nn.Module, dict[tuple[int, int, int, str, str], int]] = (
    weakref.WeakKeyDictionary()
)
"""Results of `forward_bytes`, by network and shape: deriving one takes half a second."""


def _forward_bytes_by_shapes(
    network: nn.Module, batch: int, bands: int, size: int, device: torch.device, precision: NetworkPrecision
) -> int:
    memory = _PeakMemory()
    with FakeTensorMode(allow_non_fake_inputs=True), memory:
        _forward(network, batch, bands, size, device, precision)
    return memory.peak


@torch.no_grad()  # inference_mode hides autocast from FakeTensorMode
def _forward(
    network: nn.Module, batch: int, bands: int, size: int, device: torch.device, precision: NetworkPrecision
) -> None:
    image = torch.zeros(batch, bands, size, size, device=device)
    valid = torch.ones(batch, 1, size, size, device=device)
    with network_autocast(precision, device):
        layout = memory_format(device, half=precision != "fp32")
        logits: Tensor = network(image.contiguous(memory_format=layout), valid)
    logits.float().softmax(dim=1).to(torch.int32)


class _PeakMemory(TorchDispatchMode):  # type: ignore[no-untyped-call]
    """Counts the bytes of the live tensors that are made inside it, and their largest sum."""

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self.peak = self.current = 0
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
            self.current += size
            self.peak = max(self.peak, self.current)
            weakref.finalize(storage, self._forget, name, size)

    def _forget(self, name: int, size: int) -> None:
        self._known.discard(name)
        self.current -= size
