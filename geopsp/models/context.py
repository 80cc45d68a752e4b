"""Context modules: what a pixel's class is decided from besides its own place in the image.

A context takes the encoder's last map, (n, c, h, w), and the valid share of its cells, (n, 1, h, w), and returns a map
(n, outputs, h, w). Invalid cells do not count in its means.

A new context is a class, a function that makes it, and an entry in `parts.CONTEXTS`, with a field of that name in
`ModelSpec`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geopsp.models.constants import constant
from geopsp.models.layers import conv_norm_relu, masked_pool, pooled_norm
from geopsp.models.parts import CONTEXTS

KERNEL = 3
"""Side of the bottleneck's kernel, in cells."""


MAX_CONTEXT = 512
"""Most channels of a context. It has a quarter of the encoder's channels, but at least `MIN_CONTEXT`."""


MIN_CONTEXT = 128


ASPP_WIDTH = 256
"""Channels of the atrous spatial pyramid."""


class NoContext(nn.Module):
    """The encoder's last map as it is, for decoders that have a context of their own."""

    def forward(self, features: Tensor, valid_share: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, c, h, w)."""
        return features


class Bottleneck(nn.Module):
    """A single convolution, without means of the tile: the context of a dilated fully convolutional network."""

    def __init__(self, channels: int, outputs: int, dropout: float) -> None:
        super().__init__()
        self.bottleneck = conv_norm_relu(channels, outputs, KERNEL)
        self.dropout = nn.Dropout2d(dropout)

    def forward(self, features: Tensor, valid_share: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, outputs, h, w)."""
        return self.dropout(self.bottleneck(features))  # type: ignore[no-any-return]


class PyramidPooling(nn.Module):
    """Means of the map over several numbers of bins, projected, upsampled and concatenated with it.

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

    def pool(self, features: Tensor, valid_share: Tensor) -> list[Tensor]:
        """Return the projected means, (n, width, b, b) for each number of bins b."""
        pooled = masked_pool(features, valid_share, self.sizes)
        return [branch(means.to(features.dtype)) for branch, means in zip(self.branches, pooled, strict=True)]

    def forward(self, features: Tensor, valid_share: Tensor) -> Tensor:
        """(n, c, h, w) and (n, 1, h, w) -> (n, outputs, h, w).

        The convolution of the concatenated map and means is the sum of their convolutions. Upsampling is linear, so
        the convolution of the means is computed on their few bins.
        """
        conv, norm, relu = self.bottleneck.children()
        widths = [self.channels] + [self.width] * len(self.sizes)
        map_kernel, *mean_kernels = torch.split(conv.get_parameter("weight"), widths, dim=1)  # o c 3 3, o width 3 3
        x = F.conv2d(features, map_kernel, padding=KERNEL // 2) + upsample_and_convolve(
            self.pool(features, valid_share), mean_kernels, features
        )
        return self.dropout(relu(norm(x)))  # type: ignore[no-any-return]


def upsample_and_convolve(means: Sequence[Tensor], kernels: Sequence[Tensor], like: Tensor) -> Tensor:
    """Return the sum, (n, o, h, w), of all maps of means, each upsampled to the size of `like` and convolved.

    Args:
        means: (n, c, b, b) each.
        kernels: (o, c, 3, 3) each.
        like: (..., h, w).
    """
    height, width = like.shape[-2:]
    rows, columns = [], []
    for mean, kernel in zip(means, kernels, strict=True):
        taps = torch.einsum("ocyx,nckl->noykxl", kernel, mean).flatten(4).flatten(2, 3)  # n o 3b 3b
        bins = mean.shape[-1]
        rows.append(constant(upsampling_matrix, height, bins, like=mean) @ taps)  # n o h 3b
        columns.append(constant(upsampling_matrix, width, bins, like=mean))  # w 3b
    return torch.cat(rows, dim=3) @ torch.cat(columns, dim=1).T


def upsampling_matrix(size: int, bins: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return (size, 3 * b): how b bins, upsampled to `size` cells and padded with 0, reach each tap of the kernel."""
    eye = torch.eye(bins, device=device, dtype=torch.promote_types(dtype, torch.float32))
    upsampled = F.interpolate(eye[None], size, mode="linear", align_corners=False)[0].T  # size b
    padded = F.pad(upsampled, (0, 0, KERNEL // 2, KERNEL // 2))
    return torch.cat([padded[tap : tap + size] for tap in range(KERNEL)], dim=1).to(dtype)


class ASPP(nn.Module):
    """Atrous spatial pyramid: a 1x1 convolution, separable 3x3 ones at several rates and the mean of the tile."""

    def __init__(self, channels: int, rates: Sequence[int], outputs: int, dropout: float) -> None:
        super().__init__()
        atrous = [self._atrous(channels, outputs, rate) for rate in rates]
        self.branches = nn.ModuleList([conv_norm_relu(channels, outputs, 1), *atrous])
        self.mean = conv_norm_relu(channels, outputs, 1, norm=pooled_norm(outputs))
        self.project = conv_norm_relu(outputs * (len(rates) + 2), outputs, 1)
        self.dropout = nn.Dropout2d(dropout)

    @staticmethod
    def _atrous(channels: int, outputs: int, rate: int) -> nn.Sequential:
        """Return a depthwise convolution with dilation `rate` and a 1x1 convolution."""
        depthwise = nn.Conv2d(channels, channels, 3, padding=rate, dilation=rate, groups=channels, bias=False)
        return nn.Sequential(depthwise, *conv_norm_relu(channels, outputs, 1))

    def forward(self, features: Tensor, valid_share: Tensor) -> Tensor:
        """(n, c, h, w) and (n, 1, h, w) -> (n, outputs, h, w)."""
        [tile_mean] = masked_pool(features, valid_share, (1,))  # n c 1 1
        mean = self.mean(tile_mean.to(features.dtype))  # n outputs 1 1
        parts = [branch(features) for branch in self.branches]  # n outputs h w
        joined = torch.cat([*parts, mean.expand_as(parts[0])], dim=1)  # n (rates + 2) * outputs h w
        return self.dropout(self.project(joined))  # type: ignore[no-any-return]


def make_pyramid(channels: int, sizes: tuple[int, ...], dropout: float) -> tuple[nn.Module, int]:
    """Build pyramid pooling; return it and the channels of its map."""
    width = _default_width(channels)
    return PyramidPooling(channels, sizes, width, dropout), width


def make_aspp(channels: int, rates: tuple[int, ...], dropout: float) -> tuple[nn.Module, int]:
    """Build ASPP; return it and the channels of its map."""
    return ASPP(channels, rates, ASPP_WIDTH, dropout), ASPP_WIDTH


def build_context(channels: int, selected: Mapping[str, tuple[int, ...]], dropout: float) -> tuple[nn.Module, int]:
    """Build the selected context; return it and the channels of its map.

    Args:
        channels: Of the encoder's last map.
        selected: The numbers of the selected kind, by its name; empty: `Bottleneck`.
        dropout: Share of the channels that are dropped in training.
    """
    for name, numbers in selected.items():
        return CONTEXTS[name].make(channels, numbers, dropout)
    width = _default_width(channels)
    return Bottleneck(channels, width, dropout), width


def _default_width(channels: int) -> int:
    return min(MAX_CONTEXT, max(MIN_CONTEXT, channels // 4))
