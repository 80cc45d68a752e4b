"""Building blocks of the network: convolution with norm and ReLU, and pooling over valid cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from geopsp.models.constants import constant


def conv_norm_relu(in_channels: int, out_channels: int, kernel: int, *, norm: nn.Module | None = None) -> nn.Sequential:
    """Return a convolution that keeps the size, with a norm (None: BatchNorm) and ReLU."""
    conv = nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2, bias=False)
    return nn.Sequential(conv, norm or nn.BatchNorm2d(out_channels), nn.ReLU(inplace=True))


def pooled_norm(channels: int) -> nn.GroupNorm:
    """Return a norm for maps of one cell, where BatchNorm fails at batch size 1 and gives +-1 at 2.

    Each group has at least 8 channels: without their mean, one or two channels would hold almost nothing.
    """
    return nn.GroupNorm(math.gcd(32, channels, max(1, channels // 8)), channels)


def bin_matrix(size: int, bins: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return a (bins, size) matrix that is 1 where a cell overlaps a bin, else 0.

    Bin i covers the cells from floor(i size / bins) to ceil((i + 1) size / bins).
    """
    start = torch.arange(bins, device=device)[:, None] * size
    offset = torch.arange(size, device=device) * bins - start  # bins size; a cell is `bins` wide, a bin `size`
    return ((offset > -bins) & (offset < size)).to(dtype)


def _bin_columns(size: int, *sizes: int, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return (size, sum(sizes)), the matrices of several numbers of bins beside each other."""
    return torch.cat([bin_matrix(size, bins, device=device, dtype=dtype) for bins in sizes]).T


def masked_pool(features: Tensor, valid_share: Tensor, sizes: Sequence[int]) -> list[Tensor]:
    """Average the valid cells over b x b bins, for each b of `sizes`, in float32 or more.

    Where all is valid, this is adaptive average pooling. A bin without a valid cell takes the mean of the nearest bins
    that have one, so that the upsampled means of valid cells do not depend on the invalid part.

    Args:
        features: (n, c, h, w).
        valid_share: (n, 1, h, w), the fraction of each cell that is valid; cells of 0 do not count.
        sizes: Numbers of bins along each side.

    Returns:
        (n, c, b, b) for each b; 0 where the whole map is invalid.
    """
    with torch.autocast(features.device.type, enabled=False):
        features = features.to(torch.promote_types(features.dtype, torch.float32))
        weight = valid_share.to(features.dtype)
        cols = constant(_bin_columns, features.shape[-1], *sizes, like=features)  # w sum(sizes)
        sums, weights = (features * weight) @ cols, weight @ cols  # n c h sum(sizes), n 1 h sum(sizes)
        parts = zip(torch.split(sums, list(sizes), dim=3), torch.split(weights, list(sizes), dim=3), strict=True)
        return [
            _bin_means(constant(bin_matrix, features.shape[-2], bins, like=features), *part)
            for bins, part in zip(sizes, parts, strict=True)
        ]


def _bin_means(rows: Tensor, sums: Tensor, weights: Tensor) -> Tensor:
    """Return the means of the bins, (n, c, b, b).

    Args:
        rows: (b, h), 1 where a row overlaps a bin.
        sums: (n, c, h, b), weighted sums along the rows.
        weights: (n, 1, h, b), sums of the weights.
    """
    sums, weights = rows @ sums, rows @ weights  # n c b b, n 1 b b
    means = sums / weights.clamp_min(torch.finfo(torch.float32).tiny)
    return (means.flatten(2) @ _nearest_bins(weights).mT).view_as(means)


def _nearest_bins(weights: Tensor) -> Tensor:
    """Return (n, b * b, b * b): each bin as a mean of bins, of itself if it has weight, else of the nearest that do."""
    distance = constant(_bin_distances, weights.shape[-1], like=weights)
    distance = distance.masked_fill(weights.flatten(2) == 0, torch.inf)  # n bb bb
    nearest = (distance == distance.amin(dim=-1, keepdim=True)).to(weights.dtype)
    return nearest / nearest.sum(dim=-1, keepdim=True)


def _bin_distances(bins: int, *, device: torch.device, dtype: torch.dtype) -> Tensor:
    """Return (b * b, b * b), the squared distances of all bins from each other, in bins."""
    cell = torch.arange(bins, device=device)
    squares = (cell[:, None] - cell).square()
    return (squares[:, None, :, None] + squares[None, :, None, :]).flatten(2).flatten(0, 1).to(dtype)
