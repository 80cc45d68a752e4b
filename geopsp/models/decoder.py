"""From the context's map to logits: straight, or through the encoder's finer maps.

Every decoder gives coarse logits and the fine map that points are decided from.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geopsp.models.layers import conv_norm_relu


class PlainDecoder(nn.Module):
    """Logits at the context's own size."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, context: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(n, c, h/8, w/8) and the encoder's maps -> logits there, and the encoder's map at stride 4."""
        return self.classify(context), features[2]


@dataclass(frozen=True, slots=True)
class Skip:
    """A map of the encoder that the decoder joins."""

    level: int
    """Its place among the encoder's maps; its stride is 2 ** level."""

    channels: int
    """0 where the encoder has no such map; then only its size is taken."""

    narrow: int
    """Channels that it is reduced to before it is joined."""

    width: int
    """Channels after it is joined."""


class SkipDecoder(nn.Module):
    """The context's map, brought up to finer strides one by one and joined at each to the encoder's map there.

    Source: Ronneberger et al., "U-Net" (2015); with stride 4 alone Chen et al., DeepLabv3+ (2018), section 3.1.
    """

    def __init__(self, channels: int, skips: Sequence[Skip], *, dropout: float, classes: int) -> None:
        """`skips`: coarsest first."""
        super().__init__()
        self.levels = tuple(skip.level for skip in skips)
        self.reduce, self.blocks = nn.ModuleList(), nn.ModuleList()
        for skip in skips:
            narrow = skip.narrow if skip.channels else 0
            self.reduce.append(conv_norm_relu(skip.channels, narrow, 1) if narrow else nn.Identity())
            first, second = conv_norm_relu(channels + narrow, skip.width, 3), conv_norm_relu(skip.width, skip.width, 3)
            self.blocks.append(nn.Sequential(first, second))
            channels = skip.width
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, context: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(n, c, h/8, w/8) and the encoder's maps -> logits at the finest skip, and the map that they came from."""
        x = context
        for reduce, block, level in zip(self.reduce, self.blocks, self.levels, strict=True):
            skip = features[level]
            x = F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=False)  # n c h/2^level w/2^level
            x = block(torch.cat([x, reduce(skip)], dim=1))  # n width h/2^level w/2^level
        return self.classify(self.dropout(x)), x
