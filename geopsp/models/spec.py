"""The description of a network: everything that decides its shape. Nothing here needs torch."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any

from geopsp.core.legend import IGNORE_INDEX
from geopsp.core.options import require_choice, require_int
from geopsp.core.schema import MAX_BANDS
from geopsp.errors import ModelError, OptionError
from geopsp.models.manifest import BACKBONE_NAME, MAX_CONTEXT_NUMBER, MAX_CONTEXT_NUMBERS, MAX_DECODER_WIDTH
from geopsp.models.parts import CONTEXTS, DECODERS, MIN_WIDTH

PYRAMID_SIZES = (1, 2, 3, 6)


ATROUS_RATES = {8: (12, 24, 36), 16: (6, 12, 18), 32: (3, 6, 9)}
"""By output stride, so that the distances in pixels of the image are equal. Source: DeepLabv3 (2017), section 3.3."""


AUX_HEADS = ("none", "pixel", "presence")


DEPTHS = (3, 4, 5)
"""Numbers of encoder stages that can be used."""


DECODER_STRIDES = (2, 4)
"""Strides of the logits that a U-Net decoder can have."""


MIN_TILE = 32
"""Smallest side of a tile, in pixels."""


LATER_FIELDS = ("decoder_width", "decoder_stride")
"""Fields of `ModelSpec` that models of earlier versions do not have; their defaults are what those models are."""


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """Description of a network: everything that decides its shape."""

    backbone: str
    bands: int
    classes: int
    pyramid_sizes: tuple[int, ...] = PYRAMID_SIZES
    """Bins along each side of each pooling; (): no pyramid."""

    atrous_rates: tuple[int, ...] = ()
    """Dilation of each atrous convolution; (): none. With neither, a plain dilated network."""

    decoder: str = "unet"
    """A key of `DECODERS`: "plain" upsamples the logits of the context; "unet" joins all finer maps of the encoder;
    "deeplab" joins the map at stride 4 alone; "atrous" sums classifiers at the rates of `atrous_rates`."""

    pointrend: bool = False
    aux: str = "none"
    """What the auxiliary head learns: "pixel" classes, "presence" of classes in the tile, or "none"."""

    output_stride: int = 8
    encoder_depth: int = 5
    """Stages of the encoder that are used, 3 to 5. With 3, the pyramid replaces the deep stages, at stride 8."""

    decoder_width: int | None = None
    """Most channels of a step of the U-Net decoder, at stride 16; half of it at each finer one. Each step has as many
    channels as the encoder's map of its stride, if that is fewer. None: the widths of earlier versions."""

    decoder_stride: int = 2
    """Stride of the logits of the U-Net decoder, 2 or 4."""

    def __post_init__(self) -> None:
        try:
            require_int("bands", self.bands, minimum=1, maximum=MAX_BANDS)
            require_int("classes", self.classes, minimum=2, maximum=IGNORE_INDEX)
            require_choice("decoder", self.decoder, DECODERS)
            require_choice("aux", self.aux, AUX_HEADS)
            require_choice("decoder_stride", self.decoder_stride, DECODER_STRIDES)
            if self.decoder_width is not None:
                require_int("decoder_width", self.decoder_width, minimum=MIN_WIDTH, maximum=MAX_DECODER_WIDTH)
        except OptionError as error:
            raise ModelError(str(error)) from None
        self._check_encoder()
        self._check_contexts()

    def _check_encoder(self) -> None:
        if not isinstance(self.backbone, str):
            raise ModelError(f"`backbone` is {self.backbone!r}, but must be a name such as 'resnet50'.")
        if not re.fullmatch(BACKBONE_NAME, self.backbone):
            raise ModelError(
                f"`backbone` is {self.backbone[:100]!r}, but must be the name of an encoder, such as 'resnet50' or "
                "'tu-convnext_tiny': no address and no path. Give a file of weights with `encoder_weights`."
            )
        for name, choices in (("output_stride", tuple(ATROUS_RATES)), ("encoder_depth", DEPTHS)):
            if getattr(self, name) not in choices:
                raise ModelError(
                    f"`{name}` is {getattr(self, name)!r}, but must be one of {', '.join(map(str, choices))}."
                )
        if self.output_stride > 2**self.encoder_depth:
            raise ModelError(
                f"`output_stride` is {self.output_stride}, but `encoder_depth` is {self.encoder_depth}, and so few "
                f"stages reach a stride of {2**self.encoder_depth} at most. Lower `output_stride` or raise "
                "`encoder_depth`."
            )

    def _check_contexts(self) -> None:
        for name in CONTEXTS:
            numbers = getattr(self, name)
            if len(numbers) > MAX_CONTEXT_NUMBERS:
                raise ModelError(
                    f"`{name}` holds {len(numbers):,} numbers, but at most {MAX_CONTEXT_NUMBERS} are allowed."
                )
            if any(not isinstance(number, int) or not 1 <= number <= MAX_CONTEXT_NUMBER for number in numbers):
                raise ModelError(
                    f"`{name}` is {numbers}, but must hold whole numbers of at least 1, and at most "
                    f"{MAX_CONTEXT_NUMBER}."
                )
        if not DECODERS[self.decoder].has_context and not self.atrous_rates:
            raise ModelError(f"`decoder` is {self.decoder!r}, but `atrous_rates` is (). Give at least one rate.")
        if len(self.context) > 1:
            found = " and ".join(f"`{name}` is {numbers}" for name, numbers in self.context.items())
            raise ModelError(f"{found}, but a network has one context. Pass () for the others.")

    @property
    def context(self) -> dict[str, tuple[int, ...]]:
        """The numbers of the context, by its name in `CONTEXTS`; {}: a `Bottleneck`."""
        return {name: getattr(self, name) for name in CONTEXTS if getattr(self, name)}

    @property
    def words(self) -> str:
        """The parts of the network, in words."""
        depth = f", {self.encoder_depth} stages" if self.encoder_depth < 5 else ""
        parts = [f"{self.backbone} at output stride {self.output_stride}{depth}"]
        parts += [f"{CONTEXTS[name].words} {numbers}" for name, numbers in self.context.items()]
        parts += [DECODERS[self.decoder].words]
        parts += ["PointRend"] if self.pointrend else []
        parts += [f"auxiliary loss by {self.aux}"] if self.aux != "none" else []
        return ", ".join(parts)

    def to_json(self) -> dict[str, Any]:
        """Return the fields; those that came later only if they are set, so that old models stay what they are."""
        later = {entry.name: entry.default for entry in fields(self) if entry.name in LATER_FIELDS}
        return {name: value for name, value in asdict(self).items() if name not in later or value != later[name]}

    @classmethod
    def from_json(cls, row: Mapping[str, Any]) -> ModelSpec:
        """Read a saved spec; models of version 1 had two decoders and one auxiliary head."""
        values = dict(row)
        if "use_unet" in values:
            values |= {"decoder": "unet" if values.pop("use_unet") else "plain", "aux": "pixel"}
        for name in CONTEXTS.keys() & values.keys():
            values[name] = tuple(values[name])
        return cls(**values)


def check_tile_size(size: int, *, output_stride: int = 8) -> None:
    """Check that the networks take tiles of size x size pixels.

    Raises:
        ModelError: if they do not.
    """
    smallest = max(MIN_TILE, 2 * output_stride)
    if size < smallest or size % 32:
        example = max(smallest, size + 32 - size % 32)
        raise ModelError(
            f"The network cannot take tiles of {size} x {size} pixels: the side must be a multiple of 32 and at least "
            f"{smallest}, e.g. {example}. Larger chips can be cropped with `chip_size`."
        )
