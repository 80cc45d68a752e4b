"""What a network starts from."""

from __future__ import annotations

from pathlib import Path

from geopsp.errors import ModelError
from geopsp.models.encoder import load_encoder_weights, read_weights
from geopsp.models.network import SegmentationNetwork
from geopsp.package import WEIGHTS
from geopsp.progress import say


def start_encoder(
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
        say(f"Note: the encoder starts from random weights. {error}")
        return None
    return "imagenet" if weights == "auto" else str(weights)


def start_network(network: SegmentationNetwork, name: str, path: Path, bands: tuple[str, ...]) -> str:
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
    say(f"Started from {what} weights in {file}")
    return f"{file} ({what})"
