"""How many chips fit into memory at a time."""

from __future__ import annotations

import psutil
import torch
from torch import Tensor, nn

from geopsp.models.build import autocast
from geopsp.models.network import SegmentationNetwork, TrainingOutput
from geopsp.scoring import memory_errors

LARGEST = 64
STEPS = 10
"""An epoch keeps at least so many steps."""

SHARE = 0.8
"""Of the free memory that may be used."""

WEIGHT_COPIES = 4
"""Weights, gradients and two moments of AdamW."""


def batch_that_fits(network: SegmentationNetwork, *, bands: int, size: int, chips: int, device: torch.device) -> int:
    """The largest power of two, at most 64, with which a training step fits and an epoch of `chips` has ten steps."""
    one, two = (step_bytes(network, torch.zeros(n, bands, size, size), device) for n in (1, 2))
    room = SHARE * free(device) - WEIGHT_COPIES * weight_bytes(network)
    return power_of_two(min(room / max(two - one, 1), chips // STEPS))


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
            found = _on_gpu(network, image.to(device)) if device.type == "cuda" else _saved(network, image.to(device))
    finally:
        network.zero_grad()
        network.cpu().train(training).load_state_dict(state)
    return found


def _on_gpu(network: SegmentationNetwork, image: Tensor) -> int:
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


def free(device: torch.device) -> float:
    """Bytes of memory that are free where the device computes."""
    if device.type == "cuda":
        return float(torch.cuda.mem_get_info(device)[0])
    return float(psutil.virtual_memory().available)
