"""Decoders: from the context's map to logits, directly or with the encoder's finer maps.

Each decoder returns coarse logits and the fine map from which PointRend decides points. A new decoder is a class, a
function that makes it, and an entry in `parts.DECODERS`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geopsp.models.context import MIN_CONTEXT
from geopsp.models.layers import conv_norm_relu
from geopsp.models.parts import MIN_WIDTH

SKIP_WIDTHS = {16: 96, 8: 64, 4: 48, 2: 32}
"""Channels to which the U-Net of fixed widths reduces the encoder's maps, by stride."""


WIDEST_STRIDE = 16
"""Stride of the widest step of that U-Net; each finer one has at most half the channels."""


DEEPLAB_SKIP, DEEPLAB_WIDTH = 48, 256
"""Channels of DeepLab's skip, before and after it is joined. Source: DeepLabv3+ (2018), section 4."""


class PlainDecoder(nn.Module):
    """Logits at the size of the context's map."""

    def __init__(self, channels: int, classes: int) -> None:
        super().__init__()
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, context: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(n, c, h/8, w/8) and the encoder's maps -> logits of that size, and the encoder's map at stride 4."""
        return self.classify(context), features[2]


class AtrousClassifiers(nn.Module):
    """The sum of 3x3 classifiers of the encoder's last map, each with dilation of its own; there is no context.

    Source: Chen et al., "DeepLab" (TPAMI 2017), section 3.2, with several rates (ASPP); with one (LargeFOV) Chen et
    al., "Semantic Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs" (2015), section 3.1.
    """

    def __init__(self, channels: int, rates: Sequence[int], classes: int) -> None:
        super().__init__()
        self.classify = nn.ModuleList(nn.Conv2d(channels, classes, 3, padding=rate, dilation=rate) for rate in rates)

    def forward(self, context: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(n, c, h/8, w/8) and the encoder's maps -> logits of that size, and the encoder's map at stride 4."""
        return torch.stack([classify(context) for classify in self.classify]).sum(dim=0), features[2]


@dataclass(frozen=True, slots=True)
class Skip:
    """A map of the encoder that the decoder joins."""

    level: int
    """Index of the map; its stride is 2 ** level."""

    channels: int
    """0 where the encoder has no such map; then only its size is used."""

    reduced: int
    """Channels to which it is reduced before it is joined; 0: it is joined as it is."""

    width: int
    """Channels after it is joined."""


class SkipDecoder(nn.Module):
    """The context's map, upsampled stride by stride and joined at each with the encoder's map.

    Source: Ronneberger et al., "U-Net" (2015); with stride 4 alone Chen et al., DeepLabv3+ (2018), section 3.1.
    """

    def __init__(self, channels: int, skips: Sequence[Skip], *, dropout: float, classes: int) -> None:
        """`skips`: coarsest first."""
        super().__init__()
        self.levels = tuple(skip.level for skip in skips)
        self.reduce, self.blocks = nn.ModuleList(), nn.ModuleList()
        for skip in skips:
            reduced = skip.reduced if skip.channels else 0
            self.reduce.append(conv_norm_relu(skip.channels, reduced, 1) if reduced else nn.Identity())
            joined = channels + (reduced or skip.channels)
            first, second = conv_norm_relu(joined, skip.width, 3), conv_norm_relu(skip.width, skip.width, 3)
            self.blocks.append(nn.Sequential(first, second))
            channels = skip.width
        self.dropout = nn.Dropout2d(dropout)
        self.classify = nn.Conv2d(channels, classes, 1)

    def forward(self, context: Tensor, features: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """(n, c, h/8, w/8) and the encoder's maps -> logits at the finest skip, and the map they are computed from."""
        x = context
        for reduce, block, level in zip(self.reduce, self.blocks, self.levels, strict=True):
            skip = features[level]
            x = F.interpolate(x, skip.shape[-2:], mode="bilinear", align_corners=False)  # n c h/2^level w/2^level
            x = block(torch.cat([x, reduce(skip)], dim=1))  # n width h/2^level w/2^level
        return self.classify(self.dropout(x)), x


@dataclass(frozen=True, slots=True)
class DecoderInput:
    """What a decoder is built for."""

    context_channels: int
    encoder_channels: tuple[int, ...]
    """Of the encoder's maps, by level; first those of the image. 0 where there is no such map."""

    output_stride: int
    """Stride of the context's map."""

    classes: int
    dropout: float
    """Share of the channels that are dropped in training."""

    decoder_width: int | None = None
    """Most channels of the U-Net's steps, which follow the encoder's; None: fixed widths."""

    decoder_stride: int = 2
    """Stride of the U-Net's logits."""

    atrous_rates: tuple[int, ...] = ()
    """Dilation of each of the `AtrousClassifiers`."""


def make_plain(inputs: DecoderInput) -> tuple[nn.Module, int]:
    """Build the plain decoder; return it and the channels of its fine map."""
    return PlainDecoder(inputs.context_channels, inputs.classes), inputs.encoder_channels[2]


def make_unet(inputs: DecoderInput) -> tuple[nn.Module, int]:
    """Build the U-Net decoder; return it and the channels of its fine map."""
    return _make_skip_decoder(inputs, _unet_skips(inputs))


def make_deeplab(inputs: DecoderInput) -> tuple[nn.Module, int]:
    """Build DeepLab's decoder; return it and the channels of its fine map."""
    return _make_skip_decoder(inputs, [Skip(2, inputs.encoder_channels[2], DEEPLAB_SKIP, DEEPLAB_WIDTH)])


def make_atrous(inputs: DecoderInput) -> tuple[nn.Module, int]:
    """Build the sum of atrous classifiers; return it and the channels of its fine map."""
    decoder = AtrousClassifiers(inputs.context_channels, inputs.atrous_rates, inputs.classes)
    return decoder, inputs.encoder_channels[2]


def _make_skip_decoder(inputs: DecoderInput, skips: Sequence[Skip]) -> tuple[nn.Module, int]:
    decoder = SkipDecoder(inputs.context_channels, skips, dropout=inputs.dropout, classes=inputs.classes)
    return decoder, skips[-1].width


def _unet_skips(inputs: DecoderInput) -> list[Skip]:
    """Return a skip for each stride finer than the context's, and for 8 where that map is not the context's input."""
    channels, last = inputs.encoder_channels, inputs.output_stride
    strides = [s for s in SKIP_WIDTHS if s < last or (s == last == 8 and len(channels) > 4)]
    make = _fixed_skip if inputs.decoder_width is None else _following_skip
    return [make(inputs, stride.bit_length() - 1) for stride in strides if stride >= inputs.decoder_stride]


def _fixed_skip(inputs: DecoderInput, level: int) -> Skip:
    """Return a skip of the U-Net of earlier versions, whose widths depend on the context's."""
    width = inputs.context_channels
    first = width // 2 if width > MIN_CONTEXT else width
    widths = {16: first, 8: first, 4: first // 2, 2: first // 4}
    return Skip(level, inputs.encoder_channels[level], SKIP_WIDTHS[2**level], widths[2**level])


def _following_skip(inputs: DecoderInput, level: int) -> Skip:
    """Return a skip as wide as the encoder's map, from `MIN_WIDTH` to what `decoder_width` allows at its stride."""
    assert inputs.decoder_width is not None
    channels, widest = inputs.encoder_channels[level], inputs.decoder_width * 2**level // WIDEST_STRIDE
    width = max(MIN_WIDTH, min(channels, widest))
    return Skip(level, channels, width if channels > width else 0, width)
