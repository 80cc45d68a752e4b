"""Pyramid pooling: each pixel sees averages of the whole tile.

Source: Zhao et al., "Pyramid Scene Parsing Network" (2017), section 3.2.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def conv_norm_relu(inputs: int, outputs: int, kernel: int) -> nn.Sequential:
    """A convolution that keeps the size, then BatchNorm and ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def bin_matrix(size: int, bins: int, like: Tensor) -> Tensor:
    """(bins, size) of 0 and 1: which of `size` cells lie in each bin, [floor(i n / b), ceil((i + 1) n / b))."""
    i = torch.arange(bins, device=like.device)[:, None]
    cell = torch.arange(size, device=like.device)[None, :]
    inside = (cell >= i * size // bins) & (cell < ((i + 1) * size + bins - 1) // bins)
    return inside.to(like.dtype)


def masked_pool(features: Tensor, weight: Tensor, bins: int) -> Tensor:
    """Weighted means over bins x bins cells; where `weight` is 1 everywhere, adaptive average pooling.

    Args:
        features: (n, c, h, w).
        weight: (n, 1, h, w), the share of each cell that is valid; cells of weight 0 do not count at all.
        bins: Cells along either side of the result.

    Returns:
        (n, c, bins, bins); 0 where a bin has no valid cell.
    """
    rows = bin_matrix(features.shape[-2], bins, features)
    cols = bin_matrix(features.shape[-1], bins, features)
    total = rows @ (features * weight) @ cols.T
    mass = rows @ weight @ cols.T
    return total / mass.clamp_min(torch.finfo(torch.float32).tiny)


class PyramidPooling(nn.Module):
    """Means of the map at several bin counts, projected, brought back to its size and joined to it."""

    def __init__(self, channels: int, sizes: Sequence[int], outputs: int, dropout: float) -> None:
        super().__init__()
        self.sizes = tuple(sizes)
        width = max(1, channels // max(len(sizes), 1))
        self.branches = nn.ModuleList(self._branch(channels, width, bins) for bins in sizes)
        self.bottleneck = conv_norm_relu(channels + width * len(sizes), outputs, 3)
        self.dropout = nn.Dropout2d(dropout)

    @staticmethod
    def _branch(channels: int, width: int, bins: int) -> nn.Sequential:
        """BatchNorm over a single value a channel would fail at batch size 1, and give +-1 at 2: GroupNorm there.

        Its groups have at least 8 channels, since of one or two little is left when their mean is taken away.
        """
        norm = nn.GroupNorm(math.gcd(32, width, max(1, width // 8)), width) if bins == 1 else nn.BatchNorm2d(width)
        return nn.Sequential(nn.Conv2d(channels, width, 1, bias=False), norm, nn.ReLU(inplace=True))

    def forward(self, features: Tensor, weight: Tensor) -> Tensor:
        """(n, c, h, w) and the valid share (n, 1, h, w) -> (n, outputs, h, w)."""
        size = features.shape[-2:]
        parts = [features]
        for bins, branch in zip(self.sizes, self.branches, strict=True):
            with torch.autocast(features.device.type, enabled=False):
                pooled = masked_pool(features.float(), weight, bins)  # n c b b
            context = branch(pooled.to(features.dtype))  # n c/k b b
            parts.append(F.interpolate(context, size, mode="bilinear", align_corners=False))
        return self.dropout(self.bottleneck(torch.cat(parts, dim=1)))  # type: ignore[no-any-return]
