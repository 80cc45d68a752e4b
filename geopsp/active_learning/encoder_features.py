"""Feature vectors of tiles: the last map of the encoder, averaged over the valid pixels."""

from __future__ import annotations

import threading
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F


class EncoderFeatures:
    """Keeps the features of the tiles that go through a network, for each thread by itself."""

    def __init__(self, network: nn.Module) -> None:
        """Listen to a network with an attribute `encoder`, which gives a list of maps."""
        self._local = threading.local()
        encoder: Any = network.encoder
        self._handles = [
            network.register_forward_pre_hook(self._keep_valid), encoder.register_forward_hook(self._keep_features),
        ]  # fmt: skip

    def begin(self) -> None:
        """Forget what the tiles before gave this thread."""
        self._local.found = []

    def end(self) -> NDArray[np.float32]:
        """Return (n, channels) features of all tiles since `begin`, those that filled up a batch included."""
        found: list[NDArray[np.float32]] = self._local.found
        return np.concatenate(found)

    def _keep_valid(self, _: nn.Module, arguments: tuple[Tensor, Tensor]) -> None:
        self._local.valid = arguments[1]

    def _keep_features(self, _: nn.Module, __: Any, maps: list[Tensor]) -> None:
        if not hasattr(self._local, "found"):
            return
        last = maps[-1].float()  # n c h w
        weight = F.adaptive_avg_pool2d(self._local.valid.float(), (last.shape[-2], last.shape[-1]))  # n 1 h w
        total = weight.sum(dim=(2, 3)).clamp(min=1e-6)
        pooled = (last * weight).sum(dim=(2, 3)) / total
        self._local.found.append(pooled.cpu().numpy())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()
