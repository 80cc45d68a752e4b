"""Pretrained encoders with dilation instead of stride, for any number of bands.

A new family of encoders is a class and an entry in `FAMILIES`.
"""

from __future__ import annotations

import copy
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol
from urllib.parse import urlsplit
from urllib.request import getproxies

import torch
from huggingface_hub import constants, hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors.torch import load_file
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from segmentation_models_pytorch.encoders import get_encoder
from torch import Tensor, nn

from geopsp.core.text import format_error
from geopsp.errors import GeopspError, ModelError

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


DEPTH = 5
"""Stages of a whole encoder: maps at strides 2, 4, 8, 16 and 32 before dilation."""


PROBE = (128, 192)
"""Rows and columns of the image on which encoders are tried; those that take one size only fail on it."""


UNBUILDABLE = (ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError, AssertionError)
"""Errors of smp and timm for names and strides that they do not support."""


OFFLINE = "Pass a local weight file, or `encoder_weights=None` to start from random weights."


class EncoderFamily(Protocol):
    """Encoders of one library."""

    hint: str
    """Which further encoders there are, for error messages; "": those of `names` only."""

    def names(self) -> Sequence[str]:
        """Return the names of encoders that are listed to the user."""

    def has(self, name: str) -> bool:
        """Return True if the name belongs to this family, even if the encoder may turn out not to be usable."""

    def build(self, name: str, *, bands: int, output_stride: int, depth: int) -> nn.Module:
        """Build an encoder with random weights, as described by `build_encoder`."""

    def weights(self, name: str, which: str) -> dict[str, Tensor] | None:
        """Load weights that are published for the encoder, of three bands; None: there are none of that name."""


class SmpFamily:
    """Encoders of segmentation_models_pytorch."""

    hint = ""

    def names(self) -> list[str]:
        """Return the names of those that can be dilated, ResNets first."""
        others = sorted(name for name in smp_encoders if name not in RESNETS and not name.startswith("timm-"))
        return [*RESNETS, *filter(self._can_dilate, others)]

    @staticmethod
    def _can_dilate(name: str) -> bool:
        """Return False for encoders that override smp's dilation, which they do only to refuse it."""
        return bool(smp_encoders[name]["encoder"].make_dilated is smp_encoders[RESNETS[0]]["encoder"].make_dilated)

    def has(self, name: str) -> bool:
        return name in smp_encoders

    def build(self, name: str, *, bands: int, output_stride: int, depth: int) -> nn.Module:
        encoder = _from_smp(name, bands, output_stride, depth)
        if depth < DEPTH or name not in RESNETS:  # whole ResNets have no unused layers
            drop_unused_layers(encoder, bands)
        return encoder

    def weights(self, name: str, which: str) -> dict[str, Tensor] | None:
        """Load them from the cache of the Hugging Face hub, or download them."""
        settings = smp_encoders[name]["pretrained_settings"].get(which)
        if settings is None:
            return None
        file = {"repo_id": settings["repo_id"], "revision": settings["revision"], "filename": "model.safetensors"}
        try:
            path = hf_hub_download(**file, local_files_only=True)
        except LocalEntryNotFoundError:
            require_network(name)
            path = hf_hub_download(**file)
        return dict(load_file(path))


class TimmFamily:
    """Encoders of timm, as tu-NAME."""

    prefix = "tu-"
    hint = (
        "the models of timm that can be dilated, such as its ResNets, ConvNeXts, EfficientNets and MobileNets, as "
        "tu-NAME"
    )

    def names(self) -> list[str]:
        """Return none: only building one tells whether it can be dilated."""
        return []

    def has(self, name: str) -> bool:
        return name.startswith(self.prefix)

    def build(self, name: str, *, bands: int, output_stride: int, depth: int) -> nn.Module:
        encoder = _from_smp(name, bands, output_stride, depth)
        needed = [min(2**level, output_stride) for level in range(1, depth + 1)]
        found = encoder_strides(encoder, bands)  # some take the option and do not dilate
        if found != needed:
            raise ModelError(f"The maps of {name!r} have the strides {found}, but must have {needed}. {_choices()}")
        if depth < DEPTH:
            drop_unused_layers(encoder, bands)
        return encoder

    def weights(self, name: str, which: str) -> dict[str, Tensor] | None:
        """Download timm's own weights; they are called "imagenet"."""
        if which != "imagenet":
            return None
        require_network(name)
        return dict(get_encoder(name, in_channels=3, depth=DEPTH, weights=True).state_dict())


