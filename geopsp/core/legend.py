"""Classes: their codes in files, their channel indices in the network, names and colours."""

from __future__ import annotations

import colorsys
import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from geopsp.core.argument_names import did_you_mean
from geopsp.core.escape import printable
from geopsp.core.notebook_html import html_table
from geopsp.core.text import format_count
from geopsp.errors import LabelError

IGNORE_INDEX = 255
"""Label of unlabelled pixels, and the nodata value of class maps."""


BACKGROUND = "background"
"""Name of the class of all that belongs to no other class."""


CLASSES_TAG = "GEOPSP_CLASSES"
"""GeoTIFF tag that holds the legend of a class raster as JSON."""


DEFAULT_COLORS = {
    BACKGROUND: "#1b1b1b", "water": "#2b6cb0", "river": "#2b6cb0", "lake": "#3182ce", "forest": "#22683a",
    "tree": "#2f855a", "trees": "#2f855a", "shrubland": "#9c8f4a", "grass": "#9ad26b", "herbaceous": "#b5d66f",
    "vegetation": "#68a357", "crop": "#e3c44b", "crops": "#e3c44b", "agriculture": "#e3c44b", "bare": "#c19a6b",
    "soil": "#a97c50", "sand": "#e8d7a3", "sediment": "#c2b59b", "land": "#c9a26d", "road": "#7d7d85",
    "building": "#c0392b", "developed": "#b03a2e", "urban": "#b03a2e", "boat": "#f4f4f8", "car": "#d64ad6",
    "snow": "#f7fbff", "ice": "#dcefff", "wetland": "#4fb3a5", "cloud": "#ffffff",
}  # fmt: skip
"""Conventional colours by class name."""


@dataclass(frozen=True, slots=True)
class ClassInfo:
    """A class: `code` is its value in files (0 to 254), `color` is #rrggbb."""

    code: int
    name: str
    color: str

    def __post_init__(self) -> None:
        if not re.fullmatch("#[0-9a-fA-F]{6}", self.color):
            raise LabelError(f"The colour of the class {self.name!r} is {self.color!r}, but must be #rrggbb.")

    @property
    def rgb(self) -> tuple[int, int, int]:
        return tuple(bytes.fromhex(self.color[1:]))  # type: ignore[return-value]

    @property
    def alpha(self) -> int:
        """Opacity in styles, 0 to 255: a background whose colour nobody chose hides nothing."""
        return 0 if (self.name.lower(), self.color) == (BACKGROUND, DEFAULT_COLORS[BACKGROUND]) else 255


def distinct_color(position: int) -> str:
    """Return a colour unlike those of neighbouring positions (golden-angle hues)."""
    hue = (0.11 + position * 0.618034) % 1
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.25 * (position % 2), 0.9 - 0.2 * (position % 3))
    return f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


@dataclass(frozen=True, slots=True)
class Legend:
    """Classes sorted by code, which is the order of the network's channels."""

    classes: tuple[ClassInfo, ...]

    def __post_init__(self) -> None:
        codes = [c.code for c in self.classes]
        if codes != sorted(set(codes)) or any(not 0 <= code < IGNORE_INDEX for code in codes):
            raise LabelError(
                f"The class codes are {codes}, but must be distinct, sorted and within 0 to {IGNORE_INDEX - 1}."
            )

    @classmethod
    def from_names(cls, names: Mapping[int, str], colors: Mapping[int, str] | None = None) -> Legend:
        """Make a legend of names by code, with the given colours, else conventional ones, else distinct ones."""
        colors = colors or {}
        return cls(
            tuple(
                ClassInfo(
                    code,
                    names[code],
                    colors.get(code) or DEFAULT_COLORS.get(names[code].lower()) or distinct_color(code),
                )
                for code in sorted(names)
            )
        )

    def __len__(self) -> int:
        return len(self.classes)

    def __iter__(self) -> Iterator[ClassInfo]:
        return iter(self.classes)

    def __repr__(self) -> str:
        classes = ", ".join(f"{info.code} {info.name}" for info in self)
        count = format_count(len(self), "class", "classes")
        return printable(f"<Legend of {count}: {classes}>" if len(self) else "<Legend of 0 classes>")

    def _repr_html_(self) -> str:
        return html_table(["class", "code", "colour"], [[info, str(info.code), info.color] for info in self])

    @property
    def codes(self) -> list[int]:
        return [c.code for c in self.classes]

    @property
    def names(self) -> list[str]:
        return [c.name for c in self.classes]

    def codes_to_indices(self, codes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the channel indices of class codes; codes outside the legend become IGNORE_INDEX."""
        table = np.full(256, IGNORE_INDEX, np.uint8)
        table[self.codes] = np.arange(len(self), dtype=np.uint8)
        return table[codes]

    def indices_to_codes(self, indices: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Return the class codes of channel indices; IGNORE_INDEX stays."""
        if self.codes == list(range(len(self))):
            return indices.copy()
        table = np.full(256, IGNORE_INDEX, np.uint8)
        table[: len(self)] = self.codes
        return table[indices]

    def code_of(self, name: str) -> int:
        """Return the code of a class.

        Raises:
            LabelError: if no class has this name.
        """
        for info in self.classes:
            if info.name == name:
                return info.code
        raise LabelError(
            f"No class is named {name!r}.{did_you_mean(name, self.names)} The classes are {', '.join(self.names)}."
        )

    def extended_by(self, other: Legend) -> Legend:
        """Return a legend with the classes of both, by name; classes of `other` keep their code if it is free.

        Raises:
            LabelError: if there are more classes than codes.
        """
        classes = {info.code: info for info in self}
        for info in other:
            if info.name not in self.names:
                code = next(
                    (code for code in (info.code, *range(1, IGNORE_INDEX)) if code not in classes), IGNORE_INDEX
                )
                classes[code] = replace(info, code=code)
        return Legend(tuple(classes[code] for code in sorted(classes)))

    def to_json(self) -> list[dict[str, Any]]:
        return [{"code": c.code, "name": c.name, "color": c.color} for c in self.classes]

    @classmethod
    def from_json(cls, rows: Sequence[Mapping[str, Any]]) -> Legend:
        return cls(tuple(ClassInfo(int(r["code"]), str(r["name"]), str(r["color"])) for r in rows))

    # names of earlier versions
    extended = extended_by
    to_index = codes_to_indices
    to_code = indices_to_codes
