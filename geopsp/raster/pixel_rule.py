"""PixelRule: what the values of pixels mean, decided once for all images that are used together.

By default, values are raw where all files that have a scale and an offset have the same. Where these differ, as between
Sentinel-2 images before and after baseline 04.00, all values become physical: raw * scale + offset, as float32. A model
gets the values that it was trained with. A file without scale and offset is taken to have those of the others, with a
warning; a float file without them already holds physical values.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.pixel_values import RAW, BandScale, PixelValues, is_identity
from geopsp.raster.image_layer import ImageLayer


@dataclass(frozen=True, slots=True)
class PixelRule:
    """What all values mean, and what to say of it."""

    pixel_values: PixelValues
    converts: bool
    """True if the values of an image have to be converted, and all become float32."""

    notes: tuple[str, ...] = ()
    warnings: tuple[str, ...] = ()

    @classmethod
    def choose(
        cls, layers: Sequence[ImageLayer], *, scaled: bool | None = None, like: PixelValues | None = None
    ) -> PixelRule:
        """Decide for these images.

        Args:
            layers: The images.
            scaled: True for physical values, False for raw ones, None as described above.
            like: What the values of a model's training pixels mean; then `scaled` does not count.
        """
        first = PixelValues()
        for layer in layers:
            first = first.filled(PixelValues(scales=layer.scales))
        mixed = any(first.differs(PixelValues(scales=layer.scales)) for layer in layers)
        if like is not None:
            return cls._like_training(layers, like, first, mixed=mixed)
        target = PixelValues(mixed if scaled is None else scaled, first.scales)
        if scaled is False and mixed:
            text = f"{_differing(layers, first)}. Raw values are used as asked; `scaled=True` makes them comparable."
            return cls(RAW, converts=False, warnings=(text,))
        notes = [f"{_differing(layers, first)}: all values are converted to physical ones"] if mixed else []
        warnings = list(_unlike_each_other(layers, target))
        if scaled and target.scales == ():
            warnings.append(f"{layers[0].name} has no scale and offset: its values are taken as they are, as physical.")
        return cls(target, _must_convert(layers, target), tuple(notes), tuple(warnings))

    @classmethod
    def _like_training(
        cls, layers: Sequence[ImageLayer], like: PixelValues, first: PixelValues, *, mixed: bool
    ) -> PixelRule:
        target, warnings = like.filled(first), list(_unlike_training(layers, like))
        if like.lacks(first):
            warnings += _unlike_each_other(layers, first)
            if mixed and not like.scaled:
                warnings.append(f"{_differing(layers, first)}: all values are converted to those of the latter.")
        return cls(target, _must_convert(layers, target), warnings=tuple(warnings))

    def apply_to(self, layer: ImageLayer) -> ImageLayer:
        """Return the layer with what turns its values into those of the rule."""
        if not self.converts:
            return replace(layer, conversion=())
        here, target = _values_of(layer, self.pixel_values), self.pixel_values
        return replace(layer, conversion=here.conversion_to(target, len(layer.bands)))


def convert_pixels(
    data: NDArray[Any], valid: NDArray[np.bool_], conversion: Sequence[BandScale]
) -> NDArray[np.float32]:
    """Return value * gain + bias of (bands, rows, cols) pixels, 0 where they are not valid."""
    converted = np.zeros(data.shape, np.float32)
    for band, (gain, bias), result in zip(data, conversion, converted, strict=True):
        result[valid] = band[valid].astype(np.float64) * gain + bias
    return converted


def _values_of(layer: ImageLayer, target: PixelValues) -> PixelValues:
    """Return what the stored values of an image mean; floats without a scale are physical, where these are wanted."""
    is_physical = target.scaled and layer.dtype.kind == "f" and not any(layer.scales)
    return PixelValues(is_physical, layer.scales)


def _must_convert(layers: Sequence[ImageLayer], target: PixelValues) -> bool:
    return target.scaled or not all(
        is_identity(_values_of(layer, target).conversion_to(target, len(layer.bands))) for layer in layers
    )


def _differing(layers: Sequence[ImageLayer], first: PixelValues) -> str:
    """Say of two images that they have different scales."""
    tagged = [(layer.name, PixelValues(scales=layer.scales)) for layer in layers if any(layer.scales)]
    other, values = next((name, values) for name, values in tagged if first.differs(values))
    return f"{other} has {values.scales_text}, but {tagged[0][0]} has {tagged[0][1].scales_text}"


def _unlike_each_other(layers: Sequence[ImageLayer], first: PixelValues) -> Iterator[str]:
    """Warn of images without a scale among others that have one."""
    missing = [layer for layer in layers if PixelValues(scales=layer.scales).lacks(first)]
    if missing:
        tagged = next(layer.name for layer in layers if any(layer.scales))
        yield (
            f"{_names(missing)} {_lacks(missing[0], first)}, but {tagged} has {first.scales_text}. "
            f"{_assumption(missing[0], first)} If that is wrong, set them in the file (gdal_edit.py -scale -offset)."
        )


def _unlike_training(layers: Sequence[ImageLayer], like: PixelValues) -> Iterator[str]:
    """Warn of images that have a scale where those of the training had none, and the other way round."""
    missing = [layer for layer in layers if PixelValues(scales=layer.scales).lacks(like)]
    if missing:
        yield (
            f"{_names(missing)} {_lacks(missing[0], like)}, but the model was trained on {like}. "
            f"{_assumption(missing[0], like)} If that is wrong, set them in the file (gdal_edit.py -scale -offset)."
        )
    unknown = [layer for layer in layers if like.lacks(PixelValues(scales=layer.scales))]
    if unknown and not like.scaled:
        yield (
            f"{_names(unknown)} has {PixelValues(scales=unknown[0].scales).scales_text}, but no scale and offset are "
            "known of the images that the model was trained on. Raw values are used."
        )


def _lacks(layer: ImageLayer, other: PixelValues) -> str:
    bands = [name for i, name in enumerate(layer.bands) if other.scale_of(i) is not None and layer.scales[i] is None]
    return "has no scale and offset" + (f" in {', '.join(bands)}" if len(bands) < len(layer.bands) else "")


def _assumption(layer: ImageLayer, target: PixelValues) -> str:
    if target.scaled and layer.dtype.kind == "f" and not any(layer.scales):
        return "Its values are taken as physical ones."
    return "Its values are taken to have the same."


def _names(layers: Sequence[ImageLayer]) -> str:
    return layers[0].name + (f" (and {len(layers) - 1} more)" if len(layers) > 1 else "")
