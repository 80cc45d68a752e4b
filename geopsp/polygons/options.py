"""Options of polygons."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

from geopsp.cluster.options import check_client
from geopsp.core.argument_names import did_you_mean
from geopsp.core.options import check_fields, check_nodata, option, require_number
from geopsp.errors import OptionError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from geopsp.core.legend import Legend

MAX_AREA = 1e15
"""More square metres than the Earth has; also the largest tolerance."""


MAX_ROUNDS = 5
"""Rounds of smoothing beyond which no change is visible."""


@dataclass(frozen=True, slots=True)
class PolygonSettings:
    """How a class raster becomes polygons.

    Raises:
        OptionError: if one is out of range, or two contradict each other.
    """

    connectivity: int = option(
        4,
        "4, or 8: pixels of one class that share only a corner belong to one feature, a multipolygon.",
        choices=(4, 8),
        shell_help="8: pixels that touch only at corners belong to one feature, too.",
    )
    simplify: float = option(
        0.0,
        "Tolerance of simplification (Visvalingam-Whyatt), in metres on the ground in any CRS: a vertex is removed "
        "while the triangle with its two neighbours is smaller than the square of `simplify`. Borders that polygons "
        "share stay shared: no gaps, no overlaps. Steps of single pixels disappear from 0.71 pixels on. 0: off.",
        shell_help="Simplify outlines with this tolerance on the ground, without gaps or overlaps between neighbours.",
        minimum=0,
        maximum=MAX_AREA,
        unit="metres",
    )
    smooth: int = option(
        0,
        "Rounds of corner cutting; 2 or 3 look smooth. Borders that polygons share stay shared, and no border moves by "
        "4 pixels or more, in any CRS. 0: off.",
        shell_help="Round the outlines; 2 or 3 rounds are enough.",
        minimum=0,
        maximum=MAX_ROUNDS,
        unit="rounds",
        metavar="ROUNDS",
    )
    min_area: float = option(
        0.0,
        "Regions smaller than this join the neighbour with the longest common border, the smallest first. Regions that "
        "only touch nodata or the edge of the raster stay. 0: off.",
        shell_help="Regions smaller than this join a neighbour.",
        minimum=0,
        maximum=MAX_AREA,
        unit="m2",
    )
    fill_holes: float = option(
        0.0,
        "Holes smaller than this, of nodata or other classes, become part of the polygon around them. 0: off.",
        shell_help="Fill holes smaller than this.",
        minimum=0,
        maximum=MAX_AREA,
        unit="m2",
    )
    keep: Sequence[str | int] | None = option(
        None,
        "Names or codes of the classes to write. None: all.",
        shell_help="Write only these classes (names or codes).",
    )
    drop: Sequence[str | int] | None = option(
        None,
        "Names or codes of the classes to leave out. None: no class.",
        shell_help="Leave out these classes (names or codes).",
    )
    dissolve: bool = option(False, "Write one feature per class, a multipolygon.")
    regularize: bool | float = option(
        False,
        "Make right-angled outlines of the classes in `keep`, as buildings have. Corners move by at most this many "
        "metres; True: two pixels. Adjacent polygons are not adjusted. The column moved_m holds the distance.",
        shell_help="Make right-angled outlines of the classes in --keep. Corners move by at most METRES. "
        "Without a number: two pixels.",
        unit="metres",
        metavar="[METRES]",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        if not isinstance(self.regularize, bool):
            require_number("regularize", self.regularize, minimum=0, maximum=MAX_AREA, unit="metres")
        if self.keep is not None and self.drop is not None:
            raise OptionError("`keep` and `drop` are both given. Give one of them; the other classes follow from it.")
        for name in ("keep", "drop"):
            _require_classes(name, getattr(self, name))
        if self.regularize and (self.simplify or self.smooth):
            raise OptionError("`regularize` cannot be combined with `simplify` or `smooth`. Leave these out.")
        if self.regularize and self.keep is None:
            raise OptionError(
                "`regularize` needs `keep` with the right-angled classes, e.g. `keep=['building']`, because it moves "
                "the outline of a polygon without those of its neighbours."
            )

    @property
    def may_be_multi(self) -> bool:
        """True if a feature may consist of several polygons."""
        return self.connectivity == 8 or self.dissolve

    @property
    def needs_all_features(self) -> bool:
        """True if all polygons must be known before the first can be written."""
        return self.dissolve or bool(self.regularize)

    def selected_codes(self, legend: Legend, values: NDArray[np.int64] | None = None) -> NDArray[np.bool_]:
        """Return (256,) True for the class codes to write.

        Args:
            legend: All classes.
            values: The values of the raster that stand for the codes in `keep` and `drop`; None: the codes do.

        Raises:
            OptionError: if there is no such class.
        """
        import numpy as np

        named = np.zeros(256, np.bool_)
        for entry in self.keep if self.keep is not None else self.drop or ():
            named[_codes(entry, legend, None if values is None else values.tolist())] = True
        return named if self.keep is not None else ~named


@dataclass(frozen=True, slots=True)
class PolygonOptions(PolygonSettings):
    """All options of `raster_to_polygons`."""

    confidence: str | Path | None = option(
        None,
        "A raster of the same grid with the confidence of each pixel, 0 to 1. Adds the columns confidence "
        "(mean) and edge_unsure. None: without.",
    )
    nodata: int | str | None = option(
        None,
        "The value that becomes no polygon; none: all values are classes, also 0 and 255. None: the nodata value of "
        "the raster, and 255 unless it is a mask of 0 and 255.",
        metavar="VALUE",
    )
    overwrite: bool = option(False, "Replace an output that exists.")
    client: Any = option(None, "A Dask client; its workers trace the raster. None: this machine.", flag="")
    scheduler: str | None = option(
        None,
        "Trace the raster on a Dask cluster: the address of its scheduler (tcp://HOST:PORT), or local (one process per "
        "CPU core of this machine). None: in this process.",
    )

    def __post_init__(self) -> None:
        PolygonSettings.__post_init__(self)
        check_client(self.client, self.scheduler)
        check_nodata("nodata", self.nodata)


class PolygonSettingsDict(TypedDict, total=False):
    """`PolygonSettings` as a dict, e.g. `polygon_options` of `classify_pixels`."""

    connectivity: int
    simplify: float
    smooth: int
    min_area: float
    fill_holes: float
    keep: Sequence[str | int] | None
    drop: Sequence[str | int] | None
    dissolve: bool
    regularize: bool | float


def _require_classes(name: str, classes: Any) -> None:
    if classes is None:
        return
    if isinstance(classes, str | bytes) or not isinstance(classes, Sequence) or not classes:
        raise OptionError(
            f"`{name}` is {classes!r}, but must be a list of class names or codes, e.g. `{name}=['building']`."
        )


def _codes(entry: str | int, legend: Legend, values: Sequence[int] | None) -> list[int]:
    """The codes of all classes of this name, else the code itself, also as text."""
    found = [info.code for info in legend if info.name == entry]
    if found:
        return found
    text, known = str(entry), range(255) if values is None else values
    if not isinstance(entry, bool) and text.removeprefix("-").isdecimal() and int(text) in known:
        return [known.index(int(text))]
    named = dict.fromkeys(info.name for info in legend if info.name != f"class {known[info.code]}")
    codes = "from 0 to 254" if values is None else ", ".join(map(str, known))
    raise OptionError(
        f"The raster has no class {entry!r}.{did_you_mean(text, named)} Its classes are "
        f"{', '.join(named) or 'unnamed'}; give names, or codes {codes}."
    )
