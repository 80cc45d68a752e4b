"""Atrous spatial pyramid pooling: each pixel sees its surroundings at several distances, and the tile's mean.

Source: Chen et al., "Encoder-Decoder with Atrous Separable Convolution" (DeepLabv3+, 2018), section 3.1.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geopsp.models.layers import conv_norm_relu, masked_pool, single_cell_norm


class ASPP(nn.Module):
    """A 1x1 convolution, separable 3x3 ones at several rates and the mean of the tile, joined and projected."""

    def __init__(self, channels: int, rates: Sequence[int], outputs: int, dropout: float) -> None:
        super().__init__()
        atrous = [self._atrous(channels, outputs, rate) for rate in rates]
        self.branches = nn.ModuleList([conv_norm_relu(channels, outputs, 1), *atrous])
        self.mean = conv_norm_relu(channels, outputs, 1, norm=single_cell_norm(outputs))
        self.project = conv_norm_relu(outputs * (len(rates) + 2), outputs, 1)
        self.dropout = nn.Dropout2d(dropout)

    @staticmethod
    def _atrous(channels: int, outputs: int, rate: int) -> nn.Sequential:
        """One filter a channel with `rate` cells from tap to tap, then a 1x1 convolution."""
        depthwise = nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate, groups=channels, bias=False)
        return nn.Sequential(depthwise, *conv_norm_relu(channels, outputs, 1))

    def forward(self, features: Tensor, weight: Tensor) -> Tensor:
        """(n, c, h, w) and the valid share (n, 1, h, w) -> (n, outputs, h, w)."""
        [tile] = masked_pool(features, weight, (1,))  # n c 1 1
        mean = self.mean(tile.to(features.dtype))  # n outputs 1 1
        parts = [branch(features) for branch in self.branches]  # n outputs h w
        joined = torch.cat([*parts, mean.expand_as(parts[0])], dim=1)  # n (rates + 2) * outputs h w
        return self.dropout(self.project(joined))  # type: ignore[no-any-return]
