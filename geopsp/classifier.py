"""The notebook's way through: train, score, save, map."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd
import torch

from geopsp.chipset import ChipSet, class_pixels
from geopsp.data import TrainingData, loader
from geopsp.dataset import WholeChipDataset
from geopsp.errors import BandError, ChipError, ModelError, TrainingError
from geopsp.losses import LossSpec, balance
from geopsp.metrics import Confusion
from geopsp.models.build import PYRAMID_SIZES, ModelSpec, build, check_tile, count_parameters
from geopsp.models.encoder import load_encoder_weights, supported_backbones
from geopsp.outputs import check_output
from geopsp.package import MANIFEST, TrainedModel, load_package, save_package
from geopsp.progress import say
from geopsp.training import MONITORS, FitSpec, evaluate, find_rate, fit

if TYPE_CHECKING:
    from matplotlib.figure import Figure


class PSPNetClassifier:
    """A pyramid scene parsing network for pixel classification.

    Source: Zhao et al., "Pyramid Scene Parsing Network" (2017); Kirillov et al., "PointRend" (2020).
    """

    def __init__(
        self,
        data: TrainingData,
        backbone: str | None = None,
        use_unet: bool = True,
        pyramid_sizes: Sequence[int] = PYRAMID_SIZES,
        *,
        pointrend: bool = False,
        encoder_weights: str | None = "auto",
        class_balancing: bool = False,
        focal_loss: bool = False,
        dice_loss_fraction: float = 0.0,
        output_stride: int = 8,
        device: str | None = None,
    ) -> None:
        """A network that fits the data, ready to train.

        Args:
            data: From `prepare_data`.
            backbone: Name of an encoder, see `supported_backbones`; None: resnet50.
            use_unet: True refines the result through the encoder's finer maps; False enlarges it eightfold.
            pyramid_sizes: Bins along either side of each pooling; (): no pyramid.
            pointrend: True decides the least certain points anew, for sharper outlines; works with either decoder.
            encoder_weights: "imagenet"; a local .safetensors or .pth file; None: random; "auto": ImageNet's where they
                can be had, else random, and it says so.
            class_balancing: True weights rare classes up.
            focal_loss: True weights pixels up that are hard.
            dice_loss_fraction: Share of the Dice loss, 0 to 1.
            output_stride: How much smaller the encoder's last map is than the image: 8, 16 or 32.
            device: As torch names it; None: the first GPU, else the CPU.

        Raises:
            ModelError: if there is no such backbone, weights do not fit, or the chips' size does not suit it.
        """
        name = backbone or "resnet50"
        spec = ModelSpec(name, len(data.chips.bands), data.c, use_unet, tuple(pyramid_sizes), pointrend, output_stride)
        check_tile(data.chip_size, output_stride=output_stride)
        torch.manual_seed(data.seed)
        network = build(spec)
        weights = _load_weights(network.encoder, name, encoder_weights, data.chips.bands)
        self.data: TrainingData | None = data
        self.device = device
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
            losses=LossSpec(class_balancing, focal_loss, dice_loss_fraction),
            settings={"encoder_weights": weights, "batch_size": data.batch_size, "seed": data.seed},
        )

    @classmethod
    def from_model(
        cls, path: str | Path, data: TrainingData | None = None, *, device: str | None = None
    ) -> PSPNetClassifier:
        """The classifier that was saved; with `data` of the same bands and classes it can be trained on.

        Raises:
            InputNotFoundError, PackageError: if the folder does not hold a whole model.
            BandError, ChipError: if the data have other bands or classes.
        """
        self = cls.__new__(cls)
        self.model, self.data, self.device = load_package(path), data, device
        if data is not None:
            chips = self._fitting(data.chips)
            self.data = replace(data, chips=chips, statistics=self.model.statistics)
        return self

    @property
    def supported_backbones(self) -> list[str]:
        return supported_backbones()

    @property
    def available_metrics(self) -> list[str]:
        """What `fit` can monitor."""
        return list(MONITORS)

    @property
    def history(self) -> pd.DataFrame:
        """One row an epoch."""
        return pd.DataFrame(self.model.history)

    def lr_find(self, allow_plot: bool = True, *, steps: int = 40) -> float:
        """A good learning rate, by raising it over `steps` batches; the network stays as it was."""
        data = self._data()
        best, rates, losses = find_rate(
            self.model.network,
            data.train_dl,
            legend=data.legend,
            losses=self.model.losses,
            weight=self._class_weight(),
            seed=data.seed,
            steps=steps,
            device=self.device,
        )
        say(f"Suggested learning rate: {best:.2g}")
        if allow_plot:
            from geopsp.plotting import plot_rates

            plot_rates(best, rates, losses)
        return best

    def fit(
        self,
        epochs: int = 10,
        lr: float | None = None,
        one_cycle: bool = True,
        early_stopping: bool = False,
        checkpoint: bool = True,
        *,
        monitor: str = "valid_loss",
    ) -> None:
        """The network is trained for so many epochs more; a second call goes on from the first.

        Args:
            epochs: Passes over the training chips.
            lr: Highest learning rate; None: `lr_find` looks for it.
            one_cycle: True raises and lowers the rate over the run; False keeps it.
            early_stopping: True stops when `monitor` was not bettered for 5 epochs.
            checkpoint: True brings back the epoch with the best `monitor` at the end.
            monitor: One of `available_metrics`.

        Raises:
            OptionError: if an argument is out of range.
            TrainingError: if the loss is no longer finite or memory runs out.
        """
        data = self._data()
        FitSpec(epochs, lr or 1.0, monitor=monitor)
        rate = self.lr_find(allow_plot=False) if lr is None else lr
        spec = FitSpec(
            epochs, rate, one_cycle, early_stopping, checkpoint, monitor, data.seed + len(self.model.history)
        )
        fit(
            self.model.network,
            data.train_dl,
            data.valid_dl,
            legend=data.legend,
            losses=self.model.losses,
            weight=self._class_weight(),
            spec=spec,
            history=self.model.history,
            device=self.device,
        )
        runs = self.model.settings.setdefault("runs", [])
        runs.append({"epochs": epochs, "lr": rate, "one_cycle": one_cycle, "early_stopping": early_stopping,
                     "checkpoint": checkpoint, "monitor": monitor})  # fmt: skip
        self.model.metrics = {}

    def evaluate(self, chips: str | Path | Sequence[str | Path] | ChipSet | None = None) -> Confusion:
        """The confusion matrix over the whole of every validation chip, or of every chip of another export.

        Raises:
            BandError, ChipError: if the chips have other bands or classes.
        """
        if chips is None:
            return evaluate(self.model.network, self._data().valid_dl, self.model.legend, device=self.device)
        found = chips if isinstance(chips, ChipSet) else ChipSet.open(chips)
        found = self._fitting(found)
        rows = (found.index["labelled"].to_numpy() > 0).nonzero()[0]
        dataset = WholeChipDataset(found, rows, self.model.normalization, size=self.model.tile_size)
        return evaluate(self.model.network, loader(dataset, 4), self.model.legend, device=self.device)

    def mIOU(self, mean: bool = False) -> dict[str, float] | float:  # noqa: N802 (arcgis.learn's name)
        """Intersection over union of each class on the validation chips, or their mean; NaN: the class is not there."""
        scores = self.evaluate()
        return scores.mean_iou() if mean else dict(zip(self.model.legend.names, scores.iou().tolist(), strict=True))

    def accuracy(self) -> float:
        """Share of the validation chips' labelled pixels that are found right."""
        return self.evaluate().accuracy()

    def per_class_metrics(self, ignore_classes: Sequence[str] = ()) -> pd.DataFrame:
        """Precision, recall, f1, iou and pixels of each class on the validation chips."""
        for name in ignore_classes:
            self.model.legend.code_of(name)
        return self.evaluate().per_class().drop(index=list(ignore_classes))

    def plot_losses(self) -> Figure:
        """A picture of training and validation loss by epoch.

        Raises:
            TrainingError: if there was no training.
        """
        if not self.model.history:
            raise TrainingError("There is nothing to plot: the model was not trained. Call fit first.")
        from geopsp.plotting import plot_losses

        return plot_losses(self.model.history)

    def show_results(self, rows: int = 3, *, alpha: float = 0.5) -> Figure:
        """A picture of validation chips, their labels and what the model finds."""
        from geopsp.plotting import show_results

        data = self._data()
        return show_results(self.model, data.valid_ds, seed=data.seed, rows=rows, alpha=alpha, device=self.device)

    def save(self, name_or_path: str | Path, *, overwrite: bool = False, compute_metrics: bool = True) -> Path:
        """The folder to which the model was saved, whole.

        Raises:
            OutputError: if it exists and `overwrite` is False, or cannot be written.
        """
        check_output(name_or_path, overwrite=overwrite, folder=True, mark=MANIFEST)
        if compute_metrics and self.data is not None and self.model.history:
            scores = self.evaluate()
            self.model.metrics = scores.to_json()
        return save_package(self.model, name_or_path, overwrite=overwrite)

    def _data(self) -> TrainingData:
        if self.data is None:
            raise ChipError("This model was loaded without data; pass data= to from_model (see prepare_data).")
        return self.data

    def _class_weight(self) -> torch.Tensor | None:
        if not self.model.losses.class_balancing:
            return None
        data = self._data()
        return balance(torch.from_numpy(class_pixels(data.chips.index.iloc[data.train_rows], data.legend).sum(axis=0)))

    def _fitting(self, chips: ChipSet) -> ChipSet:
        """The chips in the model's own classes, if they have its bands.

        Raises:
            BandError, ChipError: if they have other bands, classes that the model does not know, or are too small.
        """
        ours, theirs = ([band.lower() for band in bands] for bands in (self.model.bands, chips.bands))
        if ours != theirs:
            raise BandError(
                f"The chips have the bands {', '.join(chips.bands)}; the model needs {', '.join(self.model.bands)}. "
                "Export them with those bands (bands=, --bands)."
            )
        if chips.tile_size < self.model.tile_size:
            raise ChipError(
                f"The chips are {chips.tile_size} pixels wide; the model needs {self.model.tile_size} or more."
            )
        return chips.under(self.model.legend)

    def __repr__(self) -> str:
        spec = self.model.spec
        parts = [spec.backbone, "U-Net decoder" if spec.use_unet else "plain decoder"]
        parts += [f"pyramid {spec.pyramid_sizes}"] if spec.pyramid_sizes else ["no pyramid"]
        parts += ["PointRend"] if spec.pointrend else []
        return (
            f"<PSPNetClassifier: {', '.join(parts)}; {count_parameters(self.model.network) / 1e6:.1f} M parameters; "
            f"{spec.bands} bands, {spec.classes} classes, tiles of {self.model.tile_size}; "
            f"{len(self.model.history)} epochs trained>"
        )


def _load_weights(encoder: torch.nn.Module, name: str, weights: str | None, bands: tuple[str, ...]) -> str | None:
    """What the encoder starts from, in the end."""
    if weights is None:
        return None
    try:
        load_encoder_weights(encoder, name, "imagenet" if weights == "auto" else weights, bands)
    except ModelError as error:
        if weights != "auto":
            raise
        say(f"Note: the encoder starts from random weights. {error}")
        return None
    return "imagenet" if weights == "auto" else weights
