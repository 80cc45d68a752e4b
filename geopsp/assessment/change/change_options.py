"""Options of change between two maps."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from geopsp.core.options import check_fields, check_nodata, option
from geopsp.errors import OptionError
from geopsp.polygons.options import MAX_AREA


@dataclass(frozen=True, slots=True)
class ChangeOptions:
    """All options of `compare_maps`.

    Raises:
        OptionError: if one is out of range, or would have no effect.
    """

    grid: str = option(
        "a",
        "The map whose grid the change has, 'a' or 'b'; the other map is brought onto it, each pixel from the pixel "
        "under its centre (nearest neighbour).",
        choices=("a", "b"),
        shell_help="The map whose grid the change has; the other is resampled to it (nearest neighbour).",
    )
    class_mapping: Mapping[Any, Any] | str | Path | None = option(
        None,
        "A dict, or a YAML file of one, from class names of either map to those of the comparison, e.g. "
        "{'pasture': 'grass', 'cloud': None}; equal names merge, None makes nodata, '*' is all other classes. A class "
        "without a name is named by its code. None: classes stay as they are. Names match in any case.",
        shell_help="YAML file that renames or merges classes of either map, e.g. `pasture: grass`; equal names merge, "
        "null makes nodata, '*' is all other classes. A class without a name is named by its code.",
    )
    min_area: float = option(
        0.0,
        "Changed regions smaller than this count as unchanged, with the class of the first map. A region is connected "
        "pixels (by their sides) of the same change. 0: off.",
        shell_help="Changed regions smaller than this count as unchanged.",
        minimum=0,
        maximum=MAX_AREA,
        unit="m2",
    )
    polygons: str | Path | None = option(
        None,
        "File of polygons of the changed regions, with both class names. None: without.",
        shell_help="Also write polygons of the changed regions.",
    )
    confidence_a: str | Path | None = option(
        None,
        "A raster with the confidence of the first map, 0 to 1: its mean is a column of `polygons`. None: without.",
        shell_help="Raster of the first map's confidence, 0 to 1: its mean becomes a column of the polygons.",
    )
    confidence_b: str | Path | None = option(
        None,
        "The same of the second map. None: without.",
        shell_help="The same of the second map.",
    )
    reference: str | Path | None = option(
        None,
        "A sample of the change map that `draw_sample()` drew and people interpreted: the areas of change get "
        "estimates with intervals. None: without.",
        shell_help="Sample of the change map (of geopsp sample) that people interpreted: areas get estimates with "
        "intervals.",
    )
    confidence_level: float = option(0.95, "Confidence level of these intervals.", minimum=0.5, below=1)
    nodata: int | str | None = option(
        None,
        "The value that is no class in both maps; none: all values are classes, also 0 and 255. None: the nodata value "
        "of each, and 255 unless it is a mask of 0 and 255.",
        metavar="VALUE",
    )
    overwrite: bool = option(False, "Replace outputs that exist.")

    def __post_init__(self) -> None:
        check_fields(self)
        check_nodata("nodata", self.nodata)
        if self.polygons is None:
            for name in ("confidence_a", "confidence_b"):
                if getattr(self, name) is not None:
                    raise OptionError(
                        f"`{name}` is given, but only gives polygons a column. Name a file with `polygons`, or leave "
                        f"`{name}` out."
                    )
