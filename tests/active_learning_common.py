"""Networks and images for tests of suggestions."""

from __future__ import annotations

import torch
from torch import nn

CERTAIN, UNSURE = 40, 140
"""Values of pixels: below 100 the first class is certain, above, all classes are nearly equal."""


class Encoder(nn.Module):
    """One map, of the pixels' means in cells of 8 pixels and of their squares."""

    def forward(self, image):
        means = nn.functional.avg_pool2d(image, 8)
        return [image, torch.cat([means, means**2, torch.ones_like(means)], dim=1)]


class Told(nn.Module):
    """Logits that are a function of the pixel's value: the larger, the nearer to equal; above 200 of class 1."""

    def __init__(self, classes=5, *, encoder=True):
        super().__init__()
        self.classes = classes
        if encoder:
            self.encoder = Encoder()

    def forward(self, image, valid=None):
        if hasattr(self, "encoder"):
            self.encoder(image)
        level = image[:, :1]
        logits = torch.zeros(len(image), self.classes, *image.shape[-2:])
        logits[:, :1] = torch.where(level > 200, -9.0, (150 - level).clamp(min=0) / 10)
        logits[:, 1:2] = torch.where(level > 200, 9.0, 0.0)
        return logits


class Positional(Told):
    """Logits that depend on where a pixel lies in its tile, too, so that views differ."""

    def forward(self, image, valid=None):
        logits = super().forward(image, valid)
        across = torch.linspace(0, 6, image.shape[-1])
        logits[:, 2] = torch.where(image[:, 0] > 100, across, torch.zeros(()))
        return logits
