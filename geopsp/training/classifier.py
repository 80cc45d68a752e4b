"""PixelClassifier: train, score, save and load a network."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

import pandas as pd
import torch

from geopsp.core.calls import call_text
from geopsp.core.log import is_main_process
from geopsp.core.options import describes, from_names, require_bool, require_path
from geopsp.core.output import check_output
from geopsp.data.loader import ChipLoaders
from geopsp.errors import ChipError, ModelError, OptionError
from geopsp.models.build import build_network
from geopsp.models.calibration_methods import Method
from geopsp.models.encoder import supported_backbones
from geopsp.models.loss_options import BOUNDARY_WEIGHT, CLASS_WEIGHT_POWER, LossSpec, as_names
from geopsp.models.manifest import MODEL_FOLDER
from geopsp.models.saved_model import TrainedModel, load_model, save_model
from geopsp.models.spec import ModelSpec, check_tile_size
from geopsp.models.weights import WHOLE_NETWORK, init_encoder, init_network
from geopsp.training.classifier_data import require_training_data, with_batch_size
from geopsp.training.classifier_plots import RateTest, plot_confusion, plot_losses, plot_rates, show_results
from geopsp.training.evaluate import chips_for
from geopsp.training.export_classifier import export, push_to_hub
from geopsp.training.fit import fit
from geopsp.training.fit_calibration import calibrate, calibrate_after_training
from geopsp.training.fit_crf import fit_crf
from geopsp.training.fit_options import CLIP, MONITORS, FitOptions, LearningRate, RunConfig
from geopsp.training.learned_pixels import learning_loaders, loss_weight, start_from_shares
from geopsp.training.learning_rates import default_rates, starts_pretrained
from geopsp.training.lr_finder import find_lr
from geopsp.training.options import ModelOptions
from geopsp.training.report_classifier import report
from geopsp.training.resolve_options import losses_of_run, resolve_options
from geopsp.training.schedule import TimeBudget
from geopsp.training.score_classifier import evaluate, score_validation
from geopsp.training.step import is_frozen
from geopsp.training.training_area import with_area
from geopsp.training.training_data import TrainingData
from geopsp.training.training_record import training_record

logger = logging.getLogger(__name__)

if TYPE_CHECKING:
    from lightning.pytorch.loggers import Logger


class PixelClassifier:
    """A network that predicts the class of each pixel, with methods to train, score, plot and save it.

    The networks are its subclasses, e.g. `PSPNetClassifier`. `PixelClassifier.from_model` loads any of them.
    """

    @describes(ModelOptions, LossSpec)
    def __init__(
        self,
        data: TrainingData,
        spec: ModelSpec,
        *,
        pretrained_path: str | Path | None = None, pointrend: bool | None = None, aux: str | None = None,
        output_stride: int | None = None, encoder_depth: int | None = None, encoder_weights: str | Path | None = "auto",
        class_balancing: bool = False, focal_loss: bool = False, dice_loss_fraction: float = 0.0,
        dice_loss_average: str = "micro", lovasz_fraction: float = 0.0, tversky_fraction: float = 0.0,
        tversky_alpha: float = 0.3, tversky_beta: float = 0.7, label_smoothing: float = 0.0,
        boundary_weight: float = BOUNDARY_WEIGHT, class_weight_power: float = CLASS_WEIGHT_POWER, ohem: float = 1.0,
        mixup: bool = False, ignore_classes: Sequence[str] = (), device: str | None = None,
    ) -> None:  # fmt: skip
        """Build a network for the data, ready to train.

        Args:
            data: From `prepare_data`.
            spec: The network; `pointrend`, `aux`, `output_stride` and `encoder_depth` are taken from it.
            {options}

        Raises:
            ModelError: if there is no such backbone, weights do not fit, or the chips' size does not suit it.
            OptionError: if an option is out of range, or a class to ignore does not exist.
        """
        data = require_training_data(data, f"{type(self).__name__}({{}}, ...)")
        losses = from_names(LossSpec, locals() | {"ignore_classes": as_names(ignore_classes)}).for_legend(data.legend)
        from_names(ModelOptions, locals())
        check_tile_size(data.chip_size, output_stride=spec.output_stride)
        torch.manual_seed(data.seed)
        network = build_network(spec)
        if pretrained_path is None:
            weights = init_encoder(network, spec.backbone, encoder_weights, data.chips.bands)
        else:
            weights = init_network(network, spec.backbone, Path(pretrained_path), data.chips.bands)
        if weights is None or not weights.endswith(f"({WHOLE_NETWORK})"):
            start_from_shares(network, data, losses)
        self.device, self.calls = device, [data.call]
        self._chose_batch_size = data.batch_size is None
        self.data: TrainingData | None = with_batch_size(network, data, device)
        settings: dict[str, Any] = {"encoder_weights": weights, "batch_size": self.data.batch_size, "seed": data.seed}
        settings |= {"warnings": list(data.warnings)} if data.warnings else {}
        self.model = TrainedModel(
            spec=spec,
            network=network,
            legend=data.legend,
            bands=data.chips.bands,
            statistics=data.statistics,
            dtype=data.chips.dtype,
            tile_size=data.chip_size,
            cell_size=data.chips.cell_size,
            units=data.chips.units,
            pixel_values=data.chips.pixel_values,
            losses=losses,
            settings={"network": type(self).__name__, **settings},
        )

    @classmethod
    def from_model(cls, path: str | Path, data: TrainingData | None = None, *, device: str | None = None) -> Self:
        """Load a saved classifier; with `data` of the same bands and classes it can be trained further.

        Raises:
            InputNotFoundError, PackageError: if the folder does not hold a complete model.
            ModelError: if it holds another kind of network.
            BandError, ChipError: if the data have other bands or classes.
        """
        require_path("path", path)
        if data is not None:
            require_training_data(data, f"{cls.__name__}.from_model(path, data={{}})")
        self = cls.__new__(cls)
        self.model, self.data, self.device = load_model(path), data, device
        loaded = call_text(f"model = {cls.__name__}.from_model", cls.from_model, {"path": path}, first=[])
        self.calls = [data.call, f"{loaded[:-1]}, data=data)"] if data is not None else [loaded]
        kind = self.model.settings.get("network", cls.__name__)
        if cls is not PixelClassifier and kind != cls.__name__:
            raise ModelError(f"{path} is a {kind}, not a {cls.__name__}. Load it with {kind}.from_model.")
        if data is not None:
            chips, size = chips_for(self.model, data.chips, allow_resolution_mismatch=True), self.model.tile_size
            if data.chip_size != size:
                logger.info(f"Chips are used at {size} x {size} pixels, the size that the model was trained with.")
            data = replace(data, chips=chips, statistics=self.model.statistics_for(chips.pixel_values), chip_size=size)
            self._chose_batch_size = data.batch_size is None
            self.data = with_batch_size(self.model.network, data, device)
            self.model.settings["batch_size"] = self.data.batch_size
        return self

    calibrate = calibrate
    fit_crf = fit_crf
    evaluate = evaluate
    export = export
    report = report
    push_to_hub = push_to_hub
    plot_losses = plot_losses
    plot_confusion = plot_confusion
    plot_rates = plot_rates
    show_results = show_results

    _rate_test: RateTest | None = None

    @property
    def supported_backbones(self) -> list[str]:
        return supported_backbones()

    @property
    def available_metrics(self) -> list[str]:
        """Metrics that `fit` can monitor."""
        return list(MONITORS)

    @property
    def history(self) -> pd.DataFrame:
        """One row per epoch of training."""
        return pd.DataFrame(self.model.history)

    def lr_find(self, allow_plot: bool = True, *, steps: int = 160) -> float:
        """Return the best of five learning rates, by short trainings; the network does not change.

        They are 0.1 to 10 times the one that `fit` has without `lr`, which suits most data: another is returned only if
        its validation loss is at least 5 % lower.

        Args:
            allow_plot: True draws the validation loss by rate.
            steps: Of all trainings together: the search takes as long as so many steps of training.

        Raises:
            OptionError: if there are too few steps.
            TrainingError: if memory does not hold a single chip, or no training ends with a finite loss.
        """
        data, model = self._require_data("lr_find"), self.model
        pretrained = starts_pretrained(model.settings, trained=bool(model.history))
        loaders = self._loaders(data.seed)
        best, tried, losses = find_lr(
            model.network,
            loaders,
            legend=data.legend,
            losses=model.losses,
            weight=self._class_weight(),
            rule=default_rates(model.network, pretrained=pretrained, batch=loaders.batch_size)[1],
            steps=steps,
            device=self.device,
        )
        logger.info(f"Suggested learning rate: {best:.2g}")
        self._rate_test = best, tried, losses
        if allow_plot:
            self.plot_rates()
        return best

    def freeze(self) -> None:
        """Keep the encoder's weights and running statistics in the next `fit`."""
        self.calls.append("model.freeze()")
        self.model.network.encoder.requires_grad_(requires_grad=False)

    def unfreeze(self) -> None:
        """Train all of the network in the next `fit`."""
        self.calls.append("model.unfreeze()")
        self.model.network.requires_grad_(requires_grad=True)

    @describes(FitOptions, RunConfig)
    def fit(
        self,
        epochs: int | None = None,
        lr: LearningRate | None = None,
        one_cycle: bool = True,
        early_stopping: bool = False,
        checkpoint: bool = True,
        tensorboard: bool = False,
        monitor: str = "valid_miou",
        *,
        accumulate: int = 1,
        clip: float = CLIP,
        ema: float | None = None,
        compiled: bool | None = None,
        minutes: float | None = None,
        precision: str = "auto",
        validate_all: bool = False,
        calibrate: Method | None = "temperature",
        devices: int = 1,
        nodes: int = 1,
        folder: str | Path | None = None,
        resume: bool = False,
        loggers: Sequence[Logger] = (),
    ) -> None:
        """Train for `epochs` more epochs, or for some minutes; calling fit again continues from the current weights.

        Args:
            {options}

        Raises:
            OptionError: if an option is out of range.
            TrainingError: if the loss is no longer finite, or memory runs out.
        """
        self.calls.append(call_text("model.fit", PixelClassifier.fit, locals()))
        run = from_names(RunConfig, locals(), device=self.device)
        seed = self._require_data("fit").seed + len(self.model.history)
        options = replace(from_names(FitOptions, locals()), seed=seed)
        budget = None if options.minutes is None else TimeBudget(60 * options.minutes)
        if run.world > 1 and self._chose_batch_size:
            raise OptionError("No batch size can be searched for on several devices. Set `batch_size`.")
        self.model.losses = losses_of_run(self.model.losses, run)
        loaders, weight = self._loaders(options.seed), self._class_weight()
        options = resolve_options(options, run, self.model, loaders, weight)
        self._train(replace(loaders, seed=options.seed), weight, options, run, budget)
        calibrate_after_training(self, options.calibrate)

    def _train(
        self, loaders: ChipLoaders, weight: torch.Tensor | None, options: FitOptions, run: RunConfig,
        budget: TimeBudget | None,
    ) -> None:  # fmt: skip
        model, frozen = self.model, is_frozen(self.model.network.encoder)
        model.metrics, model.calibration, model.record = {}, None, None
        model.settings = with_area(model.settings, self._require_data("fit"), model.history)
        try:
            fit(
                model.network, loaders, legend=model.legend, losses=model.losses, weight=weight, options=options,
                history=model.history, run=run, budget=budget,
            )  # fmt: skip
        finally:
            model.settings.setdefault("runs", []).append({**options.to_json(), "devices": run.world, "frozen": frozen})
        model.record = training_record(self._require_data("fit"), self.calls, model.history, device=self.device)

    def _loaders(self, seed: int) -> ChipLoaders:
        return learning_loaders(self._require_data("fit"), self.model.losses, seed)

    def mIOU(self, mean: bool = False) -> dict[str, float] | float:  # noqa: N802 (arcgis.learn's name)
        """Return the IoU of each class on the validation chips, or their mean; NaN for a class that does not occur."""
        scores = self.evaluate()
        return scores.mean_iou() if mean else dict(zip(self.model.legend.names, scores.iou().tolist(), strict=True))

    def accuracy(self) -> float:
        """Return the fraction of labelled pixels of the validation chips that are predicted correctly."""
        return self.evaluate().accuracy()

    def per_class_metrics(self, ignore_classes: Sequence[str] = ()) -> pd.DataFrame:
        """Return precision, recall, f1, iou, boundary_iou and pixels of each class on the validation chips."""
        for name in ignore_classes:
            self.model.legend.code_of(name)
        return self.evaluate().per_class().drop(index=list(ignore_classes))

    def save(self, name_or_path: str | Path, *, overwrite: bool = False, compute_metrics: bool = True) -> Path:
        """Save the model to a folder, and return its path; on several devices only the main process saves.

        Args:
            name_or_path: The folder.
            overwrite: True replaces a model in that folder.
            compute_metrics: True scores a trained model on its validation chips, and saves the scores with it.

        Raises:
            OutputError: if the folder exists and `overwrite` is False, or if it cannot be written.
        """
        require_path("name_or_path", name_or_path)
        require_bool("compute_metrics", compute_metrics)
        if not is_main_process():
            return Path(name_or_path)
        check_output(name_or_path, overwrite=overwrite, folder=True, kind=MODEL_FOLDER)
        if compute_metrics and self.data is not None and self.model.history:
            score_validation(self)
        return save_model(self.model, name_or_path, overwrite=overwrite)

    def _require_data(self, action: str) -> TrainingData:
        if self.data is None:
            kind = self.model.settings.get("network", type(self).__name__)
            raise ChipError(
                f"{action} needs training and validation chips, but the model was loaded without data. Use "
                f"{kind}.from_model(path, data=prepare_data(...)), or evaluate(chips) for scores of other chips."
            )
        return self.data

    def _class_weight(self) -> torch.Tensor | None:
        return loss_weight(self._require_data("fit"), self.model.losses)

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: {self.model.summary}>"

    def _repr_html_(self) -> str:
        return self.model.html(type(self).__name__, {} if self.data is None else {"data": str(self.data.audit)})
