"""The bias of the last layers, set to the shares of the classes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from geopsp.models.aux_heads import PixelHead
from geopsp.models.network import SegmentationNetwork

MIN_SHARE = 1e-3
"""Least share of a class: a lower one would silence a rare class for the first part of a run."""


def set_class_bias(network: SegmentationNetwork, pixels: Tensor) -> None:
    """Set the bias of the layers that end in logits to the logarithm of the classes' shares, less their mean.

    The first steps are then not spent on learning how frequent each class is. Channels without pixels, such as ignored
    classes, keep their bias; without any pixels nothing changes. A head of presence keeps its bias too.

    Args:
        network: Its last layers are changed.
        pixels: (classes,) labelled pixels that count, weighted as the loss weights them.

    Source: Lin et al., "Focal Loss for Dense Object Detection" (2017), section 4.1, for one class.
    """
    counted = pixels > 0
    if not counted.any():
        return
    share = (pixels.double() / pixels.sum()).clamp_min(MIN_SHARE).log()
    share -= share[counted].mean()
    with torch.no_grad():
        for layer in _last_layers(network):
            assert isinstance(layer.bias, Tensor)
            layer.bias[counted] = share[counted].to(layer.bias)


def _last_layers(network: SegmentationNetwork) -> list[nn.Module]:
    """Return the layers whose outputs are logits of pixels: of the decoder, PointRend and the auxiliary head."""
    classify = network.decoder.classify
    layers = [classify[0] if isinstance(classify, nn.ModuleList) else classify]  # of a sum one has the bias
    if network.pointrend is not None:
        layers.append(network.pointrend.head.classify)
    if isinstance(network.aux, PixelHead):
        layers.append(network.aux.layers[-1])
    return layers  # type: ignore[return-value]
