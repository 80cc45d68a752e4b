"""The networks of the literature, as compositions of the same parts, so that they can be compared."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ClassVar

from geopsp.core.options import describes, from_names, only_apply, option_fields, option_values
from geopsp.errors import OptionError
from geopsp.models.build import ATROUS_RATES, DEPTHS, ModelSpec
from geopsp.models.encoder import shown_size, usable_output_stride
from geopsp.models.loss_options import LossSpec
from geopsp.training.classifier import PixelClassifier
from geopsp.training.options import BACKBONE, ModelOptions
from geopsp.training.presets import (
    DECODER_WIDTH,
    DEEPLAB_VERSION,
    DEFAULT_PRESET,
    PRESETS,
    PYRAMID_SIZES,
    DeepLabOptions,
    PSPNetOptions,
)
from geopsp.training.training_data import TrainingData, require_training_data

logger = logging.getLogger(__name__)

PLAIN_STRIDE = 8
"""Output stride of the PSPNet with the plain decoder, as in the paper."""


MIN_CELLS = 4
"""Fewest rows and columns of the encoder's last map that a preset's stride leaves."""


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
        spec = _pspnet_spec(require_training_data(data, f"{type(self).__name__}({{}}, ...)"), options, own)
        super().__init__(data, spec, **_common(locals()))
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
            decoder_width=DECODER_WIDTH if self.decoder == "unet" else None,
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
        spec = _model_spec(
            require_training_data(data, f"{type(self).__name__}({{}}, ...)"),
            options,
            pyramid_sizes=(),
            decoder=chosen.decoder,
            has_aux=False,
            stride=chosen.output_stride,
            rates=chosen.rates,
        )
        super().__init__(data, spec, **_common(locals()))


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


def _common(names: Mapping[str, Any]) -> dict[str, Any]:
    """Return the arguments that `PixelClassifier` takes, too."""
    known = option_fields(ModelOptions, LossSpec).keys() - {"backbone", "aux_loss"}
    return {name: names[name] for name in known}


def _pspnet_spec(data: TrainingData, options: ModelOptions, own: PSPNetOptions) -> ModelSpec:
    """Return the description of a PSPNet: the preset's, but for what the user gave."""
    chosen = PRESETS[own.preset].with_options(option_values(options) | option_values(own))
    if not chosen.use_unet and (own.decoder_width or own.decoder_stride):
        names = [name for name in ("decoder_width", "decoder_stride") if getattr(own, name)]
        raise OptionError(f"{only_apply(names)} to the U-Net decoder. Leave it out, or `use_unet=False`.")
    has_aux = chosen.aux_loss or own.unet_aux_loss or not chosen.use_unet
    return _model_spec(
        data,
        options,
        pyramid_sizes=tuple(own.pyramid_sizes),
        decoder="unet" if chosen.use_unet else "plain",
        has_aux=has_aux,
        stride=_stride_for(data.chip_size, chosen.output_stride) if chosen.use_unet else PLAIN_STRIDE,
        depth=chosen.encoder_depth,
        pointrend=chosen.pointrend,
        decoder_width=chosen.decoder_width if chosen.use_unet else None,
        decoder_stride=chosen.decoder_stride if chosen.use_unet else 2,
    )


def _stride_for(chip_size: int, stride: int) -> int:
    """Return the stride, or a smaller one, at which the last map of small chips has `MIN_CELLS` rows and columns."""
    while stride > min(ATROUS_RATES) and chip_size < MIN_CELLS * stride:
        stride //= 2
    return stride


def _model_spec(
    data: TrainingData,
    options: ModelOptions,
    *,
    pyramid_sizes: tuple[int, ...],
    decoder: str,
    has_aux: bool,
    stride: int,
    rates: Mapping[int, tuple[int, ...]] | None = None,
    depth: int = max(DEPTHS),
    pointrend: bool = False,
    decoder_width: int | None = None,
    decoder_stride: int = 2,
) -> ModelSpec:
    """Return the description of a network.

    Args:
        data: Its chips.
        options: As the user gave them; they come first.
        pyramid_sizes: Grid sizes of the pyramid pooling; (): no pyramid.
        decoder: One of `models.build.DECODERS`.
        has_aux: True if it has an auxiliary loss, unless the options force it on or off.
        stride: Its output stride, unless the options have one, few stages of the encoder do not reach it, or the
            encoder cannot be dilated to it.
        rates: Rates of its atrous convolutions by output stride; None: it has none.
        depth: Stages of its encoder; more if the output stride that the options have needs them.
        pointrend: True if it has PointRend.
        decoder_width: As in `ModelSpec`.
        decoder_stride: As in `ModelSpec`.
    """
    has_aux = has_aux if options.aux_loss is None else options.aux_loss
    if options.aux is not None and not has_aux:
        raise OptionError(
            f"`aux` is {options.aux!r}, but the network has no auxiliary loss. Add `aux_loss=True`, or leave `aux` out."
        )
    encoder_depth = options.encoder_depth or max(depth, (options.output_stride or 1).bit_length() - 1)
    output_stride = options.output_stride or min(stride, 2**encoder_depth)
    spec = ModelSpec(
        options.backbone or BACKBONE,
        len(data.chips.bands),
        data.c,
        pyramid_sizes=pyramid_sizes,
        atrous_rates=rates.get(output_stride, ()) if rates else (),
        decoder=decoder,
        pointrend=pointrend if options.pointrend is None else options.pointrend,
        aux=(options.aux or "pixel") if has_aux else "none",
        output_stride=output_stride,
        encoder_depth=encoder_depth,
        decoder_width=decoder_width,
        decoder_stride=decoder_stride,
    )
    _log_shown_size(spec.backbone, data.chip_size)
    return spec if options.output_stride else _with_usable_stride(spec, rates or {})


def _with_usable_stride(spec: ModelSpec, rates: Mapping[int, tuple[int, ...]]) -> ModelSpec:
    """Return the description with its own output stride, or that of an encoder that cannot be dilated to it."""
    usable = usable_output_stride(spec.backbone, spec.output_stride, depth=spec.encoder_depth)
    if usable == spec.output_stride:
        return spec
    logger.info(f"{spec.backbone} has an output stride of {usable}; the network's own would be {spec.output_stride}.")
    return replace(spec, output_stride=usable, atrous_rates=rates.get(usable, ()))


def _log_shown_size(backbone: str, chip_size: int) -> None:
    rows, columns = shown_size(backbone, chip_size, chip_size)
    if (rows, columns) != (chip_size, chip_size):
        logger.info(f"{backbone} is shown tiles of {chip_size} x {chip_size} pixels resized to {rows} x {columns}.")
