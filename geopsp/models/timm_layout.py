"""How a model of timm is used as a pyramid of maps, read from the model itself; no family has code of its own.

Its layout says which of its maps stands at which level of the pyramid, and which sizes of images it takes.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import timm
import torch
from torch import nn

from geopsp.errors import ModelError
from geopsp.models.encoder_stages import PROBE, maps_on_meta

PREFIX = "tu-"
"""Begin of the names of timm's models, as in segmentation_models_pytorch."""


DEPTH = 5
"""Levels of a whole pyramid: maps at strides 2, 4, 8, 16 and 32 before dilation."""


ODD_PROBE = (97, 65)


UNBUILDABLE = (ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError, AssertionError)
"""Errors of smp and timm for names, strides and sizes that they do not support."""


FLEXIBLE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False}, {})
"""Options with which models take images of other sizes than those of their training, in the order of preference."""


MAX_MISFIT = 1
"""By how many cells a map may be smaller or larger than its stride says. It is then resized."""


CELLS = (8, 16, 32, 64, 128, 224, 256)
"""Sides of images whose multiples are tried, in pixels of the tile, where a model does not take every size."""


@dataclass(frozen=True, slots=True)
class InputSize:
    """Which sizes of images a model takes."""

    cell: int = 1
    """Pixels of the tile along each side that are shown to the model as `unit` pixels."""

    unit: int = 1
    """The sides of what the model is shown are multiples of it."""

    fixed: tuple[int, int] | None = None
    """The only size that it takes, (rows, columns); None: all multiples of `unit`."""

    def fit(self, rows: int, columns: int) -> tuple[int, int]:
        """Return the size at which the model is shown an image."""
        if self.fixed is not None:
            return self.fixed
        if self.cell == self.unit == 1:
            return rows, columns
        return self._fit_side(rows), self._fit_side(columns)

    def _fit_side(self, length: int) -> int:
        return max(1, math.floor(length / self.cell + 0.5)) * self.unit


