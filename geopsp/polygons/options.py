"""What may be asked of polygons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypedDict

import numpy as np
from numpy.typing import NDArray

from geopsp.core.legend import IGNORE_INDEX, Legend
from geopsp.errors import OptionError

Classes = Sequence[str | int]


class PolygonOptions(TypedDict, total=False):
    """Options of `raster_to_polygons`, as others pass them on."""

    connectivity: int
    simplify: float
    smooth: int
    min_area: float
    fill_holes: float
    keep: Classes | None
    drop: Classes | None
    dissolve: bool
    regularize: bool | float
    confidence: str | Path | None


@dataclass(frozen=True, slots=True)
class PolygonSettings:
    """Options that can be met together; what they mean is told by `raster_to_polygons`.

    Raises:
        OptionError: if one is out of range, or two contradict each other.
    """

    connectivity: int = 4
    simplify: float = 0.0
    smooth: int = 0
    min_area: float = 0.0
    fill_holes: float = 0.0
    keep: Classes | None = None
    drop: Classes | None = None
    dissolve: bool = False
    regularize: bool | float = False

    def __post_init__(self) -> None:
        if not _is_whole(self.connectivity) or self.connectivity not in (4, 8):
            raise OptionError(
                f"connectivity is {self.connectivity!r}; needed 4 (pixels that share sides are one polygon) or 8 "
                "(also those that share corners)."
            )
        for name, unit in (("simplify", "CRS units"), ("min_area", "m2"), ("fill_holes", "m2")):
            _require_number(name, getattr(self, name), unit)
        if not isinstance(self.regularize, bool):
            _require_number("regularize", self.regularize, "metres")
        check_switch("dissolve", self.dissolve)
        if not _is_whole(self.smooth) or not 0 <= self.smooth <= ROUNDS:
            raise OptionError(f"smooth is {self.smooth!r}; needed a whole number of rounds, 0 (none) to {ROUNDS}.")
        if self.keep is not None and self.drop is not None:
            raise OptionError("keep and drop are both given; needed one of them: all other classes follow from it.")
        for name in ("keep", "drop"):
            _require_classes(name, getattr(self, name))
        if self.regularize and (self.simplify or self.smooth):
            raise OptionError(
                "regularize makes right-angled outlines of its own; simplify and smooth cannot be asked for with it. "
                "Leave them out."
            )
        if self.regularize and self.keep is None:
            raise OptionError(
                "regularize moves outlines of one polygon without those of its neighbours; needed keep with the "
                "classes that are right-angled, e.g. keep=['building'] (--keep building)."
            )

    @property
    def may_be_multi(self) -> bool:
        """True if a feature may be of several polygons."""
        return self.connectivity == 8 or self.dissolve

    @property
    def needs_all_features(self) -> bool:
        """True if all polygons are needed before the first can be written."""
        return self.dissolve or bool(self.regularize)

    def selected_codes(self, legend: Legend) -> NDArray[np.bool_]:
        """(256,) True for the codes whose polygons are wanted.

        Raises:
            OptionError: if there is no such class.
        """
        named = np.zeros(IGNORE_INDEX + 1, np.bool_)
        for entry in self.keep if self.keep is not None else self.drop or ():
            named[_codes(entry, legend)] = True
        return named if self.keep is not None else ~named


LARGEST = 1e15
"""More square metres than the Earth has."""


ROUNDS = 5
"""Rounds of smoothing beyond which nothing is seen to change."""


def check_switch(name: str, value: Any) -> None:
    """Nothing, if it is on or off.

    Raises:
        OptionError: if not.
    """
    if not isinstance(value, bool):
        raise OptionError(f"{name} is {value!r}; needed True or False.")


def _is_whole(value: Any) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def _require_number(name: str, value: Any, unit: str) -> None:
    if not (_is_whole(value) or isinstance(value, float | np.floating)) or not 0 <= value <= LARGEST:
        raise OptionError(
            f"{name} is {value!r}; needed a number of {unit} from 0 to {LARGEST:g}. Leave it at 0 for none."
        )


def _require_classes(name: str, classes: Any) -> None:
    if classes is None:
        return
    if isinstance(classes, str | bytes) or not isinstance(classes, Sequence) or not classes:
        raise OptionError(f"{name} is {classes!r}; needed a list of names or codes of classes, e.g. ['building'].")


def _codes(entry: str | int, legend: Legend) -> list[int]:
    """Of all classes of this name, or else the code that it is, also as text."""
    found = [info.code for info in legend if info.name == entry]
    if found:
        return found
    text = str(entry)
    if not isinstance(entry, bool) and text.isdecimal() and int(text) < IGNORE_INDEX:
        return [int(text)]
    named = dict.fromkeys(info.name for info in legend if info.name != f"class {info.code}")
    raise OptionError(
        f"{entry!r} is no class of the raster; it has {', '.join(named) or 'no names'}. Give names, or codes 0 to 254."
    )
