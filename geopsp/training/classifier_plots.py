"""The figures of classifiers: their methods, which load matplotlib when they are called."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from geopsp.chips.chip_set import ChipSet
from geopsp.errors import TrainingError
from geopsp.models.saved_model import TrainedModel
from geopsp.training.metrics import Confusion
from geopsp.training.training_data import TrainingData

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from geopsp.training.result_figure import Which

RateTest = tuple[float, Sequence[float], Sequence[float]]
"""The rate that is suggested, the rates that were tried, and the loss at each."""


class Classifier(Protocol):
    """A classifier, such as `PixelClassifier`."""

    model: TrainedModel
    device: str | None
    _rate_test: RateTest | None

    def _require_data(self, action: str) -> TrainingData: ...

    def evaluate(self, chips: str | Path | Sequence[str | Path] | ChipSet | None = None) -> Confusion: ...


def plot_losses(classifier: Classifier) -> Figure:
    """Plot the training and validation loss by epoch; a loss that ran away does not flatten the others.

    Raises:
        TrainingError: if the model was not trained.
    """
    if not classifier.model.history:
        raise TrainingError("There are no losses to plot, because the model was not trained. Call fit first.")
    from geopsp.training.plots import plot_losses as figure_of

    return figure_of(classifier.model.history)


def plot_rates(classifier: Classifier) -> Figure:
    """Plot the loss over the learning rate, as the last `lr_find` tried it.

    Raises:
        TrainingError: if there was none.
    """
    if classifier._rate_test is None:  # noqa: SLF001 (this is a method of the class)
        raise TrainingError("There are no rates to plot, because none were tried. Call lr_find first.")
    from geopsp.training.plots import plot_rates as figure_of

    return figure_of(*classifier._rate_test)  # noqa: SLF001


def plot_confusion(
    classifier: Classifier, chips: str | Path | Sequence[str | Path] | ChipSet | Confusion | None = None
) -> Figure:
    """Plot how often each class is predicted as which.

    Args:
        classifier: The classifier.
        chips: The chips to score, as `evaluate` takes them, or the scores that it returned; None: the validation chips.
    """
    from geopsp.training.plots import plot_confusion as figure_of

    return figure_of(chips if isinstance(chips, Confusion) else classifier.evaluate(chips))


def show_results(
    classifier: Classifier,
    rows: int = 3,
    *,
    alpha: float = 0.5,
    rgb_bands: Sequence[str | int] | None = None,
    which: Which = "random",
) -> Figure:
    """Plot validation chips, the worst first: image, ground truth, prediction and errors.

    All images are stretched alike, by the statistics of the training chips.

    Args:
        classifier: The classifier.
        rows: Chips to show.
        alpha: Opacity of the classes over the image, 0 to 1.
        rgb_bands: Names or numbers of the bands to show as red, green and blue.
        which: "random": some chips; "worst": those with most errors, for which all validation chips are predicted.
    """
    from geopsp.training.result_figure import show_results as figure_of

    data = classifier._require_data("show_results")  # noqa: SLF001 (this is a method of the class)
    return figure_of(
        classifier.model, data.valid_ds, seed=data.seed, rows=rows, alpha=alpha, rgb_bands=rgb_bands, which=which,
        device=classifier.device,
    )  # fmt: skip
