"""Stages of any encoder, from which of its maps depend on which of its weights."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn

PROBE = (128, 192)
"""Rows and columns of the image on which encoders are tried."""


def encoder_stages(encoder: nn.Module, bands: int) -> list[list[nn.Parameter]]:
    """Return the parameters of each stage, the first stage first, whatever modules they are in.

    A stage holds what its map depends on and no earlier map does. Parameters that no map depends on are in none of
    them. An encoder has at most as many stages as maps. Nothing is computed.

    Args:
        encoder: Made by `build_encoder`.
        bands: Of its images.
    """
    parameters = dict(encoder.named_parameters())
    return [[parameters[name] for name in names] for names in _stage_names(encoder, bands)]


def drop_unused_layers(encoder: nn.Module, bands: int) -> None:
    """Replace the layers that no map depends on, so that they hold no weights.

    Single tensors, and layers that the encoder needs although nothing depends on them, stay and do not train.
    """
    used = {name for names in _stage_names(encoder, bands) for name in names}
    trial = _meta_copy(encoder)
    _drop(trial, used, "")
    if _works(trial, bands):
        _drop(encoder, used, "")
    for name, parameter in encoder.named_parameters():
        if name not in used:
            parameter.requires_grad = False


def maps_on_meta(encoder: nn.Module, bands: int, size: tuple[int, int] = PROBE) -> list[Tensor]:
    """Return the maps of one image, (1, bands, *size), as shapes without numbers; the encoder does not change."""
    return _maps(_meta_copy(encoder), bands, size)


def _meta_copy(encoder: nn.Module) -> nn.Module:
    """Return a copy in evaluation mode, all of whose parameters train, without copying the numbers."""
    memo: dict[int, Tensor] = {id(p): nn.Parameter(p.detach().to("meta")) for p in encoder.parameters()}
    memo |= {id(buffer): buffer.to("meta") for buffer in encoder.buffers()}
    return copy.deepcopy(encoder, memo).eval()


def _maps(encoder: nn.Module, bands: int, size: tuple[int, int]) -> list[Tensor]:
    with torch.device("meta"):
        maps: list[Tensor] = encoder(torch.zeros(1, bands, *size))
    return maps


def _works(encoder: nn.Module, bands: int) -> bool:
    try:
        _maps(encoder, bands, PROBE)
    except (RuntimeError, TypeError, ValueError, AttributeError, AssertionError):
        return False
    return True


@torch.inference_mode(mode=False)
@torch.enable_grad()
def _stage_names(encoder: nn.Module, bands: int) -> list[list[str]]:
    """Return the names of the parameters of each stage; also where the caller computes without gradients."""
    on_meta = _meta_copy(encoder)
    names, found = dict(on_meta.named_parameters()), set()
    stages = []
    for features in _maps(on_meta, bands, PROBE):
        if features.requires_grad and features.numel():
            features.sum().backward(retain_graph=True)  # type: ignore[no-untyped-call]
            stage = [name for name, p in names.items() if p.grad is not None and name not in found]
            found.update(stage)
            stages += [stage] if stage else []
    return stages


def _drop(module: nn.Module, used: set[str], prefix: str) -> None:
    for name, child in module.named_children():
        weights = [f"{prefix}{name}.{key}" for key, _ in child.named_parameters()]
        if weights and used.isdisjoint(weights):
            setattr(module, name, nn.Identity())
        else:
            _drop(child, used, f"{prefix}{name}.")
