"""The networks of the literature, as compositions of the same parts, so that they can be compared."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

from geopsp.core.options import describes, from_names, option_fields
from geopsp.errors import OptionError
from geopsp.models.build import ATROUS_RATES, ModelSpec
from geopsp.models.encoder import shown_size, usable_output_stride
from geopsp.models.loss_options import LossSpec
from geopsp.training.classifier import PixelClassifier
from geopsp.training.options import BACKBONE, PYRAMID_SIZES, ModelOptions, PSPNetOptions
from geopsp.training.training_data import TrainingData, require_training_data

logger = logging.getLogger(__name__)


class PSPNetClassifier(PixelClassifier):
    """A pyramid scene parsing network: pooled averages of the whole tile give each pixel its context.

    Source: Zhao et al., "Pyramid Scene Parsing Network" (2017).
    """

    @describes(ModelOptions, PSPNetOptions, LossSpec)
    def __init__(
        self,
        data: TrainingData,
        backbone: str | None = None,
        use_unet: bool = True,
        pyramid_sizes: Sequence[int] = PYRAMID_SIZES,
        pretrained_path: str | Path | None = None,
        unet_aux_loss: bool = False,
        *,
        aux_loss: bool | None = None,
        pointrend: bool = False,
        aux: str | None = None,
        output_stride: int | None = None,
        encoder_depth: int = 5,
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
        spec = _model_spec(
            require_training_data(data, f"{type(self).__name__}({{}}, ...)"),
            options,
            pyramid_sizes=tuple(own.pyramid_sizes),
            decoder="unet" if use_unet else "plain",
            has_aux=unet_aux_loss or not use_unet,
        )
        super().__init__(data, spec, **_common(locals()))


class _BackboneClassifier(PixelClassifier):
    """What the other networks of the literature have in common."""

    decoder: ClassVar[str]
    stride: ClassVar[int]
    atrous: ClassVar[bool] = False
    has_aux: ClassVar[bool] = False

    @describes(ModelOptions, LossSpec)
    def __init__(
        self,
        data: TrainingData,
        backbone: str | None = None,
        pretrained_path: str | Path | None = None,
        aux_loss: bool | None = None,
        *,
        pointrend: bool = False,
        aux: str | None = None,
        output_stride: int | None = None,
        encoder_depth: int = 5,
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
        spec = _model_spec(
            require_training_data(data, f"{type(self).__name__}({{}}, ...)"),
            from_names(ModelOptions, locals()),
            pyramid_sizes=(),
            decoder=self.decoder,
            has_aux=self.has_aux,
            stride=self.stride,
            atrous=self.atrous,
        )
        super().__init__(data, spec, **_common(locals()))


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


class DeepLab(_BackboneClassifier):
    """DeepLabv3+: convolutions at several rates in place of the pyramid, and one finer map joined.

    Output stride 16 and rates 6, 12, 18, or at 8 twice these, as in the paper; without an auxiliary loss.

    Source: Chen et al., "Encoder-Decoder with Atrous Separable Convolution" (2018).
    """

    decoder, stride, atrous = "deeplab", 16, True


CLASSIFIERS: dict[str, type[PSPNetClassifier | _BackboneClassifier]] = {
    "pspnet": PSPNetClassifier,
    "fcn": FCNClassifier,
    "unet": UnetClassifier,
    "deeplab": DeepLab,
}
"""The classifiers by their names in the shell, `training.options.NETWORKS`."""


def _common(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that `PixelClassifier` takes, too."""
    known = option_fields(ModelOptions, LossSpec).keys() - {"backbone", "aux_loss"}
    return {name: names[name] for name in known}


def _model_spec(
    data: TrainingData,
    options: ModelOptions,
    *,
    pyramid_sizes: tuple[int, ...],
    decoder: str,
    has_aux: bool,
    stride: int = 8,
    atrous: bool = False,
) -> ModelSpec:
    """Return the description of a network.

    Args:
        data: Its chips.
        options: As the user gave them.
        pyramid_sizes: Grid sizes of the pyramid pooling; (): no pyramid.
        decoder: One of `models.build.DECODERS`.
        has_aux: True if it has an auxiliary loss, unless the options force it on or off.
        stride: Its output stride, unless the options have one, few stages of the encoder do not reach it, or the
            encoder cannot be dilated to it.
        atrous: True for atrous convolutions at several rates.
    """
    has_aux = has_aux if options.aux_loss is None else options.aux_loss
    if options.aux is not None and not has_aux:
        raise OptionError(
            f"`aux` is {options.aux!r}, but the network has no auxiliary loss. Add `aux_loss=True`, or leave `aux` out."
        )
    output_stride = options.output_stride or min(stride, 2**options.encoder_depth)
    spec = ModelSpec(
        options.backbone or BACKBONE,
        len(data.chips.bands),
        data.c,
        pyramid_sizes=pyramid_sizes,
        atrous_rates=ATROUS_RATES.get(output_stride, ()) if atrous else (),
        decoder=decoder,
        pointrend=options.pointrend,
        aux=(options.aux or "pixel") if has_aux else "none",
        output_stride=output_stride,
        encoder_depth=options.encoder_depth,
    )
    _log_shown_size(spec.backbone, data.chip_size)
    return spec if options.output_stride else _with_usable_stride(spec)


def _with_usable_stride(spec: ModelSpec) -> ModelSpec:
    """Return the description with its own output stride, or that of an encoder that cannot be dilated to it."""
    usable = usable_output_stride(spec.backbone, spec.output_stride, depth=spec.encoder_depth)
    if usable == spec.output_stride:
        return spec
    logger.info(f"{spec.backbone} has an output stride of {usable}; the network's own would be {spec.output_stride}.")
    return replace(spec, output_stride=usable, atrous_rates=ATROUS_RATES[usable] if spec.atrous_rates else ())


def _log_shown_size(backbone: str, chip_size: int) -> None:
    rows, columns = shown_size(backbone, chip_size, chip_size)
    if (rows, columns) != (chip_size, chip_size):
        logger.info(f"{backbone} is shown tiles of {chip_size} x {chip_size} pixels resized to {rows} x {columns}.")
