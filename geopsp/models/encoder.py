"""Pretrained encoders with dilation instead of stride, for any number of bands.

A new family of encoders is a class and an entry in `FAMILIES`.
"""

from __future__ import annotations

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
from timm.models import is_model_pretrained
from torch import Tensor, nn

from geopsp.core.argument_names import did_you_mean
from geopsp.core.text import format_error
from geopsp.errors import GeopspError, ModelError
from geopsp.models.encoder_stages import drop_unused_layers
from geopsp.models.timm_encoder import (
    build_timm_encoder,
    convert_timm_weights,
    refuse_dilation,
    timm_weights,
    usable_timm_stride,
)
from geopsp.models.timm_layout import DEPTH, PREFIX, UNBUILDABLE, read_layout

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")


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

    def usable_stride(self, name: str, wanted: int, depth: int) -> int:
        """Return the output stride nearest to `wanted` that the encoder has, by dilation or by itself."""

    def shown_size(self, name: str, rows: int, columns: int) -> tuple[int, int]:
        """Return the size at which the encoder is shown an image of so many pixels."""

    def weights(self, name: str, which: str) -> dict[str, Tensor] | None:
        """Load weights that are published for the encoder, of three bands; None: there are none of that name."""


class SmpFamily:
    """Encoders of segmentation_models_pytorch."""

    hint = ""

    def names(self) -> list[str]:
        """Return all names, ResNets first."""
        others = sorted(name for name in smp_encoders if name not in RESNETS and not name.startswith("timm-"))
        return [*RESNETS, *others]

    @staticmethod
    def _can_dilate(name: str) -> bool:
        """Return False for encoders that override smp's dilation, which they do only to refuse it."""
        return bool(smp_encoders[name]["encoder"].make_dilated is smp_encoders[RESNETS[0]]["encoder"].make_dilated)

    def has(self, name: str) -> bool:
        return name in smp_encoders

    def build(self, name: str, *, bands: int, output_stride: int, depth: int) -> nn.Module:
        natural = 2**depth
        if output_stride < natural and not self._can_dilate(name):
            refuse_dilation(name, output_stride, natural)
        encoder = _from_smp(name, bands, output_stride if self._can_dilate(name) else 2**DEPTH, depth)
        if depth < DEPTH or name not in RESNETS:  # whole ResNets have no unused layers
            drop_unused_layers(encoder, bands)
        return encoder

    def usable_stride(self, name: str, wanted: int, depth: int) -> int:
        return wanted if self._can_dilate(name) else 2**depth

    def shown_size(self, name: str, rows: int, columns: int) -> tuple[int, int]:
        return rows, columns

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

    hint = (
        "the models of timm, as tu-NAME: its convolutional ones, hierarchical transformers such as Swin, and plain "
        "vision transformers"
    )

    def names(self) -> list[str]:
        """Return none: there are more than a thousand."""
        return []

    def has(self, name: str) -> bool:
        return name.startswith(PREFIX)

    def build(self, name: str, *, bands: int, output_stride: int, depth: int) -> nn.Module:
        encoder = build_timm_encoder(name, bands=bands, output_stride=output_stride, depth=depth)
        if depth < DEPTH or read_layout(name).may_have_unused_layers:
            drop_unused_layers(encoder, bands)
        return encoder

    def usable_stride(self, name: str, wanted: int, depth: int) -> int:
        return usable_timm_stride(name, wanted, depth)

    def shown_size(self, name: str, rows: int, columns: int) -> tuple[int, int]:
        return read_layout(name).input_size.fit(rows, columns)

    def weights(self, name: str, which: str) -> dict[str, Tensor] | None:
        """Download timm's own weights: "imagenet" is the tag in the name, or timm's choice; or another tag of it."""
        tagged = name if which == "imagenet" else f"{name.partition('.')[0]}.{which}"
        if not is_model_pretrained(tagged.removeprefix(PREFIX)):
            return None
        require_network(name)
        return timm_weights(tagged, pretrained=True)


FAMILIES: tuple[EncoderFamily, ...] = (SmpFamily(), TimmFamily())
"""All families of encoders. The first that has a name builds it."""


def supported_backbones() -> list[str]:
    """Return the names of encoders, ResNets first. More are those of timm, as tu-NAME."""
    return [name for family in FAMILIES for name in family.names()]


def encoder_family(name: str) -> EncoderFamily:
    """Return the family of an encoder.

    Raises:
        ModelError: if there is none.
    """
    for family in FAMILIES:
        if family.has(name):
            return family
    raise ModelError(f"There is no backbone {name!r}.{did_you_mean(name, supported_backbones())} {_choices()}")


def usable_output_stride(name: str, wanted: int, *, depth: int = DEPTH) -> int:
    """Return `wanted` if the encoder has that output stride or can be dilated to it, else the one that it has.

    Raises:
        ModelError: if there is no such encoder.
    """
    family = encoder_family(name)
    with _named_errors(name):
        return family.usable_stride(name, wanted, depth)


def shown_size(name: str, rows: int, columns: int) -> tuple[int, int]:
    """Return the size at which the encoder is shown an image; another one than its own where it takes no other.

    Raises:
        ModelError: if there is no such encoder.
    """
    family = encoder_family(name)
    with _named_errors(name):
        return family.shown_size(name, rows, columns)


def build_encoder(name: str, *, bands: int, output_stride: int, depth: int = DEPTH) -> nn.Module:
    """Build an encoder with random weights, whose last stages are dilated: by 2 and 4 at output stride 8.

    Those that cannot be dilated have the output stride `usable_output_stride`.

    Its forward takes (n, bands, h, w) and returns depth + 1 maps, the input first, at strides 1, 2, 4 ... up to
    `output_stride`. `out_channels` holds their channels, 0 where it has no map. With fewer than five stages it has no
    layers of the others.

    Raises:
        ModelError: if there is no such encoder, or it cannot be dilated.
    """
    family = encoder_family(name)
    with _named_errors(name, f" with output stride {output_stride}"):
        return family.build(name, bands=bands, output_stride=output_stride, depth=depth)


@contextmanager
def _named_errors(name: str, what: str = "") -> Iterator[None]:
    """Raise errors of smp and timm in the block as a ModelError that names the encoder."""
    try:
        yield
    except GeopspError:
        raise
    except UNBUILDABLE as error:
        reason = f"{type(error).__name__}: {format_error(error)}".removesuffix(": ")
        raise ModelError(f"Cannot build the backbone {name!r}{what}: {reason}. {_choices()}") from error


def own_weight_names(name: str, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return weights of a file with the names of the encoder's own: those of timm's files are converted.

    Raises:
        ModelError: if they fit no encoder of that name.
    """
    if not name.startswith(PREFIX):
        return state
    try:
        return convert_timm_weights(name, state)
    except UNBUILDABLE as error:
        raise ModelError(f"The weights do not fit {name}: {format_error(error)}") from error


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
