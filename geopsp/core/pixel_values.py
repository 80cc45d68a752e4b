"""What the values of pixels mean: as stored in files, or physical, raw * scale + offset."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeAlias

BandScale: TypeAlias = tuple[float, float]
"""Scale and offset of a band: its physical value is raw * scale + offset."""


@dataclass(frozen=True, slots=True)
class PixelValues:
    """What the values of an image, of chips or of a model's training pixels mean."""

    scaled: bool = False
    """True: physical values; False: raw ones, as files store them."""

    scales: tuple[BandScale | None, ...] = ()
    """Scale and offset of each band as the files say; None for a band without, () if no band has any."""

    def __post_init__(self) -> None:
        if not any(self.scales):
            object.__setattr__(self, "scales", ())

    @property
    def is_default(self) -> bool:
        """True for raw values without scale and offset: nothing to record."""
        return not self.scaled and not self.scales

    def scale_of(self, band: int) -> BandScale | None:
        """Return scale and offset of a band, by its position."""
        return self.scales[band] if self.scales else None

    def filled(self, other: PixelValues) -> PixelValues:
        """Return the same, with the scales of another where a band has none."""
        bands = max(len(self.scales), len(other.scales))
        return PixelValues(self.scaled, tuple(self.scale_of(i) or other.scale_of(i) for i in range(bands)))

    def lacks(self, other: PixelValues) -> bool:
        """True if a band has a scale in another, but none here."""
        return any(here is None and there is not None for here, there in self._pairs(other))

    def differs(self, other: PixelValues) -> bool:
        """True if a band has one scale here and another one there."""
        return any(here and there and here != there for here, there in self._pairs(other))

    def _pairs(self, other: PixelValues) -> list[tuple[BandScale | None, BandScale | None]]:
        return [(self.scale_of(i), other.scale_of(i)) for i in range(max(len(self.scales), len(other.scales)))]

    def conversion_to(self, other: PixelValues, bands: int) -> tuple[BandScale, ...]:
        """Return (gain, bias) of each band, with which value * gain + bias has the meaning of another.

        A band without a scale on one side is taken to have that of the other side.
        """
        return tuple(self._band_conversion(other, band) for band in range(bands))

    def _band_conversion(self, other: PixelValues, band: int) -> BandScale:
        here = self.scale_of(band) or other.scale_of(band)
        there = other.scale_of(band) or here
        gain, bias = (1.0, 0.0) if self.scaled or here is None else here
        if other.scaled or there is None:
            return gain, bias
        return gain / there[0], (bias - there[1]) / there[0]

    @property
    def scales_text(self) -> str:
        """The scales in words, e.g. "scale 0.0001, offset 0"; "" if there are none."""
        words = {each: "none" if each is None else f"scale {each[0]:g}, offset {each[1]:g}" for each in self.scales}
        return " or ".join(words.values())

    def __str__(self) -> str:
        if self.scaled:
            return "physical values" + (f" (from {self.scales_text})" if self.scales else "")
        return f"raw values ({self.scales_text or 'no scale and offset known'})"

    def to_json(self) -> dict[str, Any]:
        return {"scaled": self.scaled, "scales": [None if each is None else list(each) for each in self.scales]}

    @classmethod
    def from_json(cls, row: Mapping[str, Any] | None) -> PixelValues:
        """Return the default for None, the record of chips and models without scales and of earlier versions.

        Raises:
            ValueError: if it is no such record.
        """
        if row is None:
            return cls()
        scales = tuple(None if each is None else valid_scale(*each) for each in row["scales"])
        wrong = [given for given, scale in zip(row["scales"], scales, strict=True) if given and scale is None]
        if wrong or not isinstance(row["scaled"], bool):
            raise ValueError(f"{row} does not say what pixel values mean")
        return cls(row["scaled"], scales)


def pixel_values_entry(values: PixelValues) -> dict[str, Any]:
    """Return the entry of a manifest of chips or of a model; {} for values without a scale."""
    return {} if values.is_default else {"pixel_values": values.to_json()}


RAW = PixelValues()
"""Values as stored, of which no scale and offset are known."""


def valid_scale(scale: float, offset: float) -> BandScale | None:
    """Return scale and offset; None for those that change nothing, or that no value can have."""
    pair = (float(scale), float(offset))
    usable = all(map(math.isfinite, pair)) and pair[0] != 0
    return pair if usable and pair != (1.0, 0.0) else None


def is_identity(conversion: Sequence[BandScale]) -> bool:
    """True if gains and biases change no value."""
    return all(pair == (1.0, 0.0) for pair in conversion)
