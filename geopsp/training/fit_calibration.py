"""Fit the calibration of a model: the temperature, and with vector scaling a weight and a bias for each class.

Both minimise the mean negative logarithm of the probability of the true class (NLL), a convex function of what is
fitted. The pixels of validation chips count as often as they are, without weights of classes.

Source: Guo et al., "On calibration of modern neural networks" (2017), section 4.2.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn.functional import cross_entropy

from geopsp.chips.chip_set import ChipSet
from geopsp.core.legend import Legend
from geopsp.core.log import is_main_process
from geopsp.core.options import require_choice
from geopsp.data.dataset import TiledChipDataset
from geopsp.errors import ChipError
from geopsp.models.calibration import HIGH, LEAST_PROBABILITY, LOW, Calibration
from geopsp.models.calibration_methods import METHODS, Method
from geopsp.models.calibration_torch import scaled_softmax
from geopsp.models.saved_model import TrainedModel
from geopsp.training.calibration_samples import Samples, draw_samples
from geopsp.training.evaluate import chip_loader
from geopsp.training.reliability import Reliability, ReliabilityCounts, coefficients
from geopsp.training.training_data import TrainingData

logger = logging.getLogger(__name__)

MAX_STEPS, TOLERANCE = 50, 1e-6
"""Newton's steps at most, and the change of 1 / T at which they end."""

MIN_PIXELS = 100
"""Pixels of a class in the sample below which vector scaling leaves it the temperature."""

MAX_BIAS, RIDGE = 10.0, 1e-6
"""Largest bias of vector scaling; and the weight of the squares that keep it from drifting, as the same bias for all
classes changes nothing."""

SEED = 0

UNCHANGED = Calibration("temperature", 1.0)


class Classifier(Protocol):
    """A classifier, such as `PixelClassifier`."""

    model: TrainedModel
    data: TrainingData | None
    device: str | None


def calibrate(
    classifier: Classifier,
    chips: str | Path | Sequence[str | Path] | ChipSet | None = None,
    *,
    method: Method = "temperature",
    allow_resolution_mismatch: bool = False,
) -> Calibration:
    """Fit how the probabilities of a trained model are calibrated, on its validation chips or on other chips.

    `classify_pixels` then gives calibrated confidence and probabilities; classes do not change. It is saved with the
    model. The chips must not be those of the training, on which any network is too certain.

    Args:
        classifier: Trained.
        chips: Chip folders, all of whose chips are used. None: the validation chips of its data.
        method: "temperature": one number for all classes; "vector": a weight and a bias for each class, for many
            validation chips of all classes.
        allow_resolution_mismatch: True also takes chips whose pixels are more than 4 times larger or smaller.

    Returns:
        The calibration, with NLL and expected calibration error (ECE) before and after. Those after are two-fold: each
        half of the chips is scored by the fit on the other.

    Raises:
        ChipError: if there are no chips, or no labelled pixels.
        BandError, GridError: if the chips have other bands or pixels of another size.
        OptionError: if there is no such method.
    """
    require_choice("method", method, METHODS)
    dataset = _dataset(classifier, chips, allow_resolution_mismatch=allow_resolution_mismatch)
    model = classifier.model
    workers = None if classifier.data is None else classifier.data.workers
    samples = draw_samples(classifier, dataset, seed=SEED, workers=workers)
    model.calibration = fit_samples(samples, method, model.legend, model.losses.ignored(model.legend))
    logger.info(f"Calibrated: {model.calibration.summary}.")
    return model.calibration


def calibrate_after_training(classifier: Classifier, method: Method | None) -> None:
    """Calibrate a network that was just trained, on the main process alone, which is the one that saves it."""
    if method is not None and is_main_process():
        calibrate(classifier, method=method)


