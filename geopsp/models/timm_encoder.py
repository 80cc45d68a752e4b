"""Encoders of timm as pyramids of maps at strides 2, 4, 8, 16 and 32: convolutional, hierarchical and plain ones."""

from __future__ import annotations

import sys
from functools import cache
from typing import Any, NoReturn

import timm
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from geopsp.errors import ModelError
from geopsp.models.encoder_stages import PROBE, maps_on_meta
from geopsp.models.timm_layout import (
    DEPTH,
    PREFIX,
    UNBUILDABLE,
    InputSize,
    TimmLayout,
    create_model,
    read_layout,
    used_maps,
)

PRETRAINED_BANDS = 3


class TimmEncoder(nn.Module):
    """A model of timm as a pyramid.

    Maps of a plain vision transformer are normalised, because the sums in its blocks grow with depth, and resized
    to the stride of their level. Whatever follows can learn the rest: its convolutions of single cells commute with
    resizing.

    Source: Li et al., "Exploring Plain Vision Transformer Backbones for Object Detection" (2022), section 3, and
    Ranftl et al., "Vision Transformers for Dense Prediction" (2021), for maps of four blocks.
    """

    def __init__(self, model: nn.Module, layout: TimmLayout, *, bands: int, output_stride: int, depth: int) -> None:
        """`model`: gives the maps of `used_maps(layout, depth)`, in their order."""
        super().__init__()
        self.model = model
        sources, indices = layout.sources(depth), used_maps(layout, depth)
        self.places = tuple(None if source is None else indices.index(source) for source in sources)
        self.strides = tuple(min(2**level, output_stride) for level in range(1, depth + 1))
        self.out_channels = (bands, *(0 if source is None else layout.channels[source] for source in sources))
        self.input_size, self.channels_last, self.is_plain = layout.input_size, layout.channels_last, layout.is_plain
        takes_all = layout.is_exact and layout.input_size == InputSize()
        self.keeps_size = tuple(
            takes_all and source is not None and min(layout.strides[source], output_stride) == stride
            for source, stride in zip(sources, self.strides, strict=True)
        )

    def forward(self, image: Tensor) -> list[Tensor]:
        """(n, bands, h, w) -> the image, and a map for each level, (n, c, h / stride, w / stride); c may be 0."""
        rows, columns = image.shape[-2:]
        shown = self.input_size.fit(rows, columns)
        resized = image if shown == (rows, columns) else _resize(image, shown, antialias=True)
        maps = [self._normalised(m) for m in self.model(resized)]
        pyramid = [image]
        for place, stride, keeps_size in zip(self.places, self.strides, self.keeps_size, strict=True):
            size = (-(-rows // stride), -(-columns // stride))
            if place is None:
                pyramid.append(maps[0].new_empty(image.shape[0], 0, *size))  # len() would fix the batch in an export
            else:
                pyramid.append(maps[place] if keeps_size else _resize(maps[place], size))
        return pyramid

    def _normalised(self, features: Tensor) -> Tensor:
        """Return a map as (n, c, h, w), that of a plain model with mean 0 and variance 1 over the channels."""
        if self.is_plain:
            last = features if self.channels_last else features.permute(0, 2, 3, 1)
            return F.layer_norm(last, last.shape[-1:]).permute(0, 3, 1, 2)
        return features.permute(0, 3, 1, 2).contiguous() if self.channels_last else features


def build_timm_encoder(name: str, *, bands: int, output_stride: int, depth: int) -> TimmEncoder:
    """Build an encoder with random weights; a layer may be left that no map depends on.

    Raises:
        ModelError: if the model has no maps of strides that are powers of two, or cannot be dilated.
        UNBUILDABLE: timm's own, if it has no such model, or that has no maps.
    """
    layout = read_layout(name)
    options = layout.options
    if needs_dilation(layout, output_stride, depth):
        if not can_be_dilated(name, output_stride, depth):
            refuse_dilation(name, output_stride, layout.natural_stride(depth))
        options = {**options, "output_stride": output_stride}
    model = create_model(name, bands, used_maps(layout, depth), options)
    if bands != PRETRAINED_BANDS and not _takes_bands(name, bands):
        raise ModelError(
            f"The backbone {name!r} takes images of {PRETRAINED_BANDS} bands only, not of {bands}. Choose another one."
        )
    return TimmEncoder(model, layout, bands=bands, output_stride=output_stride, depth=depth)


def refuse_dilation(name: str, output_stride: int, natural: int) -> NoReturn:
    """Raise a ModelError that says which output stride the encoder has."""
    raise ModelError(
        f"The backbone {name!r} cannot be dilated to an output stride of {output_stride}; its own is {natural}. Pass "
        f"`output_stride={natural}`, or choose another backbone."
    )


def needs_dilation(layout: TimmLayout, output_stride: int, depth: int) -> bool:
    """Return True if the last map must have a smaller stride than the model gives it, and cannot be resized to it."""
    return not layout.is_plain and output_stride < layout.natural_stride(depth)


def usable_timm_stride(name: str, wanted: int, depth: int) -> int:
    """Return `wanted` if the model can be dilated to it, else the output stride that it has by itself."""
    layout = read_layout(name)
    natural = layout.natural_stride(depth)
    if natural <= wanted or layout.is_plain:
        return natural
    return wanted if can_be_dilated(name, wanted, depth) else natural


@cache
def can_be_dilated(name: str, output_stride: int, depth: int) -> bool:
    """Return True if timm builds the model with an output stride, and its maps have the strides that follow from it."""
    layout = read_layout(name)
    shown = layout.input_size.fit(*PROBE)
    try:
        with torch.device("meta"):
            options = {**layout.options, "output_stride": output_stride}
            model = create_model(name, PRETRAINED_BANDS, used_maps(layout, depth), options)
            maps = maps_on_meta(model, PRETRAINED_BANDS, shown)
    except UNBUILDABLE:
        return False
    for features, index in zip(maps, used_maps(layout, depth), strict=True):
        stride = min(layout.strides[index], output_stride) * layout.reductions[index] // layout.strides[index]
        cells = features.shape[1:3] if layout.channels_last else features.shape[2:]
        if tuple(cells) != tuple(length // stride for length in shown):
            return False
    return True


def timm_weights(name: str, **options: Any) -> dict[str, Tensor]:
    """Return the weights of an encoder of three bands that timm loads, e.g. with `pretrained=True`."""
    layout = read_layout(name)
    model = create_model(name, 3, used_maps(layout, DEPTH), {**layout.options, **options})
    return {f"model.{key}": value for key, value in model.state_dict().items()}


def convert_timm_weights(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights with the names of an encoder's, if they have those of timm's files or of the model's authors.

    timm's own filter of the model converts what it needs to, such as the names in DINOv2's files and the size of
    positional embeddings.
    """
    if any(key.startswith("model.") for key in state):
        return state
    layout = read_layout(name)
    with torch.device("meta"):
        whole = timm.create_model(name.removeprefix(PREFIX), num_classes=0, **layout.options)
        own = create_model(name, 3, used_maps(layout, DEPTH), layout.options).state_dict()
    convert = getattr(sys.modules[type(whole).__module__], "checkpoint_filter_fn", None)
    found = {_plain_name(key): value for key, value in (convert(dict(state), whole) if convert else state).items()}
    return {f"model.{key}": found[_plain_name(key)] for key in own if _plain_name(key) in found}


def _plain_name(key: str) -> str:
    """Return the name of a weight that is the same in a whole model and in one that gives maps."""
    return key.removeprefix("model.").replace("_", ".")


@cache
def _takes_bands(name: str, bands: int) -> bool:
    layout = read_layout(name)
    try:
        with torch.device("meta"):
            model = create_model(name, bands, used_maps(layout, DEPTH), layout.options)
        maps_on_meta(model, bands, layout.input_size.fit(*PROBE))
    except UNBUILDABLE:
        return False
    return True


def _resize(features: Tensor, size: tuple[int, int], *, antialias: bool = False) -> Tensor:
    """Resize (n, c, h, w) bilinearly; the mean of 2 x 2 cells where it halves."""
    if tuple(features.shape[-2:]) == tuple(size):
        return features
    return F.interpolate(features, size, mode="bilinear", align_corners=False, antialias=antialias)
