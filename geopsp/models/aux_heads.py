"""Auxiliary heads, which train the encoder's last stage but one directly.

Each takes the map of that stage, (n, c, h, w), and the valid share of its cells, (n, 1, h, w).
"""

from __future__ import annotations

from torch import Tensor, nn

from geopsp.models.layers import conv_norm_relu, masked_pool


class PixelHead(nn.Module):
    """Logits of each pixel's class. Source: Zhao et al., "Pyramid Scene Parsing Network" (2017), section 3.3."""

    def __init__(self, channels: int, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            conv_norm_relu(channels, width, 3), nn.Dropout2d(dropout), nn.Conv2d(width, classes, 1)
        )

    def forward(self, features: Tensor, valid_share: Tensor) -> Tensor:
        """(n, c, h, w) -> (n, classes, h, w)."""
        return self.layers(features)  # type: ignore[no-any-return]


class PresenceHead(nn.Module):
    """Logits of whether each class occurs in the tile."""

    def __init__(self, channels: int, width: int, classes: int, dropout: float) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(channels, width), nn.ReLU(inplace=True), nn.Dropout(dropout), nn.Linear(width, classes)
        )

    def forward(self, features: Tensor, valid_share: Tensor) -> Tensor:
        """(n, c, h, w) and (n, 1, h, w) -> (n, classes)."""
        [mean] = masked_pool(features, valid_share, (1,))  # n c 1 1
        return self.layers(mean.to(features.dtype).flatten(1))  # type: ignore[no-any-return]
