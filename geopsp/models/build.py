"""From a description to a network; every architecture number is here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from torch import nn

from geopsp.errors import ModelError
from geopsp.models.aux_heads import PixelHead, PresenceHead
from geopsp.models.context import ASPP, Bottleneck, PyramidPooling
from geopsp.models.decoder import PlainDecoder, Skip, SkipDecoder
from geopsp.models.encoder import build_encoder
from geopsp.models.network import SegmentationNetwork
from geopsp.models.pointrend import PointRend

PYRAMID_SIZES = (1, 2, 3, 6)


ATROUS_RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}
"""By output stride, so that the distances on the ground are the same. Source: DeepLabv3 (2017), section 3.3."""


DECODERS = ("plain", "unet", "deeplab")


AUX_HEADS = ("none", "pixel", "presence")


DEPTHS = (3, 4, 5)


MAX_CONTEXT = 512
"""Channels of the context; a quarter of the encoder's where that is less, but no fewer than 128."""


MIN_CONTEXT = 128


ASPP_WIDTH = 256


SKIP_WIDTHS = {16: 96, 8: 64, 4: 48, 2: 32}
"""Channels that the encoder's maps are reduced to in the U-Net, by stride."""


DEEPLAB_SKIP, DEEPLAB_WIDTH = 48, 256


DROPOUT = 0.1


AUX_WIDTH = 256


POINT_WIDTH, POINT_LAYERS = 256, 3


TRAIN_POINT_SHARE, POINT_SHARE = 1 / 256, 1 / 32
"""Points as a share of the image's pixels: 1024 of 512 x 512 in training, 8192 a step of inference."""


MIN_TILE = 32


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """All that decides a network's shape."""

    backbone: str
    bands: int
    classes: int
    pyramid_sizes: tuple[int, ...] = PYRAMID_SIZES
    """Bins along either side of each pooling; empty: no pyramid."""

    atrous_rates: tuple[int, ...] = ()
    """Cells from tap to tap of each atrous convolution; empty: none. With neither, a plain dilated network."""

    decoder: str = "unet"
    """"plain": logits of the context, enlarged; "unet": through all of the encoder's finer maps; "deeplab": through
    that of stride 4 alone."""

    pointrend: bool = False
    aux: str = "none"
    """What training asks of the encoder's last stage but one: "pixel" classes, "presence" in the tile, or "none"."""

    output_stride: int = 8
    encoder_depth: int = 5
    """Stages of the encoder that are used, 3 to 5; with 3 the pyramid stands in for the deep ones, at stride 8."""

    def __post_init__(self) -> None:
        if self.bands < 1 or self.classes < 2:
            raise ModelError(f"Found {self.bands} bands and {self.classes} classes; needed at least 1 and 2.")
        if not isinstance(self.backbone, str):
            raise ModelError(f"backbone is {self.backbone!r}; needed a name such as 'resnet50'.")
        for name in ("pyramid_sizes", "atrous_rates"):
            if any(not isinstance(size, int) or size < 1 for size in getattr(self, name)):
                raise ModelError(f"{name} are {getattr(self, name)}; needed whole numbers from 1.")
        if self.pyramid_sizes and self.atrous_rates:
            raise ModelError(
                f"Found pyramid_sizes {self.pyramid_sizes} and atrous_rates {self.atrous_rates}; needed one of them, "
                "or neither. Pass () for the other."
            )
        for name, choices in (
            ("decoder", DECODERS),
            ("aux", AUX_HEADS),
            ("output_stride", tuple(ATROUS_RATES)),
            ("encoder_depth", DEPTHS),
        ):
            if getattr(self, name) not in choices:
                raise ModelError(f"{name} is {getattr(self, name)!r}; needed one of {', '.join(map(str, choices))}.")

        if self.output_stride > 2**self.encoder_depth:
            raise ModelError(
                f"output_stride is {self.output_stride} and encoder_depth {self.encoder_depth}; so few stages reach "
                f"{2**self.encoder_depth} at most. Lower output_stride, or raise encoder_depth."
            )

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ModelSpec:
        """The spec that was saved, also by the first version, which knew two decoders and one auxiliary head."""
        fields = dict(row)
        if "use_unet" in fields:
            fields |= {"decoder": "unet" if fields.pop("use_unet") else "plain", "aux": "pixel"}
        for name in {"pyramid_sizes", "atrous_rates"} & fields.keys():
            fields[name] = tuple(fields[name])
        return cls(**fields)


