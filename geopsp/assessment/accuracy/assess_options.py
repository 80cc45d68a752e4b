"""Options of the assessment of a map."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from geopsp.core.options import check_fields, check_nodata, option

PointDesign = Literal["simple"]


@dataclass(frozen=True, slots=True)
class AssessOptions:
    """All options of `assess_map`.

    Raises:
        OptionError: if one is out of range.
    """

    reference_field: str | None = option(
        None,
        "The field with the reference class of points or polygons. None: the field reference of a sample; other layers "
        "need it.",
    )
    design: PointDesign | None = option(
        None,
        "How points were chosen that are no sample of `draw_sample()`. simple: at random, each pixel of the map with "
        "the same chance. None: unknown, so that accuracies hold for these points alone, without intervals and areas.",
        choices=("simple",),
    )
    class_mapping: Mapping[Any, Any] | str | Path | None = option(
        None,
        "What reference values become: names of the map's classes by value, null for unlabelled, * for all other "
        "values. A dict or a YAML file. None: values are class names or codes of the map.",
        shell_help="YAML file that says what reference values become: names of the map's classes by value, null for "
        "unlabelled, * for all other values.",
    )
    where: str | None = option(None, "SQL condition on the fields of the reference. None: all features.")
    background: Literal["ignore", "class"] = option(
        "ignore",
        "What pixels outside of all reference polygons are. ignore: unlabelled, they do not count; class: of the class "
        "background.",
        choices=("ignore", "class"),
    )
    merge_strata: bool = option(
        False,
        "Merge each stratum with a single labelled point, or none, with another one, of the same zone or mapped class "
        "if there is one. Its error is then known, and rather too large. Without it, the standard errors that depend "
        "on the stratum are unknown.",
    )
    confidence_level: float = option(0.95, "Confidence level of the intervals.", minimum=0.5, below=1)
    nodata: int | str | None = option(
        None,
        "The value of the map that is no class; none: all values are classes, also 0 and 255. None: the nodata value "
        "of the raster, and 255 unless it is a mask of 0 and 255.",
        metavar="VALUE",
    )
    label_nodata: int | str | None = option(
        None,
        "The value of a reference raster that is unlabelled; none: no value. None: its own nodata value.",
        metavar="VALUE",
    )

    def __post_init__(self) -> None:
        check_fields(self)
        check_nodata("nodata", self.nodata)
        check_nodata("label_nodata", self.label_nodata)
