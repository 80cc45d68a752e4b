"""The segmentation network: encoder, context, decoder, auxiliary head and PointRend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geopsp.models.pointrend import PointRend


def mask_channels(logits: Tensor, channels: Sequence[int]) -> Tensor:
    """Set the logits of excluded channels to -inf, so that they are never the argmax. Logits are (n, classes, ...)."""
    if not channels:
        return logits
    number = torch.arange(logits.shape[1], device=logits.device)  # a list would be copied to a GPU, which waits
    excluded = torch.stack([number == channel for channel in channels]).any(dim=0)
    return logits.masked_fill(excluded.view(-1, *[1] * (logits.ndim - 2)), -torch.inf)


class TrainingOutput(NamedTuple):
    """Inputs of the losses. Spatial logits have the size of the image."""

    logits: Tensor
    """(n, classes, h, w)"""

    aux: Tensor | None
    """Logits of the auxiliary head: (n, classes, h, w) of pixels, or (n, classes) of presence in the tile."""

    points: Tensor | None
    """(n, k, 2) as (x, y) in 0..1; None without PointRend."""

    point_logits: Tensor | None
    """(n, classes, k)"""


class SegmentationNetwork(nn.Module):
    """A network that returns logits for each pixel. Invalid pixels do not count in the means of the tile."""

    def __init__(
        self,
        encoder: nn.Module,
        context: nn.Module,
        decoder: nn.Module,
        aux: nn.Module | None,
        pointrend: PointRend | None,
    ) -> None:
        super().__init__()
        self.encoder, self.context, self.decoder, self.aux, self.pointrend = encoder, context, decoder, aux, pointrend

    def forward(self, image: Tensor, valid: Tensor | None = None) -> Tensor | TrainingOutput:
        """Return logits, (n, classes, h, w); in training mode a `TrainingOutput`.

        Args:
            image: (n, bands, h, w), normalised; 0 where invalid.
            valid: Valid mask, (n, 1, h, w), 1 where there is data, else 0; None: 1 everywhere.
        """
        size = image.shape[-2:]
        valid = torch.ones_like(image[:, :1]) if valid is None else valid
        features = self.encoder(image)  # strides 1, 2, 4, 8, 8, 8 at output stride 8
        context = self.context(features[-1], _valid_share(valid, features[-1]))  # n c h/8 w/8
        coarse, fine = self.decoder(context, features)  # n classes h/8 w/8, h/4 w/4 or h/2 w/2, by the decoder
        if not self.training:
            return self.pointrend.refine(coarse, fine, valid) if self.pointrend else _upsample(coarse, size)
        points = self.pointrend.train_points(coarse, fine, valid) if self.pointrend else (None, None)
        return TrainingOutput(_upsample(coarse, size), self._aux_logits(features[-2], valid), *points)

    def _aux_logits(self, features: Tensor, valid: Tensor) -> Tensor | None:
        if self.aux is None:
            return None
        logits: Tensor = self.aux(features, _valid_share(valid, features))  # n classes h/8 w/8, or n classes
        return _upsample(logits, valid.shape[-2:]) if logits.ndim == 4 else logits.float()

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Load weights, also those of version 1, whose context was always a pyramid."""
        renamed = {f"{prefix}pyramid.": f"{prefix}context.", f"{prefix}aux.": f"{prefix}aux.layers."}
        if any(key.startswith(f"{prefix}pyramid.") for key in state_dict):
            for key in list(state_dict):
                for old, new in renamed.items():
                    if key.startswith(old):
                        state_dict[new + key.removeprefix(old)] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _valid_share(valid: Tensor, features: Tensor) -> Tensor:
    """Return (n, 1, h, w): the fraction of each cell of a map that is valid."""
    return F.adaptive_avg_pool2d(valid.float(), (features.shape[-2], features.shape[-1]))


def _upsample(logits: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(logits.float(), list(size), mode="bilinear", align_corners=False)
