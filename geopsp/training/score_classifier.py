"""The method `evaluate` of classifiers, and the scores that are saved with a model."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol

from geopsp.chips.chip_set import ChipSet
from geopsp.models.saved_model import TrainedModel
from geopsp.training.evaluate import chip_loader
from geopsp.training.evaluate import evaluate as evaluate_network
from geopsp.training.learned_pixels import require_scores
from geopsp.training.metrics import Confusion
from geopsp.training.score_chips import score_chips
from geopsp.training.training_data import TrainingData

VALIDATION = "the validation chips"


class Classifier(Protocol):
    """A classifier, such as `PixelClassifier`."""

    model: TrainedModel
    data: TrainingData | None
    device: str | None

    def _require_data(self, action: str) -> TrainingData: ...


def evaluate(
    classifier: Classifier,
    chips: str | Path | Sequence[str | Path] | ChipSet | None = None,
    *,
    allow_resolution_mismatch: bool = False,
) -> Confusion:
    """Return the confusion matrix over all pixels of the validation chips, or of all chips of other folders.

    `allow_resolution_mismatch=True` also scores chips whose pixels are more than 4 times larger or smaller.

    Raises:
        BandError, ChipError, GridError: if the chips have other bands, classes or pixels of another size.
    """
    model = classifier.model
    if chips is None:
        loader = classifier._require_data("evaluate without chips").valid_dl  # noqa: SLF001 (a method of it)
    else:
        chips = chips if isinstance(chips, ChipSet) else ChipSet.open(chips)
        loader = chip_loader(model, chips, allow_resolution_mismatch=allow_resolution_mismatch)
    scores = evaluate_network(
        model.network, loader, model.legend, ignored=model.losses.ignored(model.legend), device=classifier.device,
        calibration=model.calibration,
    )  # fmt: skip
    return require_scores(scores, model.losses)


def score_validation(classifier: Classifier) -> Confusion:
    """Score the model on its validation chips; the scores are saved with it, and its record has what reports show."""
    model, data = classifier.model, classifier._require_data("score_validation")  # noqa: SLF001 (a method of it)
    scores, found = score_chips(model, data.valid_dl, VALIDATION, device=classifier.device)
    model.metrics = require_scores(scores, model.losses).to_json()
    if model.record is not None:
        model.record = model.record.model_copy(update={"scores": found})
    return scores
