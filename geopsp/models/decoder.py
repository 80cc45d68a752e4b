"""From the pyramid's map to logits: straight, or through the encoder's finer maps."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geopsp.models.pyramid import conv_norm_relu


class PlainDecoder(nn.Module):
    """Logits at the pyramid's own size."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, context: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(n, c, h/8, w/8) and the encoder's maps -> coarse logits there, and the stride-4 map for points."""
        return self.classify(context), features[2]


class UnetDecoder(nn.Module):
    """The pyramid's map, brought up to strides 8, 4 and 2 and joined at each to the encoder's map there."""

    def __init__(
        self,
        channels: int,
        skips: Sequence[int],
        *,
        skip_widths: Sequence[int],
        widths: Sequence[int],
        dropout: float,
        classes: int,
    ) -> None:
        """`skips`: channels of the encoder's maps, finest first; `skip_widths`, `widths`: coarsest first."""
        super().__init__()
        self.reduce, self.blocks = nn.ModuleList(), nn.ModuleList()
        inputs = channels
        for skip, narrow, width in zip(reversed(skips), skip_widths, widths, strict=True):
            self.reduce.append(conv_norm_relu(skip, narrow, 1) if skip else nn.Identity())
            joined = inputs + (narrow if skip else 0)
            self.blocks.append(nn.Sequential(conv_norm_relu(joined, width, 3), conv_norm_relu(width, width, 3)))
            inputs = width
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(inputs, classes, 1)

    def forward(self, context: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(n, c, h/8, w/8) and the encoder's maps -> logits at stride 2, and the map that they came from."""
        x = context
        for reduce, block, skip in zip(self.reduce, self.blocks, reversed(features[1:4]), strict=True):
            x = F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=False)  # n c h/8, h/4, h/2
            x = block(torch.cat([x, reduce(skip)], dim=1))
        return self.classify(self.dropout(x)), x
