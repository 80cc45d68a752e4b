"""The network's view of tiles: class probabilities of any symmetry, and a feature vector of each tile."""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any, NamedTuple, Self

import numpy as np
from numpy.typing import NDArray

from geopsp.errors import ModelError
from geopsp.inference.engines import MapModel, engine_of
from geopsp.inference.job import MapJob
from geopsp.inference.predictor import SYMMETRIES
from geopsp.inference.resources import Resources
from geopsp.inference.tile_scores import NOT_FINITE

MAX_FEATURES = 128
"""Numbers of a feature vector; longer ones are projected, so that those of 100,000 windows fit into memory."""

IDENTITY = (0, False)

ORDERED_SYMMETRIES = tuple(dict.fromkeys((IDENTITY, (1, True), (2, False), (3, True), *SYMMETRIES)))
"""All eight symmetries, first the tile as it is, then as its rows and columns are exchanged."""

Floats = NDArray[np.float32]


class View(NamedTuple):
    """A tile as the network is shown it."""

    data: NDArray[Any]
    """(bands, s, s) pixels."""

    valid: NDArray[np.bool_]
    """(s, s)"""

    symmetry: tuple[int, bool] = IDENTITY
    """Quarter turns, and whether the tile is mirrored first."""


class TileViews:
    """Runs a network on tiles; safe to call from several threads."""

    def __init__(self, model: MapModel, job: MapJob, resources: Resources) -> None:
        """Prepare the network; see `Engine.predictor`. Use it as a context, which removes what reads its features."""
        self.predictor = engine_of(model).predictor(
            job, model, resources.device, batch_size=resources.batch_size, compiled=False
        )
        self.num_classes = len(model.legend)
        self._stack = ExitStack()
        self._encoder: Any = None
        network: Any = getattr(model, "network", None)
        if hasattr(network, "encoder"):
            from geopsp.active_learning.encoder_features import EncoderFeatures

            self._encoder = self._stack.enter_context(EncoderFeatures(network))

    @property
    def has_features(self) -> bool:
        """True if tiles have feature vectors."""
        return self._encoder is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def predict(self, views: Sequence[View]) -> tuple[Floats, Floats | None]:
        """Return class probabilities, (n, classes, s, s), turned back, and features, (n, d); None without an encoder.

        Raises:
            ModelError: if the network gives numbers that are not finite.
        """
        data = [_transformed(view.data, view.symmetry) for view in views]
        valid = [_transformed(view.valid, view.symmetry) for view in views]
        logits, features = self._run(data, valid)
        probabilities = _softmax(logits)
        if not np.isfinite(probabilities).all():
            raise ModelError(NOT_FINITE)
        back = [_transformed_back(each, view.symmetry) for each, view in zip(probabilities, views, strict=True)]
        return np.stack(back), features

    def _run(self, data: list[NDArray[Any]], valid: list[NDArray[np.bool_]]) -> tuple[Floats, Floats | None]:
        while True:
            batch_size = self.predictor.batch_size
            if self._encoder is not None:
                self._encoder.begin()
            logits: Floats = self.predictor.ops.to_numpy(self.predictor(data, valid))
            if self._encoder is None:
                return logits, None
            if batch_size == self.predictor.batch_size:  # else memory ran out, and features of a failed batch are there
                return logits, unit_features(self._encoder.end()[: len(data)])


def unit_features(features: Floats) -> Floats:
    """Return features of length 1, (n, d), projected at random to `MAX_FEATURES` numbers if there are more.

    Source: Johnson and Lindenstrauss (1984): a random projection keeps distances, to about 10 % for 128 numbers.
    """
    norm = np.linalg.norm(features, axis=1, keepdims=True)
    features = features / np.maximum(norm, np.finfo(np.float32).tiny)
    count = features.shape[1]
    if count <= MAX_FEATURES:
        return features
    projection = np.random.default_rng(0).standard_normal((count, MAX_FEATURES), np.float32)
    return features @ (projection / np.float32(np.sqrt(MAX_FEATURES)))


def _softmax(logits: Floats) -> Floats:
    """Return probabilities of (n, classes, s, s) logits; -inf gives 0."""
    with np.errstate(invalid="ignore"):
        found: Floats = np.exp(logits - logits.max(axis=1, keepdims=True))
    found /= found.sum(axis=1, keepdims=True)
    return found


def _transformed(image: NDArray[Any], symmetry: tuple[int, bool]) -> NDArray[Any]:
    """Mirror (..., s, s) if asked, then rotate it by quarter turns."""
    turns, flip = symmetry
    return np.ascontiguousarray(np.rot90(image[..., ::-1] if flip else image, turns, (-2, -1)))


def _transformed_back(image: Floats, symmetry: tuple[int, bool]) -> Floats:
    turns, flip = symmetry
    image = np.rot90(image, -turns, (-2, -1))
    return image[..., ::-1] if flip else image
