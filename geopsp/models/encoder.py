"""Pretrained encoders with dilation in place of stride, for any number of bands."""

from __future__ import annotations

import pickle
import socket
from pathlib import Path
from urllib.request import getproxies

import torch
from huggingface_hub import hf_hub_download
from huggingface_hub.errors import LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file
from segmentation_models_pytorch.encoders import encoders as smp_encoders
from segmentation_models_pytorch.encoders import get_encoder
from torch import nn

from geopsp.errors import ModelError

RESNETS = ("resnet18", "resnet34", "resnet50", "resnet101", "resnet152")

DEPTH = 5
"""Stages of every encoder here: maps at strides 2, 4, 8, 16 and 32 before dilation."""

OFFLINE = "Pass encoder_weights=None to start from random weights, or the path of a local weight file."


def supported_backbones() -> list[str]:
    """Names that smp knows, ResNets first; `tu-NAME` names an encoder of timm."""
    others = sorted(name for name in smp_encoders if name not in RESNETS and not name.startswith(("tu-", "timm-")))
    return [*RESNETS, *others]


def build_encoder(name: str, *, bands: int, output_stride: int) -> nn.Module:
    """An encoder with random weights whose last stages are dilated: 2 then 4 at output stride 8.

    Its forward takes (n, bands, h, w) and gives six maps, the input first; `out_channels` holds their channels.

    Raises:
        ModelError: if there is no such encoder, or it cannot be dilated.
    """
    if name not in smp_encoders and not name.startswith("tu-"):
        raise ModelError(
            f"No backbone is named {name!r}; there are {', '.join(supported_backbones())}, and tu-NAME for timm's."
        )
    try:
        encoder: nn.Module = get_encoder(
            name, in_channels=bands, depth=DEPTH, weights=None, output_stride=output_stride
        )
    except (ValueError, RuntimeError, TypeError, KeyError, AttributeError) as error:
        raise ModelError(
            f"The backbone {name!r} cannot be built with output stride {output_stride} ({error}). "
            f"Choose another, e.g. {', '.join(RESNETS)}."
        ) from error
    return encoder


def load_encoder_weights(encoder: nn.Module, name: str, weights: str, band_names: tuple[str, ...]) -> None:
    """Pretrained weights are in the encoder; a stem of three bands is adapted to those it has.

    Args:
        encoder: As `build_encoder` made it.
        name: Its name.
        weights: "imagenet", or a local .safetensors or .pth file of the encoder's state.
        band_names: In the order of the input; red, green and blue take the pretrained filters of that colour, any
            other band takes their mean.

    Raises:
        ModelError: if the weights cannot be had or do not fit.
    """
    state = _hub_state(name) if weights == "imagenet" else _file_state(Path(weights))
    own = encoder.state_dict()
    stem = next(key for key, value in own.items() if value.ndim == 4)
    if stem in state and state[stem].shape[1] != own[stem].shape[1]:
        state[stem] = adapt_stem(state[stem], band_names)
    wanted = {key for key in own if not key.endswith("num_batches_tracked")}
    missing = sorted(wanted - state.keys())
    wrong = sorted(key for key in wanted & state.keys() if state[key].shape != own[key].shape)
    if missing or wrong:
        first = (missing + wrong)[0]
        raise ModelError(
            f"The weights {weights} do not fit {name}: {len(missing)} of its {len(wanted)} tensors are missing and "
            f"{len(wrong)} have another shape, the first is {first}."
        )
    encoder.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)


def adapt_stem(filters: torch.Tensor, band_names: tuple[str, ...]) -> torch.Tensor:
    """First-layer filters for these bands, (out, bands, k, k), from those for red, green and blue, (out, 3, k, k).

    Scaled so that bands alike give the response that three such bands gave.
    """
    colors = {"red": 0, "green": 1, "blue": 2}
    mean = filters.mean(dim=1)
    parts = [filters[:, colors[b.lower()]] if b.lower() in colors else mean for b in band_names]
    return torch.stack(parts, dim=1) * (filters.shape[1] / len(band_names))


def _file_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a local file, without a prefix such as "encoder." that all of them share."""
    if not path.exists():
        raise ModelError(f"No weight file {path}; needed 'imagenet', or a .safetensors or .pth file.")
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (SafetensorError, RuntimeError, ValueError, EOFError, pickle.UnpicklingError) as error:
        raise ModelError(f"{path} cannot be read as weights ({error}); needed tensors only, no code.") from error
    state = dict(state.get("state_dict", state))
    inner = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    return inner or dict(state)


def _hub_state(name: str) -> dict[str, torch.Tensor]:
    """ImageNet weights of an encoder, from the local cache or the hub."""
    try:
        if name.startswith("tu-"):
            return _timm_state(name)
        settings = smp_encoders[name]["pretrained_settings"].get("imagenet")
        if settings is None:
            raise ModelError(f"There are no ImageNet weights for {name}. Pass encoder_weights=None or a weight file.")
        place = {"repo_id": settings["repo_id"], "revision": settings["revision"], "filename": "model.safetensors"}
        try:
            path = hf_hub_download(**place, local_files_only=True)
        except LocalEntryNotFoundError:
            _require_hub(name)
            path = hf_hub_download(**place)
        return load_file(path)
    except (OSError, RuntimeError) as error:
        raise ModelError(f"ImageNet weights for {name} cannot be downloaded ({error}). {OFFLINE}") from error


def _timm_state(name: str) -> dict[str, torch.Tensor]:
    _require_hub(name)
    donor = get_encoder(name, in_channels=3, depth=DEPTH, weights=True)
    return dict(donor.state_dict())


def _require_hub(name: str) -> None:
    """Nothing, if the hub can be found; a machine without a network would otherwise try for half a minute."""
    if getproxies():
        return
    try:
        socket.getaddrinfo("huggingface.co", 443)
    except OSError as error:
        raise ModelError(f"ImageNet weights for {name} are not cached and there is no network. {OFFLINE}") from error