FAMILIES: tuple[EncoderFamily, ...] = (SmpFamily(), TimmFamily())
"""All families of encoders. The first that has a name builds it."""


def supported_backbones() -> list[str]:
    """Return the names of the encoders that can be dilated, ResNets first; tu-NAME is an encoder of timm."""
    return [name for family in FAMILIES for name in family.names()]


def encoder_family(name: str) -> EncoderFamily:
    """Return the family of an encoder.

    Raises:
        ModelError: if there is none.
    """
    for family in FAMILIES:
        if family.has(name):
            return family
    raise ModelError(f"There is no backbone {name!r}. {_choices()}")


def build_encoder(name: str, *, bands: int, output_stride: int, depth: int = DEPTH) -> nn.Module:
    """Build an encoder with random weights, whose last stages are dilated: by 2 and 4 at output stride 8.

    Its forward takes (n, bands, h, w) and returns depth + 1 maps, the input first, at strides 1, 2, 4 ... up to
    `output_stride`. `out_channels` holds their channels, 0 where it has no map. With fewer than five stages it has no
    layers of the others.

    Raises:
        ModelError: if there is no such encoder, or it cannot be dilated.
    """
    family = encoder_family(name)
    try:
        return family.build(name, bands=bands, output_stride=output_stride, depth=depth)
    except GeopspError:
        raise
    except UNBUILDABLE as error:
        reason = f"{type(error).__name__}: {format_error(error)}".removesuffix(": ")
        raise ModelError(
            f"Cannot build the backbone {name!r} with output stride {output_stride}: {reason}. {_choices()}"
        ) from error


def drop_unused_layers(encoder: nn.Module, bands: int) -> None:
    """Replace the layers that no map depends on, so that they hold no weights."""
    maps = encoder.eval()(torch.zeros(1, bands, *PROBE))
    torch.stack([m.sum() for m in maps[1:]]).sum().backward()  # type: ignore[no-untyped-call]
    _drop_without_gradient(encoder)
    encoder.train().zero_grad()


def _drop_without_gradient(module: nn.Module) -> None:
    for name, child in module.named_children():
        weights = list(child.parameters())
        if weights and all(p.grad is None for p in weights):
            setattr(module, name, nn.Identity())
        else:
            _drop_without_gradient(child)


def encoder_strides(encoder: nn.Module, bands: int) -> list[float]:
    """Return the strides of all maps but the first, from their shapes; nothing is computed."""
    on_meta = copy.deepcopy(encoder).to("meta").eval()
    maps = on_meta(torch.zeros(1, bands, *PROBE, device="meta"))
    return [PROBE[0] / m.shape[-2] for m in maps[1:]]


def require_network(name: str) -> None:
    """Check that the Hugging Face hub can be found: without a network a download would try for half a minute.

    Raises:
        ModelError: if it cannot.
    """
    if getproxies():
        return
    try:
        socket.getaddrinfo(urlsplit(constants.ENDPOINT).hostname, None)  # the user may have set a mirror
    except OSError as error:
        raise ModelError(f"The weights for {name} are not cached, and there is no network. {OFFLINE}") from error


@contextmanager
def offline() -> Iterator[None]:
    """Keep the Hugging Face hub from using the network in the block."""
    before = constants.HF_HUB_OFFLINE
    constants.HF_HUB_OFFLINE = True
    try:
        yield
    finally:
        constants.HF_HUB_OFFLINE = before


def _from_smp(name: str, bands: int, output_stride: int, depth: int) -> nn.Module:
    encoder: nn.Module = get_encoder(name, in_channels=bands, depth=depth, weights=None, output_stride=output_stride)
    return encoder.to(torch.get_default_device())  # smp makes some tensors on the CPU whatever the default is


def _choices() -> str:
    hints = "".join(f"; and {family.hint}" for family in FAMILIES if family.hint)
    return f"The backbones are {', '.join(supported_backbones())}{hints}."
