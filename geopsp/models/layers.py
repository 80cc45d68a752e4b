"""What several parts of the network are made of: a convolution with its norm, and averages of valid ground."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn


def conv_norm_relu(inputs: int, outputs: int, kernel: int, *, norm: nn.Module | None = None) -> nn.Sequential:
    """A convolution that keeps the size, then a norm (None: BatchNorm) and ReLU."""
    conv = nn.Conv2d(inputs, outputs, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, norm or nn.BatchNorm2d(outputs), nn.ReLU(inplace=True))


def pooled_norm(channels: int) -> nn.GroupNorm:
    """A norm for maps of one cell, where BatchNorm would fail at batch size 1, and give +-1 at 2.

    Its groups have at least 8 channels, since of one or two little is left when their mean is taken away.
    """
    return nn.GroupNorm(math.gcd(32, channels, max(1, channels // 8)), channels)


def bin_matrix(size: int, bins: int, like: Tensor) -> Tensor:
    """(bins, size) of 0 and 1: which of `size` cells overlap each bin, floor(i n / b) up to ceil((i + 1) n / b)."""
    start = torch.arange(bins, device=like.device)[:, None] * size
    apart = torch.arange(size, device=like.device) * bins - start  # bins size; a cell is `bins` wide, a bin `size`
    return ((apart > -bins) & (apart < size)).to(like.dtype)


def masked_pool(features: Tensor, weight: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Weighted means over b x b bins, for each b of `sizes`; where all is valid, adaptive average pooling.

    A bin without a valid cell takes the mean of its nearest bins that have one: enlarged, the means are then over valid
    ground what they would be if the rest did not exist. In float32 or more.

    Args:
        features: (n, c, h, w).
        weight: (n, 1, h, w), the share of each cell that is valid; cells of weight 0 do not count at all.
        sizes: Bins along either side of each result.

    Returns:
        (n, c, b, b) each; 0 where no cell of the whole map is valid.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        weight = weight.to(features.dtype)
        cols = torch.cat([bin_matrix(features.shape[-1], bins, features) for bins in sizes]).T  # w sum(sizes)
        totals, masses = (features * weight) @ cols, weight @ cols  # n c h sum(sizes), n 1 h sum(sizes)
        parts = zip(torch.split(totals, list(sizes), dim=3), torch.split(masses, list(sizes), dim=3), strict=True)
        return [
            _means(bin_matrix(features.shape[-2], bins, features), *part)
            for bins, part in zip(sizes, parts, strict=True)
        ]


def _means(rows: Tensor, total: Tensor, mass: Tensor) -> Tensor:
    """(n, c, b, b) from which rows lie in each bin, (b, h), and the sums along them, (n, c, h, b) and (n, 1, h, b)."""
    total, mass = rows @ total, rows @ mass  # n c b b, n 1 b b
    means = total / mass.clamp_min(torch.finfo(torch.float32).tiny)
    return (means.flatten(2) @ _nearest(mass).mT).view_as(means)


def _nearest(mass: Tensor) -> Tensor:
    """(n, b * b, b * b): each bin as a mean of bins, itself if it has mass, else the nearest that have."""
    cell = torch.arange(mass.shape[-1], device=mass.device)
    apart = (cell[:, None] - cell).square()
    distance = (apart[:, None, :, None] + apart[None, :, None, :]).flatten(2).flatten(0, 1).to(mass.dtype)  # bb bb
    distance = distance.masked_fill(mass.flatten(2) == 0, torch.inf)  # n bb bb
    nearest = (distance == distance.amin(dim=-1, keepdim=True)).to(mass.dtype)
    return nearest / nearest.sum(dim=-1, keepdim=True)
