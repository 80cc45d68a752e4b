"""The networks of the literature, as compositions of the same parts, so that they can be compared."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar, Unpack

from geopsp.errors import OptionError
from geopsp.models.build import ATROUS_RATES, PYRAMID_SIZES, ModelSpec
from geopsp.training.classifier import PixelClassifier
from geopsp.training.options import ClassifierOptions
from geopsp.training.training_data import TrainingData

BACKBONE = "resnet50"


class PSPNetClassifier(PixelClassifier):
    """A pyramid scene parsing network: each pixel sees averages of the whole tile.

    Source: Zhao et al., "Pyramid Scene Parsing Network" (2017).
    """

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
        **options: Unpack[ClassifierOptions],
    ) -> None:
        """A network that fits the data, ready to train.

        Args:
            data: From `prepare_data`.
            backbone: Name of an encoder, see `supported_backbones`; None: resnet50.
            use_unet: True refines the result through the encoder's finer maps; False enlarges it eightfold.
            pyramid_sizes: Bins along either side of each pooling; (): no pyramid.
            pretrained_path: A local weight file, or the folder of a saved model, to start from.
            unet_aux_loss: True adds the auxiliary loss where `use_unet` is True; without U-Net it is there anyway.
            aux_loss: True or False overrules this, e.g. to see what the auxiliary loss is worth.
            options: See `geopsp.options.Options`.

        Raises:
            ModelError: if there is no such backbone, weights do not fit, or the chips' size does not suit it.
            OptionError: if an option is out of range.
        """
        spec = _spec(
            data,
            backbone,
            options,
            pyramid_sizes=tuple(pyramid_sizes),
            decoder="unet" if use_unet else "plain",
            has_aux=(unet_aux_loss or not use_unet) if aux_loss is None else aux_loss,
        )
        super().__init__(data, spec, pretrained_path=pretrained_path, **options)


class _BackboneClassifier(PixelClassifier):
    """What the other networks of the literature have in common."""

    decoder: ClassVar[str]
    stride: ClassVar[int]
    atrous: ClassVar[bool] = False
    has_aux: ClassVar[bool] = False

    def __init__(
        self,
        data: TrainingData,
        backbone: str | None = None,
        pretrained_path: str | Path | None = None,
        aux_loss: bool | None = None,
        **options: Unpack[ClassifierOptions],
    ) -> None:
        """As `PSPNetClassifier`; `aux_loss`: whether there is an auxiliary loss; None: as the class says."""
        spec = _spec(
            data,
            backbone,
            options,
            pyramid_sizes=(),
            decoder=self.decoder,
            has_aux=self.has_aux if aux_loss is None else aux_loss,
            stride=self.stride,
            atrous=self.atrous,
        )
        super().__init__(data, spec, pretrained_path=pretrained_path, **options)


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


def _spec(
    data: TrainingData,
    backbone: str | None,
    options: ClassifierOptions,
    *,
    pyramid_sizes: tuple[int, ...],
    decoder: str,
    has_aux: bool,
    stride: int = 8,
    atrous: bool = False,
) -> ModelSpec:
    if "aux" in options and not has_aux:
        raise OptionError(
            f"aux is {options['aux']!r}, but this network has no auxiliary loss. Ask for it (unet_aux_loss=True or "
            "aux_loss=True, --aux-loss)."
        )
    depth = options.get("encoder_depth", 5)
    chosen = options.get("output_stride", min(stride, 2**depth))
    return ModelSpec(
        backbone or BACKBONE,
        len(data.chips.bands),
        data.c,
        pyramid_sizes=pyramid_sizes,
        atrous_rates=ATROUS_RATES.get(chosen, ()) if atrous else (),
        decoder=decoder,
        pointrend=options.get("pointrend", False),
        aux=options.get("aux", "pixel") if has_aux else "none",
        output_stride=chosen,
        encoder_depth=depth,
    )
