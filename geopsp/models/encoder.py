"""Pretrained encoders with dilation in place of stride, for any number of bands."""

from __future__ import annotations

import copy

import torch
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from segmentation_models_pytorch.encoders import get_encoder
from torch import nn

from geopsp.errors import ModelError

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


DEPTH = 5
"""Stages of every encoder here: maps at strides 2, 4, 8, 16 and 32 before dilation."""


PROBE = (128, 192)
"""Rows and columns that an encoder of timm's is tried on; those that take one size alone fail."""


UNBUILDABLE = (ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError, AssertionError)
"""What smp and timm raise on names and strides that they do not know."""


def supported_backbones() -> list[str]:
    """Names of smp's encoders that can be dilated, ResNets first; `tu-NAME` names an encoder of timm."""
    others = sorted(name for name in smp_encoders if name not in RESNETS and not name.startswith("timm-"))
    return [*RESNETS, *filter(_can_dilate, others)]


def _can_dilate(name: str) -> bool:
    """False for encoders that override smp's dilation, which they do only to refuse it."""
    return bool(smp_encoders[name]["encoder"].make_dilated is smp_encoders[RESNETS[0]]["encoder"].make_dilated)


def build_encoder(name: str, *, bands: int, output_stride: int, depth: int = DEPTH) -> nn.Module:
    """An encoder with random weights whose last stages are dilated: 2 then 4 at output stride 8.

    Its forward takes (n, bands, h, w) and gives depth + 1 maps, the input first; `out_channels` holds their channels,
    0 for one that it does not have. Of fewer than five stages the rest is left out, weights and all.

    Raises:
        ModelError: if there is no such encoder, or it cannot be dilated.
    """
    if name not in smp_encoders and not name.startswith("tu-"):
        raise ModelError(f"No backbone is named {name!r}. {_choices()}")
    try:
        encoder: nn.Module = get_encoder(
            name, in_channels=bands, depth=depth, weights=None, output_stride=output_stride
        )
        found = _strides(encoder, bands) if name.startswith("tu-") else None
    except UNBUILDABLE as error:
        reason = f"{type(error).__name__}: {error}".removesuffix(": ")
        raise ModelError(
            f"The backbone {name!r} cannot be built with output stride {output_stride} ({reason}). {_choices()}"
        ) from error
    needed = [min(2**level, output_stride) for level in range(1, depth + 1)]
    if found not in (None, needed):
        raise ModelError(f"The maps of {name!r} have the strides {found}; needed {needed}. {_choices()}")
    if depth < DEPTH or not name.startswith(("tu-", "resnet")):  # those hold nothing else at full depth
        _drop_unused(encoder, bands)
    return encoder


def _drop_unused(encoder: nn.Module, bands: int) -> None:
    """What none of the maps depends on holds no weights any more."""
    maps = encoder.eval()(torch.zeros(1, bands, *PROBE))
    torch.stack([m.sum() for m in maps[1:]]).sum().backward()  # type: ignore[no-untyped-call]
    _prune(encoder)
    encoder.train().zero_grad()


def _prune(module: nn.Module) -> None:
    for name, child in module.named_children():
        weights = list(child.parameters())
        if weights and all(p.grad is None for p in weights):
            setattr(module, name, nn.Identity())
        else:
            _prune(child)


def _strides(encoder: nn.Module, bands: int) -> list[float]:
    """Of its maps but the first, as they come out: some of timm's take the option and do not dilate."""
    shadow = copy.deepcopy(encoder).to("meta").eval()
    maps = shadow(torch.zeros(1, bands, *PROBE, device="meta"))
    return [PROBE[0] / m.shape[-2] for m in maps[1:]]


def _choices() -> str:
    return (
        f"There are {', '.join(supported_backbones())}; and of timm's those that dilate, such as its ResNets, "
        "ConvNeXts, EfficientNets and MobileNets, as tu-NAME."
    )
