"""Weights that a network starts from: published ones, a file, or a saved model."""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import load_file
from torch import Tensor, nn

from geopsp.core.addresses import shown
from geopsp.core.argument_names import did_you_mean
from geopsp.core.bands import has_band_names
from geopsp.core.remote_input import input_path
from geopsp.core.text import format_error
from geopsp.errors import GeopspError, ModelError
from geopsp.models.encoder import OFFLINE, encoder_family, own_weight_names
from geopsp.models.hub import find_weight_set, weight_set_file
from geopsp.models.manifest import WEIGHTS, read_manifest
from geopsp.models.network import SegmentationNetwork
from geopsp.models.spectral_bands import match_spectral_bands
from geopsp.models.stem import COLORS, adapt_stem, match_stem, standardise_stem
from geopsp.models.weight_sets import WEIGHT_SETS, WeightSet

logger = logging.getLogger(__name__)


WHOLE_NETWORK = "the whole network's"
"""What `init_network` says in brackets where it loaded all weights."""


BANDS = "bands"
"""Entry of the metadata of a .safetensors file: names of the bands of the first layer, separated by commas."""


@dataclass(frozen=True, slots=True)
class Pretrained:
    """Tensors of an encoder, and what is known of its bands."""

    tensors: dict[str, Tensor]

    bands: tuple[str, ...] = ()
    """Names of the bands of the first layer, in its order; (): not known."""

    weight_set: WeightSet | None = None
    """Where they are a published set; it was not trained on standardised bands."""

    is_model: bool = False
    """True for a saved model, whose bands need not be among the input's."""


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
    path = input_path(path)
    file = path / WEIGHTS if path.is_dir() else path
    state = read_weights(file)
    own = network.state_dict()
    if state.keys() == own.keys() and all(state[key].shape == own[key].shape for key in own):
        network.load_state_dict(state)
        what = WHOLE_NETWORK
    else:
        load_encoder_weights(network.encoder, name, str(path), bands)
        what = "the encoder's"
    logger.info(f"Loaded {what} weights from {file}")
    return f"{shown(file)} ({what})"


def load_encoder_weights(encoder: nn.Module, name: str, weights: str, band_names: tuple[str, ...]) -> None:
    """Load pretrained weights into an encoder; the filters of its first layer are put on its bands.

    Where the bands of the weights are known (published sets for satellites, saved models, .safetensors files with
    `bands` in their metadata), filters are matched by name, see `match_spectral_bands`; bands that the weights do not
    know start from the mean filter. Other weights for three bands are taken for those of red, green and blue.

    Args:
        encoder: Made by `build_encoder`.
        name: Its name.
        weights: "imagenet" or another name under which weights are published for it; a name of `supported_weights`; a
            local .safetensors or .pth file of an encoder or a whole network; the folder of a saved model.
        band_names: In the order of the input, see `match_stem` and `adapt_stem`.

    Raises:
        ModelError: if the weights cannot be loaded or do not fit, are for another backbone or know none of the bands.
    """
    found = next(pretrained for source in SOURCES if (pretrained := source(name, weights)) is not None)
    own = encoder.state_dict()
    state = _with_stem(found, own, band_names, weights)
    wanted = {key for key in own if not key.endswith("num_batches_tracked")}
    missing = sorted(wanted - state.keys())
    wrong = sorted(key for key in wanted & state.keys() if state[key].shape != own[key].shape)
    if missing or wrong:
        raise ModelError(
            f"The weights {weights} do not fit {name}: of {len(wanted)} tensors, {len(missing)} are missing and "
            f"{len(wrong)} have another shape. The first is {(missing + wrong)[0]}."
        )
    encoder.load_state_dict({key: value for key, value in state.items() if key in own}, strict=False)


def _with_stem(
    found: Pretrained, own: Mapping[str, Tensor], band_names: tuple[str, ...], weights: str
) -> dict[str, Tensor]:
    """Return the tensors with the first layer for these bands."""
    state = dict(found.tensors)
    stem = next(key for key, value in own.items() if value.ndim == 4 and key.endswith("weight"))
    filters = state.get(stem)
    if filters is None or filters.ndim != 4:
        return state
    positions = _positions(found, band_names, weights) if len(found.bands) == filters.shape[1] else ()
    if not positions:
        return state | ({stem: adapt_stem(filters, band_names)} if filters.shape[1] == len(COLORS) else {})
    if found.weight_set is not None:
        norms = (key for key in own if key.endswith("running_mean"))
        norm = next((key for key in norms if key in state and len(state[key]) == len(filters)), "")
        state = standardise_stem(state, stem, norm, found.weight_set.std)
    logger.info(_describe_match(found, band_names, positions, weights))
    return state | {stem: match_stem(state[stem], positions)}


