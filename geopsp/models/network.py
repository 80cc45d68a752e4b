"""The whole network: encoder, context, decoder, auxiliary head, PointRend."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geopsp.models.pointrend import PointRend


def mask_channels(logits: Tensor, channels: Sequence[int]) -> Tensor:
    """The logits, (n, classes, ...), with those of classes that were not trained out of the running."""
    if not channels:
        return logits
    return logits.index_fill(1, torch.tensor(channels, device=logits.device), -torch.inf)


class TrainingOutput(NamedTuple):
    """What the losses need. Spatial logits are at the image's size."""

    logits: Tensor
    """(n, classes, h, w)"""

    aux: Tensor | None
    """From the encoder's last stage but one: (n, classes, h, w) of pixels, or (n, classes) of what the tile holds."""

    points: Tensor | None
    """(n, k, 2) as (x, y) in 0..1; None without PointRend."""

    point_logits: Tensor | None
    """(n, classes, k)"""


class SegmentationNetwork(nn.Module):
    """Logits for each pixel; what is invalid does not enter the averages over the tile."""

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
        """Logits, (n, classes, h, w); in training mode all that the losses need.

        Args:
            image: (n, bands, h, w), normalised; 0 where invalid.
            valid: (n, 1, h, w), 1 where the image shows ground and 0 elsewhere; None: everywhere 1.
        """
        size = image.shape[-2:]
        valid = torch.ones_like(image[:, :1]) if valid is None else valid
        features = self.encoder(image)  # strides 1, 2, 4, 8, 8, 8 at output stride 8
        context = self.context(features[-1], _share(valid, features[-1]))  # n c h/8 w/8
        coarse, fine = self.decoder(context, features)  # n classes h/8 w/8, h/4 w/4 or h/2 w/2, by the decoder
        if not self.training:
            return self.pointrend.refine(coarse, fine, valid) if self.pointrend else _enlarge(coarse, size)
        points = self.pointrend.train_points(coarse, fine, valid) if self.pointrend else (None, None)
        return TrainingOutput(_enlarge(coarse, size), self._aux(features[-2], valid), *points)

    def _aux(self, features: Tensor, valid: Tensor) -> Tensor | None:
        if self.aux is None:
            return None
        logits: Tensor = self.aux(features, _share(valid, features))  # n classes h/8 w/8, or n classes
        return _enlarge(logits, valid.shape[-2:]) if logits.ndim == 4 else logits.float()

    def _load_from_state_dict(self, state_dict: dict[str, Tensor], prefix: str, *args: Any) -> None:
        """Weights of the first version, whose context was always a pyramid, still fit."""
        moved = {f"{prefix}pyramid.": f"{prefix}context.", f"{prefix}aux.": f"{prefix}aux.layers."}
        if any(key.startswith(f"{prefix}pyramid.") for key in state_dict):
            for key in list(state_dict):
                for old, new in moved.items():
                    if key.startswith(old):
                        state_dict[new + key.removeprefix(old)] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _share(valid: Tensor, features: Tensor) -> Tensor:
    """(n, 1, h, w): of each cell of a map, the share that shows ground."""
    return F.adaptive_avg_pool2d(valid.float(), (features.shape[-2], features.shape[-1]))


def _enlarge(logits: Tensor, size: Sequence[int]) -> Tensor:
    return F.interpolate(logits.float(), list(size), mode="bilinear", align_corners=False)
