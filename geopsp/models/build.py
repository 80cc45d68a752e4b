"""From the description of a network to the network.

The numbers of the encoder, the contexts and the decoders stand in their modules, all others here and in `spec`.
"""

from __future__ import annotations

import torch
from torch import nn

from geopsp.models.aux_heads import PixelHead, PresenceHead
from geopsp.models.context import NoContext, build_context
from geopsp.models.decoder import DecoderInput
from geopsp.models.encoder import build_encoder
from geopsp.models.network import SegmentationNetwork
from geopsp.models.parts import DECODERS
from geopsp.models.pointrend import PointRend
from geopsp.models.spec import ModelSpec

DROPOUT = 0.1


AUX_WIDTH = 256


POINT_WIDTH, POINT_LAYERS = 256, 3


TRAIN_POINT_SHARE, POINT_SHARE = 1 / 256, 1 / 32
"""Points per pixel of the image: 1024 of 512 x 512 in training, 8192 in each step of inference."""


@torch.inference_mode(mode=False)  # so that it can be trained, wherever it was built
def build_network(spec: ModelSpec) -> SegmentationNetwork:
    """Build a network with random weights.

    Raises:
        ModelError: if the backbone is unknown or cannot be dilated.
    """
    encoder = build_encoder(spec.backbone, bands=spec.bands, output_stride=spec.output_stride, depth=spec.encoder_depth)
    channels: tuple[int, ...] = tuple(encoder.out_channels)  # type: ignore[arg-type]
    kind = DECODERS[spec.decoder]
    context, width = (
        build_context(channels[-1], spec.context, DROPOUT) if kind.has_context else (NoContext(), channels[-1])
    )
    inputs = DecoderInput(
        width,
        channels,
        spec.output_stride,
        spec.classes,
        DROPOUT,
        decoder_width=spec.decoder_width,
        decoder_stride=spec.decoder_stride,
        atrous_rates=spec.atrous_rates,
    )
    decoder, fine_channels = kind.make(inputs)
    aux = None
    if spec.aux != "none":
        head = PixelHead if spec.aux == "pixel" else PresenceHead
        aux = head(channels[-2], AUX_WIDTH, spec.classes, DROPOUT)
    points = None
    if spec.pointrend:
        points = PointRend(
            fine_channels,
            spec.classes,
            width=POINT_WIDTH,
            layers=POINT_LAYERS,
            train_share=TRAIN_POINT_SHARE,
            share=POINT_SHARE,
        )
    return SegmentationNetwork(encoder, context, decoder, aux, points)


def count_parameters(network: nn.Module) -> int:
    """Count the trainable numbers of a network."""
    return sum(p.numel() for p in network.parameters())
