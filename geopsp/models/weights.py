"""Weights that a network starts from: published ones, a file, or a saved model."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from geopsp.core.text import format_error
from geopsp.errors import ModelError
from geopsp.models.encoder import OFFLINE, encoder_family, own_weight_names
from geopsp.models.manifest import WEIGHTS
from geopsp.models.network import SegmentationNetwork

logger = logging.getLogger(__name__)


WHOLE_NETWORK = "the whole network's"
"""What `init_network` says in brackets where it loaded all weights."""


COLORS = {"red": 0, "green": 1, "blue": 2}
"""Input channels of pretrained filters, by band name."""


def init_encoder(
    network: SegmentationNetwork, name: str, weights: str | Path | None, bands: tuple[str, ...]
) -> str | None:
    """Load pretrained weights into a network's encoder.

    Args:
        network: Its encoder is changed.
        name: Of the encoder.
        weights: As for `load_encoder_weights`; "auto": ImageNet weights, or with a warning random ones; None: random.
        bands: Names, in the order of the input.

    Returns:
        The weights that were loaded; None: random ones.

    Raises:
        ModelError: if the weights cannot be loaded or do not fit, unless `weights` is "auto".
    """
    if weights is None:
        return None
    try:
        load_encoder_weights(network.encoder, name, "imagenet" if weights == "auto" else str(weights), bands)
    except ModelError as error:
        if weights != "auto":
            raise
        logger.warning(f"The encoder starts from random weights. {error}")
        return None
    return "imagenet" if weights == "auto" else str(weights)


def init_network(network: SegmentationNetwork, name: str, path: Path, bands: tuple[str, ...]) -> str:
    """Load the weights of a whole network if they fit, else those of its encoder.

    Args:
        network: It is changed.
        name: Of the encoder.
        path: A weight file, or the folder of a saved model.
        bands: Names, in the order of the input.

    Returns:
        The file, and which of its weights were loaded.

    Raises:
        ModelError: if the weights cannot be read, or do not fit the encoder either.
    """
    file = path / WEIGHTS if path.is_dir() else path
    state = read_weights(file)
    own = network.state_dict()
    if state.keys() == own.keys() and all(state[key].shape == own[key].shape for key in own):
        network.load_state_dict(state)
        what = WHOLE_NETWORK
    else:
        load_encoder_weights(network.encoder, name, str(file), bands)
        what = "the encoder's"
    logger.info(f"Loaded {what} weights from {file}")
    return f"{file} ({what})"


def load_encoder_weights(encoder: nn.Module, name: str, weights: str, band_names: tuple[str, ...]) -> None:
    """Load pretrained weights into an encoder; a stem of three bands is adapted to the encoder's.

    Args:
        encoder: Made by `build_encoder`.
        name: Its name.
        weights: "imagenet" or another name under which weights are published for it; a local .safetensors or .pth
            file of an encoder or a whole network; the folder of a saved model.
        band_names: In the order of the input, see `adapt_stem`.

    Raises:
        ModelError: if the weights cannot be loaded or do not fit.
    """
    state = _find_weights(name, weights)
    own = encoder.state_dict()
    stem = next(key for key, value in own.items() if value.ndim == 4 and key.endswith("weight"))
    if stem in state and state[stem].ndim == 4 and state[stem].shape[1] == len(COLORS):
        state[stem] = adapt_stem(state[stem], band_names)
    wanted = {key for key in own if not key.endswith("num_batches_tracked")}
    missing = sorted(wanted - state.keys())
    wrong = sorted(key for key in wanted & state.keys() if state[key].shape != own[key].shape)
    if missing or wrong:
        raise ModelError(
            f"The weights {weights} do not fit {name}: of {len(wanted)} tensors, {len(missing)} are missing and "
            f"{len(wrong)} have another shape. The first is {(missing + wrong)[0]}."
        )
    encoder.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)


def adapt_stem(filters: Tensor, band_names: tuple[str, ...]) -> Tensor:
    """Adapt the filters of a first layer for red, green and blue, (out, 3, k, k), to other bands: (out, bands, k, k).

    Red, green and blue take the filters of their color, other bands the mean of the three, all scaled by 3 / bands to
    keep the size of the response. Three bands without any color among their names are taken for red, green and blue.
    """
    colors = [COLORS.get(name.lower()) for name in band_names]
    if len(colors) == len(COLORS) and not any(color is not None for color in colors):
        return filters
    mean = filters.mean(dim=1)
    parts = [mean if color is None else filters[:, color] for color in colors]
    return torch.stack(parts, dim=1) * (len(COLORS) / len(band_names))


def _published_weights(name: str, weights: str) -> dict[str, Tensor] | None:
    try:
        state = encoder_family(name).weights(name, weights)
    except (OSError, RuntimeError, SafetensorError) as error:
        raise ModelError(
            f"Cannot download the weights {weights!r} for {name}: {format_error(error)}. {OFFLINE}"
        ) from error
    if state is None and weights == "imagenet":
        raise ModelError(f"There are no ImageNet weights for {name}. {OFFLINE}")
    return state


def _saved_model_weights(_: str, weights: str) -> dict[str, Tensor] | None:
    file = Path(weights) / WEIGHTS
    return _encoder_tensors(read_weights(file)) if file.is_file() else None


def _file_weights(name: str, weights: str) -> dict[str, Tensor]:
    return own_weight_names(name, _encoder_tensors(read_weights(Path(weights))))


SOURCES: tuple[Callable[[str, str], dict[str, Tensor] | None], ...] = (
    _published_weights,
    _saved_model_weights,
    _file_weights,
)
"""Sources of weights, in the order in which they are tried.