def _dataset(classifier: Classifier, chips: Any, *, allow_resolution_mismatch: bool) -> TiledChipDataset:
    if chips is None:
        if classifier.data is None:
            raise ChipError(
                "calibrate needs validation chips, but the model was loaded without data. Use calibrate(chips), or "
                "PixelClassifier.from_model(path, data=prepare_data(...))."
            )
        return classifier.data.valid_ds
    chips = chips if isinstance(chips, ChipSet) else ChipSet.open(chips)
    loader = chip_loader(classifier.model, chips, allow_resolution_mismatch=allow_resolution_mismatch)
    assert isinstance(loader.dataset, TiledChipDataset)
    return loader.dataset


def fit_samples(samples: Samples, method: Method, legend: Legend, ignored: Sequence[int] = ()) -> Calibration:
    """Fit a calibration to pixels, and score it two-fold.

    Args:
        samples: The pixels.
        method: "temperature" or "vector".
        legend: The classes.
        ignored: Channels that are never predicted.
    """
    halves = (samples.second, ~samples.second)
    before = _score(samples, np.full(len(samples.labels), True), None, legend, ignored)
    fitted = fit(samples.probabilities, samples.labels, method, ignored)
    parts = []
    if samples.folds and all(half.any() for half in halves):
        for half, other in zip(halves, halves[::-1], strict=True):
            found = fit(samples.probabilities[other], samples.labels[other], method, ignored)
            parts.append(_score(samples, half, found, legend, ignored))
    folds = samples.folds if parts else ""
    after = _sum(parts) if parts else _score(samples, np.full(len(samples.labels), True), fitted, legend, ignored)
    return Calibration(
        method,
        fitted.temperature,
        fitted.weights,
        fitted.biases,
        pixels=len(samples.labels),
        chips=samples.chips,
        nll_before=before.nll(),
        nll_after=after.nll(),
        ece_before=before.ece(),
        ece_after=after.ece(),
        folds=folds,
    )


def fit(
    probabilities: NDArray[np.float32], labels: NDArray[np.int64], method: Method, ignored: Sequence[int] = ()
) -> Calibration:
    """Return the calibration of least NLL, without scores; of (pixels, classes) probabilities, and labels.

    Its NLL on these pixels is never above that without calibration.
    """
    classes = probabilities.shape[1]
    shown = [channel for channel in range(classes) if channel not in set(ignored)]
    position = np.full(classes, -1)
    position[shown] = np.arange(len(shown))
    logs, truth = np.log(np.maximum(probabilities[:, shown], LEAST_PROBABILITY)), position[labels]
    scale = _fit_temperature(logs, truth)
    best = Calibration("temperature", 1 / scale)
    if _nll(best, probabilities, labels, ignored) > _nll(UNCHANGED, probabilities, labels, ignored):
        best, scale = UNCHANGED, 1.0
    if method == "temperature":
        return best
    weights, biases = np.full(classes, scale), np.zeros(classes)
    weights[shown], biases[shown] = _fit_vector(logs, truth, scale)
    vector = Calibration("vector", 1 / scale, tuple(weights.tolist()), tuple(biases.tolist()))
    if _nll(vector, probabilities, labels, ignored) <= _nll(best, probabilities, labels, ignored):
        return vector
    return Calibration("vector", 1 / scale, (scale,) * classes, (0.0,) * classes)


def _fit_temperature(logs: NDArray[np.float32], truth: NDArray[np.intp]) -> float:
    """Return 1 / T of least NLL, by Newton's steps that stay between bounds which close in on the minimum."""
    low, high, scale = 1 / HIGH, 1 / LOW, 1.0
    wanted = float(np.take_along_axis(logs, truth[:, None], axis=1).mean(dtype=float))
    for _ in range(MAX_STEPS):
        shares = _softmax(scale * logs)
        mean = (shares * logs).sum(axis=1)
        slope = float(mean.mean(dtype=float)) - wanted
        bend = float(((shares * logs**2).sum(axis=1) - mean**2).mean(dtype=float))
        low, high = (low, scale) if slope > 0 else (scale, high)
        step = scale - slope / bend if bend > 0 else -1.0
        step = step if low < step < high else (low + high) / 2
        if abs(step - scale) < TOLERANCE:
            return step
        scale = step
    return scale


