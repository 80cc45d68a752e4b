"""The context of each pixel: its neighbours alone, or averages of the whole tile as well.

Every context has one interface: the encoder's last map (n, c, h, w) and the valid share of each of its cells,
(n, 1, h, w), give a map (n, outputs, h, w).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geopsp.models.layers import conv_norm_relu, masked_pool, pooled_norm

KERNEL = 3
"""Side of the bottleneck's kernel."""


class Bottleneck(nn.Module):
    """No context but the convolution's own: a dilated fully convolutional network."""

    def __init__(self, channels: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.bottleneck = conv_norm_relu(channels, outputs, KERNEL)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, features: Tensor, weight: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, outputs, h, w)."""
        return self.dropout(self.bottleneck(features))  # type: ignore[no-any-return]


class PyramidPooling(nn.Module):
    """Means of the map at several bin counts, projected, brought back to its size and joined to it.

    Source: Zhao et al., "Pyramid Scene Parsing Network" (2017), section 3.2.
    """

    def __init__(self, channels: int, sizes: Sequence[int], outputs: int, dropout: float) -> None:
        super().__init__()
        self.sizes, self.channels, self.width = tuple(sizes), channels, max(1, channels // len(sizes))
        self.branches = nn.ModuleList(self._branch(channels, self.width, bins) for bins in sizes)
        self.bottleneck = conv_norm_relu(channels + self.width * len(sizes), outputs, KERNEL)
        self.dropout = nn.Dropout2d(dropout)

    @staticmethod
    def _branch(channels: int, width: int, bins: int) -> nn.Sequential:
        return conv_norm_relu(channels, width, 1, norm=pooled_norm(width) if bins == 1 else None)

    def pool(self, features: Tensor, weight: Tensor) -> list[Tensor]:
        """The projected means, (n, width, b, b) for each bin count b."""
        pooled = masked_pool(features, weight, self.sizes)
        return [branch(means.to(features.dtype)) for branch, means in zip(self.branches, pooled, strict=True)]

    def forward(self, features: Tensor, weight: Tensor) -> Tensor:
        """(n, c, h, w) and the valid share (n, 1, h, w) -> (n, outputs, h, w).

        The convolution of the map and the enlarged means, joined, is the sum of their convolutions; and enlarging is
        linear, so that the means' is done on their few bins. Joined and convolved as one map it is the same.
        """
        conv, norm, relu = self.bottleneck.children()
        widths = [self.channels] + [self.width] * len(self.sizes)
        near, *far = torch.split(conv.get_parameter("weight"), widths, dim=1)  # o c 3 3, o width 3 3
        x = F.conv2d(features, near, padding=KERNEL // 2) + upsample_and_convolve(
            self.pool(features, weight), far, features
        )
        return self.dropout(relu(norm(x)))  # type: ignore[no-any-return]


def upsample_and_convolve(means: Sequence[Tensor], kernels: Sequence[Tensor], like: Tensor) -> Tensor:
    """The sum of each map of means, enlarged bilinearly to the size of `like` and convolved: (n, o, h, w).

    Args:
        means: (n, c, b, b) each.
        kernels: (o, c, 3, 3) each.
        like: (..., h, w).
    """
    height, width = like.shape[-2:]
    parts, columns = [], []
    for mean, kernel in zip(means, kernels, strict=True):
        taps = torch.einsum("ocyx,nckl->noykxl", kernel, mean).flatten(4).flatten(2, 3)  # n o 3b 3b
        parts.append(upsampling_matrix(height, mean) @ taps)  # n o h 3b
        columns.append(upsampling_matrix(width, mean))  # w 3b
    return torch.cat(parts, dim=3) @ torch.cat(columns, dim=1).T


def upsampling_matrix(size: int, means: Tensor) -> Tensor:
    """(size, 3 * b): b bins, enlarged bilinearly to `size` cells and padded with 0, as each of three taps sees them."""
    eye = torch.eye(means.shape[-1], device=means.device, dtype=torch.promote_types(means.dtype, torch.float32))
    wide = F.interpolate(eye[None], size, mode="linear", align_corners=False)[0].T  # size b
    padded = F.pad(wide, (0, 0, KERNEL // 2, KERNEL // 2))
    return torch.cat([padded[tap : tap + size] for tap in range(KERNEL)], dim=1).to(means.dtype)


class ASPP(nn.Module):
    """A 1x1 convolution, separable 3x3 ones at several rates and the mean of the tile, joined and projected."""

    def __init__(self, channels: int, rates: Sequence[int], outputs: int, dropout: float) -> None:
        super().__init__()
        atrous = [self._atrous(channels, outputs, rate) for rate in rates]
        self.branches = nn.ModuleList([conv_norm_relu(channels, outputs, 1), *atrous])
        self.mean = conv_norm_relu(channels, outputs, 1, norm=pooled_norm(outputs))
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
