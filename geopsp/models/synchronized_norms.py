"""BatchNorm over all GPUs of a run, where each has few chips."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from timm.layers.norm_act import BatchNormAct2d, convert_sync_batchnorm
from torch import nn

MIN_CHIPS = 8
"""Chips of a batch from which on the statistics of one GPU are as good as those of all (Wu and He, "Group
Normalization", 2018, figure 1): then no GPU waits for the others at each norm."""


PLAIN = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


@contextmanager
def synchronized_norms(network: nn.Module, *, wanted: bool) -> Iterator[None]:
    """Compute the norms of a network over all GPUs for the duration of the block, if wanted.

    Afterwards the network has its own norms again, with the weights and statistics that were trained. A norm of timm
    keeps its activation, which torch's own conversion drops.
    """
    norms = [(name, module) for name, module in network.named_modules() if wanted and _can_convert(module)]
    for name, module in norms:
        network.set_submodule(name, convert_sync_batchnorm(module))  # type: ignore[no-untyped-call]
    try:
        yield
    finally:
        for name, module in norms:
            module.load_state_dict(network.get_submodule(name).state_dict())
            network.set_submodule(name, module)


def _can_convert(module: nn.Module) -> bool:
    return type(module) in PLAIN or isinstance(module, BatchNormAct2d)