@dataclass(frozen=True, slots=True)
class TimmLayout:
    """How a model of timm is used as a pyramid."""

    strides: tuple[int, ...]
    """Of all maps that it can give, in pixels of the tile: powers of two."""

    reductions: tuple[int, ...]
    """Of the same maps, in pixels of what the model is shown. They differ from the strides for patches of 14 pixels."""

    channels: tuple[int, ...]

    usable: tuple[int, ...]
    """Indices of the maps that it does give."""

    options: Mapping[str, Any]
    """Arguments of `timm.create_model`."""

    channels_last: bool
    input_size: InputSize = InputSize()

    is_exact: bool = True
    """False if maps are a cell smaller or larger than their strides say, for want of padding."""

    @property
    def is_plain(self) -> bool:
        """True if all maps have the same stride, as those of a plain vision transformer."""
        return len(set(self.strides)) == 1

    @property
    def may_have_unused_layers(self) -> bool:
        """True of kinds of which no saved models of older versions hold such layers: those refused them."""
        return self.is_plain or self.input_size.fixed is not None or not self.is_exact

    def sources(self, depth: int) -> tuple[int | None, ...]:
        """Return the index of the map for each level from 1; None: a level without a map, which only 1 may be.

        A plain model's blocks are divided evenly among the levels from 2. A level that another model lacks has the map
        of the nearest level.
        """
        if self.is_plain:
            num = len(self.strides)
            blocks = [max(0, (level - 1) * num // (DEPTH - 1) - 1) for level in range(2, depth + 1)]
            return (None, *blocks)
        levels = {self.strides[index].bit_length() - 1: index for index in self.usable}  # the last one of a stride
        deepest = max(depth, min(level for level in levels if level > 0))
        usable = [level for level in sorted(levels) if 0 < level <= deepest]
        nearest = [min(usable, key=lambda level: abs(level - wanted)) for wanted in range(2, depth + 1)]
        return (levels.get(1), *(levels[level] for level in nearest))

    def natural_stride(self, depth: int) -> int:
        """Return the output stride without dilation."""
        coarsest = max(self.strides[index] for index in self.sources(depth) if index is not None)
        return int(min(2**depth, max(8, coarsest)))


def used_maps(layout: TimmLayout, depth: int) -> tuple[int, ...]:
    """Return the indices of the maps that a pyramid of this depth uses, in order."""
    return tuple(sorted({source for source in layout.sources(depth) if source is not None}))


def create_model(name: str, bands: int, indices: Sequence[int] | None, options: Mapping[str, Any]) -> nn.Module:
    """Return a model that gives the maps of these indices, or for None of timm's choice.

    It has random weights, unless the options say otherwise.
    """
    arguments = {"features_only": True, "in_chans": bands, **options}
    if indices is not None:
        arguments["out_indices"] = tuple(indices)
    device = torch.get_default_device()
    try:
        model: nn.Module = timm.create_model(name.removeprefix(PREFIX), **arguments)
    except (RuntimeError, NotImplementedError):
        if device.type != "meta":
            raise
        with torch.device("cpu"):  # some draw their rates from tensors
            model = timm.create_model(name.removeprefix(PREFIX), **arguments)
    return model.to(device)


@functools.lru_cache(maxsize=64)
def read_layout(name: str) -> TimmLayout:
    """Return how a model of timm is used. It is built without weights, and nothing is computed.

    Raises:
        ModelError: if its maps have no strides that are powers of two, or it takes no image.
        UNBUILDABLE: timm's own, if it has no such model, or that has no maps.
    """
    with torch.device("meta"):
        probe, options = _create_flexible(name)
        info = list(probe.feature_info.info)  # type: ignore[union-attr, arg-type]
        layout = _layout_of(name, info, options, channels_last=getattr(probe, "output_fmt", None) == "NHWC")
        model = create_model(name, 3, used_maps(layout, DEPTH), options).eval()
    native = timm.get_pretrained_cfg_value(name.removeprefix(PREFIX), "input_size") or (3, 224, 224)
    for size, examples in _trials(layout, native[1:]):
        misfits = [_misfit(model, layout, example) for example in examples]
        takes_odd = size != InputSize() or _misfit(model, layout, ODD_PROBE) is not None
        if takes_odd and all(misfit is not None and misfit <= MAX_MISFIT for misfit in misfits):
            return replace(layout, input_size=size, is_exact=not any(misfits))
    raise ModelError(
        f"The backbone {name!r} gives no maps of an image of {native[1]} x {native[2]} pixels with the strides "
        f"{layout.reductions} that it states. Choose another backbone."
    )


def _create_flexible(name: str) -> tuple[nn.Module, Mapping[str, Any]]:
    """Return a model and the first options that it takes."""
    for options in FLEXIBLE:
        try:
            return create_model(name, 3, None, options), options
        except TypeError:
            if not options:
                raise
    raise AssertionError


def _layout_of(
    name: str, info: Sequence[Mapping[str, Any]], options: Mapping[str, Any], *, channels_last: bool
) -> TimmLayout:
    """Return the layout of maps as timm describes them, for images of every size."""
    reductions = tuple(int(row["reduction"]) for row in info)
    strides = tuple(2 ** math.ceil(math.log2(reduction)) for reduction in reductions)
    if len({stride / reduction for stride, reduction in zip(strides, reductions, strict=True)}) != 1:
        raise ModelError(
            f"The maps of the backbone {name!r} have strides of {reductions} pixels, which make no pyramid of powers "
            "of two. Choose another backbone."
        )
    usable = tuple(index for index, row in enumerate(info) if row["module"])
    channels = tuple(int(row["num_chs"]) for row in info)
    return TimmLayout(strides, reductions, channels, usable, options, channels_last)


def _trials(layout: TimmLayout, native: tuple[int, int]) -> Iterator[tuple[InputSize, list[tuple[int, int]]]]:
    """Yield sizes of images that the model may take, most general first, each with examples."""
    stride, reduction = layout.strides[0], layout.reductions[0]
    if stride == reduction:
        yield InputSize(), [PROBE]
    for cell in CELLS:
        if cell * reduction % stride == 0 and cell * reduction // stride % reduction == 0:
            unit = cell * reduction // stride
            yield InputSize(cell, unit), [(unit * 3, unit * 2), (unit, unit)]
    yield InputSize(fixed=native), [native]


def _misfit(model: nn.Module, layout: TimmLayout, size: tuple[int, int]) -> int | None:
    """Return by how many cells a map of such an image is smaller or larger than its stride says; None: no maps."""
    try:
        maps = maps_on_meta(model, 3, size)
    except UNBUILDABLE:
        return None
    misfit = 0
    for features, index in zip(maps, used_maps(layout, DEPTH), strict=True):
        if features.ndim != 4:
            return None
        rows, columns, channels = (features if layout.channels_last else features.permute(0, 2, 3, 1)).shape[1:]
        if channels != layout.channels[index]:
            return None
        expected = (length / layout.reductions[index] for length in size)
        misfit = max(misfit, *(math.ceil(abs(n - x)) for n, x in zip((rows, columns), expected, strict=True)))
    return misfit
