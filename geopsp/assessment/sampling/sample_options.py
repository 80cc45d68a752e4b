"""Options of samples of a map."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from numbers import Real
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from geopsp.core.options import check_fields, check_nodata, option, option_values, require_number
from geopsp.errors import OptionError

if TYPE_CHECKING:
    import geopandas as gpd

SampleDesign = Literal["stratified", "simple", "cluster"]


Allocation = Literal["minimum", "proportional", "equal"]


EXPECTED_ACCURACY = 0.85
"""Of classes for which none is given: what land-cover maps are commonly asked for (Anderson et al. 1976)."""


OTHERS = "*"
"""Stands for all classes that are not named."""


MINIMUM_PER_CLASS = 50
"""Points of a rare class. Source: Congalton and Green (2019), chapter 5; Olofsson et al. (2014), section 5.1.2."""


MAX_POINTS = 10**7


@dataclass(frozen=True, slots=True)
class SampleOptions:
    """All options of `draw_sample`.

    Raises:
        OptionError: if one is out of range, or two contradict each other.
    """

    design: SampleDesign = option(
        "stratified",
        "How pixels are drawn. stratified: at random within each mapped class; simple: at random from all of the map; "
        "cluster: all pixels of square blocks that are drawn at random.",
        choices=get_args(SampleDesign),
    )
    size: int | None = option(
        None,
        "Number of points; of a cluster sample, number of blocks. None: as many as `standard_error` needs.",
        minimum=2,
        maximum=MAX_POINTS,
    )
    standard_error: float = option(
        0.01,
        "Target standard error of the overall accuracy, as a fraction, if `size` is not given. A 95 % interval is "
        "about four times as wide.",
        above=0,
        maximum=0.5,
    )
    expected_accuracy: float | Mapping[str, float] | None = option(
        None,
        "The user's accuracy that is expected of the classes, as a fraction: one number, or numbers by class name, in "
        "which '*' stands for all other classes. It says how many points `standard_error` needs. "
        f"None, and for classes not named: {EXPECTED_ACCURACY:g}.",
        shell_help="The user's accuracy that is expected of the classes, as a fraction: one number, numbers by class "
        "name, or both: 0.9,water=0.97. It says how many points `standard_error` needs. "
        f"Default: {EXPECTED_ACCURACY:g}.",
        metavar="NUMBER,CLASS=NUMBER,...",
    )
    allocation: Allocation = option(
        "minimum",
        "How the points of a stratified sample are divided among strata. proportional: by area; equal: the same number "
        "for each; minimum: by area, but at least `minimum_per_class` for each class. Each stratum gets two points or "
        "more, but never more than it has pixels.",
        choices=get_args(Allocation),
    )
    minimum_per_class: int | None = option(
        None,
        f"Least number of points of a class, with the allocation minimum. None: {MINIMUM_PER_CLASS}, or equal shares "
        "of a `size` that is too small for that.",
        minimum=2,
        maximum=MAX_POINTS,
        unit="points",
    )
    confidence: str | Path | None = option(
        None,
        "A raster of the same grid with the confidence of each pixel, 0 to 1, for the field confidence. None: without.",
    )
    confidence_bins: Sequence[float] | None = option(
        None,
        "Limits between 0 and 1 that divide each class into strata of lower and higher confidence, e.g. 0.5, 0.8. "
        "None: classes are not divided.",
        metavar="LIMIT,...",
    )
    zones: str | Path | gpd.GeoDataFrame | None = option(
        None,
        "Polygons (FILE or FILE|layername=LAYER) that divide the map into zones, each with strata of its own; where "
        "two overlap, the smaller counts. Pixels outside of all zones are not drawn. None: without.",
    )
    zone_field: str | None = option(
        None, "The field of `zones` that names the zone of a polygon. None: each polygon is a zone."
    )
    aoi: str | Path | gpd.GeoDataFrame | None = option(
        None,
        "Area of interest: polygons (FILE or FILE|layername=LAYER) outside of which no pixels are drawn, and for which "
        "alone the sample stands. None: all.",
    )
    exclude_class: Sequence[str | int] | None = option(
        None,
        "Names or codes of mapped classes whose pixels are not drawn. None: no class.",
        metavar="CLASS,...",
    )
    cluster_size: int = option(
        5, "Side of the blocks of a cluster sample.", minimum=1, maximum=1000, unit="pixels", metavar="PIXELS"
    )
    show_map_class: bool = option(
        False,
        "Show the mapped class, the stratum and the confidence in the form in QGIS. By default they are hidden, so "
        "that the reference label does not depend on the map.",
    )
    nodata: int | str | None = option(
        None,
        "The value that is not drawn; none: all values are classes, also 0 and 255. None: the nodata value of the "
        "raster, and 255 unless it is a mask of 0 and 255.",
        metavar="VALUE",
    )
    seed: int = option(0, "Random seed: the same one gives the same points.", minimum=0, maximum=2**63 - 1)
    overwrite: bool = option(False, "Replace an output that exists.")

    def __post_init__(self) -> None:
        check_fields(self)
        check_nodata("nodata", self.nodata)
        _check_accuracies(self.expected_accuracy)
        _check_bins(self.confidence_bins)
        self._check_excluded()
        if self.confidence_bins is not None and self.confidence is None:
            raise OptionError("`confidence_bins` needs `confidence`, a raster with the confidence of each pixel.")
        if self.zone_field is not None and self.zones is None:
            raise OptionError("`zone_field` only applies to `zones`, a file of polygons. Give both, or neither.")
        if self.minimum_per_class is not None and self.allocation != "minimum":
            raise OptionError("`minimum_per_class` only applies to `allocation='minimum'`.")
        self._check_design()

    def _check_excluded(self) -> None:
        excluded = self.exclude_class
        if excluded is not None and (isinstance(excluded, str) or not isinstance(excluded, Sequence) or not excluded):
            raise OptionError(
                f"`exclude_class` is {excluded!r}, but must be a list of class names or codes, e.g. "
                "`exclude_class=['cloud']`."
            )

    def _check_design(self) -> None:
        """Check that no option is given that another design has."""
        if self.design == "stratified":
            return
        for name in ("zones", "confidence_bins", "minimum_per_class"):
            if getattr(self, name) is not None:
                hint = " Use `aoi` for an area of interest." if name == "zones" else ""
                raise OptionError(f"`{name}` only applies to `design='stratified'`, not to {self.design}.{hint}")

    def accuracy_of(self, name: str) -> float:
        """Return the accuracy that is expected of a class."""
        expected = self.expected_accuracy
        if isinstance(expected, Mapping):
            return float(expected.get(name, expected.get(OTHERS, EXPECTED_ACCURACY)))
        return EXPECTED_ACCURACY if expected is None else float(expected)

    def to_json(self) -> dict[str, Any]:
        """Return the options as JSON can hold them; of files, the names."""
        stored: dict[str, Any] = {}
        for name, value in option_values(self).items():
            if name in {"confidence", "zones", "aoi"} and value is not None:
                stored[name] = Path(value).name if isinstance(value, str | Path) else type(value).__name__
            elif isinstance(value, Mapping):
                stored[name] = dict(value)
            elif name != "overwrite":
                stored[name] = list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
        return stored


def _check_accuracies(expected: Any) -> None:
    if isinstance(expected, Mapping):
        for name, value in expected.items():
            if isinstance(value, bool) or not isinstance(value, Real) or not 0 <= float(value) <= 1:
                raise OptionError(f"`expected_accuracy` of {name!r} is {value!r}, but must be a number from 0 to 1.")
    elif expected is not None:
        require_number("expected_accuracy", expected, minimum=0, maximum=1)


def _check_bins(limits: Any) -> None:
    if limits is None:
        return
    ok = isinstance(limits, Sequence) and not isinstance(limits, str) and len(limits) > 0
    for limit in limits if ok else ():
        require_number("confidence_bins", limit, above=0, below=1)
    if not ok or any(later <= earlier for earlier, later in pairwise(limits)):
        raise OptionError(
            f"`confidence_bins` is {limits!r}, but must be a list of limits between 0 and 1 in ascending order, e.g. "
            "`confidence_bins=[0.5, 0.8]`."
        )