Each takes the encoder's name and the name or path of the weights. It returns the encoder's tensors, or None if the
weights are not of its kind. The last one takes all that is left, and raises a ModelError if it cannot read it.
"""


def _find_weights(name: str, weights: str) -> dict[str, Tensor]:
    return next(state for source in SOURCES if (state := source(name, weights)) is not None)


def _encoder_tensors(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """Return the tensors of the encoder of a whole network, or all if they are an encoder's."""
    inner = {key.removeprefix("encoder."): value for key, value in state.items() if key.startswith("encoder.")}
    return inner or state


def read_weights(path: Path) -> dict[str, Tensor]:
    """Read the tensors of a .safetensors or .pth file.

    Raises:
        ModelError: if it does not hold named tensors, or would run code.
    """
    if not path.is_file():
        raise ModelError(
            f"No weight file {path}. Pass a .safetensors or .pth file, the folder of a saved model or, for an "
            "encoder, the name of published weights such as 'imagenet'."
        )
    try:
        if path.suffix == ".safetensors":
            state = load_file(path)
        else:
            require_whole(path)
            state = torch.load(path, map_location="cpu", weights_only=True)
        return _named_tensors(state)
    except Exception as error:  # whatever a damaged file makes of the loaders
        # torch's own message would advise to load the file with its code
        kind = type(error).__name__
        raise ModelError(
            f"Cannot read weights from {path} ({kind}): it must be a .safetensors or .pth file of named tensors, "
            "without code."
        ) from error


def require_whole(path: Path) -> None:
    """Check the checksums of a file that torch wrote, which torch itself does not.

    Raises:
        OSError, ValueError, zipfile.BadZipFile, zlib.error: if it is damaged; files in the older format have none.
    """
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            if damaged := archive.testzip():
                raise ValueError(f"the checksum of {damaged} differs")


def _named_tensors(content: Any) -> dict[str, Tensor]:
    """Return the tensors of a weight file, which may be those of a checkpoint.

    Raises:
        ValueError, AttributeError, TypeError: if there are none, or they have no names.
    """
    tensors = {
        key: value for key, value in dict(content.get("state_dict", content)).items() if isinstance(value, Tensor)
    }
    if not tensors or not all(isinstance(key, str) for key in tensors):
        raise ValueError("no named tensors")
    return tensors
