"""Pretrained encoders with dilation in place of stride, for any number of bands."""

from __future__ import annotations

import copy
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

PROBE = (128, 192)
"""Rows and columns that an encoder of timm's is tried on; those that take one size alone fail."""

UNBUILDABLE = (ValueError, RuntimeError, TypeError, KeyError, IndexError, AttributeError, AssertionError)
"""What smp and timm raise on names and strides that they do not know."""

COLORS = {"red": 0, "green": 1, "blue": 2}
"""Bands that pretrained filters know, and where."""

UNREADABLE = (
    SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, TypeError, AttributeError, EOFError, OSError
)  # fmt: skip
"""What loaders raise on files that do not hold named tensors and nothing else."""

OFFLINE = "Pass encoder_weights=None to start from random weights, or the path of a local weight file."


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


def load_encoder_weights(encoder: nn.Module, name: str, weights: str, band_names: tuple[str, ...]) -> None:
    """Pretrained weights are in the encoder; a stem of three bands is adapted to those it has.

    Args:
        encoder: As `build_encoder` made it.
        name: Its name.
        weights: "imagenet" or another name under which smp publishes weights for it; or a local .safetensors or .pth
            file of the encoder's state.
        band_names: In the order of the input, see `adapt_stem`.

    Raises:
        ModelError: if the weights cannot be had or do not fit.
    """
    state = _hub_state(name, weights) if weights in {"imagenet", *_published(name)} else _file_state(Path(weights))
    own = encoder.state_dict()
    stem = next(key for key, value in own.items() if value.ndim == 4)
    if stem in state and state[stem].ndim == 4 and state[stem].shape[1] == len(COLORS):
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

    Red, green and blue take the filters of that colour, any other band their mean, scaled by 3 / bands so that the
    response keeps its size. Three bands of which none is named for a colour are taken for red, green and blue.
    """
    places = [COLORS.get(name.lower()) for name in band_names]
    if len(places) == len(COLORS) and not any(place is not None for place in places):
        return filters
    mean = filters.mean(dim=1)
    parts = [mean if place is None else filters[:, place] for place in places]
    return torch.stack(parts, dim=1) * (len(COLORS) / len(band_names))


def _file_state(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a local file; of a whole network's, those of its encoder."""
    state = read_weights(path)
    inner = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    return inner or state


def read_weights(path: Path) -> dict[str, torch.Tensor]:
    """The tensors in a local file.

    Raises:
        ModelError: if there are none, or it would run code.
    """
    if not path.is_file():
        raise ModelError(
            f"No weight file {path}; needed a .safetensors or .pth file, or for an encoder the name of published "
            "weights such as 'imagenet'."
        )
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
        state = dict(state.get("state_dict", state))
        return {key: value for key, value in state.items() if isinstance(value, torch.Tensor)}
    except UNREADABLE as error:
        # torch's own message would advise to load the file with its code
        kind = type(error).__name__
        raise ModelError(
            f"{path} cannot be read as weights ({kind}); needed a .safetensors or .pth file of named tensors, no code."
        ) from error


def _published(name: str) -> list[str]:
    """Names of an encoder's weights on the hub."""
    return [] if name.startswith("tu-") else sorted(smp_encoders[name]["pretrained_settings"])


def _hub_state(name: str, weights: str) -> dict[str, torch.Tensor]:
    """Published weights of an encoder, from the local cache or the hub."""
    try:
        if name.startswith("tu-"):
            return _timm_state(name)
        settings = smp_encoders[name]["pretrained_settings"].get(weights)
        if settings is None:
            raise ModelError(f"There are no ImageNet weights for {name}. Pass encoder_weights=None or a weight file.")
        place = {"repo_id": settings["repo_id"], "revision": settings["revision"], "filename": "model.safetensors"}
        try:
            path = hf_hub_download(**place, local_files_only=True)
        except LocalEntryNotFoundError:
            _require_hub(name)
            path = hf_hub_download(**place)
        return load_file(path)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(f"The weights {weights!r} for {name} cannot be downloaded ({error}). {OFFLINE}") from error


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
