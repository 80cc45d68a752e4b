"""A description of what a path is: as text, as JSON, and the command that takes it."""

from __future__ import annotations

import shlex
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geopsp.core.crs import Bounds, transform_bounds
from geopsp.core.escape import printable
from geopsp.errors import LabelError

ANY_IMAGE, ANY_LABELS = "IMAGE.tif", "LABELS.gpkg"
"""Stand in commands for what is not known."""


@dataclass(frozen=True, slots=True)
class Description:
    """What a path is."""

    kind: str
    """"raster", "container", "vector", "vectors", "images", "chips" or "model"."""

    text: str
    content: Mapping[str, Any]
    """The same for JSON."""

    command: str
    """The command that takes it, in one line."""

    def __str__(self) -> str:
        words = shlex.split(self.command)
        unknown = {ANY_IMAGE: "image", ANY_LABELS: "labels"}
        needs = [f"  needs      your {what}, in place of {name}" for name, what in unknown.items() if name in words]
        return "\n".join([self.text, *needs, f"  command    {self.command}"])

    def to_json(self) -> dict[str, Any]:
        return {"kind": self.kind, **self.content, "command": self.command}


def shell_line(*words: str | Path) -> str:
    """Return a command as one can paste it into a shell, in one line."""
    return " ".join(_quoted(str(word)) for word in words)


def _quoted(word: str) -> str:
    r"""Return a word in quotes, if it needs them; control characters as in bash and zsh: $'a\U0000000ab'."""
    if printable(word) == word:
        return shlex.quote(word)
    text = word.replace("\\", r"\\").replace("'", r"\u0027")
    shown = (sign if printable(sign) == sign else f"\\U{ord(sign):08x}" for sign in text)
    return f"$'{''.join(shown)}'"


def counted(values: Counter[str]) -> str:
    """Return values, the most frequent first, with their counts if there are several: "uint8 (12), uint16 (1)"."""
    if len(values) == 1:
        return next(iter(values))
    shown = [f"{value} ({count:,})" for value, count in values.most_common(5)]
    return ", ".join(shown) + (f" and {len(values) - len(shown)} more" if len(values) > len(shown) else "")


def place(bounds: Bounds | None, crs_wkt: str | None) -> list[float] | None:
    """Return bounds in longitude and latitude; None if they are not known."""
    if bounds is None or crs_wkt is None:
        return None
    try:
        found = transform_bounds(bounds, crs_wkt, "EPSG:4326")
    except LabelError:  # a local CRS, which lies nowhere on Earth
        return None
    return None if found is None else [round(angle, 6) for angle in found]


def place_line(degrees: list[float] | None) -> list[str]:
    """Return the line of the text that says where something lies."""
    if degrees is None:
        return []
    left, bottom, right, top = degrees
    return [f"  lies at    longitude {left:.6g} to {right:.6g}, latitude {bottom:.6g} to {top:.6g}"]
