"""Descriptions of networks from the options of classifiers: the user's, else the preset's, else the network's own."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import replace

from geopsp.core.options import only_apply, option_values
from geopsp.errors import OptionError
from geopsp.models.encoder import shown_size, usable_output_stride
from geopsp.models.spec import ATROUS_RATES, DEPTHS, ModelSpec
from geopsp.training.options import BACKBONE, ModelOptions
from geopsp.training.presets import PRESETS, PSPNetOptions
from geopsp.training.training_data import TrainingData

logger = logging.getLogger(__name__)

PLAIN_STRIDE = 8
"""Output stride of the PSPNet with the plain decoder, as in the paper."""


MIN_CELLS = 4
"""Fewest rows and columns of the encoder's last map that a preset's stride leaves."""


def pspnet_spec(data: TrainingData, options: ModelOptions, own: PSPNetOptions) -> ModelSpec:
    """Return the description of a PSPNet: the preset's, but for what the user gave."""
    chosen = PRESETS[own.preset].with_options(option_values(options) | option_values(own))
    if not chosen.use_unet and (own.decoder_width or own.decoder_stride):
        names = [name for name in ("decoder_width", "decoder_stride") if getattr(own, name)]
        raise OptionError(f"{only_apply(names)} to the U-Net decoder. Leave it out, or `use_unet=False`.")
    has_aux = chosen.aux_loss or own.unet_aux_loss or not chosen.use_unet
    return model_spec(
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


def model_spec(
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