def _positions(found: Pretrained, band_names: tuple[str, ...], weights: str) -> tuple[int | None, ...]:
    """Return the position of each band among those of the weights; (): none is among a saved model's.

    Bands without names, as many as the weights have, are taken in order.
    """
    if not has_band_names(band_names) and len(band_names) == len(found.bands):
        return tuple(range(len(band_names)))
    positions = match_spectral_bands(band_names, found.bands, found.weight_set.sensor if found.weight_set else "")
    if any(position is not None for position in positions):
        return positions
    if found.is_model:
        return ()
    raise ModelError(
        f"The weights {weights} are for the bands {', '.join(found.bands)}, but the images have none of them: "
        f"{', '.join(band_names)}. Set the band names in the images, or choose other weights."
    )


def _describe_match(
    found: Pretrained, band_names: tuple[str, ...], positions: tuple[int | None, ...], weights: str
) -> str:
    """Return one line about bands that were matched, are missing, or are new to the weights."""
    pairs = [(band, found.bands[i]) for band, i in zip(band_names, positions, strict=True) if i is not None]
    used = ", ".join(band if band == own else f"{band} ({own})" for band, own in pairs)
    missing = ", ".join(own for i, own in enumerate(found.bands) if i not in positions)
    new = ", ".join(band for band, i in zip(band_names, positions, strict=True) if i is None)
    parts = [f"The weights {weights} know the bands {used}"]
    parts += [f"the images lack {missing}"] if missing else []
    parts += [f"filters of {new} start from the mean of the others"] if new else []
    parts += [f"licence {found.weight_set.licence}"] if found.weight_set else []
    return "; ".join(parts)


def _weight_set(name: str, weights: str) -> Pretrained | None:
    row = find_weight_set(weights, name)
    if row is None:
        return None
    prefix = "model." if name.startswith("tu-") else ""  # timm's encoders are wrapped
    tensors = read_weights(weight_set_file(row, weights))
    return Pretrained({prefix + key: value for key, value in tensors.items()}, row.bands, row)


def _published_weights(name: str, weights: str) -> Pretrained | None:
    try:
        state = encoder_family(name).weights(name, weights)
    except GeopspError:
        raise
    except Exception as error:  # the hub raises what its HTTP library does
        raise ModelError(
            f"Cannot download the weights {weights!r} for {name}: {format_error(error)}. {OFFLINE}"
        ) from error
    if state is None and weights == "imagenet":
        raise ModelError(f"There are no ImageNet weights for {name}. {OFFLINE}")
    return None if state is None else Pretrained(state)


def _saved_model_weights(_: str, weights: str) -> Pretrained | None:
    file = input_path(weights) / WEIGHTS
    if not file.is_file():
        return None
    try:
        bands = tuple(map(str, read_manifest(file.parent)["bands"]))
    except GeopspError:  # its weights can be read all the same
        bands = ()
    return Pretrained(_encoder_tensors(read_weights(file)), bands if has_band_names(bands) else (), is_model=True)


def _file_weights(name: str, weights: str) -> Pretrained:
    file = input_path(weights)
    return Pretrained(own_weight_names(name, _encoder_tensors(read_weights(file))), _bands_of_file(file))


def _bands_of_file(path: Path) -> tuple[str, ...]:
    if path.suffix != ".safetensors":
        return ()
    with safe_open(path, "pt") as file:
        return tuple(band.strip() for band in (file.metadata() or {}).get(BANDS, "").split(",") if band.strip())


SOURCES: tuple[Callable[[str, str], Pretrained | None], ...] = (
    _weight_set,
    _published_weights,
    _saved_model_weights,
    _file_weights,
)
"""Sources of weights, in the order in which they are tried.

Each takes the encoder's name and the name or path of the weights. It returns the encoder's tensors, or None if the
weights are not of its kind. The last one takes all that is left, and raises a ModelError if it cannot read it.
"""


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
        published = ["imagenet", *(row.name for row in WEIGHT_SETS)]
        raise ModelError(
            f"No weight file {path}.{did_you_mean(path, published)} Pass a .safetensors or .pth file, the folder of a "
            "saved model or, for an encoder, the name of published weights such as 'imagenet' or those of "
            "`supported_weights`."
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
