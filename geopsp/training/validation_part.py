"""What validates, as `split` and `valid_path` say it."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import geopandas as gpd

from geopsp.chips.chip_set import ChipSet
from geopsp.data.split_areas import Areas
from geopsp.data.split_audit import Audit
from geopsp.data.split_groups import SplitBy, as_list
from geopsp.errors import ChipError, OptionError
from geopsp.vector.open import local_folder, open_layer

logger = logging.getLogger(__name__)


def validation_part(split: SplitBy, valid_path: Areas | None, *, cut: bool) -> dict[str, Any]:
    """The options of a split that say what validates.

    Args:
        split: What goes to one side as a whole.
        valid_path: What validates, chip folders or layers of polygons; None: what is drawn.
        cut: True if chips are cut from images, so that there are no folders.

    Raises:
        InputNotFoundError, LabelError: if polygons cannot be opened.
        OptionError: if these do not fit together.
    """
    if valid_path is None:
        if split in {"folder", "areas"}:
            raise OptionError(f"`split` is {split!r}, but there is no `valid_path`. Give `valid_path` instead.")
        return {"by": split}
    if split != "blocks":
        raise OptionError(f"`split` is {split!r}, but `valid_path` says what validates. Leave one of them out.")
    if not isinstance(valid_path, str | Path | gpd.GeoDataFrame | Sequence) or not (parts := as_list(valid_path)):
        raise OptionError(f"`valid_path` is {valid_path!r}, but must be chip folders, or layers of polygons.")
    folders = [folder for part in parts if (folder := _folder(part)) is not None]
    if not folders:
        for part in parts:
            open_layer(part)
        return {"by": "areas", "areas": parts}
    if len(folders) < len(parts):
        raise OptionError(f"`valid_path` names both chip folders ({folders[0]}) and polygons. Choose one kind.")
    if cut:
        raise OptionError(
            f"`valid_path` names the folder {folders[0]}, but the chips are cut from images. Name polygons, or train "
            "from chip folders, too."
        )
    return {"by": "folder", "folders": folders}


def _folder(part: Any) -> Path | None:
    """Return the path of a folder of chips; None for polygons."""
    if isinstance(part, gpd.GeoDataFrame):
        return None
    if not isinstance(part, str | Path):
        raise OptionError(f"`valid_path` names {part!r}, but must name chip folders, or layers of polygons.")
    return local_folder(part)


def _second_class(chips: ChipSet) -> str:
    """Say how chips get a second class, by the kind of their labels."""
    if any("priority" in report.get("labels", {}) for report in chips.reports):
        return "Export with `background='class'`, or label another class."
    return (
        "If the nodata value of the label rasters is a class, such as the background, export with "
        "`label_nodata='none'`; also check that `background='ignore'` is not set. Otherwise label another class."
    )


def require_classes(chips: ChipSet, audit: Audit) -> None:
    """Check that there are two classes to tell apart, and warn of classes that a part of the chips lacks.

    Raises:
        ChipError: if there is one class only.
    """
    if len(chips.legend) < 2:
        raise ChipError(
            f"The chips hold one class only, {chips.legend.names[0]!r}, but two are needed. {_second_class(chips)}"
        )
    counts = dict(zip(chips.legend.names, chips.pixels_per_class, strict=True))  # of 0, the class balance tells
    for part, missing, so in (
        ("training", audit.missing_in_train, "the model cannot learn that"),
        ("validation", audit.missing_in_valid, "nothing is known of how well the model finds that"),
    ):
        if names := [name for name in missing if counts[name]]:
            logger.warning(f"No {part} pixel is {', '.join(names)}, so {so}. Choose another `seed`, or label more.")
