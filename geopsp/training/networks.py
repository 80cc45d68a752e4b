"""The networks of the literature, as compositions of the same parts, so that they can be compared."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from geopsp.core.calls import call_text
from geopsp.core.options import describes, from_names, option_fields
from geopsp.models.loss_options import BOUNDARY_WEIGHT, CLASS_WEIGHT_POWER, LossSpec
from geopsp.models.spec import ATROUS_RATES
from geopsp.training.classifier import PixelClassifier
from geopsp.training.classifier_data import require_training_data
from geopsp.training.model_specs import model_spec, pspnet_spec
from geopsp.training.options import ModelOptions
from geopsp.training.presets import (
    DECODER_WIDTH,
    DEEPLAB_VERSION,
    DEFAULT_PRESET,
    PYRAMID_SIZES,
    DeepLabOptions,
    PSPNetOptions,
)
from geopsp.training.training_data import TrainingData


class PSPNetClassifier(PixelClassifier):
    """A pyramid scene parsing network: pooled averages of the whole tile give each pixel its context.

    Source: Zhao et al., "Pyramid Scene Parsing Network" (2017).
    """

    @describes(ModelOptions, PSPNetOptions, LossSpec)
    def __init__(
        self,
        data: TrainingData,
        backbone: str | None = None,
        use_unet: bool | None = None,
        pyramid_sizes: Sequence[int] = PYRAMID_SIZES,
        pretrained_path: str | Path | None = None,
        unet_aux_loss: bool = False,
        *,
        preset: str = DEFAULT_PRESET,
        decoder_width: int | None = None,
        decoder_stride: int | None = None,
        aux_loss: bool | None = None,
        pointrend: bool | None = None,
        aux: str | None = None,
        output_stride: int | None = None,
        encoder_depth: int | None = None,
        encoder_weights: str | Path | None = "auto",
        class_balancing: bool = False,
        focal_loss: bool = False,
        dice_loss_fraction: float = 0.0,
        dice_loss_average: str = "micro",
        lovasz_fraction: float = 0.0,
        tversky_fraction: float = 0.0,
        tversky_alpha: float = 0.3,
        tversky_beta: float = 0.7,
        label_smoothing: float = 0.0,
        boundary_weight: float = BOUNDARY_WEIGHT,
        class_weight_power: float = CLASS_WEIGHT_POWER,
        ohem: float = 1.0,
        mixup: bool = False,
        ignore_classes: Sequence[str] = (),
        device: str | None = None,
    ) -> None:
        """Build a network for the data, ready to train.

        Args:
            data: From `prepare_data`.
            {options}

        Raises:
            ModelError: if there is no such backbone, weights do not fit, or the chips' size does not suit it.
            OptionError: if an option is out of range.
        """
        options, own = from_names(ModelOptions, locals()), from_names(PSPNetOptions, locals())
        spec = pspnet_spec(require_training_data(data, f"{type(self).__name__}({{}}, ...)"), options, own)
        super().__init__(data, spec, **_common(locals()))
        self.calls.append(_constructor(self, locals()))
        self.model.settings["preset"] = own.preset


class _BackboneClassifier(PixelClassifier):
    """What the other networks of the literature have in common."""

    decoder: ClassVar[str]
    stride: ClassVar[int]
    has_aux: ClassVar[bool] = False

    @describes(ModelOptions, LossSpec)
    def __init__(
        self,
        data: TrainingData,
        backbone: str | None = None,
        pretrained_path: str | Path | None = None,
        aux_loss: bool | None = None,
        *,
        pointrend: bool | None = None,
        aux: str | None = None,
        output_stride: int | None = None,
        encoder_depth: int | None = None,
        encoder_weights: str | Path | None = "auto",
        class_balancing: bool = False,
        focal_loss: bool = False,
        dice_loss_fraction: float = 0.0,
        dice_loss_average: str = "micro",
        lovasz_fraction: float = 0.0,
        tversky_fraction: float = 0.0,
        tversky_alpha: float = 0.3,
        tversky_beta: float = 0.7,
        label_smoothing: float = 0.0,
        boundary_weight: float = BOUNDARY_WEIGHT,
        class_weight_power: float = CLASS_WEIGHT_POWER,
        ohem: float = 1.0,
        mixup: bool = False,
        ignore_classes: Sequence[str] = (),
        device: str | None = None,
    ) -> None:
        """Build a network for the data, ready to train.

        Args:
            data: From `prepare_data`.
            {options}

        Raises:
            ModelError: if there is no such backbone, weights do not fit, or the chips' size does not suit it.
            OptionError: if an option is out of range.
        """
        spec = model_spec(
            require_training_data(data, f"{type(self).__name__}({{}}, ...)"),
            from_names(ModelOptions, locals()),
            pyramid_sizes=(),
            decoder=self.decoder,
            has_aux=self.has_aux,
            stride=self.stride,
            decoder_width=DECODER_WIDTH if self.decoder == "unet" else None,
        )
        super().__init__(data, spec, **_common(locals()))
        self.calls.append(_constructor(self, locals()))


class FCNClassifier(_BackboneClassifier):
    """A fully convolutional network: a dilated encoder and no pyramid, the baseline of the PSPNet paper.

    With an auxiliary loss.

    Source: Long et al., "Fully Convolutional Networks" (2015); Zhao et al. (2017), table 1.
    """

    decoder, stride, has_aux = "plain", 8, True


class UnetClassifier(_BackboneClassifier):
    """A U-Net: an encoder that halves its map five times, and a decoder that joins each of its maps on the way back.

    Without dilation, unless output_stride is given, and without an auxiliary loss.

    Source: Ronneberger et al., "U-Net" (2015).
    """

    decoder, stride = "unet", 32


class DeepLab(PixelClassifier):
    """DeepLab: convolutions at several rates in place of the pyramid; without an auxiliary loss.

    Version 3 is DeepLabv3+: an atrous pyramid with the mean of the tile, and one finer map joined; output stride 16 and
    rates 6, 12, 18, or at 8 twice these. Version 2 is the sum of four classifiers at rates 6, 12, 18, 24 of the
    encoder's map at stride 8, without the mean and without finer maps; version 1 has one, at rate 12 (LargeFOV). The
    fully connected CRF of versions 1 and 2 is a step of prediction, not of the network.

    Source: Chen et al., "Encoder-Decoder with Atrous Separable Convolution" (2018); "DeepLab" (TPAMI 2017); "Semantic
    Image Segmentation with Deep Convolutional Nets and Fully Connected CRFs" (2015).
    """

    @describes(ModelOptions, DeepLabOptions, LossSpec)
    def __init__(
        self,
        data: TrainingData,
        backbone: str | None = None,
        pretrained_path: str | Path | None = None,
        aux_loss: bool | None = None,
        *,
        version: int = DEEPLAB_VERSION,
        pointrend: bool | None = None,
        aux: str | None = None,
        output_stride: int | None = None,
        encoder_depth: int | None = None,
        encoder_weights: str | Path | None = "auto",
        class_balancing: bool = False,
        focal_loss: bool = False,
        dice_loss_fraction: float = 0.0,
        dice_loss_average: str = "micro",
        lovasz_fraction: float = 0.0,
        tversky_fraction: float = 0.0,
        tversky_alpha: float = 0.3,
        tversky_beta: float = 0.7,
        label_smoothing: float = 0.0,
        boundary_weight: float = BOUNDARY_WEIGHT,
        class_weight_power: float = CLASS_WEIGHT_POWER,
        ohem: float = 1.0,
        mixup: bool = False,
        ignore_classes: Sequence[str] = (),
        device: str | None = None,
    ) -> None:
        """Build a network for the data, ready to train.

        Args:
            data: From `prepare_data`.
            {options}

        Raises:
            ModelError: if there is no such backbone, weights do not fit, or the chips' size does not suit it.
            OptionError: if an option is out of range.
        """
        options, own = from_names(ModelOptions, locals()), from_names(DeepLabOptions, locals())
        chosen = DEEPLABS[own.version]
        spec = model_spec(
            require_training_data(data, f"{type(self).__name__}({{}}, ...)"),
            options,
            pyramid_sizes=(),
            decoder=chosen.decoder,
            has_aux=False,
            stride=chosen.output_stride,
            rates=chosen.rates,
        )
        super().__init__(data, spec, **_common(locals()))
        self.calls.append(_constructor(self, locals()))


@dataclass(frozen=True, slots=True)
class DeepLabVersion:
    """What a version of DeepLab is made of."""

    decoder: str
    """A key of `models.decoder.DECODERS`."""

    output_stride: int
    rates: Mapping[int, tuple[int, ...]]
    """By output stride."""


def _rates(*at_stride_8: int) -> dict[int, tuple[int, ...]]:
    """Return rates by output stride that span equal distances in the image, rounded down."""
    return {stride: tuple(max(1, rate * 8 // stride) for rate in at_stride_8) for stride in ATROUS_RATES}


DEEPLABS = {
    1: DeepLabVersion("atrous", 8, _rates(12)),
    2: DeepLabVersion("atrous", 8, _rates(6, 12, 18, 24)),
    3: DeepLabVersion("deeplab", 16, ATROUS_RATES),
}
"""The versions of DeepLab, `training.presets.DEEPLAB_VERSIONS`."""


CLASSIFIERS: dict[str, type[PSPNetClassifier | _BackboneClassifier | DeepLab]] = {
    "pspnet": PSPNetClassifier,
    "fcn": FCNClassifier,
    "unet": UnetClassifier,
    "deeplab": DeepLab,
}
"""The classifiers by their names in the shell, `training.options.NETWORKS`."""


def _constructor(classifier: PixelClassifier, names: Mapping[str, Any]) -> str:
    """Return the code that makes a classifier with these arguments."""
    own = {name: value for name, value in names.items() if name != "data"}
    return call_text(f"model = {type(classifier).__name__}", type(classifier).__init__, own, first=["data"])


def _common(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that `PixelClassifier` takes, too."""
    known = option_fields(ModelOptions, LossSpec).keys() - {"backbone", "aux_loss"}
    return {name: names[name] for name in known}
