"""The kinds of context and decoder, by name. Their modules, which need torch, are imported when one is built."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

MIN_WIDTH = 16
"""Fewest channels of a step of the U-Net whose widths follow the encoder's."""


@dataclass(frozen=True, slots=True)
class ContextKind:
    """A kind of context. The field of `ModelSpec` that selects it holds whole numbers; () does not select it."""

    words: str
    """Name of the numbers in a model's summary, e.g. "rates" in "rates (6, 12, 18)"."""

    make: Callable[[int, tuple[int, ...], float], tuple[nn.Module, int]]
    """Takes the channels of the encoder's last map, the numbers and the dropout.

    Returns the context and the channels of its map.
    """


@dataclass(frozen=True, slots=True)
class DecoderKind:
    """A kind of decoder."""

    words: str
    """Its name in a model's summary."""

    make: Callable[[Any], tuple[nn.Module, int]]
    """Takes a `DecoderInput`; returns the decoder and the channels of its fine map."""

    has_context: bool = True
    """False if it takes the encoder's last map, and the rates are the decoder's own."""


def _by(module: str, function: str) -> Callable[..., tuple[nn.Module, int]]:
    """Return a function of a module that is imported when it is called."""

    def make(*args: Any) -> tuple[nn.Module, int]:
        made: tuple[nn.Module, int] = getattr(import_module(f"geopsp.models.{module}"), function)(*args)
        return made

    return make


CONTEXTS = {
    "pyramid_sizes": ContextKind("pyramid", _by("context", "make_pyramid")),
    "atrous_rates": ContextKind("rates", _by("context", "make_aspp")),
}
"""The kinds of context, by the field of `ModelSpec` that selects them. Without any, the context is a `Bottleneck`."""

DECODERS = {
    "plain": DecoderKind("plain decoder", _by("decoder", "make_plain")),
    "unet": DecoderKind("U-Net decoder", _by("decoder", "make_unet")),
    "deeplab": DecoderKind("one skip", _by("decoder", "make_deeplab")),
    "atrous": DecoderKind("sum of atrous classifiers", _by("decoder", "make_atrous"), has_context=False),
}
"""The kinds of decoder, by their name in `ModelSpec`."""