def build_network(spec: ModelSpec) -> SegmentationNetwork:
    """The network, with random weights.

    Raises:
        ModelError: if the backbone is unknown or cannot be dilated.
    """
    encoder = build_encoder(spec.backbone, bands=spec.bands, output_stride=spec.output_stride, depth=spec.encoder_depth)
    channels: list[int] = list(encoder.out_channels)  # type: ignore[arg-type]
    context, width = _context(spec, channels[-1])
    decoder, fine = _decoder(spec, channels, width)
    aux = None
    if spec.aux != "none":
        head = PixelHead if spec.aux == "pixel" else PresenceHead
        aux = head(channels[-2], AUX_WIDTH, spec.classes, DROPOUT)
    points = None
    if spec.pointrend:
        points = PointRend(
            fine, spec.classes, width=POINT_WIDTH, layers=POINT_LAYERS, train_share=TRAIN_POINT_SHARE, share=POINT_SHARE
        )
    return SegmentationNetwork(encoder, context, decoder, aux, points)


def _context(spec: ModelSpec, channels: int) -> tuple[nn.Module, int]:
    """The context, and the channels of its map."""
    if spec.atrous_rates:
        return ASPP(channels, spec.atrous_rates, ASPP_WIDTH, DROPOUT), ASPP_WIDTH
    width = min(MAX_CONTEXT, max(MIN_CONTEXT, channels // 4))
    if spec.pyramid_sizes:
        return PyramidPooling(channels, spec.pyramid_sizes, width, DROPOUT), width
    return Bottleneck(channels, width, DROPOUT), width


def _decoder(spec: ModelSpec, channels: list[int], width: int) -> tuple[nn.Module, int]:
    """The decoder, and the channels of its map for points."""
    if spec.decoder == "plain":
        return PlainDecoder(width, spec.classes), channels[2]
    skips = [Skip(2, channels[2], DEEPLAB_SKIP, DEEPLAB_WIDTH)]
    if spec.decoder == "unet":
        skips = _unet_skips(channels, width, spec.output_stride)
    return SkipDecoder(width, skips, dropout=DROPOUT, classes=spec.classes), skips[-1].width


def _unet_skips(channels: list[int], width: int, last: int) -> list[Skip]:
    """Every stride finer than the context's, `last`, and 8 where that map is not the context's own."""
    first = width // 2 if width > MIN_CONTEXT else width
    widths = {16: first, 8: first, 4: first // 2, 2: first // 4}
    strides = [s for s in widths if s < last or (s == last == 8 and len(channels) > 4)]
    return [
        Skip(i, channels[i], SKIP_WIDTHS[2**i], widths[2**i]) for i in (stride.bit_length() - 1 for stride in strides)
    ]


def check_tile_size(size: int, *, output_stride: int = 8) -> None:
    """Nothing, if the networks take tiles of size x size.

    Raises:
        ModelError: if it does not.
    """
    smallest = max(MIN_TILE, 2 * output_stride)
    if size < smallest or size % 32:
        fits = max(smallest, size + 32 - size % 32)
        raise ModelError(
            f"The network cannot take chips of {size} x {size} pixels; needed a multiple of 32 from {smallest} on, "
            f"e.g. {fits}; smaller ones can be cut from them (chip_size=, --chip-size)."
        )


def count_parameters(network: nn.Module) -> int:
    """Numbers that training sets."""
    return sum(p.numel() for p in network.parameters())
