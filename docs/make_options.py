"""Write options.md, the reference of all options, from the dataclasses that define them."""

from __future__ import annotations

from dataclasses import Field
from pathlib import Path
from typing import Any

from geopsp.active_learning.options import SuggestOptions
from geopsp.assessment.accuracy.assess_options import AssessOptions
from geopsp.assessment.change.change_options import ChangeOptions
from geopsp.assessment.comparison.comparison_options import ComparisonOptions
from geopsp.assessment.sampling.sample_options import SampleOptions
from geopsp.chips.options import CUTTING, ExportOptions
from geopsp.cli.options import flag_names
from geopsp.core.options import info_of, option_fields
from geopsp.export.options import ExportOptions as ModelExportOptions
from geopsp.inference.options import MapOptions
from geopsp.models.crf import CRFOptions
from geopsp.models.loss_options import LossSpec
from geopsp.polygons.options import PolygonOptions
from geopsp.training.options import DataOptions, FitOptions, ModelOptions, RunConfig
from geopsp.training.presets import DeepLabOptions, PSPNetOptions

PAGE = Path(__file__).with_name("options.md")

INTRODUCTION = """\
# Options

Written by `python docs/make_options.py` from the dataclasses that define the options; do not edit.

Names are those of Python's keyword arguments. In the shell each option has the flag in the second column, if any; where
Python has None, the shell leaves the option out. A flag that begins with `--no-`, and `--mosaic`, turns a default off.
"""

GROUPS: tuple[tuple[str, str, tuple[type[Any], ...]], ...] = (
    ("Chips", "`export_training_data`, `geopsp chips`; with images also `prepare_data`, `geopsp train`", CUTTING),
    ("Chip files", "`export_training_data`, `geopsp chips`", (ExportOptions,)),
    ("Data", "`prepare_data`, `geopsp train`", (DataOptions,)),
    ("Model", "`PSPNetClassifier`, `FCNClassifier`, `UnetClassifier`, `DeepLab`, `geopsp train`", (ModelOptions,)),
    ("PSPNet", "`PSPNetClassifier`, `geopsp train`", (PSPNetOptions,)),
    ("DeepLab", "`DeepLab`, `geopsp train`", (DeepLabOptions,)),
    ("Loss", "`PSPNetClassifier`, `FCNClassifier`, `UnetClassifier`, `DeepLab`, `geopsp train`", (LossSpec,)),
    ("Fit", "`fit` of all classifiers, `geopsp train`", (FitOptions, RunConfig)),
    ("Export", "`export` of all classifiers, `geopsp export`", (ModelExportOptions,)),
    ("Map", "`classify_pixels`, `geopsp predict`", (MapOptions,)),
    ("Suggest", "`suggest_chips`, `geopsp suggest`", (SuggestOptions,)),
    ("CRF", "`CRFOptions` for `crf` of `classify_pixels`, `geopsp predict`", (CRFOptions,)),
    ("Polygons", "`raster_to_polygons`, `geopsp polygonize`, and `polygon_options`", (PolygonOptions,)),
    ("Sample", "`draw_sample`, `geopsp sample`", (SampleOptions,)),
    ("Assessment", "`assess_map`, `geopsp assess`", (AssessOptions,)),
    ("Change", "`compare_maps`, `geopsp change`", (ChangeOptions,)),
    ("Comparison of models", "`compare_models`, `geopsp compare`", (ComparisonOptions,)),
)
"""Title, where the options are used, and their dataclasses."""

COLUMNS = ("Name", "Shell", "Type", "Default", "Allowed", "Unit", "Meaning")


def page() -> str:
    """Return the whole page."""
    parts = [INTRODUCTION]
    parts += [f"## {title}\n\n{where}.\n\n{table(*classes)}" for title, where, classes in GROUPS]
    return "\n".join(parts)


def table(*classes: type[Any]) -> str:
    """Return a table with a line for each option."""
    rows = [COLUMNS, ("---",) * len(COLUMNS), *(row(entry) for entry in option_fields(*classes).values())]
    lines = (" | ".join(cell.replace("|", r"\|") for cell in cells) for cells in rows)
    return "".join(f"| {line} |\n" for line in lines)


def row(entry: Field[Any]) -> tuple[str, ...]:
    """Return the cells of one option."""
    info = info_of(entry)
    assert info is not None
    allowed = ", ".join(map(str, info.choices)) or info.range.removeprefix("of ").removeprefix("from ")
    flags = ", ".join(f"`{flag}`" for flag in flag_names(entry))
    kind = str(entry.type)
    if info.choices and isinstance(info.choices[0], str):
        kind = "str | None" if entry.default is None else "str"
    return f"`{entry.name}`", flags, f"`{kind}`", f"`{entry.default!r}`", allowed, info.unit, info.help


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