def _fit_vector(
    logs: NDArray[np.float32], truth: NDArray[np.intp], scale: float
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return weights and biases of least NLL, (classes,) each, by L-BFGS; rare classes keep the temperature."""
    values, labels = torch.from_numpy(logs), torch.from_numpy(truth)
    free = (torch.bincount(labels, minlength=logs.shape[1]) >= MIN_PIXELS).float()
    bounds = math.log(1 / HIGH / scale), math.log(1 / LOW / scale)
    steps, biases = (torch.zeros(logs.shape[1], requires_grad=True) for _ in range(2))  # w = exp(step) / T, above 0
    optimizer = torch.optim.LBFGS([steps, biases], max_iter=MAX_STEPS, line_search_fn="strong_wolfe")

    def loss() -> torch.Tensor:
        optimizer.zero_grad()
        weights = (free * steps).clamp(*bounds).exp() * scale  # a step of the search may be far too long
        found = values * weights + free * biases.clamp(-MAX_BIAS, MAX_BIAS)
        total = cross_entropy(found, labels) + RIDGE * ((steps**2).sum() + (biases**2).sum())
        total.backward()  # type: ignore[no-untyped-call]
        return total

    with torch.enable_grad():
        optimizer.step(loss)  # type: ignore[no-untyped-call]
    weights, offsets = ((free * each.detach()).double().numpy() for each in (steps, biases))
    if not (np.isfinite(weights).all() and np.isfinite(offsets).all()):  # the search got lost
        return np.full(len(weights), scale), np.zeros(len(weights))
    return np.clip(np.exp(weights) * scale, 1 / HIGH, 1 / LOW), np.clip(offsets, -MAX_BIAS, MAX_BIAS)


def _softmax(values: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return the softmax of (pixels, classes)."""
    shares = np.exp(values - values.max(axis=1, keepdims=True))
    found: NDArray[np.float32] = shares / shares.sum(axis=1, keepdims=True)
    return found


def _applied(
    calibration: Calibration | None, probabilities: NDArray[np.float32], ignored: Sequence[int]
) -> torch.Tensor:
    """Return (pixels, classes) probabilities, calibrated if there is a calibration."""
    chances = torch.from_numpy(probabilities)
    if calibration is None:
        return chances
    scaled = coefficients(calibration, chances.shape[1], ignored, chances.device)
    return scaled_softmax(chances, *scaled, dim=1)


def _nll(
    calibration: Calibration, probabilities: NDArray[np.float32], labels: NDArray[np.int64], ignored: Sequence[int]
) -> float:
    chances = _applied(calibration, probabilities, ignored)
    return -float(chances.gather(1, torch.from_numpy(labels)[:, None]).log().mean(dtype=torch.float64))


def _score(
    samples: Samples,
    chosen: NDArray[np.bool_],
    calibration: Calibration | None,
    legend: Legend,
    ignored: Sequence[int],
) -> Reliability:
    """Return the reliability on the chosen pixels."""
    probabilities, labels = samples.probabilities[chosen], torch.from_numpy(samples.labels[chosen])
    counts = ReliabilityCounts(len(legend), torch.device("cpu"))
    predicted = torch.from_numpy(probabilities).argmax(dim=1)
    counts.add(labels, _applied(calibration, probabilities, ignored), predicted)
    return counts.result(legend)


def _sum(parts: Sequence[Reliability]) -> Reliability:
    first, second = parts
    return Reliability(
        first.legend,
        first.confidence + second.confidence,
        first.by_class + second.by_class,
        first.nll_sum + second.nll_sum,
        first.brier_sum + second.brier_sum,
    )
