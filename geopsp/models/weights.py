"""What a network starts from."""

from __future__ import annotations

import logging
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
from geopsp.models.encoder import DEPTH
from geopsp.models.network import SegmentationNetwork
from geopsp.models.saved_model import WEIGHTS

logger = logging.getLogger(__name__)


def init_encoder(
    network: SegmentationNetwork, name: str, weights: str | Path | None, bands: tuple[str, ...]
) -> str | None:
    """What the encoder starts from, in the end; "auto" makes do with random weights, and says so."""
    if weights is None:
        return None
    try:
        load_encoder_weights(network.encoder, name, "imagenet" if weights == "auto" else str(weights), bands)
    except ModelError as error:
        if weights != "auto":
            raise
        logger.info(f"the encoder starts from random weights. {error}")
        return None
    return "imagenet" if weights == "auto" else str(weights)


def init_network(network: SegmentationNetwork, name: str, path: Path, bands: tuple[str, ...]) -> str:
    """The whole network's weights if they fit, else the encoder's; and which they were, in words."""
    file = path / WEIGHTS if path.is_dir() else path
    state = read_weights(file)
    own = network.state_dict()
    if state.keys() == own.keys() and all(state[key].shape == own[key].shape for key in own):
        network.load_state_dict(state)
        what = "the whole network's"
    else:
        load_encoder_weights(network.encoder, name, str(file), bands)
        what = "the encoder's"
    logger.info(f"Started from {what} weights in {file}")
    return f"{file} ({what})"


COLORS = {"red": 0, "green": 1, "blue": 2}
"""Bands that pretrained filters know, and where."""


UNREADABLE = (
    SafetensorError, pickle.UnpicklingError, RuntimeError, ValueError, TypeError, AttributeError, EOFError, OSError
)  # fmt: skip
"""What loaders raise on files that do not hold named tensors and nothing else."""


OFFLINE = "Pass encoder_weights=None to start from random weights, or the path of a local weight file."


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
