"""Presets of the PSPNet, architectures for the time that there is, and options of single networks.

What the presets cost: docs/benchmarks.md.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, replace
from typing import Any

from geopsp.core.options import check_fields, option

PYRAMID_SIZES = (1, 2, 3, 6)


DECODER_WIDTH = 256
"""Most channels of the U-Net decoder's steps, at stride 16."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Preset:
    """What a preset decides; each field is the option of that name."""

    use_unet: bool = True
    output_stride: int = 32
    """With the U-Net decoder; the plain one always needs 8."""

    encoder_depth: int = 5
    decoder_width: int = DECODER_WIDTH
    decoder_stride: int = 2
    pointrend: bool = False
    aux_loss: bool = False
    """With the U-Net decoder; the plain one always has it."""

    def with_options(self, options: Mapping[str, Any]) -> Preset:
        """Return the preset with those of the options that the user gave; None is not given."""
        names = {entry.name for entry in fields(self)}
        return replace(self, **{name: value for name, value in options.items() if name in names and value is not None})


PRESETS = {
    "fast": Preset(output_stride=16, encoder_depth=4, decoder_stride=4),
    "balanced": Preset(),
    "best": Preset(output_stride=16, pointrend=True),
}
"""The presets by name."""


DEFAULT_PRESET = "balanced"


DEEPLAB_VERSION, DEEPLAB_VERSIONS = 3, (1, 2, 3)
"""The default and all versions of DeepLab; `training.networks.DEEPLABS` says what they are made of."""


@dataclass(frozen=True, slots=True)
class PSPNetOptions:
    """Options of the PSPNet alone."""

    preset: str = option(
        DEFAULT_PRESET,
        "Architecture for the time that there is: fast, balanced or best. Each option of the network that is given "
        "overrides it.",
        choices=tuple(PRESETS),
        shell_help="pspnet: architecture for the time that there is: fast, balanced or best. Each option of the "
        "network that is given overrides it.",
    )
    use_unet: bool | None = option(
        None,
        "Use the U-Net decoder. False: upsample the output 8 times instead. None: as the preset has it.",
        flag="--unet/--no-unet",
        shell_help="pspnet: use the U-Net decoder, or upsample the output 8x instead. Default: as the preset has it.",
    )
    decoder_width: int | None = option(
        None,
        "Most channels of a step of the U-Net decoder, at stride 16; at each finer stride half as many. The steps "
        "follow the encoder's channels up to it. None: as the preset has it.",
        minimum=16,
        maximum=1024,
        unit="channels",
        shell_help="pspnet: most channels of a step of the U-Net decoder, at stride 16; at each finer stride half as "
        "many. Default: as the preset has it.",
    )
    decoder_stride: int | None = option(
        None,
        "Where the U-Net decoder ends, 2 or 4 times smaller than the image; 4 is faster, with coarser outlines. None: "
        "as the preset has it.",
        choices=(2, 4),
        shell_help="pspnet: where the U-Net decoder ends, 2 or 4 times smaller than the image; 4 is faster, with "
        "coarser outlines. Default: as the preset has it.",
    )
    pyramid_sizes: Sequence[int] = option(
        PYRAMID_SIZES,
        "Grid sizes of the pyramid pooling; (): no pyramid.",
        shell_help="pspnet: grid sizes of the pyramid pooling, or none. Default: 1,2,3,6.",
    )
    unet_aux_loss: bool = option(
        False, "Use the auxiliary loss with the U-Net decoder, too; the plain decoder always has it.", flag=""
    )

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True, slots=True)
class DeepLabOptions:
    """Options of DeepLab alone."""

    version: int = option(
        DEEPLAB_VERSION,
        "Version of DeepLab: 3 (DeepLabv3+), 2 (sum of classifiers at four rates) or 1 (one classifier at rate 12).",
        choices=DEEPLAB_VERSIONS,
        flag="--deeplab-version",
        shell_help="deeplab: 3 (DeepLabv3+), 2 (sum of classifiers at four rates) or 1 (one classifier at rate 12).",
    )

    def __post_init__(self) -> None:
        check_fields(self)


ONLY_OF = {"pspnet": PSPNetOptions, "deeplab": DeepLabOptions}
"""Options that one network alone has, by its name in the shell."""
