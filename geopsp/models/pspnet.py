"""The whole network: encoder, pyramid pooling, decoder, auxiliary head, PointRend."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geopsp.models.pointrend import PointRend
from geopsp.models.pyramid import PyramidPooling


class TrainingOutput(NamedTuple):
    """What the losses need. Spatial logits are at the image's size."""

    logits: Tensor
    """(n, classes, h, w)"""

    aux: Tensor
    """(n, classes, h, w), from the encoder's last stage but one."""

    points: Tensor | None
    """(n, k, 2) as (x, y) in 0..1; None without PointRend."""

    point_logits: Tensor | None
    """(n, classes, k)"""


class PSPNet(nn.Module):
    """Logits for each pixel; what is invalid is not seen by the pyramid."""

    def __init__(
        self,
        encoder: nn.Module,
        pyramid: PyramidPooling,
        decoder: nn.Module,
        aux: nn.Module,
        pointrend: PointRend | None,
    ) -> None:
        super().__init__()
        self.encoder, self.pyramid, self.decoder, self.aux, self.pointrend = encoder, pyramid, decoder, aux, pointrend

    def forward(self, image: Tensor, valid: Tensor | None = None) -> Tensor | TrainingOutput:
        """Logits, (n, classes, h, w); in training mode all that the losses need.

        Args:
            image: (n, bands, h, w), normalised; 0 where invalid.
            valid: (n, 1, h, w), 1 where the image shows ground and 0 elsewhere; None: everywhere 1.
        """
        size = image.shape[-2:]
        valid = torch.ones_like(image[:, :1]) if valid is None else valid
        features = self.encoder(image)  # strides 1, 2, 4, 8, 8, 8
        weight = F.adaptive_avg_pool2d(valid.float(), features[-1].shape[-2:])  # n 1 h/8 w/8
        context = self.pyramid(features[-1], weight)  # n c h/8 w/8
        coarse, fine = self.decoder(context, features)  # n classes h/8 w/8 (h/2 w/2 with the U-Net)
        if not self.training:
            return self._infer(coarse, fine, valid)
        logits = F.interpolate(coarse.float(), size, mode="bilinear", align_corners=False)
        aux = F.interpolate(self.aux(features[-2]).float(), size, mode="bilinear", align_corners=False)
        points = self.pointrend.train_points(coarse, fine, valid) if self.pointrend else (None, None)
        return TrainingOutput(logits, aux, *points)

    def _infer(self, coarse: Tensor, fine: Tensor, valid: Tensor) -> Tensor:
        if self.pointrend:
            return self.pointrend.refine(coarse, fine, valid)
        return F.interpolate(coarse.float(), valid.shape[-2:], mode="bilinear", align_corners=False)
