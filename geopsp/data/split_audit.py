"""The audit of a split: what was measured on the footprints of its chips."""

from __future__ import annotations

from dataclasses import dataclass

from geopsp.core.text import format_count

WORDS = {
    "blocks": "by spatial blocks",
    "source": "by source image",
    "folder": "by folder",
    "areas": "by areas",
    "random": "at random",
}
"""The kinds of split in messages."""


@dataclass(frozen=True, slots=True)
class Audit:
    """Properties of a split, measured on the footprints. Lengths in CRS units."""

    train: int
    valid: int
    dropped: int
    unlabelled: int
    shared_pixels: int | None
    """Pixels that lie in both a training and a validation chip, each counted once; 0 except in a random split. None
    if a chip has no georeference."""

    gap: float | None
    """Smallest distance between a training and a validation chip; None if a chip has no georeference."""

    missing_in_train: tuple[str, ...]
    missing_in_valid: tuple[str, ...]
    by: str = "blocks"
    """The kind of split, and its fold."""

    units: str = ""
    """CRS units, e.g. "metre"."""

    def __str__(self) -> str:
        text = f"{format_count(self.train, 'training chip')} and {format_count(self.valid, 'validation chip')}"
        if self.shared_pixels is None:
            text += "; overlap unknown (chips without georeference)"
        elif self.shared_pixels:
            text += f"; {format_count(self.shared_pixels, 'pixel')} in both"
        else:
            text += f"; no overlap, closest chips {_format_length(self.gap or 0, self.units)} apart"
        text += f"; {format_count(self.dropped, 'chip')} between them left out" if self.dropped else ""
        text += f"; {format_count(self.unlabelled, 'chip')} without labels" if self.unlabelled else ""
        for part, names in (("training", self.missing_in_train), ("validation", self.missing_in_valid)):
            text += f"; not in {part}: {', '.join(names)}" if names else ""
        kind, space, fold = self.by.partition(" ")
        return f"{text}; split {WORDS.get(kind, kind)}{space}{fold}"


def _format_length(length: float, units: str) -> str:
    if units == "metre":
        return f"{length:,.1f}".removesuffix(".0") + " m"
    if units == "degree":
        return f"{length:.4g} degrees"
    return f"{length:,.6g} {units or 'CRS units'}"
