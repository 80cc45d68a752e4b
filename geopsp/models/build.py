"""From a description to a network; every architecture number is here."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import nn

from geopsp.errors import ModelError
from geopsp.models.decoder import PlainDecoder, UnetDecoder
from geopsp.models.encoder import build_encoder
from geopsp.models.pointrend import PointRend
from geopsp.models.pspnet import PSPNet
from geopsp.models.pyramid import PyramidPooling, conv_norm_relu

PYRAMID_SIZES = (1, 2, 3, 6)
MAX_CONTEXT = 512
"""Channels after the pyramid; a quarter of the encoder's where that is less, but no fewer than 128."""

MIN_CONTEXT = 128
SKIP_WIDTHS = (64, 48, 32)
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
    use_unet: bool = True
    pyramid_sizes: tuple[int, ...] = PYRAMID_SIZES
    """Bins along either side of each pooling; empty: no pyramid, a plain dilated network."""

    pointrend: bool = False
    output_stride: int = 8

    def __post_init__(self) -> None:
        if self.bands < 1 or self.classes < 2:
            raise ModelError(f"Found {self.bands} bands and {self.classes} classes; needed at least 1 and 2.")
        if any(size < 1 for size in self.pyramid_sizes):
            raise ModelError(f"pyramid_sizes are {self.pyramid_sizes}; needed whole numbers from 1.")
        if self.output_stride not in (8, 16, 32):
            raise ModelError(f"output_stride is {self.output_stride}; needed 8, 16 or 32.")

    def to_json(self) -> dict[str, Any]:
        return asdict(self)

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ModelSpec:
        return cls(**{**row, "pyramid_sizes": tuple(row["pyramid_sizes"])})


def build(spec: ModelSpec) -> PSPNet:
    """The network, with random weights.

    Raises:
        ModelError: if the backbone is unknown or cannot be dilated.
    """
    encoder = build_encoder(spec.backbone, bands=spec.bands, output_stride=spec.output_stride)
    channels: list[int] = list(encoder.out_channels)  # type: ignore[arg-type]
    top = channels[-1]
    width = min(MAX_CONTEXT, max(MIN_CONTEXT, top // 4))
    pyramid = PyramidPooling(top, spec.pyramid_sizes, width, DROPOUT)
    decoder, fine = _decoder(spec, channels, width)
    aux = nn.Sequential(
        conv_norm_relu(channels[-2], AUX_WIDTH, 3), nn.Dropout2d(DROPOUT), nn.Conv2d(AUX_WIDTH, spec.classes, 1)
    )
    points = None
    if spec.pointrend:
        points = PointRend(
            fine, spec.classes, width=POINT_WIDTH, layers=POINT_LAYERS, train_share=TRAIN_POINT_SHARE, share=POINT_SHARE
        )
    return PSPNet(encoder, pyramid, decoder, aux, points)


def _decoder(spec: ModelSpec, channels: list[int], width: int) -> tuple[nn.Module, int]:
    """The decoder, and the channels of its map for points."""
    if not spec.use_unet:
        return PlainDecoder(width, spec.classes), channels[2]
    widths = (width // 2, width // 4, width // 8) if width > MIN_CONTEXT else (width, width // 2, width // 4)
    skips = channels[1:4]
    decoder = UnetDecoder(width, skips, skip_widths=SKIP_WIDTHS, widths=widths, dropout=DROPOUT, classes=spec.classes)
    return decoder, widths[-1]


def check_tile(size: int, *, output_stride: int = 8) -> None:
    """Nothing, if the networks take tiles of size x size.

    Raises:
        ModelError: if it does not.
    """
    smallest = max(MIN_TILE, 2 * output_stride)
    if size < smallest or size % 32:
        fits = max(smallest, size + 32 - size % 32)
        raise ModelError(
            f"The network cannot take chips of {size} x {size} pixels; needed a multiple of 32, e.g. {fits}; "
            "smaller ones can be cut from them (chip_size=, --chip-size)."
        )


def count_parameters(network: nn.Module) -> int:
    """Numbers that training sets."""
    return sum(p.numel() for p in network.parameters())


def pick_device(name: str | None = None) -> torch.device:
    """The device asked for, else the first GPU, else the CPU.

    Raises:
        ModelError: if there is no such device.
    """
    if name is None:
        name = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    try:
        device = torch.device(name)
        torch.zeros(1, device=device)
    except (RuntimeError, AssertionError) as error:
        raise ModelError(f"The device {name!r} cannot be used ({error}). Use 'cpu' or 'cuda'.") from error
    return device


def device_words(device: torch.device) -> str:
    """The device as a person would call it."""
    if device.type == "cuda":
        return f"GPU {torch.cuda.get_device_name(device)}"
    return "Apple GPU" if device.type == "mps" else f"CPU, {torch.get_num_threads()} threads"
